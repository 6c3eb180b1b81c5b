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
#include <string.h>

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
    bool fetches_far; /* cpu_features.h; a hint */
};

struct linear_kernel {
    enum input_form form;
    /* Tokens begin .. end - 1 of the input. */
    void (*prepare)(const struct input_job *j, uint32_t begin, uint32_t end);
    /* Output rows row_begin .. row_end - 1 for all tokens; row_begin is the first of a panel. */
    void (*run)(const struct linear_job *j, uint32_t row_begin, uint32_t row_end);
};

enum {
    ATTENTION_PAGE_TOKENS_MAX = 256,
    ATTENTION_HEAD_DIM_MAX = 512,
    ATTENTION_SPLIT = 512, /* positions; a change changes bits */
    ATTENTION_SPAN = 128,  /* of a split that are worked through at once; a change changes bits */
    ATTENTION_TILE_ROWS = 6,
    ATTENTION_ROWS = 16 * ATTENTION_TILE_ROWS,
    ATTENTION_Q_STRIDE =
        ATTENTION_HEAD_DIM_MAX + 16, /* at a power of two rows would share a cache's set */
    /* int16 pages: what products in int32 have room for (attention_codes.h) */
    KV_K16_LENGTH = 32767,
    KV_V16_MAX = 8191,
};

/* A query head of a token. */
struct attention_row {
    const float *q;             /* [head_dim] */
    const uint32_t *page_table; /* of its sequence */
    uint32_t last;              /* position: the last one it sees */
};

/* Query rows against one KV head: of all tokens of a sequence and query heads that share it, and of other sequences
 * (attention_units.h); those of a sequence side by side, by position.
 *
 * Positions fall into splits of ATTENTION_SPLIT, counted from 0.  Each split is summed up by itself, and the
 * sums are merged in order (cpu_attention.c), whether one thread has computed them or several. */
struct attention_job {
    const struct attention_row *rows;
    uint32_t n_rows; /* at most ATTENTION_ROWS */
    const float *
        q; /* [n_rows][ATTENTION_Q_STRIDE] and [n_rows], from attention_queries(); two rows more may be read */
    const float *q_scales;
    uint32_t begin, end; /* positions to see, of one split */
    uint32_t window;     /* 0 = all */
    const char *pages;
    uint64_t page_bytes;
    uint64_t k_offset,
        v_offset; /* of this layer and head in a page, bytes (proto/kvpool_layout.h) */
    uint32_t page_tokens;
    uint32_t head_dim;
    enum dtype dtype;
    bool
        is_near; /* K and V of the first row have just been read: not to be asked from memory again */
    float scale, softcap; /* times log2(e): weights are powers of 2; softcap 0 = none */
};

/* Of one row: the largest score, and the sum of 2^(score - largest); the weighted values lie beside. */
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
    struct attention_factors f = { 1, 0 };

    if (more->largest == -INFINITY && more->sum == 0)
        return f;
    f.more = 1;
    if (more->largest <= sum->largest)
        f.more = exp2f(more->largest - sum->largest);
    else
        f.old = exp2f(sum->largest - more->largest);
    sum->sum = sum->sum * f.old + more->sum * f.more;
    sum->largest = more->largest <= sum->largest ? sum->largest : more->largest;
    return f;
}

/* The first position that a row sees. */
static inline uint32_t attention_first(const struct attention_row *r, uint32_t window)
{
    return window > 0 && r->last >= window ? r->last - window + 1 : 0;
}

/* Rows of a job that go through a span together. */
struct attention_part {
    uint32_t n_rows;
    uint32_t
        end; /* one of them sees up to position end - 1 of the span; <= its beginning: none does */
    bool is_whole;  /* and all do, from its beginning */
    uint32_t ahead; /* end of what one of them sees of the split beyond, to be fetched */
    const uint32_t *page_table;
};

/* Rows i and i + 1 read the same pages of a span: of one sequence, or both see it whole. */
static inline bool attention_go_together(const struct attention_job *j, uint32_t i, uint32_t at)
{
    const struct attention_row *a = &j->rows[i], *b = a + 1;
    uint32_t last = at + ATTENTION_SPAN - 1, first = at / j->page_tokens;

    if (a->page_table == b->page_table)
        return true;
    return a->last >= last && b->last >= last &&
           memcmp(a->page_table + first, b->page_table + first,
                  (last / j->page_tokens + 1 - first) * sizeof *a->page_table) == 0;
}

/* The rows from i on that go together through the span that begins at position `at`. */
static inline struct attention_part attention_part(const struct attention_job *j, uint32_t i,
                                                   uint32_t at)
{
    struct attention_part p = { .page_table = j->rows[i].page_table };
    uint32_t first = i, end = 0, least = UINT32_MAX;

    do {
        end = j->rows[i].last >= end ? j->rows[i].last + 1 : end;
        least = j->rows[i].last < least ? j->rows[i].last : least;
    } while (++i < j->n_rows && attention_go_together(j, i - 1, at));
    p.n_rows = i - first;
    end = end < j->end ? end : j->end;
    p.end = end < at + ATTENTION_SPAN ? end : at + ATTENTION_SPAN;
    p.is_whole = j->window == 0 && least >= p.end - 1;
    p.ahead = j->is_near && first == 0 ? 0 : end;
    return p;
}

struct cpu_kernels {
    void (*widen)(float *y, const void *x, enum dtype dtype, uint32_t n); /* to float */
    void (*rmsnorm)(float *y, const float *x, const float *w, uint32_t dim, float eps);
    /* x[i], x[half + i] of one head turned by (cos[i], sin[i]). */
    void (*rope)(float *x, const float *cos, const float *sin, uint32_t half);
    /* To codes: y[i] = round(x[i] / scale), to nearest even; each returns the scale.
     * int8: max |x| / 127.  int16: of K |x| / KV_K16_LENGTH, of V max |x| / KV_V16_MAX. */
    float (*narrow_i8)(int8_t *y, const float *x, uint32_t n);
    float (*narrow_k16)(int16_t *y, const float *x, uint32_t n);
    float (*narrow_v16)(int16_t *y, const float *x, uint32_t n);
    /* What a job's .rows are to the kernel: j->n_rows of them into q and scales. */
    void (*attention_queries)(const struct attention_job *j, float *q, float *scales);
    /* Without the division by the sums.  sums [n_rows], out [n_rows, head_dim] */
    void (*attention)(const struct attention_job *j, struct attention_sum *sums, float *out);
    /* Sums and values of one more split added to a row's. */
    void (*attention_merge)(struct attention_sum *sum, float *out, const struct attention_sum *more,
                            const float *more_out, uint32_t head_dim);
    /* out[d] = values[d] * (1 / sum) */
    void (*attention_finish)(float *out, const float *values, float sum, uint32_t head_dim);
    /* y[i] = act(gate[i]) * up[i] */
    void (*gate)(float *y, const float *gate, const float *up, uint32_t n, enum activation act);
};

extern const struct cpu_kernels cpu_kernels_plain, cpu_kernels_avx2, cpu_kernels_avx512;
extern const struct cpu_kernels cpu_kernels_avxvnni, cpu_kernels_avx512vnni; /* the same bits */

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

#endif
