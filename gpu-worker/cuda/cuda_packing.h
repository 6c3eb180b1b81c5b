/* cuda_packing.h - how a matrix lies in a GPU's weights: the numbers of ops/packing.h in another order.
 *
 * Packed by the host while the weights are loaded; functions have the shapes of packing.h's, so that one table
 * can stand for either.  A panel is a run of output rows, with all their columns:
 *
 *   F32, F16, BF16   panels of one row: its columns in order, then zeroes up to a multiple of 8 elements.  So a
 *                    matrix is plain rows of cuda_packing_stride() elements, as cuBLASLt reads them.
 *   E4M3             panels of one row too: its codes, a byte each, then zeroes up to a multiple of 16; the row's scale,
 *                    a float; zeroes up to a multiple of 128 (e4m3_row_bytes() of kernels/gemv.h).  An element is
 *                    scale * code.  cuBLASLt reads the codes as they lie.
 *   I8, I4, I4M      panels of 16 rows; along the columns superblocks of 64, S of them, the last ones padded:
 *
 *     codes    [S] superblocks, each in the order in which the lanes of one warp load 16 bytes at a time
 *     numbers  [S] x 64 bytes (I8, I4) or 128 bytes (I4M)
 *
 *   Lane 4g + t (g 0..7, t 0..3) has columns 16t .. 16t+15 of rows g and g+8 of each superblock: that is a share
 *   of the A operand of mma.m16n8k16 for four steps, columns permuted (step s has 16t+4s .. 16t+4s+3 where the
 *   manual has 2t, 2t+1, 2t+8, 2t+9; a sum does not mind, as long as the other operand does the same), and all
 *   of it lies in one block of 32 columns.
 *
 *     I8    [2 rows g, g+8][32 lanes] 16 bytes, code + 128 of each column
 *     I4    [32 lanes] 16 bytes: four 32-bit words, columns 0..7 and 8..15 of row g, then those of row g+8;
 *           of a word's columns c, code + 8 is the half byte c / 2 + 4 * (c % 2), so that a mask of 0x000f000f
 *           takes a pair of neighbours into the halves of a register
 *     I4M   the same, the code as it is (0..15)
 *
 *     numbers of I8, I4   [2 blocks of 32 columns][8 g] { scale of row g, of row g+8 }                   f16
 *     numbers of I4M      [2 blocks of 32 columns][8 g] { scale g, scale g+8, minimum g, minimum g+8 }   f16
 *
 *     type   an element is         bytes of a superblock   bits a weight
 *     I8     scale * code          1024 + 64               8.5
 *     I4     scale * code           512 + 64               4.5
 *     I4M    scale * code + min     512 + 128              5
 *
 * Rows that the last panel lacks and blocks that are all padding: code 0, numbers 0.  Columns that the last block
 * lacks: code 0; whoever reads them has 0 as their input.  I5M and I6 have no layout of their own: their
 * matrices become F16 when they are loaded (cuda_packing_dtype()). */
#ifndef LLMD_CUDA_CUDA_PACKING_H
#define LLMD_CUDA_CUDA_PACKING_H

#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

/* Stands in the weights' layout hash, apart from the CPU's numbers: bumped with any change of the layout. */
enum { CUDA_PACKING_VERSION = 1001, CUDA_PACKING_PANEL_ROWS_MAX = 16 };

/* The type that a matrix of type t has on the device. */
static inline enum dtype cuda_packing_dtype(enum dtype t)
{
    return t == DTYPE_I5M || t == DTYPE_I6 ? DTYPE_F16 : t;
}

/* Elements from one row of a float matrix to the next. */
static inline uint32_t cuda_packing_stride(uint32_t cols)
{
    return (cols + 7) / 8 * 8;
}

uint32_t cuda_packing_panel_rows(enum dtype t);
size_t cuda_packing_panel_bytes(enum dtype t, uint32_t cols); /* a multiple of 16 */

/* Write one panel of n_rows <= cuda_packing_panel_rows() rows, rounding as packing_pack() does: the same codes
 * and numbers.  E4M3: scale = largest magnitude / 448, codes to nearest.
 *   t     a float format, E4M3, I8 or I4
 *   rows  [n_rows, cols] */
void cuda_packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows,
                       uint32_t cols);

/* One panel of F32, F16 or BF16 from rows of that very type, bit for bit; rows[r] may have any alignment. */
void cuda_packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                       uint32_t cols);

/* One panel of I8, I4, I4M or E4M3 from codes that have their numbers already: bit for bit what they were.
 *   codes    [n_rows, cols], in the range of t
 *   numbers  [n_rows, cols / 32 rounded up, packing_numbers(t)] f16; E4M3: [n_rows, 2], a float in two halves */
void cuda_packing_pack_codes(enum dtype t, void *panel, const int8_t *codes,
                             const uint16_t *numbers, uint32_t n_rows, uint32_t cols);

/* y[k] = matrix[row, k], k in 0..cols-1: the same bits as packing_unpack_row() gives, of the types that it knows. */
void cuda_packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row,
                             uint32_t cols);

#endif
