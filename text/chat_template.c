/* chat_template.c - compile, ask and render.  The language is in jinja_*.c. */
#include "text/chat_template.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "text/jinja/jinja.h"

enum { SCAN_PASSES_MAX = 16 }; /* templates in use need two */

static const struct chat_cost cost_of_models = { .steps_max = 20000000,
                                                 .memory_bytes_max = 256u << 20 };

struct chat_template {
    struct jprog prog;
    char *source;
    size_t n;
    bool wants_parts;
};

/* ---- who loops over the content of a message ------------------------------------------------------ */

/* One pass over the tree collects names that stand for a message (targets of loops over `messages`, or
 * set from one of its items); it is repeated until nothing is added, since names may be chained. */
struct scan {
    bool *is_messages; /* [n_syms]: the list, or a part of it */
    bool *is_message;
    bool changed;
    bool found;
};

static const struct jnode *skip_filters(const struct jnode *n)
{
    while (n && (n->type == JN_FILTER || n->type == JN_TEST))
        n = n->a;
    return n;
}

static bool is_slice(const struct jnode *n)
{
    return n->type == JN_INDEX && n->b->type == JN_SLICE;
}

static bool means_messages(const struct scan *s, const struct jnode *n)
{
    n = skip_filters(n);
    while (n && is_slice(n))
        n = skip_filters(n->a);
    return n && n->type == JN_NAME && s->is_messages[n->sym];
}

static bool means_message(const struct scan *s, const struct jnode *n)
{
    n = skip_filters(n);
    if (n && n->type == JN_NAME)
        return s->is_message[n->sym];
    return n && n->type == JN_INDEX && !is_slice(n) && means_messages(s, n->a);
}

static bool means_content(const struct scan *s, const struct jnode *n)
{
    n = skip_filters(n);
    while (n && is_slice(n))
        n = skip_filters(n->a);
    if (!n || !(n->type == JN_ATTR ? jval_is_str(n->value, "content")
                                   : n->type == JN_INDEX && n->b->type == JN_CONST &&
                                         jval_is_str(n->b->value, "content")))
        return false;
    return means_message(s, n->a);
}

static void mark(struct scan *s, bool *names, const struct jnode *target)
{
    if (target->type != JN_NAME || names[target->sym])
        return;
    names[target->sym] = true;
    s->changed = true;
}

static void scan_list(struct scan *s, const struct jnode *n)
{
    for (; n; n = n->next) {
        if (n->type == JN_FOR && means_messages(s, n->b))
            mark(s, s->is_message, n->a);
        if (n->type == JN_FOR && means_content(s, n->b))
            s->found = true;
        if (n->type == JN_SET && means_messages(s, n->b))
            mark(s, s->is_messages, n->a);
        if (n->type == JN_SET && means_message(s, n->b))
            mark(s, s->is_message, n->a);
        scan_list(s, n->a);
        scan_list(s, n->b);
        scan_list(s, n->c);
        for (const struct jnode *elif = n->d; elif && n->type == JN_IF; elif = elif->d) {
            scan_list(s, elif->b);
            scan_list(s, elif->c);
        }
        if (n->type != JN_IF)
            scan_list(s, n->d);
    }
}

static bool loops_over_content(const struct jprog *p)
{
    int messages = jprog_find_sym(p, "messages", strlen("messages"));
    struct scan s = { .changed = true };

    if (messages < 0)
        return false;
    s.is_messages = mem_zalloc((size_t)p->n_syms, sizeof(bool));
    s.is_message = mem_zalloc((size_t)p->n_syms, sizeof(bool));
    s.is_messages[messages] = true;
    for (int pass = 0; pass < SCAN_PASSES_MAX && s.changed && !s.found; pass++) {
        s.changed = false;
        scan_list(&s, p->body);
    }
    free(s.is_messages);
    free(s.is_message);
    return s.found;
}

/* ---- public --------------------------------------------------------------------------------------- */

struct chat_template *chat_template_new(const char *source, size_t n, struct err *e)
{
    struct chat_template *t = mem_zalloc(1, sizeof *t);

    if (!jprog_init(&t->prog, source, n, e)) {
        chat_template_free(t);
        return NULL;
    }
    t->source = mem_strndup(source, n);
    t->n = n;
    t->wants_parts = loops_over_content(&t->prog);
    return t;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    jprog_fini(&t->prog);
    free(t->source);
    free(t);
}

bool chat_template_render_within(const struct chat_template *t, const struct chat_cost *cost,
                                 const json_t *vars, const struct tm *now, struct buf *out,
                                 struct err *e)
{
    struct jrun r = { .prog = &t->prog,
                      .now = now,
                      .e = e,
                      .steps_max = cost->steps_max,
                      .mem_max = cost->memory_bytes_max };
    struct jbuf text = { .run = &r };
    struct jval whole;
    bool ok;

    assert(json_is_object(vars) && now);
    r.out = &text;
    ok = jrun_render(&r, vars) && jbuf_done(&text, &whole);
    if (ok)
        buf_add(out, whole.s, whole.n);
    arena_fini(&r.mem);
    return ok;
}

bool chat_template_render(const struct chat_template *t, const json_t *vars, const struct tm *now,
                          struct buf *out, struct err *e)
{
    return chat_template_render_within(t, &cost_of_models, vars, now, out, e);
}

bool chat_template_uses(const struct chat_template *t, const char *name)
{
    int sym = jprog_find_sym(&t->prog, name, strlen(name));

    return sym >= 0 && t->prog.syms[sym].is_loaded;
}

bool chat_template_mentions(const struct chat_template *t, const char *word)
{
    return memmem(t->source, t->n, word, strlen(word)) != NULL;
}

bool chat_template_wants_parts(const struct chat_template *t)
{
    return t->wants_parts;
}
