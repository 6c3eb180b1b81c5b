/* gemm.h - arguments and launch geometry of the kernels around products of more than eight rows:
 *
 *   dequantise.cu   K5: a packed matrix, or rows of one, as f16 or float
 *   gemm_w4.cu      K4: f16 rows times a matrix of I4 or I4M on the tensor cores, 9 to 64 rows at a time
 *   gemm_grouped.cu the experts of a mixture for many rows, any weights but float32
 *   w8a8.cu         K7, K8: rows to int8 and to E4M3, weights to int8 by row, and what cuBLASLt's sums of them mean
 *
 * Pointers are device addresses; packed matrices are in the layouts of cuda_packing.h. */
#ifndef LLMD_CUDA_KERNELS_GEMM_H
#define LLMD_CUDA_KERNELS_GEMM_H

#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"
#include "gpu-worker/cuda/kernels/gemv.h"
#include "gpu-worker/cuda/kernels/moe.h"

/* A row of 64 f16 or bf16 in shared memory: 16 bytes more than it needs, so that the lanes of a load meet no bank
 * twice. */
enum { GEMM_X_BYTES = 64 * 2 + 16 };

/* ---- dequantise_i8, dequantise_i4, dequantise_i4m, dequantise_e4m3 ----
 * Out gets the matrix as plain rows: what cuBLASLt multiplies by.  An element is rounded to f16 (above 65504: to
 * infinity), columns from cols up to a multiple of 8 are 0.  A part of a matrix: from a multiple of 16 rows on.
 * Grid: (superblocks of 64 columns / DEQUANTISE_WARPS rounded up, panels of 16 rows); of E4M3, whose data are rows,
 * dequantise_e4m3_grid().  Bound by memory. */
enum { DEQUANTISE_WARPS = 8, DEQUANTISE_THREADS = 32 * DEQUANTISE_WARPS };

struct dequantise_args {
    uint16_t *out;       /* f16 [rows, cols rounded up to 8], stride out_stride, a multiple of 8 */
    const void *data;    /* panels */
    uint64_t out_stride; /* elements */
    uint32_t rows, cols; /* E4M3: rows times 16-column pieces are below 2^32 */
};

KBOTH uint32_t dequantise_grid_x(uint32_t cols)
{
    return ((cols + 63) / 64 + DEQUANTISE_WARPS - 1) / DEQUANTISE_WARPS;
}

KBOTH uint32_t dequantise_grid_y(uint32_t rows)
{
    return (rows + 15) / 16;
}

KBOTH uint32_t dequantise_e4m3_grid(uint32_t rows, uint32_t cols)
{
    return (rows * (e4m3_codes_bytes(cols) / 16) + DEQUANTISE_THREADS - 1) / DEQUANTISE_THREADS;
}

/* ---- embed_i8, embed_i4, embed_i4m ----
 * x[t] = scale * table[tokens[t] - first], rows of other tokens left alone (elementwise.h has the float types).
 * Grid: one block of EMBED_PACKED_THREADS a row. */
enum { EMBED_PACKED_THREADS = 128 };

struct embed_packed_args {
    float *x;              /* [n_rows, cols], stride x_stride */
    const void *table;     /* panels */
    const int32_t *tokens; /* [n_rows] */
    uint64_t x_stride;
    uint32_t cols, first, rows;
    float scale;
};

/* ---- gemm_w4_i4_16, _32, _64; gemm_w4_i4m_16, _32, _64 ----
 *   y[t,i] = sum_k w[i,k] x[t,k] + bias[i], or that added to y
 * A kernel takes as many rows of x as its name says; more are further launches.  Weights become f16 in registers
 * (code times scale rounded once), sums are float.  The tiles of GEMM_W4_ROWS output rows by 64 columns stand in
 * one line, cut into equal pieces, one a block; an output row whose columns fall to several blocks is added up
 * by the last of them to finish, in the order of the columns.  So a result is the same in every run on GPUs
 * with as many multiprocessors, but not the same bits as that of gemv.h.
 * Frantar et al. 2024, arXiv:2408.11743.
 * Needs sm_80; before it the copies are not asynchronous, and slow. */
enum {
    GEMM_W4_THREADS = 128,
    GEMM_W4_ROWS = 128, /* of y's columns, in a tile */
    GEMM_W4_STAGES = 4,
    GEMM_W4_TOKENS_MAX = 64,
};

