/* gemv.h - arguments and launch geometry of gemv.cu: products of a few rows of float x with weights (K1, K2, K3).
 *
 *   y[t,i] = sum_k w[i,k] x'[t,k] + bias[i],  x' = norm(x) or x          ops.h: linear, gated, logits, experts_*
 *
 * Weights are in the layouts of cuda_packing.h.  One launch has up to four matrices of one format and the same
 * columns, side by side in y.  A block of GEMV_THREADS takes tiles of output rows until none is left, for up to
 * eight rows of x; more rows of x are further blocks (grid y).  Each row's sums run in an order that depends on
 * cols alone, so a row's result is the same bits whatever it is computed with, and whichever kernel of a format
 * (its slots of rows) computes it.
 *
 * Bound by memory: the weights are read once a launch and eight rows of x.
 *
 * Pointers are device addresses.  x' is staged in a block's shared memory; rows that are too wide for that must
 * be readable 16 bytes at a time (gemv_is_by_fours()). */
#ifndef LLMD_CUDA_KERNELS_GEMV_H
#define LLMD_CUDA_KERNELS_GEMV_H

#include <assert.h>
#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"
#include "gpu-worker/cuda/kernels/moe.h"

enum {
    GEMV_THREADS = 256,
    GEMV_WARPS = GEMV_THREADS / 32,
    GEMV_MATRICES_MAX = 4,
    GEMV_ROWS_MAX = 8, /* of x, in one block */
};

/* Of the weights: plain rows, then, from I8 on, panels. */
enum gemv_format {
    GEMV_F32,
    GEMV_F16,
    GEMV_BF16,
    GEMV_E4M3,
    GEMV_I8,
    GEMV_I4,
    GEMV_I4M,
    N_GEMV_FORMATS
};

/* Rows of E4M3: codes, zeroes up to a multiple of 16; the row's scale, a float; up to whole lines of 128 bytes. */
KBOTH uint32_t e4m3_codes_bytes(uint32_t cols)
{
    return (cols + 15) / 16 * 16;
}

KBOTH uint32_t e4m3_row_bytes(uint32_t cols)
{
    return (e4m3_codes_bytes(cols) + 4 + 127) / 128 * 128;
}

enum gemv_mode {
    GEMV_SET,        /* y = */
    GEMV_ADD,        /* y += */
    GEMV_GATED_SILU, /* y = silu(w[0] x') * (w[1] x'); two matrices of the same shape */
    GEMV_GATED_GELU, /* y = gelu_tanh(w[0] x') * (w[1] x') */
    GEMV_SOFTCAP,    /* y = softcap * tanh(w x' / softcap) */
};

struct gemv_matrix {
    const void *data;       /* [rows, cols] */
    const float *bias;      /* [rows], or NULL */
    uint64_t expert_bytes;  /* from the data of one expert to the next one's; 0 without groups */
    uint64_t expert_biases; /* elements from the bias of one expert to the next one's */
    uint32_t rows;
    uint32_t column; /* of y, that its row 0 goes to; a gated launch uses that of w[0] */
};

struct gemv_args {
    float *y;             /* [n_rows, .], stride y_stride */
    const float *x;       /* [., cols], stride x_stride */
    const float *norm;    /* [cols] weights of RMSNorm, or NULL: x as it is */
    const uint32_t *rows; /* [n_rows] of x that y's rows are made from, or NULL: the same */
    const struct moe_group
        *groups; /* [grid y] rows of y by expert (moe.h), or NULL: grid y counts eights */
    uint64_t y_stride, x_stride; /* elements */
    uint32_t n_rows;             /* of y; any number.  With groups: at least those of any group */
    uint32_t cols;
    uint32_t n_w;
    uint32_t mode;   /* enum gemv_mode */
    uint32_t staged; /* x' is in shared memory; gemv_launch() sets it */
    float eps, softcap;
    struct gemv_matrix w[GEMV_MATRICES_MAX];
};

/* ---- launch geometry ---- */

/* What the launch must know of the GPU. */
struct gemv_device {
    uint32_t n_multiprocessors;
    uint32_t shared_block_bytes;          /* most dynamic shared memory of a block (opted in) */
    uint32_t shared_multiprocessor_bytes; /* of all blocks of one */
};

