/* int_input.h - the input of integer products: rows of signed bytes with a scale for each 32 columns.
 *
 *   x[k] is about scale * code[k],  scale = max|x| / 127,  code in -127..127 (never -128, so that a code
 *   may change its sign)
 *
 * Tokens stand in tiles of nearly equal size n, at most what the unit's kernels take; a tile is, for each
 * block of 32 columns (the columns rounded up to 64):
 *
 *   int8 code[n][32] | float scale[n] | int32 off4[n] | int32 off8[n] | int32 off6[2][n] | float sum[n]
 *
 * so that a kernel reads it forwards, and rows do not lie a power of two apart.  off4 = -8 sum(code), off8
 * = -128 sum(code), off6 = -32 sum(code) of the first and the last 16 columns: what takes the offset of the
 * weights' codes (packing.h) off again, since sum((w + 8) x) - 8 sum(x) = sum(w x).  sum = scale * sum(code),
 * rounded once: what a minimum is multiplied with.
 *
 * The product, over blocks ascending from y[row] = 0, sum32 being the exact sum(w x), at most 32 * 128 * 127:
 *
 *   I8, I4      y[row] = fma(scale_w * scale_x, (float)sum32, y[row])
 *   I4M, I5M    the same, then y[row] = fma(min_w, sum_x, y[row])
 *   I6          the same twice: the first 16 columns with their scale_w, then the last 16 with theirs
 *
 * Every unit computes exactly this, so all give the same bits.  The norm too has one order for all: sixteen
 * lanes, lane l adds the squares of elements l, l + 16 .. by FMA, then lanes 8 apart are added, then 4, 2 and
 * 1 apart.
 *
 * A block whose largest magnitude is below 2^-96 is 0.  One with an infinity or a NaN has such a scale, so
 * its product is no number either. */
#ifndef LLMD_GPU_WORKER_OPS_INT_INPUT_H
#define LLMD_GPU_WORKER_OPS_INT_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/packing.h"

#define INT_INPUT_SMALLEST 0x1p-96f

enum { INT_INPUT_BYTES = 32 + 6 * 4 /* of a token and block */ };

/* One tile. */
struct int_tile {
    uint32_t first, n;    /* tokens */
    const uint8_t *block; /* its first block; the next is n * INT_INPUT_BYTES further */
};

static inline uint32_t int_tiles(uint32_t n_tokens, uint32_t size_max)
{
    return (n_tokens + size_max - 1) / size_max;
}

static inline uint32_t int_blocks(uint32_t cols)
{
    return packing_superblocks(cols) * (PACKING_SUPERBLOCK / PACKING_BLOCK);
}

/* Tile i of int_tiles(); sizes differ by one at most: 9 tokens are 4 + 5 rather than 8 + 1. */
static inline struct int_tile int_tile_at(const void *input, uint32_t cols, uint32_t n_tokens,
                                          uint32_t size_max, uint32_t i)
{
    uint64_t n = int_tiles(n_tokens, size_max);
    uint32_t first = (uint32_t)(n_tokens * (uint64_t)i / n);
    uint32_t end = (uint32_t)(n_tokens * (uint64_t)(i + 1) / n);

    return (struct int_tile){ first, end - first,
                              (const uint8_t *)input +
                                  (size_t)first * int_blocks(cols) * INT_INPUT_BYTES };
}

/* The one that has that token. */
static inline struct int_tile int_tile_of(const void *input, uint32_t cols, uint32_t n_tokens,
                                          uint32_t size_max, uint32_t token)
{
    uint64_t n = int_tiles(n_tokens, size_max);
    uint64_t i = ((token + 1) * n - 1) / n_tokens;

    return int_tile_at(input, cols, n_tokens, size_max, (uint32_t)i);
}

static inline const float *int_tile_scales(const uint8_t *block, uint32_t n)
{
    return (const float *)(block + (size_t)n * PACKING_BLOCK);
}

/* off4, off8, or off6 of the first 16 columns, with that of the last n further; of types with an offset. */
static inline const int32_t *int_tile_offsets(const uint8_t *block, uint32_t n,
                                              const enum dtype dtype)
{
    size_t words = dtype == DTYPE_I4 ? 1 : dtype == DTYPE_I8 ? 2 : 3;

    return (const int32_t *)(block + n * (PACKING_BLOCK + words * 4));
}

static inline const float *int_tile_sums(const uint8_t *block, uint32_t n)
{
    return (const float *)(block + (size_t)n * (PACKING_BLOCK + 5 * 4));
}

/* Where a token's block goes. */
struct int_slot {
    int8_t *codes;
    uint8_t *numbers; /* the scale; the others are n words apart */
    uint32_t n;
};

/* Block b of a tile, to be written. */
static inline uint8_t *int_tile_block(struct int_tile t, uint32_t b)
{
    return (uint8_t *)(uintptr_t)t.block + (size_t)b * t.n * INT_INPUT_BYTES;
}

/* Token i of a tile of n, in a block. */
static inline struct int_slot int_slot_of(uint8_t *block, uint32_t n, uint32_t i)
{
    uint8_t *codes = block + (size_t)i * PACKING_BLOCK;

    return (struct int_slot){ (int8_t *)codes, block + (size_t)n * PACKING_BLOCK + (size_t)i * 4,
                              n };
}

/* All but the codes; sums: of the first and the last 16 codes. */
static inline void int_slot_finish(struct int_slot to, float scale, const int32_t sums[2])
{
    int32_t sum = sums[0] + sums[1];
    float *f = (float *)to.numbers;
    int32_t *offset = (int32_t *)to.numbers;

    f[0] = scale;
    offset[to.n] = -8 * sum;
    offset[2 * to.n] = -128 * sum;
    offset[3 * to.n] = -32 * sums[0];
    offset[4 * to.n] = -32 * sums[1];
    f[5 * to.n] = scale * (float)sum;
}

/* ---- the output ---- */

/* y (+)= sums + bias for the n <= 16 rows of a panel that the matrix has. */
static inline void int_put(const struct linear_job *j, uint32_t row, uint32_t token,
                           const float sums[PACKING_INT_ROWS])
{
    float *y = j->y + token * j->y_stride + row;
    uint32_t left = j->rows - row, n = left < PACKING_INT_ROWS ? left : PACKING_INT_ROWS;

    for (uint32_t r = 0; r < n; r++) {
        float sum = j->bias ? sums[r] + j->bias[row + r] : sums[r];
        y[r] = j->add ? y[r] + sum : sum;
    }
}

#endif
