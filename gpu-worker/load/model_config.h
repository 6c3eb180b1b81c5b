/* model_config.h - what config.json and generation_config.json of a HuggingFace model directory say.
 *
 * Every field that this build computes with is checked here, against its type, its range and the other
 * fields, so what holds a struct model_config may believe it.  What the file asks for and we do not compute
 * (an architecture, an activation, a kind of rope scaling, quantised weights) is an error that names it:
 * wrong text is worse than none. */
#ifndef LLMD_GPU_WORKER_LOAD_MODEL_CONFIG_H
#define LLMD_GPU_WORKER_LOAD_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/hash.h"

enum { MODEL_CONFIG_EOS_MAX = 16, MODEL_CONFIG_BYTES_MAX = 4 << 20 };

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

struct model_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    uint32_t vocab_size, hidden_size, intermediate_size, n_layers;
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t positions_max; /* what the model was made for */
    float rms_norm_eps;
    bool qkv_bias, o_bias, mlp_bias, tied_head;
    uint32_t sliding_window;    /* positions a row sees, itself included; 0 = all */
    uint32_t window_from_layer; /* first layer that has the window */
    double rope_theta;
    enum rope_scaling rope_scaling;
    double rope_factor; /* linear, llama3 */
    double rope_low_freq_factor, rope_high_freq_factor, rope_original_positions; /* llama3 */
    int32_t eos[MODEL_CONFIG_EOS_MAX];
    uint32_t n_eos;
    struct hash128 digest; /* of the files' bytes */
};

/* Read dir/config.json and, when there is one, dir/generation_config.json.  ERR_MODEL or ERR_SYS. */
bool model_config_read(struct model_config *c, const char *dir, struct err *e);

/* The same from bytes; generation may be NULL.  ERR_MODEL. */
bool model_config_parse(struct model_config *c, const char *config, size_t config_bytes,
                        const char *generation, size_t generation_bytes, struct err *e);

/* Radians per position of each pair of a head: [head_dim / 2], scaling applied.
 * Su et al. 2021, arXiv:2104.09864; linear: Chen et al. 2023, arXiv:2306.15595; llama3: Llama team 2024,
 * arXiv:2407.21783, as in the reference code of its release 3.1. */
void model_config_rope_freq(const struct model_config *c, double *freq);

#endif
