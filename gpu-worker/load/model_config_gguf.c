/* model_config_gguf.c - see model_config_gguf.h. */
#include "gpu-worker/load/model_config_gguf.h"

#include <stdio.h>
#include <string.h>

#include "common/gguf_model.h"
#include "common/hash.h"
#include "common/json.h"
#include "gpu-worker/load/gguf_family.h"

struct reader {
    const struct gguf_set *set;
    const struct gguf *g; /* the first file: all metadata */
    const struct gguf_family *family;
    struct json_writer w;
    struct err *e;
};

static bool is(const struct reader *r, const char *name)
{
    return strcmp(r->family->name, name) == 0;
}

/* Has the file the architecture's own key?  Its name is written to key. */
static bool own_key(const struct reader *r, const char *suffix, char key[GGUF_KEY_BYTES])
{
    return gguf_model_key(r->g, suffix, key, NULL) && gguf_has(r->g, key);
}

static bool has_tensor(const struct reader *r, const char *name)
{
    const struct gguf *file;

    return gguf_set_find(r->set, name, &file) != NULL;
}

/* ---- one field from one key ---- */

static bool put_count(struct reader *r, const char *suffix, const char *field)
{
    uint32_t v;

    if (!gguf_model_count(r->g, suffix, &v, r->e))
        return false;
    jw_key(&r->w, field);
    jw_uint(&r->w, v);
    return true;
}

static bool put_count_if(struct reader *r, const char *suffix, const char *field)
{
    char key[GGUF_KEY_BYTES];

    return !own_key(r, suffix, key) || put_count(r, suffix, field);
}

static bool put_number(struct reader *r, const char *suffix, const char *field)
{
    char key[GGUF_KEY_BYTES];
    double v;

    if (!gguf_model_key(r->g, suffix, key, r->e) || !gguf_number(r->g, key, &v, r->e))
        return false;
    jw_key(&r->w, field);
    jw_double(&r->w, v);
    return true;
}

static bool put_number_if(struct reader *r, const char *suffix, const char *field)
{
    char key[GGUF_KEY_BYTES];

    return !own_key(r, suffix, key) || put_number(r, suffix, field);
}

static bool put_number_or(struct reader *r, const char *suffix, const char *field, double absent)
{
    char key[GGUF_KEY_BYTES];

    if (own_key(r, suffix, key))
        return put_number(r, suffix, field);
    jw_key(&r->w, field);
    jw_double(&r->w, absent);
    return true;
}

static void put_bool(struct reader *r, const char *field, bool v)
{
    jw_key(&r->w, field);
    jw_bool(&r->w, v);
}

static void put_text(struct reader *r, const char *field, const char *v)
{
    jw_key(&r->w, field);
    jw_str(&r->w, v);
}

/* Positions that a row sees; 0, which files say for "all", where there is no key. */
static bool read_window(struct reader *r, uint32_t *window)
{
    char key[GGUF_KEY_BYTES];
    int64_t v = 0;

    if (own_key(r, "attention.sliding_window", key) && !gguf_integer(r->g, key, &v, r->e))
        return false;
    if (v < 0 || v > INT32_MAX)
        return err_set(r->e, ERR_MODEL, 0, "key '%.80s' is %lld", key, (long long)v);
    *window = (uint32_t)v;
    return true;
}

/* ---- groups of fields ---- */

static bool put_sizes(struct reader *r)
{
    char key[GGUF_KEY_BYTES];
    uint32_t vocab_size, k, v;

    if (!gguf_model_vocab_size(r->g, &vocab_size, r->e))
        return false;
    jw_key(&r->w, "vocab_size");
    jw_uint(&r->w, vocab_size);
    if (own_key(r, "attention.key_length", key) && own_key(r, "attention.value_length", key)) {
        if (!gguf_model_count(r->g, "attention.key_length", &k, r->e) ||
            !gguf_model_count(r->g, "attention.value_length", &v, r->e))
            return false;
        if (k != v)
            return err_set(r->e, ERR_MODEL, 0, "keys of %u dimensions and values of %u", k, v);
    }
    return put_count(r, "embedding_length", "hidden_size") &&
           put_count(r, "block_count", "num_hidden_layers") &&
           put_count(r, "feed_forward_length", "intermediate_size") &&
           put_count(r, "attention.head_count", "num_attention_heads") &&
           put_count_if(r, "attention.head_count_kv", "num_key_value_heads") &&
           put_count_if(r, "attention.key_length", "head_dim") &&
           put_count(r, "context_length", "max_position_embeddings");
}

