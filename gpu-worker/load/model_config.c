/* model_config.c - config.json, by a table of what each family does. */
#include "gpu-worker/load/model_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/gguf.h"
#include "common/log.h"
#include "gpu-worker/load/json_reader.h"
#include "gpu-worker/load/model_config_gguf.h"
#include "gpu-worker/load/model_rope.h"

/* Largest values believed: they keep every product of two of them far from overflow. */
enum {
    HIDDEN_MAX = 1 << 17,
    INTERMEDIATE_MAX = 1 << 20,
    HEADS_MAX = 1 << 10,
    VOCAB_MAX = 1 << 24,
};

/* ---- the families ---- */

/* Which layers have the window, where "layer_types" does not say it. */
enum window_rule {
    WINDOW_NONE,
    WINDOW_ALL,
    WINDOW_UPPER, /* with use_sliding_window, those from max_window_layers on */
    WINDOW_LISTED, /* with use_sliding_window; published code disagrees on a rule, so they must be listed */
    WINDOW_EVEN, /* 0, 2, 4 .. */
};

enum experts_rule { EXPERTS_NONE, EXPERTS_MIXTRAL, EXPERTS_QWEN2, EXPERTS_QWEN3 };

struct family {
    const char *architecture, *model_type;
    enum window_rule window;
    enum experts_rule experts;
    uint32_t head_dim; /* when the file does not say it; 0 = hidden_size / num_attention_heads */
    struct model_rope_defaults rope;
    bool qkv_bias;       /* always there */
    bool attention_bias; /* the field decides, for q, k, v and o */
    bool mlp_bias;       /* the field decides */
    bool qk_norm;
    bool fused; /* qkv_proj and gate_up_proj */
    bool tied;  /* unless the file says otherwise */
    bool gemma; /* gelu, 1 + w, scaled embedding */
    bool gemma2;
};

static const struct family families[] = {
    { .architecture = "LlamaForCausalLM",
      .model_type = "llama",
      .rope = { .theta = 10000 },
      .attention_bias = true,
      .mlp_bias = true },
    { .architecture = "MistralForCausalLM",
      .model_type = "mistral",
      .window = WINDOW_ALL,
      .rope = { .theta = 10000 } },
    { .architecture = "Qwen2ForCausalLM",
      .model_type = "qwen2",
      .window = WINDOW_UPPER,
      .rope = { .theta = 10000 },
      .qkv_bias = true },
    { .architecture = "Qwen3ForCausalLM",
      .model_type = "qwen3",
      .window = WINDOW_UPPER,
      .head_dim = 128,
      .rope = { .theta = 10000 },
      .attention_bias = true,
      .qk_norm = true },
    { .architecture = "GemmaForCausalLM",
      .model_type = "gemma",
      .head_dim = 256,
      .rope = { .theta = 10000 },
      .attention_bias = true,
      .tied = true,
      .gemma = true },
    { .architecture = "Gemma2ForCausalLM",
      .model_type = "gemma2",
      .window = WINDOW_EVEN,
      .head_dim = 256,
      .rope = { .theta = 10000 },
      .attention_bias = true,
      .tied = true,
      .gemma = true,
      .gemma2 = true },
    { .architecture = "Phi3ForCausalLM",
      .model_type = "phi3",
      .window = WINDOW_ALL,
      .rope = { .theta = 10000, .partial = true, .original_positions = 4096 },
      .fused = true },
    { .architecture = "MixtralForCausalLM",
      .model_type = "mixtral",
      .window = WINDOW_ALL,
      .experts = EXPERTS_MIXTRAL,
      .rope = { .theta = 1e6 } },
    { .architecture = "Qwen2MoeForCausalLM",
      .model_type = "qwen2_moe",
      .window = WINDOW_LISTED,
      .experts = EXPERTS_QWEN2,
      .rope = { .theta = 10000 },
      .qkv_bias = true },
    { .architecture = "Qwen3MoeForCausalLM",
      .model_type = "qwen3_moe",
      .window = WINDOW_LISTED,
      .experts = EXPERTS_QWEN3,
      .rope = { .theta = 10000 },
      .attention_bias = true,
      .qk_norm = true },
};

