/* gguf_model.c - see gguf_model.h. */
#include "tests/unit/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/mem.h"
#include "gpu-worker/load/safetensors.h"
#include "gpu-worker/load/tensors.h"
#include "tests/check.h"
#include "tests/unit/checkpoint.h"

struct converter {
    struct gguf_writer *w;
    json_t *config;
    const char *arch; /* of general.architecture */
    struct tensors *ts;
};

static const char *arch_of(const json_t *config)
{
    static const char *const names[][2] = {
        { "LlamaForCausalLM", "llama" },       { "MistralForCausalLM", "llama" },
        { "MixtralForCausalLM", "llama" },     { "Qwen2ForCausalLM", "qwen2" },
        { "Qwen2MoeForCausalLM", "qwen2moe" }, { "Qwen3ForCausalLM", "qwen3" },
        { "Qwen3MoeForCausalLM", "qwen3moe" }, { "GemmaForCausalLM", "gemma" },
        { "Gemma2ForCausalLM", "gemma2" },     { "Phi3ForCausalLM", "phi3" },
    };
    const char *name =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (name && strcmp(name, names[i][0]) == 0)
            return names[i][1];
    fail_msg("architecture '%s'", name ? name : "none");
    return NULL;
}

/* ---- keys ---- */

static const char *key(const struct converter *c, const char *suffix)
{
    static char text[128];

    snprintf(text, sizeof text, "%s.%s", c->arch, suffix);
    return text;
}

static double number(const struct converter *c, const char *field)
{
    return json_number_value(json_object_get(c->config, field));
}

static void put_counts(const struct converter *c)
{
    static const char *const names[][2] = {
        { "vocab_size", "vocab_size" },
        { "hidden_size", "embedding_length" },
        { "intermediate_size", "feed_forward_length" },
        { "num_hidden_layers", "block_count" },
        { "num_attention_heads", "attention.head_count" },
        { "num_key_value_heads", "attention.head_count_kv" },
        { "head_dim", "attention.key_length" },
        { "head_dim", "attention.value_length" },
        { "max_position_embeddings", "context_length" },
        { "original_max_position_embeddings", "rope.scaling.original_context_length" },
        { "sliding_window", "attention.sliding_window" },
        { "num_local_experts", "expert_count" },
        { "num_experts", "expert_count" },
        { "num_experts_per_tok", "expert_used_count" },
        { "moe_intermediate_size", "expert_feed_forward_length" },
        { "shared_expert_intermediate_size", "expert_shared_feed_forward_length" },
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = json_object_get(c->config, names[i][0]);
        if (json_is_integer(v))
            gguf_put_u32(c->w, key(c, names[i][1]), (uint32_t)json_integer_value(v));
    }
}

static void put_numbers(const struct converter *c)
{
    static const char *const names[][2] = {
        { "rms_norm_eps", "attention.layer_norm_rms_epsilon" },
        { "rope_theta", "rope.freq_base" },
        { "attn_logit_softcapping", "attn_logit_softcapping" },
        { "final_logit_softcapping", "final_logit_softcapping" },
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is_number(json_object_get(c->config, names[i][0])))
            gguf_put_f32(c->w, key(c, names[i][1]), (float)number(c, names[i][0]));
}

/* ---- rope ---- */

static void put_factor_list(const struct converter *c, const json_t *list, const char *name)
{
    size_t n = json_array_size(list);
    float *v = mem_alloc(n * sizeof *v);

    for (size_t i = 0; i < n; i++)
        v[i] = (float)json_number_value(json_array_get(list, i));
    gguf_put_tensor(c->w, name, 0, 0, n, v, n * sizeof *v);
    free(v);
}

