/* submit_check.h - whether a SUBMIT may enter the ledger: every field, before anything is written.
 *
 * Behind this door the fields are trusted: ids are in the vocabulary, numbers are finite and in range,
 * lengths fit the context, the pool and the ledger entry. */
#ifndef LLMD_GPU_WORKER_SUBMIT_CHECK_H
#define LLMD_GPU_WORKER_SUBMIT_CHECK_H

#include <stdbool.h>

#include "common/err.h"
#include "proto/llmd.pb-c.h"

struct submit_limits {
    uint32_t vocab_size;
    uint32_t context_max; /* tokens of one sequence */
    uint32_t top_max;
    uint32_t request_bytes_max;
    uint32_t embedding_max; /* floats that can be kept */
    uint32_t hidden_size;   /* floats of an embedding */
};

/* False: *reason and *e (ERR_INPUT) say why. */
bool submit_check(const Llmd__Submit *submit, const struct submit_limits *limits,
                  Llmd__RefuseReason *reason, struct err *e);

#endif
