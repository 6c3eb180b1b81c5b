/* arena.h - memory of one request, given back whole.
 *
 * Pointers stay valid until arena_fini(); there is no free of a single piece.  One thread at a time. */
#ifndef LLMD_COMMON_ARENA_H
#define LLMD_COMMON_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *last; /* newest block; blocks form a list to the oldest */
};

void *arena_alloc(struct arena *a, size_t bytes); /* zeroed, 16-byte aligned */
char *arena_strndup(struct arena *a, const char *s,
                    size_t n); /* all n bytes, NULs too, and a NUL */
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arena_fini(struct arena *a); /* a zeroed struct is an empty arena */

#endif
