/* host_tier.c - see host_tier.h. */
#include "proto/host_tier.h"

#include <string.h>

enum { INDEX_WINDOW = 16 }; /* slots of the index that one may lie in, from that of its hash on */

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

static uint64_t state_word(enum host_page_state state, uint32_t epoch)
{
    return state == HOST_PAGE_FREE ? 0 : (uint64_t)state << 32 | epoch;
}

/* ---- make, attach ---- */

static uint32_t index_slots_for(uint32_t n_slots)
{
    uint32_t n = INDEX_WINDOW;

    while (n / 4 < n_slots && n < 1u << 31)
        n *= 2;
    return n;
}

static void map_parts(struct host_tier *t, const struct segment *s)
{
    *t = (struct host_tier){ .segment = *s, .hdr = (struct host_tier_hdr *)s->hdr };
    t->pages = segment_at(s, HOST_TIER_PAGES_OFFSET);
    t->index = segment_at(s, t->hdr->index_offset);
    t->n = t->hdr->n_slots;
}

/* Where everything lies, and the bytes of all of it. */
static uint64_t lay_out(struct host_tier_hdr *h, const struct host_tier_shape *shape)
{
    uint64_t ids = HOST_TIER_PAGES_OFFSET + (uint64_t)shape->n_slots * sizeof(struct host_page);
    uint64_t ids_bytes = (uint64_t)shape->n_slots * shape->page_tokens * sizeof(int32_t);

    h->n_slots = shape->n_slots;
    h->page_tokens = shape->page_tokens;
    h->n_ranks = shape->n_ranks;
    h->slot_bytes = shape->slot_bytes;
    h->part_bytes = round_up(shape->n_slots * shape->slot_bytes, HOST_TIER_DATA_ALIGN);
    h->ids_offset = ids;
    h->index_slots = index_slots_for(shape->n_slots);
    h->index_offset = round_up(ids + ids_bytes, sizeof(struct host_page));
    h->data_offset =
        round_up(h->index_offset + h->index_slots * sizeof(uint64_t), HOST_TIER_DATA_ALIGN);
    return h->data_offset + h->n_ranks * h->part_bytes;
}

bool host_tier_create(struct host_tier *t, const struct host_tier_shape *shape, uint64_t instance,
                      struct err *e)
{
    struct host_tier_hdr plan = { 0 };
    uint64_t bytes = lay_out(&plan, shape);
    struct segment s;

    assert(shape->n_slots > 0 && shape->n_slots < HOST_SLOT_NONE && shape->page_tokens > 0);
    assert(shape->n_ranks > 0 && shape->slot_bytes > 0);
    if (!segment_create_large(&s, SEGMENT_HOST_TIER, HOST_TIER_VERSION, "llmd-hosttier", bytes,
                              instance, !shape->small_pages, e))
        return false;
    lay_out((struct host_tier_hdr *)s.hdr, shape);
    map_parts(t, &s);
    return true;
}

/* Records, ids, index and data follow one another in the segment; no sum here can wrap. */
static bool offsets_fit(const struct host_tier_hdr *h, size_t bytes)
{
    uint64_t n = h->n_slots;

    return n > 0 && n < HOST_SLOT_NONE && h->page_tokens > 0 && h->n_ranks > 0 &&
           h->slot_bytes > 0 && h->data_offset <= bytes &&
           h->data_offset % HOST_TIER_DATA_ALIGN == 0 && h->index_offset <= h->data_offset &&
           h->index_offset % sizeof(uint64_t) == 0 && h->index_slots >= INDEX_WINDOW &&
           (h->index_slots & (h->index_slots - 1)) == 0 &&
           h->index_slots <= (h->data_offset - h->index_offset) / sizeof(uint64_t) &&
           h->ids_offset <= h->index_offset && h->ids_offset % sizeof(int32_t) == 0 &&
           h->page_tokens <= (h->index_offset - h->ids_offset) / sizeof(int32_t) / n &&
           HOST_TIER_PAGES_OFFSET + n * sizeof(struct host_page) <= h->ids_offset &&
           h->slot_bytes <= h->part_bytes / n && h->part_bytes % HOST_TIER_DATA_ALIGN == 0 &&
           h->part_bytes <= (bytes - h->data_offset) / h->n_ranks;
}

bool host_tier_attach(struct host_tier *t, int fd, struct err *e)
{
    const struct host_tier_hdr *h;
    struct segment s;

    if (!segment_attach(&s, fd, SEGMENT_HOST_TIER, HOST_TIER_VERSION, true, e))
        return false;
    h = (const struct host_tier_hdr *)s.hdr;
    if (s.bytes < sizeof *h || !offsets_fit(h, s.bytes)) {
        segment_close(&s);
        return err_set(e, ERR_PROTO, 0, "host tier: its offsets do not fit its size");
    }
    map_parts(t, &s);
    return true;
}

void host_tier_close(struct host_tier *t)
{
    segment_close(&t->segment);
    *t = (struct host_tier){ .segment.fd = -1 };
}

