/* speculation.h - tokens that a sequence may be about to repeat, computed ahead and kept when they are drawn.
 *
 * Text repeats itself: names, quotations, code, a question inside its answer.  When the last tokens of a
 * sequence stand earlier in it, what followed there is proposed (prompt look-up; Saxena 2023,
 * github.com/apoorvumang/prompt-lookup-decoding).  The proposed tokens are rows of the step beside the one that
 * is due, each row's token is drawn as ever, and a proposal counts as long as the draw gives that very token
 * (Leviathan et al. 2023, arXiv:2211.17192, for a draft that is right or wrong, which is what this one is):
 * so the tokens are those of a run without, bit for bit, and the KV of a row that was wrong is never committed.
 *
 * An extra row has a price: the part of a token's time that it adds to the step (step_pace.h).  A sequence whose
 * proposals come true less often than that rests, and tries again after a while. */
#ifndef LLMD_GPU_WORKER_SPECULATION_H
#define LLMD_GPU_WORKER_SPECULATION_H

#include <stdint.h>

enum { SPECULATION_MAX = 7, SPECULATION_REST = 64 /* tokens */ };

/* Of a sequence; zeroed is new. */
struct speculation {
    double misses;       /* of proposed tokens, a moving average: 0..1 */
    uint32_t rest_until; /* generated tokens before which nothing is proposed */
};

/* Write what may follow tokens[0..n-1] behind them; how many, at most max. */
uint32_t speculation_propose(int32_t *tokens, uint32_t n, uint32_t max);

/* How many are worth proposing to a sequence that has made n_generated tokens. */
uint32_t speculation_wants(const struct speculation *s, uint32_t n_generated);

/* n_true of n_proposed > 0 were drawn; price 0..1: as many must be for it to pay. */
void speculation_learn(struct speculation *s, uint32_t n_proposed, uint32_t n_true, double price,
                       uint32_t n_generated);

#endif
