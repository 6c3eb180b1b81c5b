/* mem.c - malloc and friends that abort with a message instead of returning NULL. */
#include "common/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static void *must(void *p, size_t bytes)
{
    if (!p) {
        log_error("event=out_of_memory bytes=%zu", bytes);
        abort();
    }
    return p;
}

void *mem_alloc(size_t bytes)
{
    return must(malloc(bytes ? bytes : 1), bytes);
}

void *mem_zalloc(size_t n, size_t bytes)
{
    if (n == 0 || bytes == 0)
        n = bytes = 1;
    return must(calloc(n, bytes), n > SIZE_MAX / bytes ? SIZE_MAX : n * bytes);
}

void *mem_realloc(void *p, size_t bytes)
{
    return must(realloc(p, bytes ? bytes : 1), bytes);
}

char *mem_strdup(const char *s)
{
    return s ? mem_strndup(s, strlen(s)) : NULL;
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);

    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}
