/* jinja_parse.c - tokens to the tree: statements.  Expressions are in jinja_parse_expr.c.
 *
 * Recursive descent.  Every node knows its depth, and both the nesting of the source and the depth of
 * the tree are bounded, so that neither the parser nor the run can exhaust the stack. */
#include "text/jinja/jinja.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool parse_body(struct jparser *p, const char *const *ends, struct jnode *opener,
                       struct jnode **out);

bool jparse_fail(struct jparser *p, int line, const char *fmt, ...)
{
    char what[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(p->e, ERR_MODEL, 0, "chat template line %d: %s", line, what);
}

struct jnode *jparse_node(struct jparser *p, enum jnode_type type)
{
    struct jnode *n = arena_alloc(&p->prog->mem, sizeof *n);

    n->type = type;
    n->line = p->at->line;
    n->depth = 1;
    return n;
}

bool jparse_is_op(const struct jparser *p, int op)
{
    return p->at->type == JT_OP && p->at->op == op;
}

bool jparse_is_name(const struct jparser *p, const char *name)
{
    return p->at->type == JT_NAME && p->at->n == strlen(name) &&
           memcmp(p->at->s, name, p->at->n) == 0;
}

bool jparse_skip_op(struct jparser *p, int op)
{
    if (!jparse_is_op(p, op))
        return false;
    p->at++;
    return true;
}

bool jparse_skip_name(struct jparser *p, const char *name)
{
    if (!jparse_is_name(p, name))
        return false;
    p->at++;
    return true;
}

bool jparse_expect_op(struct jparser *p, int op)
{
    return jparse_skip_op(p, op) || jparse_fail(p, p->at->line, "expected '%c'", op);
}

bool jparse_enter(struct jparser *p)
{
    return ++p->nest <= JINJA_NEST_MAX ||
           jparse_fail(p, p->at->line, "nested deeper than %d levels", JINJA_NEST_MAX);
}

static int deepest(const struct jnode *list)
{
    int depth = 0;

    for (; list; list = list->next)
        if (list->depth > depth)
            depth = list->depth;
    return depth;
}

bool jparse_seal(struct jparser *p, struct jnode *n)
{
    const struct jnode *const children[] = { n->a, n->b, n->c, n->d, n->e };

    for (size_t i = 0; i < sizeof children / sizeof *children; i++) {
        int depth = deepest(children[i]) + 1;
        if (depth > n->depth)
            n->depth = depth;
    }
    return n->depth <= JINJA_NEST_MAX ||
           jparse_fail(p, n->line, "nested deeper than %d levels", JINJA_NEST_MAX);
}

static bool expect_block_end(struct jparser *p)
{
    if (p->at->type != JT_BLOCK_END)
        return jparse_fail(p, p->at->line, "expected '%%}'");
    p->at++;
    return true;
}

/* ---- targets of set, for and with -------------------------------------------------------------- */

static bool check_target(struct jparser *p, struct jnode *n, bool is_in_for)
{
    if (n->type == JN_NAME) {
        if (n->sym == JSYM_LOOP && is_in_for)
            return jparse_fail(p, n->line, "cannot assign to 'loop' inside a loop");
        return true;
    }
    if (n->type == JN_NS_ATTR)
        return true;
    if (n->type != JN_TUPLE)
        return jparse_fail(p, n->line, "cannot assign to this expression");
    for (struct jnode *item = n->a; item; item = item->next)
        if (!check_target(p, item, is_in_for))
            return false;
    return true;
}

static struct jnode *parse_namespace_target(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_NS_ATTR);

    n->sym = jprog_intern(p->prog, p->at->s, p->at->n);
    if (n->sym < 0)
        return jparse_fail(p, n->line, "too many different names"), NULL;
    p->prog->syms[n->sym].is_loaded = true;
    p->at += 2;
    if (p->at->type != JT_NAME)
        return jparse_fail(p, n->line, "expected a name after '.'"), NULL;
    n->value = jval_str(arena_strndup(&p->prog->mem, p->at->s, p->at->n), p->at->n);
    p->at++;
    return n;
}

/* A name, several as a tuple, or "namespace.name" where a set statement asks.  `end` is the word that
 * ends the target of a for statement. */
static struct jnode *parse_target(struct jparser *p, const char *end, bool with_namespace)
{
    struct jnode *n;

    if (with_namespace && p->at[0].type == JT_NAME && p->at[1].type == JT_OP && p->at[1].op == '.')
        return parse_namespace_target(p);
    p->is_target = true;
    n = jparse_tuple(p, JTUPLE_PRIMARY, end);
    p->is_target = false;
    return n && check_target(p, n, end || p->loops > 0) ? n : NULL;
}

