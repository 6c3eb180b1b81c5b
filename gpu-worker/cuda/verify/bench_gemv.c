/* bench_gemv.c - a product of one row with a matrix in the formats of the device (K1, K2, K3 of the design). */
#include <stdlib.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/kernels/gemv.h"
#include "gpu-worker/cuda/verify/bench.h"

struct product {
    enum gemv_format format;
    enum dtype dtype;
    uint64_t matrix_bytes;
    void *matrix; /* packed */
    float *x, *y;
};

/* Pack panel by panel: the floats of the whole matrix would be large. */
static void make_matrix(struct bench *b, struct product *p)
{
    uint32_t panel_rows = cuda_packing_panel_rows(p->dtype), rows = b->shape.rows,
             cols = b->shape.cols;
    size_t panel_bytes = cuda_packing_panel_bytes(p->dtype, cols);
    uint32_t n_panels = (rows + panel_rows - 1) / panel_rows;

    p->matrix_bytes = n_panels * panel_bytes;
    p->matrix = bench_host(b, p->matrix_bytes);
    for (uint32_t i = 0; i < n_panels; i++) {
        uint32_t n = rows - i * panel_rows < panel_rows ? rows - i * panel_rows : panel_rows;
        float *w = bench_numbers(b, (uint64_t)n * cols, 100 + i);

        cuda_packing_pack(p->dtype, (char *)p->matrix + i * panel_bytes, w, n, cols);
        free(w);
    }
}

static void launch(struct bench *b, const struct product *p, cu_ptr matrix, cu_ptr x, cu_ptr y)
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
    struct gemv_launch l = gemv_launch(&args, p->format, 0, &gpu);
    struct device_grid grid = { { l.grid_x, l.grid_y, 1 }, GEMV_THREADS, l.shared_bytes };

    bench_time(b, l.kernel, &grid, &args, sizeof args);
}

/* Relative to the sum of the products' sizes, which is what rounding is relative to. */
static void compare(struct bench *b, const struct product *p)
{
    float *w = bench_host(b, b->shape.cols * sizeof *w);

    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, b->shape.rows);
        double sum = 0, size = 0;

        cuda_packing_unpack_row(p->dtype, w, p->matrix, row, b->shape.cols);
        for (uint32_t c = 0; c < b->shape.cols; c++) {
            double product = (double)w[c] * (double)p->x[c];

            sum += product;
            size += product < 0 ? -product : product;
        }
        bench_note(b, (double)p->y[row], sum, size);
    }
    free(w);
}

static void run(struct bench *b, enum gemv_format format, enum dtype dtype)
{
    struct product p = { .format = format, .dtype = dtype };
    cu_ptr matrix, x, y = bench_device(b, b->shape.rows * sizeof(float));

    make_matrix(b, &p);
    p.x = bench_numbers(b, b->shape.cols, 6);
    p.y = bench_host(b, b->shape.rows * sizeof *p.y);
    matrix = bench_put(b, p.matrix, p.matrix_bytes);
    x = bench_put(b, p.x, b->shape.cols * sizeof *p.x);
    b->bytes = (double)p.matrix_bytes;
    launch(b, &p, matrix, x, y);
    bench_get(b, p.y, y, b->shape.rows * sizeof *p.y);
    compare(b, &p);
    device_free(b->d.device, matrix);
    device_free(b->d.device, x);
    device_free(b->d.device, y);
    free(p.matrix);
    free(p.x);
    free(p.y);
}

void bench_gemv_f16(struct bench *b)
{
    run(b, GEMV_F16, DTYPE_F16);
}

void bench_gemv_e4m3(struct bench *b)
{
    run(b, GEMV_E4M3, DTYPE_E4M3);
}

void bench_gemv_i8(struct bench *b)
{
    run(b, GEMV_I8, DTYPE_I8);
}

void bench_gemv_i4(struct bench *b)
{
    run(b, GEMV_I4, DTYPE_I4);
}
