/* step_pace.h - how many rows of prompts a step may carry beside running streams.
 *
 * A long prompt is read in chunks, and a step is as long for the streams in it as for the prompt: their next token
 * waits for the whole step.  So a chunk may make a step only so much longer than the same streams alone
 * (setting prefill_step_percent).
 *
 *   alone   what a step of n streams without a prompt takes when nothing interrupts it, for each n
 *   speed   rows in a time, those of streams included, by the last few steps with both
 *   target  alone * (1 + stretch), the stretch being what the percentage adds
 *   rows    speed * target - streams
 *
 * A step takes no more than in proportion to its rows, because the weights are read once for all of them.  So the
 * next step keeps to its time whether rows are free (the weights are being read all the same) or not, and the
 * rows grow by no more than the percentage at a time.  A dearer row (attention over what is read already) is
 * answered in the next step, a much dearer one (a machine that became slower) when a second step says the same: the
 * first may have been interrupted.
 *
 * Streams grow dearer too while a prompt is read, others take their place, and the machine itself changes.  So now
 * and then a step carries no prompt: it costs the prompt little, the streams nothing, and tells what they take alone.
 * The next one comes soon when it told something new, when what the streams look back on has changed, or when steps
 * take longer than they should.
 *
 * Who waits for a first token waits as well: where more prompts are read than streams run, the stretch grows as the
 * square of the one number over the other.  (Of 31 requests that come at once eight may be in the first step; in
 * crumbs behind these the others took a fifth more of the processors, since a step reads all weights, and the last
 * one had its first token later than with steps that are soon over.)
 *
 * Chunked prefill with a budget that bounds the time between tokens: Agrawal et al. 2023,
 * arXiv:2308.16369.  Pure: it reads no clock. */
#ifndef LLMD_GPU_WORKER_STEP_PACE_H
#define LLMD_GPU_WORKER_STEP_PACE_H

#include <stdint.h>

enum {
    STEP_PACE_LOOK_SOON = 4,   /* steps with prompts between two without, at least */
    STEP_PACE_LOOK_LATE = 8,   /* when steps are too long: perhaps rows are that dear */
    STEP_PACE_LOOK_STEPS = 32, /* at most */
    STEP_PACE_SPEEDS = 3
};

struct step_pace {
    uint32_t n_streams_max;
    double *alone_ns; /* [n_streams_max + 1] when nothing interrupts; 0 = never seen */
    double *mean_ns;  /* [n_streams_max + 1] interrupted or not, as the steps with drafts are */
    double speeds[STEP_PACE_SPEEDS]; /* rows in a nanosecond, the newest first; 0 = never seen */
    double draft_ns;                 /* added by a draft row (speculation.h), a moving average */
    uint32_t n_given;                /* by the last step_pace_rows() */
    double target_ns;                /* of that */
    uint32_t look_after;             /* so many steps with prompts */
    uint32_t n_too_long;             /* of the last steps with prompts */
    uint32_t n_since_look;           /* steps with prompts since one without, */
    uint64_t looked_back;            /* load.n_back of that, */
    uint64_t looks_back;             /* and of the last step_pace_rows() */
};

/* Who waits for the next step. */
struct step_pace_load {
    uint32_t n_streams; /* for their next token */
    uint32_t n_prompts; /* for the first one */
    uint64_t n_back;    /* tokens that all streams together look back on */
};

void step_pace_init(struct step_pace *p, uint32_t n_streams_max);
void step_pace_fini(struct step_pace *p);

/* Rows of prompts for a step that may take `percent` of one of its streams alone, > 100: at least 1, for a prompt
 * gets on however dear its rows are; 0 in a step that is to show what the streams take; UINT32_MAX when there
 * are none. */
uint32_t step_pace_rows(struct step_pace *p, const struct step_pace_load *load, uint64_t percent);

/* A step of n_streams streams and n_rows rows of prompts took so long. */
void step_pace_learn(struct step_pace *p, uint32_t n_streams, uint32_t n_rows, uint64_t took_ns);

/* A step of n_streams streams and n_drafts > 0 drafts took so long. */
void step_pace_learn_drafts(struct step_pace *p, uint32_t n_streams, uint32_t n_drafts,
                            uint64_t took_ns);

/* How many drafts of a hundred must come true to pay for all, as a fraction: what one adds to a step, over
 * what a token of a stream costs in it. */
double step_pace_draft_price(const struct step_pace *p, uint32_t n_streams);

#endif
