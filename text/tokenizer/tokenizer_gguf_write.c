/* tokenizer_gguf_write.c - the way back of tokenizer_gguf.c, found by trying: see tokenizer_gguf.h. */
#include "text/tokenizer_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gguf.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/tokenizer_impl.h"

/* ---- keys ---- */

enum token_kind { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

static int32_t kind_of(const struct tokenizer *t, int32_t id)
{
    const struct vocab_token *token = &t->vocab.tokens[id];

    if (!token->piece || token->n_piece == 0 || token->flags & VOCAB_UNUSED)
        return UNUSED;
    if (id == t->unk_id)
        return UNKNOWN;
    if (token->flags & VOCAB_SPECIAL)
        return CONTROL;
    if (token->flags & (VOCAB_ADDED | VOCAB_USER_DEFINED))
        return USER_DEFINED;
    if (t->bpe.unknown.byte_fallback && vocab_byte_of(token->piece, token->n_piece) >= 0)
        return BYTE;
    return token->flags & VOCAB_BYTE ? BYTE : NORMAL;
}

/* Higher merges first.  A ranked list has no scores: a token is worth what its first merge is. */
static float *scores_of(const struct tokenizer *t)
{
    size_t n = t->vocab.n;
    float *scores = mem_zalloc(n, sizeof *scores);

    for (size_t i = 0; i < n; i++)
        scores[i] = t->vocab.tokens[i].score;
    for (size_t i = 0; t->bpe.merges && i <= t->bpe.merges_mask; i++) {
        const struct bpe_merge *m = &t->bpe.merges[i];
        float score = -1 - (float)m->rank;
        if (m->left >= 0 && m->id >= 0 && (size_t)m->id < n &&
            (scores[m->id] == 0 || score > scores[m->id]))
            scores[m->id] = score;
    }
    return scores;
}

/* An id that stands for nothing has a spelling of its own all the same. */
static void put_piece(struct gguf_out *o, const struct vocab_token *token, size_t id)
{
    char pad[32];

    if (token->piece && token->n_piece > 0) {
        gguf_out_add(o, token->piece, token->n_piece);
        return;
    }
    snprintf(pad, sizeof pad, "[PAD%zu]", id);
    gguf_out_add(o, pad, strlen(pad));
}

static void put_vocabulary(const struct tokenizer *t, struct gguf_out *o)
{
    size_t n = t->vocab.n;
    int32_t *kinds = mem_alloc(n * sizeof *kinds);

    gguf_out_strings(o, "tokenizer.ggml.tokens", n);
    for (size_t i = 0; i < n; i++) {
        const struct vocab_token *token = &t->vocab.tokens[i];
        kinds[i] = kind_of(t, (int32_t)i);
        put_piece(o, token, i);
    }
    gguf_out_i32s(o, "tokenizer.ggml.token_type", kinds, n);
    free(kinds);
}

/* A template may put a token before each text that no file calls bos. */
static int32_t bos_of(const struct tokenizer *t)
{
    return t->bos_id < 0 && t->post_processor.n_before == 1 ? t->post_processor.before[0]
                                                            : t->bos_id;
}

static void put_ids(const struct tokenizer *t, struct gguf_out *o)
{
    const struct {
        const char *key;
        int32_t id;
    } ids[] = { { "tokenizer.ggml.bos_token_id", bos_of(t) },
                { "tokenizer.ggml.eos_token_id", t->eos_id },
                { "tokenizer.ggml.unknown_token_id", t->unk_id },
                { "tokenizer.ggml.padding_token_id", t->pad_id } };

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= 0)
            gguf_out_u32(o, ids[i].key, (uint32_t)ids[i].id);
    gguf_out_bool(o, "tokenizer.ggml.add_bos_token", t->post_processor.n_before > 0);
    gguf_out_bool(o, "tokenizer.ggml.add_eos_token", t->post_processor.n_after > 0);
}

static int by_rank(const void *a, const void *b)
{
    const struct bpe_merge *x = *(const struct bpe_merge *const *)a,
                           *y = *(const struct bpe_merge *const *)b;

    return (x->rank > y->rank) - (x->rank < y->rank);
}

