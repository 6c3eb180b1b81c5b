/* weights_check.c - verify and repair chunks of committed weights. */
#include "gpu-worker/load/weights_check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/mem.h"

static bool place_chunk_is_intact(const struct weights *w, uint32_t chunk)
{
    uint64_t sum;
    struct err e;

    return w->place->checksums(w->place->ctx, w->hdr->data_bytes, chunk, 1, &sum, &e) &&
           sum == w->checksums[chunk];
}

bool weights_chunk_is_intact(const struct weights *w, uint32_t chunk)
{
    struct weights_range r = weights_chunk(w->hdr->data_bytes, chunk);
    const char *data;

    if (w->place)
        return place_chunk_is_intact(w, chunk);
    data = segment_at(&w->segment, w->hdr->data_offset);
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

/* All at once: what it takes to ask a device is more than what it takes to answer. */
static void scan_place(const struct weights *w, struct weights_scan *out)
{
    uint32_t n = w->hdr->n_chunks;
    uint64_t *sums = mem_zalloc(n, sizeof *sums);
    struct err e;

    *out = (struct weights_scan){ .corrupt = mem_zalloc(n, sizeof *out->corrupt) };
    if (w->place->checksums(w->place->ctx, w->hdr->data_bytes, 0, n, sums, &e)) {
        out->n_checked = n;
        for (uint32_t i = 0; i < n; i++)
            if (sums[i] != w->checksums[i])
                out->corrupt[out->n_corrupt++] = i;
    }
    free(sums);
}

void weights_scan(const struct weights *w, struct threads *threads, uint64_t deadline_ns,
                  struct weights_scan *out)
{
    uint32_t n = w->hdr->n_chunks, n_looked;
    struct scan_job j = { .w = w, .deadline_ns = deadline_ns };

    if (w->place) {
        scan_place(w, out);
        return;
    }
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

static bool write_mapped(const struct weights *w, const struct weights_plan *p, uint32_t chunk,
                         struct err *e)
{
    struct weights_range r = weights_chunk(w->hdr->data_bytes, chunk);
    char *map = mmap(NULL, w->segment.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->segment.fd, 0);

    if (map == MAP_FAILED)
        return err_set(e, ERR_SYS, errno, "map the weights to repair chunk %u", chunk);
    weights_fill(p, map + w->hdr->data_offset + r.begin, r);
    munmap(map, w->segment.bytes);
    return true;
}

static bool write_place(const struct weights *w, const struct weights_plan *p, uint32_t chunk,
                        struct err *e)
{
    struct weights_range r = weights_chunk(w->hdr->data_bytes, chunk);
    const struct weights_place *place = w->place;
    char *staged;

    if (!place->open_for_writing(place->ctx, e) ||
        !(staged = place->stage(place->ctx, r.end - r.begin, e)))
        return false;
    weights_fill(p, staged, r);
    return place->put(place->ctx, staged, r.begin, r.end - r.begin, e) &&
           place->finish(place->ctx, e);
}

bool weights_repair(const struct weights *w, const struct weights_plan *p, uint32_t chunk,
                    struct err *e)
{
    if (!(w->place ? write_place(w, p, chunk, e) : write_mapped(w, p, chunk, e)))
        return false;
    return weights_chunk_is_intact(w, chunk) ||
           err_set(
               e, ERR_MODEL, 0,
               "chunk %u of the weights in memory is corrupt, and the model's files do not give "
               "what was loaded from them; stop and start llmd to load them again",
               chunk);
}
