/* vocab.h - the tokens of a model by id, and their ids by spelling.
 *
 * Filled while a tokenizer is opened, constant afterwards.  Strings live as long as the vocab. */
#ifndef LLMD_TEXT_VOCAB_H
#define LLMD_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/err.h"
#include "text/tokenizer/strmap.h"

/* An id past this is a broken file, and would make us allocate for it. */
enum { VOCAB_IDS_MAX = 1 << 23, PIECE_BYTES_MAX = 1 << 16 };

enum vocab_flags {
    VOCAB_SPECIAL = 1 << 0,      /* control token; never the reading of plain text */
    VOCAB_ADDED = 1 << 1,        /* found in the text by its spelling, before the model sees it */
    VOCAB_BYTE = 1 << 2,         /* "<0x0A>": stands for one byte */
    VOCAB_USER_DEFINED = 1 << 3, /* SentencePiece: always a token of its own */
    VOCAB_UNUSED = 1 << 4,       /* SentencePiece: never produced */
};

struct vocab_token {
    const char *piece; /* spelling, n_piece bytes and a NUL; NULL: the id stands for nothing */
    const char *bytes; /* what it adds to a text, n_bytes and a NUL */
    uint32_t n_piece, n_bytes;
    unsigned flags;
    float score; /* SentencePiece only */
};

struct vocab {
    struct vocab_token *tokens; /* [n] by id */
    size_t n, cap;
    struct strmap by_piece;
    struct arena strings;
    char *pool; /* the strings of the model's own list, in one piece */
};

void vocab_init(struct vocab *v, size_t tokens_expected);
void vocab_fini(struct vocab *v);

/* Token `id` is spelled piece[0..n), which is borrowed.  ERR_MODEL when the id is out of range or
 * taken, or the spelling is taken. */
bool vocab_put(struct vocab *v, int64_t id, const char *piece, size_t n, struct err *e);

/* The id of a spelling, or -1. */
static inline int32_t vocab_find(const struct vocab *v, const char *piece, size_t n)
{
    return strmap_find(&v->by_piece, piece, n);
}

static inline bool vocab_has(const struct vocab *v, int32_t id)
{
    return id >= 0 && (size_t)id < v->n && v->tokens[id].piece;
}

/* The byte that a piece such as "<0x0A>" stands for, or -1. */
int vocab_byte_of(const char *piece, size_t n);

/* For each byte the id of its token "<0xHH>" in byte_ids, -1 where it has none.  True when none is
 * missing. */
bool vocab_byte_tokens(const struct vocab *v, int32_t byte_ids[256]);

#endif