static bool put_kinds(struct reader *r)
{
    put_text(r, "hidden_act", r->family->activation);
    put_text(r, "hidden_activation", r->family->activation);
    put_bool(r, "tie_word_embeddings", !has_tensor(r, "output.weight"));
    put_bool(r, "attention_bias", has_tensor(r, "blk.0.attn_q.bias"));
    put_bool(r, "mlp_bias", has_tensor(r, "blk.0.ffn_gate.bias"));
    return put_number(r, "attention.layer_norm_rms_epsilon", "rms_norm_eps");
}

/* GGUF has no name for Mistral: a Llama, and with a window it is none of HuggingFace's. */
static bool put_architecture(struct reader *r)
{
    bool mistral = is(r, "llama") && !r->family->sparse;
    uint32_t window = 0;

    if (!read_window(r, &window))
        return false;
    window = window == 0 && is(r, "gemma2") ? 4096 : window; /* early files lack it */
    mistral = mistral && window > 0;
    jw_key(&r->w, "architectures");
    jw_array(&r->w);
    jw_str(&r->w, mistral ? "MistralForCausalLM" : r->family->architecture);
    jw_array_end(&r->w);
    put_text(r, "model_type", mistral ? "mistral" : r->family->model_type);
    if (window > 0) {
        jw_key(&r->w, "sliding_window");
        jw_uint(&r->w, window);
    }
    return true;
}

static void put_ends(struct reader *r)
{
    int32_t ids[MODEL_CONFIG_EOS_MAX];
    uint32_t n = gguf_model_end_ids(r->g, ids, MODEL_CONFIG_EOS_MAX);

    jw_key(&r->w, "eos_token_id");
    jw_array(&r->w);
    for (uint32_t i = 0; i < n; i++)
        jw_int(&r->w, ids[i]);
    jw_array_end(&r->w);
}

/* ---- rope ---- */

static bool is_float_vector(const struct gguf_tensor *t, const struct gguf *file)
{
    return t->type == 0 && t->n_dims == 1 && t->dims[0] <= (file->data_bytes - t->offset) / 4;
}

static float factor_of(const struct gguf_tensor *t, const struct gguf *file, uint64_t i)
{
    float v;

    memcpy(&v, file->data + t->offset + i * 4, sizeof v);
    return v;
}

static bool put_factors(struct reader *r, const char *tensor, const char *field)
{
    const struct gguf *file;
    const struct gguf_tensor *t = gguf_set_find(r->set, tensor, &file);

    if (!t)
        return err_set(r->e, ERR_MODEL, 0, "tensor '%s' is missing", tensor);
    if (!is_float_vector(t, file))
        return err_set(r->e, ERR_MODEL, 0, "tensor '%s' is no vector of float32 in the file",
                       tensor);
    jw_key(&r->w, field);
    jw_array(&r->w);
    for (uint64_t i = 0; i < t->dims[0]; i++)
        jw_float(&r->w, factor_of(t, file, i));
    jw_array_end(&r->w);
    return true;
}

/* Factors of the frequencies in a tensor of their own: what the scaling of Llama 3.1 comes to here. */
static bool read_rope_freqs(struct model_config *c, const struct gguf_set *set, struct err *e)
{
    const struct gguf *file;
    const struct gguf_tensor *t = gguf_set_find(set, "rope_freqs.weight", &file);

    if (!t)
        return true;
    if (!is_float_vector(t, file) || t->dims[0] != c->rope_dim / 2)
        return err_set(e, ERR_MODEL, 0,
                       "tensor 'rope_freqs.weight' is no vector of %u float32 in the file",
                       c->rope_dim / 2);
    if (c->rope_scaling != ROPE_PLAIN)
        return err_set(e, ERR_MODEL, 0,
                       "tensor 'rope_freqs.weight' beside another scaling of rope");
    for (uint64_t i = 0; i < t->dims[0]; i++) {
        float v = factor_of(t, file, i);
        if (!(v > 0 && v < 1e6f))
            return err_set(e, ERR_MODEL, 0, "tensor 'rope_freqs.weight' holds %g", (double)v);
        c->rope_short[i] = c->rope_long[i] = v;
    }
    c->rope_scaling = ROPE_FACTORS;
    c->digest = hash128(c->rope_short, t->dims[0] * sizeof(float), c->digest.low ^ c->digest.high);
    return true;
}

