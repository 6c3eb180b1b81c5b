/* huge_pages.c - see huge_pages.h.
 *
 * MADV_COLLAPSE wants something to collapse: one small page in each huge one is enough. */
#include "gpu-worker/load/huge_pages.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define FROM_BYTES  ((size_t)64 << 20)
#define HUGE_BYTES  ((size_t)2 << 20)
#define PIECE_BYTES ((size_t)32 << 20)

struct reserve_job {
    char *map;
    size_t bytes; /* whole huge pages */
    _Atomic size_t next;
    _Atomic bool refused;
};

static void touch(volatile char *page)
{
    *page = *page;
}

static void reserve(void *arg, uint32_t job)
{
    struct reserve_job *j = arg;
    size_t at;

    (void)job;
    while (!atomic_load(&j->refused) && (at = atomic_fetch_add(&j->next, PIECE_BYTES)) < j->bytes) {
        size_t bytes = j->bytes - at < PIECE_BYTES ? j->bytes - at : PIECE_BYTES;
        for (size_t i = 0; i < bytes; i += HUGE_BYTES)
            touch(j->map + at + i);
        if (madvise(j->map + at, bytes, MADV_COLLAPSE) < 0)
            atomic_store(&j->refused, true); /* not possible, or no room: small pages do as well */
    }
}

void huge_pages_reserve(void *map, size_t bytes, struct threads *threads)
{
    struct reserve_job j = { .map = map, .bytes = bytes / HUGE_BYTES * HUGE_BYTES };

    if (bytes >= FROM_BYTES && (uintptr_t)map % HUGE_BYTES == 0)
        threads_run(threads, reserve, &j, threads_count(threads));
}
