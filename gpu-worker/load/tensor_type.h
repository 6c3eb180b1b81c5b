/* tensor_type.h - the number formats that tensors of model files have, and what their elements are worth.
 *
 * Plain formats have blocks of one element. */
#ifndef LLMD_GPU_WORKER_LOAD_TENSOR_TYPE_H
#define LLMD_GPU_WORKER_LOAD_TENSOR_TYPE_H

#include <stdint.h>

enum tensor_type { TENSOR_NONE, TENSOR_F32, TENSOR_F16, TENSOR_BF16, N_TENSOR_TYPES };

const char *tensor_type_name(enum tensor_type t);
uint32_t tensor_type_block(enum tensor_type t);             /* elements */
uint64_t tensor_type_bytes(enum tensor_type t, uint64_t n); /* n: whole blocks */

/* The exact value of each of n elements, whole blocks.  x need not be aligned. */
void tensor_type_to_float(enum tensor_type t, float *y, const void *x, uint64_t n);

#endif
