/* sibling_pages.h - KV pages of other groups of this host, copied straight from their GPUs.
 *
 * Rank r of each group listens at an abstract address made of the pool's id, its group and r, and gives whoever of our
 * user connects the descriptors of its pages' memory.  Rank r of another group maps that, read only, when it
 * first wants a page of it, and keeps the connection: its end says that the other worker is gone, and the mapping goes
 * at once, so that nobody's memory outlives him for the sake of a copy.  His successor is met in the same way.
 *
 * Pages are copied and never computed with where they are.  A sealed page does not change; whether it was freed
 * meanwhile, and whether what came is what was sealed, is for the pool to find out (kvpool_copy()): a virtual machine
 * may say that its GPUs reach each other and mirror the memory instead.
 *
 * A thread serves, and unmaps; everything else is the device's thread's. */
#ifndef LLMD_GPU_WORKER_CUDA_SIBLING_PAGES_H
#define LLMD_GPU_WORKER_CUDA_SIBLING_PAGES_H

#include "gpu-worker/cuda/chunks.h"
#include "gpu-worker/cuda/device.h"

enum { SIBLING_GROUPS_MAX = 64 };

struct sibling_pages_setup {
    struct device *device;       /* borrowed */
    const struct chunk_set *own; /* memory of this rank's pages; borrowed */
    uint64_t pool_id; /* the same for all groups of the pool, and no other's on this machine */
    uint32_t group, n_groups, rank, tp_size;
    const char *gpus;    /* of all ranks (proto/gpu_names.h); borrowed; NULL: in their order */
    uint32_t n_pages;    /* of the pool: group g has those from n_pages * g / n_groups on */
    uint64_t page_bytes; /* of this rank's heads */
};

struct sibling_pages;

/* NULL and ERR_SYS or ERR_DEVICE. */
struct sibling_pages *sibling_pages_new(const struct sibling_pages_setup *setup, struct err *e);
void sibling_pages_free(struct sibling_pages *s); /* NULL is fine */

/* Whether pages of that group's rank can be copied; maps them when that was not tried, or has ended. */
bool sibling_pages_reach(struct sibling_pages *s, uint32_t group);

/* Of a page of the pool. */
uint32_t sibling_pages_group(const struct sibling_pages *s, uint32_t page);

/* Copy a page of another group to this address, and wait for it.  False: it is out of reach. */
bool sibling_pages_copy(struct sibling_pages *s, cu_ptr to, uint32_t page);

#endif