/* ---- statements -------------------------------------------------------------------------------- */

static struct jnode *parse_if(struct jparser *p)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    static const char *const else_ends[] = { "endif", NULL };
    struct jnode *first = jparse_node(p, JN_IF), *n = first;

    for (;;) {
        n->a = jparse_tuple(p, JTUPLE_NO_COND, NULL);
        if (!n->a || !expect_block_end(p) || !parse_body(p, ends, first, &n->b))
            return NULL;
        if (!jparse_skip_name(p, "elif"))
            break;
        n->d = jparse_node(p, JN_IF);
        n = n->d;
    }
    if (jparse_skip_name(p, "else") &&
        (!expect_block_end(p) || !parse_body(p, else_ends, first, &n->c)))
        return NULL;
    p->at++; /* endif */
    /* The chain of elifs is walked in a loop, so it counts as one level however long it is. */
    for (n = first; n; n = n->d) {
        struct jnode *next = n->d;
        n->d = NULL;
        if (!jparse_seal(p, n))
            return NULL;
        n->d = next;
        if (n->depth > first->depth)
            first->depth = n->depth;
    }
    return first;
}

static struct jnode *parse_for(struct jparser *p)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    static const char *const else_ends[] = { "endfor", NULL };
    struct jnode *n = jparse_node(p, JN_FOR);

    n->a = parse_target(p, "in", false);
    if (!n->a)
        return NULL;
    if (!jparse_skip_name(p, "in"))
        return jparse_fail(p, p->at->line, "expected 'in' in a for statement"), NULL;
    n->b = jparse_tuple(p, JTUPLE_NO_COND, "recursive");
    if (!n->b || (jparse_skip_name(p, "if") && !(n->e = jparse_expr(p))))
        return NULL;
    if (jparse_is_name(p, "recursive"))
        return jparse_fail(p, p->at->line, "recursive for statements are not supported"), NULL;
    p->loops++;
    if (!expect_block_end(p) || !parse_body(p, ends, n, &n->c))
        return NULL;
    p->loops--;
    if (jparse_skip_name(p, "else") &&
        (!expect_block_end(p) || !parse_body(p, else_ends, n, &n->d)))
        return NULL;
    p->at++; /* endfor */
    return n;
}

static struct jnode *parse_set(struct jparser *p)
{
    static const char *const ends[] = { "endset", NULL };
    struct jnode *n = jparse_node(p, JN_SET);

    n->a = parse_target(p, NULL, true);
    if (!n->a)
        return NULL;
    if (jparse_skip_op(p, '=')) {
        n->b = jparse_tuple(p, JTUPLE_ANY, NULL);
        return n->b ? n : NULL;
    }
    n->type = JN_SET_BLOCK;
    if (jparse_is_op(p, '|') && !(n->c = jparse_filters(p, NULL, false)))
        return NULL;
    if (!expect_block_end(p) || !parse_body(p, ends, n, &n->b))
        return NULL;
    p->at++; /* endset */
    return n;
}

/* "(a, b=1)" as a list of JN_PARAM. */
static bool parse_params(struct jparser *p, struct jnode **out)
{
    struct jnode **tail = out, *n;
    bool has_default = false;

    if (!jparse_expect_op(p, '('))
        return false;
    while (!jparse_is_op(p, ')')) {
        if (tail != out && !jparse_expect_op(p, ','))
            return false;
        n = jparse_node(p, JN_PARAM);
        if (p->at->type != JT_NAME)
            return jparse_fail(p, p->at->line, "expected the name of a parameter");
        n->sym = jprog_intern(p->prog, p->at->s, p->at->n);
        if (n->sym < 0)
            return jparse_fail(p, n->line, "too many different names");
        p->at++;
        if (jparse_skip_op(p, '=')) {
            has_default = true;
            if (!(n->a = jparse_expr(p)))
                return false;
        } else if (has_default) {
            return jparse_fail(p, n->line, "a parameter without default follows one with");
        }
        if (!jparse_seal(p, n))
            return false;
        *tail = n;
        tail = &n->next;
    }
    p->at++; /* ) */
    return true;
}

/* The body of a macro or call block: its own loops, and flags set when it names a special variable. */
static bool parse_function_body(struct jparser *p, const char *const *ends, struct jnode *n)
{
    struct jnode *outer = p->macro;
    int loops = p->loops;
    bool ok;

    p->macro = n;
    p->loops = 0;
    ok = expect_block_end(p) && parse_body(p, ends, n, &n->b);
    p->macro = outer;
    p->loops = loops;
    p->at += ok; /* endmacro, endcall or endgeneration */
    return ok;
}

