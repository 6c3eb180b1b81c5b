/* quantize.h - which number format a matrix gets in memory: the setting `quantize`, and what the file has.
 *
 *   in the file                        none       int8    int4    fp8
 *   F32, F16, BF16: matrices           as it is   int8    int4    fp8
 *                   embedding, head    as it is   int8    int8    int8
 *   Q4_0                               int4, whatever the setting, as all below
 *   Q4_1, Q4_K                         int4 with a minimum
 *   Q5_0, Q5_1, Q5_K                   five bits with a minimum
 *   Q6_K, Q3_K                         six bits, 16 values a scale
 *   Q8_0, IQ4_NL                       int8
 *   Q2_K                               int8, rounded again: 16 values a scale and a minimum
 *   INT4                               int4        AWQ, GPTQ and compressed-tensors (packed_tensors.h): symmetric,
 *   INT4Z                              int4 with a minimum                                          with zero points,
 *   INT8                               int8                                                         8 bits
 *   FP8_ROWS                           fp8        int8    int4    fp8    embedding, head: int8, rounded again
 *   INT_MIXED, FP8                     int8, rounded again; int4 with int4
 *
 * fp8 is E4M3 with a scale a row, and a backend that has no kernels for it keeps int8 instead (struct packing's dtype()).
 *
 * INT4Z in int8, whose codes could be exact, would take 8.5 bits for 5, and its logits are no nearer (demo model, AWQ
 * with groups of 128: mean divergence from the same numbers in float 0.00007 nats either way, the rounding of the
 * input).  What is rounded again to int8 is off by 0.0001, to int4 by 0.005.
 *
 * But for Q2_K and the last the codes are those of the file.  (With two bits, Q2_K in int8 is off by less than what
 * rounding the input costs.)
 *
 * Norms and biases are vectors and stay float; a router of experts stays exact, whoever plans it sees to that
 * (an error there changes which experts are asked).  The head keeps eight bits because every logit's
 * error is seen at once, the embedding because rows of it are what everything begins with, and in small
 * models both are one matrix. */
#ifndef LLMD_GPU_WORKER_LOAD_QUANTIZE_H
#define LLMD_GPU_WORKER_LOAD_QUANTIZE_H

#include <stdbool.h>

#include "gpu-worker/load/quantization.h"
#include "gpu-worker/load/tensor_type.h"
#include "proto/dtype.h"

enum quantize { QUANTIZE_NONE, QUANTIZE_INT8, QUANTIZE_INT4, QUANTIZE_FP8 };

/* What the matrix does in the model. */
enum quantize_role { ROLE_MATRIX, ROLE_EMBEDDING /* of tokens, or the head */ };

/* The setting's words: "none", "int8", "int4", "fp8"; the methods of quantization.h are "none", for the files have them. */
enum quantize quantize_of(const char *setting);

/* A setting that names a method goes with files that have it; "marlin", a kernel for both, with AWQ and GPTQ.
 * ERR_CONFIG. */
bool quantize_check(const char *setting, const struct quantization *q, struct err *e);

enum dtype quantize_dtype(enum quantize q, enum quantize_role role, enum tensor_type from);

/* Elements of `from` become `to` by their codes (tensor_type_to_codes(), packing_pack_codes()). */
bool quantize_keeps_codes(enum tensor_type from, enum dtype to);

#endif