static void put_merges(const struct tokenizer *t, struct gguf_out *o)
{
    const struct bpe_merge **list = mem_alloc((t->bpe.merges_mask + 1) * sizeof *list);
    struct buf text = { 0 };
    size_t n = 0;

    for (size_t i = 0; t->bpe.merges && i <= t->bpe.merges_mask; i++)
        if (t->bpe.merges[i].left >= 0)
            list[n++] = &t->bpe.merges[i];
    if (n > 0)
        qsort(list, n, sizeof(struct bpe_merge *), by_rank);
    gguf_out_strings(o, "tokenizer.ggml.merges", n);
    for (size_t i = 0; i < n; i++) {
        const struct vocab_token *left = &t->vocab.tokens[list[i]->left],
                                 *right = &t->vocab.tokens[list[i]->right];
        buf_clear(&text);
        buf_add(&text, left->piece, left->n_piece);
        buf_add_char(&text, ' ');
        buf_add(&text, right->piece, right->n_piece);
        gguf_out_add(o, text.data, text.n);
    }
    buf_fini(&text);
    free(list);
}

static void put_sentencepiece(const struct tokenizer *t, struct gguf_out *o, bool add_prefix,
                              bool remove_spaces)
{
    float *scores = scores_of(t);

    gguf_out_string(o, "tokenizer.ggml.model", "llama");
    gguf_out_string(o, "tokenizer.ggml.pre", "default");
    gguf_out_bool(o, "tokenizer.ggml.add_space_prefix", add_prefix);
    gguf_out_bool(o, "tokenizer.ggml.remove_extra_whitespaces", remove_spaces);
    put_vocabulary(t, o);
    gguf_out_f32s(o, "tokenizer.ggml.scores", scores, t->vocab.n);
    put_ids(t, o);
    free(scores);
}

static void put_byte_level(const struct tokenizer *t, struct gguf_out *o, const char *pre)
{
    gguf_out_string(o, "tokenizer.ggml.model", "gpt2");
    gguf_out_string(o, "tokenizer.ggml.pre", pre);
    put_vocabulary(t, o);
    put_merges(t, o);
    put_ids(t, o);
}

/* ---- the same ids? ---- */

/* What tokenizers differ in: contractions, numbers, capitals, white space, marks, scripts, emoji, code. */
static const char *const texts[] = {
    "Once upon a time, there was a little dog named Spot.",
    "I'm sure they'll say it's DON'T, we'd've known; she'S 'tis o'clock",
    "1 12 123 1234 12345678 3.14159 1,000,000 0x7fff 2nd 50% $9.99",
    "camelCaseWord HTTPServer iPhone McDonald ABCdef xYz",
    " leading",
    "trailing ",
    "two  spaces   three    four",
    "\ttab\t\ttabs\n\nlines\r\n\r\nend\n",
    "    indented\n        more\n",
    "a\n b\n  c",
    "...!!! ??? --- ___ *** /// \\\\ ;;; (a)[b]{c}<d>",
    "int main(void) { return a[i++] != 0 ? x->y : z; } // done",
    "https://example.com/path?query=1&other=two#part user@example.com",
    "Ünïcödé naïve café Straße ĲSSEL ǅ İstanbul",
    "cafe\xcc\x81 e\xcc\x81\xcc\xa3 \xef\xac\x81ne \xe2\x91\xa0",
    "Привет, мир! Как дела?",
    "日本語のテキストです。漢字かなカナ",
    "中文文本，没有空格。",
    "한국어 텍스트",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया १२३",
    "ไทย",
    "🙂👍🏽👨‍👩‍👧🇩🇪 ok",
    "\xc2\xa0non-breaking\xe3\x80\x80wide",
    "x\xe2\x80\x8by \xe2\x80\x99quoted\xe2\x80\x99 \xe2\x80\x9cmarks\xe2\x80\x9d \xe2\x80\x94 dash",
    "<s>not special</s> <|im_start|>user\nhi<|im_end|> [INST] x [/INST] <unk> <pad>",
    "\xe2\x96\x81",
    "",
};

static bool encode_same(const struct tokenizer *a, const struct tokenizer *b, const char *text,
                        size_t n, unsigned flags)
{
    struct token_list x = { 0 }, y = { 0 };
    bool same = tokenizer_encode(a, text, n, flags, &x, NULL) &&
                tokenizer_encode(b, text, n, flags, &y, NULL) && x.n == y.n &&
                (x.n == 0 || memcmp(x.ids, y.ids, x.n * sizeof *x.ids) == 0);

    token_list_fini(&x);
    token_list_fini(&y);
    return same;
}

