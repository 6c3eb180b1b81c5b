/* kvcache.c - lease, pin, commit, seal, find, copy, keep and evict pages. */
#include "gpu-worker/kvcache.h"

#include <assert.h>
#include <stdlib.h>

#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"

enum { WALKS_MAX = 4 }; /* chains other than the one we are on, looked at in one match */

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
}

void kvcache_fini(struct kvcache *c)
{
    free(c->older);
    free(c->newer);
    free(c->is_doubted);
    free(c->open);
    free(c->found);
    *c = (struct kvcache){ 0 };
}

static struct kv_page_desc *desc_of(const struct kvcache *c, uint32_t page)
{
    return &c->pool->descs[page];
}

static bool is_ours(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&desc_of(c, page)->lease, memory_order_relaxed) == c->lease;
}

static uint32_t n_pins(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&desc_of(c, page)->pins, memory_order_relaxed);
}

static bool is_sealed(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&desc_of(c, page)->sealed, memory_order_relaxed) != 0;
}

static uint64_t hash_of(const struct kvcache *c, uint32_t page)
{
    return atomic_load_explicit(&desc_of(c, page)->prefix_hash, memory_order_relaxed);
}

/* ---- chains ---- */

uint64_t kvcache_root(const struct kvcache *c, const struct sequence *s)
{
    struct hash128 identity = c->identity;

    identity.low ^= s->request->cache_salt;
    return kvpool_prefix_root(c->pool, identity);
}

/* Of page number k of the sequence. */
static uint64_t parent_hash(const struct kvcache *c, const struct sequence *s, uint32_t k)
{
    return k > 0 ? hash_of(c, s->pages[k - 1]) : kvcache_root(c, s);
}

static uint32_t parent_of(const struct sequence *s, uint32_t k)
{
    return k > 0 ? s->pages[k - 1] : KV_PAGE_NONE;
}

/* ---- the list of cached pages ---- */

static void push_newest(struct kvcache *c, uint32_t page)
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

static void drop_cached(struct kvcache *c, uint32_t page)
{
    take_out(c, page);
    kvpool_free(c->pool, c->lease, page);
}

static void evict_oldest(struct kvcache *c)
{
    uint32_t page = c->oldest;

    assert(page != KV_PAGE_NONE);
    drop_cached(c, page);
    c->cursor = page;
    fault_point("worker.evict");
}

/* ---- open pages ---- */

/* Page number k of the sequence has its first token, or is given with some. */
static void note_open(struct kvcache *c, const struct sequence *s, uint32_t k)
{
    if (!c->keeps_pages)
        return;
    assert(c->n_open < c->pages_max);
    c->open[c->n_open++] =
        (struct open_page){ .page = s->pages[k],
                            .parent = k > 0 ? kvpool_ref(c->pool, s->pages[k - 1])
                                            : (struct kvpool_ref){ KV_PAGE_NONE, 0 },
                            .parent_hash = parent_hash(c, s, k) };
}

/* It is full, or goes; one that was never noted is fine. */
static void forget_open(struct kvcache *c, uint32_t page)
{
    uint32_t i = 0;

    while (i < c->n_open && c->open[i].page != page)
        i++;
    if (i < c->n_open)
        c->open[i] = c->open[--c->n_open];
}

/* ---- pins ---- */

static void count_first_pin(struct kvcache *c, uint32_t page)
{
    atomic_store_explicit(&desc_of(c, page)->pins, 1, memory_order_relaxed);
    c->n_used++;
    stat_add(c->stats, STAT_kv_pages_leased, 1);
    stat_add(c->stats, STAT_kv_pages_pinned, 1);
}

/* One more sequence lists a page that others may list, or that is cached. */
static void pin(struct kvcache *c, uint32_t page)
{
    if (n_pins(c, page) > 0) {
        atomic_fetch_add_explicit(&desc_of(c, page)->pins, 1, memory_order_relaxed);
        stat_add(c->stats, STAT_kv_pages_pinned, 1);
    } else {
        take_out(c, page);
        count_first_pin(c, page);
    }
}

