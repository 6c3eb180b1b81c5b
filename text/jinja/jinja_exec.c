/* jinja_exec.c - statements: what is written, which variables are set, where it goes on. */
#include "text/jinja/jinja.h"

#include <assert.h>
#include <string.h>

static void enter_scope(struct jrun *r, struct jscope *s)
{
    *s = (struct jscope){ .up = r->scope };
    r->scope = s;
}

/* A scope a macro may keep: it lives in the arena. */
static struct jscope *push_scope(struct jrun *r)
{
    struct jscope *s = jrun_alloc(r, sizeof *s);

    enter_scope(r, s);
    return s;
}

static void pop_scope(struct jrun *r)
{
    r->scope = r->scope->up;
}

/* Run a body with its output caught in *out. */
static enum jflow capture(struct jrun *r, const struct jnode *body, struct jval *out)
{
    struct jbuf text = { .run = r }, *outer = r->out;
    enum jflow flow;

    r->out = &text;
    flow = jexec(r, body);
    r->out = outer;
    return flow == JFLOW_FAIL || jbuf_done(&text, out) ? flow : JFLOW_FAIL;
}

/* ---- set ----------------------------------------------------------------------------------------- */

static bool assign(struct jrun *r, const struct jnode *target, struct jval v);

static bool assign_tuple(struct jrun *r, const struct jnode *target, struct jval v)
{
    uint32_t n, wanted = 0, i = 0;
    struct jval *items;

    for (const struct jnode *t = target->a; t; t = t->next)
        wanted++;
    if (!jval_iterate(r, v, &items, &n))
        return false;
    if (n != wanted)
        return jrun_fail(r, "%s values to unpack (expected %u, found %u)",
                         n < wanted ? "not enough" : "too many", wanted, n);
    for (const struct jnode *t = target->a; t; t = t->next)
        if (!assign(r, t, items[i++]))
            return false;
    return true;
}

static bool assign(struct jrun *r, const struct jnode *target, struct jval v)
{
    struct jval ns;

    switch (target->type) {
    case JN_NAME:
        jrun_set(r, target->sym, v);
        return true;
    case JN_TUPLE:
        return assign_tuple(r, target, v);
    default:
        assert(target->type == JN_NS_ATTR);
        ns = jrun_get(r, target->sym);
        if (ns.kind != J_NAMESPACE)
            return jrun_fail(r, "cannot assign attribute on non-namespace object");
        return jdict_set(r, ns.dict, target->value, v);
    }
}

static enum jflow exec_set(struct jrun *r, const struct jnode *n)
{
    struct jval v;

    return jeval(r, n->b, &v) && assign(r, n->a, v) ? JFLOW_NEXT : JFLOW_FAIL;
}

static enum jflow exec_set_block(struct jrun *r, const struct jnode *n)
{
    enum jflow flow;
    struct jval v;

    push_scope(r);
    flow = capture(r, n->b, &v);
    pop_scope(r);
    if (flow != JFLOW_NEXT)
        return flow;
    if (n->c && !jeval_filters(r, n->c, v, &v))
        return JFLOW_FAIL;
    return assign(r, n->a, v) ? JFLOW_NEXT : JFLOW_FAIL;
}

static enum jflow exec_with(struct jrun *r, const struct jnode *n)
{
    struct jscope *scope = jrun_alloc(r, sizeof *scope), *outer = r->scope;
    const struct jnode *value = n->b;
    enum jflow flow = JFLOW_NEXT;

    scope->up = outer;
    for (const struct jnode *t = n->a; t && flow == JFLOW_NEXT; t = t->next, value = value->next) {
        struct jval v;
        bool ok = jeval(r, value, &v); /* values see the scope around */
        r->scope = scope;
        if (!ok || !assign(r, t, v))
            flow = JFLOW_FAIL;
        r->scope = outer;
    }
    r->scope = scope;
    if (flow == JFLOW_NEXT)
        flow = jexec(r, n->c);
    r->scope = outer;
    return flow;
}

/* ---- if and for ----------------------------------------------------------------------------------- */

static enum jflow exec_if(struct jrun *r, const struct jnode *n)
{
    const struct jnode *otherwise = n->c;

    for (; n; n = n->d) {
        struct jval test;
        if (!jeval(r, n->a, &test))
            return JFLOW_FAIL;
        if (jval_truth(test))
            return jexec(r, n->b);
        if (n->c)
            otherwise = n->c;
    }
    return jexec(r, otherwise);
}

/* Keep the items for which the loop's own "if" holds. */
static bool filter_items(struct jrun *r, const struct jnode *n, struct jval **items,
                         uint32_t *count)
{
    struct jval *kept = jrun_alloc(r, *count * sizeof *kept);
    uint32_t n_kept = 0;
    bool ok = true;

    for (uint32_t i = 0; i < *count && ok; i++) {
        struct jval test;
        push_scope(r);
        ok = assign(r, n->a, (*items)[i]) && jeval(r, n->e, &test);
        pop_scope(r);
        if (ok && jval_truth(test))
            kept[n_kept++] = (*items)[i];
    }
    *items = kept;
    *count = n_kept;
    return ok;
}

