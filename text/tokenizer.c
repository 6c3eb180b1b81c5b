/* tokenizer.c - open, ask, encode. */
#include "text/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/gguf.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/tokenizer_impl.h"

enum {
    FILE_BYTES_MAX = 512 << 20,      /* tokenizer.json, tokenizer.model */
    SMALL_FILE_BYTES_MAX = 32 << 20, /* the others; Gemma 3's tokenizer_config.json has 1 MB */
    PATH_BYTES_MAX = 4096,
};

/* -- opening ------------------------------------------------------------------------------- */

static bool check_post_processor(const struct tokenizer *t, struct err *e)
{
    const struct post_processor *p = &t->post_processor;

    for (size_t i = 0; i < p->n_before + p->n_after; i++) {
        int32_t id = i < p->n_before ? p->before[i] : p->after[i - p->n_before];
        if (!vocab_has(&t->vocab, id))
            return err_set(e, ERR_MODEL, 0, "post_processor: id %d is not in the vocabulary", id);
    }
    return true;
}

/* What depends on which tokens are special, and that is known only now. */
static void finish_model(struct tokenizer *t)
{
    if (t->model == TOKENIZER_UNIGRAM) {
        unigram_init(&t->unigram, &t->vocab);
    } else {
        bpe_forget_specials(&t->bpe);
        bpe_find_boundaries(&t->bpe);
    }
}

static bool load(struct tokenizer *t, const struct tokenizer_files *files, struct err *e)
{
    if (files->json.s) {
        if (!tokenizer_load_json(t, files->json, e))
            return err_wrap(e, "tokenizer.json");
    } else if (!tokenizer_load_sentencepiece(t, files->model, e)) {
        return err_wrap(e, "tokenizer.model");
    }
    if (!tokenizer_load_config(t, files, e) || !check_post_processor(t, e) ||
        !added_tokens_index(&t->added, &t->normalizer, e))
        return false;
    finish_model(t);
    token_decoder_apply(&t->decoder, &t->vocab);
    return true;
}

static struct tokenizer *open_files(const struct tokenizer_files *files, struct err *e)
{
    struct tokenizer *t = mem_zalloc(1, sizeof *t);

    t->bos_id = t->eos_id = t->unk_id = t->pad_id = -1;
    if (load(t, files, e))
        return t;
    tokenizer_close(t);
    return NULL;
}

/* Read one file of the directory; one that is not there leaves *file as it is. */
static bool read_one(const char *dir, const char *name, size_t bytes_max,
                     struct tokenizer_file *file, struct err *e)
{
    char path[PATH_BYTES_MAX], *bytes;
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);

    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(e, ERR_SYS, ENAMETOOLONG, "open '%.80s...'", dir);
    if (!file_exists(path))
        return true;
    if (!file_read(path, bytes_max, &bytes, &file->n, e))
        return false;
    file->s = bytes;
    return true;
}

static bool read_files(const char *dir, struct tokenizer_files *f, struct err *e)
{
    if (!read_one(dir, "tokenizer.json", FILE_BYTES_MAX, &f->json, e) ||
        !read_one(dir, "tokenizer_config.json", SMALL_FILE_BYTES_MAX, &f->config, e) ||
        !read_one(dir, "special_tokens_map.json", SMALL_FILE_BYTES_MAX, &f->special_map, e))
        return false;
    if (f->json.s)
        return true;
    if (!read_one(dir, "tokenizer.model", FILE_BYTES_MAX, &f->model, e) ||
        !read_one(dir, "added_tokens.json", SMALL_FILE_BYTES_MAX, &f->added, e))
        return false;
    return f->model.s ||
           err_set(e, ERR_MODEL, 0, "'%.120s' has neither tokenizer.json nor tokenizer.model", dir);
}

static void free_files(struct tokenizer_files *f)
{
    free((char *)f->json.s);
    free((char *)f->model.s);
    free((char *)f->config.s);
    free((char *)f->special_map.s);
    free((char *)f->added.s);
}

static struct tokenizer *open_directory(const char *dir, struct err *e)
{
    struct tokenizer_files files = { 0 };
    struct tokenizer *t = read_files(dir, &files, e) ? open_files(&files, e) : NULL;

    free_files(&files);
    return t;
}

static struct tokenizer *open_gguf_file(const char *path, struct err *e)
{
    struct gguf *g = gguf_open(path, e);
    struct tokenizer *t = g ? tokenizer_open_gguf(g, e) : NULL;

    gguf_close(g);
    return t;
}

struct tokenizer *tokenizer_open(const char *model, struct err *e)
{
    struct tokenizer *t;
    char *gguf;

