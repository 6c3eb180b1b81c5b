/* kvcache_tier.c - which pages are saved in the host tier, and which are brought back.
 *
 *   saved         a page that was found twice, while steps go on; the oldest cached ones before their room is wanted; and
 *                 one whose room is wanted at once, which waits for it
 *   brought back  what a sequence finds in the tier, when that is worth it: it waits, others go on, and the pages become
 *                 cached ones, each when its checksum is what it was when it was sealed
 *
 * A page that is being saved is neither freed nor written until it is. */
#include <assert.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "gpu-worker/kvcache_state.h"

enum { HITS_TO_SAVE = 2 };

/* Who planned a step so lately will soon plan another; then the copy takes some milliseconds. */
#define AWAKE_NS (50 * NS_PER_MS)
#define WISH_NS  (100 * NS_PER_MS)

/* ---- life ---- */

void kvcache_tier_open(struct kvcache *c, const struct kvcache_setup *setup)
{
    uint32_t n_pages = c->pool->hdr->n_pages, page_tokens = c->pool->hdr->page_tokens;

    if (!setup->host_tier || !setup->tier_data || !c->keeps_pages)
        return;
    c->tier = kv_tier_new(&(struct kv_tier_setup){ .host = setup->host_tier,
                                                   .pool = c->pool,
                                                   .stats = c->stats,
                                                   .data = setup->tier_data,
                                                   .group = c->group,
                                                   .n_groups = setup->n_groups,
                                                   .epoch = c->epoch });
    c->hashes = mem_zalloc(c->pages_max, sizeof *c->hashes);
    c->in_tier = mem_zalloc(c->pages_max, sizeof *c->in_tier);
    c->copies = mem_zalloc(c->pages_max, sizeof *c->copies);
    c->elsewhere = mem_zalloc(c->pages_max, sizeof *c->elsewhere);
    c->has_others = setup->n_groups > 1;
    c->n_hits = mem_zalloc(n_pages, sizeof *c->n_hits);
    c->coming.ids = mem_zalloc((size_t)KV_TIER_BATCH_MAX * page_tokens, sizeof(int32_t));
}

void kvcache_tier_close(struct kvcache *c)
{
    kv_tier_free(c->tier);
    free(c->hashes);
    free(c->in_tier);
    free(c->copies);
    free(c->elsewhere);
    free(c->n_hits);
    free(c->coming.ids);
}

/* ---- saving ---- */

/* Pages to be saved together. */
struct choice {
    uint32_t pages[KV_TIER_BATCH_MAX], n;
};

static void choose(const struct kvcache *c, struct choice *ch, uint32_t page)
{
    for (uint32_t i = 0; i < ch->n; i++)
        if (ch->pages[i] == page)
            return;
    if (ch->n < c->tier->batch_max && !kv_tier_has(c->tier, page))
        ch->pages[ch->n++] = page;
}

/* Cached pages from this one on, in the order in which they would go. */
static void choose_oldest(const struct kvcache *c, struct choice *ch, uint32_t page)
{
    for (uint32_t i = 0; i < 2 * c->tier->batch_max && page != KV_PAGE_NONE; i++) {
        choose(c, ch, page);
        page = c->newer[page];
    }
}

static void choose_due(struct kvcache *c, struct choice *ch)
{
    while (c->n_due > 0 && ch->n < c->tier->batch_max) {
        struct kvpool_ref ref = c->due[--c->n_due];
        if (kvcache_is_same(kvpool_ref(c->pool, ref.page), ref) && kvcache_is_ours(c, ref.page) &&
            kvcache_is_sealed(c, ref.page))
            choose(c, ch, ref.page);
    }
}

static void save(struct kvcache *c, const struct choice *ch)
{
    if (ch->n > 0)
        kv_tier_save(c->tier, ch->pages, ch->n);
}

/* Beside the steps: what was found twice, and what will have to go when a little more room is wanted. */
static void save_some(struct kvcache *c)
{
    struct choice ch = { .n = 0 };

    if (!kv_tier_works(c->tier) || kv_tier_is_under_way(c->tier, KV_TIER_SAVE))
        return;
    choose_due(c, &ch);
    if (kvcache_n_free(c) < c->n_cached + c->tier->batch_max)
        choose_oldest(c, &ch, c->oldest);
    save(c, &ch);
}

