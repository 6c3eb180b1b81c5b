/* bench_gemv.c - a product of one row with a matrix in the formats of the device (K1, K2, K3 of the design). */
#include <stdlib.h>

#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/cuda/kernels/gemv.h"
#include "gpu-worker/cuda/verify/bench.h"

static void launch(struct bench *b, cu_ptr matrix, cu_ptr x, cu_ptr y)
{
    const struct device_info *info = device_info(b->d.device);
    const struct gemv_device gpu = { (uint32_t)info->n_multiprocessors,
                                     (uint32_t)info->shared_bytes_max,
                                     (uint32_t)info->shared_bytes_multiprocessor };
    struct gemv_args args = { .y = (float *)(uintptr_t)y,
                              .x = (const float *)(uintptr_t)x,
                              .y_stride = b->shape.rows,
                              .x_stride = b->shape.cols,
                              .n_rows = 1,
                              .cols = b->shape.cols,
                              .n_w = 1,
                              .mode = GEMV_SET,
                              .w = { { .data = (const void *)(uintptr_t)matrix,
                                       .rows = b->shape.rows } } };
    struct gemv_launch l = gemv_launch(&args, cuda_gemv_format((enum dtype)b->of.format), 0, &gpu);
    struct device_grid grid = { { l.grid_x, l.grid_y, 1 }, GEMV_THREADS, l.shared_bytes };

    bench_time(b, l.kernel, &grid, &args, sizeof args);
}

void bench_gemv(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;
    struct bench_matrix m = bench_matrix(b, (enum dtype)b->of.format, rows, cols);
    float *x = bench_numbers(b, cols, 6), *y = bench_host(b, rows * sizeof *y);
    cu_ptr matrix = bench_put(b, m.packed, m.bytes), dx = bench_put(b, x, cols * sizeof *x),
           dy = bench_device(b, rows * sizeof *y);

    b->bytes = (double)m.bytes;
    launch(b, matrix, dx, dy);
    bench_get(b, y, dy, rows * sizeof *y);
    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, rows);

        bench_note_product(b, (double)y[row], &m, row, x);
    }
    device_free(b->d.device, matrix);
    device_free(b->d.device, dx);
    device_free(b->d.device, dy);
    free(m.packed);
    free(x);
    free(y);
}
