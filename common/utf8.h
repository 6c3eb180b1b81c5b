/* utf8.h - walking UTF-8 as Unicode 15 defines it (table 3-7): no surrogates, no overlong forms.
 *
 * utf8_next() is the one decision; everything else here follows from it. */
#ifndef LLMD_COMMON_UTF8_H
#define LLMD_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum utf8_kind {
    UTF8_CHAR,  /* a character */
    UTF8_BAD,   /* bytes that no continuation could make a character: the maximal subpart, which
                 * the WHATWG, Rust and Python all replace with one U+FFFD */
    UTF8_SHORT, /* the beginning of a character, cut off by the end of the bytes */
};

/* What stands at s[0..n), n > 0; *len is how many bytes it takes. */
enum utf8_kind utf8_next(const char *s, size_t n, size_t *len);

/* True when all n bytes are characters; else *bad_at is where the first that is not begins. */
bool utf8_is_valid(const char *s, size_t n, size_t *bad_at);

/* Bytes of the character that begins with `lead`, in text known to be valid. */
static inline size_t utf8_length(char lead)
{
    unsigned char c = (unsigned char)lead;

    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Is this byte the second or later one of a character? */
static inline bool utf8_is_continuation(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

/* The code point at s, in text known to be valid; *len is set. */
uint32_t utf8_decode(const char *s, size_t *len);

/* Write code point c, which is no surrogate and at most 0x10ffff; returns 1..4 bytes. */
size_t utf8_encode(uint32_t c, char out[4]);

/* The largest cut <= n that does not split the character around byte n of s (n bytes may be read, and
 * s[n] too).  Text that is not UTF-8 is cut anywhere. */
size_t utf8_cut(const char *s, size_t n);

#endif
