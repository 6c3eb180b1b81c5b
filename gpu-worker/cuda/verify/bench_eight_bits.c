/* bench_eight_bits.c - what products of E4M3 are made of but for cuBLASLt: rows to codes and back, sums to floats, the
 * experts of a prompt, and heads turned on their way into pages of fp8. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

enum { EXPERTS = 8, KV_HEADS = 32, KV_HEADS_DRY = 2, KV_PAGE_TOKENS = 16 };

/* A matrix of shape rows x cols, packed; *bytes of it. */
static void *make_matrix(struct bench *b, uint64_t *bytes)
{
    size_t row_bytes = cuda_packing_panel_bytes(DTYPE_E4M3, b->shape.cols);
    char *packed = bench_host(b, b->shape.rows * row_bytes);

    for (uint32_t i = 0; i < b->shape.rows; i++) {
        float *w = bench_numbers(b, b->shape.cols, 100 + i);
        cuda_packing_pack(DTYPE_E4M3, packed + i * row_bytes, w, 1, b->shape.cols);
        free(w);
    }
    *bytes = b->shape.rows * row_bytes;
    return packed;
}

/* ---- a matrix as f16 ---- */

void bench_dequantise_e4m3(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols, stride = cuda_packing_stride(cols);
    uint64_t bytes, out_bytes = (uint64_t)rows * stride * sizeof(uint16_t);
    void *matrix = make_matrix(b, &bytes);
    cu_ptr there = bench_put(b, matrix, bytes), out = bench_device(b, out_bytes);
    struct dequantise_args args = { .out = (uint16_t *)(uintptr_t)out,
                                    .data = (const void *)(uintptr_t)there,
                                    .out_stride = stride,
                                    .rows = rows,
                                    .cols = cols };
    struct device_grid grid = { { dequantise_e4m3_grid(rows, cols), 1, 1 }, DEQUANTISE_THREADS, 0 };
    uint16_t *got = bench_host(b, out_bytes);
    float *want = bench_host(b, cols * sizeof *want);

    b->bytes = (double)bytes + (double)out_bytes;
    bench_time(b, "dequantise_e4m3", &grid, &args, sizeof args);
    bench_get(b, got, out, out_bytes);
    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, rows);
        cuda_packing_unpack_row(DTYPE_E4M3, want, matrix, row, cols);
        for (uint32_t k = 0; k < cols; k++)
            bench_note(b, (double)f16_to_float(got[(uint64_t)row * stride + k]), (double)want[k],
                       fabs((double)want[k]) + 1e-3);
    }
    device_free(b->d.device, there);
    device_free(b->d.device, out);
    free(matrix);
    free(got);
    free(want);
}

/* ---- rows of a prompt as codes ---- */

/* Half a step of the row's largest is 1/28 of it. */
static void compare_codes(struct bench *b, const float *x, const uint8_t *q, const float *scale)
{
    uint32_t cols = b->shape.cols;

    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, b->shape.rows);
        const float *from = x + (uint64_t)row * cols;
        for (uint32_t k = 0; k < cols; k++)
            bench_note(b, (double)e4m3_to_float(q[(uint64_t)row * cols + k]) * (double)scale[row],
                       (double)from[k], 448 * (double)scale[row]);
    }
}

void bench_fp8_quantise(struct bench *b)
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
    bench_time(b, "fp8_quantise", &grid, &args, sizeof args);
    bench_get(b, q, dq, n);
    bench_get(b, scale, ds, b->shape.rows * sizeof *scale);
    compare_codes(b, x, q, scale);
    device_free(b->d.device, dx);
    device_free(b->d.device, dq);
    device_free(b->d.device, ds);
    free(x);
    free(q);
    free(scale);
}

/* ---- sums and their scales ---- */

