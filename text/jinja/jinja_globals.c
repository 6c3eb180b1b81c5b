/* jinja_globals.c - functions a template calls by name, and methods of what is not a string. */
#include "text/jinja/jinja.h"

#include <string.h>

/* ---- global functions ----------------------------------------------------------------------------- */

static bool global_range(struct jrun *r, struct jcall *c, struct jval *out)
{
    int64_t start = 0, stop, step, n;
    struct jseq *s;

    if (!jcall_int(r, c, 0, 0, &stop) || !jcall_int(r, c, 2, 1, &step))
        return false;
    if (c->arg[1].kind != J_ABSENT) {
        start = stop;
        if (!jcall_int(r, c, 1, 0, &stop))
            return false;
    }
    if (step == 0)
        return jrun_fail(r, "range() arg 3 must not be zero");
    /* Far bounds would overflow below; a range between them is too big or empty in any case. */
    if (start > INT64_MAX / 4 || start < INT64_MIN / 4 || stop > INT64_MAX / 4 ||
        stop < INT64_MIN / 4 || step > INT64_MAX / 4 || step < INT64_MIN / 4)
        return jrun_fail(r, "bounds of range() are too big");
    n = step > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step;
    if (n > JINJA_RANGE_MAX)
        return jrun_fail(r, "range() has more than %d items", JINJA_RANGE_MAX);
    if (n < 0)
        n = 0;
    s = jseq_new(r, JSEQ_RANGE, (size_t)n + 3);
    for (; s->n < n; s->n++)
        s->items[s->n] = jval_int(start + s->n * step);
    s->items[n] = jval_int(start); /* what repr() shows */
    s->items[n + 1] = jval_int(stop);
    s->items[n + 2] = jval_int(step);
    *out = jval_seq(s);
    return jrun_work(r, (size_t)n / 4);
}

static bool add_pairs(struct jrun *r, struct jdict *d, struct jval from)
{
    struct jval *items, *pair;
    uint32_t n, pair_n;

    if (from.kind == J_DICT) {
        for (uint32_t i = 0; i < from.dict->n; i++)
            if (!jdict_set(r, d, from.dict->pairs[i].key, from.dict->pairs[i].value))
                return false;
        return true;
    }
    if (!jval_iterate(r, from, &items, &n))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!jval_iterate(r, items[i], &pair, &pair_n))
            return false;
        if (pair_n != 2)
            return jrun_fail(r,
                             "dictionary update sequence element #%u has length %u; 2 is required",
                             i, pair_n);
        if (!jdict_set(r, d, pair[0], pair[1]))
            return false;
    }
    return true;
}

static bool global_dict(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jdict *d = jdict_new(r, 0);

    if (c->n_pos > 1)
        return jrun_fail(r, "dict expected at most 1 argument, got %u", c->n_pos);
    if (c->n_pos == 1 && !add_pairs(r, d, c->pos[0]))
        return false;
    for (uint32_t i = 0; i < c->n_kw; i++)
        if (!jdict_set(r, d, jval_str(c->kw[i].name, c->kw[i].n), c->kw[i].value))
            return false;
    *out = jval_dict(d);
    return true;
}

static bool global_namespace(struct jrun *r, struct jcall *c, struct jval *out)
{
    if (!global_dict(r, c, out))
        return false;
    out->kind = J_NAMESPACE;
    return true;
}

static bool new_cycler(struct jrun *r, const struct jval *items, uint32_t n, enum jkind kind,
                       struct jval *out)
{
    struct jcycler *state = jrun_alloc(r, sizeof *state);

    *state = (struct jcycler){ .items = items, .n = n };
    *out = (struct jval){ .kind = (uint8_t)kind, .cycler = state };
    return true;
}

static bool global_cycler(struct jrun *r, struct jcall *c, struct jval *out)
{
    if (c->n_pos == 0 || c->n_kw > 0)
        return jrun_fail(r, "cycler() wants at least one item");
    return new_cycler(r, c->pos, c->n_pos, J_CYCLER, out);
}

