/* packed_matrix.h - a matrix whose numbers lie in several tensors of a file: codes, scales, zero points.
 *
 * Element [row, col] is
 *
 *   integers   scale[row, g] * (code[row, col] - zero[row, g])
 *   FP8        scale[row / rows_each, g] * E4M3(byte[row, col])
 *
 * g being the group of the column: col / group_cols, or what a table says.  The formats differ in where a
 * number lies, and that is what these structs say; packed_tensors.h knows the formats.  All bytes are
 * little-endian and need no alignment.  Whoever makes such a struct has checked that all it reaches is there. */
#ifndef LLMD_GPU_WORKER_LOAD_PACKED_MATRIX_H
#define LLMD_GPU_WORKER_LOAD_PACKED_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu-worker/load/tensor_type.h"

/* Unsigned integers of 4 or 8 bits in 32-bit words. */
struct packed_ints {
    const uint8_t *words;        /* NULL: there are none */
    uint32_t bits;               /* 4 or 8 */
    bool is_down;                /* a word holds elements below each other, else side by side */
    uint64_t row_step, col_step; /* words to the next word down, and to the right */
    uint8_t shift[8];            /* of each element of a word */
};

struct packed_scales {
    const uint8_t *data;
    enum tensor_type type;       /* a plain one */
    uint64_t row_step, col_step; /* elements */
    uint32_t rows_each;          /* rows that have one scale */
};

enum packed_kind { PACKED_WORDS, PACKED_INT8, PACKED_FP8 };

struct packed_matrix {
    enum packed_kind kind;
    uint32_t rows, cols;
    struct packed_ints codes; /* of PACKED_WORDS: [rows, cols] */
    const uint8_t *bytes;     /* of the others: [rows, cols] */
    struct packed_scales scales;
    struct packed_ints zeros; /* [rows, n_groups]; no words: all are `zero` */
    int32_t zero;
    int32_t zero_shift; /* is added to what is read: GPTQ's first format has 1 less in the file */
    uint32_t group_cols, n_groups;
    const uint8_t *group_of; /* [cols] int32, each below n_groups; NULL: col / group_cols */
};

/* Rows row .. row + n_rows - 1, of each the columns col .. col + n_cols - 1. */
struct packed_part {
    uint32_t row, n_rows, col, n_cols;
};

/* All zero points are half the range of the codes, so that code - zero is a signed integer of that many bits. */
bool packed_matrix_is_centred(const struct packed_matrix *m);

/* No aligned run of 32 columns has two groups. */
bool packed_matrix_has_whole_blocks(const struct packed_matrix *m);

/* y [n_rows, n_cols], each value rounded to float once. */
void packed_matrix_floats(const struct packed_matrix *m, struct packed_part part, float *y);

/* Integers in whole blocks, as tensor_type_to_codes() gives rows of blocks; part.col is a multiple of 32.
 *   codes    [n_rows, n_cols]
 *   numbers  [n_rows, n_cols / 32 rounded up, 1 or 2]: the scale, rounded to float16 where it is none;
 *            with_min: and -scale * zero, rounded to float16; codes are then those of the file, else those less
 *            the zero point, which must be the centre
 * FP8 with one scale a row: codes are the bytes of E4M3, numbers [n_rows, 2] the scales, each a float in two halves. */
void packed_matrix_codes(const struct packed_matrix *m, struct packed_part part, bool with_min,
                         int8_t *codes, uint16_t *numbers);

#endif
