/* bench_eight_bits.c - what is around cuBLASLt's products: packed weights as f16, and of E4M3 and int8 rows and weights to
 * codes, and sums to floats. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

/* ---- a matrix as f16 ---- */

static struct device_grid dequantise_grid(enum dtype dtype, uint32_t rows, uint32_t cols)
{
    if (dtype == DTYPE_E4M3)
        return (struct device_grid){ { dequantise_e4m3_grid(rows, cols), 1, 1 },
                                     DEQUANTISE_THREADS,
                                     0 };
    return (struct device_grid){ { dequantise_grid_x(cols), dequantise_grid_y(rows), 1 },
                                 DEQUANTISE_THREADS,
                                 0 };
}

static const char *dequantise_kernel(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_E4M3:
        return "dequantise_e4m3";
    case DTYPE_I8:
        return "dequantise_i8";
    case DTYPE_I4:
        return "dequantise_i4";
    default:
        return "dequantise_i4m";
    }
}

static void compare_dequantised(struct bench *b, const struct bench_matrix *m, const uint16_t *got)
{
    float *want = bench_host(b, m->cols * sizeof *want);
    uint32_t stride = cuda_packing_stride(m->cols);

    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, m->rows);
        cuda_packing_unpack_row(m->dtype, want, m->packed, row, m->cols);
        for (uint32_t k = 0; k < m->cols; k++)
            bench_note(b, (double)f16_to_float(got[(uint64_t)row * stride + k]), (double)want[k],
                       fabs((double)want[k]) + 1e-3);
    }
    free(want);
}

void bench_dequantise(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols, stride = cuda_packing_stride(cols);
    uint64_t out_bytes = (uint64_t)rows * stride * sizeof(uint16_t);
    struct bench_matrix m = bench_matrix(b, (enum dtype)b->of.format, rows, cols);
    cu_ptr there = bench_put(b, m.packed, m.bytes), out = bench_device(b, out_bytes);
    struct dequantise_args args = { .out = (uint16_t *)(uintptr_t)out,
                                    .data = (const void *)(uintptr_t)there,
                                    .out_stride = stride,
                                    .rows = rows,
                                    .cols = cols };
    struct device_grid grid = dequantise_grid(m.dtype, rows, cols);
    uint16_t *got = bench_host(b, out_bytes);

    b->bytes = (double)m.bytes + (double)out_bytes;
    bench_time(b, dequantise_kernel(m.dtype), &grid, &args, sizeof args);
    bench_get(b, got, out, out_bytes);
    compare_dequantised(b, &m, got);
    device_free(b->d.device, there);
    device_free(b->d.device, out);
    free(m.packed);
    free(got);
}

/* ---- the scales of its rows ---- */

void bench_fp8_scales(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;
    struct bench_matrix m = bench_matrix(b, DTYPE_E4M3, rows, cols);
    float *got = bench_host(b, rows * sizeof *got);
    cu_ptr there = bench_put(b, m.packed, m.bytes), out = bench_device(b, rows * sizeof *got);
    struct fp8_scales_args args = { .scale = (float *)(uintptr_t)out,
                                    .data = (const void *)(uintptr_t)there,
                                    .rows = rows,
                                    .cols = cols };
    struct device_grid grid = { { w8a8_finish_grid_x(rows), 1, 1 }, W8A8_THREADS, 0 };

    b->bytes = 8.0 * rows;
    bench_time(b, "fp8_scales", &grid, &args, sizeof args);
    bench_get(b, got, out, rows * sizeof *got);
    for (uint32_t i = 0; i < rows; i++) {
        const char *row = (const char *)m.packed + (uint64_t)i * e4m3_row_bytes(cols);
        b->error += memcmp(&got[i], row + e4m3_codes_bytes(cols), sizeof got[i]) != 0;
    }
    device_free(b->d.device, there);
    device_free(b->d.device, out);
    free(m.packed);
    free(got);
}

/* ---- blocks of int8 as rows of it ---- */

