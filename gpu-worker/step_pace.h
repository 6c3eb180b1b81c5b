/* step_pace.h - how many rows of prompts a step may carry beside running streams.
 *
 * A long prompt is read in chunks, and a step is as long for the streams in it as for the prompt: their next token
 * waits for the whole step.  So a chunk may make a step only so much longer than the same streams alone
 * (setting prefill_step_percent).
 *
 *   alone   what a step of n streams without a prompt takes, a moving average for each n
 *   rate    rows of the last step with both, as many as it would have had in that time in proportion
 *   rows    rate * percent - streams
 *
 * A step takes no more than in proportion to its rows, because the weights are read once for all of them.  So the
 * next step keeps to its time whether rows are free (the weights are being read all the same) or not, and the
 * rows grow by no more than the percentage at a time.  A dearer row (attention over what is read already, a
 * machine that became slower) is answered in the next step.
 *
 * Chunked prefill with a budget that bounds the time between tokens: Agrawal et al. 2023,
 * arXiv:2308.16369.  Pure: it reads no clock. */
#ifndef LLMD_GPU_WORKER_STEP_PACE_H
#define LLMD_GPU_WORKER_STEP_PACE_H

#include <stdint.h>

enum { STEP_PACE_ROWS_MIN = 4 }; /* a prompt gets on, however dear its rows are */

struct step_pace {
    uint32_t n_streams_max;
    double *alone_ns; /* [n_streams_max + 1] 0 = never seen */
    double rate;      /* rows, those of streams included; 0 = never seen */
    double draft_ns;  /* added by a draft row (speculation.h), a moving average */
    uint32_t n_given; /* by the last step_pace_rows() */
};

void step_pace_init(struct step_pace *p, uint32_t n_streams_max);
void step_pace_fini(struct step_pace *p);

/* Rows of prompts for a step with n_streams streams that may take `percent` of one without; at
 * least STEP_PACE_ROWS_MIN, UINT32_MAX when there are no streams. */
uint32_t step_pace_rows(struct step_pace *p, uint32_t n_streams, uint64_t percent);

/* A step of n_streams streams and n_rows rows of prompts took so long. */
void step_pace_learn(struct step_pace *p, uint32_t n_streams, uint32_t n_rows, uint64_t took_ns);

/* A step of n_streams streams and n_drafts > 0 drafts took so long. */
void step_pace_learn_drafts(struct step_pace *p, uint32_t n_streams, uint32_t n_drafts,
                            uint64_t took_ns);

/* How many drafts of a hundred must come true to pay for all, as a fraction: what one adds to a step, over
 * what a token of a stream costs in it. */
double step_pace_draft_price(const struct step_pace *p, uint32_t n_streams);

#endif
