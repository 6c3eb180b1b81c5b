/* packing.h - how a matrix lies in the weights segment: in panels of rows, one after the other.
 *
 * A panel is a run of output rows, with all their columns, in the order in which a kernel reads them.  The
 * layout depends on the number format alone, so every instruction set reads the same bytes:
 *
 *   F32, F16, BF16   packing_float.h
 *   integers         panels of 16 rows; along the columns superblocks of 64, each two blocks of 32:
 *
 *     64 bytes    f16 scale of block 0 [16 rows] | of block 1 [16 rows]
 *     64 bytes    of the types with two numbers a block: the second ones in the same order
 *     2 x n lines of 64 bytes, n as below
 *
 *     type   an element is         code       lines of a block        superblock  bits a weight
 *     I8     scale * code          -128..127  8 bytes                       1088            8.5
 *     I4     scale * code          -8..7      4 halves                       576            4.5
 *     I4M    scale * code + min    0..15      4 halves                       640            5
 *     I5M    scale * code + min    0..31      4 halves, 1 fifth bits         768            6
 *     I6     scale * code          -32..31    4 halves, 2 upper bits         896            7
 *
 *     bytes: line c of a block has columns 4c .. 4c+3 of row r in its bytes 4r .. 4r+3
 *     halves: low halves of the bytes are line c, high halves are line c + 4 of the same order
 *     fifth bits: bit c of a byte belongs to line c
 *     upper bits: line i has two bits each of lines 4i .. 4i+3, those of 4i lowest
 *
 *   The second number of I4M and I5M is the minimum; that of I6 is the scale of the block's last 16 columns,
 *   the first one that of its first 16.  One 32-bit lane is one row, so no kernel adds across lanes; codes
 *   that may be negative lie as code + 128, 8 or 32, since the dot products of x86 multiply unsigned by
 *   signed bytes, and that offset comes off with the sum of the input (int_input.h).
 *
 * Rows that the last panel lacks, and columns that its layout rounds up, are zero: code 0 among integers,
 * and numbers 0 where a whole block is one.  (In a block that has columns left the minimum stays, for the
 * input is zero there.) */
#ifndef LLMD_GPU_WORKER_OPS_PACKING_H
#define LLMD_GPU_WORKER_OPS_PACKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

/* Stands in the weights' layout hash: bumped with any change of a layout or of the rounding. */
enum { PACKING_VERSION = 4, PACKING_PANEL_ROWS_MAX = 32 };

/* Of integers. */
enum {
    PACKING_INT_ROWS = 16,
    PACKING_BLOCK = 32,
    PACKING_SUPERBLOCK = 64, /* columns */
    PACKING_LINE_BYTES = 64, /* also of the first numbers of a superblock, and of the second */
    PACKING_NUMBERS_MAX = 2, /* of a row and block */
};

static inline bool packing_is_int(const enum dtype t)
{
    return t >= DTYPE_I8 && t <= DTYPE_I6;
}

static inline bool packing_has_min(const enum dtype t)
{
    return t == DTYPE_I4M || t == DTYPE_I5M;
}

/* Float16 numbers of a row and block. */
static inline uint32_t packing_numbers(const enum dtype t)
{
    return packing_has_min(t) || t == DTYPE_I6 ? 2 : 1;
}

/* Lines of a block. */
static inline uint32_t packing_lines(const enum dtype t)
{
    return t == DTYPE_I8 ? 8 : t == DTYPE_I5M ? 5 : t == DTYPE_I6 ? 6 : 4;
}

/* Of a superblock of a panel. */
static inline size_t packing_superblock_bytes(const enum dtype t)
{
    return (size_t)(packing_numbers(t) + 2 * packing_lines(t)) * PACKING_LINE_BYTES;
}

/* What a code lies higher in memory. */
static inline int packing_offset(const enum dtype t)
{
    return t == DTYPE_I8 ? 128 : t == DTYPE_I4 ? 8 : t == DTYPE_I6 ? 32 : 0;
}

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

/* Blocks of a row, padding included. */
static inline uint32_t packing_blocks(uint32_t cols)
{
    return packing_superblocks(cols) * (PACKING_SUPERBLOCK / PACKING_BLOCK);
}

/* Columns of block b that the matrix has; 0 for one that is all padding. */
static inline uint32_t packing_block_cols(uint32_t b, uint32_t cols)
{
    uint32_t first = b * PACKING_BLOCK, left = first < cols ? cols - first : 0;

    return left < PACKING_BLOCK ? left : PACKING_BLOCK;
}

/* Write one panel of n_rows <= packing_panel_rows() rows.
 *   t     a float format, I8 or I4: the others are made of codes alone
 *   rows  [n_rows, cols] exact values of a checkpoint of the same 16- or 32-bit format, or what is to be
 *         rounded (rounding.h) */
void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols);

/* One panel of F32, F16 or BF16 from rows of that very type, bit for bit; rows[r] may have any alignment. */
void packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                  uint32_t cols);

/* One panel of integers from codes that have their numbers already: bit for bit what they were.
 *   codes    [n_rows, cols], in the range of t
 *   numbers  [n_rows, cols / 32 rounded up, packing_numbers(t)] f16 */
void packing_pack_codes(enum dtype t, void *panel, const int8_t *codes, const uint16_t *numbers,
                        uint32_t n_rows, uint32_t cols);

/* How the matrices of one backend lie.  Loading goes through such a table and knows no layout; the functions of
 * each are called with the formats that its dtype() gives, and mean what those above do. */
struct packing {
    const char *name; /* "cpu", "cuda"; in the weights' layout hash, with .version */
    uint32_t version;
    /* In which format a matrix is stored that a model plans in format t: t, one that holds more, or the nearest. */
    enum dtype (*dtype)(enum dtype t);
    uint32_t (*panel_rows)(enum dtype t); /* 1..PACKING_PANEL_ROWS_MAX */
    size_t (*panel_bytes)(enum dtype t, uint32_t cols);
    void (*pack)(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols);
    void (*copy)(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                 uint32_t cols);
    void (*pack_codes)(enum dtype t, void *panel, const int8_t *codes, const uint16_t *numbers,
                       uint32_t n_rows, uint32_t cols);
};

extern const struct packing packing_cpu;

/* y[k] = matrix[row, k], k in 0..cols-1: rows of an embedding table. */
void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols);

#endif
