/* jinja_filters_seq.c - filters of lists: map, select, sort, join and the like. */
#include "text/jinja/jinja.h"

#include <string.h>

/* ---- attributes by path ("a.b.0") ------------------------------------------------------------------ */

static struct jval path_part(const char *s, size_t n)
{
    int64_t i = 0;

    for (size_t at = 0; at < n; at++) {
        if (s[at] < '0' || s[at] > '9' || i > INT64_MAX / 100)
            return jval_str(s, n);
        i = i * 10 + (s[at] - '0');
    }
    return n ? jval_int(i) : jval_str(s, n);
}

/* The attribute of v that `path` names: a key, an attribute, an index, or several with dots. */
static bool get_path(struct jrun *r, struct jval v, struct jval path, struct jval otherwise,
                     struct jval *out)
{
    bool has_default = otherwise.kind != J_ABSENT && otherwise.kind != J_NONE;

    if (!jrun_work(r, path.kind == J_STR ? path.n / 64 : 0))
        return false;
    if (path.kind != J_STR) {
        if (!jop_index(r, v, path, &v))
            return false;
        *out = has_default && v.kind == J_UNDEF ? otherwise : v;
        return true;
    }
    for (size_t at = 0; at <= path.n;) {
        const char *dot = at < path.n ? memchr(path.s + at, '.', path.n - at) : NULL;
        size_t n = (dot ? (size_t)(dot - path.s) : path.n) - at;
        if (!jop_index(r, v, path_part(path.s + at, n), &v))
            return false;
        if (has_default && v.kind == J_UNDEF)
            v = otherwise;
        at += n + 1;
    }
    *out = v;
    return true;
}

static bool fold_case(struct jrun *r, struct jval v, bool case_sensitive, struct jval *out)
{
    *out = v;
    return case_sensitive || v.kind != J_STR || jstr_case(r, v, JCASE_LOWER, out);
}

/* What items are compared by: the whole item or one attribute, case folded unless told otherwise. */
static bool sort_key(struct jrun *r, struct jval item, struct jval path, bool case_sensitive,
                     struct jval *out)
{
    struct jval key = item;

    if (path.kind != J_ABSENT && path.kind != J_NONE &&
        !get_path(r, item, path, (struct jval){ .kind = J_ABSENT }, &key))
        return false;
    return fold_case(r, key, case_sensitive, out);
}

/* ---- making lists ------------------------------------------------------------------------------------ */

static struct jval new_seq(struct jrun *r, enum jseq_type type, struct jval *items, uint32_t n)
{
    struct jseq *s = jseq_new(r, type, 0);

    s->items = items;
    s->n = s->cap = n;
    return jval_seq(s);
}

static bool filter_list(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *items;
    uint32_t n;

    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    *out = new_seq(r, JSEQ_LIST, items, n);
    return true;
}

static bool filter_first(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *items;
    uint32_t n;

    if (c->self.kind == J_SEQ && c->self.seq->type == JSEQ_GEN) {
        struct jseq *gen = c->self.seq;
        *out = gen->at < gen->n ? gen->items[gen->at++]
                                : jval_undef_hint(r, "No first item, sequence was empty.");
        return true;
    }
    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    *out = n ? items[0] : jval_undef_hint(r, "No first item, sequence was empty.");
    return true;
}

static bool can_reverse(struct jval v)
{
    return v.kind == J_STR || v.kind == J_DICT || (v.kind == J_SEQ && v.seq->type != JSEQ_GEN);
}

static bool filter_last(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *items;
    uint32_t n;

    if (c->self.kind != J_UNDEF && !can_reverse(c->self))
        return jrun_fail(r, "'%s' object is not reversible", jval_type_name(c->self));
    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    *out = n ? items[n - 1] : jval_undef_hint(r, "No last item, sequence was empty.");
    return true;
}

