/* utf8.c - decode, encode and check UTF-8. */
#include "common/utf8.h"

#include <string.h>

/* The range allowed for the second byte after `lead`, and the length of such a character (0: `lead`
 * cannot begin one). */
static size_t shape_of(unsigned char lead, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef) {
        if (lead == 0xe0)
            *lo = 0xa0;
        if (lead == 0xed)
            *hi = 0x9f;
        return 3;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        if (lead == 0xf0)
            *lo = 0x90;
        if (lead == 0xf4)
            *hi = 0x8f;
        return 4;
    }
    return 0;
}

enum utf8_kind utf8_next(const char *s, size_t n, size_t *len)
{
    const unsigned char *b = (const unsigned char *)s;
    unsigned char lo, hi;
    size_t want;

    *len = 1;
    if (b[0] < 0x80)
        return UTF8_CHAR;
    want = shape_of(b[0], &lo, &hi);
    if (want == 0)
        return UTF8_BAD;
    for (size_t i = 1; i < want; i++) {
        *len = i;
        if (i == n)
            return UTF8_SHORT;
        if (b[i] < lo || b[i] > hi)
            return UTF8_BAD;
        lo = 0x80;
        hi = 0xbf;
    }
    *len = want;
    return UTF8_CHAR;
}

bool utf8_is_valid(const char *s, size_t n, size_t *bad_at)
{
    size_t i = 0;

    while (i < n) {
        uint64_t eight;
        size_t len;

        if (n - i >= sizeof eight) {
            memcpy(&eight, s + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        if (utf8_next(s + i, n - i, &len) != UTF8_CHAR) {
            *bad_at = i;
            return false;
        }
        i += len;
    }
    return true;
}

uint32_t utf8_decode(const char *s, size_t *len)
{
    const unsigned char *b = (const unsigned char *)s;

    *len = utf8_length(s[0]);
    switch (*len) {
    case 1:
        return b[0];
    case 2:
        return (b[0] & 0x1fu) << 6 | (b[1] & 0x3fu);
    case 3:
        return (b[0] & 0x0fu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu);
    default:
        return (b[0] & 0x07u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 | (b[3] & 0x3fu);
    }
}

size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t utf8_cut(const char *s, size_t n)
{
    size_t at = n;

    for (int i = 0; i < 3 && at > 0 && utf8_is_continuation(s[at]); i++)
        at--;
    return utf8_is_continuation(s[at]) ? n : at;
}
