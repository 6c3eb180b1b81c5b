/* adoption.c - claim what the ledger lists, check it, lease it anew.
 *
 *   claim     cheap checks, page by page, until one fails: then the rest of that sequence is not kept
 *   verify    checksums of the claimed sealed pages, on all compute threads
 *   cut       each entry's .n_pages shrinks to what is kept, before any page is freed
 *   reclaim   kept and cached pages go to this epoch, the others of the dead epochs are freed
 *   hold      pins, counts and the seals that the dead worker did not get to
 *
 * A death anywhere in between leaves what the next successor can do the same with. */
#include "gpu-worker/adoption.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault_point.h"
#include "common/mem.h"

enum { VERIFY_JOBS_MAX = 512 };

struct claim {
    struct sequence *sequence;
    uint32_t n_pages;
    uint32_t n_tokens; /* whose KV is in them */
};

/* For each page of the pool. */
struct page_mark {
    uint32_t n_claims; /* more than one only for sealed pages */
    bool is_corrupt;
};

struct work {
    struct kvcache *cache;
    const struct kvpool *pool;
    struct claim *claims; /* [n] */
    uint32_t n;
    uint32_t n_pages;        /* claimed by anyone */
    struct page_mark *marks; /* [pool pages] */
    uint32_t *sealed;        /* [n_sealed] pages to be verified */
    uint32_t n_sealed;
    _Atomic uint32_t next; /* of .sealed */
    bool keep_cached;
    uint32_t n_cached;
};

/* ---- claim ---- */

static const struct kv_page_desc *desc_of(const struct work *w, uint32_t page)
{
    return &w->pool->descs[page];
}

static bool is_sealed(const struct work *w, uint32_t page)
{
    return atomic_load_explicit(&desc_of(w, page)->sealed, memory_order_acquire) != 0;
}

static bool is_ours(const struct work *w, uint32_t page)
{
    uint64_t lease;

    if (page >= w->pool->hdr->n_pages || (w->marks[page].n_claims > 0 && !is_sealed(w, page)))
        return false;
    lease = atomic_load_explicit(&desc_of(w, page)->lease, memory_order_acquire);
    return lease >> 32 == w->cache->lease >> 32;
}

/* Page number k of the sequence, sealed: it was computed behind the tokens that the sequence has there.
 * Not always behind the very page that it lists before this one: that may be a twin (kvcache.c). */
static bool chain_agrees(const struct work *w, const struct sequence *q, uint32_t k)
{
    uint32_t page_tokens = w->pool->hdr->page_tokens;
    const int32_t *ids = q->tokens + (size_t)k * page_tokens;
    uint64_t before = kvcache_root(w->cache, q);

    if (k > 0 && !is_sealed(w, q->pages[k - 1]))
        return false;
    if (k > 0)
        before =
            atomic_load_explicit(&desc_of(w, q->pages[k - 1])->prefix_hash, memory_order_relaxed);
    return atomic_load_explicit(&desc_of(w, q->pages[k])->prefix_hash, memory_order_relaxed) ==
           kvpool_prefix_hash(before, ids, page_tokens);
}

/* Tokens of page number k that this sequence may go on with; 0 = none. */
static uint32_t tokens_of(const struct work *w, const struct sequence *q, uint32_t k)
{
    uint32_t page = q->pages[k], page_tokens = w->pool->hdr->page_tokens;
    uint64_t begin = (uint64_t)k * page_tokens;
    uint32_t n;

    if (!is_ours(w, page))
        return 0;
    n = atomic_load_explicit(&desc_of(w, page)->n_tokens, memory_order_acquire);
    if (n > page_tokens || begin + n > sequence_n_findable(q) ||
        memcmp(kvpool_token_ids(w->pool, page), q->tokens + begin, n * sizeof(int32_t)) != 0)
        return 0;
    if (is_sealed(w, page) && (n != page_tokens || !chain_agrees(w, q, k)))
        return 0;
    return n;
}

/* False: it would be one more than the group's share. */
static bool claim_page(struct work *w, uint32_t page)
{
    if (w->marks[page].n_claims == 0) {
        if (w->n_pages == w->cache->pages_max)
            return false;
        w->n_pages++;
        if (is_sealed(w, page))
            w->sealed[w->n_sealed++] = page;
    }
    w->marks[page].n_claims++;
    return true;
}

