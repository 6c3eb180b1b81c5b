/* mem.h - allocation that cannot fail quietly.
 *
 * Small host memory is asked for at start-up and per request, never in the step loop.  When the
 * system has none left, the process says so and aborts: every process here may die at any moment
 * and be replaced, so one honest death is simpler than a thousand half-tested error paths. */
#ifndef LLMD_COMMON_MEM_H
#define LLMD_COMMON_MEM_H

#include <stddef.h>

void *mem_alloc(size_t bytes);            /* uninitialised; bytes may be 0 */
void *mem_zalloc(size_t n, size_t bytes); /* n * bytes zeroed; overflow aborts */
void *mem_realloc(void *p, size_t bytes);
char *mem_strdup(const char *s);            /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n); /* all n bytes, NULs too, and a NUL */

#endif
