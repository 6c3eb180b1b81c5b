/* model_config.c - fields of config.json, one reader per JSON type, each error naming file, field, what
 * was wanted and what was found. */
#include "gpu-worker/load/model_config.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/gguf.h"
#include "common/json.h"
#include "common/log.h"
#include "gpu-worker/load/model_config_gguf.h"

/* Largest values believed: they keep every product of two of them far from overflow. */
enum {
    HIDDEN_MAX = 1 << 17,
    INTERMEDIATE_MAX = 1 << 20,
    HEADS_MAX = 1 << 10,
    VOCAB_MAX = 1 << 24,
    POSITIONS_MAX = 1 << 24,
};

struct reader {
    const char *file;
    const json_t *object;
    struct err *e;
};

static bool fail(const struct reader *r, const char *field, const char *wanted)
{
    const json_t *v = json_object_get(r->object, field);
    struct buf found = { 0 };
    bool shown = v != NULL && !json_is_object(v) && !json_is_array(v);

    if (shown)
        jw_json(&(struct json_writer){ .out = &found }, v);
    err_set(r->e, ERR_MODEL, 0, "%s: \"%s\" must be %s, found %.60s", r->file, field, wanted,
            shown ? found.data
            : v   ? (json_is_array(v) ? "an array" : "an object")
                  : "nothing");
    buf_fini(&found);
    return false;
}

/* null counts as absent, as it does for the library that writes these files. */
static const json_t *field_of(const struct reader *r, const char *field)
{
    const json_t *v = json_object_get(r->object, field);

    return v && !json_is_null(v) ? v : NULL;
}

static bool read_count(const struct reader *r, const char *field, uint32_t max, uint32_t *out)
{
    const json_t *v = field_of(r, field);
    json_int_t n = json_integer_value(v);
    char wanted[48];

    if (v && json_is_integer(v) && n >= 1 && n <= (json_int_t)max) {
        *out = (uint32_t)n;
        return true;
    }
    snprintf(wanted, sizeof wanted, "a whole number in 1..%u", max);
    return fail(r, field, wanted);
}

static bool read_count_or(const struct reader *r, const char *field, uint32_t max, uint32_t absent,
                          uint32_t *out)
{
    *out = absent;
    return !field_of(r, field) || read_count(r, field, max, out);
}

static bool read_number(const struct reader *r, const char *field, double min, double max,
                        double *out)
{
    const json_t *v = field_of(r, field);
    double n = json_number_value(v);
    char wanted[80];

    if (v && json_is_number(v) && n >= min && n <= max) {
        *out = n;
        return true;
    }
    snprintf(wanted, sizeof wanted, "a number in %g..%g", min, max);
    return fail(r, field, wanted);
}

static bool read_bool_or(const struct reader *r, const char *field, bool absent, bool *out)
{
    const json_t *v = field_of(r, field);

    if (v && !json_is_boolean(v))
        return fail(r, field, "true or false");
    *out = v ? json_is_true(v) : absent;
    return true;
}

/* ---- the families ---- */

struct family {
    const char *architecture, *model_type;
    bool qkv_bias;         /* always there */
    bool bias_by_file;     /* attention_bias and mlp_bias decide */
    bool window_by_switch; /* sliding_window counts only with use_sliding_window */
};

static const struct family families[] = {
    { .architecture = "LlamaForCausalLM", .model_type = "llama", .bias_by_file = true },
    { .architecture = "MistralForCausalLM", .model_type = "mistral" },
    { .architecture = "Qwen2ForCausalLM",
      .model_type = "qwen2",
      .qkv_bias = true,
      .window_by_switch = true },
};

static const struct family *find_family(const struct reader *r)
{
    const json_t *list = field_of(r, "architectures"), *type = field_of(r, "model_type");
    const char *name = json_string_value(json_array_get(list, 0));

    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (name ? strcmp(name, families[i].architecture) == 0
                 : json_is_string(type) &&
                       strcmp(json_string_value(type), families[i].model_type) == 0)
            return &families[i];
    }
    if (!name)
        name = json_is_string(type) ? json_string_value(type) : "none";
    err_set(r->e, ERR_MODEL, 0,
            "%s: architecture \"%.60s\" is not supported; this build computes LlamaForCausalLM, "
            "MistralForCausalLM and Qwen2ForCausalLM",
            r->file, name);
    return NULL;
}

