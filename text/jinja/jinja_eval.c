/* jinja_eval.c - the value of an expression. */
#include "text/jinja/jinja.h"

#include <assert.h>
#include <string.h>

/* ---- calls --------------------------------------------------------------------------------------- */

const struct jbuiltin *jbuiltin_find(const struct jbuiltin *table, const char *name, size_t n)
{
    for (; table->name; table++)
        if (strlen(table->name) == n && memcmp(table->name, name, n) == 0)
            return table;
    return NULL;
}

/* Give each parameter of f its argument, by place or by name. */
static bool bind_params(struct jrun *r, const struct jbuiltin *f, struct jcall *c)
{
    uint32_t n_params = 0, n_named = 0;

    for (const char *p = f->params; *p;) {
        size_t len = strcspn(p, " =");
        bool optional = p[len] == '=';
        struct jval *arg = &c->arg[n_params];
        assert(n_params < JCALL_PARAMS_MAX);
        *arg = n_params < c->n_pos ? c->pos[n_params] : (struct jval){ .kind = J_ABSENT };
        for (uint32_t i = 0; i < c->n_kw; i++) {
            if (c->kw[i].n != len || memcmp(c->kw[i].name, p, len) != 0)
                continue;
            if (arg->kind != J_ABSENT)
                return jrun_fail(r, "%s() got multiple values for argument '%.*s'", f->name,
                                 (int)len, p);
            *arg = c->kw[i].value;
            n_named++;
        }
        if (arg->kind == J_ABSENT && !optional)
            return jrun_fail(r, "%s() misses the argument '%.*s'", f->name, (int)len, p);
        n_params++;
        p += len + optional;
        p += strspn(p, " ");
    }
    if (c->n_pos > n_params)
        return jrun_fail(r, "%s() takes at most %u arguments, %u were given", f->name, n_params,
                         c->n_pos);
    return n_named == c->n_kw || jrun_fail(r, "%s() got an unexpected keyword argument", f->name);
}

bool jbuiltin_call(struct jrun *r, const struct jbuiltin *f, struct jcall *c, struct jval *out)
{
    if (!jrun_work(r, 0) || (f->params && !bind_params(r, f, c)))
        return false;
    return f->call(r, c, out);
}

bool jcall_int(struct jrun *r, const struct jcall *c, int i, int64_t otherwise, int64_t *out)
{
    struct jval v = c->arg[i];

    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (v.kind != J_ABSENT && !jval_is_int(v))
        return jrun_fail(r, "'%s' object cannot be interpreted as an integer", jval_type_name(v));
    *out = v.kind == J_ABSENT ? otherwise : jval_as_int(v);
    return true;
}

bool jcall_str(struct jrun *r, const struct jcall *c, int i, struct jval *out)
{
    struct jval v = c->arg[i];

    if (v.kind != J_STR)
        return jrun_fail(r, "expected a string, found '%s'", jval_type_name(v));
    *out = v;
    return true;
}

bool jeval_call(struct jrun *r, struct jval callee, struct jcall *c, struct jval *out)
{
    switch ((enum jkind)callee.kind) {
    case J_UNDEF:
        return jrun_undef_fail(r, callee);
    case J_FUNC:
        return jbuiltin_call(r, callee.func, c, out);
    case J_METHOD:
        c->self = callee.method->self;
        return jbuiltin_call(r, callee.method->func, c, out);
    case J_MACRO:
        return jexec_macro(r, callee.macro, c, out);
    case J_JOINER:
        *out = callee.cycler->at++ ? callee.cycler->items[0] : jval_str("", 0);
        return true;
    default:
        return jrun_fail(r, "'%s' object is not callable", jval_type_name(callee));
    }
}

static bool add_positional(struct jrun *r, struct jcall *c, struct jval v, uint32_t *cap)
{
    if (c->n_pos == JCALL_ARGS_MAX)
        return jrun_fail(r, "a call has more than %d arguments", JCALL_ARGS_MAX);
    if (c->n_pos == *cap) {
        struct jval *grown = jrun_alloc(r, *cap * 2 * sizeof *grown);
        memcpy(grown, c->pos, c->n_pos * sizeof *grown);
        c->pos = grown;
        *cap *= 2;
    }
    c->pos[c->n_pos++] = v;
    return true;
}

static bool add_named(struct jrun *r, struct jcall *c, const char *name, uint32_t n, struct jval v,
                      uint32_t *cap)
{
    if (c->n_kw == JCALL_ARGS_MAX)
        return jrun_fail(r, "a call has more than %d arguments", JCALL_ARGS_MAX);
    if (!jrun_work(r, c->n_kw / 8))
        return false;
    for (uint32_t i = 0; i < c->n_kw; i++)
        if (c->kw[i].n == n && memcmp(c->kw[i].name, name, n) == 0)
            return jrun_fail(r, "a call has two values for argument '%.*s'", (int)(n < 80 ? n : 80),
                             name);
    if (c->n_kw == *cap) {
        struct jkwarg *grown = jrun_alloc(r, *cap * 2 * sizeof *grown);
        memcpy(grown, c->kw, c->n_kw * sizeof *grown);
        c->kw = grown;
        *cap *= 2;
    }
    c->kw[c->n_kw++] = (struct jkwarg){ name, n, v };
    return true;
}