/* What Llama 3.1's scaling divides each frequency by. */
static void put_llama3_factors(const struct converter *c, const json_t *scaling)
{
    double factor = json_number_value(json_object_get(scaling, "factor"));
    double low = json_number_value(json_object_get(scaling, "low_freq_factor"));
    double high = json_number_value(json_object_get(scaling, "high_freq_factor"));
    double old = json_number_value(json_object_get(scaling, "original_max_position_embeddings"));
    double dim = number(c, "head_dim");
    float v[512];

    for (int i = 0; i < (int)dim / 2; i++) {
        double wave = 2 * M_PI * pow(number(c, "rope_theta"), 2.0 * i / dim);
        double smooth = (old / wave - low) / (high - low);
        v[i] = wave < old / high  ? 1
               : wave > old / low ? (float)factor
                                  : (float)(1 / ((1 - smooth) / factor + smooth));
    }
    gguf_put_tensor(c->w, "rope_freqs.weight", 0, 0, (uint64_t)dim / 2, v,
                    (size_t)dim / 2 * sizeof *v);
}

static void put_yarn(const struct converter *c, const json_t *scaling)
{
    const json_t *fast = json_object_get(scaling, "beta_fast");
    const json_t *slow = json_object_get(scaling, "beta_slow");
    const json_t *original = json_object_get(scaling, "original_max_position_embeddings");

    if (fast)
        gguf_put_f32(c->w, key(c, "rope.scaling.yarn_beta_fast"), (float)json_number_value(fast));
    if (slow)
        gguf_put_f32(c->w, key(c, "rope.scaling.yarn_beta_slow"), (float)json_number_value(slow));
    if (original)
        gguf_put_u32(c->w, key(c, "rope.scaling.original_context_length"),
                     (uint32_t)json_integer_value(original));
}

static void put_rope(const struct converter *c)
{
    const json_t *scaling = json_object_get(c->config, "rope_scaling");
    const json_t *part = json_object_get(c->config, "partial_rotary_factor");
    const char *type = json_string_value(json_object_get(scaling, "type"));

    if (part)
        gguf_put_u32(c->w, key(c, "rope.dimension_count"),
                     (uint32_t)lround(json_number_value(part) * number(c, "head_dim")));
    if (!type)
        type = json_string_value(json_object_get(scaling, "rope_type"));
    if (type && (strcmp(type, "linear") == 0 || strcmp(type, "yarn") == 0)) {
        gguf_put_string(c->w, key(c, "rope.scaling.type"), type);
        gguf_put_f32(c->w, key(c, "rope.scaling.factor"),
                     (float)json_number_value(json_object_get(scaling, "factor")));
        put_yarn(c, scaling);
    } else if (type && strcmp(type, "llama3") == 0) {
        put_llama3_factors(c, scaling);
    } else if (type && strcmp(type, "longrope") == 0) {
        put_factor_list(c, json_object_get(scaling, "short_factor"), "rope_factors_short.weight");
        put_factor_list(c, json_object_get(scaling, "long_factor"), "rope_factors_long.weight");
    }
}

/* ---- tensors ---- */

/* HuggingFace stem, GGUF stem; a family's own come first. */
static const struct {
    const char *arch, *hf, *gguf;
} stems[] = {
    { "gemma2", "post_attention_layernorm", "post_attention_norm" },
    { "gemma2", "pre_feedforward_layernorm", "ffn_norm" },
    { "gemma2", "post_feedforward_layernorm", "post_ffw_norm" },
    { NULL, "input_layernorm", "attn_norm" },
    { NULL, "post_attention_layernorm", "ffn_norm" },
    { NULL, "self_attn.q_proj", "attn_q" },
    { NULL, "self_attn.k_proj", "attn_k" },
    { NULL, "self_attn.v_proj", "attn_v" },
    { NULL, "self_attn.qkv_proj", "attn_qkv" },
    { NULL, "self_attn.o_proj", "attn_output" },
    { NULL, "self_attn.q_norm", "attn_q_norm" },
    { NULL, "self_attn.k_norm", "attn_k_norm" },
    { NULL, "mlp.gate_proj", "ffn_gate" },
    { NULL, "mlp.up_proj", "ffn_up" },
    { NULL, "mlp.gate_up_proj", "ffn_up" },
    { NULL, "mlp.down_proj", "ffn_down" },
    { NULL, "mlp.gate", "ffn_gate_inp" },
    { NULL, "block_sparse_moe.gate", "ffn_gate_inp" },
    { NULL, "mlp.shared_expert_gate", "ffn_gate_inp_shexp" },
    { NULL, "mlp.shared_expert.gate_proj", "ffn_gate_shexp" },
    { NULL, "mlp.shared_expert.up_proj", "ffn_up_shexp" },
    { NULL, "mlp.shared_expert.down_proj", "ffn_down_shexp" },
    { NULL, "experts.0.w1", "ffn_gate_exps" },
    { NULL, "experts.0.w2", "ffn_down_exps" },
    { NULL, "experts.0.w3", "ffn_up_exps" },
    { NULL, "experts.0.gate_proj", "ffn_gate_exps" },
    { NULL, "experts.0.up_proj", "ffn_up_exps" },
    { NULL, "experts.0.down_proj", "ffn_down_exps" },
};

