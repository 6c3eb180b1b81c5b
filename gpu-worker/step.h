/* step.h - one step: the batch for the runtime, the samplers, and the memory both need.
 *
 * All memory is taken at start-up.  What the runtime has not drawn where it has the logits is sampled on its compute
 * threads, each job with a sampler of its own; results are written to the ledger by the caller's thread alone. */
#ifndef LLMD_GPU_WORKER_STEP_H
#define LLMD_GPU_WORKER_STEP_H

#include "gpu-worker/runtime.h"
#include "gpu-worker/sampler.h"
#include "gpu-worker/scheduler.h"

enum { STEP_HIDDEN_ROWS = 32 }; /* read from the runtime at once */

/* One row whose logits are wanted for a draw. */
struct step_draw {
    struct sequence *sequence;
    uint32_t n_rows;   /* of the sequence in this step, up to this one or from the draw before it */
    uint32_t n_drafts; /* draws behind this one, each of which holds only if this gives the draft */
    struct sampler_row *row;
};

/* One token of a prompt to be measured; out.token is that token. */
struct step_measure {
    struct sequence *sequence;
    const float *logits; /* [vocab_size] */
    struct sampler_output out;
    enum sampler_result result;
};

struct step {
    struct runtime *runtime; /* borrowed */
    const struct model_info *info;
    uint32_t seqs_max, rows_max, logits_max, top_max;
    struct batch_seq *seqs;  /* [seqs_max] */
    int32_t *tokens;         /* [rows_max] */
    uint32_t *logit_rows;    /* [logits_max] */
    float *logits;           /* [logits_max, vocab_size] */
    struct ledger_top *tops; /* [logits_max, top_max] */
    uint32_t n_logits;
    struct step_draw *draws;  /* [logits_max] */
    struct sampler_row *rows; /* [logits_max] theirs */
    uint32_t n_draws;
    struct step_measure *measures; /* [BATCH_EXTRA_LOGITS] those of a sequence in order */
    uint32_t n_measures;
    struct sampler **samplers; /* [n_samplers] */
    uint32_t n_samplers;
    _Atomic uint32_t next_job;
    float *hidden;    /* [STEP_HIDDEN_ROWS, hidden_size] */
    double *sums;     /* [sequences_max, hidden_size] of the rows of pooled prompts, so far */
    float *embedding; /* [hidden_size] */
};

struct step_limits {
    uint32_t seqs_max, rows_max, top_max;
    uint32_t n_threads;     /* compute threads that may sample at once */
    uint32_t sequences_max; /* ledger entries */
};

void step_init(struct step *s, struct runtime *rt, const struct step_limits *limits);
void step_fini(struct step *s);

/* Run the plan through the model; then .logits has a row for each of .measures, and of .draws that are not drawn. */
bool step_forward(struct step *s, const struct plan *plan, struct err *e);

/* Sample every draw that is left, and measure. */
void step_sample(struct step *s);

/* Add the rows of item i of the plan that was just run to what its sequence, a pooled one, has of them.
 * *embedding, with its last row: [hidden_size], borrowed until the next call; else NULL.  A mean is summed in double
 * precision by position, so it is the same bits however the prompt was chunked.  ERR_DEVICE. */
bool step_pool(struct step *s, const struct plan *plan, uint32_t i, const float **embedding,
               struct err *e);

#endif