static struct jnode *parse_macro(struct jparser *p)
{
    static const char *const ends[] = { "endmacro", NULL };
    struct jnode *n = jparse_node(p, JN_MACRO);

    if (p->at->type != JT_NAME)
        return jparse_fail(p, p->at->line, "expected the name of a macro"), NULL;
    n->sym = jprog_intern(p->prog, p->at->s, p->at->n);
    if (n->sym < 0)
        return jparse_fail(p, n->line, "too many different names"), NULL;
    p->at++;
    return parse_params(p, &n->a) && parse_function_body(p, ends, n) ? n : NULL;
}

static struct jnode *parse_call_block(struct jparser *p)
{
    static const char *const ends[] = { "endcall", NULL };
    struct jnode *n = jparse_node(p, JN_CALL_BLOCK);

    if (jparse_is_op(p, '(') && !parse_params(p, &n->c))
        return NULL;
    n->a = jparse_expr(p);
    if (!n->a)
        return NULL;
    if (n->a->type != JN_CALL)
        return jparse_fail(p, n->line, "expected a call in a call statement"), NULL;
    return parse_function_body(p, ends, n) ? n : NULL;
}

static struct jnode *parse_filter_block(struct jparser *p)
{
    static const char *const ends[] = { "endfilter", NULL };
    struct jnode *n = jparse_node(p, JN_FILTER_BLOCK);

    n->a = jparse_filters(p, NULL, true);
    if (!n->a || !expect_block_end(p) || !parse_body(p, ends, n, &n->b))
        return NULL;
    p->at++; /* endfilter */
    return n;
}

static struct jnode *parse_with(struct jparser *p)
{
    static const char *const ends[] = { "endwith", NULL };
    struct jnode *n = jparse_node(p, JN_WITH), **target = &n->a, **value = &n->b;

    while (p->at->type != JT_BLOCK_END) {
        if (target != &n->a && !jparse_expect_op(p, ','))
            return NULL;
        *target = parse_target(p, NULL, false);
        if (!*target || !jparse_expect_op(p, '='))
            return NULL;
        *value = jparse_expr(p);
        if (!*value)
            return NULL;
        target = &(*target)->next;
        value = &(*value)->next;
    }
    if (!expect_block_end(p) || !parse_body(p, ends, n, &n->c))
        return NULL;
    p->at++; /* endwith */
    return n;
}

static struct jnode *parse_generation(struct jparser *p)
{
    static const char *const ends[] = { "endgeneration", NULL };
    struct jnode *n = jparse_node(p, JN_GENERATION);

    return parse_function_body(p, ends, n) ? n : NULL;
}

static struct jnode *parse_print(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_PRINT), **tail = &n->a;

    while (p->at->type != JT_BLOCK_END) {
        if (n->a && !jparse_expect_op(p, ','))
            return NULL;
        *tail = jparse_expr(p);
        if (!*tail)
            return NULL;
        tail = &(*tail)->next;
    }
    return n;
}

static struct jnode *parse_jump(struct jparser *p, enum jnode_type type)
{
    struct jnode *n = jparse_node(p, type);

    n->line = p->at[-1].line;
    if (p->loops == 0)
        return jparse_fail(p, n->line, "'%s' outside a loop",
                           type == JN_BREAK ? "break" : "continue"),
               NULL;
    return n;
}

static struct jnode *parse_break(struct jparser *p)
{
    return parse_jump(p, JN_BREAK);
}

static struct jnode *parse_continue(struct jparser *p)
{
    return parse_jump(p, JN_CONTINUE);
}

static const struct {
    const char *name;
    struct jnode *(*parse)(struct jparser *); /* NULL: Jinja has it, we do not */
} statements[] = {
    { "if", parse_if },
    { "for", parse_for },
    { "set", parse_set },
    { "macro", parse_macro },
    { "call", parse_call_block },
    { "filter", parse_filter_block },
    { "with", parse_with },
    { "generation", parse_generation },
    { "print", parse_print },
    { "break", parse_break },
    { "continue", parse_continue },
    { "block", NULL },
    { "extends", NULL },
    { "include", NULL },
    { "import", NULL },
    { "from", NULL },
    { "autoescape", NULL },
    { "do", NULL },
};

static struct jnode *parse_statement(struct jparser *p)
{
    const struct jtok *t = p->at;
    struct jnode *n;

