/* chunks.h - GPU memory that no process owns: made, exported, and mapped by descriptor.
 *
 *   create                             a set of descriptors (proto/chunk_set.h), memory that they alone own
 *     |  sent to llmd, which keeps it
 *   map     reserve one address range, import each chunk, map them one behind the other, set access
 *     |
 *   use     kernels see one base address
 *     |
 *   unmap   the memory stays while anybody has its descriptors
 *
 * A worker maps what it has just created in the same way as what its predecessor left: there is one path.  It keeps
 * the descriptors as long as it lives, so that it can tell a new llmd again what it has; its mapping holds the memory
 * anyway.  One address range per kind: weights are read-only once loaded, so that a stray write faults at the
 * culprit; pages and exchange memory are read-write.
 *
 * cuMemCreate and the functions around it: "Virtual Memory Management" of the CUDA driver API's manual. */
#ifndef LLMD_GPU_WORKER_CUDA_CHUNKS_H
#define LLMD_GPU_WORKER_CUDA_CHUNKS_H

#include "gpu-worker/cuda/api/driver.h"
#include "proto/chunk_set.h"

struct device;

/* Large enough for few descriptors, small enough to be found in a GPU that is nearly full. */
#define CHUNKS_BYTES ((uint64_t)256 << 20)

/* Fill set->device, .bytes, .chunk_bytes, .n and a new .id for `bytes` bytes of memory on this GPU, rounded up to what
 * the driver hands out; .kind, .group, .rank and .layout are the caller's.  Nothing is allocated yet: the set can
 * be announced first, so that a predecessor's memory goes. */
bool chunks_plan(struct device *d, struct chunk_set *set, uint64_t bytes, struct err *e);

/* Allocate and export all chunks of a planned set.  A predecessor's memory may be on its way back: "out of memory" is
 * tried again for up to wait_ns.  ERR_DEVICE; then nothing is held, and .sys is CU_OUT_OF_MEMORY when that is why. */
bool chunks_create(struct device *d, struct chunk_set *set, uint64_t wait_ns, struct err *e);

/* The same by a process that has no context on GPU number `ordinal`, but an open driver.  handles: [set->n], which
 * hold the memory as well, the caller's to release; NULL: the descriptors alone hold it. */
bool chunks_create_on(int ordinal, struct chunk_set *set, cu_mem *handles, uint64_t wait_ns,
                      struct err *e);

/* Whether a predecessor's set may be used: whole, of this GPU and layout, at least `bytes` large.  False: *why. */
bool chunks_fit(struct device *d, const struct chunk_set *set, struct hash128 layout,
                uint64_t bytes, struct err *why);

/* Contents of a set, mapped. */
struct chunks {
    struct device *device; /* borrowed; NULL = not mapped */
    cu_ptr base;           /* of the first chunk */
    uint64_t lead_bytes;   /* reserved before it, and never mapped */
    uint64_t bytes;        /* mapped */
    uint64_t chunk_bytes;
    uint32_t n;
    bool is_writable;
};

/* Map a whole set, of this GPU or of a peer's that this one can read (exchange memory), for this GPU.  The set's
 * descriptors are borrowed during the call.  ERR_DEVICE. */
bool chunks_map(struct chunks *c, struct device *d, const struct chunk_set *set, bool is_writable,
                struct err *e);

/* The same, and at least lead_bytes of addresses before the first chunk are nobody else's: so that an address that is
 * counted from there, as that of the page with number 0 in a later share of the pool, is no other memory's. */
bool chunks_map_behind(struct chunks *c, struct device *d, const struct chunk_set *set,
                       uint64_t lead_bytes, bool is_writable, struct err *e);

/* Change what kernels may do there.  Nothing that uses the range may run meanwhile. */
bool chunks_allow(struct chunks *c, bool is_writable, struct err *e);

/* Safe on a zeroed struct.  Work that uses the range must be over. */
void chunks_unmap(struct chunks *c);

#endif
