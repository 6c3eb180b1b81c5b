/* detokenizer.c - join the bytes of tokens into characters. */
#include "text/detokenizer.h"

#include <string.h>

#include "common/utf8.h"
#include "text/tokenizer/tokenizer_impl.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */
enum { REPLACEMENT_BYTES = 3 };

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, unsigned flags)
{
    *d = (struct detokenizer){
        .t = t, .flags = flags, .strip_left = t->decoder.strip_start, .first = true
    };
}

/* Valid text on its way out; `out` is NULL when nobody wants it. */
static void put(struct detokenizer *d, const char *s, size_t n, struct buf *out)
{
    while (d->strip_left > 0 && n > 0) {
        if (*s != d->t->decoder.strip_char) {
            d->strip_left = 0;
            break;
        }
        d->strip_left--;
        s++;
        n--;
    }
    if (out)
        buf_add(out, s, n);
}

static void put_bad(struct detokenizer *d, size_t n_bytes, struct buf *out)
{
    size_t times = d->t->decoder.byte_fallback ? n_bytes : 1;

    for (size_t i = 0; i < times; i++)
        put(d, REPLACEMENT, REPLACEMENT_BYTES, out);
}

/* Bytes of a token, when nothing is held. */
static void add_fresh(struct detokenizer *d, const char *s, size_t n, struct buf *out)
{
    size_t done = 0, at = 0;

    while (at < n) {
        size_t len;
        enum utf8_kind kind = utf8_next(s + at, n - at, &len);

        if (kind == UTF8_CHAR) {
            at += len;
            continue;
        }
        put(d, s + done, at - done, out);
        if (kind == UTF8_SHORT) {
            memcpy(d->held, s + at, len);
            d->n_held = (unsigned char)len;
            return;
        }
        put_bad(d, len, out);
        done = at += len;
    }
    put(d, s + done, n - done, out);
}

/* Give the held beginning of a character one byte after the other, until nothing is held. */
static void add_bytes(struct detokenizer *d, const char *s, size_t n, struct buf *out)
{
    size_t at = 0;

    while (d->n_held > 0 && at < n) {
        size_t len;

        d->held[d->n_held] = s[at];
        switch (utf8_next(d->held, d->n_held + 1u, &len)) {
        case UTF8_SHORT:
            d->n_held++;
            at++;
            break;
        case UTF8_CHAR:
            put(d, d->held, len, out);
            d->n_held = 0;
            at++;
            break;
        default: /* this byte does not belong to it, and is looked at again on its own */
            put_bad(d, d->n_held, out);
            d->n_held = 0;
            break;
        }
    }
    add_fresh(d, s + at, n - at, out);
}

/* Metaspace: the first token of a text is rid of its marks. */
static void add_first(struct detokenizer *d, const struct vocab_token *token, struct buf *out)
{
    const char *mark = d->t->decoder.first_drops;
    size_t n_mark = strlen(mark);

    for (size_t i = 0, len; i < token->n_piece; i += len) {
        len = utf8_length(token->piece[i]);
        if (len != n_mark || memcmp(token->piece + i, mark, n_mark) != 0)
            add_bytes(d, token->piece + i, len, out);
    }
}

static void add_token(struct detokenizer *d, int32_t id, struct buf *out)
{
    const struct vocab_token *token;

    if (!vocab_has(&d->t->vocab, id))
        return;
    token = &d->t->vocab.tokens[id];
    if (d->flags & DETOKENIZER_SKIP_SPECIAL && token->flags & VOCAB_SPECIAL)
        return;
    if (d->first && d->t->decoder.first_drops[0])
        add_first(d, token, out);
    else
        add_bytes(d, token->bytes, token->n_bytes, out);
    d->first = false;
}

void detokenizer_continue(struct detokenizer *d, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add_token(d, ids[i], NULL);
}

void detokenizer_push(struct detokenizer *d, int32_t id, struct buf *out)
{
    add_token(d, id, out);
}

void detokenizer_flush(struct detokenizer *d, struct buf *out)
{
    if (d->n_held > 0)
        put_bad(d, d->n_held, out);
    d->n_held = 0;
}

void detokenize(const struct tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                struct buf *out)
{
    struct detokenizer d;

    detokenizer_init(&d, t, flags);
    for (size_t i = 0; i < n; i++)
        detokenizer_push(&d, ids[i], out);
    detokenizer_flush(&d, out);
}
