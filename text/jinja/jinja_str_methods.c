/* jinja_str_methods.c - methods of strings, as Python's str has them. */
#include "text/jinja/jinja.h"

#include <string.h>
#include <utf8proc.h>

/* ---- the same text in another form ------------------------------------------------------------------- */

static bool str_strip(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jstr_strip(r, c->self, c->arg[0], JSIDE_BOTH, out);
}

static bool str_lstrip(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jstr_strip(r, c->self, c->arg[0], JSIDE_LEFT, out);
}

static bool str_rstrip(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jstr_strip(r, c->self, c->arg[0], JSIDE_RIGHT, out);
}

static bool str_upper(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jstr_case(r, c->self, JCASE_UPPER, out);
}

static bool str_lower(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jstr_case(r, c->self, JCASE_LOWER, out);
}

static bool str_capitalize(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jstr_capitalize(r, c->self, out);
}

static bool is_cased(uint32_t cp)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);

    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

static bool str_title(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jbuf b = { .run = r };
    bool in_word = false;

    for (size_t at = 0; at < c->self.n && !b.is_full;) {
        uint32_t cp = jutf8_next(c->self.s, &at);
        jutf8_add_case(&b, cp, in_word ? JCASE_LOWER : JCASE_TITLE);
        in_word = is_cased(cp);
    }
    return jrun_work(r, c->self.n / 4) && jbuf_done(&b, out);
}

static bool str_swapcase(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jbuf b = { .run = r };

    for (size_t at = 0; at < c->self.n && !b.is_full;) {
        uint32_t cp = jutf8_next(c->self.s, &at);
        bool is_upper = utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LU;
        jutf8_add_case(&b, cp, is_upper ? JCASE_LOWER : JCASE_UPPER);
    }
    return jrun_work(r, c->self.n / 4) && jbuf_done(&b, out);
}

static bool str_replace(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval from, to;
    int64_t count;

    return jcall_str(r, c, 0, &from) && jcall_str(r, c, 1, &to) && jcall_int(r, c, 2, -1, &count) &&
           jstr_replace(r, c->self, from, to, count, out);
}

static bool str_join(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval *items;
    uint32_t n;

    return jval_iterate(r, c->arg[0], &items, &n) && jstr_join(r, c->self, items, n, false, out);
}

/* Separator and limit of split(); *by_space when it splits at white space. */
static bool split_args(struct jrun *r, struct jcall *c, struct jval *sep, bool *by_space,
                       int64_t *limit)
{
    *by_space = c->arg[0].kind == J_ABSENT || c->arg[0].kind == J_NONE;
    if (!jcall_int(r, c, 1, -1, limit) || (!*by_space && !jcall_str(r, c, 0, sep)))
        return false;
    if (!*by_space && sep->n == 0)
        return jrun_fail(r, "empty separator");
    return jrun_work(r, c->self.n / 16);
}

static bool split_spaces(struct jrun *r, struct jval s, int64_t limit, struct jseq *parts)
{
    size_t at = jutf8_trim_left(s.s, s.n);

    while (at < s.n) {
        size_t end = at;
        if (limit == 0) {
            return jseq_push(r, parts, jval_str(s.s + at, s.n - at));
        }
        while (end < s.n) {
            size_t next = end;
            if (jutf8_is_space(jutf8_next(s.s, &next)))
                break;
            end = next;
        }
        if (!jrun_work(r, 0) || !jseq_push(r, parts, jval_str(s.s + at, end - at)))
            return false;
        limit -= limit > 0;
        at = end + jutf8_trim_left(s.s + end, s.n - end);
    }
    return true;
}

