/* kvcache.c - the life of a sequence's pages: listed as they were found, or copied, or new; filled, sealed, given back. */
#include "gpu-worker/kvcache.h"

#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/mem.h"
#include "gpu-worker/kvcache_state.h"

#define COPY_BYTES_MAX ((uint64_t)1 << 30) /* in one plan: streams wait for it */

void kvcache_init(struct kvcache *c, const struct kvcache_setup *setup)
{
    uint32_t n_pages = setup->pool->hdr->n_pages, share = n_pages / setup->n_groups;

    assert(setup->group < setup->n_groups);
    *c = (struct kvcache){
        .pool = setup->pool,
        .stats = setup->stats,
        .identity = setup->identity,
        .keeps_pages = setup->keeps_pages,
        .lease = kvpool_lease_of(setup->group, setup->epoch),
        .group = setup->group,
        .epoch = setup->epoch,
        .pages_max = share,
        .cursor = share * setup->group, /* start apart from the other groups */
        .oldest = KV_PAGE_NONE,
        .newest = KV_PAGE_NONE,
        .copy_bytes_left = COPY_BYTES_MAX,
    };
    c->older = mem_zalloc(n_pages, sizeof *c->older);
    c->newer = mem_zalloc(n_pages, sizeof *c->newer);
    c->is_doubted = mem_zalloc(n_pages, sizeof *c->is_doubted);
    c->open = mem_zalloc(share, sizeof *c->open);
    c->found = mem_zalloc(share, sizeof *c->found);
    c->ahead.pages = mem_zalloc(share, sizeof *c->ahead.pages);
    c->ahead.sums = mem_zalloc(share, sizeof *c->ahead.sums);
    c->ahead.place = mem_zalloc(n_pages, sizeof *c->ahead.place);
    kvcache_tier_open(c, setup);
}

void kvcache_fini(struct kvcache *c)
{
    kvcache_tier_close(c);
    free(c->older);
    free(c->newer);
    free(c->is_doubted);
    free(c->open);
    free(c->found);
    free(c->ahead.pages);
    free(c->ahead.sums);
    free(c->ahead.place);
    *c = (struct kvcache){ 0 };
}

uint64_t kvcache_root(const struct kvcache *c, const struct sequence *s)
{
    struct hash128 identity = c->identity;

    identity.low ^= s->request->cache_salt;
    return kvpool_prefix_root(c->pool, identity);
}

/* ---- plans ---- */

/* Pages that a step filled and nobody committed are written again by a later one. */
static void forget_ahead(struct kvcache *c)
{
    while (c->ahead.n > 0)
        c->ahead.place[c->ahead.pages[--c->ahead.n]] = 0;
}

void kvcache_begin_plan(struct kvcache *c)
{
    c->copy_bytes_left = COPY_BYTES_MAX;
    forget_ahead(c);
    if (c->n_quarantined > 0)
        c->n_quarantined = kvpool_end_quarantine(c->pool, c->group, clock_mono_ns());
    kvcache_tier_begin_plan(c);
}

/* ---- attach ---- */

static bool attach_own(struct kvcache *c, struct sequence *s, uint32_t k)
{
    uint32_t page = c->found[k].page;

    if (!kvcache_is_same(kvpool_ref(c->pool, page), c->found[k]) || !kvcache_trust(c, page))
        return false;
    kvcache_pin(c, page);
    kvcache_tier_note_hit(c, page);
    s->pages[k] = page;
    return true;
}

/* A page for a copy; KV_PAGE_NONE when enough was copied for this plan, or there is none. */
static uint32_t take_for_copy(struct kvcache *c)
{
    uint64_t bytes = c->pool->hdr->page_bytes;
    uint32_t page;

    if (bytes > c->copy_bytes_left || kvcache_n_free(c) == 0)
        return KV_PAGE_NONE;
    c->copy_bytes_left -= bytes;
    page = kvcache_take_page(c);
    fault_point("worker.copy");
    return page;
}

static bool attach_copied(struct kvcache *c, struct sequence *s, uint32_t k, uint32_t page, bool ok)
{
    if (!ok) {
        kvcache_unpin(c, page);
        return false;
    }
    if (kvcache_is_sealed(c, page))
        kvpool_publish(c->pool, page);
    stat_add(c->stats, STAT_kv_pages_copied, 1);
    s->pages[k] = page;
    return true;
}

/* Page number k of the sequence, its first n tokens, from a sealed page. */
static bool attach_copy(struct kvcache *c, struct sequence *s, uint32_t k, struct kvpool_ref from,
                        uint32_t n)
{
    uint32_t page = take_for_copy(c);

    return page != KV_PAGE_NONE &&
           attach_copied(c, s, k, page,
                         kvpool_copy(c->pool, page, from, kvcache_ids(c, s, k), n,
                                     kvcache_parent(s, k), kvcache_parent_hash(c, s, k)));
}

static bool attach_page(struct kvcache *c, struct sequence *s, uint32_t k)
{
    return kvcache_is_ours(c, c->found[k].page)
               ? attach_own(c, s, k)
               : attach_copy(c, s, k, c->found[k], c->pool->hdr->page_tokens);
}

/* What of page number k was found, from a sealed page or from one that is being filled. */
static bool attach_tail(struct kvcache *c, struct sequence *s, uint32_t k)
{
    uint32_t page;

    if (!c->tail_is_open)
        return attach_copy(c, s, k, c->tail, c->n_tail);
    page = take_for_copy(c);
    return page != KV_PAGE_NONE &&
           attach_copied(c, s, k, page,
                         kvpool_copy_open(c->pool, page, c->tail, kvcache_ids(c, s, k), c->n_tail));
}