static const struct family *find_family(const struct json_reader *r)
{
    const json_t *list = json_reader_field(r, "architectures");
    const char *type = json_string_value(json_reader_field(r, "model_type"));
    const char *name = json_string_value(json_array_get(list, 0));

    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (name ? strcmp(name, families[i].architecture) == 0
                 : type && strcmp(type, families[i].model_type) == 0)
            return &families[i];
    }
    err_set(r->e, ERR_MODEL, 0,
            "%s: architecture \"%.60s\" is not supported; this build computes llama, mistral, "
            "mixtral, qwen2, qwen3, qwen2_moe, qwen3_moe, gemma, gemma2 and phi3",
            r->file,
            name   ? name
            : type ? type
                   : "none");
    return NULL;
}

/* ---- sizes ---- */

static bool read_head_dim(const struct json_reader *r, const struct family *f,
                          struct model_config *c)
{
    uint32_t absent = f->head_dim > 0 ? f->head_dim : c->hidden_size / c->n_heads;

    if (!json_reader_field(r, "head_dim") && f->head_dim == 0 && c->hidden_size % c->n_heads != 0)
        return err_set(
            r->e, ERR_MODEL, 0,
            "%s: \"hidden_size\" %u is not a multiple of \"num_attention_heads\" %u, and "
            "there is no \"head_dim\"",
            r->file, c->hidden_size, c->n_heads);
    if (!json_reader_count_or(r, "head_dim", MODEL_CONFIG_HEAD_DIM_MAX, absent, &c->head_dim))
        return false;
    if (c->head_dim == 0 || c->head_dim % 2 != 0 || c->head_dim > MODEL_CONFIG_HEAD_DIM_MAX)
        return err_set(r->e, ERR_MODEL, 0,
                       "%s: heads of %u dimensions; wanted an even number up to %d", r->file,
                       c->head_dim, MODEL_CONFIG_HEAD_DIM_MAX);
    return true;
}

static bool read_sizes(const struct json_reader *r, const struct family *f, struct model_config *c)
{
    if (!json_reader_count(r, "vocab_size", 1, VOCAB_MAX, &c->vocab_size) ||
        !json_reader_count(r, "hidden_size", 1, HIDDEN_MAX, &c->hidden_size) ||
        !json_reader_count(r, "intermediate_size", 1, INTERMEDIATE_MAX, &c->intermediate_size) ||
        !json_reader_count(r, "num_hidden_layers", 1, MODEL_CONFIG_LAYERS_MAX, &c->n_layers) ||
        !json_reader_count(r, "num_attention_heads", 1, HEADS_MAX, &c->n_heads) ||
        !json_reader_count_or(r, "num_key_value_heads", HEADS_MAX, c->n_heads, &c->n_kv_heads) ||
        !json_reader_count(r, "max_position_embeddings", 1, MODEL_POSITIONS_MAX, &c->positions_max))
        return false;
    if (c->n_heads % c->n_kv_heads != 0)
        return err_set(
            r->e, ERR_MODEL, 0,
            "%s: \"num_attention_heads\" %u is not a multiple of \"num_key_value_heads\" %u",
            r->file, c->n_heads, c->n_kv_heads);
    return read_head_dim(r, f, c);
}

/* ---- kinds ---- */

/* One of the words, when the field is there. */
static bool check_word(const struct json_reader *r, const char *field, const char *const *words,
                       const char *wanted)
{
    const json_t *v = json_reader_field(r, field);
    const char *found = json_string_value(v);

    for (; found && *words; words++)
        if (strcmp(found, *words) == 0)
            return true;
    return !v || json_reader_fail(r, field, wanted);
}

/* Early files of Gemma say "gelu" and mean its tanh form, in which the model was trained. */
static bool read_activation(const struct json_reader *r, const struct family *f,
                            struct model_config *c)
{
    static const char *const silu[] = { "silu", "swish", NULL };
    static const char *const gelu[] = { "gelu_pytorch_tanh", "gelu", NULL };

    c->activation = f->gemma ? ACT_GELU_TANH : ACT_SILU;
    if (f->gemma)
        return check_word(r, "hidden_act", gelu, "\"gelu_pytorch_tanh\"") &&
               check_word(r, "hidden_activation", gelu, "\"gelu_pytorch_tanh\"");
    return check_word(r, "hidden_act", silu, "\"silu\"");
}