struct gemv_launch {
    const char *kernel;
    uint32_t grid_x, grid_y, shared_bytes; /* dynamic */
};

/* Rows of x that a block of the chosen kernel has room for: 1 or 8. */
KBOTH uint32_t gemv_slots(uint32_t n_rows)
{
    return n_rows <= 1 ? 1 : GEMV_ROWS_MAX;
}

/* Output rows of a tile. */
KBOTH uint32_t gemv_tile_rows(uint32_t format, uint32_t slots)
{
    if (format >= GEMV_I8)
        return 16;
    return slots == 1 || format == GEMV_E4M3 ? 2 * GEMV_WARPS : 4 * GEMV_WARPS;
}

KBOTH uint32_t gemv_matrix_tiles(uint32_t rows, uint32_t tile_rows)
{
    return (rows + tile_rows - 1) / tile_rows;
}

KBOTH int gemv_is_gated(uint32_t mode)
{
    return mode == GEMV_GATED_SILU || mode == GEMV_GATED_GELU;
}

/* Floats of a row of staged x': whole runs of 128, within which they change places, whatever the format. */
KBOTH uint32_t gemv_staged_cols(uint32_t cols)
{
    return (cols + 127) / 128 * 128;
}

/* Whether rows of x can be read 16 bytes at a time. */
KBOTH int gemv_is_by_fours(const struct gemv_args *a)
{
    return a->cols % 4 == 0 && a->x_stride % 4 == 0 &&
           ((uintptr_t)a->x | (uintptr_t)a->norm) % 16 == 0;
}

#ifndef __cplusplus /* of the host alone: in C++ a function hides a type of its name */

static inline const char *gemv_kernel(uint32_t format, uint32_t slots)
{
    static const char *const names[N_GEMV_FORMATS][2] = {
        { "gemv_f32_1", "gemv_f32_8" },   { "gemv_f16_1", "gemv_f16_8" },
        { "gemv_bf16_1", "gemv_bf16_8" }, { "gemv_e4m3_1", "gemv_e4m3_8" },
        { "gemv_i8_1", "gemv_i8_8" },     { "gemv_i4_1", "gemv_i4_8" },
        { "gemv_i4m_1", "gemv_i4m_8" },
    };

    return names[format][slots == 1 ? 0 : 1];
}

/* Blocks that share a multiprocessor, each with `shared` bytes. */
static inline uint32_t gemv_blocks_each(const struct gemv_device *d, uint32_t shared)
{
    uint32_t fit = d->shared_multiprocessor_bytes / (shared + 4096);

    return fit < 2 ? 1 : 2; /* their registers allow no third */
}

/* How to launch *a, with GEMV_THREADS; sets a->staged.  n_groups: of a->groups; 0 without.  There must be a row
 * of x and of every matrix. */
static inline struct gemv_launch gemv_launch(struct gemv_args *a, uint32_t format,
                                             uint32_t n_groups, const struct gemv_device *d)
{
    uint32_t slots = gemv_slots(a->n_rows), tile = gemv_tile_rows(format, slots), n_tiles = 0;
    uint32_t staged = a->n_rows < slots ? a->n_rows : slots;
    uint32_t bytes = staged * gemv_staged_cols(a->cols) * 4, blocks;
    struct gemv_launch l = { gemv_kernel(format, slots), 0, 0, 0 };

    a->staged = bytes + 8192 <= d->shared_block_bytes;
    assert(a->staged || gemv_is_by_fours(a));
    l.shared_bytes = a->staged ? bytes : 16; /* none would be an error in the shim */
    l.grid_y = n_groups > 0 ? n_groups : (a->n_rows + slots - 1) / slots;
    for (uint32_t m = 0; m < (gemv_is_gated(a->mode) ? 1 : a->n_w); m++)
        n_tiles += gemv_matrix_tiles(a->w[m].rows, tile);
    blocks = d->n_multiprocessors * gemv_blocks_each(d, l.shared_bytes);
    blocks = (blocks + l.grid_y - 1) / l.grid_y;
    l.grid_x = n_tiles < blocks ? n_tiles : blocks;
    return l;
}

#endif

#endif
