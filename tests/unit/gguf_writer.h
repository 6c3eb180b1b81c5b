/* gguf_writer.h - GGUF files for tests, well-formed and otherwise: written from the specification, with no line
 * of the reader. */
#ifndef LLMD_TESTS_GGUF_WRITER_H
#define LLMD_TESTS_GGUF_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

/* A zeroed struct is an empty file of version 3 and alignment 32. */
struct gguf_writer {
    struct buf pairs, tensors, data;
    uint64_t n_pairs, n_tensors;
    uint32_t version;   /* 0: 3 */
    uint32_t alignment; /* 0: 32; else also written as a key */
};

/* The value as the file shall have it. */
void gguf_put(struct gguf_writer *w, const char *key, uint32_t type, const void *value, size_t n);

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_string(struct gguf_writer *w, const char *key, const char *v);
void gguf_put_bytes(struct gguf_writer *w, const char *key, const char *v, size_t n);
void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n);
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n);

/* An array of strings: begun with its count, then each of them. */
void gguf_put_strings(struct gguf_writer *w, const char *key, size_t n);
void gguf_add_string(struct gguf_writer *w, const char *v, size_t n);

/* type: the format's number.  rows 0: a vector of cols. */
void gguf_put_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint64_t rows,
                     uint64_t cols, const void *data, size_t n);
void gguf_put_tensor_3d(struct gguf_writer *w, const char *name, uint32_t type,
                        const uint64_t dims[3], const void *data, size_t n);

/* The whole file; the writer is empty again.  buf_fini() it. */
struct buf gguf_finish(struct gguf_writer *w);

#endif
