/* arena.c - bump allocation from a list of blocks of 4 KiB and more. */
#include "common/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { BLOCK_BYTES = 4096, ALIGN = 16 };

struct arena_block {
    struct arena_block *older;
    size_t used, cap;
    _Alignas(ALIGN) char bytes[];
};

void *arena_alloc(struct arena *a, size_t bytes)
{
    struct arena_block *b = a->last;
    void *p;

    assert(bytes < SIZE_MAX / 2);
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!b || b->cap - b->used < bytes) {
        size_t cap = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        b = mem_alloc(sizeof *b + cap);
        *b = (struct arena_block){ .older = a->last, .cap = cap };
        a->last = b;
    }
    p = b->bytes + b->used;
    b->used += bytes;
    return memset(p, 0, bytes);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *copy = arena_alloc(a, n + 1);

    memcpy(copy, s, n);
    return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    char *s;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    s = arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)(n < 0 ? 0 : n) + 1, fmt, ap);
    va_end(ap);
    return s;
}

void arena_fini(struct arena *a)
{
    while (a->last) {
        struct arena_block *older = a->last->older;
        free(a->last);
        a->last = older;
    }
}
