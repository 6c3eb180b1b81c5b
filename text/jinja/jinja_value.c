/* jinja_value.c - Python's values: made, compared, searched and iterated. */
#include "text/jinja/jinja.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- making ------------------------------------------------------------------------------------ */

struct jval jval_undef(struct jrun *r, struct jval object, struct jval name)
{
    struct jundef *u = jrun_alloc(r, sizeof *u);

    *u = (struct jundef){ .object = object, .name = name };
    return (struct jval){ .kind = J_UNDEF, .undef = u };
}

struct jval jval_undef_hint(struct jrun *r, const char *hint)
{
    struct jundef *u = jrun_alloc(r, sizeof *u);

    *u = (struct jundef){ .hint = hint };
    return (struct jval){ .kind = J_UNDEF, .undef = u };
}

struct jseq *jseq_new(struct jrun *r, enum jseq_type type, size_t cap)
{
    struct jseq *s = jrun_alloc(r, sizeof *s);

    s->type = type;
    s->cap = (uint32_t)cap;
    s->items = cap ? jrun_alloc(r, cap * sizeof *s->items) : NULL;
    return s;
}

bool jseq_push(struct jrun *r, struct jseq *s, struct jval v)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 8;
        struct jval *grown;
        if (!jrun_room(r, cap * sizeof *grown))
            return false;
        grown = jrun_alloc(r, cap * sizeof *grown);
        if (s->n)
            memcpy(grown, s->items, s->n * sizeof *grown);
        s->items = grown;
        s->cap = cap;
    }
    s->items[s->n++] = v;
    return true;
}

struct jdict *jdict_new(struct jrun *r, size_t cap)
{
    struct jdict *d = jrun_alloc(r, sizeof *d);

    d->cap = (uint32_t)cap;
    d->pairs = cap ? jrun_alloc(r, cap * sizeof *d->pairs) : NULL;
    return d;
}

struct jval *jdict_find(const struct jdict *d, const char *key, size_t n)
{
    for (uint32_t i = 0; i < d->n; i++) {
        const struct jval *k = &d->pairs[i].key;
        if (k->kind == J_STR && k->n == n && memcmp(k->s, key, n) == 0)
            return &d->pairs[i].value;
    }
    return NULL;
}

static bool find_key(struct jrun *r, const struct jdict *d, struct jval key, struct jval **value)
{
    *value = NULL;
    if (key.kind == J_STR) {
        *value = jdict_find(d, key.s, key.n);
        return jrun_work(r, d->n + key.n / 64);
    }
    if (key.kind == J_DICT || (key.kind == J_SEQ && key.seq->type == JSEQ_LIST))
        return jrun_fail(r, "unhashable type: '%s'", jval_type_name(key));
    for (uint32_t i = 0; i < d->n; i++) {
        bool same;
        if (!jval_equal(r, d->pairs[i].key, key, &same))
            return false;
        if (same) {
            *value = &d->pairs[i].value;
            break;
        }
    }
    return jrun_work(r, d->n);
}

bool jdict_get(struct jrun *r, const struct jdict *d, struct jval key, struct jval *out)
{
    struct jval *found;

    if (!find_key(r, d, key, &found))
        return false;
    *out = found ? *found : (struct jval){ .kind = J_ABSENT };
    return true;
}

bool jdict_set(struct jrun *r, struct jdict *d, struct jval key, struct jval value)
{
    struct jval *found;

    if (!find_key(r, d, key, &found))
        return false;
    if (found) {
        *found = value;
        return true;
    }
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 8;
        struct jpair *grown;
        if (!jrun_room(r, cap * sizeof *grown))
            return false;
        grown = jrun_alloc(r, cap * sizeof *grown);
        if (d->n)
            memcpy(grown, d->pairs, d->n * sizeof *grown);
        d->pairs = grown;
        d->cap = cap;
    }
    d->pairs[d->n++] = (struct jpair){ key, value };
    return true;
}

static bool from_array(struct jrun *r, const json_t *j, int nest, struct jval *out)
{
    size_t n = json_array_size(j);
    struct jseq *s;

    if (!jrun_room(r, n * sizeof *s->items))
        return false;
    s = jseq_new(r, JSEQ_LIST, n);
    for (; s->n < n; s->n++)
        if (!jval_from_json(r, json_array_get(j, s->n), nest + 1, &s->items[s->n]))
            return false;
    *out = jval_seq(s);
    return true;
}

