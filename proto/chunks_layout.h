/* chunks_layout.h - which sets of GPU memory llmd keeps, byte for byte; for the llmd after it.
 *
 *   0            4096
 *   +------------+------------------------------------------------------------------+
 *   | chunks_hdr | chunks_record[n_groups][tp_size][N_KEPT_CHUNK_KINDS], 128 bytes  |
 *   +------------+------------------------------------------------------------------+
 *   the descriptors of a set lie in the fd store under "llmd-g-<lower half of .id>-<number>", both in hex
 *
 * Writers.  llmd alone.  Nobody else maps it: a worker is told of its sets by CHUNKS messages.
 *
 * Order.  A set that goes: its .id becomes 0, then its descriptors are closed and taken out of the store.  A set that
 * comes: all other words first, then .id with release, then each descriptor, as it comes, into the store.
 *
 * Crash.  The next llmd takes the descriptors whose name has the .id of a record and closes the others, in the
 * store too.  A set that lacks some is asked of its worker (ADOPT: it says all of it again); when that is dead, it
 * is dropped, and the memory with it.
 *
 * Version.  Any change of size, order or meaning is a new CHUNKS_VERSION. */
#ifndef LLMD_PROTO_CHUNKS_LAYOUT_H
#define LLMD_PROTO_CHUNKS_LAYOUT_H

#include <stdatomic.h>

#include "proto/chunk_set.h"
#include "proto/segment.h"

enum { CHUNKS_VERSION = 1, CHUNKS_RECORDS_OFFSET = 4096 };

struct chunks_hdr {
    struct segment_hdr segment;
    uint32_t n_groups, tp_size;
};

struct chunks_record {
    _Atomic uint64_t id; /* of the set that is kept; 0 = none */
    uint64_t layout[2];
    uint64_t bytes;
    uint64_t chunk_bytes;
    uint32_t n;
    uint8_t device[CHUNK_DEVICE_BYTES];
    uint8_t pad[68];
};
static_assert(sizeof(struct chunks_record) == 128, "fixed record");

#endif