static bool str_split(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq *parts = jseq_new(r, JSEQ_LIST, 0);
    struct jval s = c->self, sep;
    size_t at = 0;
    bool by_space;
    int64_t limit;

    *out = jval_seq(parts);
    if (!split_args(r, c, &sep, &by_space, &limit))
        return false;
    if (by_space)
        return split_spaces(r, s, limit, parts);
    for (; limit != 0; limit -= limit > 0) {
        const char *hit = memmem(s.s + at, s.n - at, sep.s, sep.n);
        if (!hit)
            break;
        if (!jrun_work(r, 0) || !jseq_push(r, parts, jval_str(s.s + at, (size_t)(hit - s.s) - at)))
            return false;
        at = (size_t)(hit - s.s) + sep.n;
    }
    return jseq_push(r, parts, jval_str(s.s + at, s.n - at));
}

/* The last place of `sep` in s[0..n), or NULL.  Naive: callers count n * sep.n / 64 steps. */
static const char *find_last(const char *s, size_t n, struct jval sep)
{
    for (size_t at = n + 1 - sep.n; n >= sep.n && at-- > 0;)
        if (memcmp(s + at, sep.s, sep.n) == 0)
            return s + at;
    return NULL;
}

static bool rsplit_spaces(struct jrun *r, struct jval s, int64_t limit, struct jseq *parts)
{
    size_t end = jutf8_trim_right(s.s, s.n);

    while (end > 0) {
        size_t at = end;
        if (limit == 0) {
            return jseq_push(r, parts, jval_str(s.s, end));
        }
        while (at > 0) {
            size_t previous = at;
            if (jutf8_is_space(jutf8_prev(s.s, &previous)))
                break;
            at = previous;
        }
        if (!jrun_work(r, 0) || !jseq_push(r, parts, jval_str(s.s + at, end - at)))
            return false;
        limit -= limit > 0;
        end = jutf8_trim_right(s.s, at);
    }
    return true;
}

static bool str_rsplit(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq *parts = jseq_new(r, JSEQ_LIST, 0);
    struct jval s = c->self, sep;
    bool by_space;
    int64_t limit;

    *out = jval_seq(parts);
    if (!split_args(r, c, &sep, &by_space, &limit))
        return false;
    if (by_space && !rsplit_spaces(r, s, limit, parts))
        return false;
    for (size_t end = s.n; !by_space; limit -= limit > 0) {
        const char *hit = limit != 0 ? find_last(s.s, end, sep) : NULL;
        size_t at = hit ? (size_t)(hit - s.s) + sep.n : 0;
        if (!jrun_work(r, (end - at) / 16 * (1 + (by_space ? 0 : sep.n / 4))) ||
            !jseq_push(r, parts, jval_str(s.s + at, end - at)))
            return false;
        if (!hit)
            break;
        end = (size_t)(hit - s.s);
    }
    for (uint32_t i = 0; i < parts->n / 2; i++) {
        struct jval swap = parts->items[i];
        parts->items[i] = parts->items[parts->n - 1 - i];
        parts->items[parts->n - 1 - i] = swap;
    }
    return true;
}

static bool str_splitlines(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq *lines = jseq_new(r, JSEQ_LIST, 0);
    struct jval s = c->self;
    bool keep = jval_truth(c->arg[0]);

    for (size_t at = 0; at < s.n;) {
        size_t next, n = jutf8_line(s.s + at, s.n - at, &next);
        if (!jrun_work(r, n / 16) || !jseq_push(r, lines, jval_str(s.s + at, keep ? next : n)))
            return false;
        at += next;
    }
    *out = jval_seq(lines);
    return true;
}

/* The part of s that arguments `first` and `first + 1` bound, as s[start:end]. */
static bool bounded(struct jrun *r, const struct jcall *c, int first, struct jval *part,
                    int64_t *start)
{
    int64_t count = (int64_t)jutf8_count(c->self.s, c->self.n), bounds[2] = { 0, count };
    size_t from, to;

    for (int i = 0; i < 2; i++) {
        if (c->arg[first + i].kind == J_NONE)
            continue;
        if (!jcall_int(r, c, first + i, bounds[i], &bounds[i]))
            return false;
        if (bounds[i] < 0)
            bounds[i] = bounds[i] < -count ? 0 : bounds[i] + count;
    }
    *start = bounds[0];
    part->kind = J_ABSENT; /* starts past the end: not even "" is found there */
    if (bounds[0] > count || bounds[0] > bounds[1])
        return true;
    from = jutf8_offset(c->self.s, c->self.n, (size_t)bounds[0]);
    to = jutf8_offset(c->self.s, c->self.n, (size_t)bounds[1]);
    *part = jval_str(c->self.s + from, to - from);
    return jrun_work(r, c->self.n / 16);
}