static bool from_object(struct jrun *r, const json_t *j, int nest, struct jval *out)
{
    json_t *object =
        (json_t *)(uintptr_t)j; /* json_object_iter() wants it so; nothing is changed */
    size_t n = json_object_size(j);
    struct jdict *d;

    if (!jrun_room(r, n * sizeof *d->pairs))
        return false;
    d = jdict_new(r, n);
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        struct jpair *pair = &d->pairs[d->n++];
        pair->key = jval_str(json_object_iter_key(i), json_object_iter_key_len(i));
        if (!jval_from_json(r, json_object_iter_value(i), nest + 1, &pair->value))
            return false;
    }
    *out = jval_dict(d);
    return true;
}

bool jval_from_json(struct jrun *r, const json_t *j, int nest, struct jval *out)
{
    if (nest > JINJA_VALUE_NEST_MAX)
        return jrun_fail(r, "a value is nested deeper than %d levels", JINJA_VALUE_NEST_MAX);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return from_object(r, j, nest, out);
    case JSON_ARRAY:
        return from_array(r, j, nest, out);
    case JSON_STRING:
        if (json_string_length(j) > JINJA_STRING_MAX)
            return jrun_fail(r, "a string has more than %u bytes", JINJA_STRING_MAX);
        *out = jval_str(json_string_value(j), json_string_length(j));
        return true;
    case JSON_INTEGER:
        *out = jval_int(json_integer_value(j));
        return true;
    case JSON_REAL:
        *out = jval_float(json_real_value(j));
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = jval_bool(json_is_true(j));
        return true;
    case JSON_NULL:
        break;
    }
    *out = jval_none();
    return true;
}

/* ---- asking ------------------------------------------------------------------------------------ */

bool jval_is_str(struct jval v, const char *s)
{
    size_t n = strlen(s);

    return v.kind == J_STR && v.n == n && memcmp(v.s, s, n) == 0;
}

bool jval_truth(struct jval v)
{
    switch ((enum jkind)v.kind) {
    case J_ABSENT:
    case J_UNDEF:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.b;
    case J_INT:
        return v.i != 0;
    case J_FLOAT:
        return v.f != 0.0;
    case J_STR:
        return v.n > 0;
    case J_SEQ:
        return v.seq->n > 0 || v.seq->type == JSEQ_GEN;
    case J_DICT:
        return v.dict->n > 0;
    default:
        return true;
    }
}

const char *jval_type_name(struct jval v)
{
    static const char *const seqs[] = {
        [JSEQ_LIST] = "list",        [JSEQ_TUPLE] = "tuple",    [JSEQ_GROUP] = "tuple",
        [JSEQ_RANGE] = "range",      [JSEQ_KEYS] = "dict_keys", [JSEQ_VALUES] = "dict_values",
        [JSEQ_ITEMS] = "dict_items", [JSEQ_GEN] = "generator",
    };
    static const char *const kinds[] = {
        [J_ABSENT] = "Undefined", [J_UNDEF] = "Undefined", [J_NONE] = "NoneType",
        [J_BOOL] = "bool",        [J_INT] = "int",         [J_FLOAT] = "float",
        [J_STR] = "str",          [J_DICT] = "dict",       [J_NAMESPACE] = "Namespace",
        [J_FUNC] = "function",    [J_METHOD] = "method",   [J_MACRO] = "Macro",
        [J_LOOP] = "LoopContext", [J_CYCLER] = "Cycler",   [J_JOINER] = "Joiner",
    };

    return v.kind == J_SEQ ? seqs[v.seq->type] : kinds[v.kind];
}

bool jval_length(struct jrun *r, struct jval v, int64_t *out)
{
    if (v.kind == J_UNDEF)
        *out = 0;
    else if (v.kind == J_STR)
        *out = (int64_t)jutf8_count(v.s, v.n);
    else if (v.kind == J_SEQ && v.seq->type != JSEQ_GEN)
        *out = v.seq->n;
    else if (v.kind == J_DICT)
        *out = v.dict->n;
    else if (v.kind == J_LOOP)
        *out = v.loop->n;
    else
        return jrun_fail(r, "object of type '%s' has no len()", jval_type_name(v));
    return jrun_work(r, v.kind == J_STR ? v.n / 16 : 1);
}

