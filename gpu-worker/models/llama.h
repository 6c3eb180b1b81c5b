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
 * Tensor parallel.  Rank r holds a range of the output rows of every matrix, all columns (column-parallel).  So each
 * sum has one rank and one order, and any tp_size gives the same bits.  Each layer gathers four times: attention's
 * output, the residual stream, the MLP's inner activations, the residual stream again.  Experts are cut like any
 * MLP, each over all ranks.  On the CPU a gather is a barrier over shared memory, and this is the right choice.
 *
 * Between GPUs an exchange costs more than the sums that it saves.  There (splits_sums) o and a dense layer's down are
 * cut along their columns instead (row-parallel; Shoeybi et al. 2019, arXiv:1909.08053): what a rank has of
 * attention's output or of the inner activations is what its part of the matrix wants, and one all-reduce adds the
 * ranks' sums to the residual stream.  Half the exchanges; the same bits on all ranks, but for each tp_size others.  A matrix
 * whose columns cannot be cut between whole blocks of its format stays column-parallel. */
#ifndef LLMD_GPU_WORKER_MODELS_LLAMA_H
#define LLMD_GPU_WORKER_MODELS_LLAMA_H

#include "gpu-worker/comm/comm.h"
#include "gpu-worker/load/model_config.h"
#include "gpu-worker/load/weights.h"
#include "gpu-worker/ops/ops.h"

struct llama_shard {
    uint32_t rank, tp_size;
    bool splits_sums; /* see above; the same on all ranks */
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
/* What divides every column at which some rank's part of a buffer begins, and how wide it is. */
uint32_t llama_column_unit(const struct model_config *c, uint32_t tp_size);
uint32_t llama_vocab_max(const struct model_config *c, struct llama_shard shard);

/* Bytes of comm_alloc() that a model needs for steps of rows_max rows, and of comm_alloc_host() for logits_max
 * logits. */
uint64_t llama_activation_bytes(const struct model_config *c, struct llama_shard shard,
                                uint32_t rows_max, size_t act_bytes);
uint64_t llama_logits_bytes(const struct model_config *c, uint32_t logits_max);

struct llama;

/* Everything is borrowed until llama_close().  Never fails: the plan has checked the weights. */
struct llama *llama_open(const struct model_config *c, struct llama_shard shard,
                         const struct weights *weights, const struct ops *ops,
                         struct ops_stream *stream, struct comm *comm, uint32_t rows_max,
                         uint32_t logits_max);
void llama_close(struct llama *m); /* NULL is fine */

/* Before the first step: have all loaded that steps need, so that none of them waits for it.  Each rank by itself.
 * ERR_DEVICE. */
bool llama_rehearse(struct llama *m, struct err *e);

/* Run one step with the other ranks.  Then llama_logits() are those of b->logit_rows, but for the rows of `draws` (or
 * NULL) that the device has drawn from: runtime.h.  ERR_DEVICE: a peer is gone, or the device has failed. */
bool llama_forward(struct llama *m, const struct batch *b, const struct sampler_rows *draws,
                   struct err *e);
const float *llama_logits(const struct llama *m); /* [n_logits, vocab_size]; rank 0 may read all */

/* Between steps, while nobody waits for one: prepare what makes later ones faster, one thing at a time.  Every rank, when
 * it is due on rank 0.  ERR_DEVICE. */
bool llama_rest_is_due(const struct llama *m);
bool llama_rest(struct llama *m, struct err *e);

/* norm(x) of rows of the last step, whose batch said wants_hidden; out: [n, hidden_size].  Any rank, before the next
 * step.  ERR_DEVICE. */
bool llama_hidden(struct llama *m, uint32_t first_row, uint32_t n, float *out, struct err *e);

#endif