void host_tier_set_share(struct host_tier *t, uint32_t group, uint32_t n_groups)
{
    uint64_t n = t->hdr->n_slots;

    assert(group < n_groups);
    t->first = (uint32_t)(n * group / n_groups);
    t->n = (uint32_t)(n * (group + 1) / n_groups) - t->first;
}

/* ---- from free to sealed and back ---- */

static bool move_state(struct host_page *p, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong_explicit(&p->state, &from, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

uint32_t host_tier_take(struct host_tier *t, uint32_t epoch, uint32_t *cursor)
{
    uint64_t begin = *cursor >= t->first ? *cursor - t->first : 0;

    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t slot = t->first + (uint32_t)((begin + i) % t->n);
        if (move_state(&t->pages[slot], 0, state_word(HOST_PAGE_FILLING, epoch))) {
            *cursor = slot + 1;
            return slot;
        }
    }
    return HOST_SLOT_NONE;
}

void host_tier_describe(struct host_tier *t, uint32_t slot, const struct host_copy *copy,
                        const int32_t *ids)
{
    struct host_page *p = &t->pages[slot];

    assert(host_tier_is_ours(t, slot) && host_tier_state(t, slot) == HOST_PAGE_FILLING);
    memcpy(host_tier_ids(t, slot), ids, t->hdr->page_tokens * sizeof *ids);
    atomic_store_explicit(&p->prefix_hash, copy->prefix_hash, memory_order_relaxed);
    atomic_store_explicit(&p->is_bad, 0, memory_order_relaxed);
    p->checksum = copy->checksum;
    p->origin_page = copy->origin.page;
    p->origin_generation = copy->origin.generation;
    p->parent_page = copy->parent.page;
    p->parent_generation = copy->parent.generation;
}

bool host_tier_seal(struct host_tier *t, uint32_t slot, uint32_t epoch)
{
    if (!move_state(&t->pages[slot], state_word(HOST_PAGE_FILLING, epoch),
                    state_word(HOST_PAGE_SEALED, epoch)))
        return false;
    host_tier_publish(t, slot);
    return true;
}

void host_tier_free(struct host_tier *t, uint32_t slot)
{
    struct host_page *p = &t->pages[slot];

    assert(host_tier_is_ours(t, slot));
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_relaxed);
    atomic_store_explicit(&p->prefix_hash, 0, memory_order_release);
    p->last_used = 0;
    atomic_store_explicit(&p->state, 0, memory_order_release);
}

/* ---- finding ---- */

/* Adding nothing, with release, keeps the reads before it, as a fence would; the thread sanitizer knows no fences. */
bool host_tier_is_still(const struct host_tier *t, struct host_slot_ref ref)
{
    return atomic_fetch_add_explicit(&t->pages[ref.slot].generation, 0, memory_order_acq_rel) ==
           ref.generation;
}

/* Marked for a slot that was filled anew an instant ago, it costs that one. */
void host_tier_mark_bad(struct host_tier *t, struct host_slot_ref ref)
{
    if (host_tier_is_still(t, ref))
        atomic_store_explicit(&t->pages[ref.slot].is_bad, 1, memory_order_relaxed);
}

static bool is_sealed(const struct host_tier *t, struct host_slot_ref ref)
{
    return host_tier_state(t, ref.slot) == HOST_PAGE_SEALED &&
           atomic_load_explicit(&t->pages[ref.slot].generation, memory_order_acquire) ==
               ref.generation;
}

static _Atomic uint64_t *index_at(const struct host_tier *t, uint64_t hash, uint32_t i)
{
    return &t->index[(hash + i) & (t->hdr->index_slots - 1)];
}

/* What a word of the index names, when that is a sealed slot. */
static bool read_index(const struct host_tier *t, uint64_t word, struct host_slot_ref *out)
{
    struct host_slot_ref ref = { (uint32_t)word - 1, (uint32_t)(word >> 32) };

    if ((uint32_t)word == 0 || ref.slot >= t->hdr->n_slots || !is_sealed(t, ref))
        return false;
    *out = ref;
    return true;
}

