/* model.h - models of random weights, made where they are needed: one to be served while it is killed, and one of the
 * shape of Llama 2 7B to be timed.
 *
 * Random weights run as fast as trained ones.  A file lies in the run's scratch folder and is made once. */
#ifndef LLMD_CUDA_VERIFY_MODEL_H
#define LLMD_CUDA_VERIFY_MODEL_H

#include "bench/shapes.h"
#include "gpu-worker/cuda/verify/items.h"

enum { MODEL_PATH_BYTES = 300 };

/* Some 0.9 GB, wide enough that a long prompt makes messages for NCCL; tiny in the dry run. */
const struct shape *model_served_shape(const struct verify *v);

/* Llama 2 7B with as many of its 32 layers as scratch folder and GPU have room for; tiny in the dry run. */
struct shape model_timed_shape(const struct verify *v);

/* The file of a model of that shape in float16.  false: told on r. */
bool model_make(const struct verify *v, const struct shape *shape, char path[MODEL_PATH_BYTES],
                struct item_report *r);

/* Weights of all matrices that are in a file of this shape. */
double model_file_weights(const struct shape *shape);

#endif