/* ---- iterating ---------------------------------------------------------------------------------- */

static bool characters(struct jrun *r, struct jval v, struct jval **items, uint32_t *n)
{
    size_t count = jutf8_count(v.s, v.n), at = 0;

    if (!jrun_work(r, count) || !jrun_room(r, count * sizeof **items))
        return false;
    *items = jrun_alloc(r, count * sizeof **items);
    for (size_t i = 0; i < count; i++) {
        size_t start = at;
        jutf8_next(v.s, &at);
        (*items)[i] = jval_str(v.s + start, at - start);
    }
    *n = (uint32_t)count;
    return true;
}

static bool keys(struct jrun *r, const struct jdict *d, struct jval **items, uint32_t *n)
{
    if (!jrun_work(r, d->n) || !jrun_room(r, d->n * sizeof **items))
        return false;
    *items = jrun_alloc(r, d->n * sizeof **items);
    for (uint32_t i = 0; i < d->n; i++)
        (*items)[i] = d->pairs[i].key;
    *n = d->n;
    return true;
}

bool jval_iterate(struct jrun *r, struct jval v, struct jval **items, uint32_t *n)
{
    *items = NULL;
    *n = 0;
    switch ((enum jkind)v.kind) {
    case J_UNDEF:
        return true;
    case J_STR:
        return characters(r, v, items, n);
    case J_DICT:
        return keys(r, v.dict, items, n);
    case J_SEQ:
        if (v.seq->type == JSEQ_GEN) {
            *items = v.seq->items ? v.seq->items + v.seq->at : NULL;
            *n = v.seq->n - v.seq->at;
            v.seq->at = v.seq->n;
            return true;
        }
        *items = v.seq->items;
        *n = v.seq->n;
        return true;
    default:
        return jrun_fail(r, "'%s' object is not iterable", jval_type_name(v));
    }
}

/* ---- comparing ---------------------------------------------------------------------------------- */

static bool equal(struct jrun *r, struct jval a, struct jval b, int nest, bool *out);

static bool is_tuple(const struct jseq *s)
{
    return s->type == JSEQ_TUPLE || s->type == JSEQ_GROUP;
}

static bool seqs_equal(struct jrun *r, const struct jseq *a, const struct jseq *b, int nest,
                       bool *out)
{
    bool comparable = a->type == b->type || (is_tuple(a) && is_tuple(b));

    *out = a == b;
    if (*out || !comparable || a->n != b->n || a->type == JSEQ_GEN || a->type == JSEQ_VALUES)
        return true;
    for (uint32_t i = 0; i < a->n; i++) {
        bool same;
        if (!equal(r, a->items[i], b->items[i], nest + 1, &same))
            return false;
        if (!same)
            return true;
    }
    *out = true;
    return true;
}

static bool dicts_equal(struct jrun *r, const struct jdict *a, const struct jdict *b, int nest,
                        bool *out)
{
    *out = a == b;
    if (*out || a->n != b->n)
        return true;
    for (uint32_t i = 0; i < a->n; i++) {
        struct jval other;
        bool same;
        if (!jdict_get(r, b, a->pairs[i].key, &other))
            return false;
        if (other.kind == J_ABSENT)
            return true;
        if (!equal(r, a->pairs[i].value, other, nest + 1, &same))
            return false;
        if (!same)
            return true;
    }
    *out = true;
    return true;
}

static bool numbers_equal(struct jval a, struct jval b)
{
    if (a.kind == J_FLOAT || b.kind == J_FLOAT)
        return jval_as_float(a) == jval_as_float(b);
    return jval_as_int(a) == jval_as_int(b);
}

static bool equal(struct jrun *r, struct jval a, struct jval b, int nest, bool *out)
{
    *out = false;
    if (nest > JINJA_VALUE_NEST_MAX)
        return jrun_fail(r, "compared values are nested deeper than %d levels",
                         JINJA_VALUE_NEST_MAX);
    if (!jrun_work(r, 1))
        return false;
    if (jval_is_num(a) && jval_is_num(b)) {
        *out = numbers_equal(a, b);
        return true;
    }
    if (a.kind != b.kind)
        return true;
    switch ((enum jkind)a.kind) {
    case J_STR:
        *out = a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
        return jrun_work(r, a.n / 64);
    case J_SEQ:
        return seqs_equal(r, a.seq, b.seq, nest, out);
    case J_DICT:
        return dicts_equal(r, a.dict, b.dict, nest, out);
    case J_UNDEF:
    case J_NONE:
        *out = true;
        return true;
    default:
        *out = a.s == b.s; /* the same object */
        return true;
    }
}

