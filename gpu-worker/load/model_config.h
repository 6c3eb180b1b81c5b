/* model_config.h - what config.json and generation_config.json of a HuggingFace model directory say.
 *
 * Every field that this build computes with is checked here, against its type, its range and the other
 * fields, so what holds a struct model_config may believe it.  What the file asks for and we do not compute
 * (an architecture, an activation, a kind of rope scaling, of quantised weights) is an error that names it:
 * wrong text is worse than none. */
#ifndef LLMD_GPU_WORKER_LOAD_MODEL_CONFIG_H
#define LLMD_GPU_WORKER_LOAD_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/hash.h"
#include "gpu-worker/load/quantization.h"
#include "gpu-worker/ops/ops.h"

enum {
    MODEL_CONFIG_EOS_MAX = 16,
    MODEL_CONFIG_BYTES_MAX = 4 << 20,
    MODEL_CONFIG_LAYERS_MAX = 1 << 10,
    MODEL_CONFIG_HEAD_DIM_MAX = 1 << 10,
    MODEL_CONFIG_EXPERTS_MAX = EXPERTS_MAX,
};

/* How the frequencies theta^(-2i / rope_dim) of the pairs i are changed for long contexts. */
enum rope_scaling {
    ROPE_PLAIN,
    ROPE_LINEAR,  /* all divided by the factor */
    ROPE_LLAMA3,  /* low ones divided, between low_freq_factor and high_freq_factor blended */
    ROPE_YARN,    /* the same idea, blended between beta_slow and beta_fast turns */
    ROPE_FACTORS, /* each divided by its own number: longrope */
};

/* What may differ from layer to layer. */
struct model_layer {
    bool windowed; /* attention sees sliding_window positions, else all */
    bool sparse;   /* the MLP is a mixture of experts */
};

/* What a family does not have is zero or false: Llama is nearly all zeroes. */
struct model_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    uint32_t vocab_size, hidden_size, n_layers;
    uint32_t intermediate_size; /* of dense MLPs; set even when every layer is sparse */
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t positions_max; /* what the model was made for */
    float rms_norm_eps;
    struct model_layer layers[MODEL_CONFIG_LAYERS_MAX]; /* [n_layers] */

    /* embedding and head */
    bool tied_head;      /* the head is the embedding */
    float embed_scale;   /* embeddings are multiplied by it; 1, Gemma: sqrt(hidden_size) */
    float final_softcap; /* of logits; 0 = none */

    /* norms */
    bool norm_plus_one; /* the files' w means 1 + w (Gemma's safetensors, not its GGUF) */
    bool post_norms;    /* attention and MLP are normalised before they are added (Gemma 2) */

    /* attention */
    bool qkv_bias, o_bias;
    bool fused_qkv;          /* q, k and v are rows of one tensor, qkv_proj (Phi-3) */
    bool qk_norm;            /* RMSNorm over each head of q and k before rope (Qwen 3) */
    float query_scale;       /* scores are q . k times it; 1 / sqrt(head_dim) but for Gemma 2 */
    float attn_softcap;      /* of scores; 0 = none */
    uint32_t sliding_window; /* positions a windowed layer's row sees, itself included; 0 = all */

    /* rope */
    uint32_t rope_dim; /* the first dimensions of a head, which are turned; even */
    double rope_theta;
    enum rope_scaling rope_scaling;
    double rope_factor;             /* linear, llama3, yarn */
    double rope_original_positions; /* llama3, yarn, factors: of the first training */
    double rope_low_freq_factor, rope_high_freq_factor; /* llama3 */
    double rope_beta_fast, rope_beta_slow;              /* yarn: turns in the original positions */
    bool rope_yarn_exact;  /* yarn: the blend's ends are not rounded to whole pairs */
    double rope_amplitude; /* yarn, factors: turned dimensions are multiplied by it; else 1 */
    /* factors: divisors of the rope_dim / 2 frequencies, the long ones when max_model_len is above
     * rope_original_positions.  A file with but one list fills both with it. */
    float rope_short[MODEL_CONFIG_HEAD_DIM_MAX / 2], rope_long[MODEL_CONFIG_HEAD_DIM_MAX / 2];

    /* MLP */
    enum activation activation;
    bool mlp_bias;
    bool fused_gate_up; /* gate and up are rows of one tensor, gate_up_proj (Phi-3) */

    /* mixture of experts, in the layers that are sparse */
    uint32_t n_experts, n_experts_used; /* 0: there are no sparse layers */
    uint32_t expert_inner;              /* intermediate size of one expert */
    uint32_t shared_expert_inner;       /* of one that every row takes, times a sigmoid; 0 = none */
    bool norm_topk_prob;                /* the weights of the chosen experts sum to 1 */
    /* Tensors are named as Mixtral does: block_sparse_moe.experts.3.w1 (gate), w3 (up), w2 (down), else as
     * Qwen does: mlp.experts.3.gate_proj. */
    bool block_sparse_moe;

    struct quantization quantization; /* of the files' weights */
    int32_t eos[MODEL_CONFIG_EOS_MAX];
    uint32_t n_eos;
    struct hash128 digest; /* of the files' bytes */
};

/* Read dir/config.json and, when there is one, dir/generation_config.json (and the older files of
 * quantization.h); or the metadata of a GGUF file.
 * ERR_MODEL, ERR_SYS, or ERR_CONFIG (gguf_locate()). */
bool model_config_read(struct model_config *c, const char *model, struct err *e);

/* The same from bytes; generation may be NULL.  ERR_MODEL. */
bool model_config_parse(struct model_config *c, const char *config, size_t config_bytes,
                        const char *generation, size_t generation_bytes, struct err *e);

/* Radians per position of each pair of a head: [rope_dim / 2], scaling applied, for a service of
 * max_model_len tokens.
 * Su et al. 2021, arXiv:2104.09864; linear: Chen et al. 2023, arXiv:2306.15595; llama3: Llama team 2024,
 * arXiv:2407.21783, as in the reference code of its release 3.1; yarn: Peng et al. 2023, arXiv:2309.00071;
 * longrope: Ding et al. 2024, arXiv:2402.13753. */
void model_config_rope_freq(const struct model_config *c, uint32_t max_model_len, double *freq);

#endif