static bool add_stars(struct jrun *r, const struct jnode *arg, struct jval v, struct jcall *c,
                      uint32_t *pos_cap, uint32_t *kw_cap)
{
    struct jval *items;
    uint32_t n;

    if (arg->type == JN_STAR) {
        if (!jval_iterate(r, v, &items, &n))
            return false;
        for (uint32_t i = 0; i < n; i++)
            if (!add_positional(r, c, items[i], pos_cap))
                return false;
        return true;
    }
    if (v.kind != J_DICT)
        return jrun_fail(r, "argument after ** must be a mapping, not %s", jval_type_name(v));
    for (uint32_t i = 0; i < v.dict->n; i++) {
        struct jval key = v.dict->pairs[i].key;
        if (key.kind != J_STR)
            return jrun_fail(r, "keywords must be strings");
        if (!add_named(r, c, key.s, key.n, v.dict->pairs[i].value, kw_cap))
            return false;
    }
    return true;
}

static bool eval_arguments(struct jrun *r, const struct jnode *args, struct jcall *c)
{
    uint32_t pos_cap = 0, kw_cap = 0;

    for (const struct jnode *a = args; a; a = a->next) {
        pos_cap += a->type != JN_KWARG && a->type != JN_STAR2;
        kw_cap += a->type == JN_KWARG || a->type == JN_STAR2;
    }
    c->pos = pos_cap ? jrun_alloc(r, pos_cap * sizeof *c->pos) : NULL;
    c->kw = kw_cap ? jrun_alloc(r, kw_cap * sizeof *c->kw) : NULL;
    for (const struct jnode *a = args; a; a = a->next) {
        bool is_plain = a->type != JN_KWARG && a->type != JN_STAR && a->type != JN_STAR2;
        struct jval v;
        bool ok;
        if (!jeval(r, is_plain ? a : a->a, &v))
            return false;
        if (is_plain)
            ok = add_positional(r, c, v, &pos_cap);
        else if (a->type == JN_KWARG)
            ok = add_named(r, c, a->value.s, a->value.n, v, &kw_cap);
        else
            ok = add_stars(r, a, v, c, &pos_cap, &kw_cap);
        if (!ok)
            return false;
    }
    return true;
}

bool jeval_call_with(struct jrun *r, const struct jnode *n, struct jval caller, struct jval *out)
{
    struct jcall c = { 0 };
    struct jval callee;
    uint32_t cap;

    if (!jeval(r, n->a, &callee) || !eval_arguments(r, n->b, &c))
        return false;
    r->line = n->line;
    if (caller.kind != J_ABSENT) {
        cap = c.n_kw + 1;
        struct jkwarg *grown = jrun_alloc(r, cap * sizeof *grown);
        if (c.n_kw)
            memcpy(grown, c.kw, c.n_kw * sizeof *grown);
        c.kw = grown;
        if (!add_named(r, &c, "caller", 6, caller, &cap))
            return false;
    }
    return jeval_call(r, callee, &c, out);
}

static bool apply_filter(struct jrun *r, const struct jnode *n, struct jval in, struct jval *out)
{
    struct jcall c = { .self = in };

    if (!eval_arguments(r, n->b, &c))
        return false;
    r->line = n->line;
    return jbuiltin_call(r, n->func, &c, out);
}

bool jeval_filters(struct jrun *r, const struct jnode *n, struct jval in, struct jval *out)
{
    struct jval inner = in;

    if (n->a && !jeval_filters(r, n->a, in, &inner))
        return false;
    return apply_filter(r, n, inner, out);
}

static bool eval_filter_or_test(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval in;

    return jeval(r, n->a, &in) && apply_filter(r, n, in, out);
}

/* ---- literals ------------------------------------------------------------------------------------ */

static bool eval_list(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jseq *s = jseq_new(r, n->type == JN_LIST ? JSEQ_LIST : JSEQ_TUPLE, 0);

    for (const struct jnode *item = n->a; item; item = item->next) {
        struct jval v;
        if (!jeval(r, item, &v) || !jseq_push(r, s, v))
            return false;
    }
    *out = jval_seq(s);
    return true;
}

static bool eval_dict(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jdict *d = jdict_new(r, 0);

    for (const struct jnode *pair = n->a; pair; pair = pair->next) {
        struct jval key, value;
        if (!jeval(r, pair->a, &key) || !jeval(r, pair->b, &value) || !jdict_set(r, d, key, value))
            return false;
    }
    *out = jval_dict(d);
    return true;
}

/* ---- operators ----------------------------------------------------------------------------------- */

