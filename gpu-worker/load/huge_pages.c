/* huge_pages.c - see huge_pages.h.
 *
 * Whether advice was followed shows only after a touch, so each huge page is touched once, and smaps is asked.
 * MADV_COLLAPSE wants something to collapse: the same one small page in each huge one is enough. */
#include "gpu-worker/load/huge_pages.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "common/huge.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define PIECE_BYTES ((size_t)32 << 20)

/* One pass over the segment's whole huge pages, in pieces; it ends at the first error. */
struct pass {
    int (*step)(char *piece, size_t bytes); /* an errno */
    char *map;
    size_t bytes;
    _Atomic size_t next, done;
    _Atomic int error;
};

static int touch(char *piece, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += HUGE_BYTES) {
        volatile char *page = piece + i;
        *page = *page;
    }
    return 0;
}

static int collapse(char *piece, size_t bytes)
{
    return madvise(piece, bytes, MADV_COLLAPSE) < 0 ? errno : 0;
}

/* An older kernel does not know it; the pages come with the first touch then. */
static int populate(char *piece, size_t bytes)
{
    return madvise(piece, bytes, MADV_POPULATE_WRITE) < 0 && errno != EINVAL ? errno : 0;
}

static void run_pieces(void *arg, uint32_t job)
{
    struct pass *p = arg;
    size_t at;

    (void)job;
    while (!atomic_load(&p->error) && (at = atomic_fetch_add(&p->next, PIECE_BYTES)) < p->bytes) {
        size_t bytes = p->bytes - at < PIECE_BYTES ? p->bytes - at : PIECE_BYTES;
        int error = p->step(p->map + at, bytes);
        if (error)
            atomic_store(&p->error, error);
        else
            atomic_fetch_add(&p->done, bytes);
    }
}

/* How many bytes it was done for; *error when that is not all. */
static size_t run(struct segment *s, struct threads *threads, int (*step)(char *, size_t),
                  int *error)
{
    struct pass p = { .step = step, .map = (char *)s->hdr };

    p.bytes = s->bytes / HUGE_BYTES * HUGE_BYTES;
    threads_run(threads, run_pieces, &p, threads_count(threads));
    *error = atomic_load(&p.error);
    return atomic_load(&p.done);
}

static bool is_worth_it(const struct segment *s)
{
    return s->bytes >= HUGE_FROM_BYTES && (uintptr_t)s->hdr % HUGE_BYTES == 0;
}

static void note(struct segment *s, enum segment_pages pages)
{
    atomic_store_explicit(&s->hdr->pages, pages, memory_order_relaxed);
}

static bool is(const struct segment *s, enum segment_pages pages)
{
    return atomic_load_explicit(&s->hdr->pages, memory_order_relaxed) == (uint32_t)pages;
}

/* Where shared memory has huge pages unasked (shmem_enabled: always), only the opposite advice keeps them away;
 * a kernel without huge pages refuses that too. */
static bool is_off(struct segment *s)
{
    if (!is(s, SEGMENT_PAGES_OFF))
        return false;
    (void)madvise(s->hdr, s->bytes, MADV_NOHUGEPAGE);
    return true;
}

static bool take_advice(struct segment *s)
{
    struct huge_host host;

    huge_host_read(&host, "");
    return huge_host_takes_advice(&host) && madvise(s->hdr, s->bytes, MADV_HUGEPAGE) == 0;
}

bool huge_pages_take(struct segment *s, struct threads *threads, struct err *e)
{
    size_t collapsed;
    bool advised;
    int error;

    if (!is_worth_it(s) || is_off(s))
        return true;
    if (is(s, SEGMENT_PAGES_RESERVED)) {
        run(s, threads, populate, &error);
        return !error || err_set(e, ERR_SYS, error,
                                 "fill %zu bytes of reserved huge pages; is there a limit on them "
                                 "for this control group",
                                 s->bytes);
    }
    advised = take_advice(s);
    run(s, threads, touch, &error);
    collapsed = run(s, threads, collapse, &error); /* what is huge already needs no work */
    if (advised)
        note(s, SEGMENT_PAGES_ADVISED);
    else
        note(s, collapsed > 0 ? SEGMENT_PAGES_COLLAPSED : SEGMENT_PAGES_SMALL);
    return true;
}

void huge_pages_advise(struct segment *s)
{
    if (is_worth_it(s) && !is_off(s) && !is(s, SEGMENT_PAGES_RESERVED) && take_advice(s))
        note(s, SEGMENT_PAGES_ADVISED);
}
