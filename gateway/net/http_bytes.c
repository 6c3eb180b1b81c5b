/* http_bytes.c - the table of byte kinds, the names of methods and refusals, and escapes. */
#include "gateway/net/http_bytes.h"

#include <assert.h>

#include "gateway/net/http_parser.h"

enum {
    C_TOKEN = HTTP_C_TOKEN,
    C_TARGET = HTTP_C_TARGET,
    C_VALUE = HTTP_C_VALUE,
    C_HOST = HTTP_C_HOST
};

#define ALNUM (C_TOKEN | C_TARGET | C_VALUE | C_HOST)
#define PUNCT (C_TARGET | C_VALUE)
/* token: "!#$%&'*+-.^_`|~" and alphanumerics (RFC 9110 section 5.6.2).  Target: visible ASCII but '#'.
 * Value: visible, blank, and bytes from 0x80.  Host: what a name, an IP literal and a port need. */
const uint8_t http_byte_kinds[256] = {
    ['\t'] = C_VALUE,
    [' '] = C_VALUE,
    ['!'] = ALNUM,
    ['"'] = PUNCT,
    ['#'] = C_TOKEN | C_VALUE,
    ['$'] = ALNUM,
    ['%'] = ALNUM,
    ['&'] = ALNUM,
    ['\''] = ALNUM,
    ['('] = PUNCT | C_HOST,
    [')'] = PUNCT | C_HOST,
    ['*'] = ALNUM,
    ['+'] = ALNUM,
    [','] = PUNCT | C_HOST,
    ['-'] = ALNUM,
    ['.'] = ALNUM,
    ['/'] = PUNCT,
    ['0' ... '9'] = ALNUM,
    [':'] = PUNCT | C_HOST,
    [';'] = PUNCT | C_HOST,
    ['<'] = PUNCT,
    ['='] = PUNCT | C_HOST,
    ['>'] = PUNCT,
    ['?'] = PUNCT,
    ['@'] = PUNCT,
    ['A' ... 'Z'] = ALNUM,
    ['['] = PUNCT | C_HOST,
    ['\\'] = PUNCT,
    [']'] = PUNCT | C_HOST,
    ['^'] = PUNCT | C_TOKEN,
    ['_'] = ALNUM,
    ['`'] = PUNCT | C_TOKEN,
    ['a' ... 'z'] = ALNUM,
    ['{'] = PUNCT,
    ['|'] = PUNCT | C_TOKEN,
    ['}'] = PUNCT,
    ['~'] = ALNUM,
    [0x80 ... 0xff] = C_VALUE,
};
#undef ALNUM
#undef PUNCT

static const char *const method_names[N_HTTP_METHODS] = {
    [HTTP_GET] = "GET",     [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",     [HTTP_DELETE] = "DELETE", [HTTP_OPTIONS] = "OPTIONS",
    [HTTP_PATCH] = "PATCH", [HTTP_TRACE] = "TRACE",
};

const char *http_method_name(enum http_method m)
{
    assert(m < N_HTTP_METHODS);
    return method_names[m];
}

static const struct {
    int status;
    const char *text;
    const char *name;
} refusals[N_HTTP_REFUSALS] = { [HTTP_REFUSED_NOT] = { 200, "", "NOT" },
#define X(name, status, text) [HTTP_REFUSED_##name] = { status, text, #name },
                                HTTP_REFUSALS(X)
#undef X
};

int http_refusal_status(enum http_refusal why)
{
    return refusals[why].status;
}

const char *http_refusal_text(enum http_refusal why)
{
    return refusals[why].text;
}

const char *http_refusal_name(enum http_refusal why)
{
    return refusals[why].name;
}

bool http_percent_decode(char *dst, size_t *dst_n, const char *src, size_t n, bool is_query)
{
    size_t to = 0;

    for (size_t i = 0; i < n; i++) {
        char c = src[i];
        if (c == '%') {
            int high = n - i < 3 ? -1 : http_hex_digit(src[i + 1]);
            int low = n - i < 3 ? -1 : http_hex_digit(src[i + 2]);
            if (high < 0 || low < 0 || high + low == 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && is_query) {
            c = ' ';
        }
        dst[to++] = c;
    }
    *dst_n = to;
    return true;
}
