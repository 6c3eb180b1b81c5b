/* sequence_table.h - every sequence of the group: one struct per ledger entry, found by id.
 *
 * Fixed size, made at start-up.  Struct i belongs to ledger entry i for ever. */
#ifndef LLMD_GPU_WORKER_SEQUENCE_TABLE_H
#define LLMD_GPU_WORKER_SEQUENCE_TABLE_H

#include "gpu-worker/sequence.h"

struct sequence_table {
    uint32_t cap; /* = ledger entries */
    uint32_t n_used;
    struct sequence *sequences; /* [cap] */
    uint32_t *free_list;        /* [cap - n_used] indexes of free ones, last one next */
    uint32_t *buckets;          /* [n_buckets] head of a chain by next_hash, or UINT32_MAX */
    uint32_t n_buckets;         /* power of two */
};

void sequence_table_init(struct sequence_table *t, uint32_t cap);
void sequence_table_fini(struct sequence_table *t); /* unloads what is in use */

/* NULL when there is none. */
struct sequence *sequence_table_find(const struct sequence_table *t, uint64_t id);

/* A free struct, to be loaded from its ledger entry and then added; NULL when all are in use. */
struct sequence *sequence_table_peek_free(const struct sequence_table *t);

/* `q` was loaded: it is in use and can be found. */
void sequence_table_add(struct sequence_table *t, struct sequence *q);

/* Unload `q`; its struct is free again. */
void sequence_table_remove(struct sequence_table *t, struct sequence *q);

#endif
