/* keeper.h - a small process that makes and holds the GPU memory of one rank, whoever of its workers lives.
 *
 * For where a descriptor alone does not keep memory, and where a GPU must be kept open (no persistence mode); with
 * the setting gpu_memory_owner = keeper.  It opens the driver and no context, launches nothing, and so meets no error
 * of the GPU; it holds the handles of what it made last of each kind.
 *
 *   worker --CHUNKS without descriptors: the planned set--> keeper --CHUNKS: all of it, or FATAL: why not--> worker
 *
 * The first worker of a rank starts it and gives llmd the socket to it, as a set of one descriptor (CHUNKS_KEEPER), so that
 * the next worker has it too.  It ends when the last copy of that socket is closed: when llmd ends the service. */
#ifndef LLMD_GPU_WORKER_CUDA_KEEPER_H
#define LLMD_GPU_WORKER_CUDA_KEEPER_H

#include "gpu-worker/chunk_road.h"

/* Have a planned set made by the keeper of this rank, which is started when none is there.  As chunks_create(). */
bool keeper_create(struct chunk_road *road, int ordinal, struct chunk_set *planned,
                   uint64_t wait_ns, struct err *e);

#endif