    if (!gguf_locate(model, &gguf, e))
        return NULL;
    t = gguf ? open_gguf_file(gguf, e) : open_directory(model, e);
    free(gguf);
    if (!t)
        err_wrap(e, "tokenizer of '%s'", model);
    return t;
}

struct tokenizer *tokenizer_open_json(const char *json, size_t n, const char *config,
                                      size_t config_n, struct err *e)
{
    struct tokenizer_files files = { .json = { json, n }, .config = { config, config_n } };

    return open_files(&files, e);
}

struct tokenizer *tokenizer_open_sentencepiece(const char *model, size_t n, const char *config,
                                               size_t config_n, struct err *e)
{
    struct tokenizer_files files = { .model = { model, n }, .config = { config, config_n } };

    return open_files(&files, e);
}

struct tokenizer *tokenizer_open_gguf(const struct gguf *g, struct err *e)
{
    struct tokenizer_files files = { 0 };
    struct tokenizer *t = tokenizer_gguf_files(g, &files, e) ? open_files(&files, e) : NULL;

    free_files(&files);
    return t;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    added_tokens_fini(&t->added);
    normalizer_fini(&t->normalizer);
    pre_tokenizer_fini(&t->pre_tokenizer);
    bpe_fini(&t->bpe);
    unigram_fini(&t->unigram);
    trie_fini(&t->user_defined);
    token_decoder_fini(&t->decoder);
    if (t->vocab.by_piece.slots)
        vocab_fini(&t->vocab);
    free(t);
}

bool tokenizer_add_token(struct tokenizer *t, const char *content, size_t n, int64_t id,
                         struct added_token flags, struct err *e)
{
    int32_t known = vocab_find(&t->vocab, content, n);

    if (n == 0)
        return true;
    if (known >= 0 && known != id)
        return err_set(e, ERR_MODEL, 0, "added token '%.40s' has id %lld, the vocabulary says %d",
                       content, (long long)id, known);
    if (known < 0) {
        if (!vocab_put(&t->vocab, id, arena_strndup(&t->vocab.strings, content, n), n, e))
            return false;
        known = (int32_t)id;
    }
    if (t->vocab.tokens[known].flags & VOCAB_ADDED)
        return true;
    t->vocab.tokens[known].flags |= VOCAB_ADDED | (flags.special ? VOCAB_SPECIAL : 0);
    flags.content = t->vocab.tokens[known].piece;
    flags.n = n;
    flags.id = known;
    added_tokens_add(&t->added, flags);
    return true;
}

/* -- asking -------------------------------------------------------------------------------- */

int32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return (int32_t)t->vocab.n;
}

int32_t tokenizer_bos_id(const struct tokenizer *t)
{
    return t->bos_id;
}

int32_t tokenizer_eos_id(const struct tokenizer *t)
{
    return t->eos_id;
}

int32_t tokenizer_unk_id(const struct tokenizer *t)
{
    return t->unk_id;
}

int32_t tokenizer_pad_id(const struct tokenizer *t)
{
    return t->pad_id;
}

const char *tokenizer_bos_str(const struct tokenizer *t)
{
    return tokenizer_token_str(t, t->bos_id, NULL);
}

const char *tokenizer_eos_str(const struct tokenizer *t)
{
    return tokenizer_token_str(t, t->eos_id, NULL);
}

const char *tokenizer_unk_str(const struct tokenizer *t)
{
    return tokenizer_token_str(t, t->unk_id, NULL);
}

const char *tokenizer_pad_str(const struct tokenizer *t)
{
    return tokenizer_token_str(t, t->pad_id, NULL);
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->bos_id >= 0 && t->post_processor.n_before > 0 &&
           t->post_processor.before[0] == t->bos_id;
}

const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id, size_t *n)
{
    bool has = vocab_has(&t->vocab, id);

    *n = has ? t->vocab.tokens[id].n_bytes : 0;
    return has ? t->vocab.tokens[id].bytes : NULL;
}

const char *tokenizer_token_str(const struct tokenizer *t, int32_t id, size_t *n)
{
    bool has = vocab_has(&t->vocab, id);

    if (n)
        *n = has ? t->vocab.tokens[id].n_piece : 0;
    return has ? t->vocab.tokens[id].piece : NULL;
}

int32_t tokenizer_token_id(const struct tokenizer *t, const char *piece, size_t n)
{
    return vocab_find(&t->vocab, piece, n);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return vocab_has(&t->vocab, id) && t->vocab.tokens[id].flags & VOCAB_SPECIAL;
}

/* -- encoding ------------------------------------------------------------------------------ */

