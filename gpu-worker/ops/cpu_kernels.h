/* cpu_kernels.h - what a CPU tier brings: the arithmetic of one thread's share of an op.
 *
 * cpu.c splits each op of ops.h over rows and heads and calls these; ops_cpu.c is the definition in plain
 * C, vector_kernels.h the fast copy, compiled once per instruction set.  A unit exports its tables and
 * nothing else: every helper is static, so that no function compiled for AVX-512 can stand in for another
 * unit's.
 *
 * Products are a table of their own, by the number format of the matrix, since a tier may have a better
 * instruction for one format only.  The input of a product is prepared once, in the form that all kernels
 * of that format want (the norm is part of it), and then read by all panels of all its matrices. */
#ifndef LLMD_GPU_WORKER_OPS_CPU_KERNELS_H
#define LLMD_GPU_WORKER_OPS_CPU_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu-worker/ops/ops.h"
#include "proto/dtype.h"

/* How the input of a product lies.  The kernels of one tier that name the same form read the same bytes. */
enum input_form {
    INPUT_ROWS,  /* float rows, one after the other */
    INPUT_TILES, /* floats in tiles of tokens (panel_kernels.h) */
    INPUT_PAIRS, /* pairs of bfloat16 in tiles of tokens (bf16_avx512.c) */
    INPUT_I8,    /* codes with scales (int_input.h) */
    N_INPUT_FORMS
};

/* x' of ops.h, to be brought into that form. */
struct input_job {
    void *out; /* all tokens; at most 4 bytes for each element, cols rounded up to 64 */
    const float *x;
    const struct norm *norm; /* or NULL */
    uint32_t cols, n_tokens;
};

static inline const float *input_row(const struct input_job *j, uint32_t token)
{
    size_t row = j->norm && j->norm->rows ? j->norm->rows[token] : token;

    return j->x + row * j->cols;
}

/* y[t,i] (+)= sum_k w[i,k] x[t,k] + bias[i] */
struct linear_job {
    float *y;
    size_t y_stride;
    const void *x; /* n_tokens prepared rows */
    const void *w; /* packed (packing.h) */
    enum dtype dtype;
    const float *bias; /* or NULL */
    uint32_t cols, rows, n_tokens;
    bool add;
};

struct linear_kernel {
    enum input_form form;
    /* Tokens begin .. end - 1 of the input. */
    void (*prepare)(const struct input_job *j, uint32_t begin, uint32_t end);
    /* Output rows row_begin .. row_end - 1 for all tokens; row_begin is the first of a panel. */
    void (*run)(const struct linear_job *j, uint32_t row_begin, uint32_t row_end);
};

/* Query rows against one KV head.  The query heads that share it and the tokens of a sequence are rows alike:
 * row i is head i % group of the sequence's token i / group.
 *
 * Positions fall into splits of ATTENTION_SPLIT, counted from 0.  Each split is summed up by itself, and the
 * sums are merged in order (cpu_attention.c), whether one thread has computed them or several. */
struct attention_job {
    const float *q;             /* row 0 of the KV head */
    size_t q_stride;            /* between tokens */
    uint32_t row_begin, n_rows; /* at most ATTENTION_ROWS */
    uint32_t start;             /* position of token 0 */
    uint32_t begin, end;        /* positions to see, of one split */
    uint32_t window;            /* 0 = all */
    const char *pages;
    uint64_t page_bytes;
    uint64_t k_offset,
        v_offset; /* of this layer and head in a page, bytes (proto/kvpool_layout.h) */
    const uint32_t *page_table;
    uint32_t page_tokens;
    uint32_t group, head_dim;
    enum dtype dtype;
    float scale, softcap; /* softcap 0 = none */
};

/* Of one row: the largest score, and the sum of exp(score - largest); the weighted values lie beside. */
struct attention_sum {
    float largest, sum; /* -INFINITY and 0 when no position was seen */
};

/* What older and newer values are multiplied with when the sums of one more split join those before it. */
struct attention_factors {
    float old, more; /* more = 0: nothing is added */
};

