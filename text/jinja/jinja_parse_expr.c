/* jinja_parse_expr.c - tokens to the tree: expressions, with Jinja's precedences.
 *
 * From loose to tight: inline if; or; and; not; comparisons and in; + -; ~; * / // %; ** (from the
 * left, unlike Python); unary + -; then calls, subscripts, filters and tests after a primary. */
#include "text/jinja/jinja.h"

#include <string.h>

static struct jnode *parse_unary(struct jparser *p, bool with_filter);

/* The tree node `n` with its children set, or NULL when it is too deep. */
static struct jnode *seal(struct jparser *p, struct jnode *n)
{
    return jparse_seal(p, n) ? n : NULL;
}

static struct jnode *fail_here(struct jparser *p, const char *what)
{
    jparse_fail(p, p->at->line, "%s", what);
    return NULL;
}

static bool keep_text(struct jparser *p, struct jnode *n, const char *s, size_t len)
{
    n->value = jval_str(arena_strndup(&p->prog->mem, s, len), len);
    return true;
}

/* ---- primaries --------------------------------------------------------------------------------- */

static struct jnode *parse_strings(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_CONST);
    size_t len = 0, at = 0;
    const struct jtok *first = p->at;
    char *text;

    for (; p->at->type == JT_STRING; p->at++)
        len += p->at->n;
    text = arena_alloc(&p->prog->mem, len + 1);
    for (; first != p->at; first++) {
        memcpy(text + at, first->s, first->n);
        at += first->n;
    }
    n->value = jval_str(text, len);
    return n;
}

static bool constant_name(const struct jparser *p, struct jval *out)
{
    if (jparse_is_name(p, "true") || jparse_is_name(p, "True"))
        *out = jval_bool(true);
    else if (jparse_is_name(p, "false") || jparse_is_name(p, "False"))
        *out = jval_bool(false);
    else if (jparse_is_name(p, "none") || jparse_is_name(p, "None"))
        *out = jval_none();
    else
        return false;
    return true;
}

static struct jnode *parse_name(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_NAME);

    if (constant_name(p, &n->value)) {
        n->type = JN_CONST;
        p->at++;
        return n;
    }
    n->sym = jprog_intern(p->prog, p->at->s, p->at->n);
    if (n->sym < 0)
        return fail_here(p, "too many different names");
    if (!p->is_target)
        p->prog->syms[n->sym].is_loaded = true;
    if (p->macro && n->sym == JSYM_VARARGS)
        p->macro->flags |= JMACRO_VARARGS;
    if (p->macro && n->sym == JSYM_KWARGS)
        p->macro->flags |= JMACRO_KWARGS;
    if (p->macro && n->sym == JSYM_CALLER)
        p->macro->flags |= JMACRO_CALLER;
    p->at++;
    return n;
}

static struct jnode *parse_list(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_LIST), **tail = &n->a;

    p->at++; /* [ */
    while (!jparse_is_op(p, ']')) {
        if (n->a && !jparse_expect_op(p, ','))
            return NULL;
        if (jparse_is_op(p, ']'))
            break;
        *tail = jparse_expr(p);
        if (!*tail)
            return NULL;
        tail = &(*tail)->next;
    }
    p->at++; /* ] */
    return seal(p, n);
}

static struct jnode *parse_dict(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_DICT), **tail = &n->a;

    p->at++; /* { */
    while (!jparse_is_op(p, '}')) {
        struct jnode *pair;
        if (n->a && !jparse_expect_op(p, ','))
            return NULL;
        if (jparse_is_op(p, '}'))
            break;
        pair = jparse_node(p, JN_PAIR);
        if (!(pair->a = jparse_expr(p)) || !jparse_expect_op(p, ':') ||
            !(pair->b = jparse_expr(p)) || !jparse_seal(p, pair))
            return NULL;
        *tail = pair;
        tail = &pair->next;
    }
    p->at++; /* } */
    return seal(p, n);
}

