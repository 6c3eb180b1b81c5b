/* token_decoder.c - ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace. */
#include "text/tokenizer/token_decoder.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/byte_map.h"
#include "text/tokenizer/json_field.h"

static const char MARK[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */

static bool add_replacement(struct token_decoder *d, const char *from, size_t n_from,
                            const char *to, size_t n_to, struct err *e)
{
    if (d->n_replacements == TOKEN_DECODER_REPLACEMENTS_MAX)
        return err_set(e, ERR_MODEL, 0, "more than %d Replace", TOKEN_DECODER_REPLACEMENTS_MAX);
    d->replacements[d->n_replacements].from = mem_strndup(from, n_from);
    d->replacements[d->n_replacements].n_from = n_from;
    d->replacements[d->n_replacements].to = mem_strndup(to, n_to);
    d->replacements[d->n_replacements].n_to = n_to;
    d->n_replacements++;
    return true;
}

static bool load_replace(struct token_decoder *d, const json_t *json, struct err *e)
{
    const char *from, *to;
    size_t n_from, n_to;

    if (!json_field_str(json_object_get(json, "pattern"), "String", &from, &n_from, e) ||
        !json_field_need_str(json, "content", &to, &n_to, e))
        return false;
    if (!from || n_from == 0)
        return err_set(e, ERR_MODEL, 0, "Replace of anything but a String is not supported");
    return add_replacement(d, from, n_from, to, n_to, e);
}

static bool load_strip(struct token_decoder *d, bool fused, const json_t *json, struct err *e)
{
    json_int_t start = json_integer_value(json_object_get(json, "start"));
    json_int_t stop = json_integer_value(json_object_get(json, "stop"));
    const char *content;
    size_t n;

    if (!json_field_need_str(json, "content", &content, &n, e))
        return false;
    if (!fused)
        return err_set(e, ERR_MODEL, 0, "Strip without Fuse before it is not supported");
    if (n != 1 || (unsigned char)content[0] >= 0x80)
        return err_set(e, ERR_MODEL, 0, "Strip of '%.20s' is not supported", content);
    if (start < 0 || start > 255 || stop != 0)
        return err_set(e, ERR_MODEL, 0, "Strip with start %lld, stop %lld is not supported",
                       (long long)start, (long long)stop);
    d->strip_start = (unsigned)start;
    d->strip_char = content[0];
    return true;
}

static bool load_metaspace(struct token_decoder *d, const json_t *json, struct err *e)
{
    const char *mark, *scheme;
    size_t n, n_scheme;
    bool add, never;

    if (!json_field_need_str(json, "replacement", &mark, &n, e) ||
        !json_field_str(json, "prepend_scheme", &scheme, &n_scheme, e) ||
        !json_field_bool(json, "add_prefix_space", true, &add, e))
        return false;
    if (n == 0 || n != utf8_length(mark[0]))
        return err_set(e, ERR_MODEL, 0, "replacement '%.20s' is not one character", mark);
    never = scheme ? strcmp(scheme, "never") == 0 : !add;
    if (!never)
        memcpy(d->first_drops, mark, n);
    return add_replacement(d, mark, n, " ", 1, e);
}

/* Where in a Sequence we are: what may follow depends on it. */
struct place {
    bool fused, last;
};

static bool load_one(struct token_decoder *d, struct place *at, const char *type,
                     const json_t *json, struct err *e)
{
    if (strcmp(type, "Fuse") == 0) {
        at->fused = true;
        return true;
    }
    if (strcmp(type, "Strip") == 0) {
        at->last = true;
        return load_strip(d, at->fused, json, e);
    }
    if (at->fused || at->last)
        return err_set(e, ERR_MODEL, 0, "type '%s' after Fuse or Strip is not supported", type);
    if (strcmp(type, "Replace") == 0) {
        if (d->byte_fallback)
            return err_set(e, ERR_MODEL, 0, "Replace after ByteFallback is not supported");
        return load_replace(d, json, e);
    }
    if (strcmp(type, "ByteFallback") == 0) {
        d->byte_fallback = true;
        return true;
    }
    if (strcmp(type, "Metaspace") == 0 && d->n_replacements == 0 && !d->byte_fallback) {
        at->last = true;
        return load_metaspace(d, json, e);
    }
    if (strcmp(type, "ByteLevel") == 0 && d->n_replacements == 0 && !d->byte_fallback) {
        d->byte_level = true;
        return true;
    }
    return err_set(e, ERR_MODEL, 0, "type '%s' is not supported here", type);
}

static bool load_any(struct token_decoder *d, struct place *at, const json_t *json, struct err *e)
{
    const char *type = json_field_type(json, e);
    const json_t *list, *item;
    size_t i;

    if (!type)
        return false;
    if (strcmp(type, "Sequence") != 0)
        return load_one(d, at, type, json, e);
    list = json_object_get(json, "decoders");
    if (!json_is_array(list))
        return err_set(e, ERR_MODEL, 0, "a Sequence has no list 'decoders'");
    json_array_foreach (list, i, item) {
        if (!load_any(d, at, item, e))
            return false;
    }
    return true;
}

bool token_decoder_load(struct token_decoder *d, const json_t *json, struct err *e)
{
    struct place at = { 0 };

    *d = (struct token_decoder){ 0 };
    if (!json || json_is_null(json))
        return err_set(e, ERR_MODEL, 0, "decoder: none is not supported");
    return load_any(d, &at, json, e) || err_wrap(e, "decoder");
}

void token_decoder_init_sentencepiece(struct token_decoder *d, unsigned strip_start)
{
    *d = (struct token_decoder){ .byte_fallback = true };
    add_replacement(d, MARK, strlen(MARK), " ", 1, NULL);
    d->strip_start = strip_start;
    d->strip_char = ' ';
}

void token_decoder_fini(struct token_decoder *d)
{
    for (unsigned i = 0; i < d->n_replacements; i++) {
        free(d->replacements[i].from);
        free(d->replacements[i].to);
    }
    *d = (struct token_decoder){ 0 };
}

/* Replace all `from` in work by `to`, through `spare`. */
static void replace_all(struct buf *work, struct buf *spare, const char *from, size_t n_from,
                        const char *to, size_t n_to)
{
    const char *at = work->data, *end = work->data + work->n, *hit;
    struct buf swap;

    if (!memmem(at, work->n, from, n_from))
        return;
    buf_clear(spare);
    while ((hit = memmem(at, (size_t)(end - at), from, n_from)) != NULL) {
        buf_add(spare, at, (size_t)(hit - at));
        buf_add(spare, to, n_to);
        at = hit + n_from;
    }
    buf_add(spare, at, (size_t)(end - at));
    swap = *work;
    *work = *spare;
    *spare = swap;
}

static void bytes_of_piece(const struct token_decoder *d, const struct vocab_token *token,
                           struct buf *work, struct buf *spare)
{
    size_t n;

    buf_clear(work);
    if (d->byte_level) {
        buf_reserve(work, token->n_piece);
        if (byte_map_undo(token->piece, token->n_piece, work->data, &n)) {
            work->n = n;
            return;
        }
    }
    buf_add(work, token->piece, token->n_piece);
    for (unsigned i = 0; i < d->n_replacements; i++)
        replace_all(work, spare, d->replacements[i].from, d->replacements[i].n_from,
                    d->replacements[i].to, d->replacements[i].n_to);
    if (d->byte_fallback) {
        int byte = vocab_byte_of(work->data, work->n);
        if (byte >= 0) {
            buf_clear(work);
            buf_add_char(work, (char)byte);
        }
    }
}

void token_decoder_apply(const struct token_decoder *d, struct vocab *vocab)
{
    struct buf work = { 0 }, spare = { 0 };

    for (size_t id = 0; id < vocab->n; id++) {
        struct vocab_token *token = &vocab->tokens[id];

        if (!token->piece)
            continue;
        bytes_of_piece(d, token, &work, &spare);
        if (work.n == token->n_piece && memcmp(work.data, token->piece, work.n) == 0)
            continue;
        token->bytes = arena_strndup(&vocab->strings, work.data, work.n);
        token->n_bytes = (uint32_t)work.n;
    }
    buf_fini(&work);
    buf_fini(&spare);
}
