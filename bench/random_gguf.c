/* random_gguf.c - the file of random_gguf.h, written front to back.
 *
 * Codes, scales and floats come from tables that random bits choose from, so that 13 GB take no longer than
 * the disk.  The deviates in them are sums of twelve integers, not calls of libm, which differs. */
#include "bench/random_gguf.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "gpu-worker/ops/half.h"

enum {
    GGUF_VERSION = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    TENSOR_F32 = 0,
    ALIGNMENT = 32,
    DEVIATES = 1 << 16, /* entries of a table that 16 random bits choose from */
    SCALES = 1 << 8,
    BLOCK = 32,
    WRITE_BYTES = 8 << 20,
    N_TOKENS_FIXED = 3 + 256,
    TOKEN_TYPE_NORMAL = 1,
    TOKEN_TYPE_UNKNOWN = 2,
    TOKEN_TYPE_CONTROL = 3,
    TOKEN_TYPE_BYTE = 6,
};

/* How far logits spread: with 1 all tokens would be nearly equal. */
#define OUTPUT_GAIN 3.0

/* ---- random numbers ---- */

/* splitmix64 (Steele, Lea & Flood, OOPSLA 2014). */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* About a standard normal deviate: the sum of twelve uniform ones has variance 1. */
static double random_deviate(uint64_t *state)
{
    uint32_t sum = 0;

    for (int i = 0; i < 3; i++) {
        uint64_t r = random_next(state);
        for (int k = 0; k < 4; k++)
            sum += r >> 16 * k & 0xffff;
    }
    return sum / 65536.0 - 6;
}

/* ---- the tensors of a file ---- */

struct tensor {
    char name[64];
    uint32_t n_columns, n_rows; /* n_rows 0: a vector of F32 */
    double gain;
};

struct file {
    const struct random_model *model;
    const struct shape *shape;
    const struct weight_type *type;
    uint64_t seed;
    struct tensor *tensors;
    uint32_t n_tensors;
};

static void add_tensor(struct file *f, const char *name, uint32_t n_columns, uint32_t n_rows,
                       double gain)
{
    struct tensor *t = &f->tensors[f->n_tensors++];

    *t = (struct tensor){ .n_columns = n_columns, .n_rows = n_rows, .gain = gain };
    snprintf(t->name, sizeof t->name, "%s", name);
}

static void add_layer(struct file *f, uint32_t layer)
{
    const struct shape *s = f->shape;
    uint32_t q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    const struct {
        const char *name;
        uint32_t n_columns, n_rows;
    } parts[] = {
        { "attn_norm", s->n_embd, 0 },      { "attn_q", s->n_embd, q },
        { "attn_k", s->n_embd, kv },        { "attn_v", s->n_embd, kv },
        { "attn_output", q, s->n_embd },    { "ffn_norm", s->n_embd, 0 },
        { "ffn_gate", s->n_embd, s->n_ff }, { "ffn_up", s->n_embd, s->n_ff },
        { "ffn_down", s->n_ff, s->n_embd },
    };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, parts[i].name);
        add_tensor(f, name, parts[i].n_columns, parts[i].n_rows, 1);
    }
}

static void list_tensors(struct file *f)
{
    const struct shape *s = f->shape;

    f->tensors = mem_zalloc(3 + 9 * (size_t)s->n_layers, sizeof *f->tensors);
    /* A row is looked up, not multiplied: deviation 1. */
    add_tensor(f, "token_embd.weight", s->n_embd, s->vocab_size, sqrt(s->n_embd));
    for (uint32_t l = 0; l < s->n_layers; l++)
        add_layer(f, l);
    add_tensor(f, "output_norm.weight", s->n_embd, 0, 1);
    add_tensor(f, "output.weight", s->n_embd, s->vocab_size, OUTPUT_GAIN);
}

/* Of a row as its type has it. */
static uint64_t coded_row_bytes(const struct file *f, const struct tensor *t)
{
    return (uint64_t)t->n_columns / f->type->block_weights * f->type->block_bytes;
}

/* Of a row in the file. */
static uint64_t row_bytes(const struct file *f, const struct tensor *t)
{
    return t->n_rows && !f->model->decoded ? coded_row_bytes(f, t) : t->n_columns * sizeof(float);
}

static uint64_t tensor_bytes(const struct file *f, const struct tensor *t)
{
    return row_bytes(f, t) * (t->n_rows ? t->n_rows : 1);
}

