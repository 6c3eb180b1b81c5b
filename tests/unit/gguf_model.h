/* gguf_model.h - a HuggingFace directory as a GGUF file, as the tools that make such files write it: names, keys,
 * rotary rows side by side, Gemma's norms with the one added, experts in one tensor, the tokenizer's lists.
 *
 * So that writer and reader are not wrong in the same way, files of it were run by llama.cpp (of node-llama-cpp 3.22.1) once:
 * the demo model gave the tokens of golden.json, and random float32 models of all families the logits of checkpoint.h,
 * to 1e-5 (Gemma to 1e-3, whose activation is a table there). */
#ifndef LLMD_TESTS_GGUF_MODEL_H
#define LLMD_TESTS_GGUF_MODEL_H

#include "tests/unit/gguf_writer.h"

/* Add keys and tensors of the model in dir, its types kept; vectors become float32. */
void gguf_model_put(struct gguf_writer *w, const char *dir);

/* The ids that end a text, for a model whose tokenizer is not put. */
void gguf_model_put_ends(struct gguf_writer *w, const char *dir);

/* The whole model, without tokenizer, as dir/name. */
void gguf_model_write(const char *from, const char *dir, const char *name);

#endif