static void unpin(struct kvcache *c, uint32_t page)
{
    struct kv_page_desc *d = desc_of(c, page);

    stat_sub(c->stats, STAT_kv_pages_pinned, 1);
    if (atomic_fetch_sub_explicit(&d->pins, 1, memory_order_relaxed) > 1)
        return;
    c->n_used--;
    stat_sub(c->stats, STAT_kv_pages_leased, 1);
    if (c->keeps_pages && is_sealed(c, page)) {
        d->last_used = ++c->n_uses;
        push_newest(c, page);
    } else {
        forget_open(c, page);
        kvpool_free(c->pool, c->lease, page);
    }
}

static uint32_t take_page(struct kvcache *c)
{
    uint32_t page;

    assert(c->n_used < c->pages_max);
    if (c->n_used + c->n_cached == c->pages_max)
        evict_oldest(c);
    page = kvpool_lease(c->pool, c->lease, &c->cursor);
    assert(page != KV_PAGE_NONE); /* shares add up to the pool, and dead epochs were reclaimed */
    c->is_doubted[page] = false;
    count_first_pin(c, page);
    return page;
}

uint32_t kvcache_n_exclusive(const struct kvcache *c, const struct sequence *s)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < s->n_pages; k++)
        n += n_pins(c, s->pages[k]) == 1;
    return n;
}

/* ---- match ---- */

void kvcache_begin_plan(struct kvcache *c)
{
    c->copy_bytes_left = COPY_BYTES_MAX;
}

static const int32_t *ids_of(const struct kvcache *c, const struct sequence *s, uint32_t k)
{
    return s->tokens + (size_t)k * c->pool->hdr->page_tokens;
}

static bool is_same(struct kvpool_ref a, struct kvpool_ref b)
{
    return a.page == b.page && a.generation == b.generation;
}

/* Whether `ref` was computed as the page behind the k found ones: directly, or behind pages of the
 * same tokens that are not the found ones. */
static bool is_behind_found(const struct kvcache *c, struct kvpool_ref parent, uint32_t k)
{
    return k == 0 ? parent.page == KV_PAGE_NONE : is_same(parent, c->found[k - 1]);
}

/* Whether a page is sealed and of the sequence's tokens of page number k. */
static bool holds(const struct kvcache *c, struct kvpool_ref ref, const struct sequence *s,
                  uint32_t k, struct kvpool_ref *parent)
{
    uint32_t n = c->pool->hdr->page_tokens;

    return kvpool_common(c->pool, ref, ids_of(c, s, k), n, parent) == n;
}

static bool is_behind_equals(const struct kvcache *c, const struct sequence *s,
                             struct kvpool_ref parent, uint32_t k)
{
    while (!is_behind_found(c, parent, k)) {
        if (k == 0 || parent.page >= c->pool->hdr->n_pages || !holds(c, parent, s, k - 1, &parent))
            return false;
        k--;
    }
    return true;
}

/* Page number k of the sequence among those with this hash; *n_walks NULL: directly behind the found
 * ones. */
static bool find_page(const struct kvcache *c, const struct sequence *s, uint32_t k, uint64_t hash,
                      uint32_t *n_walks, struct kvpool_ref *out)
{
    struct kvpool_ref ref, parent;
    bool found = false;

    for (uint32_t at = 0; kvpool_find(c->pool, hash, &at, &ref);) {
        if ((found && !is_ours(c, ref.page)) || !holds(c, ref, s, k, &parent))
            continue;
        if (n_walks ? (*n_walks)++ >= WALKS_MAX || !is_behind_equals(c, s, parent, k)
                    : !is_behind_found(c, parent, k))
            continue;
        *out = ref;
        found = true;
        if (is_ours(c, ref.page))
            break;
    }
    return found;
}

static void note_tail(struct kvcache *c, struct kvpool_ref ref, uint32_t n, bool is_open)
{
    if (n < KVCACHE_TAIL_MIN || n <= c->n_tail)
        return;
    c->tail = ref;
    c->n_tail = n;
    c->tail_is_open = is_open;
}

