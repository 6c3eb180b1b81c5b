/* keys.c - see keys.h. */
#include "gpu-worker/tool/keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/json.h"
#include "common/mem.h"

enum { FILE_BYTES_MAX = 32 << 20 };

static const char *key(const struct gguf_family *f, const char *suffix,
                       char text[GGUF_HF_NAME_BYTES])
{
    snprintf(text, GGUF_HF_NAME_BYTES, "%s.%s", f->name, suffix);
    return text;
}

static void put_count(struct gguf_out *o, const struct gguf_family *f, const char *suffix,
                      uint32_t v)
{
    char text[GGUF_HF_NAME_BYTES];

    gguf_out_u32(o, key(f, suffix, text), v);
}

static void put_number(struct gguf_out *o, const struct gguf_family *f, const char *suffix,
                       double v)
{
    char text[GGUF_HF_NAME_BYTES];

    gguf_out_f32(o, key(f, suffix, text), (float)v);
}

static void put_sizes(struct gguf_out *o, const struct gguf_family *f, const struct model_config *c)
{
    put_count(o, f, "vocab_size", c->vocab_size);
    put_count(o, f, "context_length", c->positions_max);
    put_count(o, f, "embedding_length", c->hidden_size);
    put_count(o, f, "block_count", c->n_layers);
    put_count(o, f, "feed_forward_length", c->intermediate_size);
    put_count(o, f, "attention.head_count", c->n_heads);
    put_count(o, f, "attention.head_count_kv", c->n_kv_heads);
    put_count(o, f, "attention.key_length", c->head_dim);
    put_count(o, f, "attention.value_length", c->head_dim);
    put_number(o, f, "attention.layer_norm_rms_epsilon", (double)c->rms_norm_eps);
    if (c->sliding_window > 0)
        put_count(o, f, "attention.sliding_window", c->sliding_window);
    if (c->attn_softcap > 0)
        put_number(o, f, "attn_logit_softcapping", (double)c->attn_softcap);
    if (c->final_softcap > 0)
        put_number(o, f, "final_logit_softcapping", (double)c->final_softcap);
    if (c->n_experts > 0) {
        put_count(o, f, "expert_count", c->n_experts);
        put_count(o, f, "expert_used_count", c->n_experts_used);
        put_count(o, f, "expert_feed_forward_length", c->expert_inner);
    }
    if (c->shared_expert_inner > 0)
        put_count(o, f, "expert_shared_feed_forward_length", c->shared_expert_inner);
}

/* ---- rope ---- */

static float *copy_floats(const float *v, uint32_t n)
{
    float *copy = mem_alloc(n * sizeof *copy);

    memcpy(copy, v, n * sizeof *copy);
    return copy;
}

/* Llama 3's scaling is a divisor for each frequency here. */
static float *llama3_divisors(const struct model_config *c)
{
    double *freq = mem_alloc(c->rope_dim / 2 * sizeof *freq);
    float *v = mem_alloc(c->rope_dim / 2 * sizeof *v);

    model_config_rope_freq(c, c->positions_max, freq);
    for (uint32_t i = 0; i < c->rope_dim / 2; i++)
        v[i] = (float)(pow(c->rope_theta, -2.0 * i / c->rope_dim) / freq[i]);
    free(freq);
    return v;
}

static void put_scaling(struct gguf_out *o, const struct gguf_family *f,
                        const struct model_config *c, const char *type)
{
    char text[GGUF_HF_NAME_BYTES];

    gguf_out_string(o, key(f, "rope.scaling.type", text), type);
    put_number(o, f, "rope.scaling.factor", c->rope_factor);
}

static void put_yarn(struct gguf_out *o, const struct gguf_family *f, const struct model_config *c)
{
    put_scaling(o, f, c, "yarn");
    put_number(o, f, "rope.scaling.yarn_beta_fast", c->rope_beta_fast);
    put_number(o, f, "rope.scaling.yarn_beta_slow", c->rope_beta_slow);
    put_count(o, f, "rope.scaling.original_context_length", (uint32_t)c->rope_original_positions);
}

static bool put_rope(struct gguf_out *o, const struct gguf_family *f, const struct model_config *c,
                     struct convert_rope *rope, struct err *e)
{
    put_number(o, f, "rope.freq_base", c->rope_theta);
    put_count(o, f, "rope.dimension_count", c->rope_dim);
    rope->n = c->rope_dim / 2;
    switch (c->rope_scaling) {
    case ROPE_PLAIN:
        return true;
    case ROPE_LINEAR:
        put_scaling(o, f, c, "linear");
        return true;
    case ROPE_YARN:
        put_yarn(o, f, c);
        return true;
    case ROPE_LLAMA3:
        rope->freqs = llama3_divisors(c);
        return true;
    case ROPE_FACTORS:
        put_count(o, f, "rope.scaling.original_context_length",
                  (uint32_t)c->rope_original_positions);
        put_number(o, f, "rope.scaling.attn_factor", c->rope_amplitude);
        rope->factors_short = copy_floats(c->rope_short, rope->n);
        rope->factors_long = copy_floats(c->rope_long, rope->n);
        return true;
    }
    return err_set(e, ERR_MODEL, 0, "this kind of rope scaling has no keys");
}

void convert_rope_fini(struct convert_rope *r)
{
    free(r->freqs);
    free(r->factors_short);
    free(r->factors_long);
    *r = (struct convert_rope){ 0 };
}

/* ---- the whole ---- */

/* The first end of a text is the tokenizer's eos; what else ends one has keys of its own. */
static void put_ends(struct gguf_out *o, const struct model_config *c)
{
    static const char *const keys[] = { "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };

    for (uint32_t i = 0; i < c->n_eos && i < 2; i++)
        gguf_out_u32(o, keys[i], (uint32_t)c->eos[i]);
}

bool convert_put_keys(struct gguf_out *o, const struct gguf_family *f, const struct model_config *c,
                      struct convert_rope *rope, struct err *e)
{
    gguf_out_string(o, "general.architecture", f->name);
    put_sizes(o, f, c);
    put_ends(o, c);
    return put_rope(o, f, c, rope, e);
}

/* ---- the chat template ---- */

/* One text, or the one named "default" of a list. */
static const char *template_text(const json_t *v)
{
    const json_t *one;
    size_t i;

    if (json_is_string(v))
        return json_string_value(v);
    json_array_foreach (v, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(one, "template"));
    }
    return NULL;
}

bool convert_put_chat_template(struct gguf_out *o, const char *dir, struct err *e)
{
    char path[4096], *bytes;
    const char *text;
    json_t *config;
    size_t n;

    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    if (file_exists(path)) {
        if (!file_read(path, FILE_BYTES_MAX, &bytes, &n, e))
            return false;
        gguf_out_string(o, "tokenizer.chat_template", bytes);
        free(bytes);
        return true;
    }
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    if (!file_exists(path))
        return true;
    config = json_parse_file(path, FILE_BYTES_MAX, e);
    if (!config)
        return false;
    text = template_text(json_object_get(config, "chat_template"));
    if (text)
        gguf_out_string(o, "tokenizer.chat_template", text);
    json_decref(config);
    return true;
}
