/* json_scan.c - see json_scan.h.  No recursion, no allocation. */
#include "text/json_scan.h"

#include <string.h>

#include "common/utf8.h"

enum { DEPTH_MAX = 64, INT_DIGITS_MAX = 15 };

void json_scan_init(struct json_scan *j, const char *s, size_t n, struct err *e)
{
    *j = (struct json_scan){ .s = s, .n = n, .first = true, .e = e };
}

bool json_scan_ok(const struct json_scan *j)
{
    return !j->failed;
}

bool json_scan_fail(struct json_scan *j, const char *what)
{
    if (!j->failed)
        err_set(j->e, ERR_MODEL, 0, "%s at byte %zu", what, j->at);
    j->failed = true;
    return false;
}

char json_scan_peek(struct json_scan *j)
{
    while (j->at < j->n && (j->s[j->at] == ' ' || j->s[j->at] == '\n' || j->s[j->at] == '\r' ||
                            j->s[j->at] == '\t'))
        j->at++;
    return j->at < j->n ? j->s[j->at] : '\0';
}

static bool expect(struct json_scan *j, char c, const char *what)
{
    if (j->failed)
        return false;
    if (json_scan_peek(j) != c)
        return json_scan_fail(j, what);
    j->at++;
    return true;
}

bool json_scan_object(struct json_scan *j)
{
    j->first = true;
    return expect(j, '{', "'{' expected");
}

bool json_scan_array(struct json_scan *j)
{
    j->first = true;
    return expect(j, '[', "'[' expected");
}

/* The comma before the next member or item; false at `close`, which is taken. */
static bool next(struct json_scan *j, char close)
{
    bool first = j->first;

    if (j->failed)
        return false;
    j->first = false;
    if (json_scan_peek(j) == close) {
        j->at++;
        return false;
    }
    return first || expect(j, ',', "',' expected");
}

bool json_scan_key(struct json_scan *j, char *key, size_t key_max, size_t *n)
{
    return next(j, '}') && json_scan_string(j, key, key_max - 1, n) &&
           expect(j, ':', "':' expected");
}

bool json_scan_item(struct json_scan *j)
{
    return next(j, ']');
}

static bool hex4(struct json_scan *j, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < 4; i++) {
        char c = j->at < j->n ? j->s[j->at++] : '\0';
        if (c >= '0' && c <= '9')
            *v = *v << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            *v = *v << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return json_scan_fail(j, "four hexadecimal digits expected");
    }
    return true;
}

/* The code point of a \u escape, whose 'u' has been taken; two escapes make one above 0xffff. */
static bool code_point(struct json_scan *j, uint32_t *c)
{
    uint32_t low;

    if (!hex4(j, c))
        return false;
    if (*c < 0xd800 || *c > 0xdfff)
        return true;
    if (*c > 0xdbff || j->n - j->at < 2 || j->s[j->at] != '\\' || j->s[j->at + 1] != 'u')
        return json_scan_fail(j, "half a surrogate pair");
    j->at += 2;
    if (!hex4(j, &low))
        return false;
    if (low < 0xdc00 || low > 0xdfff)
        return json_scan_fail(j, "half a surrogate pair");
    *c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

/* What a backslash stands for, as 1..4 bytes; 0 on failure. */
static size_t unescape(struct json_scan *j, char out[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = j->at < j->n ? j->s[j->at++] : '\0';
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t point;

    if (known) {
        out[0] = to[known - from];
        return 1;
    }
    if (c != 'u') {
        json_scan_fail(j, "unknown escape");
        return 0;
    }
    return code_point(j, &point) ? utf8_encode(point, out) : 0;
}

bool json_scan_string(struct json_scan *j, char *out, size_t out_max, size_t *n)
{
    size_t len = 0;

    if (!expect(j, '"', "string expected"))
        return false;
    for (;;) {
        char bytes[4], c = j->at < j->n ? j->s[j->at] : '\0';
        size_t n_bytes = 1;

        if (c == '"')
            break;
        if ((unsigned char)c < 0x20)
            return json_scan_fail(j, "control character or end of text in a string");
        j->at++;
        bytes[0] = c;
        if (c == '\\')
            n_bytes = unescape(j, bytes);
        if (n_bytes == 0)
            return false;
        if (len + n_bytes > out_max)
            return json_scan_fail(j, "string too long");
        memcpy(out + len, bytes, n_bytes);
        len += n_bytes;
    }
    j->at++;
    out[len] = '\0';
    *n = len;
    return true;
}

bool json_scan_int(struct json_scan *j, int64_t *v)
{
    int digits = 0;
    bool minus;

    if (j->failed)
        return false;
    minus = json_scan_peek(j) == '-';
    j->at += minus;
    for (*v = 0; j->at < j->n && j->s[j->at] >= '0' && j->s[j->at] <= '9'; j->at++) {
        if (++digits > INT_DIGITS_MAX)
            return json_scan_fail(j, "number too large");
        *v = *v * 10 + (j->s[j->at] - '0');
    }
    if (digits == 0 || (j->at < j->n && strchr(".eE", j->s[j->at])))
        return json_scan_fail(j, "whole number expected");
    if (minus)
        *v = -*v;
    return true;
}

static bool skip_string(struct json_scan *j)
{
    for (j->at++; j->at < j->n; j->at++) {
        if (j->s[j->at] == '\\')
            j->at++;
        else if (j->s[j->at] == '"') {
            j->at++;
            return true;
        }
    }
    j->at = j->n;
    return json_scan_fail(j, "end of text in a string");
}

bool json_scan_skip(struct json_scan *j, struct json_slice *value)
{
    char closers[DEPTH_MAX];
    size_t depth = 0, start;

    if (j->failed)
        return false;
    json_scan_peek(j);
    start = j->at;
    do {
        char c = json_scan_peek(j);

        if (c == '"') {
            if (!skip_string(j))
                return false;
        } else if (c == '{' || c == '[') {
            if (depth == DEPTH_MAX)
                return json_scan_fail(j, "nested too deep");
            closers[depth++] = c == '{' ? '}' : ']';
            j->at++;
        } else if (c == '}' || c == ']') {
            if (depth == 0 || closers[depth - 1] != c)
                return json_scan_fail(j, "bracket that closes nothing");
            depth--;
            j->at++;
        } else if ((c == ',' || c == ':') && depth > 0) {
            j->at++;
        } else {
            size_t n = 0;
            while (j->at + n < j->n && !strchr(" \n\r\t,:]}[{\"", j->s[j->at + n]))
                n++;
            if (n == 0)
                return json_scan_fail(j, "value expected");
            j->at += n;
        }
    } while (depth > 0);
    *value = (struct json_slice){ .s = j->s + start, .n = j->at - start };
    return true;
}

bool json_scan_end(struct json_scan *j)
{
    if (j->failed)
        return false;
    json_scan_peek(j);
    return j->at == j->n || json_scan_fail(j, "text after the end");
}