static bool has_affix(struct jval s, struct jval affix, bool at_end)
{
    return s.kind == J_STR && affix.kind == J_STR && affix.n <= s.n &&
           memcmp(at_end ? s.s + s.n - affix.n : s.s, affix.s, affix.n) == 0;
}

static bool affix_test(struct jrun *r, struct jcall *c, bool at_end, struct jval *out)
{
    struct jval part, affix = c->arg[0];
    int64_t start;
    bool yes;

    if (!bounded(r, c, 1, &part, &start))
        return false;
    yes = has_affix(part, affix, at_end);
    if (affix.kind == J_SEQ && affix.seq->type == JSEQ_TUPLE) {
        for (uint32_t i = 0; i < affix.seq->n; i++)
            yes = yes || has_affix(part, affix.seq->items[i], at_end);
    } else if (affix.kind != J_STR) {
        return jrun_fail(r, "first arg must be str or a tuple of str, not %s",
                         jval_type_name(affix));
    }
    *out = jval_bool(yes);
    return true;
}

static bool str_startswith(struct jrun *r, struct jcall *c, struct jval *out)
{
    return affix_test(r, c, false, out);
}

static bool str_endswith(struct jrun *r, struct jcall *c, struct jval *out)
{
    return affix_test(r, c, true, out);
}

static bool find(struct jrun *r, struct jcall *c, bool last, bool must, struct jval *out)
{
    struct jval part, what;
    const char *hit = NULL;
    int64_t start;

    if (!jcall_str(r, c, 0, &what) || !bounded(r, c, 1, &part, &start))
        return false;
    if (part.kind == J_STR && last)
        hit = find_last(part.s, part.n, what);
    else if (part.kind == J_STR)
        hit = what.n ? memmem(part.s, part.n, what.s, what.n) : part.s;
    if (!hit && must)
        return jrun_fail(r, "substring not found");
    *out = jval_int(hit ? start + (int64_t)jutf8_count(part.s, (size_t)(hit - part.s)) : -1);
    return jrun_work(r, last ? c->self.n / 16 * (1 + what.n / 4) : 0);
}

static bool str_find(struct jrun *r, struct jcall *c, struct jval *out)
{
    return find(r, c, false, false, out);
}

static bool str_rfind(struct jrun *r, struct jcall *c, struct jval *out)
{
    return find(r, c, true, false, out);
}

static bool str_index(struct jrun *r, struct jcall *c, struct jval *out)
{
    return find(r, c, false, true, out);
}

static bool str_rindex(struct jrun *r, struct jcall *c, struct jval *out)
{
    return find(r, c, true, true, out);
}

static bool str_count(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval part, what;
    int64_t start, count = 0;

    if (!jcall_str(r, c, 0, &what) || !bounded(r, c, 1, &part, &start))
        return false;
    if (part.kind != J_STR) {
        *out = jval_int(0);
        return true;
    }
    if (what.n == 0) {
        *out = jval_int((int64_t)jutf8_count(part.s, part.n) + 1);
        return true;
    }
    for (size_t at = 0; at < part.n; count++) {
        const char *hit = memmem(part.s + at, part.n - at, what.s, what.n);
        if (!hit)
            break;
        at = (size_t)(hit - part.s) + what.n;
    }
    *out = jval_int(count);
    return true;
}

