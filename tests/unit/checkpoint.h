/* checkpoint.h - small random models on disk, and what they compute, in double precision.
 *
 * The forward pass here shares no line with gpu-worker/: it is written from the papers and the published
 * configuration fields, one position at a time, so that both would have to be wrong in the same way. */
#ifndef LLMD_TESTS_CHECKPOINT_H
#define LLMD_TESTS_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/dtype.h"

enum { CHECKPOINT_TENSORS_MAX = 256, CHECKPOINT_POSITIONS = 64 };

/* What an architecture always has (biases of Qwen2, norms of Gemma2 ..) follows from its name. */
struct checkpoint_spec {
    const char *architecture;
    uint32_t hidden, inner, layers, heads, kv_heads, head_dim, vocab;
    enum dtype dtype;
    bool tied, qkv_bias, o_bias, mlp_bias;
    uint32_t window, window_from_layer; /* 0 = none */
    double theta;
    double linear_factor; /* 0 = none */
    double llama3_factor; /* 0 = none; low 1, high 4, original 16 positions */
    double yarn_factor;   /* 0 = none; beta 1 and 0.1, original 16 positions */
    uint32_t
        longrope_original; /* positions; 0 = none.  Divisors 1 + i / 20 and, above it, 1 + i / 2 */
    uint32_t rotary;       /* dimensions of a head that are turned; 0 = all */
    double query_scalar, attn_cap, final_cap; /* Gemma2 */
    uint32_t experts, experts_used, expert_inner, shared_inner;
    bool norm_topk;
    uint32_t sparse_step, dense_layer; /* of Qwen's; 0: every layer is sparse, no layer is dense */
    uint32_t n_files;                  /* 1: model.safetensors, more: with an index */
};

struct checkpoint_tensor {
    char name[64];
    uint32_t rows, cols; /* cols 0: a vector */
    double *values;      /* as stored */
    void *coded;
};

struct checkpoint {
    struct checkpoint_spec spec;
    char dir[64];
    struct checkpoint_tensor tensors[CHECKPOINT_TENSORS_MAX];
    uint32_t n;
};

/* Write a model with random weights into a fresh directory. */
void checkpoint_make(struct checkpoint *c, const struct checkpoint_spec *spec, uint64_t seed);
/* Remove directory and memory. */
void checkpoint_remove(struct checkpoint *c);

/* Logits after tokens[0..n-1]: [vocab] written. */
void checkpoint_logits(const struct checkpoint *c, const int32_t *tokens, uint32_t n,
                       double *logits);

/* A fresh directory under TMPDIR; the path is written to dir. */
void test_dir_make(char dir[64]);
void test_dir_write(const char *dir, const char *name, const void *bytes, size_t n);
/* Remove it with its files. */
void test_dir_remove(const char *dir);

#endif
