/* cpu.c - the CPU backend: a stream's life, the step, embedding and norm (cpu_stream.h has the map). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/cpu_features.h"
#include "gpu-worker/ops/cpu_stream.h"
#include "gpu-worker/ops/packing.h"

enum {
    GRAIN = 32768,
    SHARES_A_THREAD = 4, /* so that a slow core is waited for a quarter of its work at most */
};

struct split cpu_split(const struct ops_stream *s, uint32_t n, uint64_t cost)
{
    uint64_t shares_max = (uint64_t)threads_count(s->threads) * SHARES_A_THREAD;
    uint64_t shares = n * cost / GRAIN;

    shares = shares < 1 ? 1 : shares > shares_max ? shares_max : shares;
    if (threads_count(s->threads) == 1)
        shares = 1;
    return (struct split){ n, (uint32_t)((n + shares - 1) / shares) };
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

static bool cpu_begin(struct ops_stream *s, const struct batch *b, struct ops_step *step)
{
    uint32_t half = s->setup.rope_dim / 2, n_placed = 0;

    assert(b->n_rows > 0 && b->n_rows <= s->setup.rows_max);
    assert(b->n_seqs <= s->setup.rows_max);
    s->batch = b;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &b->seqs[i];
        ops_check_seq(&s->setup, b, q);
        for (uint32_t t = 0; t < q->n_rows; t++) {
            uint32_t row = q->first_row + t;
            s->rows[row] = (struct row_place){ q, q->start + t };
            rope_table_at(&s->rope, q->start + t, s->rope_cos + (size_t)row * half,
                          s->rope_sin + (size_t)row * half);
        }
        n_placed += q->n_rows;
    }
    assert(n_placed == b->n_rows);
    attention_order_begin(&s->order, b);
    *step = (struct ops_step){ b->n_rows, b->n_logits };
    return true;
}

/* Rows ascend, so none is written before it has been read. */
static void gather_rows(float *x, uint32_t dim, const uint32_t *rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (rows[i] != i)
            memcpy(x + (size_t)i * dim, x + (size_t)rows[i] * dim, dim * sizeof *x);
}

static void cpu_keep_logit_rows(struct ops_stream *s, void *x, uint32_t dim, void *qkv,
                                uint32_t qkv_dim)
{
    const struct batch *b = s->batch;

    for (uint32_t i = 0; i < b->n_logits; i++) {
        const struct row_place *at = &s->rows[b->logit_rows[i]];
        assert(i == 0 || b->logit_rows[i] > b->logit_rows[i - 1]);
        s->kept_seqs[i] =
            (struct batch_seq){ i, 1, at->position, at->seq->n_pages, at->seq->pages };
    }
    gather_rows(x, dim, b->logit_rows, b->n_logits);
    gather_rows(qkv, qkv_dim, b->logit_rows, b->n_logits);
    s->kept = (struct batch){ .n_rows = b->n_logits, .n_seqs = b->n_logits, .seqs = s->kept_seqs };
    s->batch = &s->kept;
    attention_order_begin(&s->order, s->batch);
}

static bool cpu_finish(struct ops_stream *s, struct err *e)
{
    (void)s;
    (void)e;
    return true;
}

static bool cpu_record_is_due(const struct ops_stream *s, bool is_idle)
{
    (void)s;
    (void)is_idle;
    return false;
}

static bool cpu_record_begin(struct ops_stream *s, bool is_idle, const struct batch **b,
                             struct ops_step *step)
{
    (void)s;
    (void)is_idle;
    (void)b;
    (void)step;
    return false;
}

static void cpu_record_end(struct ops_stream *s)
{
    (void)s;
}

static void cpu_embed(struct ops_stream *s, void *x, const struct weight *table, uint32_t first,
                      float scale)
{
    for (uint32_t t = 0; t < s->batch->n_rows; t++) {
        uint32_t row = (uint32_t)s->batch->tokens[t] - first;
        float *y = (float *)x + (size_t)t * table->cols;
        if (row >= table->rows)
            continue;
        packing_unpack_row(table->dtype, y, table->data, row, table->cols);
        for (uint32_t k = 0; k < table->cols && scale != 1; k++)
            y[k] *= scale;
    }
}

/* ---- norm ---- */

struct rmsnorm_job {
    struct ops_stream *s;
    struct split split; /* of rows */
    float *y;
    const float *x;
    const struct norm *norm;
    uint32_t dim;
};

