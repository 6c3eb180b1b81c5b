/* kvpool.c - the KV page pool: layout, leasing by compare-and-swap, finding, reclaiming after a death. */
#include "proto/kvpool.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"

enum {
    INDEX_WINDOW = 16, /* slots that a page may lie in, from that of its key on */
    NEXT_MAX = 4,      /* pages kept under the key of one parent, if it needs others' slots */
};

uint64_t kvpool_page_bytes(const struct kvpool_shape *shape)
{
    return (uint64_t)shape->n_layers * 2 * shape->n_kv_heads *
           kv_block_bytes(shape->dtype, shape->page_tokens, shape->head_dim);
}

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

static uint32_t index_slots_for(uint32_t n_pages)
{
    uint32_t n = INDEX_WINDOW;

    while (n / 4 < n_pages && n < 1u << 31)
        n *= 2;
    return n;
}

/* ---- data in host memory: ctx is the header ---- */

static char *host_page(const struct kvpool_hdr *h, uint32_t page)
{
    return (char *)(uintptr_t)h + h->data_offset + page * h->page_bytes;
}

static bool host_checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    const struct kvpool_hdr *h = ctx;

    for (uint32_t i = 0; i < n; i++)
        sums[i] = hash64(host_page(h, pages[i]), h->page_bytes, 0);
    return true;
}

/* All of it: its tokens do not lie side by side. */
static bool host_copy(void *ctx, uint32_t to, uint32_t from, uint32_t n_tokens)
{
    const struct kvpool_hdr *h = ctx;

    (void)n_tokens;
    memcpy(host_page(h, to), host_page(h, from), h->page_bytes);
    return true;
}

/* ---- data on a device, before the worker has said how ---- */

static bool no_checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    (void)ctx, (void)pages, (void)n, (void)sums;
    return false;
}

static bool no_copy(void *ctx, uint32_t to, uint32_t from, uint32_t n_tokens)
{
    (void)ctx, (void)to, (void)from, (void)n_tokens;
    return false;
}

/* ---- make, attach ---- */

static void map_parts(struct kvpool *p, const struct segment *s)
{
    *p = (struct kvpool){ .segment = *s, .hdr = (struct kvpool_hdr *)s->hdr };
    p->descs = segment_at(s, KVPOOL_DESCS_OFFSET);
    p->index = segment_at(s, p->hdr->index_offset);
}

static void set_defaults(struct kvpool *p)
{
    bool on_device = p->hdr->place == KV_PLACE_DEVICE;

    p->data = (struct kv_data){ .ctx = p->hdr,
                                .checksums = on_device ? no_checksums : host_checksums,
                                .copy = on_device ? no_copy : host_copy };
    p->first = 0;
    p->n = p->hdr->n_pages;
}

void kvpool_set_data(struct kvpool *p, const struct kv_data *data)
{
    p->data = *data;
}

void kvpool_set_share(struct kvpool *p, uint32_t first, uint32_t n)
{
    assert(n > 0 && first < p->hdr->n_pages && n <= p->hdr->n_pages - first);
    p->first = first;
    p->n = n;
}

bool kvpool_create(struct kvpool *p, const struct kvpool_shape *shape, uint64_t instance,
                   struct err *e)
{
    uint64_t page_bytes = kvpool_page_bytes(shape);
    uint64_t tokens_offset =
        KVPOOL_DESCS_OFFSET + (uint64_t)shape->n_pages * sizeof(struct kv_page_desc);
    uint64_t ids_bytes = (uint64_t)shape->n_pages * shape->page_tokens * sizeof(int32_t);
    uint64_t index_offset = round_up(tokens_offset + ids_bytes, sizeof(struct kv_page_desc));
    uint64_t index_bytes = (uint64_t)index_slots_for(shape->n_pages) * sizeof(uint64_t);
    uint64_t data_offset = round_up(index_offset + index_bytes, KVPOOL_DATA_ALIGN), seed;
    struct segment s;

