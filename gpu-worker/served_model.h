/* served_model.h - a model directory and the settings it is served with, before there is any rank of it.
 *
 * runtime_inspect() makes sizes of it (runtime_inspect.c), runtime_open() a running rank (runtime.c): what both must
 * agree on is here. */
#ifndef LLMD_GPU_WORKER_SERVED_MODEL_H
#define LLMD_GPU_WORKER_SERVED_MODEL_H

#include "gpu-worker/backend/backend.h"
#include "gpu-worker/comm/comm.h"
#include "gpu-worker/load/model_config.h"
#include "gpu-worker/models/llama.h"
#include "gpu-worker/runtime.h"

struct model {
    struct model_config c;
    struct tensors *files; /* until model_close() */
    struct model_info info;
    struct kv_scale kv_scales[MODEL_CONFIG_LAYERS_MAX]; /* [c.n_layers] of the files */
    uint32_t n_kv_scales;                               /* layers that have some there */
};

/* Read the configuration, check it against the settings, and open the files.  Whatever comes of it, model_close().
 * ERR_CONFIG, ERR_MODEL, ERR_SYS. */
bool model_open(struct model *m, const struct config *config, uint32_t tp_size, struct err *e);
void model_close(struct model *m); /* the files alone: the rest stays; a zeroed model is fine */

struct llama_shard model_shard(const struct config *config, const struct backend_kind *kind,
                               uint32_t rank);

/* An empty plan of weights as that backend stores them. */
struct weights_plan model_empty_plan(const struct config *config, const struct backend_kind *kind);

/* Plan the weights of one shard, and complete m->info.  ERR_MODEL. */
bool model_plan(struct model *m, const struct config *config, struct llama_shard shard,
                struct weights_plan *plan, struct err *e);

/* Of KV pages.  auto: float16.  Logits of the demo model then stay within 2e-3 of the float32 reference. */
enum dtype model_kv_dtype(const struct config *config, const struct backend_kind *kind);

/* KV pages that n_tokens of one sequence take. */
uint32_t model_pages_for(const struct config *config, uint64_t n_tokens);

/* What a shard's stream of ops must be made for; memory of KV pages and rope's frequencies are still to come, and the
 * pages' format is what the settings want: the backend knows what it keeps.  It has a pointer into *m. */
struct ops_setup model_ops_setup(const struct model *m, const struct config *config,
                                 struct llama_shard shard);

struct comm_shape model_comm_shape(const struct model *m, const struct config *config,
                                   uint32_t tp_size, const struct backend_kind *kind);

#endif
