/* host_tier_layout.h - KV pages of GPUs, kept in host memory when the GPUs need the room: byte for byte.
 *
 *   0               4096                  ids_offset       index_offset            data_offset (2 MiB aligned)
 *   +---------------+---------------------+----------------+-----------------------+---------------+----------
 *   | host_tier_hdr | host_page[n_slots]  | int32[n_slots] | uint64[index_slots]   | rank 0: slot  | rank 1:
 *   |               |   64 bytes each     |  [page_tokens] |  generation, slot + 1 | 0 | slot 1 .. | ..
 *   +---------------+---------------------+----------------+-----------------------+---------------+----------
 *   rank r's part of a slot: slot_bytes at data_offset + r * part_bytes + slot * slot_bytes, a page of the GPU as it
 *   lies there (gpu-worker/cuda/kernels/kv_page.h).  Each rank pins its own part and no other.
 *
 * Only there with GPUs and the setting kv_host_bytes.  A slot is a copy of a sealed page, of all ranks of a group.
 *
 * Names.  A page of the pool is {page, generation} (kvpool_layout.h): no two pages that ever were have the same.
 * .origin is the name of the page that the slot is a copy of, .parent that of the page before it in the chain.  A page
 * that was filled from a slot goes by the origin's name here, so chains hold together however often their parts
 * come and go.
 *
 * Writers.  llmd fills host_tier_hdr.  Group g has slots n_slots * g / n_groups and on; rank 0 of the group writes
 * their records and ids, each rank its part of the data.  Everybody reads all slots: a group finds here what another
 * has computed.  Any group may set .is_bad of a slot whose data it found wrong, and nobody finds that any more.
 *
 *   FREE --take--> FILLING --all ranks are done--> SEALED --evict--> FREE
 *                     |  its worker died
 *                     +------------------------> QUARANTINE --time, no trace of the dead--> FREE
 *
 * Order.  .state becomes FILLING by compare-and-swap before anything of the slot is written.  Ids, names, hash and
 * checksum first, then the data, then .state = SEALED by compare-and-swap, with release, when all ranks have said
 * that their copies are done; then its number is put into the index.  Freeing: .generation is bumped first, then
 * .state = 0 with release.  Who reads a slot loads .generation before, with acquire, and again after: when it is the
 * same and the state was SEALED, all that was read is of that page.
 *
 * Wishes.  A group that finds a page on another one's GPU, where it cannot read it, puts its name into .wishes, by
 * compare-and-swap from 0.  The group that has it saves it, and whoever sees that it is there, or gone, clears the word.  A
 * wish may be lost, and then the page is computed.
 *
 * Index.  As in kvpool_layout.h: a hint, by .prefix_hash.  What it names counts when ids agree, of that page and of
 * every one before it, which .parent leads to.  Data counts when its checksum, taken where it was copied to,
 * is .checksum.
 *
 * Crash.  There are no locks.  The successor of a dead rank 0 scans its group's slots once: SEALED ones stay and are
 * in the index again; one that was FILLING is nobody's page, and as work of a dead process may still copy to it, it is
 * in quarantine for as long as pages of the GPU are (proto/kv_data.h; .last_used: CLOCK_MONOTONIC time of its end).
 *
 * Version.  Any change of size, order or meaning is a new HOST_TIER_VERSION. */
#ifndef LLMD_PROTO_HOST_TIER_LAYOUT_H
#define LLMD_PROTO_HOST_TIER_LAYOUT_H

#include <stdatomic.h>

#include "proto/segment.h"

enum {
    HOST_TIER_VERSION = 1,
    HOST_TIER_PAGES_OFFSET = 4096,
    HOST_TIER_WISHES = 256,
    HOST_TIER_GROUPS_MAX = 64
};
#define HOST_TIER_DATA_ALIGN ((size_t)2 << 20)

struct host_tier_hdr {
    struct segment_hdr segment;
    uint32_t n_slots;
    uint32_t page_tokens;
    uint32_t n_ranks;     /* of a group */
    uint32_t index_slots; /* a power of two, at least four times n_slots */
    uint64_t slot_bytes;  /* of one rank */
    uint64_t part_bytes;  /* of one rank's slots, rounded up to HOST_TIER_DATA_ALIGN */
    uint64_t ids_offset;
    uint64_t index_offset;
    uint64_t data_offset;
    _Atomic uint64_t
        turned_ns[HOST_TIER_GROUPS_MAX];       /* CLOCK_MONOTONIC: group g last looked here */
    _Atomic uint64_t wishes[HOST_TIER_WISHES]; /* generation << 32 | page + 1; 0 = none */
};
static_assert(sizeof(struct host_tier_hdr) <= HOST_TIER_PAGES_OFFSET, "before the records");

enum host_page_state { HOST_PAGE_FREE, HOST_PAGE_FILLING, HOST_PAGE_SEALED, HOST_PAGE_QUARANTINE };

struct host_page {
    _Atomic uint64_t state; /* enum host_page_state << 32 | epoch of who made it that; 0 = free */
    _Atomic uint64_t prefix_hash; /* of the page (kv_page_desc) */
    uint64_t checksum;            /* of the page, as it was sealed on the GPU */
    uint64_t last_used;           /* the group's count of uses; in quarantine, its end */
    _Atomic uint32_t generation;  /* bumped when freed */
    uint32_t origin_page, origin_generation;
    uint32_t parent_page, parent_generation; /* KV_PAGE_NONE, 0: the first of a chain */
    _Atomic uint32_t is_bad;                 /* 1: its data was found wrong */
    uint32_t reserved[2];                    /* 0 */
};
static_assert(sizeof(struct host_page) == 64, "one record per cache line");

#endif