struct jnode *jparse_primary(struct jparser *p)
{
    const struct jtok *t = p->at;
    struct jnode *n;

    if (t->type == JT_NAME)
        return parse_name(p);
    if (t->type == JT_STRING)
        return parse_strings(p);
    if (t->type == JT_INT || t->type == JT_FLOAT) {
        n = jparse_node(p, JN_CONST);
        n->value = t->type == JT_INT ? jval_int(t->i) : jval_float(t->f);
        p->at++;
        return n;
    }
    if (jparse_is_op(p, '(')) {
        p->at++;
        n = jparse_tuple(p, JTUPLE_PARENS, NULL);
        return n && jparse_expect_op(p, ')') ? n : NULL;
    }
    if (jparse_is_op(p, '['))
        return parse_list(p);
    if (jparse_is_op(p, '{'))
        return parse_dict(p);
    return fail_here(p, "expected an expression");
}

static bool ends_tuple(const struct jparser *p, const char *end)
{
    return p->at->type == JT_PRINT_END || p->at->type == JT_BLOCK_END || jparse_is_op(p, ')') ||
           (end && jparse_is_name(p, end));
}

struct jnode *jparse_tuple(struct jparser *p, enum jtuple how, const char *end)
{
    struct jnode *n = jparse_node(p, JN_TUPLE), **tail = &n->a;
    bool is_tuple = false;

    while (!ends_tuple(p, end)) {
        *tail = how == JTUPLE_PRIMARY   ? jparse_primary(p)
                : how == JTUPLE_NO_COND ? jparse_or(p)
                                        : jparse_expr(p);
        if (!*tail)
            return NULL;
        tail = &(*tail)->next;
        if (!jparse_skip_op(p, ','))
            break;
        is_tuple = true;
    }
    if (!is_tuple && n->a)
        return n->a;
    if (!is_tuple && how != JTUPLE_PARENS)
        return fail_here(p, "expected an expression");
    return seal(p, n);
}

/* ---- what follows a primary --------------------------------------------------------------------- */

static struct jnode *parse_argument(struct jparser *p)
{
    struct jnode *n;

    if (jparse_is_op(p, '*') || jparse_is_op(p, JT_POW)) {
        n = jparse_node(p, jparse_is_op(p, '*') ? JN_STAR : JN_STAR2);
        p->at++;
    } else if (p->at[0].type == JT_NAME && p->at[1].type == JT_OP && p->at[1].op == '=') {
        n = jparse_node(p, JN_KWARG);
        keep_text(p, n, p->at->s, p->at->n);
        p->at += 2;
    } else {
        return jparse_expr(p);
    }
    n->a = jparse_expr(p);
    return n->a ? seal(p, n) : NULL;
}

/* "(a, *b, c=1, **d)" into *out.  A plain argument may not follow one of the other kinds. */
static bool parse_arguments(struct jparser *p, struct jnode **out)
{
    struct jnode **tail = out;
    int latest = 0, n_args = 0;

    p->at++; /* ( */
    while (!jparse_is_op(p, ')')) {
        struct jnode *arg;
        int rank;
        if (n_args > 0 && !jparse_expect_op(p, ','))
            return false;
        if (jparse_is_op(p, ')'))
            break;
        if (++n_args > JCALL_ARGS_MAX)
            return jparse_fail(p, p->at->line, "more than %d arguments", JCALL_ARGS_MAX);
        arg = parse_argument(p);
        if (!arg)
            return false;
        rank = arg->type == JN_STAR2 ? 3 : arg->type == JN_STAR ? 2 : arg->type == JN_KWARG;
        if (latest == 3 || (rank == 0 && latest > 0) || (rank == 2 && latest == 2))
            return jparse_fail(p, arg->line, "invalid order of arguments");
        if (rank > latest)
            latest = rank;
        *tail = arg;
        tail = &arg->next;
    }
    p->at++; /* ) */
    return true;
}

static struct jnode *parse_call(struct jparser *p, struct jnode *callee)
{
    struct jnode *n = jparse_node(p, JN_CALL);

