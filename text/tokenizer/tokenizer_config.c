/* tokenizer_config.c - special tokens and switches from the files beside the tokenizer.
 *
 * The rules are those of the `transformers` library, because that is how a model was trained and is
 * served elsewhere:
 *   - tokens of added_tokens_decoder (and of added_tokens.json) that the tokenizer lacks are added;
 *   - bos, eos, unk and pad are named in tokenizer_config.json, else in special_tokens_map.json, and are
 *     special tokens even if the tokenizer does not say so;
 *   - the classes of CLASSES_WITH_SWITCHES put bos and eos around a text as add_bos_token and
 *     add_eos_token say, whatever the post-processor says, and so does a tokenizer.model, which has
 *     no post-processor; for all others the post-processor rules. */
#include <stdlib.h>
#include <string.h>

#include "text/json_cut.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/tokenizer_impl.h"

static const char *const CLASSES_WITH_SWITCHES[] = { "LlamaTokenizer", "CodeLlamaTokenizer",
                                                     "GemmaTokenizer", "CohereTokenizer" };

/* The members we know of a file, as one object; NULL when there is no such file. */
static bool parse_file(struct tokenizer_file file, const char *name, json_t **object, struct err *e)
{
    struct json_member members[] = {
        { .key = "added_tokens_decoder" },
        { .key = "bos_token" },
        { .key = "eos_token" },
        { .key = "unk_token" },
        { .key = "pad_token" },
        { .key = "add_bos_token" },
        { .key = "add_eos_token" },
        { .key = "tokenizer_class" },
    };

    *object = NULL;
    if (!file.s)
        return true;
    if (!json_cut(file.s, file.n, members, sizeof members / sizeof *members, e))
        return err_wrap(e, "%s", name);
    *object = json_object();
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        json_t *v;
        if (!json_cut_parse(&members[i], &v, e))
            return err_wrap(e, "%s", name);
        if (v)
            json_object_set_new(*object, members[i].key, v);
    }
    return true;
}

static bool parse_added(struct tokenizer_file file, json_t **object, struct err *e)
{
    *object = NULL;
    if (!file.s)
        return true;
    *object = json_parse(file.s, file.n, e);
    if (!*object && e)
        e->code = ERR_MODEL;
    return *object || err_wrap(e, "added_tokens.json");
}

/* {"32000": {"content": "<x>", "special": true, ...}, ...} */
static bool add_decoder_tokens(struct tokenizer *t, const json_t *config, bool from_sentencepiece,
                               struct err *e)
{
    json_t *decoder = json_object_get(config, "added_tokens_decoder"), *item;
    const char *key;

    json_object_foreach (decoder, key, item) {
        struct added_token flags;
        const char *content;
        char *end;
        long id = strtol(key, &end, 10);
        size_t n;

        if (*end != '\0' || end == key)
            return err_set(e, ERR_MODEL, 0, "added_tokens_decoder: '%.40s' is not an id", key);
        if (!json_field_need_str(item, "content", &content, &n, e) ||
            !added_token_load_flags(&flags, item, e) ||
            !tokenizer_add_token(t, content, n, id, flags, e))
            return err_wrap(e, "added_tokens_decoder '%.40s'", key);
        if (from_sentencepiece) /* which knows nothing of white space around its control pieces */
            added_tokens_set_strips(&t->added, (int32_t)id, flags.lstrip, flags.rstrip);
    }
    return true;
}

/* added_tokens.json, of old directories: {"<x>": 32000, ...} */
static bool add_listed_tokens(struct tokenizer *t, const json_t *added, struct err *e)
{
    const char *content;
    json_t *id;

    json_object_foreach ((json_t *)added, content, id) {
        if (!json_is_integer(id))
            return err_set(e, ERR_MODEL, 0, "added_tokens.json: '%.40s' has no id", content);
        if (!tokenizer_add_token(t, content, strlen(content), json_integer_value(id),
                                 (struct added_token){ .normalized = true }, e))
            return err_wrap(e, "added_tokens.json");
    }
    return true;
}

/* A special token is named by its spelling, or by an object that holds it. */
static const char *name_of(const json_t *file, const char *key)
{
    const json_t *v = json_object_get(file, key);

    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static bool set_special(struct tokenizer *t, const json_t *config, const json_t *map,
                        const char *key, int32_t *id, struct err *e)
{
    const char *name = name_of(config, key);
    int32_t found;

    if (!name)
        name = name_of(map, key);
    if (!name || !*name)
        return true;
    found = vocab_find(&t->vocab, name, strlen(name));
    if (found < 0)
        return err_set(e, ERR_MODEL, 0, "%s '%.40s' is not in the vocabulary", key, name);
    *id = found;
    return tokenizer_add_token(t, name, strlen(name), found,
                               (struct added_token){ .special = true }, e);
}

static bool has_switches(const json_t *config)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));

    for (size_t i = 0; class && i < sizeof CLASSES_WITH_SWITCHES / sizeof *CLASSES_WITH_SWITCHES;
         i++) {
        size_t n = strlen(CLASSES_WITH_SWITCHES[i]);
        if (strncmp(class, CLASSES_WITH_SWITCHES[i], n) == 0 &&
            (class[n] == '\0' || strcmp(class + n, "Fast") == 0))
            return true;
    }
    return false;
}

static bool set_switches(struct tokenizer *t, const json_t *config, bool from_sentencepiece,
                         struct err *e)
{
    struct post_processor *post = &t->post_processor;
    bool bos, eos;

    if (!from_sentencepiece && !has_switches(config))
        return true;
    if (!json_field_bool(config, "add_bos_token", true, &bos, e) ||
        !json_field_bool(config, "add_eos_token", false, &eos, e))
        return false;
    post->n_before = post->n_after = 0;
    if (bos && t->bos_id >= 0)
        post->before[post->n_before++] = t->bos_id;
    if (eos && t->eos_id >= 0)
        post->after[post->n_after++] = t->eos_id;
    return true;
}

bool tokenizer_load_config(struct tokenizer *t, const struct tokenizer_files *files, struct err *e)
{
    json_t *config = NULL, *map = NULL, *added = NULL;
    bool ok = parse_file(files->config, "tokenizer_config.json", &config, e) &&
              parse_file(files->special_map, "special_tokens_map.json", &map, e) &&
              parse_added(files->added, &added, e);

    ok = ok && add_decoder_tokens(t, config, files->model.s, e) && add_listed_tokens(t, added, e) &&
         set_special(t, config, map, "bos_token", &t->bos_id, e) &&
         set_special(t, config, map, "eos_token", &t->eos_id, e) &&
         set_special(t, config, map, "unk_token", &t->unk_id, e) &&
         set_special(t, config, map, "pad_token", &t->pad_id, e) &&
         set_switches(t, config, files->model.s, e);
    if (!ok && files->config.s)
        err_wrap(e, "tokenizer_config.json");
    json_decref(config);
    json_decref(map);
    json_decref(added);
    return ok;
}
