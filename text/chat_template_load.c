/* chat_template_load.c - the templates and special tokens of a model directory or a GGUF file. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/gguf.h"
#include "common/json.h"
#include "common/mem.h"
#include "text/chat_template.h"

enum { TEMPLATE_BYTES_MAX = 1 << 20, CONFIG_BYTES_MAX = 64 << 20 };

static char *path_of(const char *dir, const char *name)
{
    struct buf path = { 0 };

    buf_printf(&path, "%s/%s", dir, name);
    return buf_take(&path);
}

/* A token's text: a string, or an object with the text in "content". */
static const char *token_text(const json_t *v)
{
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_string_value(v);
}

static json_t *special_tokens(const json_t *config)
{
    json_t *tokens = json_object();
    json_t *mutable = (json_t *)(uintptr_t)config; /* json_object_iter() wants it so */

    for (void *i = json_object_iter(mutable); i; i = json_object_iter_next(mutable, i)) {
        const char *key = json_object_iter_key(i), *text;
        size_t n = strlen(key);
        text = n > 6 && strcmp(key + n - 6, "_token") == 0 ? token_text(json_object_iter_value(i))
                                                           : NULL;
        if (text)
            json_object_set_new(tokens, key, json_string(text));
    }
    return tokens;
}

static bool compile(struct chat_template **t, const char *text, size_t n, const char *where,
                    struct err *e)
{
    if (*t)
        return err_set(e, ERR_MODEL, 0, "%s: the template is given twice", where);
    *t = chat_template_new(text, n, e);
    return *t || err_wrap(e, "%s", where);
}

/* "chat_template": [{"name": "default", "template": "..."}, ...] */
static bool compile_list(struct chat_templates *ts, const json_t *list, const char *where,
                         struct err *e)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        const json_t *text = json_object_get(item, "template");
        bool is_default = name && strcmp(name, "default") == 0;
        if (!name || !json_is_string(text))
            return err_set(e, ERR_MODEL, 0, "%s: template %zu has no name or no text", where, i);
        if (!is_default && strcmp(name, "tool_use") != 0)
            continue;
        if (!compile(is_default ? &ts->plain : &ts->tool_use, json_string_value(text),
                     json_string_length(text), where, e))
            return false;
    }
    return true;
}

static bool compile_config(struct chat_templates *ts, const json_t *config, const char *where,
                           struct err *e)
{
    const json_t *v = json_object_get(config, "chat_template");

    if (!v || json_is_null(v))
        return true;
    if (json_is_string(v))
        return compile(&ts->plain, json_string_value(v), json_string_length(v), where, e);
    if (json_is_array(v))
        return compile_list(ts, v, where, e);
    return err_set(e, ERR_MODEL, 0, "%s: \"chat_template\" is neither a string nor a list", where);
}

static bool compile_file(struct chat_templates *ts, const char *path, struct err *e)
{
    char *text;
    size_t n;
    bool ok;

    if (!file_read(path, TEMPLATE_BYTES_MAX, &text, &n, e))
        return false;
    ok = compile(&ts->plain, text, n, path, e);
    free(text);
    return ok;
}

static bool load_directory(struct chat_templates *ts, const char *dir, struct err *e)
{
    char *file = path_of(dir, "chat_template.jinja");
    char *config_path = path_of(dir, "tokenizer_config.json");
    struct chat_templates found = { 0 };
    json_t *config = NULL;
    bool ok = false;

    if (file_exists(config_path)) {
        config = json_parse_file(config_path, CONFIG_BYTES_MAX, e);
        if (!config)
            goto out;
        if (!json_is_object(config)) {
            err_set(e, ERR_MODEL, 0, "'%s' is not a JSON object", config_path);
            goto out;
        }
    }
    found.tokens = special_tokens(config);
    ok = file_exists(file) ? compile_file(&found, file, e)
                           : compile_config(&found, config, config_path, e);
out:
    if (ok)
        *ts = found;
    else
        chat_templates_fini(&found);
    json_decref(config);
    free(config_path);
    free(file);
    return ok;
}

/* ---- GGUF ---- */

/* The token that a key names by its id, under the name that templates have for it. */
static bool put_token(json_t *tokens, const struct gguf *g, const char *key, const char *name,
                      struct err *e)
{
    struct gguf_array list;
    struct gguf_string s = { 0 };
    int64_t id;

    if (!gguf_has(g, key))
        return true;
    if (!gguf_integer(g, key, &id, e) || !gguf_array(g, "tokenizer.ggml.tokens", &list, e))
        return false;
    if (id < 0 || (uint64_t)id >= list.n || list.of != GGUF_STRING)
        return true; /* none, as some files say it; the tokenizer has looked at it */
    for (int64_t i = 0; i <= id; i++)
        s = gguf_array_next(&list);
    json_object_set_new(tokens, name, json_stringn(s.s, s.n));
    return true;
}

static bool put_tokens(json_t *tokens, const struct gguf *g, struct err *e)
{
    return put_token(tokens, g, "tokenizer.ggml.bos_token_id", "bos_token", e) &&
           put_token(tokens, g, "tokenizer.ggml.eos_token_id", "eos_token", e) &&
           put_token(tokens, g, "tokenizer.ggml.unknown_token_id", "unk_token", e) &&
           put_token(tokens, g, "tokenizer.ggml.padding_token_id", "pad_token", e);
}

static bool compile_key(struct chat_template **t, const struct gguf *g, const char *key,
                        struct err *e)
{
    struct gguf_string text;

    return !gguf_has(g, key) ||
           (gguf_string(g, key, &text, e) && compile(t, text.s, text.n, key, e));
}

bool chat_templates_load_gguf(struct chat_templates *ts, const struct gguf *g, struct err *e)
{
    struct chat_templates found = { .tokens = json_object() };

    if (put_tokens(found.tokens, g, e) &&
        compile_key(&found.plain, g, "tokenizer.chat_template", e) &&
        compile_key(&found.tool_use, g, "tokenizer.chat_template.tool_use", e)) {
        *ts = found;
        return true;
    }
    chat_templates_fini(&found);
    return false;
}

static bool load_gguf_file(struct chat_templates *ts, const char *path, struct err *e)
{
    struct gguf *g = gguf_open(path, e);
    bool ok = g && (chat_templates_load_gguf(ts, g, e) || err_wrap(e, "'%s'", path));

    gguf_close(g);
    return ok;
}

/* ---- either ---- */

bool chat_templates_load(struct chat_templates *ts, const char *model, struct err *e)
{
    char *gguf;
    bool ok;

    if (!gguf_locate(model, &gguf, e))
        return false;
    ok = gguf ? load_gguf_file(ts, gguf, e) : load_directory(ts, model, e);
    free(gguf);
    return ok;
}

void chat_templates_fini(struct chat_templates *ts)
{
    chat_template_free(ts->plain);
    chat_template_free(ts->tool_use);
    json_decref(ts->tokens);
    *ts = (struct chat_templates){ 0 };
}

const struct chat_template *chat_templates_pick(const struct chat_templates *ts, bool has_tools)
{
    return has_tools && ts->tool_use ? ts->tool_use : ts->plain;
}