static bool has_same_token(const struct tokenizer *a, const struct tokenizer *b, size_t id)
{
    const struct vocab_token *x = &a->vocab.tokens[id], *y = &b->vocab.tokens[id];
    size_t bad_at;

    if (!x->piece || x->n_piece == 0)
        return true; /* padding has some spelling there */
    if (!y->piece || x->n_bytes != y->n_bytes || memcmp(x->bytes, y->bytes, x->n_bytes) != 0)
        return false;
    return !utf8_is_valid(x->bytes, x->n_bytes, &bad_at) ||
           encode_same(a, b, x->bytes, x->n_bytes, 0);
}

bool tokenizer_is_same(const struct tokenizer *a, const struct tokenizer *b, struct err *e)
{
    static const unsigned flags[] = { 0, TOKENIZER_PARSE_SPECIAL,
                                      TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL };

    if (b->vocab.n < a->vocab.n)
        return err_set(e, ERR_MODEL, 0, "%zu tokens, wanted %zu", b->vocab.n, a->vocab.n);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (size_t k = 0; k < 3; k++)
            if (!encode_same(a, b, texts[i], strlen(texts[i]), flags[k]))
                return err_set(e, ERR_MODEL, 0, "other ids for the text '%.60s'", texts[i]);
    for (size_t id = 0; id < a->vocab.n; id++)
        if (!has_same_token(a, b, id))
            return err_set(e, ERR_MODEL, 0, "token %zu is another, or its text has other ids", id);
    return true;
}

/* ---- trying ---- */

/* Of keys alone. */
static struct tokenizer *open_keys(const struct gguf_out *keys, struct err *e)
{
    struct buf file = { 0 };
    struct tokenizer *t = NULL;
    struct gguf *g;

    gguf_out_head(keys, &file);
    g = gguf_parse("tokenizer", file.data, file.n, e);
    if (g)
        t = tokenizer_open_gguf(g, e);
    gguf_close(g);
    buf_fini(&file);
    return t;
}

/* Way i of the kind; false: there are no more. */
static bool put_way(const struct tokenizer *t, size_t i, struct gguf_out *o)
{
    const char *pre;

    if (!t->bpe.byte_level) {
        if (i < 4)
            put_sentencepiece(t, o, i % 2 == 0, i / 2 == 1);
        return i < 4;
    }
    pre = tokenizer_gguf_pre(i);
    if (pre)
        put_byte_level(t, o, pre);
    return pre != NULL;
}

static void append(struct gguf_out *to, const struct gguf_out *from)
{
    buf_add(&to->pairs, from->pairs.data, from->pairs.n);
    to->n_pairs += from->n_pairs;
}

static bool try_way(const struct tokenizer *t, const char *architecture, const struct gguf_out *way,
                    struct err *e)
{
    struct gguf_out keys = { 0 };
    struct tokenizer *again;
    bool same;

    gguf_out_string(&keys, "general.architecture", architecture);
    append(&keys, way);
    again = open_keys(&keys, e);
    same = again && tokenizer_is_same(t, again, e);
    tokenizer_close(again);
    gguf_out_fini(&keys);
    return same;
}

bool tokenizer_put_gguf(const struct tokenizer *t, const char *architecture, struct gguf_out *out,
                        struct err *e)
{
    struct err why = { 0 };

    if (t->model != TOKENIZER_BPE)
        return err_set(e, ERR_MODEL, 0,
                       "the tokenizer is Unigram, which these files have no keys for");
    for (size_t i = 0;; i++) {
        struct gguf_out way = { 0 };
        bool more = put_way(t, i, &way),
             same = more && try_way(t, architecture, &way, i == 0 ? &why : NULL);
        if (same)
            append(out, &way);
        gguf_out_fini(&way);
        if (same)
            return true;
        if (!more)
            break;
    }
    return err_set(
        e, ERR_MODEL, 0,
        "no way of cutting words that GGUF has a name for gives this tokenizer's ids (%.100s)",
        why.msg);
}
