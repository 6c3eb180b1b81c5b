/* bench_attention.c - attention of one layer over KV pages of f16, or of fp8: a decode step of several sequences, and the
 * prefill of one prompt. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/attention_plan.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

enum { PAGE_TOKENS = 16, KEYS = 0, VALUES = 1 };

struct attend {
    struct attention_setup setup;
    uint32_t n_seqs, context, n_rows, rows_each; /* rows of the step; context counts them too */
    uint32_t n_pages_each;
    uint64_t page_bytes;
    struct batch_seq *seqs;
    uint32_t *pages; /* [n_seqs][n_pages_each]: page p of sequence s is p * n_seqs + s */
    uint8_t *pool;   /* of setup.kv */
    float *q, *out;  /* [n_rows][n_heads * head_dim] */
    void *plan;
    struct attention_args args;
};

static uint64_t pool_bytes(const struct attend *a)
{
    return (uint64_t)a->n_seqs * a->n_pages_each * a->page_bytes;
}

static uint32_t row_floats(const struct attend *a)
{
    return a->setup.n_heads * a->setup.head_dim;
}

/* ---- The step ---- */

static void choose(struct bench *b, struct attend *a, enum kv_format format, uint32_t n_seqs,
                   uint32_t rows_each)
{
    bool is_dry = b->v->is_small;

    *a = (struct attend){ .n_seqs = n_seqs,
                          .context = b->shape.cols,
                          .rows_each = rows_each,
                          .n_rows = n_seqs * rows_each };
    a->setup = (struct attention_setup){ .n_heads = is_dry ? 2 : 32,
                                         .n_kv_heads = is_dry ? 2 : 32,
                                         .head_dim = is_dry ? 32 : 128,
                                         .page_tokens = PAGE_TOKENS,
                                         .kv = format,
                                         .rows_max = a->n_rows,
                                         .seqs_max = n_seqs,
                                         .positions_max = a->context,
                                         .slots_max = ATTENTION_SLOTS,
                                         .tile_rows_min = ATTENTION_TILE_ROWS_MIN };
    a->n_pages_each = (a->context + PAGE_TOKENS - 1) / PAGE_TOKENS;
    a->page_bytes = kv_page_bytes(format, PAGE_TOKENS, a->setup.head_dim, 1, a->setup.n_kv_heads);
}

static void fill_pool(struct bench *b, struct attend *a)
{
    uint32_t each = kv_element_bytes(a->setup.kv);
    uint64_t n = pool_bytes(a) / each;
    float *x = bench_numbers(b, n, 7);

    a->pool = bench_host(b, pool_bytes(a));
    for (uint64_t i = 0; i < n; i++)
        if (a->setup.kv == KV_F16)
            ((uint16_t *)(void *)a->pool)[i] = float_to_f16(x[i]);
        else
            a->pool[i] = float_to_e4m3(x[i]);
    free(x);
}

static void fill(struct bench *b, struct attend *a)
{
    uint64_t floats = (uint64_t)a->n_rows * row_floats(a);

    fill_pool(b, a);
    a->q = bench_numbers(b, floats, 8);
    a->out = bench_host(b, floats * sizeof *a->out);
    a->seqs = bench_host(b, a->n_seqs * sizeof *a->seqs);
    a->pages = bench_host(b, (uint64_t)a->n_seqs * a->n_pages_each * sizeof *a->pages);
    for (uint32_t s = 0; s < a->n_seqs; s++) {
        uint32_t *pages = a->pages + (uint64_t)s * a->n_pages_each;

        for (uint32_t p = 0; p < a->n_pages_each; p++)
            pages[p] = p * a->n_seqs + s;
        a->seqs[s] = (struct batch_seq){ .first_row = s * a->rows_each,
                                         .n_rows = a->rows_each,
                                         .start = a->context - a->rows_each,
                                         .n_pages = a->n_pages_each,
                                         .pages = pages };
    }
}

static void drop(struct attend *a)
{
    free(a->pool);
    free(a->q);
    free(a->out);
    free(a->seqs);
    free(a->pages);
    free(a->plan);
}

/* ---- On the device ---- */

static void time_all(struct bench *b, struct attend *a, const struct attention_header *header)
{
    struct attention_launch launches[ATTENTION_LAUNCHES];
    uint32_t n = attention_launches(launches, &a->setup, header);
    double us = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct device_grid grid = { { launches[i].grid_x, launches[i].grid_y, 1 },
                                    launches[i].threads,
                                    launches[i].shared_bytes };

        bench_time(b, launches[i].name, &grid, &a->args, sizeof a->args);
        us += b->us;
    }
    b->us = us;
}

