/* jinja_ops.c - operators, attributes and subscripts, with Python's meaning.
 *
 * Integers have 64 bits here: where Python would grow one past that, the run fails. */
#include "text/jinja/jinja.h"

#include <math.h>
#include <string.h>

/* ---- arithmetic ---------------------------------------------------------------------------------- */

static bool fail_types(struct jrun *r, enum jop op, struct jval a, struct jval b)
{
    static const char *const names[] = {
        [JOP_ADD] = "+",       [JOP_SUB] = "-", [JOP_MUL] = "*", [JOP_DIV] = "/",
        [JOP_FLOORDIV] = "//", [JOP_MOD] = "%", [JOP_POW] = "**"
    };

    if (a.kind == J_UNDEF || b.kind == J_UNDEF)
        return jrun_undef_fail(r, a.kind == J_UNDEF ? a : b);
    if (op == JOP_ADD && a.kind == J_STR)
        return jrun_fail(r, "can only concatenate str (not \"%s\") to str", jval_type_name(b));
    return jrun_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", names[op],
                     jval_type_name(a), jval_type_name(b));
}

static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;

    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static bool int_power(int64_t base, int64_t exponent, int64_t *out)
{
    int64_t result = 1;

    for (; exponent > 0; exponent >>= 1) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            return false;
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base))
            return false;
    }
    *out = result;
    return true;
}

static bool ints(struct jrun *r, enum jop op, int64_t a, int64_t b, struct jval *out)
{
    int64_t i = 0;
    bool fits = true;

    if (b == 0 && (op == JOP_DIV || op == JOP_FLOORDIV || op == JOP_MOD))
        return jrun_fail(r, "division by zero");
    if (b < 0 && op == JOP_POW && a == 0)
        return jrun_fail(r, "0.0 cannot be raised to a negative power");
    if (op == JOP_DIV || (op == JOP_POW && b < 0)) {
        *out = jval_float(op == JOP_DIV ? (double)a / (double)b : pow((double)a, (double)b));
        return true;
    }
    if (op == JOP_ADD)
        fits = !__builtin_add_overflow(a, b, &i);
    else if (op == JOP_SUB)
        fits = !__builtin_sub_overflow(a, b, &i);
    else if (op == JOP_MUL)
        fits = !__builtin_mul_overflow(a, b, &i);
    else if (op == JOP_POW)
        fits = int_power(a, b, &i);
    else if (b == -1) /* INT64_MIN / -1 */
        fits = op == JOP_MOD || !__builtin_sub_overflow((int64_t)0, a, &i);
    else
        i = op == JOP_FLOORDIV ? floor_div(a, b) : a - b * floor_div(a, b);
    if (!fits)
        return jrun_fail(r, "an integer grows past 64 bits");
    *out = jval_int(i);
    return true;
}

static double float_mod(double a, double b)
{
    double m = fmod(a, b);

    if (m != 0)
        return (b < 0) != (m < 0) ? m + b : m;
    return copysign(0.0, b);
}

static double float_floor_div(double a, double b)
{
    double m = fmod(a, b), q = (a - m) / b;

    if (m != 0 && (b < 0) != (m < 0))
        q -= 1.0;
    if (q == 0)
        return copysign(0.0, a / b);
    return q - floor(q) > 0.5 ? floor(q) + 1.0 : floor(q);
}

static bool floats(struct jrun *r, enum jop op, double a, double b, struct jval *out)
{
    double f;

    if (b == 0 && (op == JOP_DIV || op == JOP_FLOORDIV || op == JOP_MOD))
        return jrun_fail(r, "float division by zero");
    if (op == JOP_POW && ((a == 0 && b < 0) || (a < 0 && floor(b) != b && isfinite(b))))
        return jrun_fail(r, "a power has no real value");
    switch (op) {
    case JOP_ADD:
        f = a + b;
        break;
    case JOP_SUB:
        f = a - b;
        break;
    case JOP_MUL:
        f = a * b;
        break;
    case JOP_DIV:
        f = a / b;
        break;
    case JOP_FLOORDIV:
        f = float_floor_div(a, b);
        break;
    case JOP_MOD:
        f = float_mod(a, b);
        break;
    default:
        f = pow(a, b);
        if (isinf(f) && isfinite(a) && isfinite(b))
            return jrun_fail(r, "a power is too large");
        break;
    }
    *out = jval_float(f);
    return true;
}

/* ---- strings and lists --------------------------------------------------------------------------- */