/* Longrope of Phi-3: two lists of factors, as tensors here. */
static bool put_longrope(struct reader *r)
{
    put_text(r, "type", "longrope");
    return put_factors(r, "rope_factors_short.weight", "short_factor") &&
           put_factors(r, "rope_factors_long.weight", "long_factor") &&
           put_number_if(r, "rope.scaling.attn_factor", "attention_factor");
}

/* What the paper does not have must be as if it were not there. */
static bool put_yarn(struct reader *r)
{
    static const struct {
        const char *suffix;
        double neutral;
    } others[] = { { "rope.scaling.attn_factor", 1 },
                   { "rope.scaling.yarn_attn_factor", 1 },
                   { "rope.scaling.yarn_ext_factor", 1 },
                   { "rope.scaling.yarn_log_multiplier", 0 } };
    char key[GGUF_KEY_BYTES];
    double v;

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (!own_key(r, others[i].suffix, key))
            continue;
        if (!gguf_number(r->g, key, &v, r->e))
            return false;
        if (v != others[i].neutral)
            return err_set(r->e, ERR_MODEL, 0, "key '%.80s' is %g; this build computes %g", key, v,
                           others[i].neutral);
    }
    return put_number_if(r, "rope.scaling.yarn_beta_fast", "beta_fast") &&
           put_number_if(r, "rope.scaling.yarn_beta_slow", "beta_slow");
}

/* A factor without a type means linear. */
static bool read_scaling_type(struct reader *r, struct gguf_string *type)
{
    char key[GGUF_KEY_BYTES];

    if (own_key(r, "rope.scaling.type", key))
        return gguf_string(r->g, key, type, r->e);
    *type = own_key(r, "rope.scaling.factor", key) ? (struct gguf_string){ "linear", 6 }
                                                   : (struct gguf_string){ "none", 4 };
    return true;
}

static bool put_scaling(struct reader *r)
{
    struct gguf_string type;

    if (has_tensor(r, "rope_factors_long.weight"))
        return put_longrope(r);
    if (!read_scaling_type(r, &type))
        return false;
    if (gguf_string_is(type, "none")) {
        put_text(r, "type", "default");
        return true;
    }
    jw_key(&r->w, "type");
    jw_strn(&r->w, type.s, type.n);
    return put_number(r, "rope.scaling.factor", "factor") &&
           (!gguf_string_is(type, "yarn") || put_yarn(r));
}

/* Dimensions that are not turned: only what the reader knows, by the name it has there. */
static bool put_partial(struct reader *r)
{
    char key[GGUF_KEY_BYTES];
    uint32_t turned, dim, heads;

    if (!own_key(r, "rope.dimension_count", key))
        return true;
    if (!gguf_model_count(r->g, "rope.dimension_count", &turned, r->e) ||
        !gguf_model_count(r->g, "embedding_length", &dim, r->e) ||
        !gguf_model_count(r->g, "attention.head_count", &heads, r->e))
        return false;
    dim /= heads;
    if (own_key(r, "attention.key_length", key) &&
        !gguf_model_count(r->g, "attention.key_length", &dim, r->e))
        return false;
    if (turned != dim) {
        jw_key(&r->w, "partial_rotary_factor");
        jw_double(&r->w, (double)turned / dim);
    }
    return true;
}

static bool put_rope(struct reader *r)
{
    bool ok;

    if (!put_number_or(r, "rope.freq_base", "rope_theta", 10000) || !put_partial(r) ||
        !put_count_if(r, "rope.scaling.original_context_length",
                      "original_max_position_embeddings"))
        return false;
    jw_key(&r->w, "rope_scaling");
    jw_object(&r->w);
    ok = put_scaling(r);
    jw_object_end(&r->w);
    return ok;
}

