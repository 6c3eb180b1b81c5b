/* gguf_model.h - what both llm-gateway and llm-worker must know of a model in a GGUF file. */
#ifndef LLMD_COMMON_GGUF_MODEL_H
#define LLMD_COMMON_GGUF_MODEL_H

#include "common/gguf.h"

enum { GGUF_KEY_BYTES = 128 };

/* "llama.context_length": the architecture's own key.  ERR_MODEL when the file names no architecture. */
bool gguf_model_key(const struct gguf *g, const char *suffix, char key[GGUF_KEY_BYTES],
                    struct err *e);

/* A count of the architecture's own, 1 .. INT32_MAX. */
bool gguf_model_count(const struct gguf *g, const char *suffix, uint32_t *v, struct err *e);

/* Rows of the embedding: the key, else the length of the token list. */
bool gguf_model_vocab_size(const struct gguf *g, uint32_t *v, struct err *e);

/* The ids at which a text ends: end of sequence, of turn and of message as the keys name them, and tokens
 * of their own spelled as published models spell them, since files made before those keys have only the first.
 * All different, each less than the vocabulary; at most max. */
uint32_t gguf_model_end_ids(const struct gguf *g, int32_t *ids, uint32_t max);

#endif