void bench_fp8_finish(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols; /* of tokens; of the matrix */
    uint64_t n = (uint64_t)rows * cols;
    float *sums = bench_numbers(b, n, 12), *xs = bench_numbers(b, rows, 13),
          *ws = bench_numbers(b, cols, 14), *y = bench_host(b, n * sizeof *y);
    cu_ptr dsums = bench_put(b, sums, n * sizeof *sums), dx = bench_put(b, xs, rows * sizeof *xs),
           dw = bench_put(b, ws, cols * sizeof *ws), dy = bench_device(b, n * sizeof *y);
    struct fp8_finish_args args = { .y = (float *)(uintptr_t)dy,
                                    .sums = (const float *)(uintptr_t)dsums,
                                    .x_scale = (const float *)(uintptr_t)dx,
                                    .w_scale = (const float *)(uintptr_t)dw,
                                    .y_stride = cols,
                                    .sums_stride = cols,
                                    .rows = cols };
    struct device_grid grid = { { w8a8_finish_grid_x(cols), rows, 1 }, W8A8_THREADS, 0 };

    b->bytes = (double)n * 8;
    bench_time(b, "fp8_finish", &grid, &args, sizeof args);
    bench_get(b, y, dy, n * sizeof *y);
    for (uint64_t i = 0; i < n; i += 1 + n / 100003)
        bench_note(b, (double)y[i], (double)sums[i] * (double)xs[i / cols] * (double)ws[i % cols],
                   1);
    device_free(b->d.device, dsums);
    device_free(b->d.device, dx);
    device_free(b->d.device, dw);
    device_free(b->d.device, dy);
    free(sums);
    free(xs);
    free(ws);
    free(y);
}

/* ---- experts of a prompt ---- */

/* Pairs in the order of their experts, which all have the same matrix here, side by side. */
struct experts {
    uint32_t n, n_pairs, n_groups;
    uint64_t bytes; /* of one matrix */
    void *matrix;
    uint16_t *x; /* [n_pairs, cols] f16 */
    float *y;    /* [n_pairs, rows] */
    struct moe_group *groups;
};

static void make_experts(struct bench *b, struct experts *m)
{
    uint32_t cols = b->shape.cols;
    float *x;

    m->n = b->v->is_small ? 2 : EXPERTS;
    m->n_groups = m->n * (b->v->is_small ? 1 : 2);
    m->n_pairs = m->n_groups * GEMM_GROUPED_PAIRS;
    m->matrix = make_matrix(b, &m->bytes);
    x = bench_numbers(b, (uint64_t)m->n_pairs * cols, 15);
    m->x = bench_host(b, (uint64_t)m->n_pairs * cols * sizeof *m->x);
    for (uint64_t i = 0; i < (uint64_t)m->n_pairs * cols; i++)
        m->x[i] = float_to_f16(x[i]);
    free(x);
    m->y = bench_host(b, (uint64_t)m->n_pairs * b->shape.rows * sizeof *m->y);
    m->groups = bench_host(b, m->n_groups * sizeof *m->groups);
    for (uint32_t i = 0; i < m->n_groups; i++)
        m->groups[i] = (struct moe_group){ .expert = i * m->n / m->n_groups,
                                           .first = i * GEMM_GROUPED_PAIRS,
                                           .n = GEMM_GROUPED_PAIRS };
}

/* Relative to the sum of the products' sizes, which is what rounding is relative to. */
static void compare_experts(struct bench *b, const struct experts *m)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;
    float *w = bench_host(b, cols * sizeof *w);

    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, rows), pair = bench_sample(i, m->n_pairs);
        double sum = 0, size = 0;
        cuda_packing_unpack_row(DTYPE_E4M3, w, m->matrix, row, cols);
        for (uint32_t k = 0; k < cols; k++) {
            double product = (double)w[k] * (double)f16_to_float(m->x[(uint64_t)pair * cols + k]);
            sum += product;
            size += fabs(product);
        }
        bench_note(b, (double)m->y[(uint64_t)pair * rows + row], sum, size);
    }
    free(w);
}