static bool filter_reverse(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *items, *reversed;
    uint32_t n;

    if (!jval_iterate(r, c->self, &items, &n) || !jrun_work(r, n) ||
        !jrun_room(r, n * sizeof *items))
        return false;
    reversed = jrun_alloc(r, n * sizeof *items);
    for (uint32_t i = 0; i < n; i++)
        reversed[i] = items[n - 1 - i];
    if (c->self.kind == J_STR)
        return jstr_join(r, jval_str("", 0), reversed, n, false, out);
    *out = new_seq(r, can_reverse(c->self) || c->self.kind == J_UNDEF ? JSEQ_GEN : JSEQ_LIST,
                   reversed, n);
    return true;
}

static bool filter_items(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jcall none = { .self = c->self };

    if (c->self.kind == J_UNDEF) {
        *out = new_seq(r, JSEQ_GEN, NULL, 0);
        return true;
    }
    if (c->self.kind != J_DICT)
        return jrun_fail(r, "Can only get item pairs from a mapping.");
    if (!jinja_dict_methods[0].call(r, &none, out)) /* items() */
        return false;
    out->seq->type = JSEQ_GEN;
    return true;
}

static bool filter_join(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval separator = jval_str("", 0), *items, *parts;
    uint32_t n;

    if ((c->arg[0].kind != J_ABSENT && !jval_to_str(r, c->arg[0], &separator)) ||
        !jval_iterate(r, c->self, &items, &n))
        return false;
    parts = items;
    if (c->arg[1].kind != J_ABSENT && c->arg[1].kind != J_NONE) {
        if (!jrun_room(r, n * sizeof *parts))
            return false;
        parts = jrun_alloc(r, n * sizeof *parts);
        for (uint32_t i = 0; i < n; i++)
            if (!get_path(r, items[i], c->arg[1], (struct jval){ .kind = J_ABSENT }, &parts[i]))
                return false;
    }
    return jstr_join(r, separator, parts, n, true, out);
}

static bool filter_batch(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq *rows = jseq_new(r, JSEQ_GEN, 0), *row = NULL;
    struct jval *items;
    int64_t per_row;
    uint32_t n;

    if (!jcall_int(r, c, 0, 1, &per_row) || !jval_iterate(r, c->self, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        /* Jinja closes a row only when it is exactly full: with 0 or less, there is one row. */
        if (!row || (int64_t)row->n == per_row) {
            row = jseq_new(r, JSEQ_LIST, 0);
            if (!jseq_push(r, rows, jval_seq(row)))
                return false;
        }
        if (!jrun_work(r, 0) || !jseq_push(r, row, items[i]))
            return false;
    }
    if (row && c->arg[1].kind != J_ABSENT && c->arg[1].kind != J_NONE)
        while ((int64_t)row->n < per_row)
            if (!jrun_work(r, 0) || !jseq_push(r, row, c->arg[1]))
                return false;
    *out = jval_seq(rows);
    return true;
}

/* ---- map, select, reject ----------------------------------------------------------------------------- */

static const struct jkwarg *find_kwarg(const struct jcall *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_kw; i++)
        if (c->kw[i].n == strlen(name) && memcmp(c->kw[i].name, name, c->kw[i].n) == 0)
            return &c->kw[i];
    return NULL;
}

/* A filter or test named by a value at run time, applied to `item` with the arguments from `skip` on. */
static bool apply_named(struct jrun *r, const struct jbuiltin *f, const struct jcall *c,
                        uint32_t skip, struct jval item, struct jval *out)
{
    struct jcall inner = {
        .self = item, .pos = c->pos + skip, .n_pos = c->n_pos - skip, .kw = c->kw, .n_kw = c->n_kw
    };

    return jbuiltin_call(r, f, &inner, out);
}

static bool map_by_attribute(struct jrun *r, struct jcall *c, struct jseq *to)
{
    const struct jkwarg *path = find_kwarg(c, "attribute"), *otherwise = find_kwarg(c, "default");
    struct jval *items, v;
    uint32_t n;

    if (c->n_kw != 1u + (otherwise != NULL))
        return jrun_fail(r, "map got an unexpected keyword argument");
    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!get_path(r, items[i], path->value,
                      otherwise ? otherwise->value : (struct jval){ .kind = J_ABSENT }, &v) ||
            !jseq_push(r, to, v))
            return false;
    return true;
}

