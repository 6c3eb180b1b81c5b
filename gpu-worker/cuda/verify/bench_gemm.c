/* bench_gemm.c - products of many rows by our own kernels: 4-bit weights (K4 of the design), and the experts of a prompt. */
#include <stdlib.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/cuda/verify/bench.h"

enum { EXPERTS = 8, EXPERTS_DRY = 2, GROUPS_EACH = 2, GROUPS_EACH_DRY = 1 };

/* ---- 4-bit weights ---- */

static void launch_w4(struct bench *b, const struct bench_matrix *m, cu_ptr w, cu_ptr x, cu_ptr y)
{
    uint32_t n = b->of.size, slots = gemm_w4_slots(n), tiles = gemm_w4_tiles(m->rows);
    uint32_t blocks =
        gemm_w4_grid(m->rows, m->cols, (uint32_t)device_info(b->d.device)->n_multiprocessors);
    cu_ptr partial = bench_device(b, gemm_w4_partial_bytes(blocks, slots)),
           arrived = bench_device(b, tiles * sizeof(uint32_t));
    struct gemm_w4_args args = { .y = (float *)(uintptr_t)y,
                                 .x = (const uint16_t *)(uintptr_t)x,
                                 .w = (const void *)(uintptr_t)w,
                                 .partial = (float *)(uintptr_t)partial,
                                 .arrived = (uint32_t *)(uintptr_t)arrived,
                                 .y_stride = m->rows,
                                 .x_stride = m->cols,
                                 .n_rows = n,
                                 .rows = m->rows,
                                 .cols = m->cols };
    struct device_grid grid = { { blocks, 1, 1 }, GEMM_W4_THREADS, gemm_w4_shared_bytes(slots) };

    device_fill(&b->d.stream, arrived, 0, tiles * sizeof(uint32_t));
    bench_time(b, gemm_w4_kernel(m->dtype == DTYPE_I4M, slots), &grid, &args, sizeof args);
    device_free(b->d.device, partial);
    device_free(b->d.device, arrived);
}

void bench_gemm_w4(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols, n = b->of.size;
    uint64_t n_x = (uint64_t)n * cols, n_y = (uint64_t)n * rows;
    struct bench_matrix m = bench_matrix(b, (enum dtype)b->of.format, rows, cols);
    uint16_t *x = bench_halves(b, n_x, 17, false);
    float *y = bench_host(b, n_y * sizeof *y);
    cu_ptr w = bench_put(b, m.packed, m.bytes), dx = bench_put(b, x, n_x * sizeof *x),
           dy = bench_device(b, n_y * sizeof *y);

    b->bytes = (double)m.bytes + (double)n_x * 2 + (double)n_y * 4;
    b->operations = 2.0 * (double)n_x * rows;
    launch_w4(b, &m, w, dx, dy);
    bench_get(b, y, dy, n_y * sizeof *y);
    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, rows), t = bench_sample(BENCH_SAMPLE_ROWS - 1 - i, n);

        bench_note_product_halves(b, (double)y[(uint64_t)t * rows + row], &m, row,
                                  x + (uint64_t)t * cols);
    }
    device_free(b->d.device, w);
    device_free(b->d.device, dx);
    device_free(b->d.device, dy);
    free(m.packed);
    free(x);
    free(y);
}

/* ---- experts of a prompt ---- */

/* Pairs in the order of their experts.  These are pieces of one matrix, each a panel further on than the one before. */
struct experts {
    uint32_t n, n_pairs, n_groups, panel_rows;
    uint64_t bytes, panel_bytes; /* of one expert */
    struct bench_matrix all;
    uint16_t *x; /* [n_pairs, cols] f16, of bf16 weights bf16 */
    float *y;    /* [n_pairs, rows] */
    struct moe_group *groups;
};

