/* shapes.h - the model shapes that the comparison with llama.cpp uses, and what a step of one costs.
 *
 * Random weights run as fast as trained ones, so a shape, a weight type and a seed are all of a model here.
 * Bytes and operations are counted of the matrices alone: what every engine must read and multiply. */
#ifndef LLMD_BENCH_SHAPES_H
#define LLMD_BENCH_SHAPES_H

#include <stdint.h>

struct shape {
    const char *name;
    uint32_t n_layers, n_embd, n_ff;
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t vocab_size;
    uint32_t context_max;
};

/* Weight types of a GGUF file, with their numbers in it: ggml's tensor type and llama.cpp's file type. */
struct weight_type {
    const char *name;
    uint32_t tensor_type, file_type;
    uint32_t block_weights, block_bytes;
    uint32_t weight_bits; /* 4 or 8: products are made of integers; 16: of floats */
};

/* By name, in any case; NULL when there is none. */
const struct shape *shape_find(const char *name);
const struct weight_type *weight_type_find(const char *name);

/* "7b, 1.1b, ..." for people. */
void shape_names(char *out, uint32_t n);
void weight_type_names(char *out, uint32_t n);

/* Weights of all matrices that a decode step reads: layers and output, without the embedding. */
double shape_matrix_weights(const struct shape *s);
double weight_type_bytes(const struct weight_type *t, double n_weights);

/* Bytes of K and V of one token with 16-bit pages. */
double shape_kv_bytes(const struct shape *s);

#endif