static bool filter_map(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq *to = jseq_new(r, JSEQ_GEN, 0);
    const struct jbuiltin *f;
    struct jval *items, v;
    uint32_t n;

    *out = jval_seq(to);
    if (!jval_truth(c->self)) /* nothing is looked at, not even the arguments */
        return true;
    if (c->n_pos == 0 && find_kwarg(c, "attribute"))
        return map_by_attribute(r, c, to);
    if (c->n_pos == 0)
        return jrun_fail(r, "map requires a filter argument");
    f = c->pos[0].kind == J_STR ? jinja_find_filter(c->pos[0].s, c->pos[0].n) : NULL;
    if (!f)
        return jrun_fail(r, "map names a filter that is not supported");
    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!apply_named(r, f, c, 1, items[i], &v) || !jseq_push(r, to, v))
            return false;
    return true;
}

static bool choose(struct jrun *r, struct jcall *c, bool wanted, bool by_attr, struct jval *out)
{
    struct jseq *to = jseq_new(r, JSEQ_GEN, 0);
    const struct jbuiltin *test = NULL;
    uint32_t n, at = by_attr;
    struct jval *items, v;

    *out = jval_seq(to);
    if (!jval_truth(c->self))
        return true;
    if (by_attr && c->n_pos == 0)
        return jrun_fail(r, "Missing parameter for attribute name");
    if (c->n_pos > at) {
        test = c->pos[at].kind == J_STR ? jbuiltin_find(jinja_tests, c->pos[at].s, c->pos[at].n)
                                        : NULL;
        if (!test)
            return jrun_fail(r, "a filter names a test that is not supported");
    }
    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        v = items[i];
        if (by_attr && !get_path(r, v, c->pos[0], (struct jval){ .kind = J_ABSENT }, &v))
            return false;
        if (test && !apply_named(r, test, c, at + 1, v, &v))
            return false;
        if (jval_truth(v) == wanted && !jseq_push(r, to, items[i]))
            return false;
    }
    return true;
}

static bool filter_select(struct jrun *r, struct jcall *c, struct jval *out)
{
    return choose(r, c, true, false, out);
}

static bool filter_reject(struct jrun *r, struct jcall *c, struct jval *out)
{
    return choose(r, c, false, false, out);
}

static bool filter_selectattr(struct jrun *r, struct jcall *c, struct jval *out)
{
    return choose(r, c, true, true, out);
}

static bool filter_rejectattr(struct jrun *r, struct jcall *c, struct jval *out)
{
    return choose(r, c, false, true, out);
}

/* ---- order --------------------------------------------------------------------------------------------- */

struct keyed {
    struct jval key, item;
};

/* Stable merge sort; equal items keep their order in both directions, as in Python. */
static bool merge_sort(struct jrun *r, struct keyed *a, struct keyed *spare, uint32_t n,
                       bool reverse)
{
    uint32_t half = n / 2, i = 0, j = half, k = 0;

    if (n < 2)
        return true;
    if (!merge_sort(r, a, spare, half, reverse) ||
        !merge_sort(r, a + half, spare, n - half, reverse))
        return false;
    while (i < half && j < n) {
        int c;
        if (!jval_order(r, a[j].key, a[i].key, "<", &c))
            return false;
        if (reverse ? c == 1 : c < 0)
            spare[k++] = a[j++];
        else
            spare[k++] = a[i++];
    }
    while (i < half)
        spare[k++] = a[i++];
    memcpy(a, spare, k * sizeof *a);
    return true;
}