    if (t->type != JT_NAME)
        return jparse_fail(p, t->line, "expected the name of a statement"), NULL;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!jparse_is_name(p, statements[i].name))
            continue;
        if (!statements[i].parse)
            return jparse_fail(p, t->line, "statement '%s' is not supported", statements[i].name),
                   NULL;
        p->at++;
        n = statements[i].parse(p);
        return n && jparse_seal(p, n) ? n : NULL;
    }
    return jparse_fail(p, t->line, "unknown statement '%.*s'", (int)(t->n < 60 ? t->n : 60), t->s),
           NULL;
}

/* ---- bodies ------------------------------------------------------------------------------------ */

static bool is_end(const struct jparser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jparse_is_name(p, *ends))
            return true;
    return false;
}

static struct jnode *parse_text(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_TEXT);

    n->value = jval_str(arena_strndup(&p->prog->mem, p->at->s, p->at->n), p->at->n);
    p->at++;
    return n;
}

static struct jnode *parse_output(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_PRINT);

    p->at++; /* {{ */
    n->a = jparse_tuple(p, JTUPLE_ANY, NULL);
    if (!n->a || !jparse_seal(p, n))
        return NULL;
    if (p->at->type != JT_PRINT_END)
        return jparse_fail(p, p->at->line, "expected '}}'"), NULL;
    p->at++;
    return n;
}

/* Statements and text up to the name of one of `ends`, which is left for the caller; without ends, up
 * to the end of the source. */
static bool parse_body(struct jparser *p, const char *const *ends, struct jnode *opener,
                       struct jnode **out)
{
    struct jnode **tail = out, *n;

    if (!jparse_enter(p))
        return false;
    while (p->at->type != JT_EOF) {
        if (p->at->type == JT_TEXT) {
            n = parse_text(p);
        } else if (p->at->type == JT_PRINT_BEGIN) {
            n = parse_output(p);
        } else {
            assert(p->at->type == JT_BLOCK_BEGIN);
            p->at++;
            if (is_end(p, ends)) {
                p->nest--;
                return true;
            }
            n = parse_statement(p);
            if (n && !expect_block_end(p))
                return false;
        }
        if (!n)
            return false;
        *tail = n;
        tail = &n->next;
    }
    p->nest--;
    while (ends && ends[1])
        ends++;
    return !ends || jparse_fail(p, opener->line, "a block that starts here has no '%s'", *ends);
}

/* ---- the program ------------------------------------------------------------------------------- */

static unsigned hash_name(const char *name, size_t n)
{
    unsigned h = 2166136261u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)name[i]) * 16777619u;
    return (h ^ h >> 16) & 255;
}

int jprog_find_sym(const struct jprog *p, const char *name, size_t n)
{
    int i = p->sym_heads[hash_name(name, n)];

    while (i >= 0 && (p->syms[i].n != n || memcmp(p->syms[i].name, name, n) != 0))
        i = p->syms[i].next;
    return i;
}

int jprog_intern(struct jprog *p, const char *name, size_t n)
{
    int i = jprog_find_sym(p, name, n);
    unsigned head = hash_name(name, n);

    if (i >= 0 || p->n_syms == JINJA_SYMBOLS_MAX)
        return i;
    if (p->n_syms == p->syms_cap) {
        int cap = p->syms_cap ? p->syms_cap * 2 : 32;
        struct jsym *grown = arena_alloc(&p->mem, (size_t)cap * sizeof *grown);
        if (p->n_syms)
            memcpy(grown, p->syms, (size_t)p->n_syms * sizeof *grown);
        p->syms = grown;
        p->syms_cap = cap;
    }
    p->syms[p->n_syms] = (struct jsym){ .name = arena_strndup(&p->mem, name, n),
                                        .n = (uint32_t)n,
                                        .next = p->sym_heads[head] };
    p->sym_heads[head] = p->n_syms;
    return p->n_syms++;
}

bool jprog_init(struct jprog *p, const char *source, size_t n, struct err *e)
{
    static const char *const specials[] = { "loop", "caller", "varargs", "kwargs" };
    struct arena tokens = { 0 };
    struct jtok *toks;
    size_t n_toks;
    bool ok = false;

    for (size_t i = 0; i < sizeof p->sym_heads / sizeof *p->sym_heads; i++)
        p->sym_heads[i] = -1;
    for (int i = 0; i < (int)(sizeof specials / sizeof *specials); i++) {
        int sym = jprog_intern(p, specials[i], strlen(specials[i]));
        assert(sym == i); /* JSYM_* */
    }
    if (jlex(source, n, &tokens, &toks, &n_toks, e)) {
        struct jparser parser = { .prog = p, .at = toks, .e = e };
        ok = parse_body(&parser, NULL, NULL, &p->body);
    }
    arena_fini(&tokens);
    return ok;
}

void jprog_fini(struct jprog *p)
{
    arena_fini(&p->mem);
}
