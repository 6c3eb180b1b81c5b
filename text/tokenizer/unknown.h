/* unknown.h - what becomes of a character that the vocabulary does not have.
 *
 * Its bytes, one token each, where the vocabulary has a token for each of them (byte fallback); else the
 * unknown token, one for a whole run of such characters when `fuse` is set. */
#ifndef LLMD_TEXT_UNKNOWN_H
#define LLMD_TEXT_UNKNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer/text_view.h"

struct unknown {
    bool byte_fallback;
    bool fuse;
    int32_t unk_id;        /* -1: none, and such characters leave no trace */
    int32_t byte_ids[256]; /* with byte_fallback; -1: no token for this byte */
};

/* Has every byte of s[0..n) a token? */
bool unknown_has_bytes(const struct unknown *u, const char *s, size_t n);

/* Append what [from, to) of v becomes.  For a run of unknown characters, call it once with the run
 * when u->fuse, else for each. */
void unknown_add(const struct unknown *u, const struct text_view *v, size_t from, size_t to,
                 struct token_list *out, bool with_span);

#endif