static bool sort_items(struct jrun *r, struct keyed *a, uint32_t n, bool reverse, struct jval *out)
{
    struct keyed *spare;
    struct jval *items;

    if (!jrun_room(r, n * (sizeof *spare + sizeof *items)))
        return false;
    spare = jrun_alloc(r, n * sizeof *spare);
    items = jrun_alloc(r, n * sizeof *items);
    if (!merge_sort(r, a, spare, n, reverse))
        return false;
    for (uint32_t i = 0; i < n; i++)
        items[i] = a[i].item;
    *out = new_seq(r, JSEQ_LIST, items, n);
    return true;
}

/* The keys of one item for sort(attribute="a,b"): a list, compared from the left. */
static bool multi_key(struct jrun *r, struct jval item, struct jval paths, bool case_sensitive,
                      struct jval *out)
{
    struct jseq *keys = jseq_new(r, JSEQ_LIST, 1);

    if (paths.kind != J_STR) {
        *out = jval_seq(keys);
        keys->n = 1;
        return sort_key(r, item, paths, case_sensitive, &keys->items[0]);
    }
    for (size_t at = 0; at <= paths.n;) {
        const char *comma = at < paths.n ? memchr(paths.s + at, ',', paths.n - at) : NULL;
        size_t n = (comma ? (size_t)(comma - paths.s) : paths.n) - at;
        struct jval key;
        if (!sort_key(r, item, jval_str(paths.s + at, n), case_sensitive, &key) ||
            !jseq_push(r, keys, key))
            return false;
        at += n + 1;
    }
    *out = jval_seq(keys);
    return true;
}

static bool make_keyed(struct jrun *r, struct jval v, struct keyed **out, uint32_t *n)
{
    struct jval *items;

    if (!jval_iterate(r, v, &items, n) || !jrun_room(r, *n * sizeof **out))
        return false;
    *out = jrun_alloc(r, *n * sizeof **out);
    for (uint32_t i = 0; i < *n; i++)
        (*out)[i].item = items[i];
    return true;
}

static bool filter_sort(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct keyed *a;
    uint32_t n;

    if (!make_keyed(r, c->self, &a, &n))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!multi_key(r, a[i].item, c->arg[2], jval_truth(c->arg[1]), &a[i].key))
            return false;
    return sort_items(r, a, n, jval_truth(c->arg[0]), out);
}

static bool filter_dictsort(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval by = c->arg[1].kind == J_ABSENT ? jval_str("key", 3) : c->arg[1], pairs;
    bool by_value = jval_is_str(by, "value");
    struct jcall items = { .self = c->self };
    struct keyed *a;
    uint32_t n;

    if (!by_value && !jval_is_str(by, "key"))
        return jrun_fail(r, "You can only sort by either \"key\" or \"value\"");
    if (c->self.kind == J_UNDEF)
        return jrun_undef_fail(r, c->self);
    if (c->self.kind != J_DICT)
        return jrun_fail(r, "dictsort wants a dict, found '%s'", jval_type_name(c->self));
    if (!jinja_dict_methods[0].call(r, &items, &pairs) || !make_keyed(r, pairs, &a, &n))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!fold_case(r, a[i].item.seq->items[by_value], jval_truth(c->arg[0]), &a[i].key))
            return false;
    return sort_items(r, a, n, jval_truth(c->arg[2]), out);
}

static bool filter_unique(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jdict *seen = jdict_new(r, 0);
    struct jseq *to = jseq_new(r, JSEQ_GEN, 0);
    struct jval *items;
    uint32_t n;

    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        struct jval key;
        uint32_t before = seen->n;
        if (!sort_key(r, items[i], c->arg[1], jval_truth(c->arg[0]), &key) ||
            !jdict_set(r, seen, key, jval_none()))
            return false;
        if (seen->n > before && !jseq_push(r, to, items[i]))
            return false;
    }
    *out = jval_seq(to);
    return true;
}