void kvcache_tier_save_first(struct kvcache *c, uint32_t page)
{
    struct choice ch = { .n = 0 };

    if (!c->tier || !kv_tier_works(c->tier))
        return;
    if (kv_tier_is_saving(c->tier, page) || !kv_tier_has(c->tier, page))
        kv_tier_finish_saving(c->tier);
    if (!kv_tier_works(c->tier) || kv_tier_has(c->tier, page))
        return;
    choose_oldest(c, &ch, page);
    save(c, &ch);
    kv_tier_finish_saving(c->tier);
}

void kvcache_tier_let_go(struct kvcache *c, uint32_t page)
{
    if (c->tier && kv_tier_is_saving(c->tier, page))
        kv_tier_finish_saving(c->tier);
}

void kvcache_tier_note_hit(struct kvcache *c, uint32_t page)
{
    if (!c->tier || c->n_hits[page] == HITS_TO_SAVE)
        return;
    if (++c->n_hits[page] == HITS_TO_SAVE && c->n_due < KVCACHE_DUE_MAX)
        c->due[c->n_due++] = kvpool_ref(c->pool, page);
}

bool kvcache_is_moving(const struct kvcache *c)
{
    return c->tier && kv_tier_works(c->tier) &&
           (c->coming.n > 0 || c->n_due > 0 || c->is_wishing ||
            kv_tier_is_under_way(c->tier, KV_TIER_SAVE));
}

/* ---- finding ---- */

static bool match_slot(struct kvcache *c, const struct sequence *s, uint32_t k, uint32_t *n_walks)
{
    struct host_slot_ref ref;
    struct host_copy copy;

    for (uint32_t at = 0;
         kv_tier_find(c->tier, c->hashes[k], kvcache_ids(c, s, k), &at, &ref, &copy);) {
        if (!kvcache_is_behind(c, s, copy.parent, k, n_walks))
            continue;
        c->in_tier[k] = ref;
        c->copies[k] = copy;
        return true;
    }
    return false;
}

/* On the GPU of another group. */
static bool match_elsewhere(struct kvcache *c, const struct sequence *s, uint32_t k)
{
    uint32_t n = c->pool->hdr->page_tokens;
    struct kvpool_ref ref, parent;

    for (uint32_t at = 0; kvpool_find(c->pool, c->hashes[k], &at, &ref);)
        if (!kvpool_is_in_reach(c->pool, ref.page) &&
            kvpool_common(c->pool, ref, kvcache_ids(c, s, k), n, &parent) == n &&
            kvcache_is_behind(c, s, parent, k, NULL)) {
            c->elsewhere[k] = ref;
            return true;
        }
    return false;
}

bool kvcache_tier_match(struct kvcache *c, const struct sequence *s, uint32_t k, uint32_t *n_walks)
{
    bool is_there, is_elsewhere;

    c->copies[k].origin = c->elsewhere[k] = (struct kvpool_ref){ KV_PAGE_NONE, 0 };
    if (!kv_tier_works(c->tier))
        return false;
    is_there = match_slot(c, s, k, NULL) || match_slot(c, s, k, n_walks);
    is_elsewhere = c->has_others && match_elsewhere(c, s, k);
    return is_there || is_elsewhere;
}

bool kvcache_tier_knows(const struct kvcache *c, const struct sequence *s, struct kvpool_ref ref,
                        uint32_t k, struct kvpool_ref *before)
{
    struct host_slot_ref slot;
    struct host_copy copy;

    for (uint32_t at = 0; c->tier && kv_tier_find(c->tier, c->hashes[k - 1],
                                                  kvcache_ids(c, s, k - 1), &at, &slot, &copy);)
        if (kvcache_is_same(copy.origin, ref)) {
            *before = copy.parent;
            return true;
        }
    return false;
}

/* ---- bringing back ---- */

static bool is_missing(const struct kvcache *c, uint32_t k)
{
    return k < c->n_chain && c->found[k].page == KV_PAGE_NONE;
}

static bool is_in_tier(const struct kvcache *c, uint32_t k)
{
    return is_missing(c, k) && c->copies[k].origin.page != KV_PAGE_NONE;
}

/* Of all that was found, not in our pool. */
static uint32_t count_missing(const struct kvcache *c)
{
    uint32_t n = 0;

    for (uint32_t k = c->n_found; k < c->n_chain; k++)
        n += is_missing(c, k);
    return n;
}

/* How many of the first ones that are missing to bring back now. */
static uint32_t n_to_bring(const struct kvcache *c)
{
    uint32_t n = 0, n_free = kvcache_n_free(c);

    while (is_in_tier(c, c->n_found + n))
        n++;
    if (n > c->tier->batch_max)
        n = c->tier->batch_max;
    return n < n_free ? n : n_free;
}