void bench_experts_e4m3(struct bench *b)
{
    uint32_t rows = b->shape.rows, cols = b->shape.cols;
    struct experts m;
    cu_ptr w, x, y, groups;
    struct gemm_grouped_args args;
    struct device_grid grid = { { gemm_grouped_tiles(rows), 0, 1 },
                                GEMM_GROUPED_THREADS,
                                gemm_grouped_shared_bytes(GEMV_E4M3) };

    make_experts(b, &m);
    w = bench_device(b, m.n * m.bytes);
    for (uint32_t i = 0; i < m.n; i++)
        device_copy_in(&b->d.stream, w + i * m.bytes, m.matrix, m.bytes);
    x = bench_put(b, m.x, (uint64_t)m.n_pairs * cols * sizeof *m.x);
    y = bench_device(b, (uint64_t)m.n_pairs * rows * sizeof *m.y);
    groups = bench_put(b, m.groups, m.n_groups * sizeof *m.groups);
    args = (struct gemm_grouped_args){ .y = (float *)(uintptr_t)y,
                                       .x = (const uint16_t *)(uintptr_t)x,
                                       .groups = (const struct moe_group *)(uintptr_t)groups,
                                       .w = (const void *)(uintptr_t)w,
                                       .expert_bytes = m.bytes,
                                       .y_stride = rows,
                                       .x_stride = cols,
                                       .rows = rows,
                                       .cols = cols };
    grid.grid[1] = m.n_groups;
    b->bytes = (double)m.n * (double)m.bytes + (double)m.n_pairs * (2.0 * cols + 4.0 * rows);
    b->operations = 2.0 * m.n_pairs * (double)rows * cols;
    bench_time(b, "gemm_grouped_e4m3", &grid, &args, sizeof args);
    bench_get(b, m.y, y, (uint64_t)m.n_pairs * rows * sizeof *m.y);
    compare_experts(b, &m);
    device_free(b->d.device, w);
    device_free(b->d.device, x);
    device_free(b->d.device, y);
    device_free(b->d.device, groups);
    free(m.matrix);
    free(m.x);
    free(m.y);
    free(m.groups);
}

/* ---- heads turned, keys and values into pages ---- */

/* shape: rows tokens, cols the numbers of a head.  Row t goes to slot t of the pages, one after the other. */
struct writing {
    uint32_t rows, dim, heads; /* heads of q, of k, of v */
    uint64_t stride, n;        /* numbers: of a row, of all */
    float *qkv;
    float *angles;    /* [2 = cos, sin][rows][dim / 2] */
    uint32_t *places; /* [2][rows]: pages, slots */
    struct kv_place place;
    uint64_t pool_bytes;
};

static double angle_at(uint32_t t, uint32_t i)
{
    return 0.01 * (t % 100) / (i + 1);
}