static bool partition(struct jrun *r, struct jcall *c, bool last, struct jval *out)
{
    struct jseq *t = jseq_new(r, JSEQ_TUPLE, 3);
    struct jval s = c->self, sep;
    const char *hit;
    size_t at;

    if (!jcall_str(r, c, 0, &sep))
        return false;
    if (sep.n == 0)
        return jrun_fail(r, "empty separator");
    hit = last ? find_last(s.s, s.n, sep) : memmem(s.s, s.n, sep.s, sep.n);
    at = hit ? (size_t)(hit - s.s) : last ? 0 : s.n;
    t->n = 3;
    t->items[0] = jval_str(s.s, at);
    t->items[1] = jval_str(s.s + at, hit ? sep.n : 0);
    t->items[2] = hit ? jval_str(hit + sep.n, s.n - at - sep.n) : jval_str(s.s + at, s.n - at);
    *out = jval_seq(t);
    return jrun_work(r, s.n / 16 * (1 + sep.n / 4));
}

static bool str_partition(struct jrun *r, struct jcall *c, struct jval *out)
{
    return partition(r, c, false, out);
}

static bool str_rpartition(struct jrun *r, struct jcall *c, struct jval *out)
{
    return partition(r, c, true, out);
}

static bool str_removeprefix(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval affix;

    if (!jcall_str(r, c, 0, &affix))
        return false;
    *out = c->self;
    if (has_affix(c->self, affix, false))
        *out = jval_str(c->self.s + affix.n, c->self.n - affix.n);
    return jrun_work(r, affix.n / 64);
}

static bool str_removesuffix(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval affix;

    if (!jcall_str(r, c, 0, &affix))
        return false;
    *out = c->self;
    if (has_affix(c->self, affix, true))
        *out = jval_str(c->self.s, c->self.n - affix.n);
    return jrun_work(r, affix.n / 64);
}

static bool pad(struct jrun *r, struct jcall *c, int how, struct jval *out)
{
    struct jval fill = jval_str(" ", 1);
    int64_t width;
    size_t at = 0;

    if (!jcall_int(r, c, 0, 0, &width) ||
        (c->arg[1].kind != J_ABSENT && !jcall_str(r, c, 1, &fill)))
        return false;
    if (fill.n > 4 || jutf8_count(fill.s, fill.n) != 1)
        return jrun_fail(r, "the fill character must be exactly one character long");
    return jstr_pad(r, c->self, width, jutf8_next(fill.s, &at), how, out);
}

static bool str_center(struct jrun *r, struct jcall *c, struct jval *out)
{
    return pad(r, c, JSIDE_BOTH, out);
}

static bool str_ljust(struct jrun *r, struct jcall *c, struct jval *out)
{
    return pad(r, c, JSIDE_RIGHT, out);
}

static bool str_rjust(struct jrun *r, struct jcall *c, struct jval *out)
{
    return pad(r, c, JSIDE_LEFT, out);
}

static bool str_zfill(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s = c->self, digits = s;
    struct jbuf b = { .run = r };
    int64_t width;

    if (!jcall_int(r, c, 0, 0, &width))
        return false;
    if (s.n > 0 && (s.s[0] == '-' || s.s[0] == '+')) {
        jbuf_add(&b, s.s, 1);
        digits = jval_str(s.s + 1, s.n - 1);
        width--;
    }
    if (!jstr_pad(r, digits, width, '0', JSIDE_LEFT, &digits))
        return false;
    jbuf_add(&b, digits.s, digits.n);
    return jbuf_done(&b, out);
}

static bool str_format(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jformat_braces(r, c->self, c, out);
}

/* ---- questions about characters ---------------------------------------------------------------------- */

static bool is_alpha(uint32_t cp)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);

    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

static bool is_alnum(uint32_t cp)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);

    return is_alpha(cp) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL ||
           k == UTF8PROC_CATEGORY_NO;
}

static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