static bool extreme(struct jrun *r, struct jcall *c, int sign, struct jval *out)
{
    struct jval *items, best_key = { 0 }, key;
    uint32_t n;

    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    *out = jval_undef_hint(r, "No aggregated item, sequence was empty.");
    for (uint32_t i = 0; i < n; i++) {
        int order = sign;
        if (!sort_key(r, items[i], c->arg[1], jval_truth(c->arg[0]), &key) ||
            (i > 0 && !jval_order(r, key, best_key, sign < 0 ? "<" : ">", &order)))
            return false;
        if (order != 2 && order * sign > 0) {
            *out = items[i];
            best_key = key;
        }
    }
    return true;
}

static bool filter_min(struct jrun *r, struct jcall *c, struct jval *out)
{
    return extreme(r, c, -1, out);
}

static bool filter_max(struct jrun *r, struct jcall *c, struct jval *out)
{
    return extreme(r, c, 1, out);
}

static bool filter_sum(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *items, total = c->arg[1].kind == J_ABSENT ? jval_int(0) : c->arg[1];
    uint32_t n;

    if (total.kind == J_STR)
        return jrun_fail(r, "sum() can't sum strings");
    if (!jval_iterate(r, c->self, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        struct jval v = items[i];
        if (c->arg[0].kind != J_ABSENT && c->arg[0].kind != J_NONE &&
            !get_path(r, v, c->arg[0], (struct jval){ .kind = J_ABSENT }, &v))
            return false;
        if (!jrun_work(r, 0) || !jop_binary(r, JOP_ADD, total, v, &total))
            return false;
    }
    *out = total;
    return true;
}

static bool add_group(struct jrun *r, struct jseq *groups, struct jval grouper, struct jseq **list)
{
    struct jseq *pair = jseq_new(r, JSEQ_GROUP, 2);

    *list = jseq_new(r, JSEQ_LIST, 0);
    pair->n = 2;
    pair->items[0] = grouper;
    pair->items[1] = jval_seq(*list);
    return jseq_push(r, groups, jval_seq(pair));
}

static bool filter_groupby(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq *groups = jseq_new(r, JSEQ_LIST, 0), *list = NULL;
    bool case_sensitive = jval_truth(c->arg[2]);
    struct jval sorted, path = c->arg[0], previous = { 0 }, grouper;
    struct keyed *a;
    uint32_t n;

    if (!make_keyed(r, c->self, &a, &n))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!get_path(r, a[i].item, path, c->arg[1], &a[i].key) ||
            !fold_case(r, a[i].key, case_sensitive, &a[i].key))
            return false;
    if (!sort_items(r, a, n, false, &sorted))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        bool same = false;
        if (i > 0 && !jval_equal(r, previous, a[i].key, &same))
            return false;
        previous = a[i].key;
        if (!get_path(r, a[i].item, path, c->arg[1], &grouper) ||
            (!same && !add_group(r, groups, grouper, &list)) || !jseq_push(r, list, a[i].item))
            return false;
    }
    *out = jval_seq(groups);
    return true;
}

const struct jbuiltin jinja_filters[] = {
    { "list", filter_list, "" },
    { "first", filter_first, "" },
    { "last", filter_last, "" },
    { "reverse", filter_reverse, "" },
    { "items", filter_items, "" },
    { "join", filter_join, "d= attribute=" },
    { "batch", filter_batch, "linecount fill_with=" },
    { "map", filter_map, NULL },
    { "select", filter_select, NULL },
    { "reject", filter_reject, NULL },
    { "selectattr", filter_selectattr, NULL },
    { "rejectattr", filter_rejectattr, NULL },
    { "sort", filter_sort, "reverse= case_sensitive= attribute=" },
    { "dictsort", filter_dictsort, "case_sensitive= by= reverse=" },
    { "unique", filter_unique, "case_sensitive= attribute=" },
    { "min", filter_min, "case_sensitive= attribute=" },
    { "max", filter_max, "case_sensitive= attribute=" },
    { "sum", filter_sum, "attribute= start=" },
    { "groupby", filter_groupby, "attribute default= case_sensitive=" },
    { NULL, NULL, NULL },
};
