/* encode.h - numbers into the formats of tensor_type.h: the way back from tensor_type_to_float().
 *
 * Q8_0 takes the scale that its largest element needs.  The coarser types look for the scale, and minimum, that
 * leave the smallest squared error of the block: a few candidates around the one that the extremes give, each
 * improved by least squares. */
#ifndef LLMD_GPU_WORKER_TOOL_ENCODE_H
#define LLMD_GPU_WORKER_TOOL_ENCODE_H

#include "gpu-worker/load/tensor_type.h"

/* F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1. */
bool encode_can(enum tensor_type t);

/* n elements, a multiple of the type's block; all finite.  What is too large for a type becomes its largest. */
void encode_row(enum tensor_type t, void *out, const float *x, uint64_t n);

#endif
