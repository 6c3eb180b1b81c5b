/* batch.h - what one step computes: the plan that rank 0 makes and every rank runs.
 *
 * A row is one token to be run through the model.  Rows of one sequence are neighbours and have
 * ascending positions: a decode step has one row per sequence, a prefill chunk has many.  KV of position
 * p goes to slot p % page_tokens of the sequence's page p / page_tokens; attention of a row sees
 * positions 0..its own (less what a sliding window hides). */
#ifndef LLMD_GPU_WORKER_BATCH_H
#define LLMD_GPU_WORKER_BATCH_H

#include <stdbool.h>
#include <stdint.h>

struct batch_seq {
    uint32_t first_row, n_rows;
    uint32_t start;        /* position of first_row */
    uint32_t n_pages;      /* enough for start + n_rows tokens */
    const uint32_t *pages; /* page table, kvpool indexes, in order */
};

enum {
    BATCH_EXTRA_LOGITS = 32
}; /* rows of one sequence beyond its first that want logits, in all */

static inline uint64_t batch_logits_max(uint64_t seqs_max)
{
    return seqs_max + BATCH_EXTRA_LOGITS;
}

struct batch {
    uint32_t n_rows;       /* 1..max_num_batched_tokens */
    const int32_t *tokens; /* [n_rows] */
    uint32_t n_seqs;       /* 1..max_num_seqs */
    const struct batch_seq *seqs;
    uint32_t n_logits; /* rows whose logits are wanted, at most n_seqs + BATCH_EXTRA_LOGITS */
    const uint32_t *logit_rows; /* [n_logits] ascending */
    bool wants_hidden; /* rank 0: last hidden states are wanted too, so all rows go to the end */
};

#endif