/* ---- what only some families have ---- */

/* Sizes that early files lack follow from that of all experts in use together. */
static bool put_expert_sizes(struct reader *r)
{
    char key[GGUF_KEY_BYTES];
    uint32_t inner, used, one;

    if (!gguf_model_count(r->g, "feed_forward_length", &inner, r->e) ||
        !gguf_model_count(r->g, "expert_used_count", &used, r->e))
        return false;
    one = inner / used;
    if (own_key(r, "expert_feed_forward_length", key) &&
        !gguf_model_count(r->g, "expert_feed_forward_length", &one, r->e))
        return false;
    if (own_key(r, "expert_shared_feed_forward_length", key) &&
        !gguf_model_count(r->g, "expert_shared_feed_forward_length", &inner, r->e))
        return false;
    jw_key(&r->w, "moe_intermediate_size");
    jw_uint(&r->w, one);
    if (is(r, "qwen2moe")) {
        jw_key(&r->w, "shared_expert_intermediate_size");
        jw_uint(&r->w, inner);
    }
    return true;
}

static bool put_experts(struct reader *r)
{
    bool mixtral = is(r, "llama");

    if (!r->family->sparse)
        return true;
    put_bool(r, "norm_topk_prob", !is(r, "qwen2moe"));
    return put_count(r, "expert_count", mixtral ? "num_local_experts" : "num_experts") &&
           put_count(r, "expert_used_count", "num_experts_per_tok") &&
           (mixtral || put_expert_sizes(r));
}

/* The numbers of the published models stand for keys that early files lack.  Scores of the largest one are
 * scaled by the model's width over its heads, those of the others by the head's. */
static bool put_gemma2(struct reader *r)
{
    uint32_t layers, scalar, heads;

    if (!is(r, "gemma2"))
        return true;
    if (!gguf_model_count(r->g, "block_count", &layers, r->e) ||
        !gguf_model_count(r->g, "attention.key_length", &scalar, r->e))
        return false;
    if (layers == 46) {
        if (!gguf_model_count(r->g, "embedding_length", &scalar, r->e) ||
            !gguf_model_count(r->g, "attention.head_count", &heads, r->e))
            return false;
        scalar /= heads;
    }
    jw_key(&r->w, "query_pre_attn_scalar");
    jw_uint(&r->w, scalar);
    return put_number_or(r, "attn_logit_softcapping", "attn_logit_softcapping", 50) &&
           put_number_or(r, "final_logit_softcapping", "final_logit_softcapping", 30);
}

/* ---- the whole ---- */

static bool put_config(struct reader *r)
{
    bool ok;

    jw_object(&r->w);
    ok = put_architecture(r) && put_sizes(r) && put_kinds(r) && put_rope(r) && put_experts(r) &&
         put_gemma2(r);
    put_ends(r);
    jw_object_end(&r->w);
    return ok;
}

bool model_config_gguf_json(struct buf *json, const struct gguf_set *set, struct err *e)
{
    struct reader r = { .set = set, .g = set->files[0], .w = { .out = json }, .e = e };

    r.family = gguf_family_of(r.g, e);
    return (r.family && put_config(&r)) || err_wrap(e, "'%s'", r.g->name);
}

bool model_config_from_gguf(struct model_config *c, const struct gguf_set *set, struct err *e)
{
    const char *name = set->files[0]->name;
    struct model_config out;
    struct buf json = { 0 };
    bool ok = model_config_gguf_json(&json, set, e);

    if (ok && !model_config_parse(&out, json.data, json.n, NULL, 0, e))
        ok = err_wrap(e, "'%s' read as config.json", name);
    buf_fini(&json);
    if (!ok || (!read_rope_freqs(&out, set, e) && !err_wrap(e, "'%s'", name)))
        return false;
    out.norm_plus_one = false; /* the one is added already where these files are made */
    *c = out;
    return true;
}

bool model_config_read_gguf(struct model_config *c, const char *path, struct err *e)
{
    struct gguf_set set;
    bool ok;

    if (!gguf_set_open(&set, path, e))
        return false;
    ok = model_config_from_gguf(c, &set, e);
    gguf_set_close(&set);
    return ok;
}
