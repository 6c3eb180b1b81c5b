/* kv_tier.c - see kv_tier.h. */
#include "gpu-worker/kv_tier.h"

#include <string.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"

#define LOOK_NS (10 * NS_PER_MS) /* between two questions for memory */
#define UNDER_WAY_BYTES                                                                            \
    ((uint64_t)256 << 20) /* of a rank, in one way: some 10 ms of a PCIe 4 link */

static bool is_same(struct kvpool_ref a, struct kvpool_ref b)
{
    return a.page == b.page && a.generation == b.generation;
}

static const struct kvpool_ref nothing = { KV_PAGE_NONE, 0 };

/* ---- slots of the share ---- */

static void note_sealed(struct kv_tier *t, uint32_t slot)
{
    page_list_push(&t->sealed, slot);
    stat_add(t->stats, STAT_kv_host_pages, 1);
}

static void use(struct kv_tier *t, uint32_t slot)
{
    t->host->pages[slot].last_used = ++t->n_uses;
}

static void give_up(struct kv_tier *t, uint32_t slot)
{
    page_list_remove(&t->sealed, slot);
    stat_sub(t->stats, STAT_kv_host_pages, 1);
    host_tier_free(t->host, slot);
}

static bool is_being_read(const struct kv_tier *t, uint32_t slot)
{
    const struct kv_tier_batch *b = &t->batches[KV_TIER_RESTORE];

    for (uint32_t i = 0; i < b->n; i++)
        if (b->slots[i] == slot)
            return true;
    return false;
}

/* HOST_SLOT_NONE: all are in quarantine, or being read. */
static uint32_t take_slot(struct kv_tier *t)
{
    uint32_t slot = host_tier_take(t->host, t->epoch, &t->cursor), old = t->sealed.oldest;

    if (slot != HOST_SLOT_NONE)
        return slot;
    while (old != PAGE_LIST_END && is_being_read(t, old))
        old = t->sealed.newer[old];
    if (old == PAGE_LIST_END)
        return HOST_SLOT_NONE;
    give_up(t, old);
    t->cursor = old;
    return host_tier_take(t->host, t->epoch, &t->cursor);
}

/* ---- life ---- */

struct slot_use {
    uint64_t last_used;
    uint32_t slot;
};

