/* host_tier.h - make, attach, fill, find and free slots of the host tier (host_tier_layout.h).
 *
 * Knows directory and memory, and no GPU: who copies is gpu-worker/cuda/host_tier_device.h, what is kept and what
 * goes is gpu-worker/kv_tier.h. */
#ifndef LLMD_PROTO_HOST_TIER_H
#define LLMD_PROTO_HOST_TIER_H

#include "proto/host_tier_layout.h"
#include "proto/kvpool.h"

#define HOST_SLOT_NONE UINT32_MAX

struct host_tier {
    struct segment segment; /* .hdr NULL: there is none */
    struct host_tier_hdr *hdr;
    struct host_page *pages; /* [n_slots] */
    _Atomic uint64_t *index; /* [index_slots] */
    uint32_t first, n; /* slots that host_tier_take() takes; all, until host_tier_set_share() */
};

struct host_tier_shape {
    uint32_t n_slots, page_tokens, n_ranks;
    uint64_t slot_bytes; /* of one rank */
    bool small_pages;    /* of memory: never huge ones */
};

/* A slot as long as it is not freed. */
struct host_slot_ref {
    uint32_t slot, generation;
};

/* What a slot holds a copy of. */
struct host_copy {
    struct kvpool_ref origin, parent; /* parent.page KV_PAGE_NONE: there is none */
    uint64_t prefix_hash, checksum;
};

bool host_tier_create(struct host_tier *t, const struct host_tier_shape *shape, uint64_t instance,
                      struct err *e);
bool host_tier_attach(struct host_tier *t, int fd, struct err *e); /* takes fd */
void host_tier_close(struct host_tier *t);

/* The slots of one group of n_groups. */
void host_tier_set_share(struct host_tier *t, uint32_t group, uint32_t n_groups);

static inline bool host_tier_is_ours(const struct host_tier *t, uint32_t slot)
{
    return slot >= t->first && slot - t->first < t->n;
}

/* A free slot of the share, FILLING in this epoch from now on; searched from *cursor on (any value; moved past the
 * slot found).  HOST_SLOT_NONE when none is free. */
uint32_t host_tier_take(struct host_tier *t, uint32_t epoch, uint32_t *cursor);

/* What is about to be copied to a slot that is FILLING.  ids: [page_tokens]. */
void host_tier_describe(struct host_tier *t, uint32_t slot, const struct host_copy *copy,
                        const int32_t *ids);

/* All ranks have their part of it: it can be found.  False, and it is as it was: it is not FILLING in this epoch. */
bool host_tier_seal(struct host_tier *t, uint32_t slot, uint32_t epoch);

/* Put a sealed slot into the index, if it is not there. */
void host_tier_publish(struct host_tier *t, uint32_t slot);

/* Of the share; whoever reads it notices. */
void host_tier_free(struct host_tier *t, uint32_t slot);

/* The next sealed slot with this hash and these ids; *at is 0 before the first call.  Of every page before it the
 * caller knows better (copy->parent). */
bool host_tier_find(const struct host_tier *t, uint64_t hash, const int32_t *ids, uint32_t *at,
                    struct host_slot_ref *ref, struct host_copy *copy);

/* Its data is not what was saved: nobody is to find it again, until it is filled anew. */
void host_tier_mark_bad(struct host_tier *t, struct host_slot_ref ref);

/* Whether it was not freed since: what was read meanwhile is of that page. */
bool host_tier_is_still(const struct host_tier *t, struct host_slot_ref ref);

/* Slots of the share that were FILLING when their worker died: in quarantine until until_ns, or free at once when that
 * is 0.  Sealed ones are in the index again.  Returns how many are in quarantine. */
uint32_t host_tier_reclaim(struct host_tier *t, uint64_t until_ns);

/* Free those whose quarantine is over; returns how many are left in it.  is_quiet: nobody dead writes any more. */
uint32_t host_tier_end_quarantine(struct host_tier *t, uint64_t now_ns, bool is_quiet);

/* ---- wishes ---- */

/* Have the group that has this page save it, when there is room for a wish. */
void host_tier_wish(struct host_tier *t, struct kvpool_ref page);
/* The next page that somebody wants; *at is 0 before the first call, and names it until the next. */
bool host_tier_next_wish(const struct host_tier *t, uint32_t *at, struct kvpool_ref *out);
/* That of the last call is fulfilled, or cannot be. */
void host_tier_end_wish(struct host_tier *t, uint32_t at);

/* A group looks here as often as it plans a step: one that did not for a while may be asleep. */
void host_tier_note_turn(struct host_tier *t, uint32_t group, uint64_t now_ns);
uint64_t host_tier_turned_ns(const struct host_tier *t, uint32_t group);

static inline enum host_page_state host_tier_state(const struct host_tier *t, uint32_t slot)
{
    return (enum host_page_state)(
        atomic_load_explicit(&t->pages[slot].state, memory_order_acquire) >> 32);
}

static inline int32_t *host_tier_ids(const struct host_tier *t, uint32_t slot)
{
    assert(slot < t->hdr->n_slots);
    return (int32_t *)((char *)t->hdr + t->hdr->ids_offset) + (size_t)slot * t->hdr->page_tokens;
}

/* A rank's part of all slots: part_bytes, slot s at s * slot_bytes. */
static inline char *host_tier_part(const struct host_tier *t, uint32_t rank)
{
    assert(rank < t->hdr->n_ranks);
    return (char *)t->hdr + t->hdr->data_offset + rank * t->hdr->part_bytes;
}

#endif
