/* bpe.h - byte-pair encoding: from the smallest symbols up, the best merge first.
 *
 * Sennrich et al. 2016, arXiv:1508.07909.  Three families, one algorithm:
 *   byte level   symbols are bytes, merges are a ranked list of pairs      (GPT-2, Llama 3, Qwen)
 *   characters   symbols are characters, the same list                     (Llama 2, Gemma)
 *   by score     symbols are characters; two neighbours merge when together they spell a piece, the
 *                one with the highest score first                          (SentencePiece BPE)
 * Of two equal merges the left one goes first. */
#ifndef LLMD_TEXT_BPE_H
#define LLMD_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer/text_view.h"
#include "text/tokenizer/trie.h"
#include "text/tokenizer/unknown.h"
#include "text/tokenizer/vocab.h"

enum { BPE_NO_MERGE = UINT32_MAX };

struct bpe_merge {
    int32_t left, right; /* left < 0: free slot */
    uint32_t rank;       /* lower goes first */
    int32_t id;          /* what the two become */
};

struct bpe {
    const struct vocab *vocab; /* borrowed */
    bool byte_level;
    bool ignore_merges; /* a whole word that is a token is that token, whatever the merges say */
    struct unknown unknown;
    int32_t symbols[256]; /* byte level: the token of each byte.  Else: of each ASCII character */
    struct strmap words;  /* byte level with ignore_merges: bytes of a token to its id */

    struct bpe_merge *merges; /* [merges_mask + 1], open addressing; NULL when by score */
    size_t merges_mask;

    uint32_t *ranks; /* [n_ranks], by score: of a piece; BPE_NO_MERGE: never made by merging */
    size_t n_ranks;
    size_t piece_bytes_max;    /* by score */
    bool splits_at_marks;      /* see bpe_find_boundaries() */
    const struct trie *frozen; /* borrowed; by score: pieces that take no part in merging */
};

struct bpe_scratch {
    struct bpe_symbol *symbols;
    size_t symbols_cap;
    struct bpe_candidate *heap;
    size_t heap_n, heap_cap;
};

/* A table for n_merges merges. */
void bpe_merges_init(struct bpe *b, size_t n_merges);
/* Later merges have higher ranks; of two for one pair the later stays. */
void bpe_merges_add(struct bpe *b, struct bpe_merge merge);

/* By score: derive the ranks from the scores of the vocabulary. */
void bpe_rank_by_score(struct bpe *b);

/* Once all special tokens are known: no merge makes one, so none can be spelled letter by letter. */
void bpe_forget_specials(struct bpe *b);

/* Once all else is set: find out whether no merge ever joins a U+2581 to what stands before it.  Then a
 * text is merged word by word, which gives the same tokens and is several times faster for
 * the vocabularies that come without a pre-tokenizer. */
void bpe_find_boundaries(struct bpe *b);

void bpe_fini(struct bpe *b); /* a zeroed struct is fine */
void bpe_scratch_fini(struct bpe_scratch *s);

/* Append the tokens of one word.  Takes O(n log n). */
void bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const struct text_view *word,
                struct token_list *out, bool with_spans);

#endif
