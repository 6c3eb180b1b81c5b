/* quantize.h - which number format a matrix gets in memory: the setting `quantize`, and what the file has.
 *
 *   in the file                        none       int8    int4
 *   F32, F16, BF16: matrices           as it is   int8    int4
 *                   embedding, head    as it is   int8    int8
 *   Q4_0                               int4, whatever the setting: exact
 *   Q8_0, Q5_0, IQ4_NL                 int8, whatever the setting: exact
 *   other block formats                int8, whatever the setting: rounded again, 32 values a scale
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

/* Elements of `from` become `to` bit for bit, by codes (tensor_type_to_codes(), packing_pack_codes()). */
bool quantize_is_exact(enum tensor_type from, enum dtype to);

#endif
