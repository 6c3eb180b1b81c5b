/* gguf_tokenizer.h - the tokenizer of a HuggingFace directory as the keys of a GGUF file. */
#ifndef LLMD_TESTS_GGUF_TOKENIZER_H
#define LLMD_TESTS_GGUF_TOKENIZER_H

#include "tests/unit/gguf_writer.h"

struct tokenizer;

/* Tokens with their kinds and scores, special ids.  A SentencePiece one: the whole of it. */
void gguf_put_sentencepiece(struct gguf_writer *w, const struct tokenizer *t, bool add_prefix);

/* A byte-level one: with the merges of this tokenizer.json, and the name of its pattern. */
void gguf_put_byte_level(struct gguf_writer *w, const struct tokenizer *t, const char *json,
                         size_t n, const char *pre);

#endif
