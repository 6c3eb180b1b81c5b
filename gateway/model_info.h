/* model_info.h - what the gateway must know of a model besides its tokenizer: how long a sequence may
 * be, which ids end one, and the sampling its makers recommend (generation_config.json). */
#ifndef LLMD_GATEWAY_MODEL_INFO_H
#define LLMD_GATEWAY_MODEL_INFO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { MODEL_EOS_MAX = 16 };

/* A number the model's files may or may not give. */
struct model_default {
    bool is_set;
    double value;
};

struct model_info {
    uint32_t max_model_len; /* max_position_embeddings */
    uint32_t vocab_size;
    int32_t eos[MODEL_EOS_MAX]; /* of generation_config.json, else config.json */
    uint32_t n_eos;
    struct model_default temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens;
};

/* Read <dir>/config.json and, when there is one, <dir>/generation_config.json; or a GGUF file's metadata.
 * ERR_SYS, ERR_MODEL, ERR_CONFIG (gguf_locate()). */
bool model_info_read(struct model_info *info, const char *model, struct err *e);

bool model_info_is_eos(const struct model_info *info, int32_t token);

#endif