/* One call of tokenizer_encode(). */
struct encoding {
    const struct tokenizer *t;
    unsigned flags;
    struct token_list *out;
    struct normalizer_scratch normalizer;
    struct pre_tokenizer_scratch pre_tokenizer;
    struct bpe_scratch bpe;
    struct unigram_scratch unigram;
};

static void add_word(void *arg, const struct text_view *word)
{
    struct encoding *enc = arg;
    bool with_spans = enc->flags & TOKENIZER_SPANS;

    if (enc->t->model == TOKENIZER_BPE)
        bpe_encode(&enc->t->bpe, &enc->bpe, word, enc->out, with_spans);
    else
        unigram_encode(&enc->t->unigram, &enc->unigram, word, enc->out, with_spans);
}

/* What becomes of the text between added tokens. */
typedef bool between_fn(struct encoding *enc, const struct text_view *text, struct err *e);

static bool cut_added(struct encoding *enc, const struct trie *trie, const struct text_view *text,
                      between_fn *between, struct err *e)
{
    bool parse_special = enc->flags & TOKENIZER_PARSE_SPECIAL;
    struct added_match match;
    struct text_view part;
    size_t at = 0;

    while (added_tokens_next(&enc->t->added, trie, parse_special, text, at, &match)) {
        part = text_view_cut(text, at, match.from);
        if (part.n > 0 && !between(enc, &part, e))
            return false;
        text_view_add_token(text, match.from, match.to, match.id, enc->out,
                            enc->flags & TOKENIZER_SPANS);
        at = match.to;
    }
    part = text_view_cut(text, at, text->n);
    return part.n == 0 || between(enc, &part, e);
}

static bool encode_normalized(struct encoding *enc, const struct text_view *text, struct err *e)
{
    return pre_tokenizer_run(&enc->t->pre_tokenizer, &enc->pre_tokenizer, text, add_word, enc, e);
}

static bool encode_section(struct encoding *enc, const struct text_view *text, struct err *e)
{
    struct text_view normal = *text;

    return normalizer_run(&enc->t->normalizer, &enc->normalizer, enc->flags & TOKENIZER_SPANS,
                          &normal, e) &&
           cut_added(enc, &enc->t->added.normalized, &normal, encode_normalized, e);
}

static void add_template(struct encoding *enc, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (enc->flags & TOKENIZER_SPANS)
            token_list_add_span(enc->out, ids[i], (struct token_span){ 0 });
        else
            token_list_add(enc->out, ids[i]);
}

/* Whole characters; without the spaces at the ends where the model's files ask for that. */
static void finish_spans(const struct tokenizer *t, const char *text, size_t n,
                         struct token_list *out, size_t first)
{
    for (size_t i = first; i < out->n; i++) {
        struct token_span *span = &out->spans[i];

        while (span->start > 0 && span->start < n && utf8_is_continuation(text[span->start]))
            span->start--;
        while (span->end < n && utf8_is_continuation(text[span->end]))
            span->end++;
        while (t->post_processor.trims_spans && span->start < span->end && text[span->start] == ' ')
            span->start++;
        while (t->post_processor.trims_spans && span->start < span->end &&
               text[span->end - 1] == ' ')
            span->end--;
    }
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                      struct token_list *out, struct err *e)
{
    struct encoding enc = { .t = t, .flags = flags, .out = out };
    const struct post_processor *post = &t->post_processor;
    struct text_view whole = { .s = text, .n = n, .at_start = true };
    size_t n_before = out->n, bad_at;
    bool ok;

    if (n > TOKENIZER_TEXT_BYTES_MAX)
        return err_set(e, ERR_INPUT, 0, "text of %zu bytes, the limit is %u", n,
                       TOKENIZER_TEXT_BYTES_MAX);
    if (!utf8_is_valid(text, n, &bad_at))
        return err_set(e, ERR_INPUT, 0, "text is not UTF-8 at byte %zu", bad_at);
    enc.pre_tokenizer.tracks = flags & TOKENIZER_SPANS;
    if (flags & TOKENIZER_ADD_SPECIAL)
        add_template(&enc, post->before, post->n_before);
    ok = cut_added(&enc, &t->added.raw, &whole, encode_section, e);
    if (ok && flags & TOKENIZER_ADD_SPECIAL)
        add_template(&enc, post->after, post->n_after);
    if (ok && flags & TOKENIZER_SPANS && out->n > n_before)
        finish_spans(t, text, n, out, n_before);
    if (!ok)
        out->n = n_before;
    normalizer_scratch_fini(&enc.normalizer);
    pre_tokenizer_scratch_fini(&enc.pre_tokenizer);
    bpe_scratch_fini(&enc.bpe);
    unigram_scratch_fini(&enc.unigram);
    return ok;
}