static const char *stem_of(const struct converter *c, const char *hf, size_t n)
{
    const char *experts = strstr(hf, "experts.0.");

    if (experts && experts < hf + n) {
        n -= (size_t)(experts - hf);
        hf = experts;
    }
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++)
        if ((!stems[i].arch || strcmp(stems[i].arch, c->arch) == 0) && strlen(stems[i].hf) == n &&
            memcmp(stems[i].hf, hf, n) == 0)
            return stems[i].gguf;
    fail_msg("no GGUF name for '%s'", hf);
    return NULL;
}

static void name_of(const struct converter *c, const char *hf, char out[128])
{
    const char *dot = strrchr(hf, '.');
    unsigned layer;
    int at = 0;

    if (strncmp(hf, "model.embed_tokens", 18) == 0)
        snprintf(out, 128, "token_embd%s", dot);
    else if (strncmp(hf, "model.norm", 10) == 0)
        snprintf(out, 128, "output_norm%s", dot);
    else if (strncmp(hf, "lm_head", 7) == 0)
        snprintf(out, 128, "output%s", dot);
    else if (sscanf(hf, "model.layers.%u.%n", &layer, &at) == 1 && at > 0)
        snprintf(out, 128, "blk.%u.%s%s", layer, stem_of(c, hf + at, (size_t)(dot - hf - at)), dot);
    else
        fail_msg("no GGUF name for '%s'", hf);
}

static bool has(const char *s, const char *part)
{
    return strstr(s, part) != NULL;
}

/* Row i of a head goes to the place 2 i, its partner i + half to 2 i + 1. */
static void pair_rows(char *bytes, const struct tensor *t, size_t row, uint32_t head)
{
    char *from = mem_alloc(t->dims[0] * row);

    memcpy(from, bytes, t->dims[0] * row);
    for (uint64_t i = 0; i < t->dims[0]; i++) {
        uint64_t in = i % head, to = in < head / 2 ? 2 * in : 2 * (in - head / 2) + 1;
        memcpy(bytes + (i - in + to) * row, from + i * row, row);
    }
    free(from);
}

static uint32_t number_of_type(enum tensor_type t)
{
    return t == TENSOR_F32 ? 0 : t == TENSOR_F16 ? 1 : 30;
}

static void put_vector(const struct converter *c, const struct tensor *t, const char *name)
{
    size_t n = t->dims[0];
    float *v = mem_alloc(n * sizeof *v);

    tensor_type_to_float(t->type, v, t->data, n);
    for (size_t i = 0; i < n && strncmp(c->arch, "gemma", 5) == 0 && has(name, "norm"); i++)
        v[i] += 1;
    if (strcmp(c->arch, "llama") == 0 && (has(name, "attn_q.bias") || has(name, "attn_k.bias")))
        pair_rows((char *)v, t, sizeof *v, (uint32_t)number(c, "head_dim"));
    gguf_put_tensor(c->w, name, 0, 0, n, v, n * sizeof *v);
    free(v);
}

