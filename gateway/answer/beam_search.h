/* beam_search.h - the n likeliest continuations of a prompt: which beams live, which are complete.
 *
 *   beam_search_live(b, 0..n_live-1) --model--> beam_search_extend(b, i, its likeliest next tokens)
 *        ^                                                            |
 *        +---------------- beam_search_step(): keep the best ---------+----> done: beam_search_best()
 *
 * Pure: what is kept is a function of the log probabilities and of nothing else, so a search that is
 * begun again finds the same.  The rules are those of vLLM's server: each live beam offers its 2 * width
 * likeliest next tokens; one that ends the text completes a beam, of the others the width best live on; a
 * beam's score is the sum of its log probabilities over its length, prompt included and the end not, to
 * the power of length_penalty; of equals the first counts.
 *
 * vLLM goes on to max_tokens and then takes the best.  Here the search is over as soon as nothing that
 * lives can come before what is complete: log probabilities are never positive, so a beam's score at the
 * length where it would be best bounds all that may become of it.  The result is the same. */
#ifndef LLMD_GATEWAY_ANSWER_BEAM_SEARCH_H
#define LLMD_GATEWAY_ANSWER_BEAM_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"
#include "gateway/answer/sequence.h"

/* A token behind those of its parent. */
struct beam {
    const struct beam *parent; /* NULL: of the prompt alone, which has no token */
    uint32_t n;                /* tokens from the prompt's end to here, this one included */
    int32_t token;
    bool is_end; /* the text is complete */
    uint32_t rank;
    float logprob;
    double sum, score;           /* of log probabilities to here; the beam's, if it ended here */
    const struct token_top *top; /* [n_top] what else could have come in its place */
    uint32_t n_top;
};

struct beam_search_setup {
    uint32_t width; /* 1.. */
    uint32_t n_prompt;
    uint32_t max_tokens, min_tokens;
    double length_penalty;
    bool
        stops_early; /* done when so many as are wanted are complete, even if what lives may be better */
    uint32_t n_top; /* entries of beam.top that are kept; 0 = none are wanted */
    /* A token that completes a text. */
    bool (*is_end)(int32_t token, const void *ctx);
    const void *ctx;
};

struct beam_search {
    struct beam_search_setup setup;
    struct arena *arena; /* borrowed; beams are in it */
    const struct beam **live;
    uint32_t n_live;
    const struct beam **complete; /* best first, no more than width */
    uint32_t n_complete;
    struct beam *next; /* [width] the best of this step so far */
    uint32_t n_next;
    uint32_t n_steps;
    bool is_done;
};

static inline uint32_t beam_search_n_top(uint32_t width)
{
    return 2 * width;
}

void beam_search_init(struct beam_search *b, struct arena *arena,
                      const struct beam_search_setup *setup);
/* Live beam i, in order from 0, may go on with these, best first. */
void beam_search_extend(struct beam_search *b, uint32_t i, const struct token_top *top,
                        uint32_t n_top);
/* All live beams were extended. */
void beam_search_step(struct beam_search *b);

/* The k-th best, k < width; NULL when there are not so many.  Also before it is done. */
const struct beam *beam_search_best(const struct beam_search *b, uint32_t k);
/* Its tokens, first to last, to out[beam->n]. */
void beam_tokens(const struct beam *beam, int32_t *out);

#endif
