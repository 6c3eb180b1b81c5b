/* bench_attention.c - attention of one layer over KV pages of f16, int8 or fp8: a decode step of several sequences, by the
 * queries one by one or by groups that share a KV head, and the prefill of one prompt. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/attention_plan.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

enum { PAGE_TOKENS = 16, KEYS = 0, VALUES = 1, GROUP = 4, WIDTH = 4096, HEADS_DRY = 4 };

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

static void choose(struct bench *b, struct attend *a, uint32_t n_seqs, uint32_t rows_each,
                   bool is_grouped)
{
    uint32_t dim = b->of.size, heads = b->v->is_small ? HEADS_DRY : WIDTH / dim;

    *a = (struct attend){ .n_seqs = n_seqs,
                          .context = b->shape.cols,
                          .rows_each = rows_each,
                          .n_rows = n_seqs * rows_each };
    a->setup = (struct attention_setup){ .n_heads = heads,
                                         .n_kv_heads = is_grouped ? heads / GROUP : heads,
                                         .head_dim = dim,
                                         .page_tokens = PAGE_TOKENS,
                                         .kv = (enum kv_format)b->of.format,
                                         .rows_max = a->n_rows,
                                         .seqs_max = n_seqs,
                                         .positions_max = a->context,
                                         .slots_max = ATTENTION_SLOTS,
                                         .tile_rows_min = ATTENTION_TILE_ROWS_MIN,
                                         .is_grouped = is_grouped };
    a->n_pages_each = (a->context + PAGE_TOKENS - 1) / PAGE_TOKENS;
    a->page_bytes = kv_page_bytes(a->setup.kv, PAGE_TOKENS, dim, 1, a->setup.n_kv_heads);
}

static uint64_t tile_bytes(const struct attend *a)
{
    return kv_tile_bytes(a->setup.kv, PAGE_TOKENS, a->setup.head_dim);
}

/* Of int8 codes in what scales make numbers within 1 of. */
static void fill_i8(struct attend *a, const float *x)
{
    for (uint64_t at = 0; at < pool_bytes(a); at++)
        a->pool[at] = (uint8_t)(int8_t)(127 * x[at]);
    for (uint64_t at = 0; at < pool_bytes(a); at += tile_bytes(a))
        for (uint32_t t = 0; t < PAGE_TOKENS; t++)
            ((float *)(void *)(a->pool + at))[t] = (1 + (float)t / PAGE_TOKENS) / 254;
}

static void fill_pool(struct bench *b, struct attend *a)
{
    uint32_t each = kv_element_bytes(a->setup.kv);
    uint64_t n = pool_bytes(a) / each;
    float *x = bench_numbers(b, n, 7);

    a->pool = bench_host(b, pool_bytes(a));
    if (a->setup.kv == KV_I8)
        fill_i8(a, x);
    for (uint64_t i = 0; a->setup.kv != KV_I8 && i < n; i++)
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
        .head_bytes = tile_bytes(a),
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

/* The tile of a KV head that has the position. */
static const uint8_t *tile(const struct attend *a, uint32_t seq, int kind, uint32_t head,
                           uint32_t position)
{
    uint32_t page = a->seqs[seq].pages[position / PAGE_TOKENS];

    return a->pool + page * a->page_bytes + (uint64_t)kind * (a->page_bytes / 2) +
           head * tile_bytes(a);
}

/* Number i of the position's vector in its tile. */
static double element(const struct attend *a, const uint8_t *tile, uint32_t position, uint32_t i)
{
    return bench_kv_number(tile, a->setup.kv, PAGE_TOKENS, a->setup.head_dim,
                           position % PAGE_TOKENS, i);
}

static double dot(const struct attend *a, const float *q, const uint8_t *keys, uint32_t position)
{
    double sum = 0;

    for (uint32_t i = 0; i < a->setup.head_dim; i++)
        sum += (double)q[i] * element(a, keys, position, i);
    return sum;
}

/* One head of one row, in double. */
static void compare_head(struct bench *b, const struct attend *a, uint32_t row, uint32_t head)
{
    uint32_t n = a->setup.head_dim, seq = row / a->rows_each;
    uint32_t kv_head = head / (a->setup.n_heads / a->setup.n_kv_heads);
    uint32_t last = a->seqs[seq].start + row % a->rows_each;
    const float *q = a->q + (uint64_t)row * row_floats(a) + head * n;
    const float *got = a->out + (uint64_t)row * row_floats(a) + head * n;
    double *want = bench_host(b, n * sizeof *want), sum = 0;

    for (uint32_t i = 0; i < n; i++)
        want[i] = 0;
    for (uint32_t p = 0; p <= last; p++) {
        /* Scores are small: q and k are within 1, so no maximum is taken away. */
        double score = dot(a, q, tile(a, seq, KEYS, kv_head, p), p);
        double weight = exp(score * (double)a->args.scale);
        const uint8_t *values = tile(a, seq, VALUES, kv_head, p);

        sum += weight;
        for (uint32_t i = 0; i < n; i++)
            want[i] += weight * element(a, values, p, i);
    }
    for (uint32_t i = 0; i < n; i++)
        bench_note(b, (double)got[i], want[i] / sum, 1);
    free(want);
}

static void run(struct bench *b, uint32_t n_seqs, uint32_t rows_each, bool is_grouped)
{
    struct attend a;

    choose(b, &a, n_seqs, rows_each, is_grouped);
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
    run(b, b->shape.rows, 1, false);
}

void bench_attention_group(struct bench *b)
{
    run(b, b->shape.rows, 1, true);
}

/* shape: one prompt of cols tokens, of which rows are new.  Bound by the tensor cores. */
void bench_attention_prefill(struct bench *b)
{
    double rows = b->shape.rows, before = b->shape.cols - b->shape.rows;
    double width = b->v->is_small ? HEADS_DRY * b->of.size : WIDTH;

    run(b, 1, b->shape.rows, false);
    /* Two products of two operations, for each pair of a row and a position it sees. */
    b->operations = 4.0 * (rows * before + rows * (rows + 1) / 2) * width;
}
