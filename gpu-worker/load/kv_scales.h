/* kv_scales.h - what a checkpoint says that keys and values are divided by before they are kept as fp8.
 *
 * Some FP8 checkpoints bring a number for the keys and one for the values of each layer, found on sample texts: the largest
 * over 448, which is E4M3's largest.  Names are those that vLLM reads (docs.vllm.ai, "Quantized KV Cache"; its model
 * loader), below model.layers.N.self_attn. :
 *
 *   k_scale, v_scale                                    also as attn.k_scale, attn.v_scale
 *   k_proj.k_scale, v_proj.v_scale                      also qkv_proj.k_scale, qkv_proj.v_scale
 *   k_proj.output_scale, v_proj.output_scale            compressed-tensors
 *   kv_scale                                            older ones: of both
 *
 * One without the other is for both, as there.  A scale for each KV head becomes the largest of them: steps of floats
 * are relative, so a scale matters only for what would be beyond 448, which it brings back, and for what is below
 * 2^-6, whose steps no longer shrink. */
#ifndef LLMD_GPU_WORKER_LOAD_KV_SCALES_H
#define LLMD_GPU_WORKER_LOAD_KV_SCALES_H

#include "gpu-worker/load/tensors.h"
#include "gpu-worker/ops/ops.h"

/* scales [n_layers]: 1 where the files have none.  *n_found: layers that have some.  ERR_MODEL: one is no positive number, or
 * of a type that is not read; *scales is then undefined. */
bool kv_scales_read(struct kv_scale *scales, uint32_t n_layers, const struct tensors *ts,
                    uint32_t *n_found, struct err *e);

#endif