static bool global_joiner(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *separator = jrun_alloc(r, sizeof *separator);

    *separator = c->arg[0].kind == J_ABSENT ? jval_str(", ", 2) : c->arg[0];
    return new_cycler(r, separator, 1, J_JOINER, out);
}

static bool global_raise_exception(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval text;
    size_t n;

    (void)out;
    if (!jval_to_str(r, c->arg[0], &text))
        return false;
    n = text.n;
    if (r->e && n >= sizeof r->e->msg) { /* cut between characters */
        n = sizeof r->e->msg - 1;
        while (n > 0 && ((unsigned char)text.s[n] & 0xc0) == 0x80)
            n--;
    }
    return err_set(r->e, ERR_INPUT, 0, "%.*s", (int)n, text.s);
}

static bool global_strftime_now(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jbuf text = { .run = r };
    struct jval format;
    char spec[4] = "%", piece[256];
    struct tm now = *r->now;

    if (!jcall_str(r, c, 0, &format) || !jrun_work(r, format.n))
        return false;
    for (uint32_t i = 0; i < format.n; i++) {
        size_t letter = 1;
        if (format.s[i] != '%' || i + 1 == format.n) {
            jbuf_add(&text, format.s + i, 1);
            continue;
        }
        i++;
        if (strchr("-_0^#", format.s[i]) && i + 1 < format.n)
            spec[letter++] = format.s[i++];
        spec[letter] = format.s[i];
        spec[letter + 1] = '\0';
        if ((unsigned char)spec[letter] >= 0x80 || spec[letter] == '\0')
            return jrun_fail(r, "strftime_now() wants a letter after '%%'");
        if (spec[letter] == 'f') /* the clock given has no fractions of a second */
            jbuf_add_str(&text, "000000");
        else if (spec[letter] != 'z' && spec[letter] != 'Z') /* a naive time has no zone */
            jbuf_add(&text, piece, strftime(piece, sizeof piece, spec, &now));
    }
    return jbuf_done(&text, out);
}

const struct jbuiltin jinja_globals[] = {
    { "range", global_range, "start stop= step=" },
    { "dict", global_dict, NULL },
    { "namespace", global_namespace, NULL },
    { "cycler", global_cycler, NULL },
    { "joiner", global_joiner, "sep=" },
    { "raise_exception", global_raise_exception, "message" },
    { "strftime_now", global_strftime_now, "format" },
    { NULL, NULL, NULL },
};

/* ---- methods of dicts ------------------------------------------------------------------------------- */

static bool view(struct jrun *r, const struct jdict *d, enum jseq_type type, struct jval *out)
{
    struct jseq *s;

    if (!jrun_work(r, d->n) || !jrun_room(r, d->n * 4 * sizeof *s->items))
        return false;
    s = jseq_new(r, type, d->n);
    for (; s->n < d->n; s->n++) {
        const struct jpair *pair = &d->pairs[s->n];
        struct jseq *both;
        if (type != JSEQ_ITEMS) {
            s->items[s->n] = type == JSEQ_KEYS ? pair->key : pair->value;
            continue;
        }
        both = jseq_new(r, JSEQ_TUPLE, 2);
        both->n = 2;
        both->items[0] = pair->key;
        both->items[1] = pair->value;
        s->items[s->n] = jval_seq(both);
    }
    *out = jval_seq(s);
    return true;
}

static bool dict_items(struct jrun *r, struct jcall *c, struct jval *out)
{
    return view(r, c->self.dict, JSEQ_ITEMS, out);
}

static bool dict_keys(struct jrun *r, struct jcall *c, struct jval *out)
{
    return view(r, c->self.dict, JSEQ_KEYS, out);
}

static bool dict_values(struct jrun *r, struct jcall *c, struct jval *out)
{
    return view(r, c->self.dict, JSEQ_VALUES, out);
}

