/* gguf_write.c - see gguf_write.h. */
#include "common/gguf_write.h"

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

static struct buf *begin(struct gguf_out *o, const char *key, enum gguf_type type)
{
    add_text(&o->pairs, key, strlen(key));
    add_u32(&o->pairs, type);
    o->n_pairs++;
    return &o->pairs;
}

static struct buf *begin_array(struct gguf_out *o, const char *key, enum gguf_type of, uint64_t n)
{
    struct buf *b = begin(o, key, GGUF_ARRAY);

    add_u32(b, of);
    add_u64(b, n);
    return b;
}

void gguf_out_fini(struct gguf_out *o)
{
    buf_fini(&o->pairs);
    buf_fini(&o->tensors);
    *o = (struct gguf_out){ 0 };
}

void gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v)
{
    add_u32(begin(o, key, GGUF_U32), v);
}

void gguf_out_f32(struct gguf_out *o, const char *key, float v)
{
    buf_add(begin(o, key, GGUF_F32), &v, sizeof v);
}

void gguf_out_bool(struct gguf_out *o, const char *key, bool v)
{
    buf_add_char(begin(o, key, GGUF_BOOL), v);
}

void gguf_out_string(struct gguf_out *o, const char *key, const char *s)
{
    add_text(begin(o, key, GGUF_STRING), s, strlen(s));
}

void gguf_out_f32s(struct gguf_out *o, const char *key, const float *v, uint64_t n)
{
    buf_add(begin_array(o, key, GGUF_F32, n), v, n * sizeof *v);
}

void gguf_out_i32s(struct gguf_out *o, const char *key, const int32_t *v, uint64_t n)
{
    buf_add(begin_array(o, key, GGUF_I32, n), v, n * sizeof *v);
}

void gguf_out_strings(struct gguf_out *o, const char *key, uint64_t n)
{
    begin_array(o, key, GGUF_STRING, n);
}

void gguf_out_add(struct gguf_out *o, const char *s, size_t n)
{
    add_text(&o->pairs, s, n);
}

/* ---- a value that stands in a file whose reader has checked it ---- */

static uint64_t read_le(const unsigned char *at, int n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | at[n];
    return v;
}

static uint64_t value_bytes(enum gguf_type type, const unsigned char *at)
{
    static const uint8_t plain[N_GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8
    };
    uint64_t n, bytes = 12;
    enum gguf_type of;

    if (type == GGUF_STRING)
        return 8 + read_le(at, 8);
    if (type != GGUF_ARRAY)
        return plain[type];
    of = (enum gguf_type)read_le(at, 4);
    n = read_le(at + 4, 8);
    if (plain[of])
        return bytes + n * plain[of];
    while (n-- > 0)
        bytes += value_bytes(of, at + bytes);
    return bytes;
}

void gguf_out_copy(struct gguf_out *o, const struct gguf_pair *pair)
{
    buf_add(begin(o, pair->key, pair->type), pair->at, value_bytes(pair->type, pair->at));
}

/* ---- tensors ---- */

uint64_t gguf_out_padding(uint64_t bytes)
{
    return (GGUF_OUT_ALIGNMENT - bytes % GGUF_OUT_ALIGNMENT) % GGUF_OUT_ALIGNMENT;
}

void gguf_out_tensor(struct gguf_out *o, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *dims, uint64_t bytes)
{
    add_text(&o->tensors, name, strlen(name));
    add_u32(&o->tensors, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        add_u64(&o->tensors, dims[i]);
    add_u32(&o->tensors, type);
    add_u64(&o->tensors, o->data_bytes);
    o->data_bytes += bytes + gguf_out_padding(bytes);
    o->n_tensors++;
}

void gguf_out_head(const struct gguf_out *o, struct buf *head)
{
    static const char zeroes[GGUF_OUT_ALIGNMENT];

    buf_add(head, "GGUF", 4);
    add_u32(head, 3);
    add_u64(head, o->n_tensors);
    add_u64(head, o->n_pairs);
    buf_add(head, o->pairs.data, o->pairs.n);
    buf_add(head, o->tensors.data, o->tensors.n);
    buf_add(head, zeroes, gguf_out_padding(head->n));
}
