/* cpu.c - the CPU backend: each op split over the compute threads, by output rows or heads, never along a
 * sum.
 *
 * A step of a small model is some fifty short ops, so what is not worth a second thread's attention stays
 * on the caller's: GRAIN is the work below which a share is not split further. */
#include <assert.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/ops/rope_table.h"

enum {
    GRAIN = 32768,       /* multiply-adds, or a few elements each, of one share at least */
    SHARES_A_THREAD = 4, /* so that a slow core is waited for a quarter of its work at most */
    ROWS_A_SHARE = 4,    /* linear: whole tiles */
};

struct row_place {
    const struct batch_seq *seq;
    uint32_t position;
};

struct ops_stream {
    const struct cpu_kernels *kernels;
    struct threads *threads;
    struct ops_setup setup;
    struct rope_table rope;
    const struct batch *batch;
    struct row_place *rows;     /* [rows_max] */
    float *rope_cos, *rope_sin; /* [rows_max, head_dim / 2] */
};

/* ---- splitting ---- */

/* n units of work, `cost` each, cut into shares of `granule` units or a multiple. */
struct split {
    uint32_t n, share;
};

static struct split split_work(const struct ops_stream *s, uint32_t n, uint32_t granule,
                               uint64_t cost)
{
    uint64_t shares_max = (uint64_t)threads_count(s->threads) * SHARES_A_THREAD;
    uint64_t shares = n * cost / GRAIN;
    uint64_t share;

    shares = shares < 1 ? 1 : shares > shares_max ? shares_max : shares;
    if (threads_count(s->threads) == 1)
        shares = 1;
    share = (n + shares - 1) / shares;
    share = (share + granule - 1) / granule * granule;
    return (struct split){ n, (uint32_t)share };
}

static uint32_t split_count(struct split p)
{
    return (p.n + p.share - 1) / p.share;
}

static uint32_t split_begin(struct split p, uint32_t i)
{
    return i * p.share;
}

static uint32_t split_end(struct split p, uint32_t i)
{
    return p.n - i * p.share < p.share ? p.n : (i + 1) * p.share;
}

/* ---- the step ---- */

static void *cpu_alloc(struct ops_stream *s, size_t n)
{
    (void)s;
    return aligned_mem(64, n * sizeof(float));
}

static void cpu_free(struct ops_stream *s, void *p)
{
    (void)s;
    free(p);
}

static void check_seq(const struct ops_stream *s, const struct batch *b, const struct batch_seq *q)
{
    uint64_t end = (uint64_t)q->start + q->n_rows;

    assert(q->first_row <= b->n_rows && q->n_rows <= b->n_rows - q->first_row);
    assert(end <= s->setup.positions_max);
    assert((uint64_t)q->n_pages * s->setup.kv.page_tokens >= end);
    for (uint32_t i = 0; i < q->n_pages; i++)
        assert(q->pages[i] < s->setup.kv.n_pages);
}

static void cpu_begin(struct ops_stream *s, const struct batch *b)
{
    uint32_t half = s->setup.head_dim / 2, n_placed = 0;

    assert(b->n_rows > 0 && b->n_rows <= s->setup.rows_max);
    s->batch = b;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &b->seqs[i];
        check_seq(s, b, q);
        for (uint32_t t = 0; t < q->n_rows; t++) {
            uint32_t row = q->first_row + t;
            s->rows[row] = (struct row_place){ q, q->start + t };
            rope_table_at(&s->rope, q->start + t, s->rope_cos + (size_t)row * half,
                          s->rope_sin + (size_t)row * half);
        }
        n_placed += q->n_rows;
    }
    assert(n_placed == b->n_rows);
}

static void cpu_embed(struct ops_stream *s, void *x, const struct weight *table, uint32_t first)
{
    for (uint32_t t = 0; t < s->batch->n_rows; t++) {
        uint32_t row = (uint32_t)s->batch->tokens[t] - first;
        if (row < table->rows)
            s->kernels->widen((float *)x + (size_t)t * table->cols,
                              (const char *)table->data +
                                  dtype_bytes(table->dtype, (size_t)row * table->cols),
                              table->dtype, table->cols);
    }
}

/* ---- norm ---- */

struct rmsnorm_job {
    struct ops_stream *s;
    struct split split;
    float *y;
    const float *x, *w;
    const uint32_t *rows;
    uint32_t dim;
    float eps;
};

static void run_rmsnorm(void *arg, uint32_t i)
{
    struct rmsnorm_job *j = arg;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++)
        j->s->kernels->rmsnorm(j->y + (size_t)t * j->dim,
                               j->x + (size_t)(j->rows ? j->rows[t] : t) * j->dim, j->w, j->dim,
                               j->eps);
}

static void cpu_rmsnorm(struct ops_stream *s, void *y, const void *x, const uint32_t *rows,
                        uint32_t n_rows, const float *w, uint32_t dim, float eps)
{
    struct rmsnorm_job j = { s, split_work(s, n_rows, 1, dim), y, x, w, rows, dim, eps };

    threads_run(s->threads, run_rmsnorm, &j, split_count(j.split));
}

