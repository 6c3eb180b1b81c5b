/* adoption.c - claim what the ledger lists, check it, lease it anew.
 *
 *   claim     cheap checks, page by page, until one fails: then the rest of that sequence is not kept
 *   verify    checksums of the claimed sealed pages, on all compute threads
 *   cut       each entry's .n_pages shrinks to what is kept, before any page is freed
 *   reclaim   kept and cached pages go to this epoch, the others of the dead epochs are freed
 *   hold      pins, counts and the seals that the dead worker did not get to
 *
 * Where work of a dead process may still write (a GPU, proto/kv_data.h) a page that was not sealed is claimed apart: it is
 * quarantined by the reclaim, and last of all its tokens are copied to a fresh page ("move").  There checksums are
 * read only when the dead worker met an error of its device, and then only sealed pages are believed.
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
    uint32_t n_moved;  /* pages behind those, to be copied */
    uint32_t n_moved_tokens;
};

/* For each page of the pool. */
struct page_mark {
    uint32_t n_claims; /* more than one only for sealed pages */
    bool is_bad;       /* corrupt, or it cannot be read */
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
    uint32_t n_unread;     /* of them, that nothing is known of: their device has failed */
    _Atomic uint32_t next; /* of .sealed */
    bool keep_cached;
    uint32_t n_cached;
    bool moves; /* pages that are not sealed are copied */
    bool is_doubted;
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
 * Not always behind the very page that it lists before this one: that may be a twin (kvcache_match.c). */
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
        if (n == 0 || (w->moves && !is_sealed(w, q->pages[c->n_pages])) ||
            !claim_page(w, q->pages[c->n_pages]))
            break;
        c->n_tokens += n;
        c->n_pages++;
    }
}

/* The pages that go on from there and are not sealed: none of them is kept. */
static void claim_moves(struct work *w, struct claim *c)
{
    struct sequence *q = c->sequence;
    uint32_t page_tokens = w->pool->hdr->page_tokens;
    uint32_t n_listed = atomic_load_explicit(&q->entry->n_pages, memory_order_acquire);
    uint32_t n = page_tokens;

    while (n == page_tokens && c->n_pages + c->n_moved < n_listed) {
        uint32_t page = q->pages[c->n_pages + c->n_moved];
        n = tokens_of(w, q, c->n_pages + c->n_moved);
        if (n == 0 || is_sealed(w, page))
            break;
        c->n_moved_tokens += n;
        c->n_moved++;
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
            w->marks[w->sealed[i]].is_bad = true;
}

/* By the thread that has the device, some at a time; those of a worker that was just killed are believed. */
static void verify_together(struct work *w)
{
    enum { AT_A_TIME = 256 };
    uint64_t sums[AT_A_TIME];

    for (uint32_t first = 0; w->is_doubted && first < w->n_sealed; first += AT_A_TIME) {
        uint32_t n = w->n_sealed - first < AT_A_TIME ? w->n_sealed - first : AT_A_TIME;
        bool can = kvpool_checksums(w->pool, w->sealed + first, n, sums);
        w->n_unread += can ? 0 : n;
        for (uint32_t i = first; i < first + n; i++)
            w->marks[w->sealed[i]].is_bad =
                !can || sums[i - first] != desc_of(w, w->sealed[i])->checksum;
    }
}

static uint32_t count_corrupt(const struct work *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_sealed; i++)
        n += w->marks[w->sealed[i]].is_bad;
    return n - w->n_unread;
}

/* ---- cut ---- */

/* Give up a claim's pages from number k on. */
static void cut(struct work *w, struct claim *c, uint32_t k)
{
    for (uint32_t i = k; i < c->n_pages; i++)
        w->marks[c->sequence->pages[i]].n_claims--;
    if (k < c->n_pages) {
        c->n_tokens = k * w->pool->hdr->page_tokens; /* all before the last one are full */
        c->n_moved = c->n_moved_tokens = 0;
    }
    c->n_pages = k;
}

static void cut_bad(struct work *w, struct claim *c)
{
    uint32_t k = 0;

    while (k < c->n_pages && !w->marks[c->sequence->pages[k]].is_bad)
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
    if (!w->keep_cached || w->marks[page].is_bad || !is_sealed(w, page))
        return false;
    w->n_cached++;
    return true;
}

static uint32_t reclaim(struct work *w)
{
    uint64_t lease = w->cache->lease;

    return kvpool_reclaim(w->cache->pool, (uint32_t)(lease >> 32) - 1, (uint32_t)lease, keep, w);
}

/* ---- move ---- */

/* The tokens of pages that are in quarantine now; their numbers still stand behind those that the entry lists. */
static void move(struct work *w, struct claim *c, struct adoption *out)
{
    uint32_t page_tokens = w->pool->hdr->page_tokens, first = c->n_pages, left = c->n_moved_tokens;

    for (uint32_t i = 0; i < c->n_moved; i++) {
        uint32_t from = c->sequence->pages[first + i], n = left < page_tokens ? left : page_tokens;
        if (!kvcache_adopt_moved(w->cache, c->sequence, from, n))
            return;
        left -= n;
        out->n_moved++;
    }
}

/* ---- all of it ---- */

static void claim_all(struct work *w, struct sequence *const *sequences)
{
    for (uint32_t i = 0; i < w->n; i++) {
        w->claims[i].sequence = sequences[i];
        claim_pages(w, &w->claims[i]);
        if (w->moves && !w->is_doubted)
            claim_moves(w, &w->claims[i]);
    }
}

static void verify_all(struct work *w, struct runtime *rt)
{
    if (w->moves)
        verify_together(w);
    else
        runtime_parallel(rt, verify_job, w,
                         w->n_sealed < VERIFY_JOBS_MAX ? w->n_sealed : VERIFY_JOBS_MAX);
}

static void hold_all(struct work *w, struct adoption *out)
{
    for (uint32_t i = 0; i < w->n; i++) {
        const struct claim *c = &w->claims[i];
        kvcache_adopt(w->cache, c->sequence, c->n_pages, c->n_tokens);
        out->n_adopted += c->n_pages;
    }
    out->n_cached = w->n_cached;
    kvcache_adopt_cached(w->cache);
}

void adoption_run(struct kvcache *c, struct runtime *rt, struct sequence *const *sequences,
                  uint32_t n, bool keep_cached, struct adoption *out)
{
    uint32_t n_pool = c->pool->hdr->n_pages;
    struct work w = { .cache = c,
                      .pool = c->pool,
                      .n = n,
                      .keep_cached = keep_cached,
                      .moves = c->pool->data.quarantine_ns > 0,
                      .is_doubted = kvpool_is_doubted(c->pool, c->group) };

    *out = (struct adoption){ 0 };
    w.claims = mem_zalloc(n, sizeof *w.claims);
    w.marks = mem_zalloc(n_pool, sizeof *w.marks);
    w.sealed = mem_zalloc(n_pool, sizeof *w.sealed);
    claim_all(&w, sequences);
    verify_all(&w, rt);
    out->n_corrupt = count_corrupt(&w);
    for (uint32_t i = 0; i < n; i++)
        cut_bad(&w, &w.claims[i]);
    fault_point("worker.adopt");
    out->n_freed = reclaim(&w);
    hold_all(&w, out);
    for (uint32_t i = 0; i < n; i++)
        move(&w, &w.claims[i], out);
    kvpool_end_doubt(c->pool, c->group);
    free(w.claims);
    free(w.marks);
    free(w.sealed);
}
