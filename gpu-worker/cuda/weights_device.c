/* weights_device.c - see weights_device.h.
 *
 *   FREE --stage--> HELD by a thread --put--> FLYING --its event, seen by the next stage--> HELD ...
 *
 * The device belongs to one thread at a time: whoever has the lock.  After the load it is the caller's of finish(). */
#include "gpu-worker/cuda/weights_device.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/cuda/device.h"
#include "gpu-worker/cuda/page_sums.h"
#include "proto/weights_layout.h"

enum { N_SLOTS = 32 }; /* of a megabyte: what a bus takes while some threads fill others */

#define COPY_LIMIT_NS (60 * NS_PER_S) /* a piece is a megabyte: the device hangs */

enum slot_state { SLOT_FREE, SLOT_HELD, SLOT_FLYING };

struct slot {
    enum slot_state state;
    void *memory; /* pinned */
    struct device_event copied;
};

struct weights_device {
    struct device *device;
    struct chunks *chunks;
    struct device_stream stream;
    struct page_sums *sums;
    struct weights_place place;
    uint64_t piece_bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slot *slots; /* [N_SLOTS]; NULL: not staging */
    uint32_t oldest;
};

/* ---- staging ---- */

static void free_slots(struct weights_device *w)
{
    for (uint32_t i = 0; w->slots && i < N_SLOTS; i++) {
        device_event_close(&w->slots[i].copied);
        device_host_free(w->device, w->slots[i].memory);
    }
    free(w->slots);
    w->slots = NULL;
}

/* At the first piece: who maps what is there already needs none. */
static bool make_slots(struct weights_device *w, struct err *e)
{
    if (w->slots)
        return true;
    w->slots = mem_zalloc(N_SLOTS, sizeof *w->slots);
    w->oldest = 0;
    for (uint32_t i = 0; i < N_SLOTS; i++)
        if (!device_host_alloc(w->device, &w->slots[i].memory, w->piece_bytes, e) ||
            !device_event_open(&w->slots[i].copied, w->device, false, e)) {
            free_slots(w);
            return false;
        }
    return true;
}

static struct slot *find(struct weights_device *w, enum slot_state state)
{
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        struct slot *s = &w->slots[(w->oldest + i) % N_SLOTS];
        if (s->state == state)
            return s;
    }
    return NULL;
}

/* Pieces fly in the order in which they were put, so the one after the newest is the oldest. */
static struct slot *take_slot(struct weights_device *w, struct err *e)
{
    struct slot *s;

    while (!(s = find(w, SLOT_FREE)) && !(s = find(w, SLOT_FLYING)))
        pthread_cond_wait(&w->changed, &w->lock);
    if (!device_bind(w->device, e))
        return NULL;
    if (s->state == SLOT_FLYING &&
        device_event_wait(&s->copied, clock_mono_ns() + COPY_LIMIT_NS) != DEVICE_DONE) {
        if (device_fault(w->device))
            device_fault_err(w->device, e);
        else
            err_set(e, ERR_TIMEOUT, 0, "the GPU does not take the weights");
        return NULL;
    }
    s->state = SLOT_HELD;
    return s;
}

static char *stage(void *ctx, uint64_t n, struct err *e)
{
    struct weights_device *w = ctx;
    struct slot *s = NULL;

    assert(n <= w->piece_bytes);
    pthread_mutex_lock(&w->lock);
    if (device_bind(w->device, e) && make_slots(w, e))
        s = take_slot(w, e);
    pthread_mutex_unlock(&w->lock);
    return s ? s->memory : NULL;
}

static struct slot *slot_of(struct weights_device *w, const char *staged)
{
    uint32_t i = 0;

    while (w->slots[i].memory != staged)
        i++;
    assert(i < N_SLOTS);
    return &w->slots[i];
}

static bool put(void *ctx, char *staged, uint64_t at, uint64_t n, struct err *e)
{
    struct weights_device *w = ctx;
    struct slot *s;
    bool ok;

    assert(at + n <= w->chunks->bytes && w->chunks->is_writable);
    pthread_mutex_lock(&w->lock);
    s = slot_of(w, staged);
    ok = device_bind(w->device, e) &&
         ((device_copy_in(&w->stream, w->chunks->base + at, staged, n) &&
           device_event_record(&s->copied, &w->stream)) ||
          device_fault_err(w->device, e));
    s->state = ok ? SLOT_FLYING : SLOT_FREE;
    w->oldest = (uint32_t)(s - w->slots + 1) % N_SLOTS;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return ok;
}

static bool finish(void *ctx, struct err *e)
{
    struct weights_device *w = ctx;

    if (!device_bind(w->device, e) || !device_stream_finish(&w->stream, COPY_LIMIT_NS, e) ||
        !chunks_allow(w->chunks, false, e))
        return false;
    free_slots(w);
    w->place.is_fresh = false;
    return true;
}

static bool open_for_writing(void *ctx, struct err *e)
{
    struct weights_device *w = ctx;

    return device_bind(w->device, e) &&
           (w->chunks->is_writable || chunks_allow(w->chunks, true, e));
}

/* ---- checksums ---- */

static bool checksums(void *ctx, uint64_t data_bytes, uint32_t first, uint32_t n, uint64_t *out,
                      struct err *e)
{
    struct weights_device *w = ctx;
    uint64_t begin = first * WEIGHTS_CHUNK_BYTES, end = begin + n * WEIGHTS_CHUNK_BYTES;
    uint32_t n_whole = end > data_bytes ? n - 1 : n;

    assert(n > 0 && begin < data_bytes && data_bytes <= w->chunks->bytes);
    if (!device_bind(w->device, e) || !page_sums_run(w->sums, w->chunks->base + begin,
                                                     WEIGHTS_CHUNK_BYTES, NULL, n_whole, out, e))
        return false;
    begin += n_whole * WEIGHTS_CHUNK_BYTES;
    return n_whole == n || page_sums_run(w->sums, w->chunks->base + begin, data_bytes - begin, NULL,
                                         1, out + n_whole, e);
}

/* ---- life ---- */

struct weights_device *weights_device_new(struct device *device, struct chunks *chunks,
                                          uint64_t piece_bytes, bool is_fresh, struct err *e)
{
    struct weights_device *w = mem_zalloc(1, sizeof *w);

    w->device = device;
    w->chunks = chunks;
    w->piece_bytes = piece_bytes > WEIGHTS_CHUNK_BYTES ? piece_bytes : WEIGHTS_CHUNK_BYTES;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->place = (struct weights_place){ .ctx = w,
                                       .base = (const void *)(uintptr_t)chunks->base,
                                       .is_fresh = is_fresh,
                                       .stage = stage,
                                       .put = put,
                                       .finish = finish,
                                       .open_for_writing = open_for_writing,
                                       .checksums = checksums };
    w->sums = page_sums_new(device, e);
    if (w->sums && device_stream_open(&w->stream, device, 0, e))
        return w;
    weights_device_free(w);
    return NULL;
}

void weights_device_free(struct weights_device *w)
{
    if (!w)
        return;
    free_slots(w);
    page_sums_free(w->sums);
    device_stream_close(&w->stream);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

const struct weights_place *weights_device_place(const struct weights_device *w)
{
    return &w->place;
}
