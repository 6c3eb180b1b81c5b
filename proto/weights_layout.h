/* weights_layout.h - the weights of one tensor-parallel shard, packed for one backend, byte for byte.
 *
 *   0              4096                            data_offset (2 MiB aligned)
 *   +--------------+-------------------------------+------------------------------+
 *   | weights_hdr  | weights_tensor[n_tensors]     | tensor data, 64-byte aligned |
 *   +--------------+-------------------------------+------------------------------+
 *   a tensor of this shard is [rows, cols] of dtype, rows one after the other unless .packing says that
 *   the backend reordered them
 *
 * Writers.  llmd makes the segment, empty, with its size.  The first worker of the shard that finds
 * .state not COMMITTED loads: it alone writes, in LOADING under its epoch; llmd starts the other groups
 * only when the shard is complete (WEIGHTS_READY), so there are never two loaders.
 *
 * Order.  Tensor table, data and checksum first, then .state = WEIGHTS_COMMITTED with release.  After
 * that nobody writes: every mapping of a worker is read-only, and F_SEAL_FUTURE_WRITE, set by the loader
 * after COMMITTED, makes the kernel refuse new writable ones.
 *
 * Crash.  A loader that dies leaves LOADING: the next one starts over.  COMMITTED weights are mapped
 * again, not loaded, after the layout hash (model files' names, sizes and times, configuration, shard,
 * tensor table, packing and this version) was compared.
 *
 * Version.  Any change of size, order or meaning, packing included, is a new WEIGHTS_VERSION. */
#ifndef LLMD_PROTO_WEIGHTS_LAYOUT_H
#define LLMD_PROTO_WEIGHTS_LAYOUT_H

#include <stdatomic.h>

#include "proto/dtype.h"
#include "proto/segment.h"

enum { WEIGHTS_VERSION = 1, WEIGHTS_TENSORS_OFFSET = 4096, WEIGHTS_NAME_BYTES = 96 };
#define WEIGHTS_DATA_ALIGN ((size_t)2 << 20)

enum weights_state { WEIGHTS_EMPTY, WEIGHTS_LOADING, WEIGHTS_COMMITTED };

struct weights_hdr {
    struct segment_hdr segment;
    _Atomic uint32_t state; /* enum weights_state */
    uint32_t loader_epoch;
    uint32_t n_tensors;
    uint32_t packing; /* of the backend's tier; 0 = plain rows */
    uint64_t layout_hash[2];
    uint64_t data_offset;
    uint64_t data_bytes;
    uint64_t checksum;   /* XXH3-64 over the data */
    uint64_t parameters; /* of the whole model */
};

struct weights_tensor {
    char name[WEIGHTS_NAME_BYTES]; /* the model's own: "layers.3.wq" */
    uint32_t dtype;                /* enum dtype */
    uint32_t reserved;
    uint64_t rows, cols;
    uint64_t offset; /* from data_offset, multiple of 64 */
    uint64_t bytes;
};
static_assert(sizeof(struct weights_tensor) == 136, "fixed tensor entry");

#endif
