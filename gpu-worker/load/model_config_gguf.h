/* model_config_gguf.h - struct model_config from the metadata of a GGUF file.
 *
 * The metadata is written as the config.json that a HuggingFace directory of the same model has, and that is
 * read by model_config_parse(): so there is one place that knows what a field means and what is allowed. */
#ifndef LLMD_GPU_WORKER_LOAD_MODEL_CONFIG_GGUF_H
#define LLMD_GPU_WORKER_LOAD_MODEL_CONFIG_GGUF_H

#include "common/buf.h"
#include "gpu-worker/load/gguf_set.h"
#include "gpu-worker/load/model_config.h"

/* ERR_MODEL or ERR_SYS. */
bool model_config_read_gguf(struct model_config *c, const char *path, struct err *e);

/* The same from an open set. */
bool model_config_from_gguf(struct model_config *c, const struct gguf_set *set, struct err *e);

/* Append the config.json. */
bool model_config_gguf_json(struct buf *json, const struct gguf_set *set, struct err *e);

#endif