void kvcache_list_pages(struct kvcache *c, struct sequence *s, uint32_t n)
{
    s->n_pages = n;
    s->entry->epoch = c->epoch;
    atomic_store_explicit(&s->entry->n_pages, n, memory_order_release);
}

void kvcache_attach(struct kvcache *c, struct sequence *s)
{
    uint32_t k = 0, n_tokens;

    assert(c->matched == s && s->n_pages == 0 && s->n_computed == 0);
    c->matched = NULL;
    while (k < c->n_found && attach_page(c, s, k))
        k++;
    n_tokens = k * c->pool->hdr->page_tokens;
    if (k == c->n_found && c->n_tail > 0 && attach_tail(c, s, k)) {
        kvcache_note_open(c, s, k);
        n_tokens += c->n_tail;
        k++;
    }
    fault_point("worker.attach");
    kvcache_list_pages(c, s, k);
    s->n_computed = n_tokens;
}

/* ---- the life of a sequence's pages ---- */

bool kvcache_grow(struct kvcache *c, struct sequence *s, uint32_t n_tokens)
{
    uint32_t want = kvcache_pages_for(c, n_tokens);

    if (want <= s->n_pages)
        return true;
    if (want - s->n_pages > kvcache_n_free(c))
        return false;
    for (uint32_t k = s->n_pages; k < want; k++)
        s->pages[k] = kvcache_take_page(c);
    kvcache_list_pages(c, s, want);
    return true;
}

void kvcache_expect(struct kvcache *c, const struct sequence *s, uint32_t n_tokens)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens, end = n_tokens / page_tokens;

    assert(end <= s->n_pages);
    for (uint32_t k = s->n_computed / page_tokens; k < end; k++) {
        uint32_t page = s->pages[k];
        assert(c->ahead.n < c->pages_max && c->ahead.place[page] == 0);
        c->ahead.pages[c->ahead.n++] = page;
        c->ahead.place[page] = c->ahead.n;
    }
}

void kvcache_read_ahead(struct kvcache *c)
{
    struct kvcache_sums *a = &c->ahead;

    if (a->n > 0 && !c->is_unreadable)
        c->is_unreadable = !kvpool_checksums(c->pool, a->pages, a->n, a->sums);
}

/* Of pages that all were read ahead, or are read now. */
static bool read_sums(const struct kvcache *c, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    const struct kvcache_sums *a = &c->ahead;

    for (uint32_t i = 0; i < n; i++) {
        if (a->place[pages[i]] == 0)
            return kvpool_checksums(c->pool, pages, n, sums);
        sums[i] = a->sums[a->place[pages[i]] - 1];
    }
    return true;
}

static void seal_one(struct kvcache *c, const struct sequence *s, uint32_t k, uint64_t checksum)
{
    kvcache_forget_open(c, s->pages[k]);
    fault_point("worker.seal");
    kvpool_seal_as(c->pool, s->pages[k], kvcache_parent(s, k), kvcache_parent_hash(c, s, k),
                   checksum);
    fault_point("worker.sealed");
    if (c->keeps_pages)
        kvpool_publish(c->pool, s->pages[k]);
}

/* Their data is read some at a time: asking a device is what takes time. */
void kvcache_seal(struct kvcache *c, const struct sequence *s, uint32_t k, uint32_t end)
{
    uint64_t sums[KVCACHE_SEALS_MAX];

    while (k < end && !c->is_unreadable) {
        uint32_t n = end - k < KVCACHE_SEALS_MAX ? end - k : KVCACHE_SEALS_MAX;
        c->is_unreadable = !read_sums(c, s->pages + k, n, sums);
        for (uint32_t i = 0; i < n && !c->is_unreadable; i++)
            seal_one(c, s, k + i, sums[i]);
        k += n;
    }
}

void kvcache_commit(struct kvcache *c, struct sequence *s, uint32_t n_tokens)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens, first = s->n_computed / page_tokens;
    uint32_t n_full = n_tokens / page_tokens, n_in_first = s->n_computed % page_tokens;

    assert(n_tokens >= s->n_computed && kvcache_pages_for(c, n_tokens) <= s->n_pages);
    while (s->n_computed < n_tokens) {
        uint32_t page = s->n_computed / page_tokens, begin = page * page_tokens;
        uint32_t end = n_tokens < begin + page_tokens ? n_tokens : begin + page_tokens;
        kvpool_commit(c->pool, s->pages[page], end - begin, s->tokens + s->n_computed);
        s->n_computed = end;
    }
    kvcache_seal(c, s, first, n_full);
    if (n_tokens % page_tokens != 0 && !c->is_unreadable && (n_full > first || n_in_first == 0))
        kvcache_note_open(c, s, n_full);
}

void kvcache_release(struct kvcache *c, struct sequence *s)
{
    atomic_store_explicit(&s->entry->n_pages, 0, memory_order_release);
    fault_point("worker.release");
    for (uint32_t k = s->n_pages; k-- > 0;)
        kvcache_unpin(c, s->pages[k]);
    s->n_pages = 0;
    s->n_computed = 0;
}

void kvcache_distrust(struct kvcache *c)
{
    kvpool_hide_all(c->pool);
    while (c->oldest != KV_PAGE_NONE)
        kvcache_drop(c, c->oldest);
}
