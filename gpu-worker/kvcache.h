/* kvcache.h - the page tables of a group's sequences, over the host's pool (proto/kvpool.h).
 *
 * A page of a sequence is leased to the group and pinned once by the sequence; its number stands in the
 * sequence's ledger entry.  Rank 0's engine thread alone calls this.
 *
 * Groups share one pool, but a group never leases more than its share of it.  So a group waits only
 * for pages that it can take back from its own sequences: no group can starve or deadlock another.
 *
 * Always true: kv_pages_leased and kv_pages_pinned on the board are what the group really holds, and
 * 0 when it has no sequence. */
#ifndef LLMD_GPU_WORKER_KVCACHE_H
#define LLMD_GPU_WORKER_KVCACHE_H

#include "gpu-worker/sequence.h"
#include "proto/kvpool.h"
#include "proto/stats.h"

struct kvcache {
    struct kvpool *pool; /* borrowed */
    struct stats *stats; /* borrowed */
    uint64_t lease;
    uint32_t epoch;
    uint32_t pages_max; /* the group's share */
    uint32_t n_leased;
    uint32_t cursor; /* of kvpool_lease() */
};

void kvcache_init(struct kvcache *c, struct kvpool *pool, struct stats *stats, uint32_t group,
                  uint32_t n_groups, uint32_t epoch);

static inline uint32_t kvcache_pages_for(const struct kvcache *c, uint32_t n_tokens)
{
    return (n_tokens + c->pool->hdr->page_tokens - 1) / c->pool->hdr->page_tokens;
}

/* Tokens of the longest sequence that fits when it is alone. */
static inline uint64_t kvcache_tokens_max(const struct kvcache *c)
{
    return (uint64_t)c->pages_max * c->pool->hdr->page_tokens;
}

static inline uint32_t kvcache_n_free(const struct kvcache *c)
{
    return c->pages_max - c->n_leased;
}

/* Give the sequence pages for its first n_tokens tokens.  False, and nothing changed, when there are
 * not enough. */
bool kvcache_grow(struct kvcache *c, struct sequence *s, uint32_t n_tokens);

/* KV of tokens n_computed..n_tokens-1 is written, by every rank: commit it, and seal what is full now. */
void kvcache_commit(struct kvcache *c, struct sequence *s, uint32_t n_tokens);

/* The sequence, just loaded, goes on with the first n_pages pages its entry lists: they are leased to this
 * epoch, unpinned, and hold the KV of its first n_tokens tokens. */
void kvcache_adopt(struct kvcache *c, struct sequence *s, uint32_t n_pages, uint32_t n_tokens);

/* Give all pages of the sequence back; its KV must be computed again. */
void kvcache_release(struct kvcache *c, struct sequence *s);

#endif
