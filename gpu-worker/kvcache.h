/* kvcache.h - the page tables of a group's sequences, and the pages kept for prompts that come again.
 *
 *   free --lease--> open --full--> sealed, pinned <--> sealed, cached --evict--> free
 *                     |               by sequences         by nobody
 *                     +--its sequence went--> free
 *
 * A page that a sequence lists is leased to the group and pinned by it; its number stands in the
 * sequence's ledger entry.  A sealed page may be listed by many sequences, for it holds the same tokens behind
 * the same tokens.  When the last one goes it stays, and the pages of a sequence that begins are first
 * looked for there (prefix caching; Kwon et al. 2023, arXiv:2309.06180, section 4.3, has the idea of sharing).
 * What is not there may be found with another group of the host, and is copied; so are the first tokens of a page
 * that go on with the sequence while the rest of it does not: from whomever when it is sealed, and from an open
 * page of this group, whose committed tokens nobody writes again (radix trees of tokens: Zheng et al., SGLang,
 * 2023, arXiv:2312.07104; ours keeps pages, and copies what does not fill one).  A match is of token ids, all of
 * them from the first on (kvpool_layout.h, "Index").  Rank 0's engine thread alone calls this.
 *
 * Groups share one pool, but a group never leases more than its share of it, cached pages included.  A
 * page is evicted, least recently used first, only when its group needs one, and no page is ever held by
 * another group.  So a group waits only for pages that it can take back from its own sequences: no group can
 * starve or deadlock another.  On a GPU a group's share is a range of the pool, and of a dead predecessor's pages
 * some may be in quarantine for a while (kvpool_layout.h): until then the share is so much smaller.  A page goes before the one it was computed behind, since a sequence
 * lists both and gives them back last to first.
 *
 * With a host tier (kv_tier.h) a page is saved there when it is found the second time, and before it is evicted.  What a
 * sequence finds there and not in the pool is brought back while it waits (kvcache_bring()), and is then found as
 * any cached page is.  What it finds on another group's GPU, where this process cannot read, that group is asked to save
 * there, if it is awake.
 *
 * Always true: kv_pages_leased (pages that sequences use), kv_pages_pinned (counting a page for each of
 * them) and kv_pages_cached on the board are what the group really holds; the first two are 0 when it has no
 * sequence, and nothing is being brought back. */
#ifndef LLMD_GPU_WORKER_KVCACHE_H
#define LLMD_GPU_WORKER_KVCACHE_H

#include "gpu-worker/kv_tier.h"
#include "gpu-worker/sequence.h"
#include "proto/kvpool.h"
#include "proto/stats.h"

enum {
    KVCACHE_TAIL_MIN = 4,   /* tokens that are worth the copy of a page */
    KVCACHE_SEALS_MAX = 64, /* pages whose data is read at a time */
    KVCACHE_BRING_MIN = 4,  /* pages that are worth bringing back from the host tier */
    KVCACHE_DUE_MAX = 256,  /* pages that wait to be saved */
};

/* A page that is being filled, with at least one token. */
struct open_page {
    uint32_t page;
    struct kvpool_ref parent; /* it is computed behind; .page KV_PAGE_NONE: it is a first one */
    uint64_t parent_hash;     /* of that, or the root */
};

/* Pages that a step has filled: their sums, read together before any of them is sealed. */
struct kvcache_sums {
    uint32_t n;
    uint32_t *pages; /* [pages_max] */
    uint64_t *sums;  /* [pages_max] */
    uint32_t *place; /* [n_pages of the pool] 1 + where a page is among those; 0: it is not */
};