static bool read_sizes(const struct reader *r, struct model_config *c)
{
    uint32_t head_dim;

    if (!read_count(r, "vocab_size", VOCAB_MAX, &c->vocab_size) ||
        !read_count(r, "hidden_size", HIDDEN_MAX, &c->hidden_size) ||
        !read_count(r, "intermediate_size", INTERMEDIATE_MAX, &c->intermediate_size) ||
        !read_count(r, "num_hidden_layers", MODEL_CONFIG_LAYERS_MAX, &c->n_layers) ||
        !read_count(r, "num_attention_heads", HEADS_MAX, &c->n_heads) ||
        !read_count_or(r, "num_key_value_heads", HEADS_MAX, c->n_heads, &c->n_kv_heads) ||
        !read_count(r, "max_position_embeddings", POSITIONS_MAX, &c->positions_max))
        return false;
    if (c->n_heads % c->n_kv_heads != 0)
        return err_set(
            r->e, ERR_MODEL, 0,
            "%s: \"num_attention_heads\" %u is not a multiple of \"num_key_value_heads\" %u",
            r->file, c->n_heads, c->n_kv_heads);
    head_dim = c->hidden_size / c->n_heads;
    if (!field_of(r, "head_dim") && c->hidden_size % c->n_heads != 0)
        return err_set(
            r->e, ERR_MODEL, 0,
            "%s: \"hidden_size\" %u is not a multiple of \"num_attention_heads\" %u, and "
            "there is no \"head_dim\"",
            r->file, c->hidden_size, c->n_heads);
    if (!read_count_or(r, "head_dim", MODEL_CONFIG_HEAD_DIM_MAX, head_dim, &c->head_dim))
        return false;
    if (c->head_dim % 2 != 0 || c->head_dim > MODEL_CONFIG_HEAD_DIM_MAX)
        return err_set(r->e, ERR_MODEL, 0,
                       "%s: heads of %u dimensions; wanted an even number up to %d", r->file,
                       c->head_dim, MODEL_CONFIG_HEAD_DIM_MAX);
    c->rope_dim = c->head_dim;
    c->query_scale = 1 / sqrtf((float)c->head_dim);
    return true;
}

static bool read_kinds(const struct reader *r, const struct family *f, struct model_config *c)
{
    const json_t *act = field_of(r, "hidden_act");
    const json_t *quantised = field_of(r, "quantization_config");
    double eps, partial = 1;
    bool attention_bias;

    if (act && (!json_is_string(act) || (strcmp(json_string_value(act), "silu") != 0 &&
                                         strcmp(json_string_value(act), "swish") != 0)))
        return fail(r, "hidden_act", "\"silu\"");
    if (quantised) {
        const char *method = json_string_value(json_object_get(quantised, "quant_method"));
        return err_set(
            r->e, ERR_MODEL, 0,
            "%s: the weights are quantised (%.40s); this build loads float32, float16 and "
            "bfloat16",
            r->file, method ? method : "method not named");
    }
    if (field_of(r, "partial_rotary_factor") &&
        (!read_number(r, "partial_rotary_factor", 0, 1, &partial) || partial != 1))
        return fail(r, "partial_rotary_factor", "1");
    if (!read_number(r, "rms_norm_eps", 1e-20, 1, &eps) ||
        !read_bool_or(r, "attention_bias", false, &attention_bias) ||
        !read_bool_or(r, "mlp_bias", false, &c->mlp_bias) ||
        !read_bool_or(r, "tie_word_embeddings", false, &c->tied_head))
        return false;
    c->rms_norm_eps = (float)eps;
    c->embed_scale = 1;
    c->activation = ACT_SILU;
    c->qkv_bias = f->qkv_bias || (f->bias_by_file && attention_bias);
    c->o_bias = f->bias_by_file && attention_bias;
    c->mlp_bias = f->bias_by_file && c->mlp_bias;
    return true;
}

/* ---- sliding window ---- */

static bool check_layer_types(const struct reader *r, const struct model_config *c)
{
    const json_t *types = field_of(r, "layer_types");

    if (!types)
        return true;
    if (!json_is_array(types) || json_array_size(types) != c->n_layers)
        return fail(r, "layer_types", "one word for each layer");
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *found = json_string_value(json_array_get(types, i));
        const char *wanted = c->layers[i].windowed ? "sliding_attention" : "full_attention";
        if (!found || strcmp(found, wanted) != 0)
            return err_set(
                r->e, ERR_MODEL, 0,
                "%s: \"layer_types\"[%u] must be \"%s\" by the other fields, found %.40s", r->file,
                i, wanted, found ? found : "no string");
    }
    return true;
}

static bool read_window(const struct reader *r, const struct family *f, struct model_config *c)
{
    bool in_use = strcmp(f->model_type, "llama") != 0;
    uint32_t first = 0;

    if (f->window_by_switch && !read_bool_or(r, "use_sliding_window", false, &in_use))
        return false;
    if (in_use && !read_count_or(r, "sliding_window", POSITIONS_MAX, 0, &c->sliding_window))
        return false;
    if (f->window_by_switch && c->sliding_window > 0) {
        const json_t *from = field_of(r, "max_window_layers");
        json_int_t n = json_integer_value(from);
        if (!from || !json_is_integer(from) || n < 0 || n > MODEL_CONFIG_LAYERS_MAX)
            return fail(r, "max_window_layers", "the number of layers without a window");
        first = (uint32_t)n;
    }
    for (uint32_t i = first; i < c->n_layers; i++)
        c->layers[i].windowed = c->sliding_window > 0;
    return check_layer_types(r, c);
}

/* ---- rope ---- */

