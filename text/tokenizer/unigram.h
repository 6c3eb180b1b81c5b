/* unigram.h - the most probable way to cut a text into pieces, each with its log probability.
 *
 * Kudo 2018, arXiv:1804.10959: Viterbi over the lattice of all pieces that occur in the text. */
#ifndef LLMD_TEXT_UNIGRAM_H
#define LLMD_TEXT_UNIGRAM_H

#include "text/tokenizer/text_view.h"
#include "text/tokenizer/trie.h"
#include "text/tokenizer/unknown.h"
#include "text/tokenizer/vocab.h"

struct unigram {
    const struct vocab *vocab; /* borrowed; the scores are there */
    struct trie pieces;        /* that may be produced, by spelling */
    struct unknown unknown;
    float min_score, max_score; /* of normal pieces */
};

struct unigram_scratch {
    struct unigram_step *steps;
    size_t steps_cap;
};

/* From the pieces in u->vocab; u->unknown is set by the caller. */
void unigram_init(struct unigram *u, const struct vocab *vocab);
void unigram_fini(struct unigram *u); /* a zeroed struct is fine */
void unigram_scratch_fini(struct unigram_scratch *s);

/* Append the tokens of one word. */
void unigram_encode(const struct unigram *u, struct unigram_scratch *scratch,
                    const struct text_view *word, struct token_list *out, bool with_spans);

#endif
