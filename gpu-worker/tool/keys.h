/* keys.h - the configuration of a HuggingFace directory as keys of a GGUF file: names of the GGUF specification
 * (github.com/ggml-org/ggml, docs/gguf.md), read back by load/model_config_gguf.c. */
#ifndef LLMD_GPU_WORKER_TOOL_KEYS_H
#define LLMD_GPU_WORKER_TOOL_KEYS_H

#include "common/gguf_write.h"
#include "gpu-worker/load/gguf_family.h"
#include "gpu-worker/load/model_config.h"

/* Vectors of rope that these files hold as tensors. */
struct convert_rope {
    float *freqs, *factors_short, *factors_long; /* [n]; NULL: none.  Caller frees */
    uint32_t n;
};
void convert_rope_fini(struct convert_rope *r);

/* Architecture, sizes, rope, and the ids at which a text ends that the tokenizer's keys do not name.  ERR_MODEL:
 * the configuration asks for what these keys cannot say. */
bool convert_put_keys(struct gguf_out *o, const struct gguf_family *f, const struct model_config *c,
                      struct convert_rope *rope, struct err *e);

/* tokenizer.chat_template, when the directory has one.  ERR_SYS, ERR_MODEL. */
bool convert_put_chat_template(struct gguf_out *o, const char *dir, struct err *e);

#endif
