/* jinja_run.c - one rendering: its memory, its limits, its variables, its errors.
 *
 * Names are numbers here: the variables of the top level stand in a table with one entry per name of
 * the program, and inner scopes (loops, macros, blocks) are short lists searched from the innermost. */
#include "text/jinja/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

/* ---- errors ------------------------------------------------------------------------------------ */

bool jrun_fail(struct jrun *r, const char *fmt, ...)
{
    char what[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(r->e, ERR_INPUT, 0, "chat template line %d: %s", r->line, what);
}

bool jrun_undef_fail(struct jrun *r, struct jval undef)
{
    const struct jundef *u = undef.undef;
    struct jbuf text = { .run = r };

    if (u->hint)
        return jrun_fail(r, "%s", u->hint);
    if (u->object.kind == J_ABSENT)
        return jrun_fail(r, "'%.*s' is undefined", (int)(u->name.n < 80 ? u->name.n : 80),
                         u->name.s);
    jval_repr(&text, u->name, 0);
    return jrun_fail(
        r, "'%s%s' has no %s %.*s", u->object.kind == J_NONE ? "None" : jval_type_name(u->object),
        u->object.kind == J_NONE ? "" : " object", u->name.kind == J_STR ? "attribute" : "element",
        (int)(text.n < 80 ? text.n : 80), text.data ? text.data : "");
}

/* ---- limits ------------------------------------------------------------------------------------ */

bool jrun_work(struct jrun *r, size_t items)
{
    r->steps += items + 1;
    if (r->steps > r->steps_max)
        return jrun_fail(r, "rendering takes too many steps");
    if (r->mem_used > r->mem_max)
        return jrun_fail(r, "rendering takes too much memory");
    return true;
}

bool jrun_room(struct jrun *r, size_t bytes)
{
    if (bytes > r->mem_max || r->mem_used > r->mem_max - bytes)
        return jrun_fail(r, "rendering takes too much memory");
    return true;
}

void *jrun_alloc(struct jrun *r, size_t bytes)
{
    r->mem_used += bytes + 16;
    return arena_alloc(&r->mem, bytes);
}

/* ---- strings being built ------------------------------------------------------------------------- */

static bool grow(struct jbuf *b, size_t extra)
{
    size_t cap = b->cap ? b->cap : 64;
    char *data;

    if (b->is_full || extra > JINJA_STRING_MAX || b->n + extra > JINJA_STRING_MAX) {
        b->is_full = true;
        return false;
    }
    while (cap < b->n + extra)
        cap *= 2;
    if (b->run->mem_used + cap > b->run->mem_max) {
        b->is_full = true;
        return false;
    }
    data = jrun_alloc(b->run, cap);
    if (b->n)
        memcpy(data, b->data, b->n);
    b->data = data;
    b->cap = cap;
    return true;
}

void jbuf_add(struct jbuf *b, const void *bytes, size_t n)
{
    if (n == 0 || (b->n + n > b->cap && !grow(b, n)))
        return;
    memcpy(b->data + b->n, bytes, n);
    b->n += n;
}

void jbuf_add_str(struct jbuf *b, const char *s)
{
    jbuf_add(b, s, strlen(s));
}

void jbuf_add_char(struct jbuf *b, char c)
{
    jbuf_add(b, &c, 1);
}

void jbuf_add_cp(struct jbuf *b, uint32_t cp)
{
    char bytes[4];

    jbuf_add(b, bytes, utf8_encode(cp, bytes));
}

void jbuf_fill(struct jbuf *b, char c, size_t n)
{
    if (n == 0 || (b->n + n > b->cap && !grow(b, n)))
        return;
    memset(b->data + b->n, c, n);
    b->n += n;
}

bool jbuf_done(struct jbuf *b, struct jval *out)
{
    if (b->is_full)
        return jrun_fail(b->run, "a text grows past %u bytes", JINJA_STRING_MAX);
    *out = jval_str(b->n ? b->data : "", b->n);
    return jrun_work(b->run, b->n / 16);
}

/* ---- variables ----------------------------------------------------------------------------------- */

/* Searching long scopes costs steps too; the next jrun_work() notices when they are used up. */
static struct jvar *find_var(struct jrun *r, const struct jscope *s, int sym)
{
    uint32_t i = 0;

    while (i < s->n && s->vars[i].sym != sym)
        i++;
    r->steps += i / 8;
    return i < s->n ? &s->vars[i] : NULL;
}

struct jval jrun_get(struct jrun *r, int sym)
{
    for (const struct jscope *s = r->scope; s; s = s->up) {
        const struct jvar *var = find_var(r, s, sym);
        if (var)
            return var->value;
    }
    return r->top[sym];
}

void jscope_set(struct jrun *r, struct jscope *s, int sym, struct jval v)
{
    struct jvar *var = find_var(r, s, sym);

    if (var) {
        var->value = v;
        return;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        struct jvar *grown = jrun_alloc(r, cap * sizeof *grown);
        if (s->n)
            memcpy(grown, s->vars, s->n * sizeof *grown);
        s->vars = grown;
        s->cap = cap;
    }
    s->vars[s->n++] = (struct jvar){ sym, v };
}

void jrun_set(struct jrun *r, int sym, struct jval v)
{
    if (r->scope)
        jscope_set(r, r->scope, sym, v);
    else
        r->top[sym] = v;
}

static bool fill_top(struct jrun *r, const json_t *vars)
{
    const struct jprog *p = r->prog;

    r->top = jrun_alloc(r, (size_t)p->n_syms * sizeof *r->top);
    for (int i = 0; i < p->n_syms; i++) {
        const json_t *j = p->syms[i].is_loaded ? json_object_get(vars, p->syms[i].name) : NULL;
        const struct jbuiltin *f;
        if (j) {
            if (!jval_from_json(r, j, 0, &r->top[i]))
                return err_wrap(r->e, "variable '%s'", p->syms[i].name);
            continue;
        }
        f = jbuiltin_find(jinja_globals, p->syms[i].name, p->syms[i].n);
        if (f)
            r->top[i] = (struct jval){ .kind = J_FUNC, .func = f };
    }
    return true;
}

bool jrun_render(struct jrun *r, const json_t *vars)
{
    r->line = 1;
    return fill_top(r, vars) && jexec(r, r->prog->body) == JFLOW_NEXT;
}
