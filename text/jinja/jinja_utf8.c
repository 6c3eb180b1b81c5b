/* jinja_utf8.c - characters of valid UTF-8, and what Python says about them.
 *
 * Case mapping is the simple one of Unicode (one character to one), with the sharp s as the only
 * exception; Python's full mapping differs for a handful of ligatures and Greek letters. */
#include "text/jinja/jinja.h"

#include <string.h>
#include <utf8proc.h>

#include "common/utf8.h"

uint32_t jutf8_next(const char *s, size_t *at)
{
    size_t len;
    uint32_t cp = utf8_decode(s + *at, &len);

    *at += len;
    return cp;
}

uint32_t jutf8_prev(const char *s, size_t *at)
{
    size_t start = *at - 1;
    size_t end;

    while (utf8_is_continuation(s[start]))
        start--;
    *at = start;
    end = start;
    return jutf8_next(s, &end);
}

size_t jutf8_count(const char *s, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += !utf8_is_continuation(s[i]);
    return count;
}

size_t jutf8_offset(const char *s, size_t n, size_t index)
{
    size_t at = 0;

    while (index-- > 0 && at < n)
        jutf8_next(s, &at);
    return at;
}

bool jutf8_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= '\t' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1f);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

bool jutf8_is_printable(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= ' ' && cp < 0x7f;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

size_t jutf8_trim_left(const char *s, size_t n)
{
    size_t at = 0;

    while (at < n) {
        size_t next = at;
        if (!jutf8_is_space(jutf8_next(s, &next)))
            break;
        at = next;
    }
    return at;
}

size_t jutf8_trim_right(const char *s, size_t n)
{
    while (n > 0) {
        size_t at = n;
        if (!jutf8_is_space(jutf8_prev(s, &at)))
            break;
        n = at;
    }
    return n;
}

static bool is_line_end(uint32_t cp)
{
    return (cp >= '\n' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

size_t jutf8_line(const char *s, size_t n, size_t *next)
{
    size_t at = 0;

    while (at < n) {
        size_t end = at;
        uint32_t cp = jutf8_next(s, &at);
        if (!is_line_end(cp))
            continue;
        if (cp == '\r' && at < n && s[at] == '\n')
            at++;
        *next = at;
        return end;
    }
    *next = n;
    return n;
}

void jutf8_add_case(struct jbuf *b, uint32_t cp, enum jcase how)
{
    utf8proc_int32_t c = (utf8proc_int32_t)cp;

    if (cp == 0xdf && how != JCASE_LOWER) {
        jbuf_add_str(b, how == JCASE_UPPER ? "SS" : "Ss");
        return;
    }
    if (how == JCASE_UPPER)
        c = utf8proc_toupper(c);
    else if (how == JCASE_LOWER)
        c = utf8proc_tolower(c);
    else
        c = utf8proc_totitle(c);
    jbuf_add_cp(b, (uint32_t)c);
}