static bool read_llama3_rope(const struct reader *r, struct model_config *c)
{
    if (!read_number(r, "low_freq_factor", 1e-3, 1e6, &c->rope_low_freq_factor) ||
        !read_number(r, "high_freq_factor", 1e-3, 1e6, &c->rope_high_freq_factor) ||
        !read_number(r, "original_max_position_embeddings", 1, POSITIONS_MAX,
                     &c->rope_original_positions))
        return false;
    if (c->rope_high_freq_factor <= c->rope_low_freq_factor)
        return fail(r, "high_freq_factor", "above low_freq_factor");
    return true;
}

/* `r` reads the object that names the scaling: rope_scaling, or rope_parameters of newer files. */
static bool read_scaling(const struct reader *r, struct model_config *c)
{
    const char *key = field_of(r, "rope_type") ? "rope_type" : "type";
    const char *type = json_string_value(field_of(r, key));

    if (!type)
        return fail(r, "rope_type", "a word");
    if (strcmp(type, "default") == 0)
        return true;
    if (strcmp(type, "linear") == 0)
        c->rope_scaling = ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        c->rope_scaling = ROPE_LLAMA3;
    else
        return fail(r, key, "\"default\", \"linear\" or \"llama3\" in this build");
    if (!read_number(r, "factor", 1, 1e6, &c->rope_factor))
        return false;
    return c->rope_scaling != ROPE_LLAMA3 || read_llama3_rope(r, c);
}

static bool read_rope(const struct reader *r, struct model_config *c)
{
    const json_t *scaling = field_of(r, "rope_scaling"), *whole = field_of(r, "rope_parameters");
    struct reader in = { .object = whole, .e = r->e };
    char file[96];

    c->rope_theta = 10000;
    c->rope_amplitude = 1;
    if (field_of(r, "rope_theta") && !read_number(r, "rope_theta", 1, 1e15, &c->rope_theta))
        return false;
    if (scaling && !json_is_object(scaling))
        return fail(r, "rope_scaling", "an object");
    if (whole && !json_is_object(whole))
        return fail(r, "rope_parameters", "an object");
    snprintf(file, sizeof file, "%.60s: %s", r->file, whole ? "rope_parameters" : "rope_scaling");
    in.file = file;
    if (whole && field_of(&in, "rope_theta") &&
        !read_number(&in, "rope_theta", 1, 1e15, &c->rope_theta))
        return false;
    in.object = whole ? whole : scaling;
    return !in.object || read_scaling(&in, c);
}

/* ---- end of sequence ---- */

static bool add_eos(const struct reader *r, const json_t *v, struct model_config *c)
{
    json_int_t id = json_integer_value(v);

    if (!json_is_integer(v))
        return fail(r, "eos_token_id", "a token id or a list of them");
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

static bool read_eos(const struct reader *r, struct model_config *c)
{
    const json_t *v = field_of(r, "eos_token_id");

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

static bool read_config(const struct reader *r, struct model_config *c)
{
    const struct family *f = find_family(r);

    if (!f)
        return false;
    snprintf(c->architecture, sizeof c->architecture, "%s", f->architecture);
    return read_sizes(r, c) && read_kinds(r, f, c) && read_window(r, f, c) && read_rope(r, c) &&
           read_eos(r, c);
}

bool model_config_parse(struct model_config *c, const char *config, size_t config_bytes,
                        const char *generation, size_t generation_bytes, struct err *e)
{
    struct model_config out = { 0 };
    json_t *v = parse_object("config.json", config, config_bytes, e);
    bool ok = v && read_config(&(struct reader){ "config.json", v, e }, &out);

    json_decref(v);
    if (ok && generation) {
        v = parse_object("generation_config.json", generation, generation_bytes, e);
        ok = v && read_eos(&(struct reader){ "generation_config.json", v, e }, &out);
        json_decref(v);
    }
    out.digest = hash128(config, config_bytes, 0);
    if (generation)
        out.digest = hash128(generation, generation_bytes, out.digest.low ^ out.digest.high);
    if (ok)
        *c = out;
    return ok;
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
        ok = model_config_parse(c, config, config_bytes, generation, generation_bytes, e);
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

/* Low frequencies are divided by the factor, high ones kept, those between blended by how many turns they
 * make within the original context. */
static double llama3_freq(const struct model_config *c, double freq)
{
    double turns = c->rope_original_positions * freq / (2 * M_PI);
    double blend =
        (turns - c->rope_low_freq_factor) / (c->rope_high_freq_factor - c->rope_low_freq_factor);

    if (turns < c->rope_low_freq_factor)
        return freq / c->rope_factor;
    if (turns > c->rope_high_freq_factor)
        return freq;
    return (1 - blend) * freq / c->rope_factor + blend * freq;
}

void model_config_rope_freq(const struct model_config *c, uint32_t max_model_len, double *freq)
{
    (void)max_model_len;
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        freq[i] = pow(c->rope_theta, -2.0 * i / c->rope_dim);
        if (c->rope_scaling == ROPE_LINEAR)
            freq[i] /= c->rope_factor;
        else if (c->rope_scaling == ROPE_LLAMA3)
            freq[i] = llama3_freq(c, freq[i]);
    }
}