    n->a = callee;
    return parse_arguments(p, &n->b) ? seal(p, n) : NULL;
}

static struct jnode *parse_attr(struct jparser *p, struct jnode *object)
{
    struct jnode *n = jparse_node(p, JN_ATTR);
    const struct jtok *t;

    p->at++; /* . */
    t = p->at;
    n->a = object;
    if (t->type == JT_INT) {
        n->type = JN_INDEX;
        n->b = jparse_primary(p);
        return n->b ? seal(p, n) : NULL;
    }
    if (t->type != JT_NAME)
        return fail_here(p, "expected a name after '.'");
    keep_text(p, n, t->s, t->n);
    n->methods = (struct jattr_funcs){ jbuiltin_find(jinja_str_methods, t->s, t->n),
                                       jbuiltin_find(jinja_seq_methods, t->s, t->n),
                                       jbuiltin_find(jinja_dict_methods, t->s, t->n) };
    p->at++;
    return seal(p, n);
}

/* One subscript: an expression, or "start:stop:step" with parts left out. */
static struct jnode *parse_subscript(struct jparser *p)
{
    struct jnode *n = jparse_node(p, JN_SLICE);

    if (!jparse_is_op(p, ':')) {
        n->a = jparse_expr(p);
        if (!n->a || !jparse_is_op(p, ':'))
            return n->a;
    }
    p->at++; /* : */
    if (!jparse_is_op(p, ':') && !jparse_is_op(p, ']') && !(n->b = jparse_expr(p)))
        return NULL;
    if (jparse_skip_op(p, ':') && !jparse_is_op(p, ']') && !(n->c = jparse_expr(p)))
        return NULL;
    return seal(p, n);
}

static struct jnode *parse_index(struct jparser *p, struct jnode *object)
{
    struct jnode *n = jparse_node(p, JN_INDEX), *key, **tail;

    p->at++; /* [ */
    n->a = object;
    n->b = parse_subscript(p);
    if (n->b && jparse_is_op(p, ',')) { /* several make a tuple */
        key = jparse_node(p, JN_TUPLE);
        key->a = n->b;
        for (tail = &key->a->next; jparse_skip_op(p, ',');) {
            *tail = jparse_expr(p);
            if (!*tail)
                return NULL;
            tail = &(*tail)->next;
        }
        if (key->a->type == JN_SLICE)
            return fail_here(p, "slices in a tuple are not supported");
        n->b = seal(p, key);
    }
    return n->b && jparse_expect_op(p, ']') ? seal(p, n) : NULL;
}