static bool all(struct jrun *r, struct jval s, bool (*is)(uint32_t), bool if_empty,
                struct jval *out)
{
    bool yes = s.n > 0 || if_empty;

    for (size_t at = 0; at < s.n && yes;)
        yes = is(jutf8_next(s.s, &at));
    *out = jval_bool(yes);
    return jrun_work(r, s.n / 4);
}

static bool str_isalpha(struct jrun *r, struct jcall *c, struct jval *out)
{
    return all(r, c->self, is_alpha, false, out);
}

static bool str_isdigit(struct jrun *r, struct jcall *c, struct jval *out)
{
    return all(r, c->self, is_decimal, false, out);
}

static bool str_isalnum(struct jrun *r, struct jcall *c, struct jval *out)
{
    return all(r, c->self, is_alnum, false, out);
}

static bool str_isspace(struct jrun *r, struct jcall *c, struct jval *out)
{
    return all(r, c->self, jutf8_is_space, false, out);
}

static bool str_isascii(struct jrun *r, struct jcall *c, struct jval *out)
{
    return all(r, c->self, is_ascii, true, out);
}

static bool only_case(struct jrun *r, struct jval s, utf8proc_category_t wanted, struct jval *out)
{
    bool any = false, yes = true;

    for (size_t at = 0; at < s.n && yes;) {
        uint32_t cp = jutf8_next(s.s, &at);
        if (!is_cased(cp))
            continue;
        any = true;
        yes = utf8proc_category((utf8proc_int32_t)cp) == wanted;
    }
    *out = jval_bool(any && yes);
    return jrun_work(r, s.n / 4);
}

static bool str_isupper(struct jrun *r, struct jcall *c, struct jval *out)
{
    return only_case(r, c->self, UTF8PROC_CATEGORY_LU, out);
}

static bool str_islower(struct jrun *r, struct jcall *c, struct jval *out)
{
    return only_case(r, c->self, UTF8PROC_CATEGORY_LL, out);
}

const struct jbuiltin jinja_str_methods[] = {
    { "strip", str_strip, "chars=" },
    { "lstrip", str_lstrip, "chars=" },
    { "rstrip", str_rstrip, "chars=" },
    { "upper", str_upper, "" },
    { "lower", str_lower, "" },
    { "casefold", str_lower, "" },
    { "title", str_title, "" },
    { "capitalize", str_capitalize, "" },
    { "swapcase", str_swapcase, "" },
    { "replace", str_replace, "old new count=" },
    { "join", str_join, "iterable" },
    { "split", str_split, "sep= maxsplit=" },
    { "rsplit", str_rsplit, "sep= maxsplit=" },
    { "splitlines", str_splitlines, "keepends=" },
    { "startswith", str_startswith, "prefix start= end=" },
    { "endswith", str_endswith, "suffix start= end=" },
    { "find", str_find, "sub start= end=" },
    { "rfind", str_rfind, "sub start= end=" },
    { "index", str_index, "sub start= end=" },
    { "rindex", str_rindex, "sub start= end=" },
    { "count", str_count, "sub start= end=" },
    { "partition", str_partition, "sep" },
    { "rpartition", str_rpartition, "sep" },
    { "removeprefix", str_removeprefix, "prefix" },
    { "removesuffix", str_removesuffix, "suffix" },
    { "center", str_center, "width fillchar=" },
    { "ljust", str_ljust, "width fillchar=" },
    { "rjust", str_rjust, "width fillchar=" },
    { "zfill", str_zfill, "width" },
    { "format", str_format, NULL },
    { "isalpha", str_isalpha, "" },
    { "isdigit", str_isdigit, "" },
    { "isdecimal", str_isdigit, "" },
    { "isnumeric", str_isdigit, "" },
    { "isalnum", str_isalnum, "" },
    { "isspace", str_isspace, "" },
    { "isascii", str_isascii, "" },
    { "isupper", str_isupper, "" },
    { "islower", str_islower, "" },
    { NULL, NULL, NULL },
};
