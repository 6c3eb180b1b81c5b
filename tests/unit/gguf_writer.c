/* gguf_writer.c - see gguf_writer.h. */
#include "tests/unit/gguf_writer.h"

#include <string.h>

static void add_u32(struct buf *b, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        buf_add_char(b, (char)(v >> 8 * i));
}

static void add_u64(struct buf *b, uint64_t v)
{
    add_u32(b, (uint32_t)v);
    add_u32(b, (uint32_t)(v >> 32));
}

static void add_text(struct buf *b, const char *s, size_t n)
{
    add_u64(b, n);
    buf_add(b, s, n);
}

static void begin(struct gguf_writer *w, const char *key, uint32_t type)
{
    add_text(&w->pairs, key, strlen(key));
    add_u32(&w->pairs, type);
    w->n_pairs++;
}

void gguf_put(struct gguf_writer *w, const char *key, uint32_t type, const void *value, size_t n)
{
    begin(w, key, type);
    buf_add(&w->pairs, value, n);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    begin(w, key, 4);
    add_u32(&w->pairs, v);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
    gguf_put(w, key, 6, &v, sizeof v);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
    gguf_put(w, key, 7, &(char){ v }, 1);
}

void gguf_put_bytes(struct gguf_writer *w, const char *key, const char *v, size_t n)
{
    begin(w, key, 8);
    add_text(&w->pairs, v, n);
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *v)
{
    gguf_put_bytes(w, key, v, strlen(v));
}

static void put_array(struct gguf_writer *w, const char *key, uint32_t of, size_t n)
{
    begin(w, key, 9);
    add_u32(&w->pairs, of);
    add_u64(&w->pairs, n);
}

void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n)
{
    put_array(w, key, 6, n);
    buf_add(&w->pairs, v, n * sizeof *v);
}

void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    put_array(w, key, 5, n);
    buf_add(&w->pairs, v, n * sizeof *v);
}

void gguf_put_strings(struct gguf_writer *w, const char *key, size_t n)
{
    put_array(w, key, 8, n);
}

void gguf_add_string(struct gguf_writer *w, const char *v, size_t n)
{
    add_text(&w->pairs, v, n);
}

static uint32_t alignment_of(const struct gguf_writer *w)
{
    return w->alignment ? w->alignment : 32;
}

static void pad(struct buf *b, size_t to)
{
    while (b->n % to != 0)
        buf_add_char(b, '\0');
}

static void put_tensor(struct gguf_writer *w, const char *name, uint32_t type, const uint64_t *dims,
                       uint32_t n_dims, const void *data, size_t n)
{
    pad(&w->data, alignment_of(w));
    add_text(&w->tensors, name, strlen(name));
    add_u32(&w->tensors, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        add_u64(&w->tensors, dims[i]);
    add_u32(&w->tensors, type);
    add_u64(&w->tensors, w->data.n);
    buf_add(&w->data, data, n);
    w->n_tensors++;
}

void gguf_put_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint64_t rows,
                     uint64_t cols, const void *data, size_t n)
{
    put_tensor(w, name, type, (uint64_t[]){ cols, rows }, rows > 0 ? 2 : 1, data, n);
}

void gguf_put_tensor_3d(struct gguf_writer *w, const char *name, uint32_t type,
                        const uint64_t dims[3], const void *data, size_t n)
{
    put_tensor(w, name, type, dims, 3, data, n);
}

struct buf gguf_finish(struct gguf_writer *w)
{
    struct buf out = { 0 };

    if (w->alignment)
        gguf_put_u32(w, "general.alignment", w->alignment);
    buf_add(&out, "GGUF", 4);
    add_u32(&out, w->version ? w->version : 3);
    add_u64(&out, w->n_tensors);
    add_u64(&out, w->n_pairs);
    if (w->pairs.n > 0)
        buf_add(&out, w->pairs.data, w->pairs.n);
    if (w->tensors.n > 0)
        buf_add(&out, w->tensors.data, w->tensors.n);
    if (w->data.n > 0) {
        pad(&out, alignment_of(w));
        buf_add(&out, w->data.data, w->data.n);
    }
    buf_fini(&w->pairs);
    buf_fini(&w->tensors);
    buf_fini(&w->data);
    *w = (struct gguf_writer){ 0 };
    return out;
}
