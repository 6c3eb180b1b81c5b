/* bench.c - see bench.h. */
#include "gpu-worker/cuda/verify/bench.h"

#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

enum { WARM_LAUNCHES = 3, TIMED_LAUNCHES = 20 };

cu_ptr bench_device(struct bench *b, uint64_t bytes)
{
    struct err e = { 0 };
    cu_ptr p;

    if (!device_alloc(b->d.device, &p, bytes, &e))
        child_fail(b->sock, "%s", e.msg);
    return p;
}

void *bench_host(struct bench *b, uint64_t bytes)
{
    void *p = malloc(bytes);

    if (!p)
        child_fail(b->sock, "no memory of %llu bytes", (unsigned long long)bytes);
    return p;
}

cu_ptr bench_put(struct bench *b, const void *from, uint64_t bytes)
{
    cu_ptr p = bench_device(b, bytes);

    device_copy_in(&b->d.stream, p, from, bytes);
    child_finish(b->sock, &b->d);
    return p;
}

void bench_get(struct bench *b, void *to, cu_ptr from, uint64_t bytes)
{
    device_copy_out(&b->d.stream, to, from, bytes);
    child_finish(b->sock, &b->d);
}

/* Numbers in [-1, 1), the same every time: SplitMix64's (pages.h). */
float *bench_numbers(struct bench *b, uint64_t n, uint64_t seed)
{
    float *x = bench_host(b, n * sizeof *x);

    for (uint64_t i = 0; i < n; i++)
        x[i] = (float)((double)(page_mix(seed, i) >> 40) * 0x1p-23 - 1);
    return x;
}

/* Launch, warm, then timed; the results of the last launch stay. */
void bench_time(struct bench *b, const char *kernel, const struct device_grid *grid,
                const void *args, size_t args_bytes)
{
    struct device_kernel *k = device_kernel(b->d.device, kernel);
    struct device_event from, to;
    struct err e = { 0 };
    uint32_t n = b->v->is_small ? 1 : TIMED_LAUNCHES;

    if (!b->kernel)
        b->kernel = kernel;
    if (!device_event_open(&from, b->d.device, true, &e) ||
        !device_event_open(&to, b->d.device, true, &e))
        child_fail(b->sock, "%s", e.msg);
    for (int i = 0; i < WARM_LAUNCHES && !b->v->is_small; i++)
        device_launch(&b->d.stream, k, grid, args, args_bytes);
    device_event_record(&from, &b->d.stream);
    for (uint32_t i = 0; i < n; i++)
        device_launch(&b->d.stream, k, grid, args, args_bytes);
    device_event_record(&to, &b->d.stream);
    child_finish(b->sock, &b->d);
    b->us = 1000.0 * (double)device_event_ms(&from, &to) / n;
    device_event_close(&from);
    device_event_close(&to);
}

uint32_t bench_launches(const struct bench *b)
{
    return b->v->is_small ? 1 : WARM_LAUNCHES + TIMED_LAUNCHES;
}

void bench_note(struct bench *b, double got, double want, double scale)
{
    double error = fabs(got - want) / scale;

    /* A NaN is no small error. */
    if (!(error <= b->error))
        b->error = isnan(error) ? INFINITY : error;
}

/* Rows to compare: the first, the last, and some between. */
uint32_t bench_sample(uint32_t i, uint32_t rows)
{
    return (uint32_t)((uint64_t)i * (rows - 1) / (BENCH_SAMPLE_ROWS - 1));
}

double bench_kv_number(const uint8_t *tile, enum kv_format format, uint32_t page_tokens,
                       uint32_t head_dim, uint32_t slot, uint32_t d)
{
    const uint8_t *numbers = tile + kv_scales_bytes(format, page_tokens);
    uint64_t at = (uint64_t)slot * head_dim + d;

    switch (format) {
    case KV_F32:
        return (double)((const float *)(const void *)numbers)[at];
    case KV_F16:
        return (double)f16_to_float(((const uint16_t *)(const void *)numbers)[at]);
    case KV_E4M3:
        return (double)e4m3_to_float(numbers[at]);
    default:
        return (double)((const int8_t *)numbers)[at] *
               (double)((const float *)(const void *)tile)[slot];
    }
}
