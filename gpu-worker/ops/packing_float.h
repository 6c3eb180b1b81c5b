/* packing_float.h - panels of F32, F16 and BF16 matrices (packing.h).
 *
 *   F32    panels of 16 rows: [cols][16]
 *   F16    panels of 32 rows: [cols][32]
 *   BF16   panels of 32 rows: [cols / 2][32][2], a 32-bit word holding a row's columns 2k and 2k + 1, as the
 *          instruction for BF16 products wants them; without it, a shift and a mask widen both
 *
 * A 32-bit lane of a vector is one row in all of them, so that no kernel adds across lanes; each step along
 * the columns is a whole number of cache lines, read forwards.  An odd last column of BF16 has a partner of
 * zeroes. */
#ifndef LLMD_GPU_WORKER_OPS_PACKING_FLOAT_H
#define LLMD_GPU_WORKER_OPS_PACKING_FLOAT_H

#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

enum { PACKING_FLOAT_ROWS_MAX = 32 };

uint32_t packing_float_rows(enum dtype t); /* of a panel */
size_t packing_float_bytes(enum dtype t, uint32_t cols);

/* One panel from n_rows rows of the same type, the same bits; rows[r] may have any alignment. */
void packing_float_interleave(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                              uint32_t cols);

/* One panel from rounded floats: rows [n_rows, cols]. */
void packing_float_round(enum dtype t, void *panel, const float *rows, uint32_t n_rows,
                         uint32_t cols);

/* Row `row` of a panel as floats. */
void packing_float_row(enum dtype t, float *y, const void *panel, uint32_t row, uint32_t cols);

#endif
