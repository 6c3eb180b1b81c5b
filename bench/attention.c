/* attention.c - bench-attention: attention of one thread over paged K and V, by shape, tier and KV format.
 *
 *   bench-attention [--rounds N] [--tier NAME] [--kv int16|float32|int8] [--shape TEXT]
 *
 * Shapes are rows that look back: a stream of a model whose heads each have K and V of their own, streams where 4
 * or 8 heads share them, a prompt of 20 tokens behind a long one, a whole prompt.  The pages of all layers are more than
 * most caches hold, and lie in another order than the positions, as after some hours of serving.  Time is the CPU time of
 * the thread.  Each line is the median of the rounds, with the range; rounds go through all shapes in turn.  The
 * figures: operations of the two products (softmax counts for nothing) and their share of the peak of FMA; bytes of K
 * and V, each counted once a layer, and their share of what one thread reads (machine_limits.h, same run). */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/machine_limits.h"
#include "common/mem.h"
#include "gpu-worker/batch.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/ops.h"
#include "proto/kvpool_layout.h"

enum { ROUNDS_MAX = 99, PAGE_TOKENS = 16, ROWS_MAX = 512 };

struct shape {
    const char *name;
    uint32_t n_heads, n_kv_heads, head_dim, n_layers;
    uint32_t start, n_rows;
};

