/* engine.h - a worker's compute half in a child of gpu-verify: one rank, its segments, and runtime.h, as llmd would have
 * laid them out.  Above runtime.h (scheduler, sampler, ledger) there is nothing.
 *
 * Pages of KV are lent out by number, and nobody has written to them: what attention reads there is zero, which takes as
 * long as any other number.  Each function ends the child with a reason when it cannot. */
#ifndef LLMD_CUDA_VERIFY_ENGINE_H
#define LLMD_CUDA_VERIFY_ENGINE_H

#include "gpu-worker/chunk_road.h"
#include "gpu-worker/runtime.h"

struct engine {
    int sock; /* of the child */
    struct config config;
    struct model_info info;
    Llmd__ModelPlan plan;
    struct segment weights, group;
    struct kvpool pool;
    struct chunk_road road; /* there is no llmd behind it */
    struct runtime *runtime;
    uint32_t *pages; /* 0, 1, 2, ... */
    int32_t *tokens; /* [max_num_batched_tokens] of the next step; something to begin with */
    float *logits;   /* [max_num_seqs, vocab_size] */
};

struct engine_setup {
    const char *model;
    const char *device; /* "cuda", "cpu" */
    bool deterministic;
    uint32_t rows_max, seqs_max;
};

void engine_open(struct engine *g, int sock, const struct engine_setup *how);
void engine_close(struct engine *g);

/* Whether n sequences of that many tokens fit the pages. */
bool engine_fits(const struct engine *g, uint32_t n_seqs, uint32_t n_tokens);

/* One step of n_seqs sequences with `n_rows` new tokens each behind `start` of them, the logits of each one's last
 * included; there is room for n_tokens of each.  Seconds. */
double engine_step(struct engine *g, uint32_t n_seqs, uint32_t n_rows, uint32_t start,
                   uint32_t n_tokens);

/* One row of one sequence behind `start` others, and the likeliest token, drawn where the logits are; -1: nothing is drawn
 * there, or it could not be. */
int32_t engine_draw(struct engine *g, uint32_t start, uint32_t n_tokens);

/* What an idle worker does: graphs of the steps that have come often enough are recorded. */
void engine_rest(struct engine *g);

/* Logits of the last step's n_seqs sequences that are no finite numbers. */
uint32_t engine_wrong_logits(const struct engine *g, uint32_t n_seqs);

#endif
