/* kvcache_adopt.c - after a death: the pages of a predecessor that are this epoch's now.
 *
 * Which they are adoption.c has found out, and of those that sequences list, that they hold what they should.  Here they
 * are pinned, sealed if the predecessor had no time to, or cached, as if this process had filled them. */
#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/kvcache_state.h"

/* A page that was full when its worker died, and not yet sealed, is sealed now; one that was sealed may not
 * be in the index yet. */
static void adopt_page(struct kvcache *c, struct sequence *s, uint32_t k)
{
    uint32_t page = s->pages[k];
    struct kv_page_desc *d = kvcache_desc(c, page);

    assert(kvcache_is_ours(c, page));
    if (kvcache_n_pins(c, page) > 0) {
        kvcache_pin(c, page);
        return;
    }
    kvcache_pin_first(c, page);
    if (kvcache_is_sealed(c, page)) {
        if (c->keeps_pages)
            kvpool_publish(c->pool, page);
    } else if (atomic_load_explicit(&d->n_tokens, memory_order_relaxed) ==
               c->pool->hdr->page_tokens) {
        kvcache_seal(c, s, k, k + 1);
    }
}

void kvcache_adopt(struct kvcache *c, struct sequence *s, uint32_t n_pages, uint32_t n_tokens)
{
    assert(s->n_pages == 0 && n_pages == kvcache_pages_for(c, n_tokens));
    for (uint32_t k = 0; k < n_pages; k++)
        adopt_page(c, s, k);
    assert(c->n_used <= c->pages_max);
    s->n_pages = n_pages;
    s->n_computed = n_tokens;
    s->entry->epoch = c->epoch;
    if (n_tokens % c->pool->hdr->page_tokens != 0)
        kvcache_note_open(c, s, n_pages - 1);
}

struct use {
    uint64_t last_used;
    uint32_t page;
};

static int compare_uses(const void *a, const void *b)
{
    const struct use *x = a, *y = b;

    if (x->last_used != y->last_used)
        return x->last_used < y->last_used ? -1 : 1;
    return x->page < y->page ? -1 : x->page > y->page;
}

/* A page that was pinned when its worker died may have no use noted, and counts as long unused. */
void kvcache_adopt_cached(struct kvcache *c)
{
    uint32_t n_pages = c->pool->hdr->n_pages, n = 0;
    struct use *uses = mem_zalloc(n_pages, sizeof *uses);

    for (uint32_t page = 0; page < n_pages; page++)
        if (kvcache_is_ours(c, page) && kvcache_n_pins(c, page) == 0)
            uses[n++] = (struct use){ kvcache_desc(c, page)->last_used, page };
    qsort(uses, n, sizeof *uses, compare_uses);
    c->n_quarantined = kvpool_end_quarantine(c->pool, c->group, clock_mono_ns());
    for (uint32_t i = 0; i < n; i++) {
        assert(kvcache_is_sealed(c, uses[i].page));
        c->is_doubted[uses[i].page] = true;
        kvcache_keep(c, uses[i].page);
    }
    if (n > 0)
        c->n_uses = uses[n - 1].last_used;
    free(uses);
    while (c->n_cached > 0 && c->n_used + c->n_cached + c->n_quarantined > c->pages_max)
        kvcache_drop(c, c->oldest);
}

bool kvcache_adopt_moved(struct kvcache *c, struct sequence *s, uint32_t from, uint32_t n_tokens)
{
    uint32_t k = s->n_pages, page;

    assert(s->n_computed == k * c->pool->hdr->page_tokens);
    if (kvcache_n_free(c) == 0 || c->is_unreadable)
        return false;
    page = kvcache_take_page(c);
    if (!kvpool_copy_quarantined(c->pool, page, from, kvcache_ids(c, s, k), n_tokens)) {
        kvcache_unpin(c, page);
        return false;
    }
    stat_add(c->stats, STAT_kv_pages_copied, 1);
    s->pages[k] = page;
    s->n_computed += n_tokens;
    kvcache_list_pages(c, s, k + 1);
    if (n_tokens == c->pool->hdr->page_tokens)
        kvcache_seal(c, s, k, k + 1);
    else
        kvcache_note_open(c, s, k);
    return true;
}