static void add_escaped(struct jbuf *b, struct jval s, bool escape)
{
    if (!escape) {
        jbuf_add(b, s.s, s.n);
        return;
    }
    for (uint32_t i = 0; i < s.n; i++) {
        const char *entity = s.s[i] == '&'    ? "&amp;"
                             : s.s[i] == '<'  ? "&lt;"
                             : s.s[i] == '>'  ? "&gt;"
                             : s.s[i] == '\'' ? "&#39;"
                             : s.s[i] == '"'  ? "&#34;"
                                              : NULL;
        if (entity)
            jbuf_add_str(b, entity);
        else
            jbuf_add_char(b, s.s[i]);
    }
}

bool jop_escape(struct jrun *r, struct jval s, struct jval *out)
{
    struct jbuf b = { .run = r };

    add_escaped(&b, s, !s.markup);
    if (!jbuf_done(&b, out))
        return false;
    out->markup = true;
    return true;
}

static bool concat(struct jrun *r, struct jval a, struct jval b, struct jval *out)
{
    struct jbuf text = { .run = r };
    bool markup = a.markup || b.markup;

    if (a.n == 0 || b.n == 0) {
        *out = a.n == 0 ? b : a;
        if (!markup || out->markup)
            return true;
    }
    if (!markup && (uint64_t)a.n + b.n <= JINJA_STRING_MAX && jrun_room(r, (size_t)a.n + b.n)) {
        text.cap = (size_t)a.n + b.n; /* exactly what is needed */
        text.data = jrun_alloc(r, text.cap);
    }
    add_escaped(&text, a, markup && !a.markup);
    add_escaped(&text, b, markup && !b.markup);
    if (!jbuf_done(&text, out))
        return false;
    out->markup = markup;
    return true;
}

static bool concat_seqs(struct jrun *r, const struct jseq *a, const struct jseq *b,
                        struct jval *out)
{
    struct jseq *s;

    if (!jrun_work(r, (size_t)a->n + b->n) ||
        !jrun_room(r, ((size_t)a->n + b->n) * sizeof *s->items))
        return false;
    s = jseq_new(r, a->type == JSEQ_LIST ? JSEQ_LIST : JSEQ_TUPLE, (size_t)a->n + b->n);
    if (a->n)
        memcpy(s->items, a->items, a->n * sizeof *s->items);
    if (b->n)
        memcpy(s->items + a->n, b->items, b->n * sizeof *s->items);
    s->n = s->cap;
    *out = jval_seq(s);
    return true;
}

static bool repeat_str(struct jrun *r, struct jval s, int64_t times, struct jval *out)
{
    struct jbuf b = { .run = r };

    if (s.n > 0)
        for (int64_t i = 0; i < times && !b.is_full; i++)
            jbuf_add(&b, s.s, s.n);
    if (!jbuf_done(&b, out))
        return false;
    out->markup = s.markup;
    return true;
}

static bool repeat_seq(struct jrun *r, const struct jseq *s, int64_t times, struct jval *out)
{
    struct jseq *all = jseq_new(r, s->type == JSEQ_LIST ? JSEQ_LIST : JSEQ_TUPLE, 0);

    for (int64_t i = 0; i < times && s->n > 0; i++)
        for (uint32_t j = 0; j < s->n; j++)
            if (!jrun_work(r, 0) || !jseq_push(r, all, s->items[j]))
                return false;
    *out = jval_seq(all);
    return true;
}

static bool is_list_or_tuple(struct jval v)
{
    return v.kind == J_SEQ && v.seq->type <= JSEQ_GROUP;
}

static bool sequences(struct jrun *r, enum jop op, struct jval a, struct jval b, struct jval *out)
{
    if (op == JOP_MOD && a.kind == J_STR)
        return jformat_percent(r, a, b, out);
    if (op == JOP_ADD && a.kind == J_STR && b.kind == J_STR)
        return concat(r, a, b, out);
    if (op == JOP_ADD && is_list_or_tuple(a) && is_list_or_tuple(b) &&
        (a.seq->type == JSEQ_LIST) == (b.seq->type == JSEQ_LIST))
        return concat_seqs(r, a.seq, b.seq, out);
    if (op == JOP_MUL && jval_is_int(a)) {
        struct jval swap = a;
        a = b;
        b = swap;
    }
    if (op == JOP_MUL && jval_is_int(b) && a.kind == J_STR)
        return repeat_str(r, a, jval_as_int(b), out);
    if (op == JOP_MUL && jval_is_int(b) && is_list_or_tuple(a))
        return repeat_seq(r, a.seq, jval_as_int(b), out);
    return fail_types(r, op, a, b);
}