static int compare_uses(const void *a, const void *b)
{
    const struct slot_use *x = a, *y = b;

    if (x->last_used != y->last_used)
        return x->last_used < y->last_used ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* What a predecessor has sealed, in its order. */
static void take_over(struct kv_tier *t)
{
    struct slot_use *uses = mem_zalloc(t->host->n, sizeof *uses);
    uint64_t wait_ns = t->pool->data.quarantine_ns;
    uint32_t n = 0;

    t->quiet_ns = clock_mono_ns() + wait_ns;
    t->n_quarantined = host_tier_reclaim(t->host, wait_ns > 0 ? t->quiet_ns : 0);
    for (uint32_t slot = t->host->first; slot < t->host->first + t->host->n; slot++)
        if (host_tier_state(t->host, slot) == HOST_PAGE_SEALED)
            uses[n++] = (struct slot_use){ t->host->pages[slot].last_used, slot };
    qsort(uses, n, sizeof *uses, compare_uses);
    for (uint32_t i = 0; i < n; i++)
        note_sealed(t, uses[i].slot);
    t->n_uses = n > 0 ? uses[n - 1].last_used : 0;
    free(uses);
    if (n + t->n_quarantined > 0)
        log_info("host_tier pages=%u of=%u, left half done=%u", n, t->host->n, t->n_quarantined);
}

struct kv_tier *kv_tier_new(const struct kv_tier_setup *setup)
{
    struct kv_tier *t = mem_zalloc(1, sizeof *t);
    uint64_t batch = UNDER_WAY_BYTES / setup->host->hdr->slot_bytes;

    *t = (struct kv_tier){ .host = setup->host,
                           .pool = setup->pool,
                           .stats = setup->stats,
                           .data = *setup->data,
                           .epoch = setup->epoch };
    t->batch_max = batch > KV_TIER_BATCH_MAX ? KV_TIER_BATCH_MAX : batch > 0 ? (uint32_t)batch : 1;
    page_list_init(&t->sealed, t->host->hdr->n_slots);
    t->aliases = mem_zalloc(t->pool->hdr->n_pages, sizeof *t->aliases);
    for (uint32_t i = 0; i < t->pool->hdr->n_pages; i++)
        t->aliases[i].name = nothing;
    host_tier_set_share(t->host, setup->group, setup->n_groups);
    take_over(t);
    return t;
}

void kv_tier_free(struct kv_tier *t)
{
    if (!t)
        return;
    page_list_fini(&t->sealed);
    free(t->aliases);
    free(t);
}

/* Slots of a batch that was under way stay FILLING: the successor finds them so. */
static void turn_off(struct kv_tier *t, const char *why)
{
    if (!t->is_off)
        log_warning("host tier: %s, going on without it", why);
    t->is_off = true;
}

/* ---- saving ---- */

static void seal_saved(struct kv_tier *t)
{
    struct kv_tier_batch *b = &t->batches[KV_TIER_SAVE];

    fault_point("worker.saved");
    for (uint32_t i = 0; i < b->n; i++) {
        if (!host_tier_seal(t->host, b->slots[i], t->epoch))
            continue;
        use(t, b->slots[i]);
        note_sealed(t, b->slots[i]);
        stat_add(t->stats, STAT_kv_pages_saved, 1);
    }
    b->n = 0;
}

static void poll_saves(struct kv_tier *t)
{
    if (t->batches[KV_TIER_SAVE].n == 0 || t->is_off)
        return;
    switch (t->data.poll(t->data.ctx, KV_TIER_SAVE)) {
    case KV_TIER_UNDER_WAY:
        break;
    case KV_TIER_DONE:
        seal_saved(t);
        break;
    case KV_TIER_FAILED:
        turn_off(t, "a copy failed");
    }
}

void kv_tier_finish_saving(struct kv_tier *t)
{
    if (t->batches[KV_TIER_SAVE].n == 0 || t->is_off)
        return;
    if (t->data.finish(t->data.ctx, KV_TIER_SAVE))
        seal_saved(t);
    else
        turn_off(t, "a copy failed");
}

static void look_for_memory(struct kv_tier *t, uint64_t now_ns)
{
    if (t->is_ready || t->is_off || now_ns < t->next_look_ns)
        return;
    t->next_look_ns = now_ns + LOOK_NS;
    switch (t->data.memory(t->data.ctx)) {
    case KV_TIER_COMING:
        break;
    case KV_TIER_READY:
        t->is_ready = true;
        log_info("host tier is ready, pages=%u", t->host->n);
        break;
    case KV_TIER_NONE:
        turn_off(t, "GPUs cannot copy to its memory");
    }
}

static bool is_quiet(const struct kv_tier *t)
{
    return !t->pool->data.is_quiet || t->pool->data.is_quiet(t->pool->data.ctx);
}

void kv_tier_look(struct kv_tier *t, uint64_t now_ns)
{
    look_for_memory(t, now_ns);
    poll_saves(t);
    if (t->n_quarantined > 0 && now_ns >= t->quiet_ns)
        t->n_quarantined = host_tier_end_quarantine(t->host, now_ns, is_quiet(t));
}

bool kv_tier_is_saving(const struct kv_tier *t, uint32_t page)
{
    const struct kv_tier_batch *b = &t->batches[KV_TIER_SAVE];

    for (uint32_t i = 0; i < b->n; i++)
        if (b->pages[i] == page)
            return true;
    return false;
}

bool kv_tier_has(const struct kv_tier *t, uint32_t page)
{
    uint64_t hash = atomic_load_explicit(&t->pool->descs[page].prefix_hash, memory_order_relaxed);
    struct kvpool_ref name = kv_tier_name(t, kvpool_ref(t->pool, page));
    struct host_slot_ref ref;
    struct host_copy copy;

    if (kv_tier_is_saving(t, page))
        return true;
    for (uint32_t at = 0; kv_tier_find(t, hash, kvpool_token_ids(t->pool, page), &at, &ref, &copy);)
        if (is_same(copy.origin, name))
            return true;
    return false;
}

static struct host_copy copy_of(const struct kv_tier *t, uint32_t page)
{
    const struct kv_page_desc *d = &t->pool->descs[page];
    struct kvpool_ref parent = { d->parent, d->parent_generation };

    return (struct host_copy){
        .origin = kv_tier_name(t, kvpool_ref(t->pool, page)),
        .parent = parent.page == KV_PAGE_NONE ? nothing : kv_tier_name(t, parent),
        .prefix_hash = atomic_load_explicit(&d->prefix_hash, memory_order_relaxed),
        .checksum = d->checksum,
    };
}

void kv_tier_save(struct kv_tier *t, const uint32_t *pages, uint32_t n)
{
    struct kv_tier_batch *b = &t->batches[KV_TIER_SAVE];

    assert(kv_tier_works(t) && b->n == 0 && n <= t->batch_max);
    for (uint32_t i = 0; i < n; i++) {
        struct host_copy copy = copy_of(t, pages[i]);
        uint32_t slot = take_slot(t);
        if (slot == HOST_SLOT_NONE)
            break;
        host_tier_describe(t->host, slot, &copy, kvpool_token_ids(t->pool, pages[i]));
        b->pages[b->n] = pages[i];
        b->slots[b->n++] = slot;
    }
    if (b->n > 0 && !t->data.begin(t->data.ctx, KV_TIER_SAVE, b->pages, b->slots, b->n))
        turn_off(t, "a copy could not be begun");
    fault_point("worker.save");
}

/* ---- finding and restoring ---- */

bool kv_tier_find(const struct kv_tier *t, uint64_t hash, const int32_t *ids, uint32_t *at,
                  struct host_slot_ref *ref, struct host_copy *copy)
{
    return kv_tier_works(t) && host_tier_find(t->host, hash, ids, at, ref, copy);
}

struct kvpool_ref kv_tier_name(const struct kv_tier *t, struct kvpool_ref page)
{
    const struct kv_tier_alias *a;

    if (page.page >= t->pool->hdr->n_pages)
        return page;
    a = &t->aliases[page.page];
    return a->name.page != KV_PAGE_NONE && a->generation == page.generation ? a->name : page;
}

void kv_tier_note_name(struct kv_tier *t, uint32_t page, struct kvpool_ref name)
{
    t->aliases[page] = (struct kv_tier_alias){ kvpool_ref(t->pool, page).generation, name };
}

void kv_tier_touch(struct kv_tier *t, struct host_slot_ref ref)
{
    if (!host_tier_is_ours(t->host, ref.slot) || !host_tier_is_still(t->host, ref))
        return;
    page_list_remove(&t->sealed, ref.slot);
    page_list_push(&t->sealed, ref.slot);
    use(t, ref.slot);
}

bool kv_tier_restore(struct kv_tier *t, const uint32_t *pages, const uint32_t *slots, uint32_t n)
{
    struct kv_tier_batch *b = &t->batches[KV_TIER_RESTORE];

    assert(kv_tier_works(t) && b->n == 0 && n > 0 && n <= t->batch_max);
    if (!t->data.begin(t->data.ctx, KV_TIER_RESTORE, pages, slots, n)) {
        turn_off(t, "a copy could not be begun");
        return false;
    }
    memcpy(b->pages, pages, n * sizeof *pages);
    memcpy(b->slots, slots, n * sizeof *slots);
    b->n = n;
    return true;
}

enum kv_tier_wait kv_tier_poll_restore(struct kv_tier *t)
{
    enum kv_tier_wait wait =
        t->is_off ? KV_TIER_FAILED : t->data.poll(t->data.ctx, KV_TIER_RESTORE);

    assert(t->batches[KV_TIER_RESTORE].n > 0);
    if (wait == KV_TIER_FAILED)
        turn_off(t, "a copy failed");
    if (wait != KV_TIER_UNDER_WAY)
        t->batches[KV_TIER_RESTORE].n = 0;
    return wait;
}

void kv_tier_drop(struct kv_tier *t, struct host_slot_ref ref)
{
    if (!host_tier_is_ours(t->host, ref.slot))
        host_tier_mark_bad(t->host, ref);
    else if (host_tier_is_still(t->host, ref))
        give_up(t, ref.slot);
}
