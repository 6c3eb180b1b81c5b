/* attention_units.h - the query rows of a step, cut into units of work: up to ATTENTION_ROWS rows against one KV head.
 *
 * A unit's rows may be of several sequences, where these begin with the same page.  Over spans that all of them see and
 * whose pages are the same - a shared system prompt, the choices of a request - they go through the kernel together, so
 * K and V are read once for all (Hydragen, Juravsky et al. 2024, arXiv:2402.05099); elsewhere sequence by sequence.  No row's
 * bits depend on which go with it. */
#ifndef LLMD_GPU_WORKER_OPS_ATTENTION_UNITS_H
#define LLMD_GPU_WORKER_OPS_ATTENTION_UNITS_H

#include "gpu-worker/batch.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/ops.h"

/* A sequence of the batch. */
struct attention_place {
    uint32_t page, seq; /* its first page; its number in the batch */
    uint32_t first_row; /* rows (of a KV head) of the group before it */
};

/* Sequences that begin with the same page. */
struct attention_group {
    uint32_t first_place, first_block;
    uint32_t n_rows; /* of a KV head */
};

/* All of a step; kept from one to the next for its memory. */
struct attention_order {
    struct attention_place *places; /* [n_seqs] group by group */
    struct attention_group *groups; /* [n_groups + 1], the last one ends the others */
    uint32_t n_groups;
    uint32_t group; /* query heads that share a KV head */
};

/* For steps of up to seqs_max sequences; fini frees. */
void attention_order_init(struct attention_order *o, const struct ops_setup *setup,
                          uint32_t seqs_max);
void attention_order_fini(struct attention_order *o);
void attention_order_begin(struct attention_order *o, const struct batch *batch);

struct attention_unit {
    uint32_t head; /* of K and V */
    uint32_t n_rows;
    uint32_t begin, end; /* positions: all that a row sees */
    struct attention_row rows[ATTENTION_ROWS];
    uint32_t batch_rows[ATTENTION_ROWS];
    uint32_t heads[ATTENTION_ROWS]; /* of queries */
};

/* Units of a step: index / n_kv_heads is the block, counted through the groups; a group's heads come in turn, each with all of
 * its blocks, which find their K and V in the cache. */
static inline uint32_t attention_units(const struct attention_order *o, uint32_t n_kv_heads)
{
    return o->groups[o->n_groups].first_block * n_kv_heads;
}

/* qkv: rows of the batch, each [n_heads + 2 n_kv_heads][head_dim]. */
void attention_unit_at(struct attention_unit *u, const struct attention_order *o,
                       const struct batch *batch, const struct ops_setup *setup, const float *qkv,
                       uint32_t window, uint32_t index);

#endif
