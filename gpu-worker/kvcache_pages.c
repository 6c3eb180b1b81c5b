/* kvcache_pages.c - the pages that the group has leased: open, pinned by sequences, cached, evicted.
 *
 * Always true: n_used and n_cached, and what the board says of both, are counted here, with pins and the list. */
#include <assert.h>

#include "common/fault_point.h"
#include "common/log.h"
#include "gpu-worker/kvcache_state.h"

/* ---- cached ones, in the order in which they go ---- */

void kvcache_keep(struct kvcache *c, uint32_t page)
{
    c->older[page] = c->newest;
    c->newer[page] = KV_PAGE_NONE;
    if (c->newest != KV_PAGE_NONE)
        c->newer[c->newest] = page;
    else
        c->oldest = page;
    c->newest = page;
    c->n_cached++;
    stat_add(c->stats, STAT_kv_pages_cached, 1);
}

static void take_out(struct kvcache *c, uint32_t page)
{
    uint32_t older = c->older[page], newer = c->newer[page];

    if (older != KV_PAGE_NONE)
        c->newer[older] = newer;
    else
        c->oldest = newer;
    if (newer != KV_PAGE_NONE)
        c->older[newer] = older;
    else
        c->newest = older;
    c->n_cached--;
    stat_sub(c->stats, STAT_kv_pages_cached, 1);
}

void kvcache_renew(struct kvcache *c, uint32_t page)
{
    take_out(c, page);
    kvcache_keep(c, page);
}

void kvcache_drop(struct kvcache *c, uint32_t page)
{
    kvcache_tier_let_go(c, page);
    take_out(c, page);
    kvpool_free(c->pool, c->lease, page);
}

static void evict_oldest(struct kvcache *c)
{
    uint32_t page = c->oldest;

    assert(page != KV_PAGE_NONE);
    kvcache_tier_save_first(c, page);
    kvcache_drop(c, page);
    c->cursor = page;
    fault_point("worker.evict");
}

/* A cached page of a predecessor is believed when its data is what was sealed; else it is dropped.  One that cannot be
 * read stays, since nothing is known of it. */
bool kvcache_trust(struct kvcache *c, uint32_t page)
{
    uint64_t sum;

    if (!c->is_doubted[page])
        return true;
    if (!kvpool_checksums(c->pool, &page, 1, &sum))
        return false;
    c->is_doubted[page] = false;
    if (sum == kvcache_desc(c, page)->checksum)
        return true;
    kvcache_drop(c, page);
    log_error("kv_page=%u is corrupt, computing its tokens again", page);
    stat_add(c->stats, STAT_kv_pages_corrupt, 1);
    return false;
}

/* ---- open ones ---- */

void kvcache_note_open(struct kvcache *c, const struct sequence *s, uint32_t k)
{
    if (!c->keeps_pages)
        return;
    assert(c->n_open < c->pages_max);
    c->open[c->n_open++] =
        (struct open_page){ .page = s->pages[k],
                            .parent = k > 0 ? kvpool_ref(c->pool, s->pages[k - 1])
                                            : (struct kvpool_ref){ KV_PAGE_NONE, 0 },
                            .parent_hash = kvcache_parent_hash(c, s, k) };
}

void kvcache_forget_open(struct kvcache *c, uint32_t page)
{
    uint32_t i = 0;

    while (i < c->n_open && c->open[i].page != page)
        i++;
    if (i < c->n_open)
        c->open[i] = c->open[--c->n_open];
}

/* ---- pins ---- */

void kvcache_pin_first(struct kvcache *c, uint32_t page)
{
    atomic_store_explicit(&kvcache_desc(c, page)->pins, 1, memory_order_relaxed);
    c->n_used++;
    stat_add(c->stats, STAT_kv_pages_leased, 1);
    stat_add(c->stats, STAT_kv_pages_pinned, 1);
}

void kvcache_pin(struct kvcache *c, uint32_t page)
{
    if (kvcache_n_pins(c, page) > 0) {
        atomic_fetch_add_explicit(&kvcache_desc(c, page)->pins, 1, memory_order_relaxed);
        stat_add(c->stats, STAT_kv_pages_pinned, 1);
    } else {
        take_out(c, page);
        kvcache_pin_first(c, page);
    }
}

void kvcache_unpin(struct kvcache *c, uint32_t page)
{
    struct kv_page_desc *d = kvcache_desc(c, page);

    stat_sub(c->stats, STAT_kv_pages_pinned, 1);
    if (atomic_fetch_sub_explicit(&d->pins, 1, memory_order_relaxed) > 1)
        return;
    c->n_used--;
    stat_sub(c->stats, STAT_kv_pages_leased, 1);
    if (c->keeps_pages && kvcache_is_sealed(c, page)) {
        d->last_used = ++c->n_uses;
        kvcache_keep(c, page);
    } else {
        kvcache_forget_open(c, page);
        kvpool_free(c->pool, c->lease, page);
    }
}

uint32_t kvcache_take_page(struct kvcache *c)
{
    uint32_t page;

    assert(kvcache_n_free(c) > 0);
    if (c->n_used + c->n_cached + c->n_quarantined == c->pages_max)
        evict_oldest(c);
    page = kvpool_lease(c->pool, c->lease, &c->cursor);
    assert(page != KV_PAGE_NONE); /* shares add up to the pool, and dead epochs were reclaimed */
    c->is_doubted[page] = false;
    if (c->tier)
        c->n_hits[page] = 0;
    kvcache_pin_first(c, page);
    return page;
}

uint32_t kvcache_n_exclusive(const struct kvcache *c, const struct sequence *s)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < s->n_pages; k++)
        n += kvcache_n_pins(c, s->pages[k]) == 1;
    return n;
}