static void run_on_device(struct bench *b, struct attend *a)
{
    struct attention_limits limits =
        attention_plan_limits(&a->setup, (uint64_t)a->n_seqs * a->n_pages_each);
    const struct batch batch = { .n_rows = a->n_rows, .n_seqs = a->n_seqs, .seqs = a->seqs };
    uint64_t floats = (uint64_t)a->n_rows * row_floats(a);
    const struct attention_header *header;
    cu_ptr plan, q, out, pool, partials = bench_device(b, limits.partial_bytes + 16);

    if (posix_memalign(&a->plan, 64, limits.plan_bytes) != 0)
        child_fail(b->sock, "no memory");
    header = attention_plan_build(a->plan, &a->setup, &batch);
    plan = bench_put(b, a->plan, limits.plan_bytes);
    q = bench_put(b, a->q, floats * sizeof *a->q);
    out = bench_device(b, floats * sizeof *a->out);
    pool = bench_put(b, a->pool, pool_bytes(a));
    a->args = (struct attention_args){
        .plan = (const struct attention_header *)(uintptr_t)plan,
        .q = (const float *)(uintptr_t)q,
        .out = (float *)(uintptr_t)out,
        .partials = (float *)(uintptr_t)partials,
        .kv = (const char *)(uintptr_t)pool,
        .page_bytes = a->page_bytes,
        .v_offset = a->page_bytes / 2,
        .head_bytes = kv_tile_bytes(a->setup.kv, PAGE_TOKENS, a->setup.head_dim),
        .q_stride = row_floats(a),
        .out_stride = row_floats(a),
        .n_heads = a->setup.n_heads,
        .n_kv_heads = a->setup.n_kv_heads,
        .head_dim = a->setup.head_dim,
        .page_tokens = PAGE_TOKENS,
        .page_magic = attention_page_magic(PAGE_TOKENS),
        .scale = 1 / sqrtf((float)a->setup.head_dim),
        .k_scale = 1,
        .v_scale = 1,
    };
    time_all(b, a, header);
    bench_get(b, a->out, out, floats * sizeof *a->out);
    device_free(b->d.device, plan);
    device_free(b->d.device, q);
    device_free(b->d.device, out);
    device_free(b->d.device, pool);
    device_free(b->d.device, partials);
}

/* ---- On the host ---- */

static const uint8_t *vector(const struct attend *a, uint32_t seq, int kind, uint32_t head,
                             uint32_t position)
{
    uint32_t page = a->seqs[seq].pages[position / PAGE_TOKENS],
             each = kv_element_bytes(a->setup.kv);
    uint64_t tile = kv_tile_bytes(a->setup.kv, PAGE_TOKENS, a->setup.head_dim);

    return a->pool + page * a->page_bytes + (uint64_t)kind * (a->page_bytes / 2) + head * tile +
           (uint64_t)(position % PAGE_TOKENS) * a->setup.head_dim * each;
}

static double element(const struct attend *a, const uint8_t *vector, uint32_t i)
{
    return (double)(a->setup.kv == KV_F16
                        ? f16_to_float(((const uint16_t *)(const void *)vector)[i])
                        : e4m3_to_float(vector[i]));
}

static double dot(const struct attend *a, const float *q, const uint8_t *k)
{
    double sum = 0;

    for (uint32_t i = 0; i < a->setup.head_dim; i++)
        sum += (double)q[i] * element(a, k, i);
    return sum;
}

/* One head of one row, in double. */
static void compare_head(struct bench *b, const struct attend *a, uint32_t row, uint32_t head)
{
    uint32_t n = a->setup.head_dim, seq = row / a->rows_each;
    uint32_t last = a->seqs[seq].start + row % a->rows_each;
    const float *q = a->q + (uint64_t)row * row_floats(a) + head * n;
    const float *got = a->out + (uint64_t)row * row_floats(a) + head * n;
    double *want = bench_host(b, n * sizeof *want), sum = 0;

    for (uint32_t i = 0; i < n; i++)
        want[i] = 0;
    for (uint32_t p = 0; p <= last; p++) {
        /* Scores are small: q and k are within 1, so no maximum is taken away. */
        double weight = exp(dot(a, q, vector(a, seq, KEYS, head, p)) * (double)a->args.scale);
        const uint8_t *v = vector(a, seq, VALUES, head, p);

        sum += weight;
        for (uint32_t i = 0; i < n; i++)
            want[i] += weight * element(a, v, i);
    }
    for (uint32_t i = 0; i < n; i++)
        bench_note(b, (double)got[i], want[i] / sum, 1);
    free(want);
}

static void run(struct bench *b, enum kv_format format, uint32_t n_seqs, uint32_t rows_each)
{
    struct attend a;

    choose(b, &a, format, n_seqs, rows_each);
    fill(b, &a);
    run_on_device(b, &a);
    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++)
        compare_head(b, &a, bench_sample(i, a.n_rows), bench_sample(i, a.setup.n_heads));
    b->bytes = (double)pool_bytes(&a) + 8.0 * a.n_rows * row_floats(&a);
    drop(&a);
}

/* shape: rows sequences of cols tokens. */
void bench_attention_decode(struct bench *b)
{
    run(b, KV_F16, b->shape.rows, 1);
}

void bench_attention_decode_e4m3(struct bench *b)
{
    run(b, KV_E4M3, b->shape.rows, 1);
}

/* shape: one prompt of cols tokens, of which rows are new.  Bound by the tensor cores. */
void bench_attention_prefill(struct bench *b)
{
    double rows = b->shape.rows, before = b->shape.cols - b->shape.rows;

    run(b, KV_F16, 1, b->shape.rows);
    /* Two products of two operations, for each pair of a row and a position it sees. */
    b->operations =
        4.0 * (rows * before + rows * (rows + 1) / 2) * (b->v->is_small ? 2 * 32 : 32 * 128);
}
