/* ops_rig.h - random numbers with a printed seed, and streams of every tier this machine has. */
#ifndef LLMD_TESTS_OPS_RIG_H
#define LLMD_TESTS_OPS_RIG_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/ops/packing.h"

struct random {
    uint64_t state;
};

/* SEED in the environment repeats a run; the seed in use is printed. */
static inline struct random random_begin(const char *test)
{
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 20240131;

    printf("%s: SEED=%llu\n", test, (unsigned long long)seed);
    return (struct random){ seed };
}

/* splitmix64: Steele, Lea, Flood 2014. */
static inline uint64_t random_u64(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* -1 .. 1 */
static inline float random_float(struct random *r)
{
    return (float)((double)(random_u64(r) >> 11) * 0x1p-52 - 1);
}

static inline float *random_floats(struct random *r, size_t n)
{
    float *x = mem_alloc(n * sizeof *x);

    for (size_t i = 0; i < n; i++)
        x[i] = random_float(r);
    return x;
}

/* Of an integer type: codes low .. high. */
struct code_range {
    int low, high;
};

static inline struct code_range code_range(enum dtype dtype)
{
    static const struct code_range ranges[N_DTYPES] = {
        [DTYPE_I8] = { -128, 127 }, [DTYPE_I4] = { -8, 7 },   [DTYPE_I4M] = { 0, 15 },
        [DTYPE_I5M] = { 0, 31 },    [DTYPE_I6] = { -32, 31 },
    };

    return ranges[dtype];
}

static inline int8_t *random_codes(struct random *r, enum dtype dtype, size_t n)
{
    struct code_range range = code_range(dtype);
    int8_t *codes = mem_alloc(n);

    for (size_t i = 0; i < n; i++)
        codes[i] =
            (int8_t)(range.low + (int)(random_u64(r) % (uint64_t)(range.high - range.low + 1)));
    return codes;
}

/* n float16 of -scale .. scale. */
static inline uint16_t *random_halves(struct random *r, size_t n, float scale)
{
    uint16_t *x = mem_alloc(n * sizeof *x);

    for (size_t i = 0; i < n; i++)
        x[i] = float_to_f16(random_float(r) * scale);
    return x;
}

#define FOR_EACH_INT(d) for (enum dtype d = DTYPE_I8; d <= DTYPE_I6; d++)

/* n floats of that type, as a file has them; *as_float gets the values really stored. */
static inline void *encode(const float *x, size_t n, enum dtype dtype, float *as_float)
{
    uint16_t *half = mem_alloc(dtype_bytes(dtype, n) + 1);

    for (size_t i = 0; i < n; i++) {
        if (dtype == DTYPE_F32) {
            ((float *)half)[i] = x[i];
            as_float[i] = x[i];
        } else if (dtype == DTYPE_F16) {
            half[i] = float_to_f16(x[i]);
            as_float[i] = f16_to_float(half[i]);
        } else {
            half[i] = (uint16_t)(bits_of_float(x[i]) >> 16);
            as_float[i] = bf16_to_float(half[i]);
        }
    }
    return half;
}

/* A matrix packed in the panels of its type, aligned as in the weights segment; x gets what is really stored. */
static inline void *pack_matrix(float *x, uint32_t rows, uint32_t cols, enum dtype dtype)
{
    uint32_t height = packing_panel_rows(dtype);
    size_t bytes = packing_panel_bytes(dtype, cols);
    char *matrix = aligned_mem(64, packing_bytes(dtype, rows, cols));

    for (uint32_t first = 0; first < rows; first += height)
        packing_pack(dtype, matrix + first / height * bytes, x + (size_t)first * cols,
                     rows - first < height ? rows - first : height, cols);
    for (uint32_t i = 0; i < rows; i++)
        packing_unpack_row(dtype, x + (size_t)i * cols, matrix, i, cols);
    return matrix;
}

static inline bool tier_is_here(enum cpu_tier tier)
{
    return cpu_tier_choose(cpu_tier_name(tier)) == tier;
}

struct ops_rig {
    const struct ops *ops;
    struct ops_stream *stream;
    struct threads *threads;
};

/* Room for products; no attention worth the name. */
static inline struct ops_setup ops_rig_setup(void)
{
    static const double freq[512] = { 0 };

    return (struct ops_setup){ .rows_max = 256,
                               .cols_max = 1024,
                               .gated_max = 1024,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 2,
                               .positions_max = 1,
                               .rope_freq = freq,
                               .kv = { .page_tokens = 1, .dtype = DTYPE_F32 } };
}

/* setup: NULL for ops_rig_setup(). */
static inline struct ops_rig ops_rig_open(enum cpu_tier tier, uint32_t n_threads,
                                          const struct ops_setup *setup)
{
    struct ops_setup usual = ops_rig_setup();
    struct ops_rig r = { .threads = threads_new(n_threads, NULL) };

    assert_non_null(r.threads);
    r.ops = ops_cpu_open(tier, setup ? setup : &usual, r.threads, &r.stream);
    return r;
}

static inline void ops_rig_close(struct ops_rig *r)
{
    r->ops->close(r->stream);
    threads_free(r->threads);
}

#endif
