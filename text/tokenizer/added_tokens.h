/* added_tokens.h - tokens found in the text by their spelling, before the model sees it.
 *
 * Special tokens, and others that a model's owner added.  Of two that begin at one place the longer
 * wins.  Most are looked for in the text as it came; those marked "normalized" in the normalized text,
 * by their normalized spelling. */
#ifndef LLMD_TEXT_ADDED_TOKENS_H
#define LLMD_TEXT_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/trie.h"

struct added_token {
    const char *content; /* n bytes, borrowed from the vocabulary */
    size_t n;
    int32_t id;
    bool special;
    bool normalized;
    bool single_word;    /* only where no letter or digit touches it */
    bool lstrip, rstrip; /* takes the white space before, after it too */
};

struct added_tokens {
    struct added_token *list; /* [n] */
    size_t n, cap;
    struct trie raw, normalized; /* values are indices of list */
};

/* The flags as hub files spell them; the rest of *token is zero. */
bool added_token_load_flags(struct added_token *token, const json_t *json, struct err *e);

void added_tokens_add(struct added_tokens *a, struct added_token token);

/* Set whether the token of that id, which has been added, takes the white space around it. */
void added_tokens_set_strips(struct added_tokens *a, int32_t id, bool lstrip, bool rstrip);

/* After the last add, and with the normalizer loaded. */
bool added_tokens_index(struct added_tokens *a, const struct normalizer *nz, struct err *e);
void added_tokens_fini(struct added_tokens *a);

struct added_match {
    size_t from, to;
    int32_t id;
};

/* The first match in v->s[at..n) of one of the two tries; what stands before `at` belongs to the match
 * before.  Special tokens are passed over, as text, unless parse_special. */
bool added_tokens_next(const struct added_tokens *a, const struct trie *trie, bool parse_special,
                       const struct text_view *v, size_t at, struct added_match *match);

#endif