/* What the sequence will list: it goes last, from its end to its beginning. */
static void renew_chain(struct kvcache *c)
{
    for (uint32_t k = c->n_chain; k-- > 0;) {
        uint32_t page = c->found[k].page;
        if (c->copies[k].origin.page != KV_PAGE_NONE)
            kv_tier_touch(c->tier, c->in_tier[k]);
        if (page != KV_PAGE_NONE && kvcache_is_ours(c, page) && kvcache_n_pins(c, page) == 0)
            kvcache_renew(c, page);
    }
}

/* The page before those that come must be there until they are. */
static bool hold_parent(struct kvcache *c, const struct sequence *s)
{
    struct kvcache_coming *in = &c->coming;

    in->parent = c->n_found > 0 ? c->found[c->n_found - 1].page : KV_PAGE_NONE;
    in->parent_hash = c->n_found > 0 ? c->hashes[c->n_found - 1] : kvcache_root(c, s);
    if (in->parent == KV_PAGE_NONE)
        return true;
    if (!kvcache_is_ours(c, in->parent) || !kvcache_trust(c, in->parent))
        return false;
    kvcache_pin(c, in->parent);
    return true;
}

/* Those that are sealed become cached ones, the first of them the newest; the others are free. */
static void let_coming_go(struct kvcache *c, uint32_t n)
{
    while (n-- > 0)
        kvcache_unpin(c, c->coming.pages[n]);
    if (c->coming.parent != KV_PAGE_NONE)
        kvcache_unpin(c, c->coming.parent);
    c->coming.n = 0;
}

/* Pages for them, and the copies begun. */
static bool begin_coming(struct kvcache *c, const struct sequence *s, uint32_t n)
{
    struct kvcache_coming *in = &c->coming;
    uint32_t page_tokens = c->pool->hdr->page_tokens, slots[KV_TIER_BATCH_MAX], i;

    if (!hold_parent(c, s))
        return false;
    for (i = 0; i < n && kvcache_n_free(c) > 0; i++) {
        uint32_t k = c->n_found + i;
        in->pages[i] = kvcache_take_page(c);
        in->slots[i] = c->in_tier[k];
        in->copies[i] = c->copies[k];
        slots[i] = c->in_tier[k].slot;
        memcpy(in->ids + (size_t)i * page_tokens, kvcache_ids(c, s, k),
               page_tokens * sizeof *in->ids);
    }
    in->era = atomic_load_explicit(&c->pool->hdr->era, memory_order_relaxed);
    if (i == 0 || !kv_tier_works(c->tier) || !kv_tier_restore(c->tier, in->pages, slots, i)) {
        let_coming_go(c, i);
        return false;
    }
    in->n = i;
    in->number++;
    fault_point("worker.restore");
    return true;
}

/* Ask for a batch of what is missing and not in the tier.  False: who has it sleeps, and nobody is to wait for that. */
static bool ask_for(struct kvcache *c, uint64_t now_ns)
{
    bool is_awake = true;

    for (uint32_t k = c->n_found; k < c->n_chain && k < c->n_found + c->tier->batch_max; k++) {
        struct kvpool_ref ref = c->elsewhere[k];
        uint64_t lease;
        if (!is_missing(c, k) || is_in_tier(c, k))
            continue;
        host_tier_wish(c->tier->host, ref);
        lease = atomic_load_explicit(&kvcache_desc(c, ref.page)->lease, memory_order_relaxed);
        is_awake =
            is_awake && lease != 0 &&
            host_tier_turned_ns(c->tier->host, (uint32_t)(lease >> 32) - 1) + AWAKE_NS > now_ns;
    }
    return is_awake;
}

/* Wait a little for what another group has. */
static bool wait_for_others(struct kvcache *c, struct sequence *s)
{
    uint64_t now_ns = clock_mono_ns();

    if (s->wishes_until_ns == 0)
        s->wishes_until_ns = ask_for(c, now_ns) ? now_ns + WISH_NS : now_ns;
    if (now_ns >= s->wishes_until_ns)
        return false;
    c->is_wishing = true;
    return true;
}

static bool bring_from_tier(struct kvcache *c, struct sequence *s)
{
    uint32_t n = n_to_bring(c);

    if (n == 0 || c->n_found + 1 <= s->n_brought)
        return false; /* the last time brought it no further */
    if (c->coming.n == 0) {
        renew_chain(c);
        if (!begin_coming(c, s, n))
            return false;
        s->n_brought = c->n_found + 1;
        s->wishes_until_ns = 0;
    }
    s->waits_for_pages = c->coming.number;
    return true;
}

