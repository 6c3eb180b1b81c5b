/* buf.c - growable bytes.  Grows by doubling; aborts when the system has no memory (mem.h). */
#include "common/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ 0 };
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    if (b->data)
        b->data[0] = '\0';
}

void buf_reserve(struct buf *b, size_t extra)
{
    size_t cap = b->cap ? b->cap : 64;
    size_t need;

    assert(extra < SIZE_MAX / 2 - b->n); /* so neither the sum nor the doubling wraps */
    need = b->n + extra + 1;
    if (need <= b->cap)
        return;
    while (cap < need)
        cap *= 2;
    b->data = mem_realloc(b->data, cap);
    b->data[b->n] = '\0';
    b->cap = cap;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    buf_reserve(b, n);
    if (n)
        memcpy(b->data + b->n, bytes, n);
    b->n += n;
    b->data[b->n] = '\0';
}

void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    buf_reserve(b, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(b->data + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

char *buf_take(struct buf *b)
{
    char *data;

    buf_reserve(b, 0);
    data = b->data;
    *b = (struct buf){ 0 };
    return data;
}
