/* checkpoint.c - see checkpoint.h. */
#include "tests/unit/checkpoint.h"

#include <dirent.h>
#include <errno.h>
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
    if (!f)
        fail_msg("create '%s': %s", path, strerror(errno));
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

static bool is(const struct checkpoint_spec *s, const char *family)
{
    return strncmp(s->architecture, family, strlen(family)) == 0;
}

/* Gemma 1 and 2. */
static bool is_gemma(const struct checkpoint_spec *s)
{
    return is(s, "Gemma");
}

static bool is_sparse(const struct checkpoint_spec *s, uint32_t layer)
{
    uint32_t step = s->sparse_step ? s->sparse_step : 1;

    return s->experts > 0 && (layer + 1) % step == 0 &&
           (s->dense_layer == 0 || layer != s->dense_layer);
}

static void add_in(struct checkpoint *c, struct random *r, uint32_t layer, const char *name,
                   uint32_t rows, uint32_t cols)
{
    bool norm = strstr(name, "norm") != NULL;
    double center = norm && !is_gemma(&c->spec) ? 1 : 0;
    char full[64];

    snprintf(full, sizeof full, "model.layers.%u.%s", layer, name);
    add(c, r, full, rows, cols, norm ? 0.2 : cols ? 2 / sqrt(cols) : 0.5, center);
}

/* Gate, up and down of "<at>.", by the names given. */
static void add_gated(struct checkpoint *c, struct random *r, uint32_t i, const char *at,
                      const char *const names[3], uint32_t inner)
{
    char name[64];

    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "%s.%s.weight", at, names[k]);
        add_in(c, r, i, name, k < 2 ? inner : c->spec.hidden, k < 2 ? c->spec.hidden : inner);
    }
}

static const char *const gate_up_down[3] = { "gate_proj", "up_proj", "down_proj" };
static const char *const w1_w3_w2[3] = { "w1", "w3", "w2" };

static void expert_at(const struct checkpoint_spec *s, uint32_t i, char at[48])
{
    snprintf(at, 48, "%s.experts.%u", is(s, "Mixtral") ? "block_sparse_moe" : "mlp", i);
}

static void add_experts(struct checkpoint *c, struct random *r, uint32_t i)
{
    const struct checkpoint_spec *s = &c->spec;
    bool mixtral = is(s, "Mixtral");
    char at[48];

    add_in(c, r, i, mixtral ? "block_sparse_moe.gate.weight" : "mlp.gate.weight", s->experts,
           s->hidden);
    for (uint32_t k = 0; k < s->experts; k++) {
        expert_at(s, k, at);
        add_gated(c, r, i, at, mixtral ? w1_w3_w2 : gate_up_down, s->expert_inner);
    }
    if (s->shared_inner) {
        add_gated(c, r, i, "mlp.shared_expert", gate_up_down, s->shared_inner);
        add_in(c, r, i, "mlp.shared_expert_gate.weight", 1, s->hidden);
    }
}

static void add_mlp(struct checkpoint *c, struct random *r, uint32_t i)
{
    const struct checkpoint_spec *s = &c->spec;

    if (is_sparse(s, i))
        add_experts(c, r, i);
    else if (is(s, "Phi3")) {
        add_in(c, r, i, "mlp.gate_up_proj.weight", 2 * s->inner, s->hidden);
        add_in(c, r, i, "mlp.down_proj.weight", s->hidden, s->inner);
    } else
        add_gated(c, r, i, "mlp", gate_up_down, s->inner);
}