bool jop_binary(struct jrun *r, enum jop op, struct jval a, struct jval b, struct jval *out)
{
    if (jval_is_int(a) && jval_is_int(b))
        return ints(r, op, jval_as_int(a), jval_as_int(b), out);
    if (jval_is_num(a) && jval_is_num(b))
        return floats(r, op, jval_as_float(a), jval_as_float(b), out);
    return sequences(r, op, a, b, out);
}

bool jop_negate(struct jrun *r, struct jval v, struct jval *out)
{
    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (v.kind == J_FLOAT) {
        *out = jval_float(-v.f);
        return true;
    }
    if (!jval_is_int(v))
        return jrun_fail(r, "bad operand type for unary -: '%s'", jval_type_name(v));
    return ints(r, JOP_SUB, 0, jval_as_int(v), out);
}

bool jop_compare(struct jrun *r, enum jop op, struct jval a, struct jval b, bool *out)
{
    static const char *const names[] = {
        [JOP_LT] = "<", [JOP_LE] = "<=", [JOP_GT] = ">", [JOP_GE] = ">="
    };
    bool yes;
    int c;

    switch (op) {
    case JOP_EQ:
    case JOP_NE:
        if (!jval_equal(r, a, b, &yes))
            return false;
        *out = yes == (op == JOP_EQ);
        return true;
    case JOP_IN:
    case JOP_NOT_IN:
        if (!jval_contains(r, b, a, &yes))
            return false;
        *out = yes == (op == JOP_IN);
        return true;
    default:
        if (!jval_order(r, a, b, names[op], &c))
            return false;
        *out = c != 2 && ((op == JOP_LT && c < 0) || (op == JOP_LE && c <= 0) ||
                          (op == JOP_GT && c > 0) || (op == JOP_GE && c >= 0));
        return true;
    }
}

/* ---- attributes ---------------------------------------------------------------------------------- */

static void bind(struct jrun *r, struct jval self, const struct jbuiltin *f, struct jval *out)
{
    struct jmethod *m = jrun_alloc(r, sizeof *m);

    *m = (struct jmethod){ self, f };
    *out = (struct jval){ .kind = J_METHOD, .method = m };
}

static bool loop_attr(struct jrun *r, const struct jloop *l, struct jval name, struct jval *out)
{
    if (jval_is_str(name, "index"))
        *out = jval_int((int64_t)l->at + 1);
    else if (jval_is_str(name, "index0"))
        *out = jval_int(l->at);
    else if (jval_is_str(name, "first"))
        *out = jval_bool(l->at == 0);
    else if (jval_is_str(name, "last"))
        *out = jval_bool(l->at + 1 == l->n);
    else if (jval_is_str(name, "length"))
        *out = jval_int(l->n);
    else if (jval_is_str(name, "revindex"))
        *out = jval_int((int64_t)l->n - l->at);
    else if (jval_is_str(name, "revindex0"))
        *out = jval_int((int64_t)l->n - l->at - 1);
    else if (jval_is_str(name, "previtem"))
        *out = l->at > 0 ? l->items[l->at - 1] : jval_undef_hint(r, "there is no previous item");
    else if (jval_is_str(name, "nextitem"))
        *out = l->at + 1 < l->n ? l->items[l->at + 1] : jval_undef_hint(r, "there is no next item");
    else if (jval_is_str(name, "depth") || jval_is_str(name, "depth0"))
        *out = jval_int(jval_is_str(name, "depth"));
    else
        return false;
    return true;
}

/* Attributes of objects other than dict, str and list.  False: there is none of that name. */
static bool object_attr(struct jrun *r, struct jval v, struct jval name, struct jval *out)
{
    const struct jbuiltin *f = NULL;

    if (v.kind == J_LOOP) {
        if (loop_attr(r, v.loop, name, out))
            return true;
        f = jbuiltin_find(jinja_loop_methods, name.s, name.n);
    } else if (v.kind == J_CYCLER) {
        if (jval_is_str(name, "current")) {
            *out = v.cycler->items[v.cycler->at];
            return true;
        }
        f = jbuiltin_find(jinja_cycler_methods, name.s, name.n);
    } else if (v.kind == J_MACRO && jval_is_str(name, "name")) {
        *out = v.macro->name;
        return true;
    } else if (v.kind == J_SEQ && v.seq->type == JSEQ_GROUP) {
        bool is_list = jval_is_str(name, "list");
        if (!is_list && !jval_is_str(name, "grouper"))
            return false;
        *out = v.seq->items[is_list];
        return true;
    }
    if (f)
        bind(r, v, f, out);
    return f != NULL;
}

