/* tensor_type.h - number formats of tensors as model files hold them, and what their bytes mean.
 *
 * Plain types hold one number an element.  The others hold blocks of 32 or 256 elements of a row, with scales
 * inside: the block formats of GGUF files, as the GGUF specification and the structures of GGML define them
 * (github.com/ggml-org/ggml, docs/gguf.md and src/ggml-common.h; the formats of 256 are known as k-quants).
 * A row always has whole blocks.  All bytes are little-endian, and need no alignment.
 *
 *   type    block  bytes  an element is                                           bits a weight
 *   Q4_0       32     18  d * (q - 8), q of 4 bits                                        4.5
 *   Q4_1       32     20  d * q + m, q of 4 bits                                          5
 *   Q5_0       32     22  d * (q - 16), q of 5 bits                                       5.5
 *   Q5_1       32     24  d * q + m, q of 5 bits                                          6
 *   Q8_0       32     34  d * q, q an int8                                                8.5
 *   IQ4_NL     32     18  d * values[q], q of 4 bits, values uneven                       4.5
 *   Q2_K      256     84  (d * s) * q - (dmin * m), q of 2 bits, s and m of 4 for 16      2.625
 *   Q3_K      256    110  (d * (s - 32)) * (q - 4), q of 3 bits, s of 6 for 16            3.4375
 *   Q4_K      256    144  (d * s) * q - (dmin * m), q of 4 bits, s and m of 6 for 32      4.5
 *   Q5_K      256    176  the same with q of 5 bits                                       5.5
 *   Q6_K      256    210  (d * s) * (q - 32), q of 6 bits, s an int8 for 16               6.5625
 *   d, m and dmin are float16.
 *
 * The last six lie in several tensors of a directory and are known together with them only (packed_matrix.h):
 *
 *   INT4        scale * (q - 8), q of 4 bits; one scale for any whole block of 32
 *   INT4Z       scale * (q - zero), q and zero of 4 bits, the same
 *   INT8        scale * q, q an int8, the same
 *   INT_MIXED   other integers: scales that change within a block, zero points of 8 bits
 *   FP8_ROWS    scale * E4M3; one scale for a row, or for all
 *   FP8         scale * E4M3; scales for blocks */
#ifndef LLMD_GPU_WORKER_LOAD_TENSOR_TYPE_H
#define LLMD_GPU_WORKER_LOAD_TENSOR_TYPE_H

#include <stdbool.h>
#include <stdint.h>

enum tensor_type {
    TENSOR_NONE, /* one that this build does not read */
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_Q8_0,
    TENSOR_Q4_0,
    TENSOR_Q4_1,
    TENSOR_Q5_0,
    TENSOR_Q5_1,
    TENSOR_Q2_K,
    TENSOR_Q3_K,
    TENSOR_Q4_K,
    TENSOR_Q5_K,
    TENSOR_Q6_K,
    TENSOR_IQ4_NL,
    TENSOR_INT4,
    TENSOR_INT4Z,
    TENSOR_INT8,
    TENSOR_INT_MIXED,
    TENSOR_FP8_ROWS,
    TENSOR_FP8,
    N_TENSOR_TYPES,
    N_TENSOR_BYTES_TYPES = TENSOR_INT4, /* before it: those of which a row lies in one place */
};

enum { TENSOR_TYPE_BLOCK_MAX = 256, TENSOR_TYPE_CODES_GROUP = 32 };

const char *tensor_type_name(enum tensor_type t); /* "Q4_K" */

/* Elements a block; 1 for plain types. */
uint32_t tensor_type_block(enum tensor_type t);

/* Bytes of n elements, a multiple of the block.  UINT64_MAX when they do not fit; 0 for TENSOR_NONE and types
 * in several tensors. */
uint64_t tensor_type_bytes(enum tensor_type t, uint64_t n);

/* y[i] is element i of x, for n elements, a multiple of the block.  The value is what the format defines,
 * rounded to a float once: exact but for types with a minimum, whose subtraction or addition rounds. */
void tensor_type_to_float(enum tensor_type t, float *y, const void *x, uint64_t n);

/* A row as int8 codes with float16 numbers: how many for each 32 elements, 0 where the type cannot be given
 * so.  All codes are the file's, and so are the numbers of the types of 32; products of two numbers, of the
 * types of 256, are rounded to float16.
 *
 *   types                          numbers         element i is                        codes
 *   Q8_0                           scale           numbers[i / 32] * codes[i]          any int8
 *   Q4_0                           scale           the same                            -8..7
 *   IQ4_NL                         scale           the same                            -127..113
 *   Q4_1, Q4_K                     scale, minimum  numbers[i / 32 * 2] * codes[i]      0..15
 *                                                    + numbers[i / 32 * 2 + 1]
 *   Q5_1, Q5_K, Q5_0               scale, minimum  the same                            0..31
 *   Q6_K                           two scales      numbers[i / 16] * codes[i]          -32..31
 *   Q3_K                           two scales      the same                            -4..3
 *   INT4, INT8                     scale           numbers[i / 32] * codes[i]          -8..7, any int8
 *   INT4Z                          scale, minimum  numbers[i / 32 * 2] * codes[i]      0..15
 *                                                    + numbers[i / 32 * 2 + 1]
 *
 * FP8_ROWS has bytes of E4M3, and a scale a row that is no float16 (packed_matrix_codes()).
 *
 * The minimum of INT4Z is -scale * zero, rounded to float16.  The minimum of Q5_0 is -16 scales: infinite from scale 4,096 on. */
uint32_t tensor_type_numbers(enum tensor_type t);

/*   codes    [n]
 *   numbers  [n / 32, tensor_type_numbers(t)]; a sign, zero, infinity, whatever stands in the file */
void tensor_type_to_codes(enum tensor_type t, int8_t *codes, uint16_t *numbers, const void *x,
                          uint64_t n);

#endif
