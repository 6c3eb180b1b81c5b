/* model_info.c - config.json and generation_config.json, or the metadata of a GGUF file: the few members that
 * matter here. */
#include "gateway/model_info.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"
#include "common/gguf_model.h"
#include "common/json.h"

enum { FILE_BYTES_MAX = 4 << 20 };

static bool read_u32(const json_t *config, const char *name, uint32_t *out, struct err *e)
{
    const json_t *v = json_object_get(config, name);

    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > INT32_MAX)
        return err_set(e, ERR_MODEL, 0, "'%s' is not a positive integer", name);
    *out = (uint32_t)json_integer_value(v);
    return true;
}

static void add_eos(struct model_info *info, const json_t *v)
{
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX &&
        info->n_eos < MODEL_EOS_MAX)
        info->eos[info->n_eos++] = (int32_t)json_integer_value(v);
}

/* An id or a list of them.  Given twice, the later file wins. */
static void read_eos(struct model_info *info, const json_t *config)
{
    const json_t *v = json_object_get(config, "eos_token_id");

    if (!v || json_is_null(v))
        return;
    info->n_eos = 0;
    if (json_is_array(v))
        for (size_t i = 0; i < json_array_size(v); i++)
            add_eos(info, json_array_get(v, i));
    else
        add_eos(info, v);
}

static void read_default(const json_t *config, const char *name, struct model_default *out)
{
    const json_t *v = json_object_get(config, name);

    if (json_is_number(v) && isfinite(json_number_value(v)))
        *out = (struct model_default){ .is_set = true, .value = json_number_value(v) };
}

static json_t *read_object(const char *dir, const char *name, struct err *e)
{
    char path[PATH_MAX];
    json_t *config;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    config = json_parse_file(path, FILE_BYTES_MAX, e);
    if (config && !json_is_object(config)) {
        err_set(e, ERR_MODEL, 0, "'%s' is not a JSON object", path);
        json_decref(config);
        config = NULL;
    }
    return config;
}

static bool read_generation_config(struct model_info *info, const char *dir, struct err *e)
{
    char path[PATH_MAX];
    json_t *config;

    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    if (!file_exists(path))
        return true;
    config = read_object(dir, "generation_config.json", e);
    if (!config)
        return false;
    read_eos(info, config);
    read_default(config, "temperature", &info->temperature);
    read_default(config, "top_p", &info->top_p);
    read_default(config, "top_k", &info->top_k);
    read_default(config, "min_p", &info->min_p);
    read_default(config, "repetition_penalty", &info->repetition_penalty);
    read_default(config, "max_new_tokens", &info->max_new_tokens);
    json_decref(config);
    return true;
}

static bool read_directory(struct model_info *info, const char *dir, struct err *e)
{
    json_t *config = read_object(dir, "config.json", e);
    bool ok;

    if (!config)
        return false;
    ok = read_u32(config, "max_position_embeddings", &info->max_model_len, e) &&
         read_u32(config, "vocab_size", &info->vocab_size, e);
    read_eos(info, config);
    json_decref(config);
    if (!ok)
        return err_wrap(e, "'%s/config.json'", dir);
    return read_generation_config(info, dir, e);
}

static void read_gguf_default(const struct gguf *g, const char *key, struct model_default *out)
{
    double v;

    if (gguf_number(g, key, &v, NULL))
        *out = (struct model_default){ .is_set = true, .value = v };
}

static bool read_gguf(struct model_info *info, const char *path, struct err *e)
{
    struct gguf *g = gguf_open(path, e);
    bool ok;

    if (!g)
        return false;
    read_gguf_default(g, "general.sampling.temp", &info->temperature);
    read_gguf_default(g, "general.sampling.top_k", &info->top_k);
    read_gguf_default(g, "general.sampling.top_p", &info->top_p);
    read_gguf_default(g, "general.sampling.min_p", &info->min_p);
    read_gguf_default(g, "general.sampling.penalty_repeat", &info->repetition_penalty);
    ok = (gguf_model_count(g, "context_length", &info->max_model_len, e) &&
          gguf_model_vocab_size(g, &info->vocab_size, e)) ||
         err_wrap(e, "'%s'", path);
    info->n_eos = gguf_model_end_ids(g, info->eos, MODEL_EOS_MAX);
    gguf_close(g);
    return ok;
}

bool model_info_read(struct model_info *info, const char *model, struct err *e)
{
    char *gguf;
    bool ok;

    *info = (struct model_info){ 0 };
    if (!gguf_locate(model, &gguf, e))
        return false;
    ok = gguf ? read_gguf(info, gguf, e) : read_directory(info, model, e);
    free(gguf);
    return ok;
}

bool model_info_is_eos(const struct model_info *info, int32_t token)
{
    for (uint32_t i = 0; i < info->n_eos; i++)
        if (info->eos[i] == token)
            return true;
    return false;
}
