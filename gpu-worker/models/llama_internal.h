/* llama_internal.h - what the files of the family share.
 *
 *   llama.c       the forward pass
 *   llama_open.c  tensors of the segment bound to the structs below, buffers made
 *   llama_plan.c  which tensors of the files make the segment */
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

/* A gated MLP; "my" is this rank's range of rows. */
struct mlp {
    struct weight gate, up; /* [my inner, dim] */
    struct weight down;     /* [my dim, inner], or split: [dim, my inner] */
};

struct experts {
    struct weight router; /* [n_experts, dim], whole */
    struct weight *gate, *up,
        *down; /* [n_experts] each: [my expert inner, dim], [my dim, expert inner] */
    struct mlp shared;
    struct weight shared_gate; /* [1, dim], whole */
};

struct layer {
    const float *attn_norm, *mlp_norm;           /* [dim] */
    const float *attn_post_norm, *mlp_post_norm; /* [dim], or NULL */
    struct head_norm head_norm;                  /* of configurations with qk_norm */
    struct weight qkv[3];                        /* each [my heads * head_dim, dim] */
    struct weight o;                             /* [my dim, q_dim], or split: [dim, my q] */
    struct attention_shape attention;
    bool o_is_split, down_is_split; /* each rank has some columns, and a part of every sum */
    struct mlp mlp;                 /* of a dense layer */
    struct experts experts;         /* of a sparse one */
};

struct llama {
    const struct model_config *c;
    const struct ops *ops;
    struct ops_stream *stream;
    struct comm *comm;
    uint32_t q_dim; /* of the whole model */
    /* In the last layer those without logits end (ops.h); with other ranks all go on. */
    bool drops_rows;
    struct span my_q, my_dim, my_inner, my_expert_inner, my_shared_inner, my_vocab;
    struct weight embed, head; /* [my vocab, dim] */
    const float *norm;         /* [dim] */
    struct layer *layers;
    struct weight *experts; /* what the layers' gate, up and down point into */
    /* gathered: every rank writes its columns, then all read all */
    void *x;     /* [rows, dim] the residual stream */
    void *y;     /* [rows, dim] what is normalised or summed before it is added; or none */
    void *heads; /* [rows, q_dim] attention's output */
    void *inner; /* [rows, inner] the MLP's activations, or [rows * n_experts_used, expert_inner] */
    void *shared;  /* [rows, shared_expert_inner] */
    float *logits; /* [logits, vocab], in host memory */
    /* this rank's own */
    void *qkv; /* [rows, my q, k, v] */
};

/* The columns of q, k and v that this rank has. */
static inline uint32_t llama_my_qkv(const struct layer *l)
{
    return l->qkv[0].rows + l->qkv[1].rows + l->qkv[2].rows;
}

#endif