static const struct shape shapes[] = {
    { "1 row behind 6,000, heads of 128", 8, 8, 128, 8, 6000, 1 },
    { "1 row behind 6,000, 4 heads of 128 share", 32, 8, 128, 8, 6000, 1 },
    { "1 row behind 6,000, 8 heads of 64 share", 32, 4, 64, 16, 6000, 1 },
    { "1 row behind 1,000, heads of 64", 12, 12, 64, 12, 1000, 1 },
    { "20 rows behind 1,000, 8 heads of 64 share", 32, 4, 64, 8, 1000, 20 },
    { "20 rows behind 1,000, heads of 128", 8, 8, 128, 8, 1000, 20 },
    { "512 rows, heads of 64", 12, 12, 64, 4, 0, 512 },
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct options {
    const char *tier, *shape; /* or NULL */
    enum dtype kv;
    uint32_t rounds;
};

/* One shape on one tier. */
struct work {
    const struct shape *shape;
    const struct ops *ops;
    struct ops_stream *stream;
    struct threads *threads;
    char *pool;
    uint32_t *pages;
    float *qkv, *out;
    double seconds[ROUNDS_MAX];
};

static uint32_t n_pages(const struct shape *s)
{
    return (s->start + s->n_rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

static double random_unit(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 23) - 1;
}

/* One head's K or V in a page, of -1 .. 1: as a model's, so that powers are what they are there. */
static void fill_block(char *block, enum dtype kv, uint32_t head_dim, uint32_t *random)
{
    const float largest =
        kv == DTYPE_I16 ? 4000 : 127; /* 128 of these are less than KV_K16_LENGTH long */
    char *codes = block + kv_scales_bytes(kv, PAGE_TOKENS);

    for (uint32_t i = 0; i < PAGE_TOKENS && kv_has_scales(kv); i++)
        ((float *)block)[i] = 1 / largest;
    for (uint32_t i = 0; i < PAGE_TOKENS * head_dim; i++) {
        float x = (float)random_unit(random);
        if (kv == DTYPE_F32)
            ((float *)codes)[i] = x;
        else if (kv == DTYPE_I16)
            ((int16_t *)codes)[i] = (int16_t)(x * largest);
        else
            ((int8_t *)codes)[i] = (int8_t)(x * largest);
    }
}

static void fill_pool(char *pool, const struct shape *s, enum dtype kv)
{
    size_t n = (size_t)n_pages(s) * s->n_layers * 2 * s->n_kv_heads;
    size_t bytes = kv_block_bytes(kv, PAGE_TOKENS, s->head_dim);
    uint32_t random = 1;

    for (size_t i = 0; i < n; i++)
        fill_block(pool + i * bytes, kv, s->head_dim, &random);
}

/* A permutation: odd steps through the next power of two. */
static uint32_t *shuffled_pages(uint32_t n)
{
    uint32_t *pages = mem_alloc(n * sizeof *pages), n_done = 0;

    for (uint32_t i = 0; n_done < n; i++) {
        uint32_t page = (i * 1237u + 11) % 65536;
        if (page < n)
            pages[n_done++] = page;
    }
    return pages;
}

static void work_open(struct work *w, const struct shape *s, enum cpu_tier tier, enum dtype kv)
{
    static const double freq[64] = { 0 };
    size_t page_bytes =
        (size_t)s->n_layers * 2 * s->n_kv_heads * kv_block_bytes(kv, PAGE_TOKENS, s->head_dim);
    size_t row = (size_t)(s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    uint32_t random = 7;
    struct ops_setup setup = { .rows_max = ROWS_MAX,
                               .cols_max = 64,
                               .gated_max = 1,
                               .n_heads = s->n_heads,
                               .n_kv_heads = s->n_kv_heads,
                               .head_dim = s->head_dim,
                               .rope_dim = s->head_dim,
                               .positions_max = s->start + s->n_rows,
                               .rope_freq = freq };

    *w = (struct work){ .shape = s, .threads = threads_new(1, NULL) };
    w->pool = aligned_mem(4096, (n_pages(s) * page_bytes + 4095) / 4096 * 4096); /* as the pool */
    fill_pool(w->pool, s, kv);
    w->pages = shuffled_pages(n_pages(s));
    setup.kv = (struct ops_kv){ .pages = w->pool,
                                .page_bytes = page_bytes,
                                .n_pages = n_pages(s),
                                .page_tokens = PAGE_TOKENS,
                                .n_heads_model = s->n_kv_heads,
                                .dtype = kv };
    w->ops = ops_cpu_open(tier, &setup, w->threads, &w->stream);
    w->qkv = w->ops->alloc(w->stream, s->n_rows * row);
    w->out = w->ops->alloc(w->stream, (size_t)s->n_rows * s->n_heads * s->head_dim);
    for (size_t i = 0; i < s->n_rows * row; i++)
        w->qkv[i] = (float)random_unit(&random);
}

static void work_close(struct work *w)
{
    w->ops->free(w->stream, w->qkv);
    w->ops->free(w->stream, w->out);
    w->ops->close(w->stream);
    threads_free(w->threads);
    free(w->pages);
    free(w->pool);
}

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of all layers once. */
static double pass(struct work *w)
{
    const struct shape *s = w->shape;
    static const int32_t tokens[ROWS_MAX] = { 0 };
    struct batch_seq seq = { 0, s->n_rows, s->start, n_pages(s), w->pages };
    struct batch b = { s->n_rows, tokens, 1, &seq, 0, NULL, false };
    struct attention_shape how = { .scale = 0.125f };
    double begin;

    w->ops->begin(w->stream, &b, &(struct ops_step){ 0 });
    begin = thread_seconds();
    for (uint32_t layer = 0; layer < s->n_layers; layer++)
        w->ops->attention(w->stream, w->out, (size_t)s->n_heads * s->head_dim, w->qkv, layer, &how);
    return thread_seconds() - begin;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void report(enum cpu_tier tier, struct work *w, const struct options *o,
                   const struct machine_limits *m)
{
    const struct shape *s = w->shape;
    double seen = s->n_rows * (s->start + (s->n_rows + 1) / 2.0); /* positions, by all rows */
    double ops = 4 * seen * s->n_heads * s->head_dim * s->n_layers;
    double bytes = 2.0 * n_pages(s) * s->n_layers * s->n_kv_heads *
                   (double)kv_block_bytes(o->kv, PAGE_TOKENS, s->head_dim);
    double median;

    qsort(w->seconds, o->rounds, sizeof *w->seconds, by_value);
    median = w->seconds[o->rounds / 2];
    printf("%-7s %-8s %-43s %6.1f Gop/s (%.1f .. %.1f) = %3.0f %%  %6.2f GB/s = %3.0f %%\n",
           cpu_tier_name(tier), dtype_name(o->kv), s->name, ops / median * 1e-9,
           ops / w->seconds[o->rounds - 1] * 1e-9, ops / w->seconds[0] * 1e-9,
           100 * ops / median / m->ops[LIMIT_FP32], bytes / median * 1e-9,
           100 * bytes / median / m->read_one);
    fflush(stdout);
}

static void bench(const struct options *o, enum cpu_tier tier, const struct machine_limits *m)
{
    static struct work work[N_SHAPES];
    uint32_t n = 0;

    for (uint32_t i = 0; i < N_SHAPES; i++)
        if (!o->shape || strstr(shapes[i].name, o->shape))
            work_open(&work[n++], &shapes[i], tier, o->kv);
    for (uint32_t r = 0; r < o->rounds; r++)
        for (uint32_t i = 0; i < n; i++)
            work[i].seconds[r] = pass(&work[i]);
    for (uint32_t i = 0; i < n; i++) {
        report(tier, &work[i], o, m);
        work_close(&work[i]);
    }
}

/* ---- main ---- */

static const struct argp_option argp_options[] = {
    { "rounds", 'r', "N", 0, "rounds, 1..99 (default 9)", 0 },
    { "shape", 's', "TEXT", 0, "only shapes whose names have this in them", 0 },
    { "tier", 'c', "NAME", 0, "only this tier: avx2, avxvnni, avx512 or avx512vnni", 0 },
    { "kv", 'k', "TYPE", 0, "KV pages: int16 (default), float32 or int8", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'r':
        o->rounds = (uint32_t)strtoul(arg, NULL, 10);
        if (o->rounds < 1 || o->rounds > ROUNDS_MAX)
            argp_error(state, "rounds: 1..%d", ROUNDS_MAX);
        return 0;
    case 'c':
        o->tier = arg;
        return 0;
    case 's':
        o->shape = arg;
        return 0;
    case 'k':
        for (o->kv = DTYPE_F32; o->kv < N_DTYPES && strcmp(arg, dtype_name(o->kv)) != 0; o->kv++)
            ;
        if (o->kv != DTYPE_F32 && o->kv != DTYPE_I16 && o->kv != DTYPE_I8)
            argp_error(state, "kv: int16, float32 or int8, not '%s'", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .doc = "Attention of one thread, for each tier of this machine that has its own.",
    };
    static const enum cpu_tier tiers[] = { CPU_AVX2, CPU_AVXVNNI, CPU_AVX512,
                                           CPU_AVX512VNNI }; /* the others use its */
    const struct limits_options limits = {
        .n_threads = 1, .passes = 5, .read_bytes = (size_t)256 << 20, .cpu_clock = true
    };
    struct options o = { .rounds = 9, .kv = DTYPE_I16 };
    struct machine_limits m;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    machine_limits_measure(&m, &limits);
    printf("limits of one thread: memory %.1f GB/s, fp32 %.0f Gop/s\n", m.read_one * 1e-9,
           m.ops[LIMIT_FP32] * 1e-9);
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
        const char *name = cpu_tier_name(tiers[i]);
        if (cpu_tier_choose(name) == tiers[i] && (!o.tier || strcmp(o.tier, name) == 0))
            bench(&o, tiers[i], &m);
    }
    return 0;
}
