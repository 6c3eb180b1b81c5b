/* packed_tensors.h - several tensors of a quantised checkpoint become one: NAME.weight, [out, in], as the model wants it.
 *
 * in columns, out rows, groups of columns g = in / group size (the last may be shorter), w = 32 / bits elements a
 * word.  "down" and "across" are as seen on [out, in].
 *
 *   AWQ gemm    NAME.qweight  I32 [in, out / 8]     4 bits, a word: 8 rows below each other, in the order
 *               NAME.qzeros   I32 [g, out / 8]      0 2 4 6 1 3 5 7 from the low bits up
 *               NAME.scales   F16 [g, out]
 *   AWQ gemv    NAME.qweight  I32 [out, in / 8]     a word: 8 columns side by side, in order
 *               NAME.qzeros   I32 [out, >= g / 8]   the same, groups side by side
 *               NAME.scales   F16 [out, >= g]
 *   GPTQ        NAME.qweight  I32 [in / w, out]     4 or 8 bits, a word: w columns side by side, in order
 *               NAME.qzeros   I32 [g, out / w]      rows below each other, in order; less 1 but in gptq_v2
 *               NAME.scales   F16 [g, out]
 *               NAME.g_idx    I32 [in]              may be missing; the group of each column
 *   compressed-tensors
 *     packed    NAME.weight_packed      I32 [out, in / w]   columns side by side, in order
 *               NAME.weight_shape       I64 [2]             out, in
 *               NAME.weight_scale       [out, g]            F16, BF16 or F32
 *               NAME.weight_zero_point  I32 [out / w, g]    may be missing; rows below each other
 *               NAME.weight_g_idx       I32 [in]            may be missing, or begin with -1: no table
 *     int8      NAME.weight             I8 [out, in], NAME.weight_scale [out, g]
 *   FP8         NAME.weight             F8_E4M3 [out, in], with NAME.weight_scale or NAME.weight_scale_inv: one
 *               number, one a row, or [out / block rows, in / block columns]; both are multiplied with
 *
 * The layouts are those that the tools which write such files describe: AutoAWQ (Lin et al. 2023, arXiv:2306.00978),
 * AutoGPTQ and GPTQModel (Frantar et al. 2022, arXiv:2210.17323), compressed-tensors.
 *
 * What a matrix may become exactly, or nearly, is its type (tensor_type.h): with one group in every block of 32
 * columns codes stay what they are. */
#ifndef LLMD_GPU_WORKER_LOAD_PACKED_TENSORS_H
#define LLMD_GPU_WORKER_LOAD_PACKED_TENSORS_H

#include "gpu-worker/load/quantization.h"
#include "gpu-worker/load/tensors.h"

/* Put the parts of each matrix together.  *ts is sorted before and after.  ERR_MODEL names the tensor that is missing,
 * or has not the shape or type that the others want, or indexes a group that is not there. */
bool packed_tensors_join(struct tensors *ts, const struct quantization *q, struct err *e);

#endif