/* A code is off by half a step, of which the row's largest number has 127. */
static void compare_requantised(struct bench *b, const struct bench_matrix *m, const int8_t *codes,
                                uint32_t stride, const float *scale)
{
    float *want = bench_host(b, m->cols * sizeof *want);

    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, m->rows);
        cuda_packing_unpack_row(DTYPE_I8, want, m->packed, row, m->cols);
        for (uint32_t k = 0; k < m->cols; k++)
            bench_note(b, (double)codes[(uint64_t)row * stride + k] * (double)scale[row],
                       (double)want[k], 127 * (double)scale[row]);
    }
    free(want);
}

void bench_requantise_i8(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols, stride = (cols + 15) / 16 * 16;
    uint64_t out_bytes = (uint64_t)rows * stride;
    struct bench_matrix m = bench_matrix(b, DTYPE_I8, rows, cols);
    int8_t *codes = bench_host(b, out_bytes);
    float *scale = bench_host(b, rows * sizeof *scale);
    cu_ptr there = bench_put(b, m.packed, m.bytes), out = bench_device(b, out_bytes),
           scales = bench_device(b, rows * sizeof *scale);
    struct requantise_args args = { .out = (int8_t *)(uintptr_t)out,
                                    .scale = (float *)(uintptr_t)scales,
                                    .data = (const void *)(uintptr_t)there,
                                    .out_stride = stride,
                                    .rows = rows,
                                    .cols = cols };
    struct device_grid grid = { { dequantise_grid_y(rows), 1, 1 }, DEQUANTISE_THREADS, 0 };

    b->bytes = (double)m.bytes + (double)out_bytes;
    bench_time(b, "requantise_i8", &grid, &args, sizeof args);
    bench_get(b, codes, out, out_bytes);
    bench_get(b, scale, scales, rows * sizeof *scale);
    compare_requantised(b, &m, codes, stride, scale);
    device_free(b->d.device, there);
    device_free(b->d.device, out);
    device_free(b->d.device, scales);
    free(m.packed);
    free(codes);
    free(scale);
}

/* ---- rows of a prompt as codes ---- */

/* Half a step of the row's largest is 1/28 of it, of int8 1/254. */
static void compare_codes(struct bench *b, const float *x, const uint8_t *q, const float *scale,
                          bool is_fp8)
{
    uint32_t cols = b->shape.cols;

    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, b->shape.rows);
        for (uint32_t k = 0; k < cols; k++) {
            uint64_t at = (uint64_t)row * cols + k;
            double code = is_fp8 ? (double)e4m3_to_float(q[at]) : (double)(int8_t)q[at];
            bench_note(b, code * (double)scale[row], (double)x[at],
                       (is_fp8 ? 448 : 127) * (double)scale[row]);
        }
    }
}

static void quantise(struct bench *b, bool is_fp8)
{
    uint64_t n = (uint64_t)b->shape.rows * b->shape.cols;
    float *x = bench_numbers(b, n, 11), *scale = bench_host(b, b->shape.rows * sizeof *scale);
    uint8_t *q = bench_host(b, n);
    cu_ptr dx = bench_put(b, x, n * sizeof *x), dq = bench_device(b, n),
           ds = bench_device(b, b->shape.rows * sizeof *scale);
    struct row_quantise_args args = { .q = (uint8_t *)(uintptr_t)dq,
                                      .scale = (float *)(uintptr_t)ds,
                                      .x = (const float *)(uintptr_t)dx,
                                      .cols = b->shape.cols };
    struct device_grid grid = { { b->shape.rows, 1, 1 }, W8A8_THREADS, 0 };

    b->bytes = (double)n * 5;
    bench_time(b, is_fp8 ? "fp8_quantise" : "w8a8_quantise", &grid, &args, sizeof args);
    bench_get(b, q, dq, n);
    bench_get(b, scale, ds, b->shape.rows * sizeof *scale);
    compare_codes(b, x, q, scale, is_fp8);
    device_free(b->d.device, dx);
    device_free(b->d.device, dq);
    device_free(b->d.device, ds);
    free(x);
    free(q);
    free(scale);
}

void bench_fp8_quantise(struct bench *b)
{
    quantise(b, true);
}