static void make_experts(struct bench *b, struct experts *m)
{
    enum dtype dtype = (enum dtype)b->of.format;
    uint32_t rows = b->shape.rows, cols = b->shape.cols;

    m->n = b->v->is_small ? EXPERTS_DRY : EXPERTS;
    m->n_groups = m->n * (b->v->is_small ? GROUPS_EACH_DRY : GROUPS_EACH);
    m->n_pairs = m->n_groups * GEMM_GROUPED_PAIRS;
    m->panel_rows = cuda_packing_panel_rows(dtype);
    m->panel_bytes = cuda_packing_panel_bytes(dtype, cols);
    m->bytes = (rows + m->panel_rows - 1) / m->panel_rows * m->panel_bytes;
    m->all = bench_matrix(b, dtype, rows + (m->n - 1) * m->panel_rows, cols);
    m->x = bench_halves(b, (uint64_t)m->n_pairs * cols, 15, dtype == DTYPE_BF16);
    m->y = bench_host(b, (uint64_t)m->n_pairs * rows * sizeof *m->y);
    m->groups = bench_host(b, m->n_groups * sizeof *m->groups);
    for (uint32_t i = 0; i < m->n_groups; i++)
        m->groups[i] = (struct moe_group){ .expert = i * m->n / m->n_groups,
                                           .first = i * GEMM_GROUPED_PAIRS,
                                           .n = GEMM_GROUPED_PAIRS };
}

static void free_experts(struct experts *m)
{
    free(m->all.packed);
    free(m->x);
    free(m->y);
    free(m->groups);
}

static void compare_experts(struct bench *b, const struct experts *m)
{
    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, b->shape.rows), pair = bench_sample(i, m->n_pairs);
        uint32_t expert = m->groups[pair / GEMM_GROUPED_PAIRS].expert;

        bench_note_product_halves(b, (double)m->y[(uint64_t)pair * b->shape.rows + row], &m->all,
                                  expert * m->panel_rows + row,
                                  m->x + (uint64_t)pair * b->shape.cols);
    }
}

static void launch_experts(struct bench *b, const struct experts *m, cu_ptr w, cu_ptr x, cu_ptr y,
                           cu_ptr groups)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;
    uint32_t format = cuda_gemv_format((enum dtype)b->of.format);
    const struct gemm_grouped_args args = { .y = (float *)(uintptr_t)y,
                                            .x = (const uint16_t *)(uintptr_t)x,
                                            .groups = (const struct moe_group *)(uintptr_t)groups,
                                            .w = (const void *)(uintptr_t)w,
                                            .expert_bytes = m->bytes,
                                            .y_stride = rows,
                                            .x_stride = cols,
                                            .rows = rows,
                                            .cols = cols };
    struct device_grid grid = { { gemm_grouped_tiles(rows), m->n_groups, 1 },
                                GEMM_GROUPED_THREADS,
                                gemm_grouped_shared_bytes(format) };

    bench_time(b, gemm_grouped_kernel(format), &grid, &args, sizeof args);
}

void bench_experts(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;
    struct experts m;
    cu_ptr w, x, y, groups;
    uint64_t n_y;

    make_experts(b, &m);
    n_y = (uint64_t)m.n_pairs * rows;
    w = bench_device(b, m.n * m.bytes);
    for (uint32_t i = 0; i < m.n; i++)
        device_copy_in(&b->d.stream, w + i * m.bytes, (char *)m.all.packed + i * m.panel_bytes,
                       m.bytes);
    x = bench_put(b, m.x, (uint64_t)m.n_pairs * cols * sizeof *m.x);
    y = bench_device(b, n_y * sizeof *m.y);
    groups = bench_put(b, m.groups, m.n_groups * sizeof *m.groups);
    b->bytes = (double)m.n * (double)m.bytes + (double)m.n_pairs * (2.0 * cols + 4.0 * rows);
    b->operations = 2.0 * (double)n_y * cols;
    launch_experts(b, &m, w, x, y, groups);
    bench_get(b, m.y, y, n_y * sizeof *m.y);
    compare_experts(b, &m);
    device_free(b->d.device, w);
    device_free(b->d.device, x);
    device_free(b->d.device, y);
    device_free(b->d.device, groups);
    free_experts(&m);
}
