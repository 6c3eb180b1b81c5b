/* kvcache_state.h - what the files of the KV cache share; nobody else includes it.
 *
 *   kvcache.c        a sequence's pages: listed, filled, sealed, given back
 *   kvcache_pages.c  the group's pages: leased, pinned, cached, evicted
 *   kvcache_match.c  which pages a sequence's tokens have already
 *   kvcache_adopt.c  pages of a dead predecessor
 *   kvcache_tier.c   pages saved in the host tier, and brought back */
#ifndef LLMD_GPU_WORKER_KVCACHE_STATE_H
#define LLMD_GPU_WORKER_KVCACHE_STATE_H

#include "gpu-worker/kvcache.h"

static inline struct kv_page_desc *kvcache_desc(const struct kvcache *c, uint32_t page)
{
    return &c->pool->descs[page];
}

static inline bool kvcache_is_ours(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&kvcache_desc(c, page)->lease, memory_order_relaxed) == c->lease;
}

static inline uint32_t kvcache_n_pins(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&kvcache_desc(c, page)->pins, memory_order_relaxed);
}

static inline bool kvcache_is_sealed(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&kvcache_desc(c, page)->sealed, memory_order_relaxed) != 0;
}

static inline uint64_t kvcache_hash(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&kvcache_desc(c, page)->prefix_hash, memory_order_relaxed);
}

/* Of page number k of the sequence. */
static inline const int32_t *kvcache_ids(const struct kvcache *c, const struct sequence *s,
                                         uint32_t k)
{
    return s->tokens + (size_t)k * c->pool->hdr->page_tokens;
}

/* Of page number k of the sequence: the page it is computed behind, and the hash up to there. */
static inline uint32_t kvcache_parent(const struct sequence *s, uint32_t k)
{
    return k > 0 ? s->pages[k - 1] : KV_PAGE_NONE;
}

static inline uint64_t kvcache_parent_hash(const struct kvcache *c, const struct sequence *s,
                                           uint32_t k)
{
    return k > 0 ? kvcache_hash(c, s->pages[k - 1]) : kvcache_root(c, s);
}

static inline bool kvcache_is_same(struct kvpool_ref a, struct kvpool_ref b)
{
    return a.page == b.page && a.generation == b.generation;
}

/* kvcache_pages.c */
/* A page that nobody pins any more is cached, and goes later than all others. */
void kvcache_keep(struct kvcache *c, uint32_t page);
/* A cached page goes later than all others. */
void kvcache_renew(struct kvcache *c, uint32_t page);
/* A cached page is free. */
void kvcache_drop(struct kvcache *c, uint32_t page);
/* False: a predecessor's, and corrupt, then it is gone; or its device does not answer. */
bool kvcache_trust(struct kvcache *c, uint32_t page);
/* Page number k of the sequence has its first token, or is given with some. */
void kvcache_note_open(struct kvcache *c, const struct sequence *s, uint32_t k);
/* It is full, or goes; one that was never noted is fine. */
void kvcache_forget_open(struct kvcache *c, uint32_t page);
/* A page of ours that is in no list and has no pin. */
void kvcache_pin_first(struct kvcache *c, uint32_t page);
/* One more sequence lists a page that others may list, or that is cached. */
void kvcache_pin(struct kvcache *c, uint32_t page);
void kvcache_unpin(struct kvcache *c, uint32_t page);
/* Lease one, pinned; what is cached goes for it.  One must be to be had (kvcache_n_free()). */
uint32_t kvcache_take_page(struct kvcache *c);

/* kvcache.c */
/* The sequence has its first n pages: in its ledger entry too. */
void kvcache_list_pages(struct kvcache *c, struct sequence *s, uint32_t n);
/* Pages number k .. end - 1 of the sequence, which are full.  When a device does not give their sums, they stay as they
 * are, and the step that comes next fails. */
void kvcache_seal(struct kvcache *c, const struct sequence *s, uint32_t k, uint32_t end);

/* kvcache_match.c */
/* Whether `ref` names the page before number k of the sequence that is matched, in whatever way is known. */
bool kvcache_is_behind(struct kvcache *c, const struct sequence *s, struct kvpool_ref ref,
                       uint32_t k, uint32_t *n_walks);

/* kvcache_tier.c; without a tier they do nothing */
void kvcache_tier_open(struct kvcache *c, const struct kvcache_setup *setup);
void kvcache_tier_close(struct kvcache *c);
void kvcache_tier_begin_plan(struct kvcache *c);
/* A cached page is about to be given up to make room: have it saved first. */
void kvcache_tier_save_first(struct kvcache *c, uint32_t page);
/* It is about to be free: nobody reads it then. */
void kvcache_tier_let_go(struct kvcache *c, uint32_t page);
/* It was found, and a sequence lists it. */
void kvcache_tier_note_hit(struct kvcache *c, uint32_t page);
/* Look for page number k of the sequence that is matched, whose hash is known.  False: it is not there. */
bool kvcache_tier_match(struct kvcache *c, const struct sequence *s, uint32_t k, uint32_t *n_walks);
/* Whether the page before number k is known as `ref` to the tier; *before: what that one was computed behind. */
bool kvcache_tier_knows(const struct kvcache *c, const struct sequence *s, struct kvpool_ref ref,
                        uint32_t k, struct kvpool_ref *before);

#endif
