/* step.h - one step: the batch for the runtime, the samplers, and the memory both need.
 *
 * All memory is taken at start-up.  Sampling runs on the runtime's compute threads, each job with
 * a sampler of its own; results are written to the ledger by the caller's thread alone. */
#ifndef LLMD_GPU_WORKER_STEP_H
#define LLMD_GPU_WORKER_STEP_H

#include "gpu-worker/runtime.h"
#include "gpu-worker/scheduler.h"

/* One row whose logits are wanted. */
struct step_draw {
    struct sequence *sequence;
    uint32_t n_rows;   /* of the sequence in this step, up to this one or from the draw before it */
    uint32_t n_drafts; /* draws behind this one, each of which holds only if this gives the draft */
    struct sampler_input in;
    struct sampler_output out;
    enum sampler_result result;
};

struct step {
    struct runtime *runtime; /* borrowed */
    const struct model_info *info;
    uint32_t seqs_max, rows_max, draws_max, top_max;
    struct batch_seq *seqs;  /* [seqs_max] */
    int32_t *tokens;         /* [rows_max] */
    uint32_t *logit_rows;    /* [draws_max] */
    float *logits;           /* [draws_max, vocab_size] */
    struct ledger_top *tops; /* [draws_max, top_max] */
    struct step_draw *draws; /* [draws_max] */
    uint32_t n_draws;
    struct sampler **samplers; /* [n_samplers] */
    uint32_t n_samplers;
    _Atomic uint32_t next_draw;
};

struct step_limits {
    uint32_t seqs_max, rows_max, top_max;
    uint32_t n_threads; /* compute threads that may sample at once */
};

void step_init(struct step *s, struct runtime *rt, const struct step_limits *limits);
void step_fini(struct step *s);

/* Run the plan through the model; then .logits has a row for each of .draws. */
bool step_forward(struct step *s, const struct plan *plan, struct err *e);

/* Sample every draw. */
void step_sample(struct step *s);

#endif
