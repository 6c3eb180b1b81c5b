/* llama_internal.h - what llama_plan.c and llama.c must agree on. */
#ifndef LLMD_GPU_WORKER_MODELS_LLAMA_INTERNAL_H
#define LLMD_GPU_WORKER_MODELS_LLAMA_INTERNAL_H

#include <stdio.h>

#include "gpu-worker/models/llama.h"

struct span {
    uint32_t first, count;
};

/* This shard's part of n rows, heads or tokens; parts differ by one at most. */
struct span shard_span(uint32_t n, struct llama_shard s);

/* "layers.3.wo", or the bare name when layer < 0. */
static inline void llama_tensor_name(char out[WEIGHTS_NAME_BYTES], int layer, const char *name)
{
    if (layer >= 0)
        snprintf(out, WEIGHTS_NAME_BYTES, "layers.%d.%s", layer, name);
    else
        snprintf(out, WEIGHTS_NAME_BYTES, "%s", name);
}

#endif
