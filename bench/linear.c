/* linear.c - bench-linear: matrix products of one thread, by number format, tier and tokens.
 *
 *   bench-linear [--rounds N] [--tier NAME] [--type NAME] [--tokens N] [--quick]
 *
 * The matrices are those of a layer of a 7B model (4096 x 4096, 11008 x 4096, 4096 x 11008), more of them
 * than any cache holds, so that decode really reads memory.  Time is the CPU time of the thread, which a
 * busy neighbour lengthens less than the clock's.  Each line is the median of the rounds, with the range;
 * rounds go through all tokens in turn.  The figures: multiplications and additions a second, bytes of
 * packed weights a second, and their shares of what this machine's vector instructions and memory give at most
 * (machine_limits.h), the best of some passes in the same run. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/machine_limits.h"
#include "common/mem.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/ops/packing.h"

enum { TOKENS_MAX = 512, N_TOKENS = 9, ROUNDS_MAX = 99, LAYERS = 2 };

static const uint32_t tokens[N_TOKENS] = { 1, 2, 3, 4, 8, 16, 32, 128, 512 };
static const uint32_t shapes[][2] = { { 4096, 4096 }, { 11008, 4096 }, { 4096, 11008 } };

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_MATRICES = N_SHAPES * LAYERS };

struct options {
    const char *tier, *type;
    uint32_t rounds, tokens; /* tokens: 0 = all of the list */
    bool quick;
};

struct set {
    struct weight w[N_MATRICES];
    double bytes, products; /* of all; for one token */
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Random codes, and scales that keep sums finite.  What the values are does not matter, as long as none is
 * subnormal. */
static void fill(struct weight *w, uint64_t *random)
{
    size_t bytes = packing_bytes(w->dtype, w->rows, w->cols);
    uint64_t *to = aligned_mem(64, bytes);
    bool is_int = packing_is_int(w->dtype);
    size_t step = packing_superblock_bytes(w->dtype), numbers = packing_numbers(w->dtype);

    for (size_t i = 0; i < bytes / 8; i++)
        to[i] = is_int ? next_random(random) : 0x3c003c013c023c03;
    for (size_t at = 0; is_int && at < bytes; at += step)
        for (size_t i = 0; i < numbers * PACKING_LINE_BYTES / 2; i++)
            ((uint16_t *)((char *)to + at))[i] = (uint16_t)(0x2000 + i);
    w->data = to;
}

static struct set set_new(enum dtype dtype)
{
    struct set s = { .bytes = 0 };
    uint64_t random = 88172645463325252u;