/* ---- linear ---- */

struct linear_split_job {
    const struct cpu_kernels *kernels;
    struct split split;
    struct linear_job job;
};

static void run_linear(void *arg, uint32_t i)
{
    struct linear_split_job *j = arg;

    j->kernels->linear(&j->job, split_begin(j->split, i), split_end(j->split, i));
}

static void cpu_linear(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                       uint32_t n_rows, const struct weight *w, const float *bias,
                       enum linear_mode mode)
{
    struct linear_split_job j = {
        .kernels = s->kernels,
        .split = split_work(s, w->rows, ROWS_A_SHARE, (uint64_t)w->cols * n_rows),
        .job = { .y = y,
                 .y_stride = y_stride,
                 .x = x,
                 .w = w->data,
                 .dtype = w->dtype,
                 .bias = bias,
                 .cols = w->cols,
                 .n_tokens = n_rows,
                 .add = mode == LINEAR_ADD },
    };

    threads_run(s->threads, run_linear, &j, split_count(j.split));
}

static void cpu_logits(struct ops_stream *s, float *y, size_t y_stride, const void *x,
                       uint32_t n_rows, const struct weight *w)
{
    cpu_linear(s, y, y_stride, x, n_rows, w, NULL, LINEAR_SET);
}

/* ---- attention ---- */

static uint32_t qkv_dim(const struct ops_setup *u)
{
    return (u->n_heads + 2 * u->n_kv_heads) * u->head_dim;
}

struct qkv_job {
    struct ops_stream *s;
    struct split split;
    float *qkv;
    uint32_t layer;
};

static void run_rope(void *arg, uint32_t i)
{
    struct qkv_job *j = arg;
    struct ops_stream *s = j->s;
    uint32_t half = s->setup.head_dim / 2;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++)
        for (uint32_t h = 0; h < s->setup.n_heads + s->setup.n_kv_heads; h++)
            s->kernels->rope(j->qkv + (size_t)t * qkv_dim(&s->setup) + h * s->setup.head_dim,
                             s->rope_cos + (size_t)t * half, s->rope_sin + (size_t)t * half, half);
}

static void cpu_rope(struct ops_stream *s, void *qkv)
{
    struct qkv_job j = { s, split_work(s, s->batch->n_rows, 1, qkv_dim(&s->setup)), qkv, 0 };

    threads_run(s->threads, run_rope, &j, split_count(j.split));
}

/* Where K (kind 0) or V (1) of a layer's head begins in a page. */
static uint64_t head_offset(const struct ops_setup *u, uint32_t layer, uint32_t kind, uint32_t head)
{
    uint64_t index = ((uint64_t)layer * 2 + kind) * u->kv.n_heads_model + u->kv.first_head + head;

    return dtype_bytes(u->kv.dtype, index * u->kv.page_tokens * u->head_dim);
}

static void run_kv_write(void *arg, uint32_t i)
{
    struct qkv_job *j = arg;
    const struct ops_setup *u = &j->s->setup;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++) {
        const struct row_place *at = &j->s->rows[t];
        uint32_t page = at->seq->pages[at->position / u->kv.page_tokens];
        char *slot =
            u->kv.pages + page * u->kv.page_bytes +
            dtype_bytes(u->kv.dtype, (size_t)(at->position % u->kv.page_tokens) * u->head_dim);
        const float *k = j->qkv + (size_t)t * qkv_dim(u) + u->n_heads * u->head_dim;
        for (uint32_t kind = 0; kind < 2; kind++)
            for (uint32_t h = 0; h < u->n_kv_heads; h++, k += u->head_dim)
                j->s->kernels->narrow(slot + head_offset(u, j->layer, kind, h), k, u->kv.dtype,
                                      u->head_dim);
    }
}

static void cpu_kv_write(struct ops_stream *s, const void *qkv, uint32_t layer)
{
    struct qkv_job j = { s, split_work(s, s->batch->n_rows, 1, qkv_dim(&s->setup)), (float *)qkv,
                         layer };

    threads_run(s->threads, run_kv_write, &j, split_count(j.split));
}

struct attend_job {
    struct ops_stream *s;
    struct split split; /* of row * n_kv_heads + head */
    float *out;
    size_t out_stride;
    const float *qkv;
    uint32_t layer, window;
};

static void attend_one(const struct attend_job *j, uint32_t row, uint32_t head)
{
    const struct ops_setup *u = &j->s->setup;
    const struct row_place *at = &j->s->rows[row];
    uint32_t group = u->n_heads / u->n_kv_heads, last = at->position;
    struct attention_job a = {
        .out = j->out + row * j->out_stride + (size_t)head * group * u->head_dim,
        .q = j->qkv + (size_t)row * qkv_dim(u) + (size_t)head * group * u->head_dim,
        .pages = u->kv.pages,
        .page_bytes = u->kv.page_bytes,
        .k_offset = head_offset(u, j->layer, 0, head),
        .v_offset = head_offset(u, j->layer, 1, head),
        .page_table = at->seq->pages,
        .page_tokens = u->kv.page_tokens,
        .first = j->window > 0 && last >= j->window ? last - j->window + 1 : 0,
        .last = last,
        .group = group,
        .head_dim = u->head_dim,
        .dtype = u->kv.dtype,
    };

    j->s->kernels->attention(&a);
}

