/* buf.h - a growable run of bytes, always NUL-terminated past its end.
 *
 * Owner: whoever holds the struct.  buf_fini() on a zeroed struct is safe. */
#ifndef LLMD_COMMON_BUF_H
#define LLMD_COMMON_BUF_H

#include <stddef.h>

struct buf {
    char *data; /* n bytes, then a NUL; NULL while nothing was ever added */
    size_t n;
    size_t cap;
};

void buf_fini(struct buf *b);
void buf_clear(struct buf *b);                 /* empty, memory kept */
void buf_reserve(struct buf *b, size_t extra); /* room for `extra` more bytes and a NUL */
void buf_add(struct buf *b, const void *bytes, size_t n); /* bytes: not inside b->data */
void buf_add_str(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *buf_take(struct buf *b); /* returns the bytes, caller frees; b is empty again */

#endif
