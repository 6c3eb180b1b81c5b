/* utf8.h - is this a UTF-8 character, and where may a text be cut?  Pure functions over bytes. */
#ifndef LLMD_COMMON_UTF8_H
#define LLMD_COMMON_UTF8_H

#include <stddef.h>

/* Bytes of the UTF-8 character at s (1..4), or 0 when it is not one (Unicode 15, table 3-7).  n >= 1. */
static inline size_t utf8_length(const unsigned char *s, size_t n)
{
    unsigned char lo = 0x80, hi = 0xbf;
    size_t len;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        len = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        len = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        len = 4;
    else
        return 0;
    if (s[0] == 0xe0)
        lo = 0xa0;
    else if (s[0] == 0xed)
        hi = 0x9f;
    else if (s[0] == 0xf0)
        lo = 0x90;
    else if (s[0] == 0xf4)
        hi = 0x8f;
    if (n < len || s[1] < lo || s[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return len;
}

/* The largest cut <= n that does not split the character around byte n of s (n bytes may be read, and
 * s[n] too).  Text that is not UTF-8 is cut anywhere. */
static inline size_t utf8_cut(const char *s, size_t n)
{
    size_t at = n;

    for (int i = 0; i < 3 && at > 0 && ((unsigned char)s[at] & 0xc0) == 0x80; i++)
        at--;
    return ((unsigned char)s[at] & 0xc0) == 0x80 ? n : at;
}

#endif