static struct jnode *parse_postfix(struct jparser *p, struct jnode *n)
{
    while (n) {
        if (jparse_is_op(p, '.'))
            n = parse_attr(p, n);
        else if (jparse_is_op(p, '['))
            n = parse_index(p, n);
        else if (jparse_is_op(p, '('))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

struct jnode *jparse_filters(struct jparser *p, struct jnode *input, bool inline_first)
{
    while (inline_first || jparse_is_op(p, '|')) {
        struct jnode *n;
        if (!inline_first)
            p->at++;
        inline_first = false;
        if (p->at->type != JT_NAME)
            return fail_here(p, "expected the name of a filter");
        n = jparse_node(p, JN_FILTER);
        n->a = input;
        n->func = jinja_find_filter(p->at->s, p->at->n);
        if (!n->func) {
            jparse_fail(p, n->line, "filter '%.*s' is not supported",
                        (int)(p->at->n < 60 ? p->at->n : 60), p->at->s);
            return NULL;
        }
        p->at++;
        if ((jparse_is_op(p, '(') && !parse_arguments(p, &n->b)) || !jparse_seal(p, n))
            return NULL;
        input = n;
    }
    return input;
}

/* The argument of a test may stand without parentheses: "x is divisibleby 3". */
static bool starts_test_argument(const struct jparser *p)
{
    if (p->at->type == JT_NAME)
        return !jparse_is_name(p, "else") && !jparse_is_name(p, "or") && !jparse_is_name(p, "and");
    return p->at->type == JT_STRING || p->at->type == JT_INT || p->at->type == JT_FLOAT ||
           jparse_is_op(p, '[') || jparse_is_op(p, '{');
}

static struct jnode *parse_test(struct jparser *p, struct jnode *input)
{
    struct jnode *n, *negated = NULL;

    p->at++; /* is */
    if (jparse_is_name(p, "not")) {
        negated = jparse_node(p, JN_NOT);
        p->at++;
    }
    if (p->at->type != JT_NAME)
        return fail_here(p, "expected the name of a test");
    n = jparse_node(p, JN_TEST);
    n->a = input;
    n->func = jbuiltin_find(jinja_tests, p->at->s, p->at->n);
    if (!n->func) {
        jparse_fail(p, n->line, "test '%.*s' is not supported",
                    (int)(p->at->n < 60 ? p->at->n : 60), p->at->s);
        return NULL;
    }
    p->at++;
    if (jparse_is_op(p, '(')) {
        if (!parse_arguments(p, &n->b))
            return NULL;
    } else if (starts_test_argument(p)) {
        if (jparse_is_name(p, "is"))
            return fail_here(p, "tests cannot be chained with 'is'");
        n->b = parse_postfix(p, jparse_primary(p));
        if (!n->b)
            return NULL;
    }
    if (!jparse_seal(p, n))
        return NULL;
    if (!negated)
        return n;
    negated->a = n;
    return seal(p, negated);
}

static struct jnode *parse_filters_and_tests(struct jparser *p, struct jnode *n)
{
    while (n) {
        if (jparse_is_op(p, '|'))
            n = jparse_filters(p, n, false);
        else if (jparse_is_name(p, "is"))
            n = parse_test(p, n);
        else if (jparse_is_op(p, '('))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* ---- operators ---------------------------------------------------------------------------------- */

static struct jnode *parse_signed(struct jparser *p)
{
    struct jnode *n = jparse_node(p, jparse_is_op(p, '-') ? JN_NEG : JN_POS);

    p->at++;
    n->a = parse_unary(p, false);
    return n->a ? seal(p, n) : NULL;
}

static struct jnode *parse_unary(struct jparser *p, bool with_filter)
{
    struct jnode *n;

    if (!jparse_enter(p))
        return NULL;
    n = jparse_is_op(p, '-') || jparse_is_op(p, '+') ? parse_signed(p) : jparse_primary(p);
    n = parse_postfix(p, n);
    if (with_filter)
        n = parse_filters_and_tests(p, n);
    p->nest--;
    return n;
}

struct binary {
    int token;
    enum jop op;
};

/* left (op left)*, grouped from the left, for the operators of one precedence. */
static struct jnode *parse_binary(struct jparser *p, const struct binary *ops,
                                  struct jnode *(*operand)(struct jparser *))
{
    struct jnode *left = operand(p);

    while (left) {
        const struct binary *found = ops;
        struct jnode *n;
        while (found->token && !jparse_is_op(p, found->token))
            found++;
        if (!found->token)
            break;
        n = jparse_node(p, JN_BINARY);
        p->at++;
        n->op = found->op;
        n->a = left;
        n->b = operand(p);
        left = n->b ? seal(p, n) : NULL;
    }
    return left;
}

static struct jnode *parse_operand(struct jparser *p)
{
    return parse_unary(p, true);
}

static struct jnode *parse_power(struct jparser *p)
{
    static const struct binary ops[] = { { JT_POW, JOP_POW }, { 0, 0 } };

    return parse_binary(p, ops, parse_operand);
}

static struct jnode *parse_product(struct jparser *p)
{
    static const struct binary ops[] = { { '*', JOP_MUL },
                                         { '/', JOP_DIV },
                                         { JT_FLOORDIV, JOP_FLOORDIV },
                                         { '%', JOP_MOD },
                                         { 0, 0 } };

    return parse_binary(p, ops, parse_power);
}

static struct jnode *parse_concat(struct jparser *p)
{
    struct jnode *first = parse_product(p), *n, **tail;

    if (!first || !jparse_is_op(p, '~'))
        return first;
    n = jparse_node(p, JN_CONCAT);
    n->a = first;
    tail = &first->next;
    while (jparse_skip_op(p, '~')) {
        *tail = parse_product(p);
        if (!*tail)
            return NULL;
        tail = &(*tail)->next;
    }
    return seal(p, n);
}

static struct jnode *parse_sum(struct jparser *p)
{
    static const struct binary ops[] = { { '+', JOP_ADD }, { '-', JOP_SUB }, { 0, 0 } };

    return parse_binary(p, ops, parse_concat);
}

static bool take_comparison(struct jparser *p, enum jop *op)
{
    static const struct binary ops[] = { { JT_EQ, JOP_EQ }, { JT_NE, JOP_NE }, { '<', JOP_LT },
                                         { JT_LE, JOP_LE }, { '>', JOP_GT },   { JT_GE, JOP_GE } };

    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (jparse_skip_op(p, ops[i].token)) {
            *op = ops[i].op;
            return true;
        }
    }
    if (jparse_skip_name(p, "in")) {
        *op = JOP_IN;
        return true;
    }
    if (jparse_is_name(p, "not") && p->at[1].type == JT_NAME && p->at[1].n == 2 &&
        memcmp(p->at[1].s, "in", 2) == 0) {
        p->at += 2;
        *op = JOP_NOT_IN;
        return true;
    }
    return false;
}

static struct jnode *parse_comparison(struct jparser *p)
{
    struct jnode *first = parse_sum(p), *n = NULL, **tail = NULL;
    enum jop op;
    int line = p->at->line;

    while (first && take_comparison(p, &op)) {
        struct jnode *operand = jparse_node(p, JN_OPERAND);
        if (!n) {
            n = jparse_node(p, JN_COMPARE);
            n->line = line;
            n->a = first;
            tail = &n->b;
        }
        operand->op = op;
        operand->a = parse_sum(p);
        if (!operand->a || !jparse_seal(p, operand))
            return NULL;
        *tail = operand;
        tail = &operand->next;
    }
    return n ? seal(p, n) : first;
}

static struct jnode *parse_not(struct jparser *p)
{
    struct jnode *n;

    if (!jparse_is_name(p, "not"))
        return parse_comparison(p);
    if (!jparse_enter(p))
        return NULL;
    n = jparse_node(p, JN_NOT);
    p->at++;
    n->a = parse_not(p);
    p->nest--;
    return n->a ? seal(p, n) : NULL;
}

static struct jnode *parse_logic(struct jparser *p, const char *word, enum jnode_type type,
                                 struct jnode *(*operand)(struct jparser *))
{
    struct jnode *left = operand(p);

    while (left && jparse_is_name(p, word)) {
        struct jnode *n = jparse_node(p, type);
        p->at++;
        n->a = left;
        n->b = operand(p);
        left = n->b ? seal(p, n) : NULL;
    }
    return left;
}

static struct jnode *parse_and(struct jparser *p)
{
    return parse_logic(p, "and", JN_AND, parse_not);
}

struct jnode *jparse_or(struct jparser *p)
{
    return parse_logic(p, "or", JN_OR, parse_and);
}

struct jnode *jparse_expr(struct jparser *p)
{
    struct jnode *n, *cond;

    if (!jparse_enter(p))
        return NULL;
    n = jparse_or(p);
    while (n && jparse_is_name(p, "if")) {
        cond = jparse_node(p, JN_COND);
        p->at++;
        cond->b = n;
        cond->a = jparse_or(p);
        if (!cond->a || (jparse_skip_name(p, "else") && !(cond->c = jparse_expr(p))))
            return NULL;
        n = seal(p, cond);
    }
    p->nest--;
    return n;
}
