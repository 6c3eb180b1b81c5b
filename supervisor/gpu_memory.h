/* gpu_memory.h - GPU memory that llmd holds by its descriptors, so that it outlives workers (proto/chunk_set.h).
 *
 * llmd knows no CUDA: to it a chunk is a descriptor that a worker gave it and the next worker of that rank is given
 * back, behind BOOT.  For each rank and kind it keeps one set.  Always true: what is kept is of the set that the
 * rank named last; a set is handed on only when it is whole.  Sets go
 *   - when their worker announces another one in their place (another layout),
 *   - when their worker is dead and has not sent all of it, or, weights, not filled it: who finds it would not know
 *     what is in it,
 *   - at the end of service.
 * A KV page is of all ranks of its group: their sets of pages are handed on when all of them are whole, or none is. */
#ifndef LLMD_SUPERVISOR_GPU_MEMORY_H
#define LLMD_SUPERVISOR_GPU_MEMORY_H

#include "proto/chunks_layout.h"
#include "supervisor/child.h"
#include "supervisor/fdstore.h"
#include "supervisor/passed.h"

/* One rank: what it has, and what its worker is being given. */
struct gpu_rank {
    struct chunk_set sets[N_KEPT_CHUNK_KINDS]; /* .fds NULL = none */
    bool is_handing[N_KEPT_CHUNK_KINDS];       /* of these, to be given */
    uint32_t at_chunk;                         /* next one of the first of them */
};

struct gpu_memory {
    const struct segment *table; /* borrowed; NULL = the model does not run on GPUs */
    struct fdstore *store;       /* borrowed */
    struct gpu_rank *ranks;      /* [n_groups * tp_size] */
    uint32_t n_groups, tp_size;
};

/* Bytes of the table for so many ranks. */
size_t gpu_memory_table_bytes(uint32_t n_groups, uint32_t tp_size);

/* table: its segment, mapped, borrowed until gpu_memory_fini(), or one that is not mapped: then nothing is kept.
 * ERR_PROTO: a former llmd's table does not fit. */
bool gpu_memory_init(struct gpu_memory *m, const struct segment *table, uint32_t n_groups,
                     uint32_t tp_size, struct fdstore *store, struct err *e);
void gpu_memory_fini(
    struct gpu_memory *m); /* safe on a zeroed struct; the store keeps its copies */

/* Those of a former llmd, found under their names; the others of these names are forgotten. */
void gpu_memory_adopt(struct gpu_memory *m, struct passed *from);

/* Each descriptor with its name. */
void gpu_memory_each(const struct gpu_memory *m, void (*visit)(void *arg, const char *name, int fd),
                     void *arg);

/* A CHUNKS message of this rank's worker: takes what it brings. */
void gpu_memory_take(struct gpu_memory *m, uint32_t group, uint32_t rank, struct control_msg *msg);

/* A worker starts: how many descriptors it will be given, for BOOT. */
uint32_t gpu_memory_begin_handing(struct gpu_memory *m, uint32_t group, uint32_t rank);
/* Give, as far as its socket has room; again when it is writable. */
void gpu_memory_hand(struct gpu_memory *m, uint32_t group, uint32_t rank, struct child *worker);

/* The rank's worker is dead, and all it has said is heard. */
void gpu_memory_ended(struct gpu_memory *m, uint32_t group, uint32_t rank, bool weights_are_whole);
/* The GPU has lost its memory: forget what is kept of it. */
void gpu_memory_lost(struct gpu_memory *m, uint32_t group, uint32_t rank);

/* Bytes of all whole sets of a kind. */
uint64_t gpu_memory_bytes(const struct gpu_memory *m, enum chunk_kind kind);

#endif
