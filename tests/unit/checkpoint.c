/* checkpoint.c - see checkpoint.h. */
#include "tests/unit/checkpoint.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/json.h"
#include "common/mem.h"
#include "tests/ops/ops_rig.h"

/* ---- directories ---- */

void test_dir_make(char dir[64])
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, 64, "%.40s/llmd-test-XXXXXX", tmp ? tmp : P_tmpdir);
    assert_non_null(mkdtemp(dir));
}

void test_dir_write(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[400];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void test_dir_remove(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    while (d && (entry = readdir(d))) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

/* ---- weights ---- */

static void add(struct checkpoint *c, struct random *r, const char *name, uint32_t rows,
                uint32_t cols, double scale, double shift)
{
    struct checkpoint_tensor *t = &c->tensors[c->n++];
    size_t n = (size_t)rows * (cols ? cols : 1);
    float *x = random_floats(r, n);

    assert_true(c->n <= CHECKPOINT_TENSORS_MAX);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->cols = cols;
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(x[i] * scale + shift);
    t->coded = encode(x, n, c->spec.dtype, x);
    t->values = mem_alloc(n * sizeof *t->values);
    for (size_t i = 0; i < n; i++)
        t->values[i] = x[i];
    free(x);
}

static void add_in(struct checkpoint *c, struct random *r, uint32_t layer, const char *name,
                   uint32_t rows, uint32_t cols)
{
    bool norm = strstr(name, "norm") != NULL;
    char full[64];

    snprintf(full, sizeof full, "model.layers.%u.%s", layer, name);
    add(c, r, full, rows, cols, norm ? 0.2 : cols ? 2 / sqrt(cols) : 0.5, norm ? 1 : 0);
}

static void add_layer(struct checkpoint *c, struct random *r, uint32_t i)
{
    const struct checkpoint_spec *s = &c->spec;
    uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;

    add_in(c, r, i, "input_layernorm.weight", s->hidden, 0);
    add_in(c, r, i, "self_attn.q_proj.weight", q, s->hidden);
    add_in(c, r, i, "self_attn.k_proj.weight", kv, s->hidden);
    add_in(c, r, i, "self_attn.v_proj.weight", kv, s->hidden);
    add_in(c, r, i, "self_attn.o_proj.weight", s->hidden, q);
    add_in(c, r, i, "post_attention_layernorm.weight", s->hidden, 0);
    add_in(c, r, i, "mlp.gate_proj.weight", s->inner, s->hidden);
    add_in(c, r, i, "mlp.up_proj.weight", s->inner, s->hidden);
    add_in(c, r, i, "mlp.down_proj.weight", s->hidden, s->inner);
    if (s->qkv_bias) {
        add_in(c, r, i, "self_attn.q_proj.bias", q, 0);
        add_in(c, r, i, "self_attn.k_proj.bias", kv, 0);
        add_in(c, r, i, "self_attn.v_proj.bias", kv, 0);
    }
    if (s->o_bias)
        add_in(c, r, i, "self_attn.o_proj.bias", s->hidden, 0);
    if (s->mlp_bias) {
        add_in(c, r, i, "mlp.gate_proj.bias", s->inner, 0);
        add_in(c, r, i, "mlp.up_proj.bias", s->inner, 0);
        add_in(c, r, i, "mlp.down_proj.bias", s->hidden, 0);
    }
}

/* ---- files ---- */

static void write_config(const struct checkpoint *c)
{
    const struct checkpoint_spec *s = &c->spec;
    bool qwen = strcmp(s->architecture, "Qwen2ForCausalLM") == 0;
    struct buf b = { 0 };

    buf_printf(&b,
               "{\"architectures\":[\"%s\"],\"hidden_size\":%u,\"intermediate_size\":%u,"
               "\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,"
               "\"head_dim\":%u,\"vocab_size\":%u,\"max_position_embeddings\":%u,"
               "\"rms_norm_eps\":1e-6,\"hidden_act\":\"silu\",\"rope_theta\":%.17g,"
               "\"tie_word_embeddings\":%s,\"eos_token_id\":[1,2],\"torch_dtype\":\"float32\"",
               s->architecture, s->hidden, s->inner, s->layers, s->heads, s->kv_heads, s->head_dim,
               s->vocab, CHECKPOINT_POSITIONS, s->theta, s->tied ? "true" : "false");
    if (!qwen)
        buf_printf(&b, ",\"attention_bias\":%s,\"mlp_bias\":%s", s->o_bias ? "true" : "false",
                   s->mlp_bias ? "true" : "false");
    if (s->window)
        buf_printf(&b, ",\"sliding_window\":%u", s->window);
    if (s->window && qwen)
        buf_printf(&b, ",\"use_sliding_window\":true,\"max_window_layers\":%u",
                   s->window_from_layer);
    if (s->linear_factor > 0)
        buf_printf(&b, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":%g}", s->linear_factor);
    if (s->llama3_factor > 0)
        buf_printf(&b,
                   ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":%g,"
                   "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                   "\"original_max_position_embeddings\":16}",
                   s->llama3_factor);
    buf_add_char(&b, '}');
    test_dir_write(c->dir, "config.json", b.data, b.n);
    buf_fini(&b);
}

static const char *type_name(enum dtype t)
{
    return t == DTYPE_F32 ? "F32" : t == DTYPE_F16 ? "F16" : "BF16";
}

static void shard_name(const struct checkpoint *c, uint32_t file, char out[64])
{
    if (c->spec.n_files == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", file + 1, c->spec.n_files);
}

static void write_shard(const struct checkpoint *c, uint32_t file)
{
    struct buf header = { 0 }, whole = { 0 };
    uint64_t at = 0;
    char name[64];

    buf_add_str(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = file; i < c->n; i += c->spec.n_files) {
        const struct checkpoint_tensor *t = &c->tensors[i];
        uint64_t bytes = dtype_bytes(c->spec.dtype, (size_t)t->rows * (t->cols ? t->cols : 1));
        buf_printf(&header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%u", t->name,
                   type_name(c->spec.dtype), t->rows);
        if (t->cols)
            buf_printf(&header, ",%u", t->cols);
        buf_printf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                   (unsigned long long)(at + bytes));
        at += bytes;
    }
    buf_add_char(&header, '}');
    for (int i = 0; i < 8; i++)
        buf_add_char(&whole, (char)(header.n >> (8 * i)));
    buf_add(&whole, header.data, header.n);
    for (uint32_t i = file; i < c->n; i += c->spec.n_files) {
        const struct checkpoint_tensor *t = &c->tensors[i];
        buf_add(&whole, t->coded,
                dtype_bytes(c->spec.dtype, (size_t)t->rows * (t->cols ? t->cols : 1)));
    }
    shard_name(c, file, name);
    test_dir_write(c->dir, name, whole.data, whole.n);
    buf_fini(&header);
    buf_fini(&whole);
}

static void write_index(const struct checkpoint *c)
{
    struct buf b = { 0 };
    char name[64];

    buf_add_str(&b, "{\"metadata\":{},\"weight_map\":{");
    for (uint32_t i = 0; i < c->n; i++) {
        shard_name(c, i % c->spec.n_files, name);
        buf_printf(&b, "%s\"%s\":\"%s\"", i ? "," : "", c->tensors[i].name, name);
    }
    buf_add_str(&b, "}}");
    test_dir_write(c->dir, "model.safetensors.index.json", b.data, b.n);
    buf_fini(&b);
}

void checkpoint_make(struct checkpoint *c, const struct checkpoint_spec *spec, uint64_t seed)
{
    struct random r = { seed };

    memset(c, 0, sizeof *c);
    c->spec = *spec;
    test_dir_make(c->dir);
    add(c, &r, "model.embed_tokens.weight", spec->vocab, spec->hidden, 1, 0);
    for (uint32_t i = 0; i < spec->layers; i++)
        add_layer(c, &r, i);
    add(c, &r, "model.norm.weight", spec->hidden, 0, 0.2, 1);
    if (!spec->tied)
        add(c, &r, "lm_head.weight", spec->vocab, spec->hidden, 2 / sqrt(spec->hidden), 0);
    write_config(c);
    for (uint32_t i = 0; i < spec->n_files; i++)
        write_shard(c, i);
    if (spec->n_files > 1)
        write_index(c);
}

void checkpoint_remove(struct checkpoint *c)
{
    test_dir_remove(c->dir);
    for (uint32_t i = 0; i < c->n; i++) {
        free(c->tensors[i].values);
        free(c->tensors[i].coded);
    }
}

/* ---- what it computes ---- */

static const struct checkpoint_tensor *find(const struct checkpoint *c, int layer, const char *name)
{
    char full[64];

    if (layer >= 0)
        snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    for (uint32_t i = 0; i < c->n; i++)
        if (strcmp(c->tensors[i].name, full) == 0)
            return &c->tensors[i];
    return NULL;
}

/* y = W x + b, b when the model has one */
static void product(const struct checkpoint *c, int layer, const char *name, const double *x,
                    double *y)
{
    char weight[48], bias[48];
    const struct checkpoint_tensor *w, *b;

    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    w = find(c, layer, weight);
    b = find(c, layer, bias);
    assert_non_null(w);
    for (uint32_t i = 0; i < w->rows; i++) {
        y[i] = b ? b->values[i] : 0;
        for (uint32_t k = 0; k < w->cols; k++)
            y[i] += w->values[(size_t)i * w->cols + k] * x[k];
    }
}

static void norm(const struct checkpoint *c, int layer, const char *name, const double *x,
                 double *y)
{
    const struct checkpoint_tensor *w = find(c, layer, name);
    double sum = 0;

    for (uint32_t i = 0; i < w->rows; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < w->rows; i++)
        y[i] = x[i] / sqrt(sum / w->rows + 1e-6) * w->values[i];
}

static double frequency(const struct checkpoint_spec *s, uint32_t i)
{
    double f = 1 / pow(s->theta, (double)(2 * i) / s->head_dim), wavelength = 2 * M_PI / f, smooth;

    if (s->linear_factor > 0)
        return f / s->linear_factor;
    if (s->llama3_factor == 0 || wavelength < 16 / 4.0)
        return f;
    if (wavelength > 16 / 1.0)
        return f / s->llama3_factor;
    smooth = (16 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * f / s->llama3_factor + smooth * f;
}

static void rotate(const struct checkpoint_spec *s, double *head, uint32_t position)
{
    uint32_t half = s->head_dim / 2;

    for (uint32_t i = 0; i < half; i++) {
        double angle = position * frequency(s, i), a = head[i], b = head[i + half];
        head[i] = a * cos(angle) - b * sin(angle);
        head[i + half] = b * cos(angle) + a * sin(angle);
    }
}

/* One head's attention; keys and values are [position][kv_heads * head_dim] of this layer. */
static void attend(const struct checkpoint_spec *s, uint32_t layer, uint32_t h, uint32_t t,
                   const double *q, const double *keys, const double *values, double *out)
{
    size_t kv_dim = (size_t)s->kv_heads * s->head_dim;
    size_t at = (size_t)(h / (s->heads / s->kv_heads)) * s->head_dim;
    bool windowed = s->window > 0 && layer >= s->window_from_layer;
    double sum = 0;

    for (uint32_t d = 0; d < s->head_dim; d++)
        out[d] = 0;
    for (uint32_t p = 0; p <= t; p++) {
        double score = 0, weight;
        if (windowed && t - p >= s->window)
            continue;
        for (uint32_t d = 0; d < s->head_dim; d++)
            score += q[d] * keys[p * kv_dim + at + d];
        weight = exp(score / sqrt(s->head_dim));
        sum += weight;
        for (uint32_t d = 0; d < s->head_dim; d++)
            out[d] += weight * values[p * kv_dim + at + d];
    }
    for (uint32_t d = 0; d < s->head_dim; d++)
        out[d] /= sum;
}

enum { WIDE = 1024 };

static void run_layer(const struct checkpoint *c, uint32_t i, uint32_t t, double *x, double *keys,
                      double *values)
{
    const struct checkpoint_spec *s = &c->spec;
    size_t kv_dim = (size_t)s->kv_heads * s->head_dim;
    double h[WIDE], q[WIDE], o[WIDE], gate[WIDE], up[WIDE];
    int l = (int)i;

    assert_true(s->hidden <= WIDE && s->inner <= WIDE && s->heads * s->head_dim <= WIDE);
    norm(c, l, "input_layernorm.weight", x, h);
    product(c, l, "self_attn.q_proj", h, q);
    product(c, l, "self_attn.k_proj", h, keys + t * kv_dim);
    product(c, l, "self_attn.v_proj", h, values + t * kv_dim);
    for (uint32_t k = 0; k < s->kv_heads; k++)
        rotate(s, keys + t * kv_dim + (size_t)k * s->head_dim, t);
    for (uint32_t k = 0; k < s->heads; k++) {
        rotate(s, q + (size_t)k * s->head_dim, t);
        attend(s, i, k, t, q + (size_t)k * s->head_dim, keys, values, o + (size_t)k * s->head_dim);
    }
    product(c, l, "self_attn.o_proj", o, h);
    for (uint32_t k = 0; k < s->hidden; k++)
        x[k] += h[k];
    norm(c, l, "post_attention_layernorm.weight", x, h);
    product(c, l, "mlp.gate_proj", h, gate);
    product(c, l, "mlp.up_proj", h, up);
    for (uint32_t k = 0; k < s->inner; k++)
        gate[k] = gate[k] / (1 + exp(-gate[k])) * up[k];
    product(c, l, "mlp.down_proj", gate, h);
    for (uint32_t k = 0; k < s->hidden; k++)
        x[k] += h[k];
}

void checkpoint_logits(const struct checkpoint *c, const int32_t *tokens, uint32_t n,
                       double *logits)
{
    const struct checkpoint_spec *s = &c->spec;
    size_t layer_kv = (size_t)CHECKPOINT_POSITIONS * s->kv_heads * s->head_dim;
    double *keys = mem_zalloc(s->layers * layer_kv, sizeof *keys);
    double *values = mem_zalloc(s->layers * layer_kv, sizeof *values);
    double x[WIDE], h[WIDE];
    const struct checkpoint_tensor *embed = find(c, -1, "model.embed_tokens.weight");

    assert_true(n <= CHECKPOINT_POSITIONS);
    for (uint32_t t = 0; t < n; t++) {
        memcpy(x, embed->values + (size_t)tokens[t] * s->hidden, s->hidden * sizeof *x);
        for (uint32_t i = 0; i < s->layers; i++)
            run_layer(c, i, t, x, keys + i * layer_kv, values + i * layer_kv);
    }
    norm(c, -1, "model.norm.weight", x, h);
    product(c, -1, s->tied ? "model.embed_tokens" : "lm_head", h, logits);
    free(keys);
    free(values);
}
