/* kvpool_layout.h - the shared-memory pool of KV pages of one host, byte for byte.
 *
 *   0            4096                    tokens_offset     index_offset               data_offset (2 MiB
 *   +------------+-----------------------+-----------------+--------------------------+---------- aligned)
 *   | kvpool_hdr | kv_page_desc[n_pages] | int32[n_pages]  | uint64[index_slots]      | page 0 | page 1 ..
 *   |            |   64 bytes each       |   [page_tokens] |   generation, page + 1   |  page_bytes each
 *   +------------+-----------------------+-----------------+--------------------------+----------
 *   one page: [n_layers][2 = K,V][n_kv_heads] blocks, all heads of the model; rank r of a tensor-parallel
 *   group writes and reads its own heads of it
 *   one block, float32: K [head_dim][page_tokens], V [page_tokens][head_dim] - so that a vector of K is one
 *   element of many tokens, and a vector of V many elements of one
 *   one block, int16 and int8: float scales [page_tokens] of the tokens come first, then codes, an element being scale *
 *   code: K [head_dim / 2][page_tokens][2], V [tokens / 2][head_dim][2], where an odd token has a neighbour that is
 *   not used - for instructions that add the products of two neighbours; zeroes to a multiple of 4
 *
 * On a device (.place) there is no data here: the segment ends with the index, .data_offset is its end, and page p of
 * a rank is in GPU memory that llmd keeps (chunk_set.h, CHUNKS_KV), in the device's own layout
 * (gpu-worker/cuda/kernels/kv_page.h), each rank with its own heads.  Everything else is the same.  A group then leases
 * only the pages of its share, n_pages / n_groups from there times its number on: its GPUs have no others.
 *
 * Writers.  llmd fills kvpool_hdr before it starts any rank; .era alone changes later.  A free page is
 * leased by rank 0 of a group with one compare-and-swap of .lease from 0 to {group + 1, epoch}.  Its data is
 * written by the ranks of that group alone, its descriptor and stored token ids by their rank 0, until .sealed; a
 * sealed page is never written again until it is free.  Several sequences of the group may list one
 * sealed page, .pins counts them; a sealed page without pins is cached: kept until its group needs a page.
 * A group that wants what another one has computed copies it to a page of its own.  So no group ever holds
 * back a page of another: a group frees its pages when it likes and has its share for itself, and the
 * death of one means nothing to the others.  (A copy costs far less than the computation, and on a
 * machine of several memory nodes it brings the page to where it is read.)  Any rank may set its group's bit of
 * .doubt; the successor clears it.
 *
 * Order.  Data of a token and its stored id first, then .n_tokens with release: who loads it with
 * acquire may read that many tokens: none of them is written again, so between two steps rank 0 may copy those of an
 * open page of its own group to another page.  Rank 0 commits when all ranks are done with the step
 * (runtime_forward()), so a count or a checksum covers what every one of them wrote.  A page that is full is
 * sealed: hash, checksum and parent first, then .sealed = 1 with release; a page is sealed after its parent,
 * and then its number is put into the index.  Freeing: .generation is bumped first, then the rest is wiped,
 * then .lease = 0 with release.  Who reads a page of another group (ids, parent, data) loads .generation
 * with acquire before and again after: when it is the same, all that was read is of that page.
 *
 * Index.  Open addressing: a slot is {.generation << 32 | page + 1}, 0 is empty.  A page lies there by its
 * .prefix_hash, and by the complement of its .parent_hash, so that one is found whose first tokens alone go
 * on with a prompt.  It is a hint and nothing more.  What it names counts when the descriptor is sealed
 * with that generation and hash, and the token ids of the page and of every page before it are
 * compared; a hash alone never counts.  A slot
 * whose page was freed is dropped by who next needs it, and a slot may be lost: then the page is just
 * not found.  The first hash of a chain is of .hash_seed (random, so that no client can make collisions), of
 * the weights and kernels, and of .era; raising .era hides every page there is, for when they are in doubt.
 *
 * Crash.  There are no locks.  The successor of a dead rank 0 scans once (gpu-worker/adoption.c): a page
 * leased to its group under an older epoch is kept when a live sequence's ledger entry lists it, the
 * stored ids are that sequence's tokens, and, for a sealed page, hash chain and checksum agree; a page
 * not sealed (the open one, or one whose owner died before it could seal) is kept as far as its
 * committed count.  The first page that does not agree ends what its sequence keeps.  Sealed pages that
 * nobody lists stay cached, and their checksums are read when they are first found, not at the start.  Kept
 * pages are leased anew in place, all others of the dead epochs are freed; pins are counted anew from the
 * ledger, and n_pages of an entry shrinks before a page of it is freed.  A page sealed and not yet in the
 * index is one that a live sequence lists, and is put there when that is taken over.  In place is safe on the CPU
 * because llmd starts a group only when every rank of the last epoch is dead and reaped: nobody can still
 * write.  A GPU has no such certainty (work queued by a dead process): there a page that was not sealed is never used
 * in place.  Its committed tokens, which nobody writes again, are copied to a fresh page, and it is quarantined: wiped,
 * KV_LEASE_QUARANTINE in .lease beside the group, .last_used the CLOCK_MONOTONIC time from which on the group may
 * free it (kv_data.h; gpu-worker/cuda/fence.h says when that is).  Checksums of sealed pages that live sequences
 * list are read there only when .doubt says that a rank of the group met an error of its device: then a kernel may
 * have written anywhere, and what is not sealed is computed again.
 *
 * Version.  Any change of size, order or meaning is a new KVPOOL_VERSION. */