static void put_matrix(const struct converter *c, const struct tensor *t, const char *name)
{
    char *bytes = mem_alloc(t->bytes);

    memcpy(bytes, t->data, t->bytes);
    if (strcmp(c->arch, "llama") == 0 && (has(name, "attn_q.") || has(name, "attn_k.")))
        pair_rows(bytes, t, t->bytes / t->dims[0], (uint32_t)number(c, "head_dim"));
    if (has(name, "ffn_gate_inp_shexp"))
        gguf_put_tensor(c->w, name, number_of_type(t->type), 0, t->dims[1], bytes, t->bytes);
    else
        gguf_put_tensor(c->w, name, number_of_type(t->type), t->dims[0], t->dims[1], bytes,
                        t->bytes);
    free(bytes);
}

/* `first` is expert 0; the others are beside it. */
static void put_experts(const struct converter *c, const struct tensor *first, const char *name)
{
    const char *digit = strstr(first->name, "experts.0.") + 8;
    const struct tensor *t = first;
    struct buf all = { 0 };
    uint64_t n = 0;

    while (t) {
        char next[160];
        buf_add(&all, t->data, t->bytes);
        n++;
        snprintf(next, sizeof next, "%.*s%u%s", (int)(digit - first->name), first->name,
                 (unsigned)n, digit + 1);
        t = tensors_find(c->ts, next);
    }
    gguf_put_tensor_3d(c->w, name, number_of_type(first->type),
                       (uint64_t[]){ first->dims[1], first->dims[0], n }, all.data, all.n);
    buf_fini(&all);
}

static void put_tensors(const struct converter *c)
{
    for (uint32_t i = 0; i < c->ts->n_tensors; i++) {
        const struct tensor *t = &c->ts->tensors[i];
        char name[128];

        if (has(t->name, "experts.") && !has(t->name, "experts.0."))
            continue;
        name_of(c, t->name, name);
        if (has(t->name, "experts.0."))
            put_experts(c, t, name);
        else if (t->n_dims == 1)
            put_vector(c, t, name);
        else
            put_matrix(c, t, name);
    }
}

static json_t *read_config(const char *dir)
{
    struct err e = { 0 };
    char path[256];
    json_t *config;

    snprintf(path, sizeof path, "%s/config.json", dir);
    config = json_parse_file(path, 1 << 20, &e);
    if (!config)
        fail_msg("%s", e.msg);
    return config;
}

void gguf_model_put(struct gguf_writer *w, const char *dir)
{
    struct converter c = { .w = w, .config = read_config(dir) };
    struct err e = { 0 };

    c.ts = safetensors_open(dir, &e);
    if (!c.ts)
        fail_msg("%s: %s", dir, e.msg);
    if (!json_is_integer(json_object_get(c.config, "head_dim")))
        json_object_set_new(c.config, "head_dim",
                            json_integer((json_int_t)(number(&c, "hidden_size") /
                                                      number(&c, "num_attention_heads"))));
    c.arch = arch_of(c.config);
    gguf_put_string(w, "general.architecture", c.arch);
    put_counts(&c);
    put_numbers(&c);
    put_rope(&c);
    put_tensors(&c);
    tensors_close(c.ts);
    json_decref(c.config);
}

void gguf_model_put_ends(struct gguf_writer *w, const char *dir)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    json_t *config = read_config(dir);
    const json_t *v = json_object_get(config, "eos_token_id");

    if (json_is_integer(v))
        gguf_put_u32(w, keys[0], (uint32_t)json_integer_value(v));
    for (size_t i = 0; i < json_array_size(v) && i < 3; i++)
        gguf_put_u32(w, keys[i], (uint32_t)json_integer_value(json_array_get(v, i)));
    json_decref(config);
}

void gguf_model_write(const char *from, const char *dir, const char *name)
{
    struct gguf_writer w = { 0 };
    struct buf file;

    gguf_model_put(&w, from);
    gguf_model_put_ends(&w, from);
    file = gguf_finish(&w);
    test_dir_write(dir, name, file.data, file.n);
    buf_fini(&file);
}