static void run_rmsnorm(void *arg, uint32_t i)
{
    struct rmsnorm_job *j = arg;
    const struct norm *n = j->norm;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++)
        j->s->kernels->rmsnorm(j->y + (size_t)t * j->dim,
                               j->x + (size_t)(n->rows ? n->rows[t] : t) * j->dim, n->w, j->dim,
                               n->eps);
}

void cpu_rmsnorm(struct ops_stream *s, void *y, const void *x, uint32_t n_rows,
                 const struct norm *norm, uint32_t dim)
{
    struct rmsnorm_job j = { s, cpu_split(s, n_rows, dim), y, x, norm, dim };

    threads_run(s->threads, run_rmsnorm, &j, split_count(j.split));
}

static void cpu_hidden(struct ops_stream *s, float *y, const void *x, uint32_t n_rows,
                       const struct norm *norm, uint32_t dim)
{
    cpu_rmsnorm(s, y, x, n_rows, norm, dim);
}

struct add_job {
    struct ops_stream *s;
    struct split split; /* of rows */
    float *x, *normed;
    const float *y;
    const struct norm *norm;
    uint32_t dim, first, count;
};

static void run_add_normed(void *arg, uint32_t i)
{
    const struct add_job *j = arg;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++) {
        size_t at = (size_t)t * j->dim;
        float *x = j->x + at + j->first, *normed = j->normed + at;
        j->s->kernels->rmsnorm(normed, j->y + at, j->norm->w, j->dim, j->norm->eps);
        for (uint32_t k = 0; k < j->count; k++)
            x[k] += normed[j->first + k];
    }
}

void cpu_add_normed(struct ops_stream *s, void *x, const void *y, uint32_t n_rows,
                    const struct norm *norm, uint32_t dim, uint32_t first, uint32_t count)
{
    struct add_job j = { .s = s,
                         .split = cpu_split(s, n_rows, dim),
                         .x = x,
                         .normed = s->prepared[INPUT_ROWS],
                         .y = y,
                         .norm = norm,
                         .dim = dim,
                         .first = first,
                         .count = count };

    assert(n_rows <= s->setup.rows_max && dim <= s->setup.cols_max && !norm->rows);
    threads_run(s->threads, run_add_normed, &j, split_count(j.split));
}

/* ---- open and close ---- */

static void cpu_close(struct ops_stream *s)
{
    if (!s)
        return;
    rope_table_fini(&s->rope);
    free(s->rows);
    free(s->kept_seqs);
    free(s->rope_cos);
    free(s->rope_sin);
    for (int f = 0; f < N_INPUT_FORMS; f++)
        free(s->prepared[f]);
    free(s->gate_up);
    attention_order_fini(&s->order);
    free(s->partials);
    cpu_routes_free(s->routes);
    free(s);
}

#define CPU_OPS(tier)                                                                              \
    {                                                                                              \
        .name = "cpu-" tier, .act_bytes = sizeof(float), .alloc = cpu_alloc, .free = cpu_free,     \
        .close = cpu_close, .begin = cpu_begin, .finish = cpu_finish,                              \
        .record_is_due = cpu_record_is_due, .record_begin = cpu_record_begin,                      \
        .record_end = cpu_record_end, .embed = cpu_embed, .rmsnorm = cpu_rmsnorm,                  \
        .hidden = cpu_hidden, .add_normed = cpu_add_normed, .linear = cpu_linear,                  \
        .gated = cpu_gated, .gate_rows = cpu_gate_rows, .route = cpu_route,                        \
        .experts_gated = cpu_experts_gated, .experts_down = cpu_experts_down,                      \
        .logits = cpu_logits, .rope_kv_write = cpu_rope_kv_write, .attention = cpu_attention,      \
        .keep_logit_rows = cpu_keep_logit_rows,                                                    \
    }

static const struct ops tables[N_CPU_TIERS] = {
    [CPU_PLAIN] = CPU_OPS("plain"),           [CPU_AVX2] = CPU_OPS("avx2"),
    [CPU_AVXVNNI] = CPU_OPS("avxvnni"),       [CPU_AVX512] = CPU_OPS("avx512"),
    [CPU_AVX512VNNI] = CPU_OPS("avx512vnni"), [CPU_AMXINT8] = CPU_OPS("amxint8"),
    [CPU_AVX512BF16] = CPU_OPS("avx512bf16"),
};

struct tier {
    const struct cpu_kernels *kernels;
    const struct linear_kernel *linear[N_DTYPES];
};