static bool eval_name(struct jrun *r, const struct jnode *n, struct jval *out)
{
    const struct jsym *s = &r->prog->syms[n->sym];

    *out = jrun_get(r, n->sym);
    if (out->kind == J_ABSENT)
        *out = jval_undef(r, (struct jval){ .kind = J_ABSENT }, jval_str(s->name, s->n));
    return true;
}

static bool eval_index(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval v, key, bounds[3];
    const struct jnode *parts[3];

    if (!jeval(r, n->a, &v))
        return false;
    if (n->b->type != JN_SLICE)
        return jeval(r, n->b, &key) && jop_index(r, v, key, out);
    parts[0] = n->b->a;
    parts[1] = n->b->b;
    parts[2] = n->b->c;
    for (int i = 0; i < 3; i++) {
        bounds[i] = jval_none();
        if (parts[i] && !jeval(r, parts[i], &bounds[i]))
            return false;
    }
    return jop_slice(r, v, bounds, out);
}

static bool eval_concat(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jbuf b = { .run = r };

    for (const struct jnode *part = n->a; part; part = part->next) {
        struct jval v;
        if (!jeval(r, part, &v) || !jval_print(&b, v))
            return false;
    }
    return jbuf_done(&b, out);
}

/* a < b < c is a < b and b < c, with b evaluated once. */
static bool eval_compare(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval left, right;
    bool yes = true;

    if (!jeval(r, n->a, &left))
        return false;
    for (const struct jnode *o = n->b; o && yes; o = o->next) {
        if (!jeval(r, o->a, &right) || !jop_compare(r, o->op, left, right, &yes))
            return false;
        left = right;
    }
    *out = jval_bool(yes);
    return true;
}

static bool eval_cond(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval test;

    if (!jeval(r, n->a, &test))
        return false;
    if (jval_truth(test))
        return jeval(r, n->b, out);
    if (n->c)
        return jeval(r, n->c, out);
    *out = jval_undef_hint(r, "an inline if was false and had no else");
    return true;
}

static bool eval_unary(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval v;

    if (!jeval(r, n->a, &v))
        return false;
    if (n->type == JN_NOT) {
        *out = jval_bool(!jval_truth(v));
        return true;
    }
    if (n->type == JN_NEG)
        return jop_negate(r, v, out);
    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (!jval_is_num(v))
        return jrun_fail(r, "bad operand type for unary +: '%s'", jval_type_name(v));
    *out = v.kind == J_BOOL ? jval_int(v.b) : v;
    return true;
}

static bool eval_logic(struct jrun *r, const struct jnode *n, struct jval *out)
{
    if (!jeval(r, n->a, out))
        return false;
    if (jval_truth(*out) == (n->type == JN_OR))
        return true;
    return jeval(r, n->b, out);
}

static bool eval_binary(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval a, b;

    if (!jeval(r, n->a, &a) || !jeval(r, n->b, &b))
        return false;
    r->line = n->line;
    return jop_binary(r, n->op, a, b, out);
}

static bool eval_attr(struct jrun *r, const struct jnode *n, struct jval *out)
{
    struct jval v;

    if (!jeval(r, n->a, &v))
        return false;
    r->line = n->line;
    return jop_attr(r, v, n->value, &n->methods, out);
}

static bool eval_node(struct jrun *r, const struct jnode *n, struct jval *out)
{
    switch (n->type) {
    case JN_CONST:
        *out = n->value;
        return true;
    case JN_NAME:
        return eval_name(r, n, out);
    case JN_TUPLE:
    case JN_LIST:
        return eval_list(r, n, out);
    case JN_DICT:
        return eval_dict(r, n, out);
    case JN_ATTR:
        return eval_attr(r, n, out);
    case JN_INDEX:
        return eval_index(r, n, out);
    case JN_CALL:
        return jeval_call_with(r, n, (struct jval){ .kind = J_ABSENT }, out);
    case JN_FILTER:
    case JN_TEST:
        return eval_filter_or_test(r, n, out);
    case JN_NOT:
    case JN_NEG:
    case JN_POS:
        return eval_unary(r, n, out);
    case JN_AND:
    case JN_OR:
        return eval_logic(r, n, out);
    case JN_BINARY:
        return eval_binary(r, n, out);
    case JN_CONCAT:
        return eval_concat(r, n, out);
    case JN_COMPARE:
        return eval_compare(r, n, out);
    case JN_COND:
        return eval_cond(r, n, out);
    default:
        assert(!"a statement is not an expression");
        return false;
    }
}

bool jeval(struct jrun *r, const struct jnode *n, struct jval *out)
{
    bool ok;

    r->line = n->line;
    if (!jrun_work(r, 0))
        return false;
    if (r->depth >= JINJA_DEPTH_MAX)
        return jrun_fail(r, "calls are nested too deep");
    r->depth++;
    ok = eval_node(r, n, out);
    r->depth--;
    return ok;
}
