/* kvcache_match.c - which pages a sequence's tokens have already: in the pool, and by kvcache_tier.c in the host tier.
 *
 * A page is found by the hash of all tokens up to its end, is compared by its own tokens, and counts when the page that
 * it was computed behind is the one before it in the chain: that very one, or one of the same tokens.  Nothing is
 * leased, pinned or copied here. */
#include <assert.h>

#include "gpu-worker/kvcache_state.h"

enum { WALKS_MAX = 4 }; /* chains other than the one we are on, looked at in one match */

/* ---- whole pages, one behind the other ---- */

/* Whether `parent` is a name of the page before number k. */
static bool is_behind_found(const struct kvcache *c, struct kvpool_ref parent, uint32_t k)
{
    if (k == 0 || parent.page == KV_PAGE_NONE)
        return k == 0 && parent.page == KV_PAGE_NONE;
    return kvcache_is_same(parent, c->found[k - 1]) ||
           (c->tier && (kvcache_is_same(parent, c->copies[k - 1].origin) ||
                        kvcache_is_same(parent, c->elsewhere[k - 1]) ||
                        kvcache_is_same(parent, kv_tier_name(c->tier, c->found[k - 1]))));
}

/* Whether a page is sealed and of the sequence's tokens of page number k. */
static bool holds(const struct kvcache *c, struct kvpool_ref ref, const struct sequence *s,
                  uint32_t k, struct kvpool_ref *parent)
{
    uint32_t n = c->pool->hdr->page_tokens;

    return kvpool_common(c->pool, ref, kvcache_ids(c, s, k), n, parent) == n;
}

/* What the page before number k, known as `ref`, was computed behind, when that is of the sequence's tokens. */
static bool step_back(const struct kvcache *c, const struct sequence *s, struct kvpool_ref ref,
                      uint32_t k, struct kvpool_ref *before)
{
    return (ref.page < c->pool->hdr->n_pages && holds(c, ref, s, k - 1, before)) ||
           kvcache_tier_knows(c, s, ref, k, before);
}

/* Whether a page was computed behind the k found ones: directly, or behind pages of the same tokens that are not the
 * found ones. */
static bool is_behind_equals(const struct kvcache *c, const struct sequence *s,
                             struct kvpool_ref parent, uint32_t k)
{
    while (!is_behind_found(c, parent, k)) {
        if (k == 0 || !step_back(c, s, parent, k, &parent))
            return false;
        k--;
    }
    return true;
}

bool kvcache_is_behind(struct kvcache *c, const struct sequence *s, struct kvpool_ref ref,
                       uint32_t k, uint32_t *n_walks)
{
    if (!n_walks)
        return is_behind_found(c, ref, k);
    return (*n_walks)++ < WALKS_MAX && is_behind_equals(c, s, ref, k);
}

/* Page number k of the sequence among those with this hash; *n_walks NULL: directly behind the found
 * ones. */
static bool find_page(struct kvcache *c, const struct sequence *s, uint32_t k, uint64_t hash,
                      uint32_t *n_walks, struct kvpool_ref *out)
{
    struct kvpool_ref ref, parent;
    bool found = false;

    for (uint32_t at = 0; kvpool_find(c->pool, hash, &at, &ref);) {
        if ((found && !kvcache_is_ours(c, ref.page)) || !kvpool_is_in_reach(c->pool, ref.page) ||
            !holds(c, ref, s, k, &parent))
            continue;
        if (!kvcache_is_behind(c, s, parent, k, n_walks))
            continue;
        *out = ref;
        found = true;
        if (kvcache_is_ours(c, ref.page))
            break;
    }
    return found;
}

/* ---- the first tokens of one more ---- */

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
    uint32_t n_there =
        atomic_load_explicit(&kvcache_desc(c, o->page)->n_tokens, memory_order_relaxed);

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
        uint32_t n = kvpool_common(c->pool, ref, kvcache_ids(c, s, k), n_max, &parent);
        if (n > 0 && kvpool_is_in_reach(c->pool, ref.page) && is_behind_found(c, parent, k))
            note_tail(c, ref, n, false);
    }
    for (uint32_t i = 0; i < c->n_open; i++) {
        const struct open_page *o = &c->open[i];
        if (o->parent_hash == hash && is_behind_found(c, o->parent, k))
            note_tail(c, kvpool_ref(c->pool, o->page),
                      open_common(c, o, kvcache_ids(c, s, k), n_max), true);
    }
}

/* ---- all of it ---- */

/* Page number k of the sequence, in the pool or in the host tier. */
static bool match_page(struct kvcache *c, const struct sequence *s, uint32_t k, uint64_t hash,
                       uint32_t *n_walks)
{
    struct kvpool_ref *ref = &c->found[k];
    bool is_here = find_page(c, s, k, hash, NULL, ref) || find_page(c, s, k, hash, n_walks, ref);

    if (!is_here)
        *ref = (struct kvpool_ref){ KV_PAGE_NONE, 0 };
    if (!c->tier)
        return is_here;
    c->hashes[k] = hash;
    return kvcache_tier_match(c, s, k, n_walks) || is_here;
}

void kvcache_match(struct kvcache *c, const struct sequence *s, struct kvcache_match *out)
{
    uint32_t page_tokens = c->pool->hdr->page_tokens, n_walks = 0, k = 0;
    uint32_t n_max = sequence_n_findable(s) / page_tokens;
    uint64_t hash = kvcache_root(c, s), hash_of_found = hash;

    if (n_max > c->pages_max)
        n_max = c->pages_max;
    assert(s->n_pages == 0);
    *out = (struct kvcache_match){ 0 };
    c->matched = s;
    c->n_found = c->n_chain = c->n_tail = 0;
    if (!c->keeps_pages)
        return;
    for (; k < n_max; k++) {
        hash = kvpool_prefix_hash(hash, kvcache_ids(c, s, k), page_tokens);
        if (!match_page(c, s, k, hash, &n_walks))
            break;
        if (k > c->n_found || c->found[k].page == KV_PAGE_NONE)
            continue; /* in the host tier, or behind such a one */
        c->n_found++;
        hash_of_found = hash;
        out->n_in_use +=
            kvcache_is_ours(c, c->found[k].page) && kvcache_n_pins(c, c->found[k].page) > 0;
    }
    c->n_chain = k;
    find_tail(c, s, hash_of_found);
    out->n_pages = c->n_found;
    out->n_tokens = c->n_found * page_tokens + c->n_tail;
}
