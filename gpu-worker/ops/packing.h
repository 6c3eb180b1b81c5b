/* packing.h - how a matrix lies in the weights segment: in panels of rows, one after the other.
 *
 * A panel is a run of output rows, with all their columns, in the order in which a kernel reads them.  The
 * layout depends on the number format alone, so every instruction set reads the same bytes:
 *
 *   F32, F16, BF16   packing_float.h
 *   I8, I4           panels of 16 rows; along the columns superblocks of 64, each two blocks of 32:
 *
 *     64 bytes    f16 scale of block 0 [16 rows] | of block 1 [16 rows]
 *     I8: 2 x 8 lines of 64 bytes (1088 a superblock); line c of a block has columns 4c .. 4c+3 of row r in
 *         its bytes 4r .. 4r+3, as code + 128
 *     I4: 2 x 4 lines of 64 bytes (576 a superblock); low halves of the bytes are line c, high halves are
 *         line c + 4 of the same order, as code + 8
 *
 *   An element is scale * code, code in -128..127 or -8..7.  One 32-bit lane is one row, so no kernel adds
 *   across lanes; codes are offset, not signed, since the dot products of x86 multiply unsigned by signed
 *   bytes, and the offset comes off with the sum of the input (int_input.h).
 *
 * Rows that the last panel lacks, and columns that its layout rounds up, are zero: in I8 and I4 code 0,
 * and scale 0 where a whole block is one. */
#ifndef LLMD_GPU_WORKER_OPS_PACKING_H
#define LLMD_GPU_WORKER_OPS_PACKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

/* Stands in the weights' layout hash: bumped with any change of a layout or of the rounding. */
enum { PACKING_VERSION = 3, PACKING_PANEL_ROWS_MAX = 32 };

/* Of I8 and I4. */
enum {
    PACKING_INT_ROWS = 16,
    PACKING_BLOCK = 32,      /* columns that share a scale */
    PACKING_SUPERBLOCK = 64, /* columns */
    PACKING_SCALE_BYTES = 64,
    PACKING_I8_BYTES = 1088, /* of a superblock of a panel */
    PACKING_I4_BYTES = 576,
};

uint32_t packing_panel_rows(enum dtype t);
size_t packing_panel_bytes(enum dtype t, uint32_t cols);

static inline uint32_t packing_panels(enum dtype t, uint64_t rows)
{
    uint32_t n = packing_panel_rows(t);

    return (uint32_t)((rows + n - 1) / n);
}

static inline uint64_t packing_bytes(enum dtype t, uint64_t rows, uint32_t cols)
{
    return (uint64_t)packing_panels(t, rows) * packing_panel_bytes(t, cols);
}

static inline uint32_t packing_superblocks(uint32_t cols)
{
    return (cols + PACKING_SUPERBLOCK - 1) / PACKING_SUPERBLOCK;
}

/* Write one panel of n_rows <= packing_panel_rows() rows.
 *   rows  [n_rows, cols] exact values of a checkpoint of the same 16- or 32-bit format, or what is to be
 *         rounded (rounding.h) */
void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols);

/* One panel of F32, F16 or BF16 from rows of that very type, bit for bit; rows[r] may have any alignment. */
void packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                  uint32_t cols);

/* One panel of I8 or I4 from codes that have their scales already: bit for bit what they were.
 *   codes   [n_rows, cols]
 *   scales  [n_rows, cols / 32 rounded up] f16 */
void packing_pack_codes(enum dtype t, void *panel, const int8_t *codes, const uint16_t *scales,
                        uint32_t n_rows, uint32_t cols);

/* y[k] = matrix[row, k], k in 0..cols-1: rows of an embedding table. */
void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols);

#endif