bool jval_equal(struct jrun *r, struct jval a, struct jval b, bool *out)
{
    return equal(r, a, b, 0, out);
}

static int order_bytes(struct jval a, struct jval b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.s, b.s, n) : 0;

    return c ? (c > 0) - (c < 0) : (a.n > b.n) - (a.n < b.n);
}

static bool order(struct jrun *r, struct jval a, struct jval b, const char *op, int nest, int *out);

static bool order_seqs(struct jrun *r, const struct jseq *a, const struct jseq *b, const char *op,
                       int nest, int *out)
{
    for (uint32_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        if (!equal(r, a->items[i], b->items[i], nest + 1, &same))
            return false;
        if (!same)
            return order(r, a->items[i], b->items[i], op, nest + 1, out);
    }
    *out = (a->n > b->n) - (a->n < b->n);
    return true;
}

/* *out: -1, 0, 1; or 2 when a NaN is involved, which is in no order. */
static bool order(struct jrun *r, struct jval a, struct jval b, const char *op, int nest, int *out)
{
    if (nest > JINJA_VALUE_NEST_MAX || !jrun_work(r, 1))
        return jrun_fail(r, "compared values are nested deeper than %d levels",
                         JINJA_VALUE_NEST_MAX);
    if (a.kind == J_UNDEF || b.kind == J_UNDEF)
        return jrun_undef_fail(r, a.kind == J_UNDEF ? a : b);
    if (jval_is_num(a) && jval_is_num(b)) {
        if (a.kind == J_FLOAT || b.kind == J_FLOAT) {
            double x = jval_as_float(a), y = jval_as_float(b);
            *out = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
        } else {
            int64_t x = jval_as_int(a), y = jval_as_int(b);
            *out = (x > y) - (x < y);
        }
        return true;
    }
    if (a.kind == J_STR && b.kind == J_STR) {
        *out = order_bytes(a, b);
        return jrun_work(r, (a.n < b.n ? a.n : b.n) / 64);
    }
    if (a.kind == J_SEQ && b.kind == J_SEQ &&
        ((a.seq->type == JSEQ_LIST && b.seq->type == JSEQ_LIST) ||
         (is_tuple(a.seq) && is_tuple(b.seq))))
        return order_seqs(r, a.seq, b.seq, op, nest, out);
    return jrun_fail(r, "'%s' not supported between instances of '%s' and '%s'", op,
                     jval_type_name(a), jval_type_name(b));
}

bool jval_order(struct jrun *r, struct jval a, struct jval b, const char *op, int *out)
{
    return order(r, a, b, op, 0, out);
}

static bool seq_contains(struct jrun *r, struct jseq *s, struct jval item, bool *out)
{
    bool is_gen = s->type == JSEQ_GEN;

    for (uint32_t i = is_gen ? s->at : 0; i < s->n && !*out; i++) {
        if (is_gen)
            s->at = i + 1;
        if (!jval_equal(r, s->items[i], item, out))
            return false;
    }
    return true;
}

bool jval_contains(struct jrun *r, struct jval container, struct jval item, bool *out)
{
    struct jval found;

    *out = false;
    switch ((enum jkind)container.kind) {
    case J_UNDEF:
        return true;
    case J_STR:
        if (item.kind != J_STR)
            return jrun_fail(r, "'in <string>' requires string as left operand, not %s",
                             jval_type_name(item));
        *out = item.n == 0 || memmem(container.s, container.n, item.s, item.n);
        return jrun_work(r, container.n / 16);
    case J_DICT:
        if (!jdict_get(r, container.dict, item, &found))
            return false;
        *out = found.kind != J_ABSENT;
        return true;
    case J_SEQ:
        return seq_contains(r, container.seq, item, out);
    default:
        return jrun_fail(r, "argument of type '%s' is not iterable", jval_type_name(container));
    }
}