void bench_w8a8_quantise(struct bench *b)
{
    quantise(b, false);
}

/* ---- sums and their scales ---- */

/* Rows of tokens, columns of the matrix; sums are floats, or whole numbers. */
struct sums {
    uint64_t n;
    float *floats, *x_scale, *w_scale, *y;
    int32_t *whole; /* NULL: floats */
    cu_ptr sums, xs, ws, there;
};

static void make_sums(struct bench *b, struct sums *s, bool is_whole)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;

    s->n = (uint64_t)rows * cols;
    s->floats = bench_numbers(b, s->n, 12);
    s->x_scale = bench_numbers(b, rows, 13);
    s->w_scale = bench_numbers(b, cols, 14);
    s->y = bench_host(b, s->n * sizeof *s->y);
    s->whole = is_whole ? bench_host(b, s->n * sizeof *s->whole) : NULL;
    for (uint64_t i = 0; is_whole && i < s->n; i++)
        s->whole[i] = (int32_t)(s->floats[i] * 0x1p24f);
    s->sums = bench_put(b, is_whole ? (const void *)s->whole : s->floats, s->n * 4);
    s->xs = bench_put(b, s->x_scale, rows * sizeof *s->x_scale);
    s->ws = bench_put(b, s->w_scale, cols * sizeof *s->w_scale);
    s->there = bench_device(b, s->n * sizeof *s->y);
}

static void compare_sums(struct bench *b, const struct sums *s)
{
    uint32_t cols = b->shape.cols;

    for (uint64_t i = 0; i < s->n; i += 1 + s->n / 100003) {
        double sum = s->whole ? s->whole[i] * 0x1p-24 : (double)s->floats[i];
        bench_note(b, (double)s->y[i] * (s->whole ? 0x1p-24 : 1),
                   sum * (double)s->x_scale[i / cols] * (double)s->w_scale[i % cols], 1);
    }
}

static void drop_sums(struct bench *b, struct sums *s)
{
    device_free(b->d.device, s->sums);
    device_free(b->d.device, s->xs);
    device_free(b->d.device, s->ws);
    device_free(b->d.device, s->there);
    free(s->floats);
    free(s->x_scale);
    free(s->w_scale);
    free(s->whole);
    free(s->y);
}

static void finish(struct bench *b, const char *kernel, struct sums *s, const void *args,
                   size_t args_bytes)
{
    struct device_grid grid = { { w8a8_finish_grid_x(b->shape.cols), b->shape.rows, 1 },
                                W8A8_THREADS,
                                0 };

    b->bytes = (double)s->n * 8;
    bench_time(b, kernel, &grid, args, args_bytes);
    bench_get(b, s->y, s->there, s->n * sizeof *s->y);
    compare_sums(b, s);
    drop_sums(b, s);
}

void bench_fp8_finish(struct bench *b)
{
    struct fp8_finish_args args;
    struct sums s;

    make_sums(b, &s, false);
    args = (struct fp8_finish_args){ .y = (float *)(uintptr_t)s.there,
                                     .sums = (const float *)(uintptr_t)s.sums,
                                     .x_scale = (const float *)(uintptr_t)s.xs,
                                     .w_scale = (const float *)(uintptr_t)s.ws,
                                     .y_stride = b->shape.cols,
                                     .sums_stride = b->shape.cols,
                                     .rows = b->shape.cols };
    finish(b, "fp8_finish", &s, &args, sizeof args);
}

void bench_w8a8_finish(struct bench *b)
{
    struct w8a8_finish_args args;
    struct sums s;

    make_sums(b, &s, true);
    args = (struct w8a8_finish_args){ .y = (float *)(uintptr_t)s.there,
                                      .sums = (const int32_t *)(uintptr_t)s.sums,
                                      .x_scale = (const float *)(uintptr_t)s.xs,
                                      .w_scale = (const float *)(uintptr_t)s.ws,
                                      .y_stride = b->shape.cols,
                                      .sums_stride = b->shape.cols,
                                      .rows = b->shape.cols };
    finish(b, "w8a8_finish", &s, &args, sizeof args);
}
