/* added_tokens.c - finding added tokens, by the rules of the Hugging Face library. */
#include "text/tokenizer/added_tokens.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/unicode.h"

bool added_token_load_flags(struct added_token *token, const json_t *json, struct err *e)
{
    *token = (struct added_token){ 0 };
    return json_field_bool(json, "special", false, &token->special, e) &&
           json_field_bool(json, "normalized", !token->special, &token->normalized, e) &&
           json_field_bool(json, "single_word", false, &token->single_word, e) &&
           json_field_bool(json, "lstrip", false, &token->lstrip, e) &&
           json_field_bool(json, "rstrip", false, &token->rstrip, e);
}

void added_tokens_add(struct added_tokens *a, struct added_token token)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 32;
        a->list = mem_realloc(a->list, a->cap * sizeof *a->list);
    }
    a->list[a->n++] = token;
}

void added_tokens_set_strips(struct added_tokens *a, int32_t id, bool lstrip, bool rstrip)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->list[i].id == id) {
            a->list[i].lstrip = lstrip;
            a->list[i].rstrip = rstrip;
        }
}

/* The normalized spelling of a token, kept in `strings`. */
static bool normalized_key(const struct added_token *token, const struct normalizer *nz,
                           struct normalizer_scratch *scratch, struct arena *strings,
                           struct trie_key *key, struct err *e)
{
    struct text_view v = { .s = token->content, .n = token->n, .at_start = true };

    if (!normalizer_run(nz, scratch, false, &v, e))
        return err_wrap(e, "added token '%.40s'", token->content);
    key->s = arena_strndup(strings, v.s, v.n);
    key->n = v.n;
    return true;
}

bool added_tokens_index(struct added_tokens *a, const struct normalizer *nz, struct err *e)
{
    struct trie_key *raw = mem_alloc(a->n * sizeof *raw);
    struct trie_key *normalized = mem_alloc(a->n * sizeof *normalized);
    struct normalizer_scratch scratch = { 0 };
    struct arena strings = { 0 };
    size_t n_raw = 0, n_normalized = 0;
    bool ok = true;

    for (size_t i = 0; ok && i < a->n; i++) {
        const struct added_token *token = &a->list[i];
        struct trie_key key = { .s = token->content, .n = token->n, .value = (int32_t)i };

        if (token->normalized)
            ok = normalized_key(token, nz, &scratch, &strings, &key, e);
        if (!ok || key.n == 0)
            continue;
        if (token->normalized)
            normalized[n_normalized++] = key;
        else
            raw[n_raw++] = key;
    }
    if (ok) {
        trie_init(&a->raw, raw, n_raw);
        trie_init(&a->normalized, normalized, n_normalized);
    }
    normalizer_scratch_fini(&scratch);
    arena_fini(&strings);
    free(raw);
    free(normalized);
    return ok;
}

void added_tokens_fini(struct added_tokens *a)
{
    trie_fini(&a->raw);
    trie_fini(&a->normalized);
    free(a->list);
    *a = (struct added_tokens){ 0 };
}

/* The beginning of the character that ends before s[at]. */
static size_t character_before(const char *s, size_t at)
{
    do
        at--;
    while (utf8_is_continuation(s[at]));
    return at;
}

static bool touches_word(const struct text_view *v, size_t from, size_t to)
{
    size_t len;

    return (from > 0 && unicode_is_word(utf8_decode(v->s + character_before(v->s, from), &len))) ||
           (to < v->n && unicode_is_word(utf8_decode(v->s + to, &len)));
}

/* Take the white space around [*from, *to) that the token asks for, but none before `floor`. */
static void widen(const struct added_token *token, const struct text_view *v, size_t floor,
                  struct added_match *match)
{
    size_t len;

    while (token->lstrip && match->from > floor) {
        size_t before = character_before(v->s, match->from);
        if (!unicode_is_space(utf8_decode(v->s + before, &len)))
            break;
        match->from = before;
    }
    while (token->rstrip && match->to < v->n &&
           unicode_is_space(utf8_decode(v->s + match->to, &len)))
        match->to += len;
}

bool added_tokens_next(const struct added_tokens *a, const struct trie *trie, bool parse_special,
                       const struct text_view *v, size_t at, struct added_match *match)
{
    size_t i = at;

    while (i < v->n) {
        const struct added_token *token;
        int32_t index;
        size_t n;

        if (!trie_begins(trie, v->s[i]) ||
            (n = trie_longest(trie, v->s + i, v->n - i, &index)) == 0) {
            i++;
            continue;
        }
        token = &a->list[index];
        if ((token->special && !parse_special) ||
            (token->single_word && touches_word(v, i, i + n))) {
            i += n;
            continue;
        }
        *match = (struct added_match){ .from = i, .to = i + n, .id = token->id };
        widen(token, v, at, match);
        return true;
    }
    return false;
}