static bool dict_get(struct jrun *r, struct jcall *c, struct jval *out)
{
    if (!jdict_get(r, c->self.dict, c->arg[0], out))
        return false;
    if (out->kind == J_ABSENT)
        *out = c->arg[1].kind == J_ABSENT ? jval_none() : c->arg[1];
    return true;
}

static bool copy(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    *out = c->self; /* nothing can tell it from a copy */
    return true;
}

const struct jbuiltin jinja_dict_methods[] = {
    { "items", dict_items, "" },         { "keys", dict_keys, "" }, { "values", dict_values, "" },
    { "get", dict_get, "key default=" }, { "copy", copy, "" },      { NULL, NULL, NULL },
};

/* ---- methods of lists, tuples and ranges ------------------------------------------------------------- */

static bool seq_index(struct jrun *r, struct jcall *c, struct jval *out)
{
    const struct jseq *s = c->self.seq;

    for (uint32_t i = 0; i < s->n; i++) {
        bool same;
        if (!jval_equal(r, s->items[i], c->arg[0], &same))
            return false;
        if (same) {
            *out = jval_int(i);
            return true;
        }
    }
    return jrun_fail(r, "the value is not in the list");
}

static bool seq_count(struct jrun *r, struct jcall *c, struct jval *out)
{
    const struct jseq *s = c->self.seq;
    int64_t count = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        bool same;
        if (!jval_equal(r, s->items[i], c->arg[0], &same))
            return false;
        count += same;
    }
    *out = jval_int(count);
    return true;
}

const struct jbuiltin jinja_seq_methods[] = {
    { "index", seq_index, "value" },
    { "count", seq_count, "value" },
    { "copy", copy, "" },
    { NULL, NULL, NULL },
};

bool jinja_is_refused_method(struct jval v, const char *name, size_t n)
{
    static const char *const of_dicts[] = { "update",     "pop",      "popitem", "clear",
                                            "setdefault", "fromkeys", NULL };
    static const char *const of_lists[] = { "append", "extend", "insert", "remove", "reverse",
                                            "sort",   "clear",  "pop",    NULL };
    const char *const *names = v.kind == J_DICT ? of_dicts : of_lists;

    if (v.kind != J_DICT && !(v.kind == J_SEQ && v.seq->type == JSEQ_LIST))
        return false;
    for (; *names; names++)
        if (strlen(*names) == n && memcmp(*names, name, n) == 0)
            return true;
    return false;
}

/* ---- methods of loops and cyclers --------------------------------------------------------------------- */

static bool loop_cycle(struct jrun *r, struct jcall *c, struct jval *out)
{
    if (c->n_pos == 0)
        return jrun_fail(r, "no items for cycling given");
    *out = c->pos[c->self.loop->at % c->n_pos];
    return true;
}

static bool loop_changed(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jloop *loop = c->self.loop;
    struct jseq *now = jseq_new(r, JSEQ_TUPLE, 0);
    bool same = false;

    now->items = c->pos;
    now->n = c->n_pos;
    if (loop->changed.kind != J_ABSENT && !jval_equal(r, loop->changed, jval_seq(now), &same))
        return false;
    loop->changed = jval_seq(now);
    *out = jval_bool(!same);
    return true;
}

const struct jbuiltin jinja_loop_methods[] = {
    { "cycle", loop_cycle, NULL },
    { "changed", loop_changed, NULL },
    { NULL, NULL, NULL },
};

static bool cycler_next(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jcycler *cycler = c->self.cycler;

    (void)r;
    *out = cycler->items[cycler->at];
    cycler->at = (cycler->at + 1) % cycler->n;
    return true;
}

static bool cycler_reset(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    c->self.cycler->at = 0;
    *out = jval_none();
    return true;
}

const struct jbuiltin jinja_cycler_methods[] = {
    { "next", cycler_next, "" },
    { "reset", cycler_reset, "" },
    { NULL, NULL, NULL },
};
