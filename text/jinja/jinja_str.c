/* jinja_str.c - what filters and methods of strings have in common: strip, replace, case, pad, join. */
#include "text/jinja/jinja.h"

#include <string.h>

static bool in_set(struct jval chars, uint32_t cp)
{
    if (chars.kind != J_STR)
        return jutf8_is_space(cp);
    for (size_t at = 0; at < chars.n;)
        if (jutf8_next(chars.s, &at) == cp)
            return true;
    return false;
}

bool jstr_strip(struct jrun *r, struct jval s, struct jval chars, int sides, struct jval *out)
{
    size_t from = 0, to = s.n;

    if (chars.kind == J_UNDEF)
        return jrun_undef_fail(r, chars);
    if (chars.kind != J_ABSENT && chars.kind != J_NONE && chars.kind != J_STR)
        return jrun_fail(r, "strip arg must be None or str");
    while ((sides & JSIDE_LEFT) && from < to) {
        size_t next = from;
        if (!in_set(chars, jutf8_next(s.s, &next)))
            break;
        from = next;
    }
    while ((sides & JSIDE_RIGHT) && to > from) {
        size_t previous = to;
        if (!in_set(chars, jutf8_prev(s.s, &previous)))
            break;
        to = previous;
    }
    *out = jval_str(s.s + from, to - from);
    out->markup = s.markup;
    return jrun_work(r, (s.n - (to - from)) * (chars.kind == J_STR ? chars.n : 1));
}

bool jstr_replace(struct jrun *r, struct jval s, struct jval from, struct jval to, int64_t count,
                  struct jval *out)
{
    struct jbuf b = { .run = r };
    size_t at = 0;

    while (count != 0 && at <= s.n && !b.is_full) {
        const char *hit = from.n ? memmem(s.s + at, s.n - at, from.s, from.n) : s.s + at;
        size_t end = at;
        if (!hit)
            break;
        jbuf_add(&b, s.s + at, (size_t)(hit - s.s) - at);
        jbuf_add(&b, to.s, to.n);
        count -= count > 0;
        at = (size_t)(hit - s.s) + from.n;
        if (from.n > 0)
            continue;
        if (at == s.n)
            return jbuf_done(&b, out);
        jutf8_next(s.s, &end);
        jbuf_add(&b, s.s + at, end - at);
        at = end;
    }
    jbuf_add(&b, s.s + at, s.n - at);
    return jrun_work(r, s.n / 16) && jbuf_done(&b, out);
}

bool jstr_case(struct jrun *r, struct jval s, enum jcase how, struct jval *out)
{
    struct jbuf b = { .run = r };

    for (size_t at = 0; at < s.n && !b.is_full;)
        jutf8_add_case(&b, jutf8_next(s.s, &at), how);
    return jrun_work(r, s.n / 4) && jbuf_done(&b, out);
}

bool jstr_capitalize(struct jrun *r, struct jval s, struct jval *out)
{
    struct jbuf b = { .run = r };

    for (size_t at = 0; at < s.n && !b.is_full;) {
        bool is_first = at == 0;
        jutf8_add_case(&b, jutf8_next(s.s, &at), is_first ? JCASE_TITLE : JCASE_LOWER);
    }
    return jrun_work(r, s.n / 4) && jbuf_done(&b, out);
}

bool jstr_pad(struct jrun *r, struct jval s, int64_t width, uint32_t fill, int how,
              struct jval *out)
{
    struct jbuf b = { .run = r };
    int64_t count = (int64_t)jutf8_count(s.s, s.n), left = 0, missing = width - count;

    if (!jrun_work(r, s.n / 16))
        return false;
    if (missing <= 0) {
        *out = s;
        return true;
    }
    if (how == JSIDE_BOTH)
        left = missing / 2 + (missing & width & 1);
    else if (how == JSIDE_LEFT)
        left = missing;
    for (int64_t i = 0; i < missing && !b.is_full; i++) {
        if (i == left)
            jbuf_add(&b, s.s, s.n);
        jbuf_add_cp(&b, fill);
    }
    if (left == missing)
        jbuf_add(&b, s.s, s.n);
    return jbuf_done(&b, out);
}

bool jstr_join(struct jrun *r, struct jval separator, const struct jval *items, uint32_t n,
               bool any_type, struct jval *out)
{
    struct jbuf b = { .run = r };

    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            jbuf_add(&b, separator.s, separator.n);
        if (items[i].kind != J_STR && !any_type)
            return jrun_fail(r, "sequence item %u: expected str instance, %s found", i,
                             jval_type_name(items[i]));
        if (!jrun_work(r, 0) || !jval_print(&b, items[i]))
            return false;
    }
    return jbuf_done(&b, out);
}