struct gemm_w4_args {
    float *y; /* [n_rows, rows], stride y_stride */
    const uint16_t
        *x; /* f16 [n_rows, cols rounded up to 8, the rest 0], stride x_stride, a multiple of 8 */
    const void *w;     /* [rows, cols] panels */
    const float *bias; /* [rows], or NULL */
    float *partial;    /* room of gemm_w4_partial_bytes(): what blocks leave for each other */
    uint32_t *arrived; /* [gemm_w4_tiles()], 0 before and after the launch */
    uint64_t y_stride, x_stride;
    uint32_t n_rows, rows, cols;
    uint32_t add;
};

/* Rows of x that the kernel is for. */
KBOTH uint32_t gemm_w4_slots(uint32_t n_rows)
{
    return n_rows <= 16 ? 16 : n_rows <= 32 ? 32 : 64;
}

KBOTH uint32_t gemm_w4_tiles(uint32_t rows)
{
    return (rows + GEMM_W4_ROWS - 1) / GEMM_W4_ROWS;
}

/* Tiles times superblocks of 64 columns. */
KBOTH uint32_t gemm_w4_units(uint32_t rows, uint32_t cols)
{
    return gemm_w4_tiles(rows) * ((cols + 63) / 64);
}

/* Two blocks a multiprocessor, and no block without a unit. */
KBOTH uint32_t gemm_w4_grid(uint32_t rows, uint32_t cols, uint32_t n_multiprocessors)
{
    uint32_t units = gemm_w4_units(rows, cols), most = 2 * n_multiprocessors;

    return units < most ? units : most;
}

/* A block leaves two pieces at most: of the tile it begins in, and of the one it ends in. */
KBOTH uint64_t gemm_w4_partial_bytes(uint32_t grid, uint32_t slots)
{
    return (uint64_t)grid * 2 * GEMM_W4_ROWS * slots * 4;
}

/* Dynamic: the stages' weights, numbers (of a row and block at most 4 bytes) and rows of x. */
enum {
    GEMM_W4_STAGE_CODES = GEMM_W4_ROWS * 64 / 2,
    GEMM_W4_STAGE_NUMBERS = GEMM_W4_ROWS * 2 * 4,
};

KBOTH uint32_t gemm_w4_shared_bytes(uint32_t slots)
{
    return GEMM_W4_STAGES * (GEMM_W4_STAGE_CODES + GEMM_W4_STAGE_NUMBERS + slots * GEMM_X_BYTES);
}

static inline const char *gemm_w4_kernel(int has_min, uint32_t slots)
{
    static const char *const names[2][3] = {
        { "gemm_w4_i4_16", "gemm_w4_i4_32", "gemm_w4_i4_64" },
        { "gemm_w4_i4m_16", "gemm_w4_i4m_32", "gemm_w4_i4m_64" },
    };

    return names[has_min ? 1 : 0][slots <= 16 ? 0 : slots <= 32 ? 1 : 2];
}

/* ---- gemm_grouped_f16, _bf16, _e4m3, _i8, _i4, _i4m ----
 *   y[p,i] = sum_k w[e][i,k] x[r,k] for the pairs p of each group, e its expert, r = pair_row ? pair_row[p] : p
 * Groups of at most GEMM_GROUPED_PAIRS pairs (moe_sort's group_rows).  x is bf16 for bf16 weights, else f16; integers
 * become f16 in registers, and E4M3 exactly, its rows' scales being for the sums; these are float, over the columns in
 * order: a pair's result is the same bits in any company, but not those of gemv.h.
 * Grid: (gemm_grouped_tiles(), groups).  Needs sm_80, as gemm_w4. */
enum {
    GEMM_GROUPED_THREADS = 128,
    GEMM_GROUPED_ROWS = 128, /* of y's columns, in a block */
    GEMM_GROUPED_PAIRS = 64,
    GEMM_GROUPED_STAGES = 3,
};

struct gemm_grouped_args {
    float *y;                       /* [pairs, rows], stride y_stride */
    const uint16_t *x;              /* [., cols rounded up to 8, the rest 0], stride x_stride */
    const uint32_t *pair_row;       /* [pairs], or NULL: x has a row for each pair */
    const struct moe_group *groups; /* [grid y] */
    const void *w;                  /* [rows, cols] of the first expert */
    uint64_t expert_bytes;          /* from one expert's to the next one's */
    uint64_t y_stride, x_stride;    /* x_stride: a multiple of 8 */
    uint32_t rows, cols;
};

KBOTH uint32_t gemm_grouped_tiles(uint32_t rows)
{
    return (rows + GEMM_GROUPED_ROWS - 1) / GEMM_GROUPED_ROWS;
}

