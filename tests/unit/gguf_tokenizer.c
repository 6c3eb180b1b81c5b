/* gguf_tokenizer.c - see gguf_tokenizer.h. */
#include "tests/unit/gguf_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/mem.h"
#include "tests/check.h"
#include "text/tokenizer/tokenizer_impl.h"

static int32_t kind_of(const struct tokenizer *t, int32_t id)
{
    const struct vocab_token *token = &t->vocab.tokens[id];

    if (!token->piece || token->flags & VOCAB_UNUSED)
        return 5;
    if (id == t->unk_id)
        return 2;
    if (token->flags & VOCAB_SPECIAL)
        return 3;
    if (token->flags & (VOCAB_ADDED | VOCAB_USER_DEFINED))
        return 4;
    return token->flags & VOCAB_BYTE ? 6 : 1;
}

static void put_vocabulary(struct gguf_writer *w, const struct tokenizer *t)
{
    size_t n = t->vocab.n;
    int32_t *kinds = mem_alloc(n * sizeof *kinds);
    float *scores = mem_alloc(n * sizeof *scores);

    gguf_put_strings(w, "tokenizer.ggml.tokens", n);
    for (size_t i = 0; i < n; i++) {
        const struct vocab_token *token = &t->vocab.tokens[i];
        kinds[i] = kind_of(t, (int32_t)i);
        scores[i] = token->score;
        gguf_add_string(w, token->piece ? token->piece : "[PAD]",
                        token->piece ? token->n_piece : 5);
    }
    gguf_put_i32s(w, "tokenizer.ggml.token_type", kinds, n);
    gguf_put_f32s(w, "tokenizer.ggml.scores", scores, n);
    free(kinds);
    free(scores);
}

static void put_ids(struct gguf_writer *w, const struct tokenizer *t)
{
    if (t->bos_id >= 0)
        gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)t->bos_id);
    if (t->eos_id >= 0)
        gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)t->eos_id);
    if (t->unk_id >= 0)
        gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)t->unk_id);
    if (t->pad_id >= 0)
        gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)t->pad_id);
}

void gguf_put_sentencepiece(struct gguf_writer *w, const struct tokenizer *t, bool add_prefix)
{
    gguf_put_string(w, "tokenizer.ggml.model", "llama");
    gguf_put_string(w, "tokenizer.ggml.pre", "default");
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", add_prefix);
    put_vocabulary(w, t);
    put_ids(w, t);
}

/* As strings "left right", whichever way the file has them. */
static void put_merges(struct gguf_writer *w, const json_t *merges)
{
    struct buf text = { 0 };
    const json_t *merge;
    size_t i;

    gguf_put_strings(w, "tokenizer.ggml.merges", json_array_size(merges));
    json_array_foreach (merges, i, merge) {
        buf_clear(&text);
        if (json_is_string(merge))
            buf_add_str(&text, json_string_value(merge));
        else
            buf_printf(&text, "%s %s", json_string_value(json_array_get(merge, 0)),
                       json_string_value(json_array_get(merge, 1)));
        gguf_add_string(w, text.data, text.n);
    }
    buf_fini(&text);
}

void gguf_put_byte_level(struct gguf_writer *w, const struct tokenizer *t, const char *json,
                         size_t n, const char *pre)
{
    struct err e = { 0 };
    json_t *whole = json_parse(json, n, &e);
    const json_t *merges = json_object_get(json_object_get(whole, "model"), "merges");

    if (!json_is_array(merges))
        fail_msg("no merges: %s", e.msg);
    gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(w, "tokenizer.ggml.pre", pre);
    put_vocabulary(w, t);
    put_merges(w, merges);
    put_ids(w, t);
    json_decref(whole);
}