static bool read_biases(const struct json_reader *r, const struct family *f, struct model_config *c)
{
    bool attention, mlp;

    if (!json_reader_bool_or(r, "attention_bias", false, &attention) ||
        !json_reader_bool_or(r, "mlp_bias", false, &mlp))
        return false;
    c->qkv_bias = f->qkv_bias || (f->attention_bias && attention);
    c->o_bias = f->attention_bias && attention;
    c->mlp_bias = f->mlp_bias && mlp;
    return true;
}

/* null means none, no field the family's own. */
static bool read_softcap(const struct json_reader *r, const char *field, float absent, float *out)
{
    double cap = 0;

    if (!json_object_get(r->object, field))
        cap = absent;
    else if (json_reader_field(r, field) && !json_reader_number(r, field, 1e-3, 1e6, &cap))
        return false;
    *out = (float)cap;
    return true;
}

static bool read_gemma2(const struct json_reader *r, struct model_config *c)
{
    double scalar;
    bool both_ways;

    if (!json_reader_number_or(r, "query_pre_attn_scalar", 1e-3, 1e6, 256, &scalar) ||
        !read_softcap(r, "attn_logit_softcapping", 50, &c->attn_softcap) ||
        !read_softcap(r, "final_logit_softcapping", 30, &c->final_softcap) ||
        !json_reader_bool_or(r, "use_bidirectional_attention", false, &both_ways))
        return false;
    if (both_ways)
        return json_reader_fail(r, "use_bidirectional_attention", "false in this build");
    c->query_scale = (float)(1 / sqrt(scalar));
    c->post_norms = true;
    return true;
}

static bool read_kinds(const struct json_reader *r, const struct family *f, struct model_config *c)
{
    double eps;

    if (!read_activation(r, f, c) || !quantization_parse(&c->quantization, r) ||
        !read_biases(r, f, c) || !json_reader_number(r, "rms_norm_eps", 1e-20, 1, &eps) ||
        !json_reader_bool_or(r, "tie_word_embeddings", f->tied, &c->tied_head))
        return false;
    c->rms_norm_eps = (float)eps;
    c->query_scale = 1 / sqrtf((float)c->head_dim);
    c->embed_scale = f->gemma ? sqrtf((float)c->hidden_size) : 1;
    c->norm_plus_one = f->gemma;
    c->qk_norm = f->qk_norm;
    c->fused_qkv = c->fused_gate_up = f->fused;
    return !f->gemma2 || read_gemma2(r, c);
}

/* ---- sliding window ---- */

static bool read_layer_types(const struct json_reader *r, struct model_config *c)
{
    const json_t *types = json_reader_field(r, "layer_types");

    if (!json_is_array(types) || json_array_size(types) != c->n_layers)
        return json_reader_fail(r, "layer_types", "one word for each layer");
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool windowed = type && strcmp(type, "sliding_attention") == 0;
        if (!windowed && (!type || strcmp(type, "full_attention") != 0))
            return err_set(r->e, ERR_MODEL, 0,
                           "%s: \"layer_types\"[%u] must be \"full_attention\" or "
                           "\"sliding_attention\", found %.40s",
                           r->file, i, type ? type : "no string");
        if (windowed && c->sliding_window == 0)
            return err_set(r->e, ERR_MODEL, 0,
                           "%s: \"layer_types\"[%u] is \"sliding_attention\", and there is no "
                           "\"sliding_window\" in use",
                           r->file, i);
        c->layers[i].windowed = windowed;
    }
    return true;
}

static bool read_max_window_layers(const struct json_reader *r, uint32_t *first)
{
    if (!json_reader_field(r, "max_window_layers"))
        return json_reader_fail(r, "max_window_layers", "the number of layers without a window");
    return json_reader_count(r, "max_window_layers", 0, MODEL_CONFIG_LAYERS_MAX, first);
}

static bool apply_window_rule(const struct json_reader *r, enum window_rule rule,
                              struct model_config *c)
{
    uint32_t first = 0, step = rule == WINDOW_EVEN ? 2 : 1;