/* 64 columns of the weights (plain rows, or codes and numbers) and of x; format: enum gemv_format. */
KBOTH uint32_t gemm_grouped_stage_bytes(uint32_t format)
{
    uint32_t x = GEMM_GROUPED_PAIRS * GEMM_X_BYTES, rows = GEMM_GROUPED_ROWS;

    if (format == GEMV_E4M3)
        return x + rows * 64;
    if (format < GEMV_I8)
        return x + rows * GEMM_X_BYTES;
    return x + rows * (format == GEMV_I8 ? 64 + 4 : format == GEMV_I4 ? 32 + 4 : 32 + 8);
}

KBOTH uint32_t gemm_grouped_shared_bytes(uint32_t format)
{
    return GEMM_GROUPED_STAGES * gemm_grouped_stage_bytes(format);
}

/* NULL of float32, which is gemv's. */
static inline const char *gemm_grouped_kernel(uint32_t format)
{
    static const char *const names[N_GEMV_FORMATS] = { 0,
                                                       "gemm_grouped_f16",
                                                       "gemm_grouped_bf16",
                                                       "gemm_grouped_e4m3",
                                                       "gemm_grouped_i8",
                                                       "gemm_grouped_i4",
                                                       "gemm_grouped_i4m" };

    return names[format];
}

/* ---- w8a8_quantise, fp8_quantise ----
 * q[t] = code(x'[t] / scale[t]), int8 or E4M3 to nearest, scale[t] = max|x'[t]| / 127 or 448, x' = norm(x) or x (ops.h).
 * A row of zeroes has scale 0 and codes 0, one with a NaN a NaN for its scale.
 * Grid: one block of W8A8_THREADS a row. */
enum { W8A8_THREADS = 256 };

struct row_quantise_args {
    uint8_t *q;           /* [n_rows, cols] */
    float *scale;         /* [n_rows] */
    const float *x;       /* [., cols] */
    const float *norm;    /* [cols] weights of RMSNorm, or NULL */
    const uint32_t *rows; /* [n_rows] of x, or NULL: the same */
    uint32_t cols;        /* a multiple of 4 */
    float eps;
};

/* ---- requantise_i8 ----
 * A packed I8 matrix as plain rows of int8 with one scale each, that of the row's largest block: a code becomes
 * code * block's scale / row's scale, to nearest.  Where a row's blocks have one scale its codes stay what they are.
 * A part of a matrix: from a multiple of 16 rows on.
 * Grid: dequantise_grid_y(rows) blocks of DEQUANTISE_THREADS. */
struct requantise_args {
    int8_t *out; /* [rows, cols rounded up to 16, the rest 0], stride out_stride, so many or more */
    float *scale;        /* [rows] */
    const void *data;    /* panels */
    uint64_t out_stride; /* a multiple of 16 */
    uint32_t rows, cols;
};

/* ---- w8a8_finish ----
 * y[t,i] = x_scale[t] * w_scale[i] * sums[t,i] + bias[i], or that added to y; sums may be where y is, unless it is added.
 * Grid: (rows / W8A8_THREADS rounded up, n_rows). */
struct w8a8_finish_args {
    float *y;             /* [n_rows, rows], stride y_stride */
    const int32_t *sums;  /* [n_rows, rows], stride sums_stride */
    const float *x_scale; /* [n_rows] */
    const float *w_scale; /* [rows] */
    const float *bias;    /* [rows], or NULL */
    uint64_t y_stride, sums_stride;
    uint32_t rows;
    uint32_t add;
};

KBOTH uint32_t w8a8_finish_grid_x(uint32_t rows)
{
    return (rows + W8A8_THREADS - 1) / W8A8_THREADS;
}

/* ---- fp8_scales ----
 * The scales of rows of E4M3, side by side.  Grid: w8a8_finish_grid_x(rows). */
struct fp8_scales_args {
    float *scale;     /* [rows] */
    const void *data; /* [rows, cols] */
    uint32_t rows, cols;
};

/* ---- fp8_finish ----
 * y[t,i] = x_scale[t] * w_scale[i] * sums[t,i] + bias[i], or that added to y; sums may be y.
 * Grid: as w8a8_finish. */
struct fp8_finish_args {
    float *y;             /* [n_rows, rows], stride y_stride */
    const float *sums;    /* [n_rows, rows], stride sums_stride */
    const float *x_scale; /* [n_rows] */
    const float *w_scale; /* [rows] */
    const float *bias;    /* [rows], or NULL */
    uint64_t y_stride, sums_stride;
    uint32_t rows;
    uint32_t add;
};

#endif