    assert(shape->n_pages > 0 && shape->n_pages < KV_PAGE_NONE && page_bytes > 0);
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return err_set(e, ERR_SYS, errno, "draw the hash seed of the KV pool");
    if (!segment_create_large(&s, SEGMENT_KVPOOL, KVPOOL_VERSION, "llmd-kvpool",
                              data_offset + (shape->on_device ? 0 : shape->n_pages * page_bytes),
                              instance, !shape->small_pages && !shape->on_device, e))
        return false;
    ((struct kvpool_hdr *)s.hdr)->index_offset = index_offset;
    map_parts(p, &s);
    p->hdr->n_pages = shape->n_pages;
    p->hdr->page_tokens = shape->page_tokens;
    p->hdr->page_bytes = page_bytes;
    p->hdr->n_layers = shape->n_layers;
    p->hdr->n_kv_heads = shape->n_kv_heads;
    p->hdr->head_dim = shape->head_dim;
    p->hdr->dtype = shape->dtype;
    p->hdr->tokens_offset = tokens_offset;
    p->hdr->data_offset = data_offset;
    p->hdr->index_slots = index_slots_for(shape->n_pages);
    p->hdr->hash_seed = seed;
    p->hdr->place = shape->on_device ? KV_PLACE_DEVICE : KV_PLACE_HOST;
    set_defaults(p);
    return true;
}

/* Between the token ids and the pages, and large enough for a window. */
static bool index_fits(const struct kvpool_hdr *h)
{
    return h->index_slots >= INDEX_WINDOW && (h->index_slots & (h->index_slots - 1)) == 0 &&
           h->index_offset <= h->data_offset && h->index_offset % sizeof(uint64_t) == 0 &&
           h->index_slots <= (h->data_offset - h->index_offset) / sizeof(uint64_t);
}

static bool data_fits(const struct kvpool_hdr *h, size_t bytes)
{
    return h->place == KV_PLACE_DEVICE ||
           (h->place == KV_PLACE_HOST && h->n_pages <= (bytes - h->data_offset) / h->page_bytes);
}

/* Descriptors, token ids, index and pages follow one another in the segment; no sum here can wrap. */
static bool offsets_fit(const struct kvpool_hdr *h, size_t bytes)
{
    return h->n_pages > 0 && h->page_tokens > 0 && h->page_bytes > 0 && h->data_offset <= bytes &&
           h->data_offset % KVPOOL_DATA_ALIGN == 0 && data_fits(h, bytes) && index_fits(h) &&
           h->tokens_offset <= h->index_offset && h->tokens_offset % sizeof(int32_t) == 0 &&
           h->page_tokens <= (h->index_offset - h->tokens_offset) / sizeof(int32_t) / h->n_pages &&
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
    map_parts(p, &s);
    set_defaults(p);
    return true;
}

void kvpool_close(struct kvpool *p)
{
    segment_close(&p->segment);
    p->hdr = NULL;
    p->descs = NULL;
    p->index = NULL;
}

uint32_t kvpool_lease(struct kvpool *p, uint64_t lease, uint32_t *cursor)
{
    uint64_t begin = *cursor >= p->first ? *cursor - p->first : 0;

    assert(lease != 0);
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t page = p->first + (uint32_t)((begin + i) % p->n);
        uint64_t expected = 0;
        if (atomic_load_explicit(&p->descs[page].lease, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&p->descs[page].lease, &expected, lease,
                                                    memory_order_acquire, memory_order_relaxed)) {
            p->descs[page].parent = KV_PAGE_NONE; /* 0, a page, where none was ever freed */
            *cursor = page + 1 < p->first + p->n ? page + 1 : p->first;
            return page;
        }
    }
    return KV_PAGE_NONE;
}

/* It holds nothing any more; .lease and .last_used are the caller's. */
static void wipe(struct kv_page_desc *d)
{
    atomic_fetch_add_explicit(&d->generation, 1, memory_order_relaxed);
    /* who sees anything of the rest sees that too */
    atomic_store_explicit(&d->sealed, 0, memory_order_release);
    atomic_store_explicit(&d->n_tokens, 0, memory_order_release);
    atomic_store_explicit(&d->pins, 0, memory_order_release);
    atomic_store_explicit(&d->prefix_hash, 0, memory_order_release);
    atomic_store_explicit(&d->parent_hash, 0, memory_order_release);
    d->checksum = 0;
    d->parent = KV_PAGE_NONE;
    d->parent_generation = 0;
}