static void run_attention(void *arg, uint32_t i)
{
    struct attend_job *j = arg;
    uint32_t n_heads = j->s->setup.n_kv_heads;

    for (uint32_t k = split_begin(j->split, i); k < split_end(j->split, i); k++)
        attend_one(j, k / n_heads, k % n_heads);
}

static void cpu_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                          uint32_t layer, uint32_t window)
{
    const struct ops_setup *u = &s->setup;
    uint32_t n = s->batch->n_rows;
    uint64_t seen = 0; /* positions, by all rows */
    struct attend_job j = {
        .s = s, .out = out, .out_stride = out_stride, .qkv = qkv, .layer = layer, .window = window
    };

    for (uint32_t t = 0; t < n; t++)
        seen += s->rows[t].position + 1;
    j.split = split_work(s, n * u->n_kv_heads, 1,
                         2 * seen / n * u->head_dim * (u->n_heads / u->n_kv_heads));
    threads_run(s->threads, run_attention, &j, split_count(j.split));
}

/* ---- SwiGLU ---- */

struct silu_job {
    struct ops_stream *s;
    struct split split;
    float *y;
    size_t y_stride;
    const float *gu;
    uint32_t n;
};

static void run_silu_mul(void *arg, uint32_t i)
{
    struct silu_job *j = arg;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++) {
        const float *gate = j->gu + (size_t)t * 2 * j->n;
        j->s->kernels->silu_mul(j->y + t * j->y_stride, gate, gate + j->n, j->n);
    }
}

static void cpu_silu_mul(struct ops_stream *s, void *y, size_t y_stride, const void *gu,
                         uint32_t n_rows, uint32_t n)
{
    struct silu_job j = { s, split_work(s, n_rows, 1, (uint64_t)n * 4), y, y_stride, gu, n };

    threads_run(s->threads, run_silu_mul, &j, split_count(j.split));
}

/* ---- open and close ---- */

static void cpu_close(struct ops_stream *s)
{
    if (!s)
        return;
    rope_table_fini(&s->rope);
    free(s->rows);
    free(s->rope_cos);
    free(s->rope_sin);
    free(s);
}

#define CPU_OPS(tier)                                                                              \
    {                                                                                              \
        .name = "cpu-" tier, .act_bytes = sizeof(float), .alloc = cpu_alloc, .free = cpu_free,     \
        .close = cpu_close, .begin = cpu_begin, .embed = cpu_embed, .rmsnorm = cpu_rmsnorm,        \
        .linear = cpu_linear, .logits = cpu_logits, .rope = cpu_rope, .kv_write = cpu_kv_write,    \
        .attention = cpu_attention, .silu_mul = cpu_silu_mul,                                      \
    }

static const struct ops tables[N_CPU_TIERS] = {
    [CPU_PLAIN] = CPU_OPS("plain"),
    [CPU_AVX2] = CPU_OPS("avx2"),
    [CPU_AVX512] = CPU_OPS("avx512"),
};

static const struct cpu_kernels *const kernels[N_CPU_TIERS] = {
    [CPU_PLAIN] = &cpu_kernels_plain,
#if defined(__x86_64__)
    [CPU_AVX2] = &cpu_kernels_avx2,
    [CPU_AVX512] = &cpu_kernels_avx512,
#endif
};

const struct ops *ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                               struct threads *threads, struct ops_stream **stream)
{
    struct ops_stream *s = mem_zalloc(1, sizeof *s);
    size_t angles = (size_t)setup->rows_max * (setup->head_dim / 2);

    assert((unsigned)tier < N_CPU_TIERS && kernels[tier]);
    assert(setup->head_dim % 2 == 0 && setup->n_heads % setup->n_kv_heads == 0);
    assert(setup->kv.dtype == DTYPE_F16 || setup->kv.dtype == DTYPE_F32);
    assert(setup->kv.page_tokens <= ATTENTION_PAGE_TOKENS_MAX);
    s->kernels = kernels[tier];
    s->threads = threads;
    s->setup = *setup;
    rope_table_init(&s->rope, setup->rope_freq, setup->head_dim / 2, setup->positions_max);
    s->setup.rope_freq = NULL;
    s->rows = mem_zalloc(setup->rows_max, sizeof *s->rows);
    s->rope_cos = aligned_mem(64, angles * sizeof(float));
    s->rope_sin = aligned_mem(64, angles * sizeof(float));
    *stream = s;
    return &tables[tier];
}