static void make_rows(struct bench *b, struct writing *w)
{
    uint32_t rows = b->shape.rows, dim = b->shape.cols, half = dim / 2;
    uint32_t heads = b->v->is_small ? KV_HEADS_DRY : KV_HEADS;

    *w = (struct writing){ .rows = rows, .dim = dim, .heads = heads };
    w->stride = (uint64_t)3 * heads * dim;
    w->n = rows * w->stride;
    w->qkv = bench_numbers(b, w->n, 16);
    w->angles = bench_host(b, (uint64_t)rows * dim * sizeof *w->angles);
    for (uint32_t i = 0; i < rows * half; i++) {
        w->angles[i] = (float)cos(angle_at(i / half, i % half));
        w->angles[rows * half + i] = (float)sin(angle_at(i / half, i % half));
    }
    w->places = bench_host(b, 2 * rows * sizeof *w->places);
    for (uint32_t t = 0; t < rows; t++) {
        w->places[t] = t / KV_PAGE_TOKENS;
        w->places[rows + t] = t % KV_PAGE_TOKENS;
    }
    w->place =
        (struct kv_place){ .page_bytes = kv_page_bytes(KV_E4M3, KV_PAGE_TOKENS, dim, 1, heads),
                           .n_heads = heads,
                           .head_dim = dim,
                           .page_tokens = KV_PAGE_TOKENS,
                           .format = KV_E4M3 };
    w->pool_bytes = (rows + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS * w->place.page_bytes;
}

/* Number d of a head of row t, turned so many times. */
static double turned(const struct writing *w, const float *head, uint32_t t, uint32_t d,
                     uint32_t times)
{
    uint32_t half = w->dim / 2, i = d % half;
    double u = (double)head[i], v = (double)head[half + i], angle = times * angle_at(t, i);

    return d < half ? u * cos(angle) - v * sin(angle) : v * cos(angle) + u * sin(angle);
}

static double code_at(const struct writing *w, const uint8_t *pool, uint32_t t, uint32_t kind,
                      uint32_t head, uint32_t d)
{
    uint64_t at = w->places[t] * w->place.page_bytes + kv_tile_offset(&w->place, 0, kind, head) +
                  (uint64_t)w->places[w->rows + t] * w->dim + d;

    return (double)e4m3_to_float(pool[at]);
}

/* Queries lie in their rows and are turned by each launch; keys, turned once, and values lie in the pages. */
static void compare_rows(struct bench *b, const struct writing *w, const float *rows,
                         const uint8_t *pool)
{
    for (uint64_t i = 0; i < w->n; i += 1 + w->n / 100003) {
        uint32_t t = (uint32_t)(i / w->stride), column = (uint32_t)(i % w->stride);
        uint32_t kind = column / (w->heads * w->dim), d = column % w->dim;
        const float *head = w->qkv + (i - d);
        double want;
        if (kind == 0) {
            bench_note(b, (double)rows[i], turned(w, head, t, d, bench_launches(b)), 1);
            continue;
        }
        want = kind == 1 ? 2 * turned(w, head, t, d, 1) : 0.5 * (double)w->qkv[i];
        bench_note(b, code_at(w, pool, t, kind - 1, column / w->dim % w->heads, d), want,
                   fabs(want) + 0x1p-6);
    }
}

void bench_rope_kv_write_e4m3(struct bench *b)
{
    struct device_grid grid = { { 0, 0, 1 }, ROPE_THREADS, 0 };
    cu_ptr qkv, angles, places, pool;
    struct rope_kv_write_args args;
    struct writing w;
    uint8_t *pages;
    float *rows;

    make_rows(b, &w);
    pages = bench_host(b, w.pool_bytes);
    rows = bench_host(b, w.n * sizeof *rows);
    qkv = bench_put(b, w.qkv, w.n * sizeof *w.qkv);
    angles = bench_put(b, w.angles, (uint64_t)w.rows * w.dim * sizeof *w.angles);
    places = bench_put(b, w.places, 2 * w.rows * sizeof *w.places);
    pool = bench_device(b, w.pool_bytes);
    args = (struct rope_kv_write_args){ .qkv = (float *)(uintptr_t)qkv,
                                        .cos = (const float *)(uintptr_t)angles,
                                        .pages = (const uint32_t *)(uintptr_t)places,
                                        .place = w.place,
                                        .qkv_stride = w.stride,
                                        .n_heads = w.heads,
                                        .half = w.dim / 2,
                                        .k_factor = 2,
                                        .v_factor = 0.5f };
    args.sin = args.cos + (uint64_t)w.rows * args.half;
    args.slots = args.pages + w.rows;
    args.place.pages = (char *)(uintptr_t)pool;
    grid.grid[0] = w.rows;
    grid.grid[1] = rope_kv_write_grid_y(w.heads, w.heads);
    b->bytes = (double)w.n * (8 + 5 + 5) / 3 + (double)w.rows * w.dim * sizeof *w.angles;
    bench_time(b, "rope_kv_write", &grid, &args, sizeof args);
    bench_get(b, pages, pool, w.pool_bytes);
    bench_get(b, rows, qkv, w.n * sizeof *rows);
    compare_rows(b, &w, rows, pages);
    device_free(b->d.device, qkv);
    device_free(b->d.device, angles);
    device_free(b->d.device, places);
    device_free(b->d.device, pool);
    free(w.qkv);
    free(w.angles);
    free(w.places);
    free(pages);
    free(rows);
}
