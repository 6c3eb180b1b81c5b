/* packing.h - how a matrix lies in the weights segment: in panels of rows, one after the other.
 *
 * A panel is a run of output rows, with all their columns, in the order in which a kernel reads them.  The
 * layout depends on the number format alone, so every instruction set reads the same bytes:
 *
 *   F32, F16, BF16   packing_float.h
 *
 * Rows that the last panel lacks, and columns that its layout rounds up, are zero. */
#ifndef LLMD_GPU_WORKER_OPS_PACKING_H
#define LLMD_GPU_WORKER_OPS_PACKING_H

#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

/* Stands in the weights' layout hash: bumped with any change of a layout. */
enum { PACKING_VERSION = 3, PACKING_PANEL_ROWS_MAX = 32 };

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

/* Write one panel of n_rows <= packing_panel_rows() rows.
 *   rows  [n_rows, cols] exact values of a checkpoint of the same 16- or 32-bit format, or what is to be rounded */
void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols);

/* One panel of F32, F16 or BF16 from rows of that very type, bit for bit; rows[r] may have any alignment. */
void packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                  uint32_t cols);

/* y[k] = matrix[row, k], k in 0..cols-1: rows of an embedding table. */
void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols);

#endif