/* Into a place that names nothing, else over another. */
void host_tier_publish(struct host_tier *t, uint32_t slot)
{
    struct host_page *p = &t->pages[slot];
    uint64_t hash = atomic_load_explicit(&p->prefix_hash, memory_order_relaxed);
    uint64_t word =
        (uint64_t)atomic_load_explicit(&p->generation, memory_order_relaxed) << 32 | (slot + 1);
    struct host_slot_ref other;

    for (uint32_t i = 0; i < INDEX_WINDOW; i++)
        if (atomic_load_explicit(index_at(t, hash, i), memory_order_relaxed) == word)
            return;
    for (uint32_t i = 0; i < INDEX_WINDOW; i++) {
        uint64_t there = atomic_load_explicit(index_at(t, hash, i), memory_order_relaxed);
        if (!read_index(t, there, &other) &&
            atomic_compare_exchange_strong_explicit(index_at(t, hash, i), &there, word,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    atomic_store_explicit(index_at(t, hash, slot % INDEX_WINDOW), word, memory_order_release);
}

/* What is there, when it is of these ids. */
static bool read_slot(const struct host_tier *t, struct host_slot_ref ref, uint64_t hash,
                      const int32_t *ids, struct host_copy *copy)
{
    const struct host_page *p = &t->pages[ref.slot];
    struct host_copy read = { .prefix_hash =
                                  atomic_load_explicit(&p->prefix_hash, memory_order_relaxed) };

    if (read.prefix_hash != hash || atomic_load_explicit(&p->is_bad, memory_order_relaxed) ||
        memcmp(host_tier_ids(t, ref.slot), ids, t->hdr->page_tokens * sizeof *ids) != 0)
        return false;
    read.checksum = p->checksum;
    read.origin = (struct kvpool_ref){ p->origin_page, p->origin_generation };
    read.parent = (struct kvpool_ref){ p->parent_page, p->parent_generation };
    if (!host_tier_is_still(t, ref))
        return false;
    *copy = read;
    return true;
}

bool host_tier_find(const struct host_tier *t, uint64_t hash, const int32_t *ids, uint32_t *at,
                    struct host_slot_ref *ref, struct host_copy *copy)
{
    while (*at < INDEX_WINDOW) {
        uint64_t word = atomic_load_explicit(index_at(t, hash, (*at)++), memory_order_acquire);
        if (read_index(t, word, ref) && read_slot(t, *ref, hash, ids, copy))
            return true;
    }
    return false;
}

/* ---- wishes ---- */

static uint64_t wish_word(struct kvpool_ref page)
{
    return (uint64_t)page.generation << 32 | (page.page + 1);
}

void host_tier_wish(struct host_tier *t, struct kvpool_ref page)
{
    _Atomic uint64_t *wishes = t->hdr->wishes;
    uint64_t word = wish_word(page);

    for (uint32_t i = 0; i < HOST_TIER_WISHES; i++)
        if (atomic_load_explicit(&wishes[i], memory_order_relaxed) == word)
            return;
    for (uint32_t i = 0; i < HOST_TIER_WISHES; i++) {
        uint64_t none = 0;
        if (atomic_compare_exchange_strong_explicit(&wishes[i], &none, word, memory_order_relaxed,
                                                    memory_order_relaxed))
            return;
    }
}

bool host_tier_next_wish(const struct host_tier *t, uint32_t *at, struct kvpool_ref *out)
{
    while (*at < HOST_TIER_WISHES) {
        uint64_t word = atomic_load_explicit(&t->hdr->wishes[(*at)++], memory_order_relaxed);
        *out = (struct kvpool_ref){ (uint32_t)word - 1, (uint32_t)(word >> 32) };
        if (word != 0)
            return true;
    }
    return false;
}

void host_tier_end_wish(struct host_tier *t, uint32_t at)
{
    assert(at > 0 && at <= HOST_TIER_WISHES);
    atomic_store_explicit(&t->hdr->wishes[at - 1], 0, memory_order_relaxed);
}

void host_tier_note_turn(struct host_tier *t, uint32_t group, uint64_t now_ns)
{
    if (group < HOST_TIER_GROUPS_MAX)
        atomic_store_explicit(&t->hdr->turned_ns[group], now_ns, memory_order_relaxed);
}

uint64_t host_tier_turned_ns(const struct host_tier *t, uint32_t group)
{
    return group < HOST_TIER_GROUPS_MAX
               ? atomic_load_explicit(&t->hdr->turned_ns[group], memory_order_relaxed)
               : 0;
}

/* ---- after a death ---- */

static bool reclaim_one(struct host_tier *t, uint32_t slot, uint64_t until_ns)
{
    struct host_page *p = &t->pages[slot];

    if (until_ns == 0) {
        host_tier_free(t, slot);
        return false;
    }
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_relaxed);
    p->last_used = until_ns;
    atomic_store_explicit(&p->state, state_word(HOST_PAGE_QUARANTINE, 0), memory_order_release);
    return true;
}

uint32_t host_tier_reclaim(struct host_tier *t, uint64_t until_ns)
{
    uint32_t n = 0;

    for (uint32_t slot = t->first; slot < t->first + t->n; slot++) {
        enum host_page_state state = host_tier_state(t, slot);
        if (state == HOST_PAGE_SEALED)
            host_tier_publish(t, slot);
        else if (state == HOST_PAGE_FILLING)
            n += reclaim_one(t, slot, until_ns);
        else
            n += state == HOST_PAGE_QUARANTINE;
    }
    return n;
}

uint32_t host_tier_end_quarantine(struct host_tier *t, uint64_t now_ns, bool is_quiet)
{
    uint32_t n_left = 0;

    for (uint32_t slot = t->first; slot < t->first + t->n; slot++) {
        if (host_tier_state(t, slot) != HOST_PAGE_QUARANTINE)
            continue;
        if (is_quiet && t->pages[slot].last_used <= now_ns)
            host_tier_free(t, slot);
        else
            n_left++;
    }
    return n_left;
}
