/* model_files.h - write a Llama of random parameters, as HuggingFace directories are. */
#ifndef LLMD_TESTS_CHAOS_MODEL_FILES_H
#define LLMD_TESTS_CHAOS_MODEL_FILES_H

#include <stdbool.h>
#include <stdint.h>

struct model_shape {
    uint32_t vocab; /* at most that of the tokenizer */
    uint32_t hidden, inner, layers, heads, kv_heads, head_dim, positions;
};

enum { MODEL_LAYERS_MAX = 8 };

/* Files of `dir`, which is made if it is not there; the tokenizer is copied from the directory `tokenizer`.  Matrices
 * are scaled by their width, so that activations and logits stay near one.  false, and said on stderr. */
bool model_files_write(const struct model_shape *shape, const char *tokenizer, const char *dir);
/* How many parameters it has. */
uint64_t model_files_parameters(const struct model_shape *shape);

#endif