static bool refused(struct jrun *r, struct jval v, struct jval name, struct jval *out)
{
    char *hint;

    if (!(name.n >= 2 && memcmp(name.s, "__", 2) == 0) &&
        !jinja_is_refused_method(v, name.s, name.n))
        return false;
    hint = arena_printf(&r->mem, "access to attribute '%.*s' of '%s' object is unsafe",
                        (int)(name.n < 80 ? name.n : 80), name.s, jval_type_name(v));
    *out = jval_undef_hint(r, hint);
    return true;
}

static const struct jbuiltin *find_method(struct jval v, struct jval name,
                                          const struct jattr_funcs *m)
{
    if (v.kind == J_DICT)
        return m ? m->dict : jbuiltin_find(jinja_dict_methods, name.s, name.n);
    if (v.kind == J_STR)
        return m ? m->str : jbuiltin_find(jinja_str_methods, name.s, name.n);
    if (v.kind == J_SEQ && v.seq->type <= JSEQ_RANGE &&
        (v.seq->type == JSEQ_LIST || !jval_is_str(name, "copy")))
        return m ? m->seq : jbuiltin_find(jinja_seq_methods, name.s, name.n);
    return NULL;
}

/* What the sandbox's getattr() gives: a method or a field, but no key.  False: nothing. */
static bool python_attr(struct jrun *r, struct jval v, struct jval name,
                        const struct jattr_funcs *m, struct jval *out)
{
    const struct jbuiltin *f = find_method(v, name, m);
    const struct jval *field;

    if (f) {
        bind(r, v, f, out);
        return true;
    }
    if (v.kind == J_NAMESPACE) {
        field = jdict_find(v.dict, name.s, name.n);
        if (field)
            *out = *field;
        return field != NULL;
    }
    return object_attr(r, v, name, out) || refused(r, v, name, out);
}

bool jop_attr(struct jrun *r, struct jval v, struct jval name, const struct jattr_funcs *m,
              struct jval *out)
{
    const struct jval *found;

    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (python_attr(r, v, name, m, out))
        return true;
    found = v.kind == J_DICT ? jdict_find(v.dict, name.s, name.n) : NULL;
    *out = found ? *found : jval_undef(r, v, name);
    return jrun_work(r, v.kind == J_DICT ? v.dict->n / 8 + name.n / 64 : 0);
}

/* ---- subscripts ---------------------------------------------------------------------------------- */

static bool char_at(struct jrun *r, struct jval s, int64_t index, struct jval *out)
{
    int64_t count = (int64_t)jutf8_count(s.s, s.n);
    size_t start, end;

    if (!jrun_work(r, s.n / 16))
        return false;
    if (index < 0)
        index += count;
    if (index < 0 || index >= count) {
        out->kind = J_ABSENT;
        return true;
    }
    start = end = jutf8_offset(s.s, s.n, (size_t)index);
    jutf8_next(s.s, &end);
    *out = jval_str(s.s + start, end - start);
    return true;
}

/* Python's v[key].  J_ABSENT: there is no such item, or v has none. */
static bool python_item(struct jrun *r, struct jval v, struct jval key, struct jval *out)
{
    out->kind = J_ABSENT;
    if (v.kind == J_DICT) {
        if (key.kind == J_DICT || (key.kind == J_SEQ && key.seq->type == JSEQ_LIST))
            return true; /* not hashable, so not there */
        return jdict_get(r, v.dict, key, out);
    }
    if (!jval_is_int(key))
        return true;
    if (v.kind == J_STR)
        return char_at(r, v, jval_as_int(key), out);
    if (v.kind == J_SEQ && v.seq->type <= JSEQ_RANGE) {
        int64_t index = jval_as_int(key);
        if (index < 0)
            index += v.seq->n;
        if (index >= 0 && index < v.seq->n)
            *out = v.seq->items[index];
    }
    return true;
}

bool jop_index(struct jrun *r, struct jval v, struct jval key, struct jval *out)
{
    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (!python_item(r, v, key, out))
        return false;
    if (out->kind != J_ABSENT || (key.kind == J_STR && python_attr(r, v, key, NULL, out)))
        return true;
    *out = jval_undef(r, v, key);
    return true;
}

