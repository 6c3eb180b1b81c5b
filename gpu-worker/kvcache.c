/* kvcache.c - lease, pin, commit, seal, take over and give back the pages of a sequence.
 *
 * TODO(prefix cache): sealed pages have all that a look-up by hash needs, and release still frees them: a
 * page that may be found again is unpinned instead, and freed when pages run out.  Comes with the look-up. */
#include "gpu-worker/kvcache.h"

#include <assert.h>

#include "common/fault_point.h"

void kvcache_init(struct kvcache *c, struct kvpool *pool, struct stats *stats, uint32_t group,
                  uint32_t n_groups, uint32_t epoch)
{
    assert(group < n_groups);
    *c = (struct kvcache){
        .pool = pool,
        .stats = stats,
        .lease = kvpool_lease_of(group, epoch),
        .epoch = epoch,
        .pages_max = pool->hdr->n_pages / n_groups,
        .cursor = pool->hdr->n_pages / n_groups * group, /* start apart from the other groups */
    };
}

static uint32_t take_page(struct kvcache *c)
{
    uint32_t page = kvpool_lease(c->pool, c->lease, &c->cursor);

    assert(page != KV_PAGE_NONE); /* shares add up to the pool, and dead epochs were reclaimed */
    atomic_fetch_add_explicit(&c->pool->descs[page].pins, 1, memory_order_relaxed);
    c->n_leased++;
    return page;
}

bool kvcache_grow(struct kvcache *c, struct sequence *s, uint32_t n_tokens)
{
    uint32_t want = kvcache_pages_for(c, n_tokens), n_new;

    if (want <= s->n_pages)
        return true;
    n_new = want - s->n_pages;
    if (n_new > kvcache_n_free(c))
        return false;
    while (s->n_pages < want)
        s->pages[s->n_pages++] = take_page(c);
    s->entry->epoch = c->epoch;
    atomic_store_explicit(&s->entry->n_pages, s->n_pages, memory_order_release);
    stat_add(c->stats, STAT_kv_pages_leased, n_new);
    stat_add(c->stats, STAT_kv_pages_pinned, n_new);
    return true;
}

static void seal(struct kvcache *c, const struct sequence *s, uint32_t k)
{
    fault_point("worker.seal");
    kvpool_seal(c->pool, s->pages[k], k > 0 ? s->pages[k - 1] : KV_PAGE_NONE);
}

void kvcache_commit(struct kvcache *c, struct sequence *s, uint32_t n_tokens)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens;

    assert(n_tokens >= s->n_computed && kvcache_pages_for(c, n_tokens) <= s->n_pages);
    while (s->n_computed < n_tokens) {
        uint32_t page = s->n_computed / page_tokens, begin = page * page_tokens;
        uint32_t end = n_tokens < begin + page_tokens ? n_tokens : begin + page_tokens;
        kvpool_commit(c->pool, s->pages[page], end - begin, s->tokens + s->n_computed);
        s->n_computed = end;
        if (end == begin + page_tokens)
            seal(c, s, page);
    }
}

/* A page that was full when its worker died, and not yet sealed, is sealed now. */
static void adopt_page(struct kvcache *c, struct sequence *s, uint32_t k)
{
    struct kv_page_desc *d = &c->pool->descs[s->pages[k]];

    assert(atomic_load_explicit(&d->lease, memory_order_relaxed) == c->lease);
    atomic_store_explicit(&d->pins, 1, memory_order_relaxed);
    if (atomic_load_explicit(&d->n_tokens, memory_order_relaxed) == c->pool->hdr->page_tokens &&
        !atomic_load_explicit(&d->sealed, memory_order_relaxed))
        seal(c, s, k);
}

void kvcache_adopt(struct kvcache *c, struct sequence *s, uint32_t n_pages, uint32_t n_tokens)
{
    assert(s->n_pages == 0 && n_pages == kvcache_pages_for(c, n_tokens));
    assert(n_pages <= kvcache_n_free(c));
    for (uint32_t k = 0; k < n_pages; k++)
        adopt_page(c, s, k);
    s->n_pages = n_pages;
    s->n_computed = n_tokens;
    s->entry->epoch = c->epoch;
    c->n_leased += n_pages;
    stat_add(c->stats, STAT_kv_pages_leased, n_pages);
    stat_add(c->stats, STAT_kv_pages_pinned, n_pages);
}

void kvcache_release(struct kvcache *c, struct sequence *s)
{
    uint32_t n = s->n_pages;

    atomic_store_explicit(&s->entry->n_pages, 0, memory_order_release);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = s->pages[i];
        atomic_fetch_sub_explicit(&c->pool->descs[page].pins, 1, memory_order_relaxed);
        kvpool_free(c->pool, c->lease, page);
    }
    s->n_pages = 0;
    s->n_computed = 0;
    c->n_leased -= n;
    stat_sub(c->stats, STAT_kv_pages_leased, n);
    stat_sub(c->stats, STAT_kv_pages_pinned, n);
}