    for (uint32_t i = 0; i < N_MATRICES; i++) {
        const uint32_t *shape = shapes[i % N_SHAPES];
        s.w[i] = (struct weight){ .dtype = dtype, .rows = shape[0], .cols = shape[1] };
        fill(&s.w[i], &random);
        s.bytes += (double)packing_bytes(dtype, shape[0], shape[1]);
        s.products += 2.0 * shape[0] * shape[1];
    }
    return s;
}

static void set_free(struct set *s)
{
    for (uint32_t i = 0; i < N_MATRICES; i++)
        free((void *)(uintptr_t)s->w[i].data);
}

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of all matrices of the set once. */
static double pass(const struct ops *ops, struct ops_stream *stream, const struct set *s,
                   const float *x, float *y, uint32_t n)
{
    double begin = thread_seconds();

    for (uint32_t i = 0; i < N_MATRICES; i++)
        ops->linear(stream, y, s->w[i].rows, x, n, NULL, &s->w[i], 1, LINEAR_SET);
    return thread_seconds() - begin;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Operations a second at most for weights of that format. */
static double limit_of(const struct machine_limits *m, enum dtype dtype)
{
    return m->ops[dtype == DTYPE_I4 || dtype == DTYPE_I4M ? LIMIT_INT4
                  : packing_is_int(dtype)                 ? LIMIT_INT8
                                                          : LIMIT_FP32];
}

static void report(enum cpu_tier tier, enum dtype dtype, uint32_t n, double *seconds,
                   uint32_t rounds, const struct set *s, const struct machine_limits *m)
{
    double median, ops;

    qsort(seconds, rounds, sizeof *seconds, by_value);
    median = seconds[rounds / 2];
    ops = s->products * n * 1e-9;
    printf("%-11s %-9s %4u tokens  %7.1f Gop/s (%.1f .. %.1f) = %3.0f %%  %6.2f GB/s = %3.0f %%\n",
           cpu_tier_name(tier), dtype_name(dtype), n, ops / median, ops / seconds[rounds - 1],
           ops / seconds[0], 1e11 * ops / median / limit_of(m, dtype), s->bytes / median * 1e-9,
           100 * s->bytes / median / m->read_one);
    fflush(stdout);
}

static void bench(const struct options *o, enum cpu_tier tier, enum dtype dtype,
                  const struct machine_limits *m)
{
    static const double freq[1] = { 0 };
    struct ops_setup setup = { .rows_max = TOKENS_MAX,
                               .cols_max = 11008,
                               .gated_max = 1,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 2,
                               .positions_max = 1,
                               .rope_freq = freq,
                               .kv = { .page_tokens = 1, .dtype = DTYPE_F32 } };
    struct threads *threads = threads_new(1, NULL);
    struct ops_stream *stream;
    const struct ops *ops = ops_cpu_open(tier, &setup, threads, &stream);
    struct set s = set_new(dtype);
    float *x = ops->alloc(stream, (size_t)TOKENS_MAX * 11008);
    float *y = ops->alloc(stream, (size_t)TOKENS_MAX * 11008);
    double seconds[N_TOKENS][ROUNDS_MAX];
    uint32_t last = o->quick || tier == CPU_PLAIN ? N_TOKENS - 2 : N_TOKENS;
    const uint32_t *list = o->tokens ? &o->tokens : tokens;

    if (o->tokens)
        last = 1;
    for (uint32_t i = 0; i < TOKENS_MAX * 11008; i++)
        x[i] = (float)(i * 7919 % 1000) / 500 - 1;
    for (uint32_t r = 0; r < o->rounds; r++)
        for (uint32_t i = 0; i < last; i++)
            seconds[i][r] = pass(ops, stream, &s, x, y, list[i]);
    for (uint32_t i = 0; i < last; i++)
        report(tier, dtype, list[i], seconds[i], o->rounds, &s, m);
    ops->free(stream, x);
    ops->free(stream, y);
    ops->close(stream);
    set_free(&s);
    threads_free(threads);
}

/* ---- main ---- */

static const struct argp_option argp_options[] = {
    { "rounds", 'r', "N", 0, "rounds, 1..99 (default 5)", 0 },
    { "tier", 'c', "NAME", 0, "only this tier; plain is not run unless asked for", 0 },
    { "type", 't', "NAME", 0, "only this format: float32, float16, bfloat16, int8 or int4", 0 },
    { "tokens", 'n', "N", 0, "only for so many, 1..512", 0 },
    { "quick", 'q', NULL, 0, "at most 32 tokens", 0 },
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
    case 't':
        o->type = arg;
        return 0;
    case 'n':
        o->tokens = (uint32_t)strtoul(arg, NULL, 10);
        if (o->tokens < 1 || o->tokens > TOKENS_MAX)
            argp_error(state, "tokens: 1..%d", TOKENS_MAX);
        return 0;
    case 'q':
        o->quick = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool is_wanted(const struct options *o, enum cpu_tier tier, enum dtype dtype)
{
    const char *name = cpu_tier_name(tier);

    if (cpu_tier_choose(name) != tier || (o->type && strcmp(o->type, dtype_name(dtype)) != 0))
        return false;
    return o->tier ? strcmp(o->tier, name) == 0 : tier != CPU_PLAIN;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .doc = "Matrix products of one thread, for each tier of this machine and number format.",
    };
    const struct limits_options limits = {
        .n_threads = 1, .passes = 5, .read_bytes = (size_t)256 << 20, .cpu_clock = true
    };
    struct options o = { .rounds = 5 };
    struct machine_limits m;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    machine_limits_measure(&m, &limits);
    printf("limits of one thread: memory %.1f GB/s, fp32 %.0f, int4 %.0f, int8 %.0f Gop/s\n",
           m.read_one * 1e-9, m.ops[LIMIT_FP32] * 1e-9, m.ops[LIMIT_INT4] * 1e-9,
           m.ops[LIMIT_INT8] * 1e-9);
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_I6; dtype++)
            if (is_wanted(&o, tier, dtype))
                bench(&o, tier, dtype, &m);
    return 0;
}