/* Pages on their way back from the host tier: leased and pinned, each one behind the one before it. */
struct kvcache_coming {
    uint64_t number; /* of the batch; sequences that wait for it have it too */
    uint32_t n;      /* 0: none is under way */
    uint32_t pages[KV_TIER_BATCH_MAX];
    struct host_slot_ref slots[KV_TIER_BATCH_MAX];
    struct host_copy copies[KV_TIER_BATCH_MAX]; /* what they must be */
    int32_t *ids;                               /* [KV_TIER_BATCH_MAX][page_tokens] */
    uint32_t parent;      /* of the first one, pinned; KV_PAGE_NONE: it begins a chain */
    uint64_t parent_hash; /* of that, or the root */
    uint64_t era;         /* of the pool when it began */
};

struct kvcache {
    struct kvpool *pool; /* borrowed */
    struct stats *stats; /* borrowed */
    struct hash128 identity;
    bool keeps_pages; /* the setting prefix_cache */
    uint64_t lease;
    uint32_t group, epoch;
    uint32_t pages_max; /* the group's share */
    uint32_t n_used;    /* leased, pinned */
    uint32_t n_cached;  /* leased, in the list */
    uint32_t n_quarantined;
    bool is_unreadable; /* the device failed: nothing is sealed any more, the next step says why */
    uint32_t cursor;    /* of kvpool_lease() */

    uint64_t n_uses;         /* kv_page_desc.last_used of the newest */
    uint32_t *older, *newer; /* [n_pages] the list of cached pages; KV_PAGE_NONE ends it */
    uint32_t oldest, newest;
    bool *is_doubted;       /* [n_pages] a predecessor's: its checksum is read when it is found */
    struct open_page *open; /* [pages_max] one for each sequence at most */
    uint32_t n_open;
    struct kvcache_sums ahead;

    const struct sequence *matched; /* whose found[] is */
    struct kvpool_ref *found;       /* [pages_max]; from n_found on .page may be KV_PAGE_NONE */
    uint32_t n_found;
    struct kvpool_ref tail; /* goes on with n_tail tokens behind those */
    uint32_t n_tail;
    bool tail_is_open;
    uint64_t copy_bytes_left; /* until the next kvcache_begin_plan() */

    /* Of the host tier; not used when .tier is NULL.  Of pages number 0 .. n_chain - 1 of the sequence that was matched,
     * each in the pool, in the tier or on another group's GPU, the last three say where; .page KV_PAGE_NONE: not there. */
    struct kv_tier *tier;
    uint32_t n_chain;
    uint64_t *hashes;              /* [pages_max] */
    struct host_slot_ref *in_tier; /* [pages_max] */
    struct host_copy *copies;      /* [pages_max] what is in that slot; .origin is KV_PAGE_NONE's */
    struct kvpool_ref *elsewhere;  /* [pages_max] */
    bool has_others;               /* groups on this host */
    bool is_wishing;               /* a sequence waits for what another group is to save */
    struct kvcache_coming coming;
    uint8_t *n_hits; /* [n_pages] times that it was found, counted to 2 */
    struct kvpool_ref due[KVCACHE_DUE_MAX];
    uint32_t n_due;
};

struct kvcache_setup {
    struct kvpool *pool;                  /* borrowed */
    struct stats *stats;                  /* borrowed */
    struct host_tier *host_tier;          /* borrowed; NULL: there is none */
    const struct kv_tier_data *tier_data; /* of that */
    struct hash128 identity;              /* runtime_kv_identity() */
    uint32_t group, n_groups, epoch;
    bool keeps_pages;
};

/* Pages of a sequence that are there already. */
struct kvcache_match {
    uint32_t n_tokens;
    uint32_t n_pages;  /* of these, whole */
    uint32_t n_in_use; /* of those, so many are in use by sequences: listing them takes no page */
};

void kvcache_init(struct kvcache *c, const struct kvcache_setup *setup);
void kvcache_fini(struct kvcache *c);

/* Where the chain of hashes of a sequence's pages begins: sequences with different salts find nothing of each
 * other's. */
uint64_t kvcache_root(const struct kvcache *c, const struct sequence *s);

