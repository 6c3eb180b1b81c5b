/* kvpool.c - the KV page pool: layout, leasing by compare-and-swap, reclaiming after a death. */
#include "proto/kvpool.h"

#include <string.h>

#include "common/hash.h"

uint64_t kvpool_page_bytes(const struct kvpool_shape *shape)
{
    return dtype_bytes(shape->dtype, (size_t)shape->n_layers * 2 * shape->n_kv_heads *
                                         shape->page_tokens * shape->head_dim);
}

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

bool kvpool_create(struct kvpool *p, const struct kvpool_shape *shape, uint64_t instance,
                   struct err *e)
{
    uint64_t page_bytes = kvpool_page_bytes(shape);
    uint64_t tokens_offset =
        KVPOOL_DESCS_OFFSET + (uint64_t)shape->n_pages * sizeof(struct kv_page_desc);
    uint64_t ids_bytes = (uint64_t)shape->n_pages * shape->page_tokens * sizeof(int32_t);
    uint64_t data_offset = round_up(tokens_offset + ids_bytes, KVPOOL_DATA_ALIGN);
    struct segment s;

    assert(shape->n_pages > 0 && shape->n_pages < KV_PAGE_NONE && page_bytes > 0);
    if (!segment_create_large(&s, SEGMENT_KVPOOL, KVPOOL_VERSION, "llmd-kvpool",
                              data_offset + shape->n_pages * page_bytes, instance, e))
        return false;
    *p = (struct kvpool){ .segment = s, .hdr = (struct kvpool_hdr *)s.hdr };
    p->descs = segment_at(&s, KVPOOL_DESCS_OFFSET);
    p->hdr->n_pages = shape->n_pages;
    p->hdr->page_tokens = shape->page_tokens;
    p->hdr->page_bytes = page_bytes;
    p->hdr->n_layers = shape->n_layers;
    p->hdr->n_kv_heads = shape->n_kv_heads;
    p->hdr->head_dim = shape->head_dim;
    p->hdr->dtype = shape->dtype;
    p->hdr->tokens_offset = tokens_offset;
    p->hdr->data_offset = data_offset;
    return true;
}

/* Descriptors, token ids and pages follow one another inside the segment; no sum here can wrap. */
static bool offsets_fit(const struct kvpool_hdr *h, size_t bytes)
{
    return h->n_pages > 0 && h->page_tokens > 0 && h->page_bytes > 0 && h->data_offset <= bytes &&
           h->data_offset % KVPOOL_DATA_ALIGN == 0 &&
           h->n_pages <= (bytes - h->data_offset) / h->page_bytes &&
           h->tokens_offset <= h->data_offset && h->tokens_offset % sizeof(int32_t) == 0 &&
           h->page_tokens <= (h->data_offset - h->tokens_offset) / sizeof(int32_t) / h->n_pages &&
           KVPOOL_DESCS_OFFSET + (uint64_t)h->n_pages * sizeof(struct kv_page_desc) <=
               h->tokens_offset;
}

bool kvpool_attach(struct kvpool *p, int fd, struct err *e)
{
    const struct kvpool_hdr *h;
    struct segment s;

    if (!segment_attach(&s, fd, SEGMENT_KVPOOL, KVPOOL_VERSION, true, e))
        return false;
    h = (const struct kvpool_hdr *)s.hdr;
    if (!offsets_fit(h, s.bytes)) {
        segment_close(&s);
        return err_set(e, ERR_PROTO, 0, "kvpool: its offsets do not fit its size");
    }
    *p = (struct kvpool){ .segment = s, .hdr = (struct kvpool_hdr *)s.hdr };
    p->descs = segment_at(&s, KVPOOL_DESCS_OFFSET);
    return true;
}

void kvpool_close(struct kvpool *p)
{
    segment_close(&p->segment);
    p->hdr = NULL;
    p->descs = NULL;
}

uint32_t kvpool_lease(struct kvpool *p, uint64_t lease, uint32_t *cursor)
{
    uint32_t n = p->hdr->n_pages;

    assert(lease != 0);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = (uint32_t)(((uint64_t)*cursor + i) % n);
        uint64_t expected = 0;
        if (atomic_load_explicit(&p->descs[page].lease, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&p->descs[page].lease, &expected, lease,
                                                    memory_order_acquire, memory_order_relaxed)) {
            p->descs[page].parent = KV_PAGE_NONE; /* 0, a page, where none was ever freed */
            *cursor = (page + 1) % n;
            return page;
        }
    }
    return KV_PAGE_NONE;
}

