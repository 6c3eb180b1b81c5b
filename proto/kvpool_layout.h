/* kvpool_layout.h - the shared-memory pool of KV pages of one host, byte for byte.
 *
 *   0             4096                     tokens_offset            data_offset (2 MiB aligned)
 *   +-------------+------------------------+------------------------+-----------------------------+
 *   | kvpool_hdr  | kv_page_desc[n_pages]  | int32[n_pages]         | page 0 | page 1 | ...       |
 *   |             |   64 bytes each        |      [page_tokens]     |   page_bytes each           |
 *   +-------------+------------------------+------------------------+-----------------------------+
 *   one page: [n_layers][2 = K,V][n_kv_heads][page_tokens][head_dim] of dtype, all heads of the model;
 *   rank r of a tensor-parallel group writes and reads its own heads of it
 *
 * Writers.  llmd fills kvpool_hdr before it starts any rank.  A free page is leased by rank 0 of a
 * group with one compare-and-swap of .lease from 0 to {group + 1, epoch}.  Its data is written by the ranks
 * of that group alone, its descriptor and stored token ids by their rank 0, until .sealed; a sealed page is
 * never written again until it is free.  .pins may be changed by rank 0 of any group; today a page has the
 * pin of the one sequence that lists it, and none is shared.
 *
 * Order.  Data of a token and its stored id first, then .n_tokens with release: who loads it with
 * acquire may read that many tokens.  Rank 0 commits when all ranks are done with the step
 * (runtime_forward()), so a count or a checksum covers what every one of them wrote.  A page that is full is
 * sealed: hash, checksum and parent first, then .sealed = 1 with release; a page is sealed after its parent.
 * Freeing: pins must be 0, sealed and n_tokens are set to 0, .generation is bumped, then .lease = 0 with
 * release.
 *
 * Crash.  There are no locks.  The successor of a dead rank 0 scans once (gpu-worker/adoption.c): a page
 * leased to its group under an older epoch is kept when a live sequence's ledger entry lists it, the
 * stored ids are that sequence's tokens, and, for a sealed page, hash chain and checksum agree; a page
 * not sealed (the open one, or one whose owner died before it could seal) is kept as far as its
 * committed count.  The first page that does not agree ends what its sequence keeps.  Kept pages are
 * leased anew in place, all others of the dead epochs are freed; pins are counted anew from the ledger, and
 * n_pages of an entry shrinks before a page of it is freed.  In place is safe on the CPU because llmd
 * starts a group only when every rank of the last epoch is dead and reaped: nobody can still write.  A GPU
 * has no such certainty (work queued by a dead process): there the open page is copied out and the old one
 * quarantined.  Who finds a page by an index it kept compares .generation first.
 *
 * Version.  Any change of size, order or meaning is a new KVPOOL_VERSION. */
#ifndef LLMD_PROTO_KVPOOL_LAYOUT_H
#define LLMD_PROTO_KVPOOL_LAYOUT_H

#include <stdatomic.h>

#include "proto/segment.h"

enum { KVPOOL_VERSION = 2, KVPOOL_DESCS_OFFSET = 4096 };
#define KVPOOL_DATA_ALIGN ((size_t)2 << 20)

struct kvpool_hdr {
    struct segment_hdr segment;
    uint32_t n_pages;
    uint32_t page_tokens;
    uint64_t page_bytes;
    uint32_t n_layers;
    uint32_t n_kv_heads; /* of the whole model */
    uint32_t head_dim;
    uint32_t dtype; /* enum dtype */
    uint64_t tokens_offset;
    uint64_t data_offset;
};

struct kv_page_desc {
    _Atomic uint64_t lease;      /* 0 = free, else (group + 1) << 32 | epoch */
    _Atomic uint32_t n_tokens;   /* committed, 0..page_tokens */
    _Atomic uint32_t pins;       /* uses that forbid freeing */
    _Atomic uint32_t sealed;     /* 1: full, immutable, found by hash */
    _Atomic uint32_t generation; /* bumped when freed */
    uint64_t prefix_hash; /* chained: all tokens from the start of the prompt to the page's end */
    uint64_t checksum;    /* XXH3-64 of the page's data, when sealed */
    uint32_t parent;      /* page before it in the chain, or KV_PAGE_NONE */
    uint32_t parent_generation;
    _Atomic uint64_t last_used_ns;
    uint32_t reserved;
    uint32_t reserved1;
};
static_assert(sizeof(struct kv_page_desc) == 64, "one descriptor per cache line");

#define KV_PAGE_NONE UINT32_MAX

#endif
