/* host_tier_device.c - see host_tier_device.h. */
#include "gpu-worker/cuda/host_tier_device.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define LIMIT_NS (60 * NS_PER_S)

/* Copies in one way. */
struct lane {
    struct device_stream stream;
    struct device_event done;
};

struct host_tier_device {
    struct host_tier_device_setup setup;
    struct lane lanes[N_KV_TIER_WAYS];
    pthread_t thread;
    bool has_thread;
    _Atomic bool stop;
    _Atomic uint32_t memory; /* enum kv_tier_memory */
    uint32_t n_pinned;       /* pieces; the thread's until it has ended */
};

/* ---- pinning ---- */

static char *piece_at(const struct host_tier_device *h, uint32_t i)
{
    return h->setup.memory + i * h->setup.piece_bytes;
}

static uint64_t piece_bytes(const struct host_tier_device *h, uint32_t i)
{
    uint64_t left = h->setup.bytes - i * h->setup.piece_bytes;

    return left < h->setup.piece_bytes ? left : h->setup.piece_bytes;
}

static uint32_t n_pieces(const struct host_tier_device *h)
{
    return (uint32_t)((h->setup.bytes - 1) / h->setup.piece_bytes + 1);
}

static void unpin_all(struct host_tier_device *h)
{
    while (h->n_pinned > 0)
        device_host_unregister(h->setup.device, piece_at(h, --h->n_pinned));
}

/* The pages are made before the driver's locks are held; an older kernel makes them then. */
static bool pin_piece(struct host_tier_device *h, uint32_t i, struct err *e)
{
    char *at = piece_at(h, i);
    uint64_t bytes = piece_bytes(h, i);

    if (madvise(at, bytes, MADV_POPULATE_WRITE) < 0 && errno != EINVAL && errno != ENOSYS)
        return err_set(e, ERR_SYS, errno, "take %llu MiB of host memory",
                       (unsigned long long)(bytes >> 20));
    return device_host_register(h->setup.device, at, bytes, false, e);
}

static bool pin_all(struct host_tier_device *h, struct err *e)
{
    if (!device_bind(h->setup.device, e))
        return false;
    while (h->n_pinned < n_pieces(h) && !atomic_load(&h->stop)) {
        if (!pin_piece(h, h->n_pinned, e))
            return false;
        h->n_pinned++;
    }
    return true;
}

static void *pin_thread(void *arg)
{
    struct host_tier_device *h = arg;
    uint64_t start_ns = clock_mono_ns();
    struct err e;

    if (!pin_all(h, &e)) {
        log_warning("host tier: %s; no KV page is kept in host memory", e.msg);
        unpin_all(h);
        atomic_store(&h->memory, KV_TIER_NONE);
    } else if (!atomic_load(&h->stop)) {
        log_info("host tier: MiB=%llu pinned, ms=%llu", (unsigned long long)(h->setup.bytes >> 20),
                 (unsigned long long)((clock_mono_ns() - start_ns) / NS_PER_MS));
        atomic_store(&h->memory, KV_TIER_READY);
    }
    return NULL;
}

static void end_thread(struct host_tier_device *h)
{
    if (!h->has_thread)
        return;
    atomic_store(&h->stop, true);
    pthread_join(h->thread, NULL);
    h->has_thread = false;
}

enum kv_tier_memory host_tier_device_memory(struct host_tier_device *h)
{
    if (!h->has_thread && atomic_load(&h->memory) == KV_TIER_COMING) {
        h->has_thread = pthread_create(&h->thread, NULL, pin_thread, h) == 0;
        if (!h->has_thread)
            atomic_store(&h->memory, KV_TIER_NONE);
    }
    return (enum kv_tier_memory)atomic_load(&h->memory);
}

void host_tier_device_drop(struct host_tier_device *h)
{
    end_thread(h);
    unpin_all(h);
    atomic_store(&h->memory, KV_TIER_NONE);
}

/* ---- copies ---- */

static bool copy(struct host_tier_device *h, enum kv_tier_way way, cu_ptr page, char *slot,
                 uint64_t bytes)
{
    struct device_stream *s = &h->lanes[way].stream;

    return way == KV_TIER_SAVE ? device_copy_out(s, slot, page, bytes)
                               : device_copy_in(s, page, slot, bytes);
}

/* In two parts where two pieces meet: each was pinned for itself. */
static bool copy_page(struct host_tier_device *h, enum kv_tier_way way, uint32_t page,
                      uint32_t slot)
{
    uint64_t bytes = h->setup.page_bytes, at = slot * bytes;
    uint64_t first = h->setup.piece_bytes - at % h->setup.piece_bytes;
    cu_ptr from = h->setup.base + page * bytes;

    assert(at + bytes <= h->setup.bytes);
    if (first >= bytes)
        return copy(h, way, from, h->setup.memory + at, bytes);
    return copy(h, way, from, h->setup.memory + at, first) &&
           copy(h, way, from + first, h->setup.memory + at + first, bytes - first);
}

bool host_tier_device_begin(struct host_tier_device *h, enum kv_tier_way way, const uint32_t *pairs,
                            uint32_t n)
{
    struct lane *l = &h->lanes[way];

    for (uint32_t i = 0; i < n; i++)
        if (!copy_page(h, way, pairs[2 * i], pairs[2 * i + 1]))
            return false;
    return device_event_record(&l->done, &l->stream);
}

enum kv_tier_wait host_tier_device_poll(struct host_tier_device *h, enum kv_tier_way way)
{
    switch (device_event_poll(&h->lanes[way].done)) {
    case DEVICE_DONE:
        return KV_TIER_DONE;
    case DEVICE_PENDING:
        return KV_TIER_UNDER_WAY;
    default:
        return KV_TIER_FAILED;
    }
}

bool host_tier_device_finish(struct host_tier_device *h, enum kv_tier_way way, struct err *e)
{
    return device_stream_finish(&h->lanes[way].stream, LIMIT_NS, e);
}

/* ---- open and close ---- */

struct host_tier_device *host_tier_device_new(const struct host_tier_device_setup *setup,
                                              struct err *e)
{
    struct host_tier_device *h = mem_zalloc(1, sizeof *h);
    bool ok = true;

    h->setup = *setup;
    if (h->setup.piece_bytes == 0)
        h->setup.piece_bytes = HOST_TIER_PIECE_BYTES;
    for (int way = 0; way < N_KV_TIER_WAYS && ok; way++)
        ok = device_stream_open(&h->lanes[way].stream, setup->device, 0, e) &&
             device_event_open(&h->lanes[way].done, setup->device, false, e);
    if (ok)
        return h;
    host_tier_device_free(h);
    return NULL;
}

void host_tier_device_free(struct host_tier_device *h)
{
    struct err e;

    if (!h)
        return;
    end_thread(h);
    for (int way = 0; way < N_KV_TIER_WAYS; way++) {
        struct lane *l = &h->lanes[way];
        if (l->stream.stream && !device_stream_finish(&l->stream, LIMIT_NS, &e))
            log_warning("host tier: %s", e.msg);
        device_event_close(&l->done);
        device_stream_close(&l->stream);
    }
    unpin_all(h);
    free(h);
}