/* The products of a tier: those for bfloat16 and those for integers may be of other units. */
#define PRODUCTS(floats, bf16, integers)                                                           \
    {                                                                                              \
        [DTYPE_F32] = &linear_f32_##floats, [DTYPE_F16] = &linear_f16_##floats,                    \
        [DTYPE_BF16] = &linear_bf16_##bf16, [DTYPE_I8] = &linear_i8_##integers,                    \
        [DTYPE_I4] = &linear_i4_##integers, [DTYPE_I4M] = &linear_i4m_##integers,                  \
        [DTYPE_I5M] = &linear_i5m_##integers, [DTYPE_I6] = &linear_i6_##integers,                  \
    }

static const struct tier tiers[N_CPU_TIERS] = {
    [CPU_PLAIN] = { &cpu_kernels_plain, PRODUCTS(plain, plain, plain) },
#if defined(__x86_64__)
    [CPU_AVX2] = { &cpu_kernels_avx2, PRODUCTS(avx2, avx2, avx2) },
    [CPU_AVXVNNI] = { &cpu_kernels_avxvnni, PRODUCTS(avx2, avx2, avxvnni) },
    [CPU_AVX512] = { &cpu_kernels_avx512, PRODUCTS(avx512, avx512, avx512) },
    [CPU_AVX512VNNI] = { &cpu_kernels_avx512vnni, PRODUCTS(avx512, avx512, avx512vnni) },
    [CPU_AMXINT8] = { &cpu_kernels_avx512vnni, PRODUCTS(avx512, avx512, amx) },
    [CPU_AVX512BF16] = { &cpu_kernels_avx512vnni, PRODUCTS(avx512, avx512bf16, avx512vnni) },
#endif
};

static size_t prepared_bytes(const struct ops_setup *u)
{
    return (size_t)u->rows_max * ((u->cols_max + 63) / 64 * 64) * sizeof(float);
}

/* Whole panels of gate and of up, for each row. */
static size_t gate_up_bytes(const struct ops_setup *u)
{
    size_t panels = (u->gated_max + PACKING_PANEL_ROWS_MAX - 1) / PACKING_PANEL_ROWS_MAX;

    return (size_t)u->rows_max * panels * PACKING_PANEL_ROWS_MAX * 2 * sizeof(float);
}

const struct ops *ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                               struct threads *threads, struct ops_stream **stream)
{
    struct ops_stream *s = mem_zalloc(1, sizeof *s);
    uint32_t rope_dim = setup->rope_dim > 0 ? setup->rope_dim : setup->head_dim;
    size_t angles = (size_t)setup->rows_max * (rope_dim / 2);

    assert((unsigned)tier < N_CPU_TIERS && tiers[tier].kernels);
    assert(setup->head_dim % 2 == 0 && setup->n_heads % setup->n_kv_heads == 0);
    assert(rope_dim % 2 == 0 && rope_dim <= setup->head_dim);
    assert(setup->kv.dtype == DTYPE_I16 || setup->kv.dtype == DTYPE_F32 ||
           setup->kv.dtype == DTYPE_I8);
    assert(setup->head_dim <= ATTENTION_HEAD_DIM_MAX);
    assert(setup->kv.page_tokens <= ATTENTION_PAGE_TOKENS_MAX);
    s->kernels = tiers[tier].kernels;
    s->linear = tiers[tier].linear;
    s->threads = threads;
    s->fetches_far = cpu_fetches_far();
    s->setup = *setup;
    s->setup.rope_dim = rope_dim;
    rope_table_init(&s->rope, setup->rope_freq, rope_dim / 2, setup->positions_max,
                    setup->rope_amplitude > 0 ? setup->rope_amplitude : 1);
    s->setup.rope_freq = NULL;
    s->rows = mem_zalloc(setup->rows_max, sizeof *s->rows);
    s->kept_seqs = mem_zalloc(setup->rows_max, sizeof *s->kept_seqs);
    s->rope_cos = aligned_mem(64, angles * sizeof(float));
    s->rope_sin = aligned_mem(64, angles * sizeof(float));
    for (int f = 0; f < N_INPUT_FORMS; f++)
        s->prepared[f] = aligned_mem(64, prepared_bytes(setup));
    s->gate_up = aligned_mem(64, gate_up_bytes(setup));
    s->routes = cpu_routes_new(setup);
    attention_order_init(&s->order, setup, setup->rows_max);
    s->partials = aligned_mem(64, PARTIAL_FLOATS * sizeof(float));
    *stream = s;
    return &tables[tier];
}
