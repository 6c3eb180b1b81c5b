/* weights_check.c - verify and repair chunks of committed weights. */
#include "gpu-worker/load/weights_check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/mem.h"

bool weights_chunk_is_intact(const struct weights *w, uint32_t chunk)
{
    struct weights_range r = weights_chunk(w->hdr->data_bytes, chunk);
    const char *data = segment_at(&w->segment, w->hdr->data_offset);

    return hash64(data + r.begin, r.end - r.begin, 0) == w->checksums[chunk];
}

struct scan_job {
    const struct weights *w;
    uint64_t deadline_ns;
    _Atomic uint32_t next;
    bool *corrupt; /* [n_chunks] */
};

/* Each thread looks at one chunk before it looks at the clock. */
static void scan_job(void *arg, uint32_t job)
{
    struct scan_job *j = arg;
    uint32_t i;

    (void)job;
    do {
        i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (i < j->w->hdr->n_chunks)
            j->corrupt[i] = !weights_chunk_is_intact(j->w, i);
    } while (i < j->w->hdr->n_chunks && clock_mono_ns() < j->deadline_ns);
}

void weights_scan(const struct weights *w, struct threads *threads, uint64_t deadline_ns,
                  struct weights_scan *out)
{
    uint32_t n = w->hdr->n_chunks, n_looked;
    struct scan_job j = { .w = w, .deadline_ns = deadline_ns };

    j.corrupt = mem_zalloc(n, sizeof *j.corrupt);
    threads_run(threads, scan_job, &j, threads_count(threads));
    n_looked = atomic_load(&j.next);
    *out = (struct weights_scan){ .n_checked = n_looked < n ? n_looked : n };
    out->corrupt = mem_zalloc(n, sizeof *out->corrupt);
    for (uint32_t i = 0; i < out->n_checked; i++)
        if (j.corrupt[i])
            out->corrupt[out->n_corrupt++] = i;
    free(j.corrupt);
}

bool weights_repair(const struct weights *w, const struct weights_plan *p, uint32_t chunk,
                    struct err *e)
{
    uint64_t offset = w->hdr->data_offset;
    char *map = mmap(NULL, w->segment.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->segment.fd, 0);

    if (map == MAP_FAILED)
        return err_set(e, ERR_SYS, errno, "map the weights to repair chunk %u", chunk);
    weights_fill(p, map + offset, weights_chunk(w->hdr->data_bytes, chunk));
    munmap(map, w->segment.bytes);
    return weights_chunk_is_intact(w, chunk) ||
           err_set(
               e, ERR_MODEL, 0,
               "chunk %u of the weights in memory is corrupt, and the model's files do not give "
               "what was loaded from them; stop and start llmd to load them again",
               chunk);
}