static void free_page(struct kv_page_desc *d)
{
    atomic_store_explicit(&d->sealed, 0, memory_order_relaxed);
    atomic_store_explicit(&d->n_tokens, 0, memory_order_relaxed);
    atomic_store_explicit(&d->pins, 0, memory_order_relaxed);
    d->prefix_hash = 0;
    d->checksum = 0;
    d->parent = KV_PAGE_NONE;
    d->parent_generation = 0;
    atomic_fetch_add_explicit(&d->generation, 1, memory_order_relaxed);
    atomic_store_explicit(&d->lease, 0, memory_order_release);
}

void kvpool_free(struct kvpool *p, uint64_t lease, uint32_t page)
{
    struct kv_page_desc *d = &p->descs[page];

    assert(page < p->hdr->n_pages);
    assert(atomic_load_explicit(&d->lease, memory_order_relaxed) == lease);
    assert(atomic_load_explicit(&d->pins, memory_order_relaxed) == 0);
    free_page(d);
}

void kvpool_commit(struct kvpool *p, uint32_t page, uint32_t n_tokens, const int32_t *ids)
{
    struct kv_page_desc *d = &p->descs[page];
    uint32_t have = atomic_load_explicit(&d->n_tokens, memory_order_relaxed);

    assert(n_tokens >= have && n_tokens <= p->hdr->page_tokens);
    if (n_tokens == have)
        return;
    assert(!atomic_load_explicit(&d->sealed, memory_order_relaxed));
    memcpy(kvpool_token_ids(p, page) + have, ids, (n_tokens - have) * sizeof *ids);
    atomic_store_explicit(&d->n_tokens, n_tokens, memory_order_release);
}

uint64_t kvpool_prefix_hash(uint64_t parent, const int32_t *ids, uint32_t n)
{
    return hash64(ids, n * sizeof *ids, parent);
}

static uint64_t checksum_of(const struct kvpool *p, uint32_t page)
{
    return hash64(kvpool_page(p, page), p->hdr->page_bytes, 0);
}

void kvpool_seal(struct kvpool *p, uint32_t page, uint32_t parent)
{
    struct kv_page_desc *d = &p->descs[page];
    const struct kv_page_desc *before = parent == KV_PAGE_NONE ? NULL : &p->descs[parent];

    assert(atomic_load_explicit(&d->n_tokens, memory_order_relaxed) == p->hdr->page_tokens);
    assert(!atomic_load_explicit(&d->sealed, memory_order_relaxed));
    assert(!before || atomic_load_explicit(&before->sealed, memory_order_relaxed));
    d->prefix_hash = kvpool_prefix_hash(before ? before->prefix_hash : 0, kvpool_token_ids(p, page),
                                        p->hdr->page_tokens);
    d->checksum = checksum_of(p, page);
    d->parent = parent;
    d->parent_generation =
        before ? atomic_load_explicit(&before->generation, memory_order_relaxed) : 0;
    atomic_store_explicit(&d->sealed, 1, memory_order_release);
}

bool kvpool_is_intact(const struct kvpool *p, uint32_t page)
{
    return checksum_of(p, page) == p->descs[page].checksum;
}

uint32_t kvpool_reclaim(struct kvpool *p, uint32_t group, uint32_t epoch,
                        bool (*keep)(uint32_t page, void *arg), void *arg)
{
    uint64_t mine = kvpool_lease_of(group, epoch);
    uint32_t n_freed = 0;

    for (uint32_t page = 0; page < p->hdr->n_pages; page++) {
        struct kv_page_desc *d = &p->descs[page];
        uint64_t lease = atomic_load_explicit(&d->lease, memory_order_acquire);
        if (lease >> 32 != group + 1 || lease == mine)
            continue;
        if (keep && keep(page, arg)) {
            atomic_store_explicit(&d->pins, 0, memory_order_relaxed);
            atomic_store_explicit(&d->lease, mine, memory_order_release);
        } else {
            free_page(d);
            n_freed++;
        }
    }
    return n_freed;
}

uint32_t kvpool_count_free(const struct kvpool *p)
{
    uint32_t n = 0;

    for (uint32_t page = 0; page < p->hdr->n_pages; page++)
        n += atomic_load_explicit(&p->descs[page].lease, memory_order_relaxed) == 0;
    return n;
}
