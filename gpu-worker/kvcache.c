/* kvcache.c - lease, pin, commit and give back the pages of a sequence. */
#include "gpu-worker/kvcache.h"

#include <assert.h>

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

void kvcache_commit(struct kvcache *c, struct sequence *s, uint32_t n_tokens)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens;

    assert(n_tokens >= s->n_computed && kvcache_pages_for(c, n_tokens) <= s->n_pages);
    while (s->n_computed < n_tokens) {
        uint32_t page = s->n_computed / page_tokens, begin = page * page_tokens;
        uint32_t end = n_tokens < begin + page_tokens ? n_tokens : begin + page_tokens;
        kvpool_commit(c->pool, s->pages[page], end - begin, s->tokens + s->n_computed);
        s->n_computed = end;
        /* TODO(prefix cache): a page that is full now is sealed here, under the chained hash of all
         * tokens up to `end`; that comes with the look-up that uses it. */
    }
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