static enum jflow exec_else(struct jrun *r, const struct jnode *body)
{
    enum jflow flow;

    push_scope(r);
    flow = jexec(r, body);
    pop_scope(r);
    return flow;
}

static enum jflow exec_iteration(struct jrun *r, const struct jnode *n, struct jloop *loop)
{
    struct jscope *scope = push_scope(r);
    enum jflow flow = JFLOW_FAIL;

    if (assign(r, n->a, loop->items[loop->at])) {
        jscope_set(r, scope, JSYM_LOOP, (struct jval){ .kind = J_LOOP, .loop = loop });
        flow = jexec(r, n->c);
    }
    pop_scope(r);
    return flow;
}

static enum jflow exec_for(struct jrun *r, const struct jnode *n)
{
    struct jloop *loop = jrun_alloc(r, sizeof *loop);
    struct jval iterable, *items;
    bool one_ended = false;
    uint32_t count;

    if (!jeval(r, n->b, &iterable) || !jval_iterate(r, iterable, &items, &count) ||
        (n->e && (!jrun_room(r, count * sizeof *items) || !filter_items(r, n, &items, &count))))
        return JFLOW_FAIL;
    loop->items = items;
    loop->n = count;
    for (; loop->at < count; loop->at++) {
        enum jflow flow = exec_iteration(r, n, loop);
        if (flow == JFLOW_FAIL)
            return flow;
        if (flow == JFLOW_BREAK)
            break;
        one_ended |= flow == JFLOW_NEXT;
    }
    /* Jinja runs the else when no pass came to its end, even if there were passes. */
    return n->d && !one_ended ? exec_else(r, n->d) : JFLOW_NEXT;
}

/* ---- macros ---------------------------------------------------------------------------------------- */

static struct jval make_macro(struct jrun *r, const struct jnode *n)
{
    struct jmacro *m = jrun_alloc(r, sizeof *m);
    bool is_caller = n->type != JN_MACRO;

    *m = (struct jmacro){ .node = n,
                          .params = is_caller ? n->c : n->a,
                          .body = n->b,
                          .scope = r->scope,
                          .name = jval_none() };
    if (!is_caller)
        m->name = jval_str(r->prog->syms[n->sym].name, r->prog->syms[n->sym].n);
    return (struct jval){ .kind = J_MACRO, .macro = m };
}

static const struct jkwarg *find_kwarg(const struct jcall *c, const char *name, uint32_t n)
{
    for (uint32_t i = 0; i < c->n_kw; i++)
        if (c->kw[i].n == n && memcmp(c->kw[i].name, name, n) == 0)
            return &c->kw[i];
    return NULL;
}

/* One parameter's value: by place, by name, its default, or undefined. */
static bool bind_param(struct jrun *r, const struct jnode *param, uint32_t place,
                       const struct jcall *c, uint32_t *n_named)
{
    const struct jsym *s = &r->prog->syms[param->sym];
    const struct jkwarg *named = find_kwarg(c, s->name, s->n);
    struct jval v;

    if (!jrun_work(r, c->n_kw / 8))
        return false;
    *n_named += named && place >= c->n_pos;
    if (place < c->n_pos)
        v = c->pos[place];
    else if (named)
        v = named->value;
    else if (!param->a)
        v = jval_undef_hint(r,
                            arena_printf(&r->mem, "parameter '%.80s' was not provided", s->name));
    else if (!jeval(r, param->a, &v))
        return false;
    jrun_set(r, param->sym, v);
    return true;
}

static bool bind_varargs(struct jrun *r, const struct jcall *c, uint32_t n_params)
{
    uint32_t n = c->n_pos > n_params ? c->n_pos - n_params : 0;
    struct jseq *s = jseq_new(r, JSEQ_TUPLE, n);

    if (n)
        memcpy(s->items, c->pos + n_params, n * sizeof *s->items);
    s->n = n;
    jrun_set(r, JSYM_VARARGS, jval_seq(s));
    return true;
}

static bool is_param(const struct jrun *r, const struct jmacro *m, const struct jkwarg *kw)
{
    for (const struct jnode *p = m->params; p; p = p->next) {
        const struct jsym *s = &r->prog->syms[p->sym];
        if (s->n == kw->n && memcmp(s->name, kw->name, kw->n) == 0)
            return true;
    }
    return false;
}

