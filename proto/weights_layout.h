/* weights_layout.h - the weights of one tensor-parallel shard, packed for one backend, byte for byte.
 *
 *   0              4096                        checksums_offset    data_offset (2 MiB aligned)
 *   +--------------+---------------------------+-------------------+------------------------------+
 *   | weights_hdr  | weights_tensor[n_tensors] | uint64[n_chunks]  | tensor data, 64-byte aligned |
 *   +--------------+---------------------------+-------------------+------------------------------+
 *   a tensor of this shard is [rows, cols] of dtype, rows one after the other unless .packing says that
 *   the backend reordered them; bytes between tensors are 0.  Checksum i is the XXH3-64 of data bytes
 *   i * WEIGHTS_CHUNK_BYTES up to the next chunk or the end.
 *
 * Writers.  llmd makes the segment, empty, with its size.  The first worker of the shard that finds
 * .state not COMMITTED loads: it alone writes, in LOADING under its epoch; llmd starts the other groups
 * only when the shard is complete (WEIGHTS_READY), so there are never two loaders.  Later a worker that finds
 * a chunk which its checksum denies writes that chunk again, from the model's files: the same bytes that
 * were there, so readers beside it see nothing but the damage going away, and two who repair the same
 * chunk do each other no harm.  Any worker may set .doubt.
 *
 * Order.  Tensor table, data and checksums first, then .state = WEIGHTS_COMMITTED with release.  Mappings
 * that compute are read-only, so a stray write of a worker faults at the culprit; the segment is not
 * sealed against writing (F_SEAL_FUTURE_WRITE), because a seal is for ever and would forbid the repair.
 *
 * Crash.  A loader that dies leaves LOADING: the next one starts over, and so does one that finds the
 * checksums' own checksum wrong.  COMMITTED weights are mapped again, not loaded, after the layout hash
 * (model files' names, sizes and times, configuration, shard, tensor table, packing and this version) was
 * compared.  Chunks are verified for a moment before service and by a slow thread after; all of them
 * before, when .doubt says that a process died of its own fault or computed what is no number.  A repair
 * that dies half-way leaves a chunk that its checksum denies.
 *
 * Apart.  On a GPU the data is not here: .data_offset is 0, the segment ends behind the checksums, and each rank of
 * each group has one of its own.  The data lies in chunks of GPU memory (chunk_set.h, CHUNKS_WEIGHTS) with the
 * offsets it would have here, and a checksum is page_sum() of gpu-worker/cuda/kernels/pages.h.  COMMITTED then says
 * that those chunks are filled: who finds it without the chunks, or with new ones, loads again.
 *
 * Version.  Any change of size, order or meaning, packing included, is a new WEIGHTS_VERSION. */
#ifndef LLMD_PROTO_WEIGHTS_LAYOUT_H
#define LLMD_PROTO_WEIGHTS_LAYOUT_H

#include <stdatomic.h>

#include "proto/dtype.h"
#include "proto/segment.h"

enum { WEIGHTS_VERSION = 3, WEIGHTS_TENSORS_OFFSET = 4096, WEIGHTS_NAME_BYTES = 96 };
#define WEIGHTS_DATA_ALIGN  ((size_t)2 << 20)
#define WEIGHTS_CHUNK_BYTES ((size_t)1 << 20)

enum weights_state { WEIGHTS_EMPTY, WEIGHTS_LOADING, WEIGHTS_COMMITTED };

struct weights_hdr {
    struct segment_hdr segment;
    _Atomic uint32_t state; /* enum weights_state */
    uint32_t loader_epoch;
    uint32_t n_tensors;
    uint32_t packing; /* of the backend's tier; 0 = plain rows */
    uint64_t layout_hash[2];
    uint64_t data_offset; /* 0 = apart */
    uint64_t data_bytes;
    uint64_t checksums_offset;
    uint64_t checksums_checksum; /* XXH3-64 of the checksums */
    uint64_t parameters;         /* of the whole model */
    uint32_t n_chunks;
    _Atomic uint32_t doubt; /* 1: verify all before they are used again */
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