/* ---- slices -------------------------------------------------------------------------------------- */

struct slice {
    int64_t start, stop, step, n;
};

static bool bound(struct jrun *r, struct jval v, int64_t otherwise, int64_t *out)
{
    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (v.kind != J_NONE && !jval_is_int(v))
        return jrun_fail(r, "slice indices must be integers or None");
    *out = v.kind == J_NONE ? otherwise : jval_as_int(v);
    return true;
}

static int64_t clamp(int64_t i, int64_t n, bool backwards)
{
    if (i < 0)
        i = i < -n ? -1 : i + n;
    if (i < 0)
        return backwards ? -1 : 0;
    return i >= n ? (backwards ? n - 1 : n) : i;
}

static bool resolve(struct jrun *r, const struct jval bounds[3], int64_t n, struct slice *s)
{
    bool backwards;

    if (!bound(r, bounds[2], 1, &s->step))
        return false;
    if (s->step == 0)
        return jrun_fail(r, "slice step cannot be zero");
    backwards = s->step < 0;
    if (!bound(r, bounds[0], backwards ? INT64_MAX : 0, &s->start) ||
        !bound(r, bounds[1], backwards ? INT64_MIN : INT64_MAX, &s->stop))
        return false;
    s->start = clamp(s->start, n, backwards);
    s->stop = clamp(s->stop, n, backwards);
    if (s->step > n + 1)
        s->step = n + 1; /* one item, without overflow */
    if (s->step < -n - 1)
        s->step = -n - 1;
    if (backwards)
        s->n = s->start > s->stop ? (s->start - s->stop - 1) / -s->step + 1 : 0;
    else
        s->n = s->stop > s->start ? (s->stop - s->start - 1) / s->step + 1 : 0;
    return true;
}

static bool slice_str(struct jrun *r, struct jval v, const struct jval bounds[3], struct jval *out)
{
    struct jbuf b = { .run = r };
    struct jval *chars;
    struct slice s;
    uint32_t n;

    if (!resolve(r, bounds, (int64_t)jutf8_count(v.s, v.n), &s) || !jrun_work(r, v.n / 16))
        return false;
    if (s.step == 1 || s.n == 0) {
        size_t from = s.n ? jutf8_offset(v.s, v.n, (size_t)s.start) : 0;
        *out = jval_str(v.s + from, jutf8_offset(v.s + from, v.n - from, (size_t)s.n));
        out->markup = v.markup;
        return true;
    }
    if (!jval_iterate(r, v, &chars, &n))
        return false;
    for (int64_t i = 0; i < s.n; i++)
        jbuf_add(&b, chars[s.start + i * s.step].s, chars[s.start + i * s.step].n);
    return jbuf_done(&b, out);
}

/* The bounds a range prints stand after its items. */
static void keep_range_bounds(struct jval *end, const struct jval *of, const struct slice *s)
{
    int64_t first = of[0].i, step = of[2].i;

    end[0] = jval_int(first + s->start * step);
    end[1] = jval_int(first + s->stop * step);
    end[2] = jval_int(step * s->step);
}

static bool slice_seq(struct jrun *r, const struct jseq *from, const struct jval bounds[3],
                      struct jval *out)
{
    struct jseq *to;
    struct slice s;

    if (!resolve(r, bounds, from->n, &s) || !jrun_work(r, (size_t)s.n / 4) ||
        !jrun_room(r, ((size_t)s.n + 3) * sizeof *to->items))
        return false;
    to = jseq_new(r, from->type == JSEQ_GROUP ? JSEQ_TUPLE : from->type, (size_t)s.n + 3);
    for (; to->n < s.n; to->n++)
        to->items[to->n] = from->items[s.start + to->n * s.step];
    if (from->type == JSEQ_RANGE)
        keep_range_bounds(to->items + to->n, from->items + from->n, &s);
    *out = jval_seq(to);
    return true;
}

bool jop_slice(struct jrun *r, struct jval v, const struct jval bounds[3], struct jval *out)
{
    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (v.kind == J_STR)
        return slice_str(r, v, bounds, out);
    if (v.kind == J_SEQ && v.seq->type <= JSEQ_RANGE)
        return slice_seq(r, v.seq, bounds, out);
    if (v.kind == J_DICT)
        return jrun_fail(r, "unhashable type: 'slice'");
    return jrun_fail(r, "'%s' object is not subscriptable", jval_type_name(v));
}