static void free_page(struct kv_page_desc *d)
{
    wipe(d);
    d->last_used = 0;
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

uint64_t kvpool_prefix_root(const struct kvpool *p, struct hash128 identity)
{
    uint64_t words[] = { identity.low, identity.high,
                         atomic_load_explicit(&p->hdr->era, memory_order_relaxed) };

    return hash64(words, sizeof words, p->hdr->hash_seed);
}

void kvpool_hide_all(struct kvpool *p)
{
    atomic_fetch_add_explicit(&p->hdr->era, 1, memory_order_relaxed);
}

bool kvpool_checksums(const struct kvpool *p, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    return p->data.checksums(p->data.ctx, pages, n, sums);
}

void kvpool_seal_as(struct kvpool *p, uint32_t page, uint32_t parent, uint64_t parent_hash,
                    uint64_t checksum)
{
    struct kv_page_desc *d = &p->descs[page];
    const struct kv_page_desc *before = parent == KV_PAGE_NONE ? NULL : &p->descs[parent];
    uint64_t hash = kvpool_prefix_hash(parent_hash, kvpool_token_ids(p, page), p->hdr->page_tokens);

    assert(atomic_load_explicit(&d->n_tokens, memory_order_relaxed) == p->hdr->page_tokens);
    assert(!atomic_load_explicit(&d->sealed, memory_order_relaxed));
    assert(!before || atomic_load_explicit(&before->sealed, memory_order_relaxed));
    atomic_store_explicit(&d->prefix_hash, hash, memory_order_relaxed);
    atomic_store_explicit(&d->parent_hash, parent_hash, memory_order_relaxed);
    d->checksum = checksum;
    d->parent = parent;
    d->parent_generation =
        before ? atomic_load_explicit(&before->generation, memory_order_relaxed) : 0;
    atomic_store_explicit(&d->sealed, 1, memory_order_release);
}

bool kvpool_seal(struct kvpool *p, uint32_t page, uint32_t parent, uint64_t parent_hash)
{
    uint64_t sum;

    if (!kvpool_checksums(p, &page, 1, &sum))
        return false;
    kvpool_seal_as(p, page, parent, parent_hash, sum);
    return true;
}

bool kvpool_is_intact(const struct kvpool *p, uint32_t page)
{
    uint64_t sum;

    return kvpool_checksums(p, &page, 1, &sum) && sum == p->descs[page].checksum;
}

/* ---- finding pages ---- */

struct kvpool_ref kvpool_ref(const struct kvpool *p, uint32_t page)
{
    return (struct kvpool_ref){ page, atomic_load_explicit(&p->descs[page].generation,
                                                           memory_order_acquire) };
}

static bool is_sealed(const struct kvpool *p, struct kvpool_ref ref)
{
    return atomic_load_explicit(&p->descs[ref.page].sealed, memory_order_acquire) &&
           atomic_load_explicit(&p->descs[ref.page].generation, memory_order_acquire) ==
               ref.generation;
}

/* After reading: whether all of that was of the page that ref names.  Adding nothing, with release, keeps the
 * reads before it, as a fence would; the thread sanitizer knows no fences. */
static bool is_still(const struct kvpool *p, struct kvpool_ref ref)
{
    return atomic_fetch_add_explicit(&p->descs[ref.page].generation, 0, memory_order_acq_rel) ==
           ref.generation;
}

static uint64_t key_of_next(uint64_t parent_hash)
{
    return ~parent_hash;
}

static _Atomic uint64_t *slot_of(const struct kvpool *p, uint64_t key, uint32_t i)
{
    return &p->index[(key + i) & (p->hdr->index_slots - 1)];
}

static uint64_t slot_value(struct kvpool_ref ref)
{
    return (uint64_t)ref.generation << 32 | (ref.page + 1);
}

/* What a slot names, when that is a sealed page. */
static bool read_slot(const struct kvpool *p, uint64_t slot, struct kvpool_ref *out)
{
    struct kvpool_ref ref = { (uint32_t)slot - 1, (uint32_t)(slot >> 32) };

    if ((uint32_t)slot == 0 || ref.page >= p->hdr->n_pages || !is_sealed(p, ref))
        return false;
    *out = ref;
    return true;
}

/* Into a slot that names nothing, else over another. */
static void put(struct kvpool *p, uint64_t key, uint32_t page)
{
    uint64_t value = slot_value(kvpool_ref(p, page));
    struct kvpool_ref other;

    for (uint32_t i = 0; i < INDEX_WINDOW; i++)
        if (atomic_load_explicit(slot_of(p, key, i), memory_order_relaxed) == value)
            return;
    for (uint32_t i = 0; i < INDEX_WINDOW; i++) {
        uint64_t slot = atomic_load_explicit(slot_of(p, key, i), memory_order_relaxed);
        if (!read_slot(p, slot, &other) &&
            atomic_compare_exchange_strong_explicit(slot_of(p, key, i), &slot, value,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    atomic_store_explicit(slot_of(p, key, page % INDEX_WINDOW), value, memory_order_release);
}

/* A prompt that thousands go on from has as many next pages; a few are enough. */
static bool has_next_enough(const struct kvpool *p, uint64_t parent_hash)
{
    struct kvpool_ref ref;
    uint32_t at = 0, n = 0;

    while (n < NEXT_MAX && kvpool_find_next(p, parent_hash, &at, &ref))
        n++;
    return n == NEXT_MAX;
}

void kvpool_publish(struct kvpool *p, uint32_t page)
{
    const struct kv_page_desc *d = &p->descs[page];
    uint64_t parent_hash = atomic_load_explicit(&d->parent_hash, memory_order_relaxed);

    put(p, atomic_load_explicit(&d->prefix_hash, memory_order_relaxed), page);
    if (!has_next_enough(p, parent_hash))
        put(p, key_of_next(parent_hash), page);
}

bool kvpool_find(const struct kvpool *p, uint64_t hash, uint32_t *at, struct kvpool_ref *out)
{
    while (*at < INDEX_WINDOW) {
        uint64_t slot = atomic_load_explicit(slot_of(p, hash, (*at)++), memory_order_acquire);
        struct kvpool_ref ref;
        if (read_slot(p, slot, &ref) &&
            atomic_load_explicit(&p->descs[ref.page].prefix_hash, memory_order_relaxed) == hash) {
            *out = ref;
            return true;
        }
    }
    return false;
}

bool kvpool_find_next(const struct kvpool *p, uint64_t parent_hash, uint32_t *at,
                      struct kvpool_ref *out)
{
    while (*at < INDEX_WINDOW) {
        uint64_t slot = atomic_load_explicit(slot_of(p, key_of_next(parent_hash), (*at)++),
                                             memory_order_acquire);
        struct kvpool_ref ref;
        if (read_slot(p, slot, &ref) && atomic_load_explicit(&p->descs[ref.page].parent_hash,
                                                             memory_order_relaxed) == parent_hash) {
            *out = ref;
            return true;
        }
    }
    return false;
}

uint32_t kvpool_common(const struct kvpool *p, struct kvpool_ref ref, const int32_t *ids,
                       uint32_t n, struct kvpool_ref *parent)
{
    const struct kv_page_desc *d = &p->descs[ref.page];
    const int32_t *have = kvpool_token_ids(p, ref.page);
    struct kvpool_ref before;
    uint32_t n_same = 0;

    assert(n <= p->hdr->page_tokens);
    if (!is_sealed(p, ref))
        return 0;
    while (n_same < n && have[n_same] == ids[n_same])
        n_same++;
    before = (struct kvpool_ref){ d->parent, d->parent_generation };
    if (!is_still(p, ref))
        return 0;
    *parent = before;
    return n_same;
}

bool kvpool_copy(struct kvpool *p, uint32_t page, struct kvpool_ref from, const int32_t *ids,
                 uint32_t n, uint32_t parent, uint64_t parent_hash)
{
    uint64_t wanted = p->descs[from.page].checksum, found;

    if (page == from.page) /* evicted a moment ago, and leased again for this */
        return false;
    if (!kvpool_is_in_reach(p, from.page) ||
        !p->data.copy(p->data.ctx, page, from.page, p->hdr->page_tokens) ||
        !kvpool_checksums(p, &page, 1, &found))
        return false;
    if (!is_still(p, from))
        return false;
    if (found != wanted) {
        if (p->data.was_wrong)
            p->data.was_wrong(p->data.ctx, from.page);
        return false;
    }
    kvpool_commit(p, page, n, ids);
    if (n == p->hdr->page_tokens)
        kvpool_seal_as(p, page, parent, parent_hash, found);
    return true;
}

bool kvpool_copy_open(struct kvpool *p, uint32_t page, struct kvpool_ref from, const int32_t *ids,
                      uint32_t n)
{
    const struct kv_page_desc *d = &p->descs[from.page];

    if (kvpool_ref(p, from.page).generation != from.generation)
        return false;
    assert(page != from.page && n < p->hdr->page_tokens);
    assert(atomic_load_explicit(&d->n_tokens, memory_order_relaxed) >= n);
    if (!p->data.copy(p->data.ctx, page, from.page, n))
        return false;
    kvpool_commit(p, page, n, ids);
    return true;
}

bool kvpool_copy_quarantined(struct kvpool *p, uint32_t page, uint32_t from, const int32_t *ids,
                             uint32_t n)
{
    assert(page != from && n <= p->hdr->page_tokens);
    if (!p->data.copy(p->data.ctx, page, from, n))
        return false;
    kvpool_commit(p, page, n, ids);
    return true;
}

/* ---- after a death ---- */

static void quarantine(struct kv_page_desc *d, uint64_t lease, uint64_t until_ns)
{
    wipe(d);
    d->last_used = until_ns;
    atomic_store_explicit(&d->lease, lease | KV_LEASE_QUARANTINE, memory_order_release);
}

/* A dead process may have work under way that writes there.  What was sealed it writes no more. */
static bool may_be_written(const struct kvpool *p, const struct kv_page_desc *d)
{
    return p->data.quarantine_ns > 0 && !atomic_load_explicit(&d->sealed, memory_order_relaxed);
}

static bool is_quiet(const struct kvpool *p)
{
    return !p->data.is_quiet || p->data.is_quiet(p->data.ctx);
}

uint32_t kvpool_end_quarantine(struct kvpool *p, uint32_t group, uint64_t now_ns)
{
    uint64_t ours = (KV_LEASE_QUARANTINE >> 32) + group + 1;
    uint32_t n_left = 0, n_due = 0;
    bool quiet = false;

    for (uint32_t i = 0; i < p->n; i++) {
        struct kv_page_desc *d = &p->descs[p->first + i];
        if (atomic_load_explicit(&d->lease, memory_order_relaxed) >> 32 != ours)
            continue;
        if (d->last_used <= now_ns && n_due++ == 0)
            quiet = is_quiet(p);
        if (d->last_used <= now_ns && quiet)
            free_page(d);
        else
            n_left++;
    }
    return n_left;
}

void kvpool_doubt(struct kvpool *p, uint32_t group)
{
    atomic_fetch_or_explicit(&p->hdr->doubt, (uint64_t)1 << group, memory_order_relaxed);
}

bool kvpool_is_doubted(const struct kvpool *p, uint32_t group)
{
    return atomic_load_explicit(&p->hdr->doubt, memory_order_relaxed) >> group & 1;
}

void kvpool_end_doubt(struct kvpool *p, uint32_t group)
{
    atomic_fetch_and_explicit(&p->hdr->doubt, ~((uint64_t)1 << group), memory_order_relaxed);
}

uint32_t kvpool_reclaim(struct kvpool *p, uint32_t group, uint32_t epoch,
                        bool (*keep)(uint32_t page, void *arg), void *arg)
{
    uint64_t mine = kvpool_lease_of(group, epoch);
    uint64_t until_ns = clock_mono_ns() + p->data.quarantine_ns;
    uint32_t n_freed = 0;

    for (uint32_t page = 0; page < p->hdr->n_pages; page++) {
        struct kv_page_desc *d = &p->descs[page];
        uint64_t lease = atomic_load_explicit(&d->lease, memory_order_acquire);
        if (lease >> 32 != group + 1 || lease == mine)
            continue;
        if (keep && keep(page, arg)) {
            atomic_store_explicit(&d->pins, 0, memory_order_relaxed);
            atomic_store_explicit(&d->lease, mine, memory_order_release);
        } else if (may_be_written(p, d)) {
            quarantine(d, lease, until_ns);
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
