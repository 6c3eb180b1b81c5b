/* gguf_write.h - a GGUF file, version 3, written from front to back: metadata and the list of tensors are held in
 * memory, their data goes straight to the file, so that a model larger than memory can be written.
 *
 *   struct gguf_out out = { 0 };
 *   gguf_out_string(&out, "general.architecture", "llama") ...   all keys
 *   gguf_out_tensor(&out, ...)                                   all tensors, in order
 *   gguf_out_head(&out, &head)                                   bytes before the data
 *   then each tensor's bytes, padded to GGUF_OUT_ALIGNMENT by gguf_out_padding() */
#ifndef LLMD_COMMON_GGUF_WRITE_H
#define LLMD_COMMON_GGUF_WRITE_H

#include "common/buf.h"
#include "common/gguf.h"

enum { GGUF_OUT_ALIGNMENT = 32 };

struct gguf_out {
    struct buf pairs, tensors;
    uint64_t n_pairs, n_tensors, data_bytes;
};

void gguf_out_fini(struct gguf_out *o);

void gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v);
void gguf_out_f32(struct gguf_out *o, const char *key, float v);
void gguf_out_bool(struct gguf_out *o, const char *key, bool v);
void gguf_out_string(struct gguf_out *o, const char *key, const char *s);
void gguf_out_f32s(struct gguf_out *o, const char *key, const float *v, uint64_t n);
void gguf_out_i32s(struct gguf_out *o, const char *key, const int32_t *v, uint64_t n);
/* An array of n strings: begun, then each added. */
void gguf_out_strings(struct gguf_out *o, const char *key, uint64_t n);
void gguf_out_add(struct gguf_out *o, const char *s, size_t n);
/* A pair of another file, as it stands there. */
void gguf_out_copy(struct gguf_out *o, const struct gguf_pair *pair);

/* type: the format's number.  dims: elements of a row first. */
void gguf_out_tensor(struct gguf_out *o, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *dims, uint64_t bytes);

void gguf_out_head(const struct gguf_out *o, struct buf *head);
uint64_t gguf_out_padding(uint64_t bytes); /* behind a tensor of so many */

#endif
