/* llama.h - Llama and its descendants.
 *
 *   Llama 1-3          the plan: norm, attention, norm, gated MLP, each added to the residual stream
 *   Mistral            + sliding window
 *   Qwen 2             + biases of q, k, v                    Qwen 3   + norm of each head of q and k
 *   Phi-3, Phi-4 mini  + fused tensors, partial rope, longrope
 *   Gemma              + gelu, scaled embedding               Gemma 2  + norms behind each sub-layer, soft
 *                        caps, a window in every second layer
 *   Mixtral, Qwen 2 and 3 MoE   the MLP is a mixture of experts, Qwen 2's with one that all rows share
 *
 * Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288; Jiang et al. 2023, arXiv:2310.06825, and 2024,
 * arXiv:2401.04088; Qwen team 2024, arXiv:2407.10671, and 2025, arXiv:2505.09388; Abdin et al. 2024,
 * arXiv:2404.14219; Gemma team 2024, arXiv:2403.08295 and arXiv:2408.00118.  What differs between them is a
 * field of struct model_config or a tensor that is there or not.
 *
 * Tensor parallel, column-parallel everywhere: rank r holds a range of the output rows of every matrix,
 * all columns.  So each sum has one rank and one order, and any tp_size gives the same bits.  Each layer
 * gathers four times: attention's output, the residual stream, the MLP's inner activations, the residual
 * stream again.  Experts are cut like any MLP, each over all ranks.  On the CPU a gather is a barrier over shared memory, and this is the right choice.  On
 * GPUs o and down would be cut along their columns instead (row-parallel: half the exchanges, one
 * all-reduce each, sums then split by rank): that is a change of shard_of_o_and_down() and of the two
 * places that write the residual stream. */
#ifndef LLMD_GPU_WORKER_MODELS_LLAMA_H
#define LLMD_GPU_WORKER_MODELS_LLAMA_H

#include "gpu-worker/comm/comm.h"
#include "gpu-worker/load/model_config.h"
#include "gpu-worker/load/weights.h"
#include "gpu-worker/ops/ops.h"

struct llama_shard {
    uint32_t rank, tp_size;
};

/* Whether the model can be cut in that many shards.  ERR_CONFIG. */
bool llama_check_shard(const struct model_config *c, uint32_t tp_size, struct err *e);

/* What the weights segment of a shard is made of.  ERR_MODEL. */
bool llama_plan(struct weights_plan *p, const struct model_config *c, struct llama_shard shard,
                const struct tensors *ts, struct err *e);

/* This rank's heads, for ops_setup. */
uint32_t llama_n_heads(const struct model_config *c, struct llama_shard shard);
uint32_t llama_n_kv_heads(const struct model_config *c, struct llama_shard shard);

/* The widths of this rank's matrices, for ops_setup. */
uint32_t llama_cols_max(const struct model_config *c);
uint32_t llama_gated_max(const struct model_config *c, struct llama_shard shard);
uint32_t llama_down_max(const struct model_config *c, struct llama_shard shard);

/* Bytes of comm_alloc() that a model needs, for steps of rows_max rows and logits_max logits. */
uint64_t llama_exchange_bytes(const struct model_config *c, uint32_t rows_max, uint32_t logits_max,
                              size_t act_bytes);

struct llama;

/* Everything is borrowed until llama_close().  Never fails: the plan has checked the weights. */
struct llama *llama_open(const struct model_config *c, struct llama_shard shard,
                         const struct weights *weights, const struct ops *ops,
                         struct ops_stream *stream, struct comm *comm, uint32_t rows_max,
                         uint32_t logits_max);
void llama_close(struct llama *m); /* NULL is fine */

/* Run one step with the other ranks.  Then llama_logits() are those of b->logit_rows.  ERR_DEVICE: a
 * peer is gone. */
bool llama_forward(struct llama *m, const struct batch *b, struct err *e);
const float *llama_logits(const struct llama *m); /* [n_logits, vocab_size]; rank 0 may read all */

/* norm(x) of rows of the last step, out: [n, hidden_size].  Any rank, before the next step. */
void llama_hidden(struct llama *m, uint32_t first_row, uint32_t n, float *out);

#endif