static uint64_t aligned(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- metadata ---- */

static void put_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put_string(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_add_str(b, s);
}

struct metadata {
    struct buf bytes;
    uint64_t n;
};

static void meta_key(struct metadata *m, const char *key, uint32_t kind)
{
    put_string(&m->bytes, key);
    put_u32(&m->bytes, kind);
    m->n++;
}

static void meta_u32(struct metadata *m, const char *key, uint32_t v)
{
    meta_key(m, key, GGUF_U32);
    put_u32(&m->bytes, v);
}

static void meta_f32(struct metadata *m, const char *key, float v)
{
    meta_key(m, key, GGUF_F32);
    buf_add(&m->bytes, &v, sizeof v);
}

static void meta_string(struct metadata *m, const char *key, const char *v)
{
    meta_key(m, key, GGUF_STRING);
    put_string(&m->bytes, v);
}

static void meta_array(struct metadata *m, const char *key, uint32_t kind, uint64_t n)
{
    meta_key(m, key, GGUF_ARRAY);
    put_u32(&m->bytes, kind);
    put_u64(&m->bytes, n);
}

/* The i-th made-up word: its number in letters, every second one with a space (U+2581) before it. */
static void made_up_word(uint32_t i, char *out, size_t n)
{
    char letters[8];
    uint32_t k = sizeof letters, left = i / 2 + 26; /* two letters at least */

    letters[--k] = '\0';
    for (; left; left /= 26)
        letters[--k] = (char)('a' + left % 26);
    snprintf(out, n, "%s%s", i % 2 ? "\xe2\x96\x81" : "", letters + k);
}

static void token_text(uint32_t id, char *out, size_t n)
{
    static const char *const special[] = { "<unk>", "<s>", "</s>" };
    const uint32_t n_ascii = '~' - '!' + 1;

    if (id < 3)
        snprintf(out, n, "%s", special[id]);
    else if (id < N_TOKENS_FIXED)
        snprintf(out, n, "<0x%02X>", id - 3);
    else if (id == N_TOKENS_FIXED)
        snprintf(out, n, "\xe2\x96\x81");
    else if (id <= N_TOKENS_FIXED + n_ascii)
        snprintf(out, n, "%c", (char)('!' + (id - N_TOKENS_FIXED - 1)));
    else
        made_up_word(id - N_TOKENS_FIXED - n_ascii - 1, out, n);
}

static uint32_t token_type(uint32_t id)
{
    if (id == 0)
        return TOKEN_TYPE_UNKNOWN;
    if (id < 3)
        return TOKEN_TYPE_CONTROL;
    return id < N_TOKENS_FIXED ? TOKEN_TYPE_BYTE : TOKEN_TYPE_NORMAL;
}

static void vocabulary(struct metadata *m, uint32_t n)
{
    meta_string(m, "tokenizer.ggml.model", "llama");
    meta_array(m, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (uint32_t id = 0; id < n; id++) {
        char text[32];
        token_text(id, text, sizeof text);
        put_string(&m->bytes, text);
    }
    meta_array(m, "tokenizer.ggml.scores", GGUF_F32, n);
    for (uint32_t id = 0; id < n; id++) {
        float score = id < N_TOKENS_FIXED ? 0 : -(float)(id - N_TOKENS_FIXED);
        buf_add(&m->bytes, &score, sizeof score);
    }
    meta_array(m, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (uint32_t id = 0; id < n; id++)
        put_u32(&m->bytes, token_type(id));
    meta_u32(m, "tokenizer.ggml.bos_token_id", 1);
    meta_u32(m, "tokenizer.ggml.eos_token_id", 2);
    meta_u32(m, "tokenizer.ggml.unknown_token_id", 0);
}

static void hyperparameters(struct metadata *m, const struct file *f)
{
    const struct shape *s = f->shape;
    char name[64];

    snprintf(name, sizeof name, "random %s %s seed %llu", s->name, f->type->name,
             (unsigned long long)f->seed);
    meta_string(m, "general.architecture", "llama");
    meta_string(m, "general.name", name);
    meta_u32(m, "general.alignment", ALIGNMENT);
    meta_u32(m, "general.file_type", f->model->decoded ? 0 : f->type->file_type);
    meta_u32(m, "general.quantization_version", 2);
    meta_u32(m, "llama.vocab_size", s->vocab_size);
    meta_u32(m, "llama.context_length", s->context_max);
    meta_u32(m, "llama.embedding_length", s->n_embd);
    meta_u32(m, "llama.block_count", s->n_layers);
    meta_u32(m, "llama.feed_forward_length", s->n_ff);
    meta_u32(m, "llama.attention.head_count", s->n_heads);
    meta_u32(m, "llama.attention.head_count_kv", s->n_kv_heads);
    meta_u32(m, "llama.rope.dimension_count", s->head_dim);
    meta_f32(m, "llama.rope.freq_base", 10000.0F);
    meta_f32(m, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
}

static void tensor_infos(struct buf *b, const struct file *f)
{
    uint64_t offset = 0;

    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        put_string(b, t->name);
        put_u32(b, t->n_rows ? 2 : 1);
        put_u64(b, t->n_columns);
        if (t->n_rows)
            put_u64(b, t->n_rows);
        put_u32(b, t->n_rows && !f->model->decoded ? f->type->tensor_type : TENSOR_F32);
        put_u64(b, offset);
        offset = aligned(offset + tensor_bytes(f, t));
    }
}

/* Everything before the weights, padded to the alignment. */
static void write_head(FILE *out, const struct file *f)
{
    struct metadata m = { .n = 0 };
    struct buf head = { 0 };

    hyperparameters(&m, f);
    vocabulary(&m, f->shape->vocab_size);
    buf_add(&head, "GGUF", 4);
    put_u32(&head, GGUF_VERSION);
    put_u64(&head, f->n_tensors);
    put_u64(&head, m.n);
    buf_add(&head, m.bytes.data, m.bytes.n);
    tensor_infos(&head, f);
    while (head.n % ALIGNMENT)
        buf_add_char(&head, 0);
    fwrite(head.data, 1, head.n, out);
    buf_fini(&m.bytes);
    buf_fini(&head);
}

/* ---- weights ---- */

/* What random bits are turned into, for one tensor. */
struct palette {
    uint8_t codes[DEVIATES];   /* of a quantised weight */
    uint16_t halves[DEVIATES]; /* of a 16-bit weight */
    uint16_t scales[SCALES];   /* of a block, f16 */
};

/* Deviates are cut off at the ends of the code's range; its unit is a part of the deviation. */
static double code_unit(const struct weight_type *t)
{
    return t->weight_bits == 4 ? 1.0 / 3 : 1.0 / 32;
}

static uint8_t code_of(const struct weight_type *t, double deviate)
{
    double limit = t->weight_bits == 4 ? 7 : 127, code = floor(deviate / code_unit(t) + 0.5);

    code = code > limit ? limit : code < -limit ? -limit : code;
    return t->weight_bits == 4 ? (uint8_t)(code + 8) : (uint8_t)(int8_t)code;
}

static uint16_t half_of(const struct weight_type *t, float v)
{
    return strcmp(t->name, "bf16") == 0 ? (uint16_t)(bits_of_float(v) >> 16) : float_to_f16(v);
}

static void palette_fill(struct palette *p, const struct file *f, const struct tensor *t)
{
    uint64_t state = f->seed;
    double deviation = t->gain / sqrt(t->n_columns);

    for (int i = 0; i < DEVIATES; i++) {
        double d = random_deviate(&state);
        if (f->type->weight_bits == 16)
            p->halves[i] = half_of(f->type, (float)(d * deviation));
        else
            p->codes[i] = code_of(f->type, d);
    }
    for (int i = 0; i < SCALES; i++) /* 3/4 to 5/4: blocks differ, as they do in trained models */
        p->scales[i] =
            float_to_f16((float)(deviation * code_unit(f->type) * (0.75 + i / (2.0 * SCALES))));
}

static void fill_codes(const struct palette *p, uint8_t codes[BLOCK], uint64_t *state)
{
    for (int i = 0; i < BLOCK; i += 4) {
        uint64_t r = random_next(state);
        for (int k = 0; k < 4; k++)
            codes[i + k] = p->codes[r >> 16 * k & 0xffff];
    }
}

/* A block of Q4_0: f16 scale, then weight i in the low half of byte i, weight 16 + i in the high half.
 * A block of Q8_0: f16 scale, then 32 signed bytes. */
static void fill_block(const struct weight_type *t, const struct palette *p, uint8_t *out,
                       uint64_t *state)
{
    uint16_t scale = p->scales[random_next(state) % SCALES];
    uint8_t codes[BLOCK];

    fill_codes(p, codes, state);
    memcpy(out, &scale, sizeof scale);
    out += sizeof scale;
    if (t->weight_bits == 8) {
        memcpy(out, codes, BLOCK);
        return;
    }
    for (int i = 0; i < BLOCK / 2; i++)
        out[i] = (uint8_t)(codes[i] | codes[BLOCK / 2 + i] << 4);
}

static void fill_row(const struct file *f, const struct tensor *t, const struct palette *p,
                     uint8_t *out, uint64_t *state)
{
    if (f->type->weight_bits == 16) {
        for (uint32_t i = 0; i < t->n_columns; i++) {
            uint16_t h = p->halves[random_next(state) >> 48];
            memcpy(out + i * sizeof h, &h, sizeof h);
        }
        return;
    }
    for (uint32_t i = 0; i < t->n_columns / BLOCK; i++)
        fill_block(f->type, p, out + (size_t)i * f->type->block_bytes, state);
}

static float decode_half(const struct weight_type *t, const uint8_t *at)
{
    uint16_t h;

    memcpy(&h, at, sizeof h);
    return strcmp(t->name, "bf16") == 0 ? bf16_to_float(h) : f16_to_float(h);
}

/* Weight k of a coded row. */
static float decode_weight(const struct weight_type *t, const uint8_t *row, uint32_t k)
{
    const uint8_t *block = row + (size_t)(k / t->block_weights) * t->block_bytes,
                  *codes = block + 2;
    uint32_t at = k % t->block_weights;
    int code;

    if (t->weight_bits == 16)
        return decode_half(t, block);
    if (t->weight_bits == 8)
        code = (int8_t)codes[at];
    else
        code = (at < BLOCK / 2 ? codes[at] & 15 : codes[at - BLOCK / 2] >> 4) - 8;
    return f16_to_float((uint16_t)(block[0] | block[1] << 8)) * (float)code;
}

static void decode_row(const struct file *f, const struct tensor *t, const uint8_t *coded,
                       uint8_t *out)
{
    for (uint32_t k = 0; k < t->n_columns; k++) {
        float w = decode_weight(f->type, coded, k);
        memcpy(out + k * sizeof w, &w, sizeof w);
    }
}

static void write_matrix(FILE *out, const struct file *f, const struct tensor *t,
                         const struct palette *p, uint64_t *state)
{
    uint64_t bytes = row_bytes(f, t);
    uint8_t *coded = mem_alloc(coded_row_bytes(f, t)), *row = mem_alloc(bytes);

    for (uint32_t r = 0; r < t->n_rows; r++) {
        fill_row(f, t, p, coded, state);
        if (f->model->decoded)
            decode_row(f, t, coded, row);
        fwrite(f->model->decoded ? row : coded, 1, bytes, out);
    }
    free(coded);
    free(row);
}

static void fill_norm(const struct tensor *t, uint8_t *out, uint64_t *state)
{
    for (uint32_t i = 0; i < t->n_columns; i++) {
        float v = 1 + 0.1F * (float)random_deviate(state);
        memcpy(out + i * sizeof v, &v, sizeof v);
    }
}

static void write_tensor(FILE *out, const struct file *f, uint32_t index, struct palette *p)
{
    const struct tensor *t = &f->tensors[index];
    uint64_t bytes = tensor_bytes(f, t), state = f->seed ^ (index + 1) * 0xd1b54a32d192ed03ull;
    static const char zeros[ALIGNMENT];

    assert(t->n_columns % f->type->block_weights == 0);
    if (t->n_rows) {
        palette_fill(p, f, t);
        write_matrix(out, f, t, p, &state);
    } else {
        uint8_t *norm = mem_alloc(bytes);
        fill_norm(t, norm, &state);
        fwrite(norm, 1, bytes, out);
        free(norm);
    }
    fwrite(zeros, 1, aligned(bytes) - bytes, out);
}

static bool close_whole(FILE *out, const char *part, const char *path, struct err *e)
{
    bool ok = !ferror(out);

    ok = fclose(out) == 0 && ok;
    ok = ok && rename(part, path) == 0;
    if (!ok) {
        err_set(e, ERR_SYS, errno, "write '%s'", path);
        remove(part);
    }
    return ok;
}

bool random_gguf_write(const struct random_model *m, const char *path, struct err *e)
{
    struct file f = { .model = m, .shape = m->shape, .type = m->type, .seed = m->seed };
    struct palette *p;
    char part[4096];
    FILE *out;

    snprintf(part, sizeof part, "%s.part", path);
    out = fopen(part, "wb");
    if (!out)
        return err_set(e, ERR_SYS, errno, "create '%s'", part);
    setvbuf(out, NULL, _IOFBF, WRITE_BYTES);
    p = mem_alloc(sizeof *p);
    list_tensors(&f);
    write_head(out, &f);
    for (uint32_t i = 0; i < f.n_tensors; i++)
        write_tensor(out, &f, i, p);
    free(f.tensors);
    free(p);
    return close_whole(out, part, path, e);
}