static uint32_t ids_in_common(const int32_t *a, const int32_t *b, uint32_t n)
{
    uint32_t i = 0;

    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* How many of ids[0..n-1] an open page begins with. */
static uint32_t open_common(const struct kvcache *c, const struct open_page *o, const int32_t *ids,
                            uint32_t n)
{
    uint32_t n_there = atomic_load_explicit(&desc_of(c, o->page)->n_tokens, memory_order_relaxed);

    return ids_in_common(kvpool_token_ids(c->pool, o->page), ids, n < n_there ? n : n_there);
}

/* The page that goes furthest behind the found ones, of those with that hash before them. */
static void find_tail(struct kvcache *c, const struct sequence *s, uint64_t hash)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens, k = c->n_found;
    uint32_t n_max = sequence_n_findable(s) - k * page_tokens;
    struct kvpool_ref ref, parent;

    if (n_max >= page_tokens)
        n_max = page_tokens - 1;
    if (n_max < KVCACHE_TAIL_MIN)
        return;
    for (uint32_t at = 0; kvpool_find_next(c->pool, hash, &at, &ref);) {
        uint32_t n = kvpool_common(c->pool, ref, ids_of(c, s, k), n_max, &parent);
        if (n > 0 && is_behind_found(c, parent, k))
            note_tail(c, ref, n, false);
    }
    for (uint32_t i = 0; i < c->n_open; i++) {
        const struct open_page *o = &c->open[i];
        if (o->parent_hash == hash && is_behind_found(c, o->parent, k))
            note_tail(c, kvpool_ref(c->pool, o->page), open_common(c, o, ids_of(c, s, k), n_max),
                      true);
    }
}

void kvcache_match(struct kvcache *c, const struct sequence *s, struct kvcache_match *out)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens, n_walks = 0;
    uint32_t n_max = sequence_n_findable(s) / page_tokens;
    uint64_t hash = kvcache_root(c, s), next;

    if (n_max > c->pages_max)
        n_max = c->pages_max;
    assert(s->n_pages == 0);
    *out = (struct kvcache_match){ 0 };
    c->matched = s;
    c->n_found = c->n_tail = 0;
    if (!c->keeps_pages)
        return;
    for (; c->n_found < n_max; c->n_found++, hash = next) {
        struct kvpool_ref *ref = &c->found[c->n_found];
        next = kvpool_prefix_hash(hash, ids_of(c, s, c->n_found), page_tokens);
        if (!find_page(c, s, c->n_found, next, NULL, ref) &&
            !find_page(c, s, c->n_found, next, &n_walks, ref))
            break;
        out->n_in_use += is_ours(c, ref->page) && n_pins(c, ref->page) > 0;
    }
    find_tail(c, s, hash);
    out->n_pages = c->n_found;
    out->n_tokens = c->n_found * page_tokens + c->n_tail;
}

/* ---- attach ---- */

/* A cached page of a predecessor is believed when its data is what was sealed; else it is dropped. */
static bool is_to_be_trusted(struct kvcache *c, uint32_t page)
{
    if (!c->is_doubted[page])
        return true;
    c->is_doubted[page] = false;
    if (kvpool_is_intact(c->pool, page))
        return true;
    log_error("kv_page=%u is corrupt, computing its tokens again", page);
    stat_add(c->stats, STAT_kv_pages_corrupt, 1);
    drop_cached(c, page);
    return false;
}

static bool attach_own(struct kvcache *c, struct sequence *s, uint32_t k)
{
    uint32_t page = c->found[k].page;

    if (!is_same(kvpool_ref(c->pool, page), c->found[k]) || !is_to_be_trusted(c, page))
        return false;
    pin(c, page);
    s->pages[k] = page;
    return true;
}

/* A page for a copy; KV_PAGE_NONE when enough was copied for this plan, or there is none. */
static uint32_t take_for_copy(struct kvcache *c)
{
    uint64_t bytes = c->pool->hdr->page_bytes;
    uint32_t page;

    if (bytes > c->copy_bytes_left || c->n_used == c->pages_max)
        return KV_PAGE_NONE;
    c->copy_bytes_left -= bytes;
    page = take_page(c);
    fault_point("worker.copy");
    return page;
}

