/* jinja_tests.c - what may stand after "is". */
#include "text/jinja/jinja.h"

#include <string.h>

static bool yes_no(struct jval *out, bool yes)
{
    *out = jval_bool(yes);
    return true;
}

static bool test_defined(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind != J_UNDEF);
}

static bool test_undefined(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_UNDEF);
}

static bool test_none(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_NONE);
}

static bool test_boolean(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_BOOL);
}

static bool test_true(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_BOOL && c->self.b);
}

static bool test_false(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_BOOL && !c->self.b);
}

static bool test_integer(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_INT);
}

static bool test_float(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_FLOAT);
}

static bool test_number(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, jval_is_num(c->self));
}

static bool test_string(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_STR);
}

static bool test_mapping(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_DICT);
}

/* What has a length and takes a subscript; Jinja's undefined claims both. */
static bool test_sequence(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval v = c->self;

    (void)r;
    return yes_no(out, v.kind == J_STR || v.kind == J_DICT || v.kind == J_UNDEF ||
                           (v.kind == J_SEQ && v.seq->type <= JSEQ_RANGE));
}

static bool test_iterable(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval v = c->self;

    (void)r;
    return yes_no(out, v.kind == J_STR || v.kind == J_DICT || v.kind == J_UNDEF ||
                           v.kind == J_SEQ || v.kind == J_LOOP);
}

static bool test_callable(struct jrun *r, struct jcall *c, struct jval *out)
{
    enum jkind k = (enum jkind)c->self.kind;

    (void)r;
    return yes_no(out, k == J_UNDEF || k == J_FUNC || k == J_METHOD || k == J_MACRO ||
                           k == J_JOINER || k == J_LOOP);
}

static bool test_escaped(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_STR && c->self.markup);
}

static bool modulo(struct jrun *r, struct jval v, struct jval by, int64_t wanted, struct jval *out)
{
    bool same;

    if (!jop_binary(r, JOP_MOD, v, by, &v) || !jval_equal(r, v, jval_int(wanted), &same))
        return false;
    return yes_no(out, same);
}

static bool test_odd(struct jrun *r, struct jcall *c, struct jval *out)
{
    return modulo(r, c->self, jval_int(2), 1, out);
}

static bool test_even(struct jrun *r, struct jcall *c, struct jval *out)
{
    return modulo(r, c->self, jval_int(2), 0, out);
}

static bool test_divisibleby(struct jrun *r, struct jcall *c, struct jval *out)
{
    return modulo(r, c->self, c->arg[0], 0, out);
}

static bool compare(struct jrun *r, struct jcall *c, enum jop op, struct jval *out)
{
    bool yes;

    return jop_compare(r, op, c->self, c->arg[0], &yes) && yes_no(out, yes);
}

static bool test_eq(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_EQ, out);
}

static bool test_ne(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_NE, out);
}

static bool test_lt(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_LT, out);
}

static bool test_le(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_LE, out);
}

static bool test_gt(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_GT, out);
}

static bool test_ge(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_GE, out);
}

static bool test_in(struct jrun *r, struct jcall *c, struct jval *out)
{
    return compare(r, c, JOP_IN, out);
}

/* Python's `is`: strings and small numbers of the same value count as one object here. */
static bool test_sameas(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval a = c->self, b = c->arg[0];
    bool same = false;

    if (a.kind != b.kind)
        return yes_no(out, false);
    if (a.kind == J_SEQ || a.kind == J_DICT)
        return yes_no(out, a.seq == b.seq);
    return jval_equal(r, a, b, &same) && yes_no(out, same);
}

static bool only_case(struct jrun *r, struct jval v, const char *method, struct jval *out)
{
    struct jcall c = { 0 };

    return jval_to_str(r, v, &c.self) &&
           jbuiltin_find(jinja_str_methods, method, strlen(method))->call(r, &c, out);
}

static bool test_lower(struct jrun *r, struct jcall *c, struct jval *out)
{
    return only_case(r, c->self, "islower", out);
}

static bool test_upper(struct jrun *r, struct jcall *c, struct jval *out)
{
    return only_case(r, c->self, "isupper", out);
}

static bool test_filter(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_STR && jinja_find_filter(c->self.s, c->self.n));
}

static bool test_test(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    return yes_no(out, c->self.kind == J_STR && jbuiltin_find(jinja_tests, c->self.s, c->self.n));
}

const struct jbuiltin jinja_tests[] = {
    { "defined", test_defined, "" },    { "undefined", test_undefined, "" },
    { "none", test_none, "" },          { "boolean", test_boolean, "" },
    { "true", test_true, "" },          { "false", test_false, "" },
    { "integer", test_integer, "" },    { "float", test_float, "" },
    { "number", test_number, "" },      { "string", test_string, "" },
    { "mapping", test_mapping, "" },    { "sequence", test_sequence, "" },
    { "iterable", test_iterable, "" },  { "callable", test_callable, "" },
    { "escaped", test_escaped, "" },    { "odd", test_odd, "" },
    { "even", test_even, "" },          { "divisibleby", test_divisibleby, "num" },
    { "eq", test_eq, "other" },         { "equalto", test_eq, "other" },
    { "==", test_eq, "other" },         { "ne", test_ne, "other" },
    { "!=", test_ne, "other" },         { "lt", test_lt, "other" },
    { "lessthan", test_lt, "other" },   { "<", test_lt, "other" },
    { "le", test_le, "other" },         { "<=", test_le, "other" },
    { "gt", test_gt, "other" },         { "greaterthan", test_gt, "other" },
    { ">", test_gt, "other" },          { "ge", test_ge, "other" },
    { ">=", test_ge, "other" },         { "in", test_in, "seq" },
    { "sameas", test_sameas, "other" }, { "lower", test_lower, "" },
    { "upper", test_upper, "" },        { "filter", test_filter, "" },
    { "test", test_test, "" },          { NULL, NULL, NULL },
};
