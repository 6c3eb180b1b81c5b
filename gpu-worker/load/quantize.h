/* quantize.h - which number format a matrix gets in memory: the setting `quantize`, and what the file has.
 *
 *   in the file                        none       int8    int4
 *   F32, F16, BF16: matrices           as it is   int8    int4
 *                   embedding, head    as it is   int8    int8
 *   Q4_0                               int4, whatever the setting, as all below
 *   Q4_1, Q4_K                         int4 with a minimum
 *   Q5_0, Q5_1, Q5_K                   five bits with a minimum
 *   Q6_K, Q3_K                         six bits, 16 values a scale
 *   Q8_0, IQ4_NL                       int8
 *   Q2_K                               int8, rounded again: 16 values a scale and a minimum
 *
 * but for Q2_K the codes are those of the file.  (With two bits, Q2_K in int8 is off by less than what rounding the
 * input costs.)
 *
 * Norms and biases are vectors and stay float; a router of experts stays exact, whoever plans it sees to that
 * (an error there changes which experts are asked).  The head keeps eight bits because every logit's
 * error is seen at once, the embedding because rows of it are what everything begins with, and in small
 * models both are one matrix. */
#ifndef LLMD_GPU_WORKER_LOAD_QUANTIZE_H
#define LLMD_GPU_WORKER_LOAD_QUANTIZE_H

#include <stdbool.h>

#include "gpu-worker/load/tensor_type.h"
#include "proto/dtype.h"

enum quantize { QUANTIZE_NONE, QUANTIZE_INT8, QUANTIZE_INT4 };

/* What the matrix does in the model. */
enum quantize_role { ROLE_MATRIX, ROLE_EMBEDDING /* of tokens, or the head */ };

/* The setting's words: "none", "int8", "int4". */
enum quantize quantize_of(const char *setting);

enum dtype quantize_dtype(enum quantize q, enum quantize_role role, enum tensor_type from);

/* Elements of `from` become `to` by their codes (tensor_type_to_codes(), packing_pack_codes()). */
bool quantize_keeps_codes(enum tensor_type from, enum dtype to);

#endif
