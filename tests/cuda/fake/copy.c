/* copy.c - copies and fills.
 *
 * Host memory that is not pinned behaves as the driver's manual says: copying from it has taken the bytes when
 * the call returns, copying to it has been done.  Pinned memory is read and written when the work runs, so a test in
 * lazy or random mode sees a buffer that is used again too early. */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/fake/fake.h"

static bool is_pinned(uint64_t address, size_t bytes)
{
    return fake_is_memory(FAKE_HOST, address, bytes, false);
}

static void stage(struct work *w)
{
    w->copy.staged = malloc(w->copy.bytes);
    if (!w->copy.staged)
        abort();
    memcpy(w->copy.staged, (const void *)(uintptr_t)w->copy.from, w->copy.bytes);
}

static int wait_for(struct cu_stream *s)
{
    int r;

    fake_lock();
    r = stream_wait(s, UINT64_MAX);
    fake_unlock();
    return r;
}

static void count(enum copy_kind kind, size_t bytes)
{
    fake_lock();
    fake_counts.bytes_in += kind == COPY_IN ? bytes : 0;
    fake_counts.bytes_out += kind == COPY_OUT ? bytes : 0;
    fake_counts.bytes_within += kind == COPY_WITHIN ? bytes : 0;
    fake_unlock();
}

/* Are both ends what the call says? */
static bool is_fit(const char *name, enum copy_kind kind, uint64_t to, uint64_t from, size_t bytes)
{
    bool ok = (kind == COPY_OUT || fake_is_memory(FAKE_DEVICE, to, bytes, true)) &&
              (kind == COPY_IN || fake_is_memory(FAKE_DEVICE, from, bytes, false));

    if (!ok)
        fake_say("%s(%#lx, %#lx, %zu): not device memory, or without access", name, to, from,
                 bytes);
    return ok;
}

static int give_copy(const char *name, enum copy_kind kind, uint64_t to, uint64_t from,
                     size_t bytes, struct cu_stream *s)
{
    int r = fake_enter(name, true);
    bool is_captured, waits;
    struct work *w;

    if (r != CU_OK || bytes == 0)
        return r;
    if (!is_fit(name, kind, to, from, bytes))
        return CU_INVALID_VALUE;
    s = fake_stream(s);
    is_captured = s->capture != NULL;
    waits = kind == COPY_OUT && !is_captured && !is_pinned(to, bytes);
    w = work_new(WORK_COPY, 0);
    w->copy.to = to;
    w->copy.from = from;
    w->copy.bytes = bytes;
    w->copy.kind = kind;
    if (kind == COPY_IN && !is_captured && !is_pinned(from, bytes))
        stage(w);
    count(kind, bytes);
    r = stream_give(s, w);
    return r == CU_OK && waits ? wait_for(s) : r;
}

int cuMemcpyHtoDAsync_v2(cu_ptr to, const void *from, size_t bytes, struct cu_stream *s)
{
    return give_copy(__func__, COPY_IN, to, (uint64_t)(uintptr_t)from, bytes, s);
}

int cuMemcpyDtoHAsync_v2(void *to, cu_ptr from, size_t bytes, struct cu_stream *s)
{
    return give_copy(__func__, COPY_OUT, (uint64_t)(uintptr_t)to, from, bytes, s);
}

int cuMemcpyDtoDAsync_v2(cu_ptr to, cu_ptr from, size_t bytes, struct cu_stream *s)
{
    return give_copy(__func__, COPY_WITHIN, to, from, bytes, s);
}

int cuMemcpyPeerAsync(cu_ptr to, struct cu_context *to_context, cu_ptr from,
                      struct cu_context *from_context, size_t bytes, struct cu_stream *s)
{
    if (!to_context || !from_context)
        return CU_INVALID_CONTEXT;
    return give_copy(__func__, COPY_WITHIN, to, from, bytes, s);
}

static int give_fill(const char *name, uint64_t to, size_t n, uint32_t value, int width,
                     struct cu_stream *s)
{
    int r = fake_enter(name, true);
    struct work *w;

    if (r != CU_OK || n == 0)
        return r;
    if (to % (unsigned)width != 0 || !fake_is_memory(FAKE_DEVICE, to, n * (size_t)width, true)) {
        fake_say("%s(%#lx, %zu): not device memory, or without access", name, to, n);
        return CU_INVALID_VALUE;
    }
    w = work_new(WORK_FILL, 0);
    w->fill.to = to;
    w->fill.n = n;
    w->fill.value = value;
    w->fill.width = width;
    return stream_give(fake_stream(s), w);
}

int cuMemsetD8Async(cu_ptr to, unsigned char value, size_t n, struct cu_stream *s)
{
    return give_fill(__func__, to, n, value, 1, s);
}

int cuMemsetD32Async(cu_ptr to, unsigned value, size_t n, struct cu_stream *s)
{
    return give_fill(__func__, to, n, value, 4, s);
}