static void claim_pages(struct work *w, struct claim *c)
{
    struct sequence *q = c->sequence;
    uint32_t page_tokens = w->pool->hdr->page_tokens;
    uint32_t n_listed = atomic_load_explicit(&q->entry->n_pages, memory_order_acquire);
    uint32_t n = page_tokens;

    while (n == page_tokens && c->n_pages < n_listed &&
           (uint64_t)c->n_pages * page_tokens < sequence_n_tokens(q)) {
        n = tokens_of(w, q, c->n_pages);
        if (n == 0 || !claim_page(w, q->pages[c->n_pages]))
            break;
        c->n_tokens += n;
        c->n_pages++;
    }
}

/* ---- verify ---- */

static void verify_job(void *arg, uint32_t job)
{
    struct work *w = arg;
    uint32_t i;

    (void)job;
    while ((i = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed)) < w->n_sealed)
        if (!kvpool_is_intact(w->pool, w->sealed[i]))
            w->marks[w->sealed[i]].is_corrupt = true;
}

static uint32_t count_corrupt(const struct work *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_sealed; i++)
        n += w->marks[w->sealed[i]].is_corrupt;
    return n;
}

/* ---- cut ---- */

/* Give up a claim's pages from number k on. */
static void cut(struct work *w, struct claim *c, uint32_t k)
{
    for (uint32_t i = k; i < c->n_pages; i++)
        w->marks[c->sequence->pages[i]].n_claims--;
    if (k < c->n_pages)
        c->n_tokens = k * w->pool->hdr->page_tokens; /* all before the last one are full */
    c->n_pages = k;
}

static void cut_corrupt(struct work *w, struct claim *c)
{
    uint32_t k = 0;

    while (k < c->n_pages && !w->marks[c->sequence->pages[k]].is_corrupt)
        k++;
    cut(w, c, k);
    atomic_store_explicit(&c->sequence->entry->n_pages, k, memory_order_release);
}

/* ---- reclaim and hold ---- */

static bool keep(uint32_t page, void *arg)
{
    struct work *w = arg;

    if (w->marks[page].n_claims > 0)
        return true;
    if (!w->keep_cached || w->marks[page].is_corrupt || !is_sealed(w, page))
        return false;
    w->n_cached++;
    return true;
}

static uint32_t reclaim(struct work *w)
{
    uint64_t lease = w->cache->lease;

    return kvpool_reclaim(w->cache->pool, (uint32_t)(lease >> 32) - 1, (uint32_t)lease, keep, w);
}

void adoption_run(struct kvcache *c, struct runtime *rt, struct sequence *const *sequences,
                  uint32_t n, bool keep_cached, struct adoption *out)
{
    uint32_t n_pool = c->pool->hdr->n_pages, n_jobs;
    struct work w = { .cache = c, .pool = c->pool, .n = n, .keep_cached = keep_cached };

    *out = (struct adoption){ 0 };
    w.claims = mem_zalloc(n, sizeof *w.claims);
    w.marks = mem_zalloc(n_pool, sizeof *w.marks);
    w.sealed = mem_zalloc(n_pool, sizeof *w.sealed);
    for (uint32_t i = 0; i < n; i++) {
        w.claims[i].sequence = sequences[i];
        claim_pages(&w, &w.claims[i]);
    }
    n_jobs = w.n_sealed < VERIFY_JOBS_MAX ? w.n_sealed : VERIFY_JOBS_MAX;
    runtime_parallel(rt, verify_job, &w, n_jobs);
    out->n_corrupt = count_corrupt(&w);
    for (uint32_t i = 0; i < n; i++)
        cut_corrupt(&w, &w.claims[i]);
    fault_point("worker.adopt");
    out->n_freed = reclaim(&w);
    for (uint32_t i = 0; i < n; i++) {
        kvcache_adopt(c, sequences[i], w.claims[i].n_pages, w.claims[i].n_tokens);
        out->n_adopted += w.claims[i].n_pages;
    }
    out->n_cached = w.n_cached;
    kvcache_adopt_cached(c);
    free(w.claims);
    free(w.marks);
    free(w.sealed);
}