bool kvcache_bring(struct kvcache *c, struct sequence *s)
{
    assert(c->matched == s && s->n_pages == 0);
    if (!c->tier || c->n_chain == c->n_found || c->is_unreadable)
        return false;
    if (s->n_brought == 0 && count_missing(c) < KVCACHE_BRING_MIN)
        return false;
    return is_in_tier(c, c->n_found) ? bring_from_tier(c, s) : wait_for_others(c, s);
}

static void say_corrupt(struct kvcache *c, uint32_t i)
{
    struct host_slot_ref slot = c->coming.slots[i];

    if (!host_tier_is_still(c->tier->host, slot))
        return; /* it was given to another page meanwhile */
    log_error("host_tier slot=%u is corrupt, computing its tokens again", slot.slot);
    stat_add(c->stats, STAT_kv_host_pages_corrupt, 1);
    kv_tier_drop(c->tier, slot);
}

/* How many of them, from the first on, are what was sealed. */
static uint32_t count_good(struct kvcache *c)
{
    struct kvcache_coming *in = &c->coming;
    uint64_t sums[KV_TIER_BATCH_MAX];
    uint32_t n = 0;

    c->is_unreadable = !kvpool_checksums(c->pool, in->pages, in->n, sums);
    if (c->is_unreadable ||
        in->era != atomic_load_explicit(&c->pool->hdr->era, memory_order_relaxed))
        return 0;
    while (n < in->n && sums[n] == in->copies[n].checksum)
        n++;
    if (n < in->n)
        say_corrupt(c, n);
    return n;
}

static void seal_coming(struct kvcache *c, uint32_t i)
{
    struct kvcache_coming *in = &c->coming;
    uint32_t page = in->pages[i], page_tokens = c->pool->hdr->page_tokens;

    kvpool_commit(c->pool, page, page_tokens, in->ids + (size_t)i * page_tokens);
    kvpool_seal_as(c->pool, page, i > 0 ? in->pages[i - 1] : in->parent,
                   i > 0 ? in->copies[i - 1].prefix_hash : in->parent_hash, in->copies[i].checksum);
    kvpool_publish(c->pool, page);
    kv_tier_note_name(c->tier, page, in->copies[i].origin);
    stat_add(c->stats, STAT_kv_pages_restored, 1);
}

static void look_for_coming(struct kvcache *c)
{
    enum kv_tier_wait wait = c->coming.n > 0 ? kv_tier_poll_restore(c->tier) : KV_TIER_UNDER_WAY;
    uint32_t n_good;

    if (wait == KV_TIER_UNDER_WAY)
        return;
    fault_point("worker.restored");
    n_good = wait == KV_TIER_DONE ? count_good(c) : 0;
    for (uint32_t i = 0; i < n_good; i++)
        seal_coming(c, i);
    let_coming_go(c, c->coming.n);
}

/* A page that we have, or nobody any more; then *due says whether it is still to be saved. */
static bool is_wish_for_us(const struct kvcache *c, struct kvpool_ref ref, bool *due)
{
    bool is_sealed = ref.page < c->pool->hdr->n_pages &&
                     kvcache_is_same(kvpool_ref(c->pool, ref.page), ref) &&
                     kvcache_is_sealed(c, ref.page);

    *due = is_sealed && !kv_tier_has(c->tier, ref.page);
    return !is_sealed || kvcache_is_ours(c, ref.page);
}

static void take_wishes(struct kvcache *c)
{
    struct kvpool_ref ref;
    bool due;

    for (uint32_t at = 0;
         c->n_due < KVCACHE_DUE_MAX && host_tier_next_wish(c->tier->host, &at, &ref);) {
        if (!is_wish_for_us(c, ref, &due))
            continue;
        host_tier_end_wish(c->tier->host, at);
        if (due)
            c->due[c->n_due++] = ref;
    }
}

void kvcache_tier_begin_plan(struct kvcache *c)
{
    uint64_t now_ns = clock_mono_ns();

    if (!c->tier)
        return;
    c->is_wishing = false;
    kv_tier_look(c->tier, now_ns);
    look_for_coming(c);
    if (c->has_others && kv_tier_works(c->tier)) {
        host_tier_note_turn(c->tier->host, c->group, now_ns);
        take_wishes(c);
    }
    save_some(c);
}
