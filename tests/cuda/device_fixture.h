/* device_fixture.h - a device of the fake driver with one stream, and numbers on their way to it and back. */
#ifndef LLMD_TESTS_CUDA_DEVICE_FIXTURE_H
#define LLMD_TESTS_CUDA_DEVICE_FIXTURE_H

#include "common/clock.h"
#include "gpu-worker/cuda/device.h"
#include "tests/check.h"

#define FIXTURE_LIMIT_NS (60 * NS_PER_S)

struct device_fixture {
    struct device *device;
    struct device_stream stream;
    void *pinned;
    size_t pinned_bytes;
};

static inline void fixture_open(struct device_fixture *f, int ordinal, size_t pinned_bytes)
{
    struct err e = { 0 };

    *f = (struct device_fixture){ .pinned_bytes = pinned_bytes };
    assert_ok(device_open(&f->device, ordinal, NULL, &e), e);
    assert_ok(device_stream_open(&f->stream, f->device, 0, &e), e);
    assert_ok(device_host_alloc(f->device, &f->pinned, pinned_bytes, &e), e);
}

static inline void fixture_close(struct device_fixture *f)
{
    device_host_free(f->device, f->pinned);
    device_stream_close(&f->stream);
    device_close(f->device);
}

static inline void fixture_finish(struct device_fixture *f)
{
    struct err e = { 0 };

    assert_ok(device_stream_finish(&f->stream, FIXTURE_LIMIT_NS, &e), e);
}

/* Device memory; device_free() takes it back. */
static inline void *fixture_alloc(struct device_fixture *f, size_t bytes)
{
    struct err e = { 0 };
    cu_ptr p = 0;

    assert_ok(device_alloc(f->device, &p, bytes, &e), e);
    return (void *)(uintptr_t)p;
}

static inline void fixture_free(struct device_fixture *f, void *p)
{
    device_free(f->device, (cu_ptr)(uintptr_t)p);
}

static inline void fixture_put(struct device_fixture *f, void *to, const void *from, size_t bytes)
{
    assert_true(bytes <= f->pinned_bytes);
    memcpy(f->pinned, from, bytes);
    assert_true(device_copy_in(&f->stream, (cu_ptr)(uintptr_t)to, f->pinned, bytes));
    fixture_finish(f);
}

static inline void fixture_get(struct device_fixture *f, void *to, const void *from, size_t bytes)
{
    assert_true(bytes <= f->pinned_bytes);
    assert_true(device_copy_out(&f->stream, f->pinned, (cu_ptr)(uintptr_t)from, bytes));
    fixture_finish(f);
    memcpy(to, f->pinned, bytes);
}

#endif