static inline uint32_t kvcache_pages_for(const struct kvcache *c, uint32_t n_tokens)
{
    return (n_tokens + c->pool->hdr->page_tokens - 1) / c->pool->hdr->page_tokens;
}

/* Tokens of the longest sequence that fits when it is alone. */
static inline uint64_t kvcache_tokens_max(const struct kvcache *c)
{
    return (uint64_t)c->pages_max * c->pool->hdr->page_tokens;
}

/* Pages to be had, cached ones included. */
static inline uint32_t kvcache_n_free(const struct kvcache *c)
{
    uint32_t n = c->pages_max - c->n_quarantined;

    return n > c->n_used ? n - c->n_used : 0;
}

/* Pages that would be free if this sequence alone gave its own back. */
uint32_t kvcache_n_exclusive(const struct kvcache *c, const struct sequence *s);

/* A new step is planned: so much may be copied from other groups again, and what was long enough in quarantine is
 * free. */
void kvcache_begin_plan(struct kvcache *c);

/* Look for the pages of a sequence that has none, and remember them.  Never for all its tokens
 * (sequence_n_findable()): the last is left to be computed, for its logits. */
void kvcache_match(struct kvcache *c, const struct sequence *s, struct kvcache_match *out);

/* Give the sequence what the last kvcache_match() found for it, or less, when a page has gone since
 * or is corrupt.  Pages that are not in use must be free for it (kvcache_n_free()). */
void kvcache_attach(struct kvcache *c, struct sequence *s);

/* After that match, instead: have what the host tier holds of the sequence brought back, as far as the pages are free
 * that it needs anyhow.  True: it is to wait for that (kvcache_is_coming()), and to be matched again. */
bool kvcache_bring(struct kvcache *c, struct sequence *s);

/* Whether what the sequence was told to wait for is still under way. */
static inline bool kvcache_is_coming(const struct kvcache *c, const struct sequence *s)
{
    return c->coming.n > 0 && s->waits_for_pages == c->coming.number;
}

/* Whether copies are under way, or due: kvcache_begin_plan() is to be called again soon. */
bool kvcache_is_moving(const struct kvcache *c);

/* Give the sequence pages for its first n_tokens tokens.  False, and nothing changed, when there are
 * not enough. */
bool kvcache_grow(struct kvcache *c, struct sequence *s, uint32_t n_tokens);

/* KV of tokens up to n_tokens is written, by every rank, and may be committed before the next kvcache_begin_plan(): what
 * is full then is to be read for its seal together with the pages of others.  Once for each sequence of a step. */
void kvcache_expect(struct kvcache *c, const struct sequence *s, uint32_t n_tokens);
/* Read what is expected: a device is asked once and waited for once, not for each sequence. */
void kvcache_read_ahead(struct kvcache *c);

/* KV of tokens n_computed..n_tokens-1 is written, by every rank: commit it, and seal what is full now. */
void kvcache_commit(struct kvcache *c, struct sequence *s, uint32_t n_tokens);

/* Take all pages of the sequence out of its table.  The sealed ones stay to be found. */
void kvcache_release(struct kvcache *c, struct sequence *s);

/* What was computed up to now may be wrong: none of it is to be found again, by any group. */
void kvcache_distrust(struct kvcache *c);

/* The sequence, just loaded, goes on with the first n_pages pages its entry lists: they are leased to this
 * epoch, verified, and hold the KV of its first n_tokens tokens. */
void kvcache_adopt(struct kvcache *c, struct sequence *s, uint32_t n_pages, uint32_t n_tokens);

/* After that: the pages leased to this epoch that no sequence lists are cached ones. */
void kvcache_adopt_cached(struct kvcache *c);

/* After that: the sequence goes on with the next n_tokens tokens, which are in a page that is in quarantine now.  False:
 * there is no page for a copy, or it cannot be made. */
bool kvcache_adopt_moved(struct kvcache *c, struct sequence *s, uint32_t from, uint32_t n_tokens);

#endif
