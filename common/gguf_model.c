/* gguf_model.c - see gguf_model.h. */
#include "common/gguf_model.h"

#include <stdio.h>

enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 }; /* of tokenizer.ggml.token_type */

bool gguf_model_key(const struct gguf *g, const char *suffix, char key[GGUF_KEY_BYTES],
                    struct err *e)
{
    struct gguf_string arch;

    if (!gguf_string(g, "general.architecture", &arch, e))
        return false;
    if (arch.n == 0 || arch.n > 64)
        return err_set(e, ERR_MODEL, 0, "key 'general.architecture' has %zu bytes", arch.n);
    snprintf(key, GGUF_KEY_BYTES, "%.*s.%s", (int)arch.n, arch.s, suffix);
    return true;
}

static bool read_count(const struct gguf *g, const char *key, uint32_t *v, struct err *e)
{
    int64_t n;

    if (!gguf_integer(g, key, &n, e))
        return false;
    if (n < 1 || n > INT32_MAX)
        return err_set(e, ERR_MODEL, 0, "key '%.80s' is %lld; wanted 1..%d", key, (long long)n,
                       INT32_MAX);
    *v = (uint32_t)n;
    return true;
}

bool gguf_model_count(const struct gguf *g, const char *suffix, uint32_t *v, struct err *e)
{
    char key[GGUF_KEY_BYTES];

    return gguf_model_key(g, suffix, key, e) && read_count(g, key, v, e);
}

bool gguf_model_vocab_size(const struct gguf *g, uint32_t *v, struct err *e)
{
    char key[GGUF_KEY_BYTES];
    struct gguf_array tokens;

    if (!gguf_model_key(g, "vocab_size", key, e))
        return false;
    if (gguf_has(g, key))
        return read_count(g, key, v, e);
    if (!gguf_array(g, "tokenizer.ggml.tokens", &tokens, e))
        return false;
    if (tokens.n < 1 || tokens.n > INT32_MAX)
        return err_set(e, ERR_MODEL, 0, "key 'tokenizer.ggml.tokens' has %llu tokens",
                       (unsigned long long)tokens.n);
    *v = (uint32_t)tokens.n;
    return true;
}

/* ---- ends ---- */

struct id_list {
    int32_t *ids;
    uint32_t n, max;
};

static void add_id(struct id_list *list, int64_t id, uint32_t vocab_size)
{
    if (id < 0 || id >= vocab_size || list->n == list->max)
        return;
    for (uint32_t i = 0; i < list->n; i++)
        if (list->ids[i] == id)
            return;
    list->ids[list->n++] = (int32_t)id;
}

static bool ends_a_text(struct gguf_string token)
{
    static const char *const spellings[] = {
        "<|eot_id|>",    "<|end_of_text|>", "<|eom_id|>", "<|im_end|>",
        "<|endoftext|>", "<end_of_turn>",   "<|end|>",    "<EOT>",
    };

    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
        if (gguf_string_is(token, spellings[i]))
            return true;
    return false;
}

static void add_spelled(const struct gguf *g, struct id_list *list, uint32_t vocab_size)
{
    struct gguf_array tokens, kinds;
    int64_t kind;

    if (!gguf_array(g, "tokenizer.ggml.tokens", &tokens, NULL) || tokens.of != GGUF_STRING ||
        !gguf_array(g, "tokenizer.ggml.token_type", &kinds, NULL))
        return;
    for (uint64_t i = 0; tokens.n > 0 && i < kinds.n; i++) {
        struct gguf_string token = gguf_array_next(&tokens);
        if (gguf_array_integer(&kinds, i, &kind) &&
            (kind == TYPE_CONTROL || kind == TYPE_USER_DEFINED) && ends_a_text(token))
            add_id(list, (int64_t)i, vocab_size);
    }
}

uint32_t gguf_model_end_ids(const struct gguf *g, int32_t *ids, uint32_t max)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    struct id_list list = { .ids = ids, .max = max };
    uint32_t vocab_size;
    int64_t id;

    if (!gguf_model_vocab_size(g, &vocab_size, NULL))
        return 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (gguf_integer(g, keys[i], &id, NULL))
            add_id(&list, id, vocab_size);
    add_spelled(g, &list, vocab_size);
    return list.n;
}