#ifndef LLMD_PROTO_KVPOOL_LAYOUT_H
#define LLMD_PROTO_KVPOOL_LAYOUT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "proto/dtype.h"
#include "proto/segment.h"

enum { KVPOOL_VERSION = 5, KVPOOL_DESCS_OFFSET = 4096 };
#define KVPOOL_DATA_ALIGN ((size_t)2 << 20)

static inline bool kv_has_scales(enum dtype t)
{
    return t == DTYPE_I16 || t == DTYPE_I8;
}

/* Where a block's elements begin. */
static inline uint64_t kv_scales_bytes(enum dtype t, uint32_t page_tokens)
{
    return kv_has_scales(t) ? page_tokens * sizeof(float) : 0;
}

/* Of a block. */
static inline uint64_t kv_block_bytes(enum dtype t, uint32_t page_tokens, uint32_t head_dim)
{
    uint64_t tokens = kv_has_scales(t) ? (page_tokens + 1) / 2 * 2 : page_tokens;

    return kv_scales_bytes(t, page_tokens) + (dtype_bytes(t, tokens * head_dim) + 3) / 4 * 4;
}

/* Which element of a block is element d of token t. */
static inline uint64_t kv_k_index(enum dtype type, uint32_t page_tokens, uint32_t t, uint32_t d)
{
    return kv_has_scales(type) ? ((uint64_t)d / 2 * page_tokens + t) * 2 + d % 2
                               : (uint64_t)d * page_tokens + t;
}

static inline uint64_t kv_v_index(enum dtype type, uint32_t head_dim, uint32_t t, uint32_t d)
{
    return kv_has_scales(type) ? ((uint64_t)t / 2 * head_dim + d) * 2 + t % 2
                               : (uint64_t)t * head_dim + d;
}

enum kv_place { KV_PLACE_HOST, KV_PLACE_DEVICE };

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
    uint64_t index_offset;
    uint32_t index_slots; /* a power of two, at least four times n_pages */
    uint32_t place;       /* enum kv_place: where the data is */
    uint64_t hash_seed;
    _Atomic uint64_t era;
    _Atomic uint64_t doubt; /* bit g: the data of group g may be wrong */
};

#define KV_LEASE_QUARANTINE ((uint64_t)1 << 63)

struct kv_page_desc {
    _Atomic uint64_t lease;       /* 0 = free, else (group + 1) << 32 | epoch | perhaps
                                     KV_LEASE_QUARANTINE */
    _Atomic uint64_t prefix_hash; /* chained: all tokens from the start to the page's end; of a
                                     sealed page, else 0 */
    uint64_t checksum;            /* XXH3-64 of the page's data, when sealed; on a device, its
                                     own kind of sum (kernels/pages.h) */
    uint64_t last_used;           /* the lessee's count of uses when the last pin went; of a
                                     quarantined page, its end */
    _Atomic uint32_t n_tokens;    /* committed, 0..page_tokens */
    _Atomic uint32_t pins;        /* sequences that list it */
    _Atomic uint32_t sealed;      /* 1: full, immutable, found by hash */
    _Atomic uint32_t generation;  /* bumped when freed */
    uint32_t parent;              /* page before it in the chain, or KV_PAGE_NONE */
    uint32_t parent_generation;
    _Atomic uint64_t parent_hash; /* .prefix_hash of what it was sealed behind, or the root */
};
static_assert(sizeof(struct kv_page_desc) == 64, "one descriptor per cache line");

#define KV_PAGE_NONE UINT32_MAX

#endif