static bool bind_kwargs(struct jrun *r, const struct jmacro *m, const struct jcall *c)
{
    struct jdict *d = jdict_new(r, c->n_kw);

    for (uint32_t i = 0; i < c->n_kw; i++) {
        const struct jkwarg *kw = &c->kw[i];
        if (is_param(r, m, kw) ||
            ((m->node->flags & JMACRO_CALLER) && kw->n == 6 && memcmp(kw->name, "caller", 6) == 0))
            continue;
        if (!jdict_set(r, d, jval_str(kw->name, kw->n), kw->value))
            return false;
    }
    jrun_set(r, JSYM_KWARGS, jval_dict(d));
    return true;
}

static bool bind_macro(struct jrun *r, const struct jmacro *m, const struct jcall *c)
{
    uint32_t n_params = 0, n_named = 0;
    const struct jkwarg *caller = find_kwarg(c, "caller", 6);
    int flags = m->node->flags;

    for (const struct jnode *p = m->params; p; p = p->next)
        if (!bind_param(r, p, n_params++, c, &n_named))
            return false;
    if (flags & JMACRO_CALLER) {
        n_named += caller != NULL;
        jrun_set(r, JSYM_CALLER, caller ? caller->value : jval_undef_hint(r, "No caller defined"));
    }
    if (!(flags & JMACRO_VARARGS) && c->n_pos > n_params)
        return jrun_fail(r, "a macro takes not more than %u arguments, %u were given", n_params,
                         c->n_pos);
    if (!(flags & JMACRO_KWARGS) && c->n_kw > n_named)
        return jrun_fail(r, "a macro got a keyword argument it does not take");
    return (!(flags & JMACRO_VARARGS) || bind_varargs(r, c, n_params)) &&
           (!(flags & JMACRO_KWARGS) || bind_kwargs(r, m, c));
}

bool jexec_macro(struct jrun *r, const struct jmacro *m, const struct jcall *c, struct jval *out)
{
    struct jscope *caller_scope = r->scope;
    bool ok;

    r->scope = m->scope;
    push_scope(r);
    ok = bind_macro(r, m, c) && capture(r, m->body, out) == JFLOW_NEXT;
    r->scope = caller_scope;
    return ok;
}

static enum jflow exec_call_block(struct jrun *r, const struct jnode *n)
{
    struct jval v;

    if (!jeval_call_with(r, n->a, make_macro(r, n), &v) || !jval_print(r->out, v))
        return JFLOW_FAIL;
    return JFLOW_NEXT;
}

static enum jflow exec_filter_block(struct jrun *r, const struct jnode *n)
{
    enum jflow flow;
    struct jval v;

    push_scope(r);
    flow = capture(r, n->b, &v);
    pop_scope(r);
    if (flow == JFLOW_NEXT && (!jeval_filters(r, n->a, v, &v) || !jval_print(r->out, v)))
        return JFLOW_FAIL;
    return flow;
}

/* ---- all statements --------------------------------------------------------------------------------- */

static enum jflow exec_print(struct jrun *r, const struct jnode *n)
{
    struct jval v;

    for (const struct jnode *expr = n->a; expr; expr = expr->next)
        if (!jeval(r, expr, &v) || !jval_print(r->out, v))
            return JFLOW_FAIL;
    if (r->out->is_full)
        return jbuf_done(r->out, &v) ? JFLOW_NEXT : JFLOW_FAIL;
    return JFLOW_NEXT;
}

static enum jflow exec_node(struct jrun *r, const struct jnode *n)
{
    switch (n->type) {
    case JN_TEXT:
        jbuf_add(r->out, n->value.s, n->value.n);
        return JFLOW_NEXT;
    case JN_PRINT:
        return exec_print(r, n);
    case JN_IF:
        return exec_if(r, n);
    case JN_FOR:
        return exec_for(r, n);
    case JN_SET:
        return exec_set(r, n);
    case JN_SET_BLOCK:
        return exec_set_block(r, n);
    case JN_MACRO:
        jrun_set(r, n->sym, make_macro(r, n));
        return JFLOW_NEXT;
    case JN_CALL_BLOCK:
        return exec_call_block(r, n);
    case JN_FILTER_BLOCK:
        return exec_filter_block(r, n);
    case JN_WITH:
        return exec_with(r, n);
    case JN_GENERATION:
        return exec_else(r, n->b);
    case JN_BREAK:
        return JFLOW_BREAK;
    case JN_CONTINUE:
        return JFLOW_CONTINUE;
    default:
        assert(!"an expression is not a statement");
        return JFLOW_FAIL;
    }
}

enum jflow jexec(struct jrun *r, const struct jnode *body)
{
    enum jflow flow = JFLOW_NEXT;

    if (r->depth >= JINJA_DEPTH_MAX) {
        jrun_fail(r, "calls are nested too deep");
        return JFLOW_FAIL;
    }
    r->depth++;
    for (; body && flow == JFLOW_NEXT; body = body->next) {
        r->line = body->line;
        flow = jrun_work(r, 0) ? exec_node(r, body) : JFLOW_FAIL;
    }
    r->depth--;
    return flow;
}
