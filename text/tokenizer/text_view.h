/* text_view.h - a stretch of text on its way to the model, which remembers where it came from.
 *
 * Normalizers and pre-tokenizers change the text (a space becomes U+2581, a letter and its accent
 * become one character), while /tokenize must say which bytes of the client's text a token stands for.  A
 * text_view is bytes plus that memory; a text_rewrite builds the bytes of the next stage.
 *
 * `map` costs four bytes a byte, and is made only when spans are asked for.  Without it, positions
 * that text_view_origin() gives after a rewrite mean nothing and are not used. */
#ifndef LLMD_TEXT_TEXT_VIEW_H
#define LLMD_TEXT_TEXT_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "text/token_list.h"

struct text_view {
    const char *s; /* n bytes of valid UTF-8, borrowed */
    size_t n;
    const uint32_t *map; /* [n + 1] where in the input byte i comes from; NULL: base + i */
    uint32_t base;
    bool at_start; /* nothing of the input stands before s */
};

static inline uint32_t text_view_origin(const struct text_view *v, size_t i)
{
    return v->map ? v->map[i] : v->base + (uint32_t)i;
}

/* The part [from, to) of v. */
static inline struct text_view text_view_cut(const struct text_view *v, size_t from, size_t to)
{
    return (struct text_view){ .s = v->s + from,
                               .n = to - from,
                               .map = v->map ? v->map + from : NULL,
                               .base = v->base + (uint32_t)from,
                               .at_start = v->at_start && from == 0 };
}

/* Append `id`, which stands for [from, to) of v.  A token of bytes that were put there by a stage
 * gets the character they were put before. */
void text_view_add_token(const struct text_view *v, size_t from, size_t to, int32_t id,
                         struct token_list *out, bool with_span);

struct text_rewrite {
    struct buf bytes;
    uint32_t *map; /* [cap] */
    size_t cap;
    bool tracks; /* keep the map */
};

void text_rewrite_fini(struct text_rewrite *w);
void text_rewrite_reset(struct text_rewrite *w, bool tracks);

/* Append the part [from, to) of v as it is. */
void text_rewrite_copy(struct text_rewrite *w, const struct text_view *v, size_t from, size_t to);

/* Append bytes that stand for what begins at `origin` of the input. */
void text_rewrite_put(struct text_rewrite *w, const char *bytes, size_t n, uint32_t origin);

/* What was built; `was` is the text it was built from.  Borrowed until w changes. */
struct text_view text_rewrite_view(struct text_rewrite *w, const struct text_view *was);

#endif