/* *sum with *more added. */
static inline struct attention_factors attention_merge_sums(struct attention_sum *sum,
                                                            const struct attention_sum *more)
{
    float largest = fmaxf(sum->largest, more->largest);
    struct attention_factors f = { 1, 0 };

    if (more->largest == -INFINITY && more->sum == 0)
        return f;
    f.old = expf(sum->largest - largest);
    f.more = expf(more->largest - largest);
    *sum = (struct attention_sum){ largest, sum->sum * f.old + more->sum * f.more };
    return f;
}

/* Positions first .. last that row i of the job sees, of all splits. */
static inline uint32_t attention_last(const struct attention_job *j, uint32_t i)
{
    return j->start + (j->row_begin + i) / j->group;
}

static inline uint32_t attention_first(const struct attention_job *j, uint32_t i)
{
    uint32_t last = attention_last(j, i);

    return j->window > 0 && last >= j->window ? last - j->window + 1 : 0;
}

struct cpu_kernels {
    void (*widen)(float *y, const void *x, enum dtype dtype, uint32_t n); /* to float */
    void (*rmsnorm)(float *y, const float *x, const float *w, uint32_t dim, float eps);
    /* x[i], x[half + i] of one head turned by (cos[i], sin[i]). */
    void (*rope)(float *x, const float *cos, const float *sin, uint32_t half);
    void (*narrow)(void *y, const float *x, enum dtype dtype, uint32_t n); /* to F16 or F32 */
    /* To int8 codes: y[i] = round(x[i] / scale), to nearest even; returns scale = max |x| / 127. */
    float (*narrow_i8)(int8_t *y, const float *x, uint32_t n);
    /* Without the division by the sums.  sums [n_rows], out [n_rows, head_dim] */
    void (*attention)(const struct attention_job *j, struct attention_sum *sums, float *out);
    /* Sums and values of one more split added to a row's. */
    void (*attention_merge)(struct attention_sum *sum, float *out, const struct attention_sum *more,
                            const float *more_out, uint32_t head_dim);
    /* out[d] = values[d] / sum */
    void (*attention_finish)(float *out, const float *values, float sum, uint32_t head_dim);
    /* y[i] = act(gate[i]) * up[i] */
    void (*gate)(float *y, const float *gate, const float *up, uint32_t n, enum activation act);
};

extern const struct cpu_kernels cpu_kernels_plain, cpu_kernels_avx2, cpu_kernels_avx512;

extern const struct linear_kernel linear_f32_plain, linear_f16_plain, linear_bf16_plain;
extern const struct linear_kernel linear_f32_avx2, linear_f16_avx2, linear_bf16_avx2;
extern const struct linear_kernel linear_f32_avx512, linear_f16_avx512, linear_bf16_avx512;
extern const struct linear_kernel linear_bf16_avx512bf16;
extern const struct linear_kernel linear_i8_plain, linear_i4_plain;
extern const struct linear_kernel linear_i4m_plain, linear_i5m_plain, linear_i6_plain;
extern const struct linear_kernel linear_i8_avx2, linear_i4_avx2;
extern const struct linear_kernel linear_i4m_avx2, linear_i5m_avx2, linear_i6_avx2;
extern const struct linear_kernel linear_i8_avxvnni, linear_i4_avxvnni;
extern const struct linear_kernel linear_i4m_avxvnni, linear_i5m_avxvnni, linear_i6_avxvnni;
extern const struct linear_kernel linear_i8_avx512, linear_i4_avx512;
extern const struct linear_kernel linear_i4m_avx512, linear_i5m_avx512, linear_i6_avx512;
extern const struct linear_kernel linear_i8_avx512vnni, linear_i4_avx512vnni;
extern const struct linear_kernel linear_i4m_avx512vnni, linear_i5m_avx512vnni,
    linear_i6_avx512vnni;
extern const struct linear_kernel linear_i8_amx, linear_i4_amx;
extern const struct linear_kernel linear_i4m_amx, linear_i5m_amx, linear_i6_amx;

enum {
    ATTENTION_PAGE_TOKENS_MAX = 256,
    ATTENTION_HEAD_DIM_MAX = 512,
    ATTENTION_SPLIT = 512, /* positions; a change changes bits */
    ATTENTION_SPAN = 128,  /* of a split that are worked through at once; a change changes bits */
    ATTENTION_ROWS = 48,
};

#endif