    if (c->sliding_window == 0)
        return true;
    if (rule == WINDOW_LISTED)
        return json_reader_fail(r, "layer_types", "given with \"use_sliding_window\"");
    if (rule == WINDOW_UPPER && !read_max_window_layers(r, &first))
        return false;
    for (uint32_t i = first; i < c->n_layers; i += step)
        c->layers[i].windowed = true;
    return true;
}

static bool read_window(const struct json_reader *r, const struct family *f, struct model_config *c)
{
    bool in_use = f->window != WINDOW_NONE;

    if ((f->window == WINDOW_UPPER || f->window == WINDOW_LISTED) &&
        !json_reader_bool_or(r, "use_sliding_window", false, &in_use))
        return false;
    if (in_use &&
        !json_reader_count_or(r, "sliding_window", MODEL_POSITIONS_MAX, 0, &c->sliding_window))
        return false;
    if (json_reader_field(r, "layer_types"))
        return read_layer_types(r, c);
    return apply_window_rule(r, f->window, c);
}

/* ---- experts ---- */

static bool read_counts(const struct json_reader *r, const char *n_field, struct model_config *c)
{
    if (!json_reader_count(r, n_field, 1, MODEL_CONFIG_EXPERTS_MAX, &c->n_experts) ||
        !json_reader_count(r, "num_experts_per_tok", 1, MODEL_CONFIG_EXPERTS_MAX,
                           &c->n_experts_used))
        return false;
    if (c->n_experts_used > c->n_experts)
        return err_set(r->e, ERR_MODEL, 0, "%s: \"num_experts_per_tok\" %u of \"%s\" %u", r->file,
                       c->n_experts_used, n_field, c->n_experts);
    return true;
}

static bool read_mixtral(const struct json_reader *r, struct model_config *c)
{
    c->expert_inner = c->intermediate_size;
    c->norm_topk_prob = c->block_sparse_moe = true;
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layers[i].sparse = true;
    return read_counts(r, "num_local_experts", c);
}

/* Every decoder_sparse_step-th layer, counted from 1, is sparse, less those of mlp_only_layers. */
static bool read_sparse_layers(const struct json_reader *r, struct model_config *c)
{
    const json_t *dense = json_reader_field(r, "mlp_only_layers");
    uint32_t step;

    if (!json_reader_count_or(r, "decoder_sparse_step", MODEL_CONFIG_LAYERS_MAX, 1, &step))
        return false;
    if (dense && !json_is_array(dense))
        return json_reader_fail(r, "mlp_only_layers", "a list of layers");
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layers[i].sparse = (i + 1) % step == 0;
    for (size_t i = 0; i < json_array_size(dense); i++) {
        const json_t *v = json_array_get(dense, i);
        json_int_t layer = json_integer_value(v);
        if (!json_is_integer(v) || layer < 0 || layer >= (json_int_t)c->n_layers)
            return json_reader_fail(r, "mlp_only_layers", "a list of layers");
        c->layers[layer].sparse = false;
    }
    return true;
}

static bool read_qwen_experts(const struct json_reader *r, bool shared, struct model_config *c)
{
    const char *n_field = json_reader_field(r, "num_experts") ? "num_experts" : "num_local_experts";

    return read_counts(r, n_field, c) && read_sparse_layers(r, c) &&
           json_reader_count(r, "moe_intermediate_size", 1, INTERMEDIATE_MAX, &c->expert_inner) &&
           json_reader_bool_or(r, "norm_topk_prob", false, &c->norm_topk_prob) &&
           (!shared || json_reader_count(r, "shared_expert_intermediate_size", 1, INTERMEDIATE_MAX,
                                         &c->shared_expert_inner));
}

static bool read_experts(const struct json_reader *r, enum experts_rule rule,
                         struct model_config *c)
{
    if (rule == EXPERTS_NONE)
        return true;
    return rule == EXPERTS_MIXTRAL ? read_mixtral(r, c)
                                   : read_qwen_experts(r, rule == EXPERTS_QWEN2, c);
}

/* ---- end of sequence ---- */