static void add_layer(struct checkpoint *c, struct random *r, uint32_t i)
{
    const struct checkpoint_spec *s = &c->spec;
    uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;

    add_in(c, r, i, "input_layernorm.weight", s->hidden, 0);
    if (is(s, "Phi3"))
        add_in(c, r, i, "self_attn.qkv_proj.weight", q + 2 * kv, s->hidden);
    else {
        add_in(c, r, i, "self_attn.q_proj.weight", q, s->hidden);
        add_in(c, r, i, "self_attn.k_proj.weight", kv, s->hidden);
        add_in(c, r, i, "self_attn.v_proj.weight", kv, s->hidden);
    }
    if (is(s, "Qwen3")) {
        add_in(c, r, i, "self_attn.q_norm.weight", s->head_dim, 0);
        add_in(c, r, i, "self_attn.k_norm.weight", s->head_dim, 0);
    }
    add_in(c, r, i, "self_attn.o_proj.weight", s->hidden, q);
    add_in(c, r, i, "post_attention_layernorm.weight", s->hidden, 0);
    if (is(s, "Gemma2")) {
        add_in(c, r, i, "pre_feedforward_layernorm.weight", s->hidden, 0);
        add_in(c, r, i, "post_feedforward_layernorm.weight", s->hidden, 0);
    }
    add_mlp(c, r, i);
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

static void write_divisors(const struct checkpoint_spec *s, const char *field, double step,
                           struct buf *b)
{
    uint32_t n = (s->rotary ? s->rotary : s->head_dim) / 2;

    for (uint32_t i = 0; i < n; i++)
        buf_printf(b, "%s%.17g", i ? "," : field, 1 + i * step);
    buf_add_char(b, ']');
}

static void write_rope(const struct checkpoint_spec *s, struct buf *b)
{
    if (s->linear_factor > 0)
        buf_printf(b, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":%g}", s->linear_factor);
    if (s->llama3_factor > 0)
        buf_printf(b,
                   ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":%g,"
                   "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                   "\"original_max_position_embeddings\":16}",
                   s->llama3_factor);
    if (s->yarn_factor > 0)
        buf_printf(b,
                   ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":%g,\"beta_fast\":1,"
                   "\"beta_slow\":0.1,\"original_max_position_embeddings\":16}",
                   s->yarn_factor);
    if (s->longrope_original > 0) {
        buf_printf(b, ",\"original_max_position_embeddings\":%u,\"rope_scaling\":{",
                   s->longrope_original);
        write_divisors(s, "\"type\":\"longrope\",\"short_factor\":[", 0.05, b);
        write_divisors(s, ",\"long_factor\":[", 0.5, b);
        buf_add_char(b, '}');
    }
    if (s->rotary > 0)
        buf_printf(b, ",\"partial_rotary_factor\":%.17g", (double)s->rotary / s->head_dim);
}

static void write_experts(const struct checkpoint_spec *s, struct buf *b)
{
    buf_printf(b, ",\"%s\":%u,\"num_experts_per_tok\":%u",
               is(s, "Mixtral") ? "num_local_experts" : "num_experts", s->experts, s->experts_used);
    if (is(s, "Mixtral"))
        return;
    buf_printf(b, ",\"moe_intermediate_size\":%u,\"norm_topk_prob\":%s", s->expert_inner,
               s->norm_topk ? "true" : "false");
    if (s->shared_inner)
        buf_printf(b, ",\"shared_expert_intermediate_size\":%u", s->shared_inner);
    if (s->sparse_step)
        buf_printf(b, ",\"decoder_sparse_step\":%u", s->sparse_step);
    if (s->dense_layer)
        buf_printf(b, ",\"mlp_only_layers\":[%u]", s->dense_layer);
}

static void write_config(const struct checkpoint *c)
{
    const struct checkpoint_spec *s = &c->spec;
    bool qwen = is(s, "Qwen");
    struct buf b = { 0 };

    buf_printf(&b,
               "{\"architectures\":[\"%s\"],\"hidden_size\":%u,\"intermediate_size\":%u,"
               "\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,"
               "\"head_dim\":%u,\"vocab_size\":%u,\"max_position_embeddings\":%u,"
               "\"rms_norm_eps\":1e-6,\"hidden_act\":\"%s\",\"rope_theta\":%.17g,"
               "\"tie_word_embeddings\":%s,\"eos_token_id\":[1,2],\"torch_dtype\":\"float32\"",
               s->architecture, s->hidden, s->inner, s->layers, s->heads, s->kv_heads, s->head_dim,
               s->vocab, CHECKPOINT_POSITIONS, is_gemma(s) ? "gelu_pytorch_tanh" : "silu", s->theta,
               s->tied ? "true" : "false");
    if (!qwen || is(s, "Qwen3"))
        buf_printf(&b, ",\"attention_bias\":%s,\"mlp_bias\":%s", s->o_bias ? "true" : "false",
                   s->mlp_bias ? "true" : "false");
    if (s->window)
        buf_printf(&b, ",\"sliding_window\":%u", s->window);
    if (s->window && qwen)
        buf_printf(&b, ",\"use_sliding_window\":true,\"max_window_layers\":%u",
                   s->window_from_layer);
    if (is(s, "Gemma2"))
        buf_printf(&b,
                   ",\"query_pre_attn_scalar\":%g,\"attn_logit_softcapping\":%g,"
                   "\"final_logit_softcapping\":%g",
                   s->query_scalar, s->attn_cap, s->final_cap);
    write_rope(s, &b);
    if (s->experts > 0)
        write_experts(s, &b);
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
    add(c, &r, "model.norm.weight", spec->hidden, 0, 0.2, is_gemma(spec) ? 0 : 1);
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

/* y = W x + b, b when the model has one; n rows of W from `first` on, all when n is 0 */
static void product_rows(const struct checkpoint *c, int layer, const char *name, uint32_t first,
                         uint32_t n, const double *x, double *y)
{
    char weight[64], bias[64];
    const struct checkpoint_tensor *w, *b;

    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    w = find(c, layer, weight);
    b = find(c, layer, bias);
    assert_non_null(w);
    n = n ? n : w->rows;
    assert_true(first + n <= w->rows);
    for (uint32_t i = 0; i < n; i++) {
        y[i] = b ? b->values[first + i] : 0;
        for (uint32_t k = 0; k < w->cols; k++)
            y[i] += w->values[(size_t)(first + i) * w->cols + k] * x[k];
    }
}

static void product(const struct checkpoint *c, int layer, const char *name, const double *x,
                    double *y)
{
    product_rows(c, layer, name, 0, 0, x, y);
}

/* y may be x */
static void norm(const struct checkpoint *c, int layer, const char *name, const double *x,
                 double *y)
{
    const struct checkpoint_tensor *w = find(c, layer, name);
    double sum = 0;

    for (uint32_t i = 0; i < w->rows; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < w->rows; i++)
        y[i] = x[i] / sqrt(sum / w->rows + 1e-6) * (w->values[i] + (is_gemma(&c->spec) ? 1 : 0));
}

static uint32_t rotary_of(const struct checkpoint_spec *s)
{
    return s->rotary ? s->rotary : s->head_dim;
}

/* arXiv:2309.00071: dimension d makes original / wavelength turns; above beta fast it is kept, below slow divided;
 * between, the reference code goes straight from one whole dimension to the other. */
static double yarn(const struct checkpoint_spec *s, uint32_t i, double f)
{
    uint32_t n = rotary_of(s);
    int keep = (int)floor(n / 2.0 * log(16 / (2 * M_PI * 1)) / log(s->theta));
    int divide = (int)ceil(n / 2.0 * log(16 / (2 * M_PI * 0.1)) / log(s->theta));

    keep = keep < 0 ? 0 : keep;
    assert_true(divide > keep + 1); /* there is something to blend */
    if ((int)i <= keep)
        return f;
    if ((int)i >= divide)
        return f / s->yarn_factor;
    return f + (f / s->yarn_factor - f) * ((int)i - keep) / (divide - keep);
}

static double frequency(const struct checkpoint_spec *s, uint32_t i)
{
    double f = 1 / pow(s->theta, (double)(2 * i) / rotary_of(s)), wavelength = 2 * M_PI / f, smooth;

    if (s->linear_factor > 0)
        return f / s->linear_factor;
    if (s->yarn_factor > 0)
        return yarn(s, i, f);
    if (s->longrope_original > 0)
        return f / (float)(1 + i * (s->longrope_original < CHECKPOINT_POSITIONS ? 0.5 : 0.05));
    if (s->llama3_factor == 0 || wavelength < 16 / 4.0)
        return f;
    if (wavelength > 16 / 1.0)
        return f / s->llama3_factor;
    smooth = (16 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * f / s->llama3_factor + smooth * f;
}

/* How much longer turned queries and keys become. */
static double amplitude(const struct checkpoint_spec *s)
{
    if (s->yarn_factor > 0)
        return 1 + log(s->yarn_factor) / 10;
    if (s->longrope_original > 0)
        return sqrt(1 + log((double)CHECKPOINT_POSITIONS / s->longrope_original) /
                            log(s->longrope_original));
    return 1;
}

static void rotate(const struct checkpoint_spec *s, double *head, uint32_t position)
{
    uint32_t half = rotary_of(s) / 2;

    for (uint32_t i = 0; i < half; i++) {
        double angle = position * frequency(s, i), a = head[i], b = head[i + half];
        head[i] = amplitude(s) * (a * cos(angle) - b * sin(angle));
        head[i + half] = amplitude(s) * (b * cos(angle) + a * sin(angle));
    }
}

static bool is_windowed(const struct checkpoint_spec *s, uint32_t layer)
{
    if (is(s, "Gemma2"))
        return layer % 2 == 0;
    return s->window > 0 && layer >= s->window_from_layer;
}

static double capped(double x, double cap)
{
    return cap > 0 ? cap * tanh(x / cap) : x;
}

/* One head's attention; keys and values are [position][kv_heads * head_dim] of this layer. */
static void attend(const struct checkpoint_spec *s, uint32_t layer, uint32_t h, uint32_t t,
                   const double *q, const double *keys, const double *values, double *out)
{
    size_t kv_dim = (size_t)s->kv_heads * s->head_dim;
    size_t at = (size_t)(h / (s->heads / s->kv_heads)) * s->head_dim;
    double sum = 0, scalar = s->query_scalar > 0 ? s->query_scalar : s->head_dim;

    for (uint32_t d = 0; d < s->head_dim; d++)
        out[d] = 0;
    for (uint32_t p = 0; p <= t; p++) {
        double score = 0, weight;
        if (is_windowed(s, layer) && t - p >= s->window)
            continue;
        for (uint32_t d = 0; d < s->head_dim; d++)
            score += q[d] * keys[p * kv_dim + at + d];
        weight = exp(capped(score / sqrt(scalar), s->attn_cap));
        sum += weight;
        for (uint32_t d = 0; d < s->head_dim; d++)
            out[d] += weight * values[p * kv_dim + at + d];
    }
    for (uint32_t d = 0; d < s->head_dim; d++)
        out[d] /= sum;
}

enum { WIDE = 1024 };

/* Where a layer's keys and values of all positions are. */
struct cache {
    double *keys, *values;
};

static void project(const struct checkpoint *c, int layer, const double *h, double *q, double *k,
                    double *v)
{
    const struct checkpoint_spec *s = &c->spec;
    uint32_t nq = s->heads * s->head_dim, nkv = s->kv_heads * s->head_dim;

    if (is(s, "Phi3")) {
        product_rows(c, layer, "self_attn.qkv_proj", 0, nq, h, q);
        product_rows(c, layer, "self_attn.qkv_proj", nq, nkv, h, k);
        product_rows(c, layer, "self_attn.qkv_proj", nq + nkv, nkv, h, v);
        return;
    }
    product(c, layer, "self_attn.q_proj", h, q);
    product(c, layer, "self_attn.k_proj", h, k);
    product(c, layer, "self_attn.v_proj", h, v);
}

/* h becomes what attention gives for it. */
static void run_attention(const struct checkpoint *c, uint32_t i, uint32_t t, double *h,
                          struct cache cache)
{
    const struct checkpoint_spec *s = &c->spec;
    double *k = cache.keys + (size_t)t * s->kv_heads * s->head_dim;
    double *v = cache.values + (size_t)t * s->kv_heads * s->head_dim;
    double q[WIDE], o[WIDE];

    project(c, (int)i, h, q, k, v);
    for (uint32_t n = 0; n < s->kv_heads; n++) {
        if (is(s, "Qwen3"))
            norm(c, (int)i, "self_attn.k_norm.weight", k + (size_t)n * s->head_dim,
                 k + (size_t)n * s->head_dim);
        rotate(s, k + (size_t)n * s->head_dim, t);
    }
    for (uint32_t n = 0; n < s->heads; n++) {
        double *head = q + (size_t)n * s->head_dim;
        if (is(s, "Qwen3"))
            norm(c, (int)i, "self_attn.q_norm.weight", head, head);
        rotate(s, head, t);
        attend(s, i, n, t, head, cache.keys, cache.values, o + (size_t)n * s->head_dim);
    }
    product(c, (int)i, "self_attn.o_proj", o, h);
}

static double activate(const struct checkpoint_spec *s, double a)
{
    if (is_gemma(s))
        return a / 2 * (1 + tanh(sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
    return a / (1 + exp(-a));
}

/* y = down(act(gate(x)) * up(x)) of the matrices "<at>.<names>" */
static void gated(const struct checkpoint *c, int layer, const char *at, const char *const names[3],
                  const double *x, double *y)
{
    const struct checkpoint_tensor *w;
    double gate[WIDE], up[WIDE];
    char name[3][64];

    for (int k = 0; k < 3; k++)
        snprintf(name[k], sizeof name[k], "%s.%s", at, names[k]);
    product(c, layer, name[0], x, gate);
    product(c, layer, name[1], x, up);
    snprintf(name[0], sizeof name[0], "%s.%s.weight", at, names[0]);
    w = find(c, layer, name[0]);
    for (uint32_t k = 0; k < w->rows; k++)
        gate[k] = activate(&c->spec, gate[k]) * up[k];
    product(c, layer, name[2], gate, y);
}

static void fused_mlp(const struct checkpoint *c, int layer, const double *x, double *y)
{
    double gate[WIDE], up[WIDE];
    uint32_t inner = c->spec.inner;

    product_rows(c, layer, "mlp.gate_up_proj", 0, inner, x, gate);
    product_rows(c, layer, "mlp.gate_up_proj", inner, inner, x, up);
    for (uint32_t k = 0; k < inner; k++)
        gate[k] = activate(&c->spec, gate[k]) * up[k];
    product(c, layer, "mlp.down_proj", gate, y);
}

/* How many experts are ahead of e in the order of their scores. */
static uint32_t rank_of(const double *score, uint32_t n, uint32_t e)
{
    uint32_t rank = 0;

    for (uint32_t k = 0; k < n; k++)
        rank += score[k] > score[e] || (score[k] == score[e] && k < e);
    return rank;
}

static void run_experts(const struct checkpoint *c, int layer, const double *x, double *y)
{
    const struct checkpoint_spec *s = &c->spec;
    bool mixtral = is(s, "Mixtral");
    double p[WIDE], part[WIDE], all = 0, chosen = 0;
    char at[48];

    product(c, layer, mixtral ? "block_sparse_moe.gate" : "mlp.gate", x, p);
    for (uint32_t e = 0; e < s->experts; e++)
        all += p[e] = exp(p[e]);
    for (uint32_t e = 0; e < s->experts; e++)
        chosen += rank_of(p, s->experts, e) < s->experts_used ? p[e] : 0;
    for (uint32_t k = 0; k < s->hidden; k++)
        y[k] = 0;
    for (uint32_t e = 0; e < s->experts; e++) {
        if (rank_of(p, s->experts, e) >= s->experts_used)
            continue;
        expert_at(s, e, at);
        gated(c, layer, at, mixtral ? w1_w3_w2 : gate_up_down, x, part);
        for (uint32_t k = 0; k < s->hidden; k++)
            y[k] += p[e] / (mixtral || s->norm_topk ? chosen : all) * part[k];
    }
    if (s->shared_inner) {
        double open;
        product(c, layer, "mlp.shared_expert_gate", x, &open);
        gated(c, layer, "mlp.shared_expert", gate_up_down, x, part);
        for (uint32_t k = 0; k < s->hidden; k++)
            y[k] += part[k] / (1 + exp(-open));
    }
}

static void run_mlp(const struct checkpoint *c, uint32_t i, const double *x, double *y)
{
    if (is_sparse(&c->spec, i))
        run_experts(c, (int)i, x, y);
    else if (is(&c->spec, "Phi3"))
        fused_mlp(c, (int)i, x, y);
    else
        gated(c, (int)i, "mlp", gate_up_down, x, y);
}

static void add_to(double *x, const double *h, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        x[k] += h[k];
}

static void run_layer(const struct checkpoint *c, uint32_t i, uint32_t t, double *x,
                      struct cache cache)
{
    const struct checkpoint_spec *s = &c->spec;
    bool both_sides = is(s, "Gemma2");
    double h[WIDE], y[WIDE];
    int l = (int)i;

    assert_true(s->hidden <= WIDE && s->inner <= WIDE && s->heads * s->head_dim <= WIDE);
    norm(c, l, "input_layernorm.weight", x, h);
    run_attention(c, i, t, h, cache);
    if (both_sides)
        norm(c, l, "post_attention_layernorm.weight", h, h);
    add_to(x, h, s->hidden);
    norm(c, l, both_sides ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight",
         x, h);
    run_mlp(c, i, h, y);
    if (both_sides)
        norm(c, l, "post_feedforward_layernorm.weight", y, y);
    add_to(x, y, s->hidden);
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
        for (uint32_t k = 0; k < s->hidden; k++)
            x[k] = embed->values[(size_t)tokens[t] * s->hidden + k] *
                   (is_gemma(s) ? sqrt(s->hidden) : 1);
        for (uint32_t i = 0; i < s->layers; i++)
            run_layer(c, i, t, x, (struct cache){ keys + i * layer_kv, values + i * layer_kv });
    }
    norm(c, -1, "model.norm.weight", x, h);
    product(c, -1, s->tied ? "model.embed_tokens" : "lm_head", h, logits);
    for (uint32_t i = 0; i < s->vocab; i++)
        logits[i] = capped(logits[i], s->final_cap);
    free(keys);
    free(values);
}
