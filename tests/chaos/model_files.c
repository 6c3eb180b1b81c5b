/* model_files.c - see model_files.h. */
#include "tests/chaos/model_files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/mem.h"
#include "tests/chaos/random.h"

enum {
    TENSORS_MAX = 3 + 9 * MODEL_LAYERS_MAX,
    BLOCK = 1 << 20, /* values made at a time */
};

struct tensor {
    char name[64];
    uint32_t rows, cols; /* cols 0: a vector, of ones */
};

struct model {
    struct model_shape shape;
    struct tensor tensors[TENSORS_MAX];
    uint32_t n;
};

static void add(struct model *m, uint32_t rows, uint32_t cols, const char *fmt, uint32_t layer)
{
    struct tensor *t = &m->tensors[m->n++];

    snprintf(t->name, sizeof t->name, fmt, layer);
    t->rows = rows;
    t->cols = cols;
}

static void add_layer(struct model *m, uint32_t i)
{
    const struct model_shape *s = &m->shape;

    add(m, s->hidden, 0, "model.layers.%u.input_layernorm.weight", i);
    add(m, s->heads * s->head_dim, s->hidden, "model.layers.%u.self_attn.q_proj.weight", i);
    add(m, s->kv_heads * s->head_dim, s->hidden, "model.layers.%u.self_attn.k_proj.weight", i);
    add(m, s->kv_heads * s->head_dim, s->hidden, "model.layers.%u.self_attn.v_proj.weight", i);
    add(m, s->hidden, s->heads * s->head_dim, "model.layers.%u.self_attn.o_proj.weight", i);
    add(m, s->hidden, 0, "model.layers.%u.post_attention_layernorm.weight", i);
    add(m, s->inner, s->hidden, "model.layers.%u.mlp.gate_proj.weight", i);
    add(m, s->inner, s->hidden, "model.layers.%u.mlp.up_proj.weight", i);
    add(m, s->hidden, s->inner, "model.layers.%u.mlp.down_proj.weight", i);
}

static void add_all(struct model *m, const struct model_shape *shape)
{
    assert(shape->layers <= MODEL_LAYERS_MAX);
    *m = (struct model){ .shape = *shape };
    add(m, shape->vocab, shape->hidden, "model.embed_tokens.weight", 0);
    for (uint32_t i = 0; i < shape->layers; i++)
        add_layer(m, i);
    add(m, shape->hidden, 0, "model.norm.weight", 0);
    add(m, shape->vocab, shape->hidden, "lm_head.weight", 0);
}

static uint64_t n_values(const struct tensor *t)
{
    return (uint64_t)t->rows * (t->cols ? t->cols : 1);
}

static void put_header(const struct model *m, struct buf *out)
{
    uint64_t at = 0;

    buf_add_str(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; i < m->n; i++) {
        const struct tensor *t = &m->tensors[i];
        buf_printf(out, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%u", t->name, t->rows);
        if (t->cols)
            buf_printf(out, ",%u", t->cols);
        buf_printf(out, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)at,
                   (unsigned long)(at + 2 * n_values(t)));
        at += 2 * n_values(t);
    }
    buf_add_char(out, '}');
    while (out->n % 8)
        buf_add_char(out, ' ');
}

static uint16_t bf16_of(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Uniform values with a mean square of 1 / cols; a vector is all ones. */
static void make_values(const struct tensor *t, struct random *r, uint16_t *out, size_t n)
{
    float scale = t->cols ? sqrtf(3.0f / (float)t->cols) / 32768.0f : 0;
    uint64_t word = 0;

    for (size_t i = 0; i < n; i++) {
        if (i % 4 == 0)
            word = random_next(r);
        out[i] = bf16_of(t->cols ? (float)(int16_t)word * scale : 1.0f);
        word >>= 16;
    }
}

static bool write_tensor(FILE *f, const struct tensor *t, struct random *r, uint16_t *block)
{
    for (uint64_t left = n_values(t), n; left > 0; left -= n) {
        n = left < BLOCK ? left : BLOCK;
        make_values(t, r, block, n);
        if (fwrite(block, 2, n, f) != n)
            return false;
    }
    return true;
}

static bool write_weights(const struct model *m, const char *dir)
{
    uint16_t *block = mem_alloc(BLOCK * sizeof *block);
    struct random r = random_stream(1, 1);
    struct buf header = { 0 };
    char path[512];
    uint64_t n;
    FILE *f;
    bool ok;

    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    f = fopen(path, "we");
    put_header(m, &header);
    n = header.n;
    ok = f && fwrite(&n, 8, 1, f) == 1 && fwrite(header.data, 1, header.n, f) == header.n;
    for (uint32_t i = 0; ok && i < m->n; i++)
        ok = write_tensor(f, &m->tensors[i], &r, block);
    ok = f && fclose(f) == 0 && ok;
    if (!ok)
        perror(path);
    buf_fini(&header);
    free(block);
    return ok;
}

static bool write_file(const char *dir, const char *name, const char *bytes, size_t n)
{
    char path[512];
    FILE *f;
    bool ok;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "we");
    ok = f && fwrite(bytes, 1, n, f) == n;
    ok = f && fclose(f) == 0 && ok;
    if (!ok)
        perror(path);
    return ok;
}

static bool write_config(const struct model_shape *s, const char *dir)
{
    struct buf b = { 0 };
    bool ok;

    buf_printf(&b,
               "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
               "\"hidden_size\":%u,\"intermediate_size\":%u,\"num_hidden_layers\":%u,"
               "\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,"
               "\"vocab_size\":%u,\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-5,"
               "\"hidden_act\":\"silu\",\"rope_theta\":10000.0,\"tie_word_embeddings\":false,"
               "\"attention_bias\":false,\"mlp_bias\":false,\"bos_token_id\":1,"
               "\"eos_token_id\":2,\"torch_dtype\":\"bfloat16\"}\n",
               s->hidden, s->inner, s->layers, s->heads, s->kv_heads, s->head_dim, s->vocab,
               s->positions);
    ok = write_file(dir, "config.json", b.data, b.n);
    buf_fini(&b);
    return ok;
}

/* Whichever there are; "{}" for settings that must be there. */
static bool copy_tokenizer(const char *from, const char *dir)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer.model",
                                         "tokenizer_config.json", "special_tokens_map.json" };
    char path[512], *bytes;
    bool ok = write_file(dir, "tokenizer_config.json", "{}", 2);
    uint32_t n_copied = 0;
    size_t n;

    for (size_t i = 0; ok && i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", from, names[i]);
        if (!file_read(path, 64 << 20, &bytes, &n, NULL))
            continue;
        ok = write_file(dir, names[i], bytes, n);
        free(bytes);
        n_copied++;
    }
    if (n_copied == 0)
        fprintf(stderr, "no tokenizer in '%s'\n", from);
    return ok && n_copied > 0;
}

bool model_files_write(const struct model_shape *shape, const char *tokenizer, const char *dir)
{
    struct model m;

    add_all(&m, shape);
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        perror(dir);
        return false;
    }
    return copy_tokenizer(tokenizer, dir) && write_config(shape, dir) && write_weights(&m, dir);
}

uint64_t model_files_parameters(const struct model_shape *shape)
{
    struct model m;
    uint64_t n = 0;

    add_all(&m, shape);
    for (uint32_t i = 0; i < m.n; i++)
        n += n_values(&m.tensors[i]);
    return n;
}