static bool add_eos(const struct json_reader *r, const json_t *v, struct model_config *c)
{
    json_int_t id = json_integer_value(v);

    if (!json_is_integer(v))
        return json_reader_fail(r, "eos_token_id", "a token id or a list of them");
    if (id < 0 || id >= (json_int_t)c->vocab_size) {
        log_warning("file=%s field=eos_token_id value=%lld vocab_size=%u: no such token, ignoring",
                    r->file, (long long)id, c->vocab_size);
        return true;
    }
    for (uint32_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == (int32_t)id)
            return true;
    if (c->n_eos == MODEL_CONFIG_EOS_MAX)
        return err_set(r->e, ERR_MODEL, 0, "%s: more than %d different \"eos_token_id\"", r->file,
                       MODEL_CONFIG_EOS_MAX);
    c->eos[c->n_eos++] = (int32_t)id;
    return true;
}

static bool read_eos(const struct json_reader *r, struct model_config *c)
{
    const json_t *v = json_reader_field(r, "eos_token_id");

    if (!v)
        return true;
    if (!json_is_array(v))
        return add_eos(r, v, c);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!add_eos(r, json_array_get(v, i), c))
            return false;
    return true;
}

/* ---- files ---- */

static json_t *parse_object(const char *file, const char *bytes, size_t n, struct err *e)
{
    json_t *v = json_parse(bytes, n, e);

    if (v && json_is_object(v))
        return v;
    if (v)
        err_set(e, ERR_MODEL, 0, "%s: must be a JSON object", file);
    else if (e) {
        e->code = ERR_MODEL;
        err_wrap(e, "%s", file);
    }
    json_decref(v);
    return NULL;
}

static bool read_config(const struct json_reader *r, struct model_config *c)
{
    const struct family *f = find_family(r);

    if (!f)
        return false;
    snprintf(c->architecture, sizeof c->architecture, "%s", f->architecture);
    return read_sizes(r, f, c) && read_kinds(r, f, c) && read_window(r, f, c) &&
           model_rope_read(r, &f->rope, c) && read_experts(r, f->experts, c) && read_eos(r, c);
}

bool model_config_parse(struct model_config *c, const char *config, size_t config_bytes,
                        const char *generation, size_t generation_bytes, struct err *e)
{
    struct model_config out = { 0 };
    json_t *v = parse_object("config.json", config, config_bytes, e);
    bool ok = v && read_config(&(struct json_reader){ "config.json", v, e }, &out);

    json_decref(v);
    if (ok && generation) {
        v = parse_object("generation_config.json", generation, generation_bytes, e);
        ok = v && read_eos(&(struct json_reader){ "generation_config.json", v, e }, &out);
        json_decref(v);
    }
    out.digest = hash128(config, config_bytes, 0);
    if (generation)
        out.digest = hash128(generation, generation_bytes, out.digest.low ^ out.digest.high);
    if (ok)
        *c = out;
    return ok;
}

/* What older directories have beside config.json decides what the bytes of the weights mean, too. */
static bool read_quantization(struct model_config *c, const char *dir, struct err *e)
{
    char *bytes;
    size_t n;

    if (c->quantization.method != QUANTIZATION_NONE)
        return true;
    if (!quantization_read_beside(&c->quantization, dir, &bytes, &n, e))
        return false;
    if (bytes)
        c->digest = hash128(bytes, n, c->digest.low ^ c->digest.high);
    free(bytes);
    return true;
}

static bool read_directory(struct model_config *c, const char *dir, struct err *e)
{
    char path[1200], *config = NULL, *generation = NULL;
    size_t config_bytes, generation_bytes = 0;
    bool ok = false;

    snprintf(path, sizeof path, "%s/config.json", dir);
    if (!file_read(path, MODEL_CONFIG_BYTES_MAX, &config, &config_bytes, e))
        return err_wrap(e, "model directory '%s'", dir);
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    if (!file_exists(path) ||
        file_read(path, MODEL_CONFIG_BYTES_MAX, &generation, &generation_bytes, e))
        ok = model_config_parse(c, config, config_bytes, generation, generation_bytes, e) &&
             read_quantization(c, dir, e);
    free(config);
    free(generation);
    return ok || err_wrap(e, "model directory '%s'", dir);
}

bool model_config_read(struct model_config *c, const char *model, struct err *e)
{
    char *gguf;
    bool ok;

    if (!gguf_locate(model, &gguf, e))
        return false;
    ok = gguf ? model_config_read_gguf(c, gguf, e) : read_directory(c, model, e);
    free(gguf);
    return ok;
}