static bool attach_copied(struct kvcache *c, struct sequence *s, uint32_t k, uint32_t page, bool ok)
{
    if (!ok) {
        unpin(c, page);
        return false;
    }
    if (is_sealed(c, page))
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
                         kvpool_copy(c->pool, page, from, ids_of(c, s, k), n, parent_of(s, k),
                                     parent_hash(c, s, k)));
}

static bool attach_page(struct kvcache *c, struct sequence *s, uint32_t k)
{
    return is_ours(c, c->found[k].page)
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
                         kvpool_copy_open(c->pool, page, c->tail, ids_of(c, s, k), c->n_tail));
}

static void list_pages(struct kvcache *c, struct sequence *s, uint32_t n)
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
        note_open(c, s, k);
        n_tokens += c->n_tail;
        k++;
    }
    fault_point("worker.attach");
    list_pages(c, s, k);
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
        s->pages[k] = take_page(c);
    list_pages(c, s, want);
    return true;
}

static void seal(struct kvcache *c, const struct sequence *s, uint32_t k)
{
    forget_open(c, s->pages[k]);
    fault_point("worker.seal");
    kvpool_seal(c->pool, s->pages[k], parent_of(s, k), parent_hash(c, s, k));
    fault_point("worker.sealed");
    if (c->keeps_pages)
        kvpool_publish(c->pool, s->pages[k]);
}

void kvcache_commit(struct kvcache *c, struct sequence *s, uint32_t n_tokens)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens;

    assert(n_tokens >= s->n_computed && kvcache_pages_for(c, n_tokens) <= s->n_pages);
    while (s->n_computed < n_tokens) {
        uint32_t page = s->n_computed / page_tokens, begin = page * page_tokens;
        uint32_t end = n_tokens < begin + page_tokens ? n_tokens : begin + page_tokens;
        bool is_first = s->n_computed == begin;
        kvpool_commit(c->pool, s->pages[page], end - begin, s->tokens + s->n_computed);
        s->n_computed = end;
        if (end == begin + page_tokens)
            seal(c, s, page);
        else if (is_first)
            note_open(c, s, page);
    }
}

void kvcache_release(struct kvcache *c, struct sequence *s)
{
    atomic_store_explicit(&s->entry->n_pages, 0, memory_order_release);
    fault_point("worker.release");
    for (uint32_t k = s->n_pages; k-- > 0;)
        unpin(c, s->pages[k]);
    s->n_pages = 0;
    s->n_computed = 0;
}

void kvcache_distrust(struct kvcache *c)
{
    kvpool_hide_all(c->pool);
    while (c->oldest != KV_PAGE_NONE)
        drop_cached(c, c->oldest);
}

/* ---- after a death ---- */

/* A page that was full when its worker died, and not yet sealed, is sealed now; one that was sealed may not
 * be in the index yet. */
static void adopt_page(struct kvcache *c, struct sequence *s, uint32_t k)
{
    uint32_t page = s->pages[k];
    struct kv_page_desc *d = desc_of(c, page);

    assert(is_ours(c, page));
    if (n_pins(c, page) > 0) {
        pin(c, page);
        return;
    }
    count_first_pin(c, page);
    if (is_sealed(c, page)) {
        if (c->keeps_pages)
            kvpool_publish(c->pool, page);
    } else if (atomic_load_explicit(&d->n_tokens, memory_order_relaxed) ==
               c->pool->hdr->page_tokens) {
        seal(c, s, k);
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
        note_open(c, s, n_pages - 1);
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
        if (is_ours(c, page) && n_pins(c, page) == 0)
            uses[n++] = (struct use){ desc_of(c, page)->last_used, page };
    qsort(uses, n, sizeof *uses, compare_uses);
    for (uint32_t i = 0; i < n; i++) {
        assert(is_sealed(c, uses[i].page));
        c->is_doubted[uses[i].page] = true;
        push_newest(c, uses[i].page);
    }
    if (n > 0)
        c->n_uses = uses[n - 1].last_used;
    free(uses);
    while (c->n_used + c->n_cached > c->pages_max)
        drop_cached(c, c->oldest);
}
