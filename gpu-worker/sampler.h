/* sampler.h - from the logits of one row to one token.
 *
 * Order of the steps, as the reference servers have it (vLLM v1 sampler; TGI's logits processors and
 * warpers):
 *
 *   logit_bias, watermark -> repetition, frequency, presence penalty -> mask (EOS and stop tokens before
 *   min_tokens; all but the allowed tokens; the ends of bad words; all but the next token of a closing mark, where a
 *   thought has used up its budget: thinking.h) -> greedy: done; else temperature -> top-k -> top-p -> min-p ->
 *   typical-p -> draw
 *
 * A bad word's last token is masked where the others are the last generated ones (as vLLM; the prompt does not
 * count).
 *
 * A filter keeps the best tokens by weight, ties by lower id, and never the empty set.  The draw walks the
 * tokens left in order of id, so no sort is ever needed, only the place of the cut.
 *
 * Always true: the result is a function of the input alone.  Sums have one fixed order, exp() is our
 * own polynomial, and the random number is philox_uniform(seed, position): the same bits in any batch, on
 * any thread, before and after a crash. */
#ifndef LLMD_GPU_WORKER_SAMPLER_H
#define LLMD_GPU_WORKER_SAMPLER_H

#include <stdbool.h>

#include "proto/ledger_layout.h"
#include "proto/llmd.pb-c.h"

/* A temperature below this is greedy, as in vLLM. */
#define SAMPLER_TEMPERATURE_MIN 1e-5f

enum sampler_result {
    SAMPLER_OK,
    SAMPLER_NOT_FINITE, /* a logit is NaN or infinite */
    SAMPLER_NONE_LEFT,  /* every token is masked */
};

struct sampler_ids {
    const int32_t *ids;
    size_t n;
};

struct sampler_input {
    const float *logits;            /* [vocab_size], borrowed, not changed */
    const Llmd__Sampling *sampling; /* checked by submit_check() */
    const int32_t *tokens;          /* prompt, then generated */
    uint32_t n_prompt, n_generated; /* the draw's position is n_generated */
    struct sampler_ids masked[2];   /* ids that may not be chosen: EOS, stop tokens */
};

struct sampler_output {
    int32_t token;
    float logprob;          /* these three only with want_logprobs, or of a token measured */
    uint32_t rank;          /* 1 = the likeliest */
    struct ledger_top *top; /* caller's, [sampling->top_logprobs], best first, or those of
                               sampling->logprob_tokens; token -1 = no more */
};

/* A draw of a step, and what becomes of it.  Where the logits are computed it may be drawn at once
 * (runtime_forward()), so that they need not come to the host. */
struct sampler_row {
    uint32_t logits_row; /* of the step's logits */
    bool is_drawn;       /* what follows .in is there */
    struct sampler_input in;
    enum sampler_result result;
    struct sampler_output out;
};

/* Those of a step, .logits_row ascending. */
struct sampler_rows {
    struct sampler_row *list;
    uint32_t n;
};

/* Scratch memory of one thread. */
struct sampler;

struct sampler *sampler_new(uint32_t vocab_size);
void sampler_free(struct sampler *s); /* NULL is fine */

enum sampler_result sampler_draw(struct sampler *s, const struct sampler_input *in,
                                 struct sampler_output *out);

/* Measure a token that is there already, of the prompt: out->token is given, its log probability (that of
 * LOGPROBS_RAW), rank and n_top alternatives are found.  logits: [vocab_size], of the row before it.  Never
 * SAMPLER_NONE_LEFT. */
enum sampler_result sampler_measure(struct sampler *s, const float *logits, uint32_t n_top,
                                    struct sampler_output *out);

#endif
