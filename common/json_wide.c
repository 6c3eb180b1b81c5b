/* json_wide.c - find the integers that jansson cannot hold.
 *
 * Both functions walk the text without a grammar: strings are skipped, digits are looked at, braces are
 * counted.  Whether it is JSON at all, jansson says. */
#include "common/json_wide.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An integer of up to so many characters fits, whatever its digits. */
enum { CHARS_THAT_FIT = 18 };

/* One past the string that begins at `at`; n when it has no end. */
static size_t skip_string(const char *bytes, size_t n, size_t at)
{
    for (at++; at < n && bytes[at] != '"'; at++)
        at += bytes[at] == '\\';
    return at < n ? at + 1 : n;
}

static size_t skip_number(const char *bytes, size_t n, size_t at)
{
    while (at < n && (isalnum((unsigned char)bytes[at]) || strchr("+-.", bytes[at])) && bytes[at])
        at++;
    return at;
}

static bool is_number_start(char c)
{
    return c == '-' || isdigit((unsigned char)c);
}

/* Digits alone, perhaps behind a minus, and more than int64_t holds. */
static bool is_wide(const char *number, size_t n)
{
    size_t sign = number[0] == '-';
    char text[24];

    if (n <= CHARS_THAT_FIT)
        return false;
    for (size_t i = sign; i < n; i++)
        if (!isdigit((unsigned char)number[i]))
            return false;
    if (n >= sizeof text)
        return true;
    memcpy(text, number, n);
    text[n] = '\0';
    errno = 0;
    strtoll(text, NULL, 10);
    return errno == ERANGE;
}

/* The first wide integer at or after `at`: [*start, *end). */
static bool next_wide(const char *bytes, size_t n, size_t at, size_t *start, size_t *end)
{
    while (at < n) {
        if (bytes[at] == '"') {
            at = skip_string(bytes, n, at);
        } else if (is_number_start(bytes[at])) {
            *start = at;
            *end = at = skip_number(bytes, n, at);
            if (is_wide(bytes + *start, *end - *start))
                return true;
        } else {
            at++;
        }
    }
    return false;
}

json_t *json_wide_parse(const char *bytes, size_t n, struct err *e)
{
    struct buf copy = { 0 };
    size_t from = 0, start, end;
    json_t *v;

    while (next_wide(bytes, n, from, &start, &end)) {
        buf_add(&copy, bytes + from, end - from);
        buf_add_str(&copy, ".0");
        from = end;
    }
    if (from == 0)
        return json_parse(bytes, n, e);
    buf_add(&copy, bytes + from, n - from);
    v = json_parse(copy.data, copy.n, e);
    buf_fini(&copy);
    return v;
}

/* ---- by place ---- */

static size_t skip_space(const char *bytes, size_t n, size_t at)
{
    while (at < n && isspace((unsigned char)bytes[at]))
        at++;
    return at;
}

static size_t skip_value(const char *bytes, size_t n, size_t at)
{
    size_t depth = 0;

    do {
        if (at < n && bytes[at] == '"') {
            at = skip_string(bytes, n, at);
        } else if (at < n && strchr("{[", bytes[at]) && bytes[at]) {
            depth++;
            at++;
        } else if (at < n && strchr("}]", bytes[at]) && bytes[at]) {
            depth--;
            at++;
        } else if (at < n && depth > 0 && !isalnum((unsigned char)bytes[at]) && bytes[at] != '-') {
            at++; /* a comma, a colon, space */
        } else {
            size_t end = skip_number(bytes, n, at); /* true, false and null, too */
            at = end > at ? end : n;
        }
    } while (depth > 0 && at < n);
    return at;
}

/* Where the value of a member begins, of the object whose brace is at `at`; n when it has none. */
static size_t find_member(const char *bytes, size_t n, size_t at, const char *name)
{
    size_t name_n = strlen(name);

    at = skip_space(bytes, n, at + 1);
    while (at < n && bytes[at] == '"') {
        size_t end = skip_string(bytes, n, at);
        bool is_it = end - at == name_n + 2 && memcmp(bytes + at + 1, name, name_n) == 0;
        at = skip_space(bytes, n, end);
        at = skip_space(bytes, n, at + 1); /* the colon */
        if (is_it)
            return at;
        at = skip_space(bytes, n, skip_value(bytes, n, at));
        at = skip_space(bytes, n, at + 1); /* the comma */
    }
    return n;
}

static bool to_uint(const char *number, size_t n, uint64_t *out)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)number[i]) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(number[i] - '0'), &v))
            return false;
    *out = v;
    return n > 0;
}

bool json_wide_uint(const char *bytes, size_t n, const char *const path[], uint64_t *out)
{
    size_t at = skip_space(bytes, n, 0);

    for (; *path && at < n && bytes[at] == '{'; path++)
        at = find_member(bytes, n, at, *path);
    if (*path || at >= n)
        return false;
    return to_uint(bytes + at, skip_number(bytes, n, at) - at, out);
}
