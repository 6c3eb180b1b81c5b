/* rank_chunks.h - a rank's lasting memory of one kind: what its predecessor left, or new.
 *
 *   kept by llmd, of this GPU, layout and size   mapped as it is
 *   anything else                                let go, at llmd too; new memory is made, sent to llmd, and mapped
 *
 * Made by this worker, or, with the setting gpu_memory_owner = keeper, by a process that outlives it (keeper.h). */
#ifndef LLMD_GPU_WORKER_CUDA_RANK_CHUNKS_H
#define LLMD_GPU_WORKER_CUDA_RANK_CHUNKS_H

#include "gpu-worker/chunk_road.h"
#include "gpu-worker/cuda/chunks.h"

struct rank_chunks_want {
    enum chunk_kind kind;
    uint32_t group, rank;
    struct hash128 layout; /* of everything that decides what lies where in it */
    uint64_t bytes;
    uint64_t lead_bytes; /* chunks_map_behind() */
    bool is_writable;
    bool by_keeper;
};

/* Map it.  *is_fresh: nothing lies in it yet.  ERR_DEVICE, with CU_OUT_OF_MEMORY in .sys when there is not enough. */
bool rank_chunks_open(struct chunks *c, struct device *d, struct chunk_road *road,
                      const struct rank_chunks_want *want, bool *is_fresh, struct err *e);

#endif
