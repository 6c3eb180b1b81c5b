/* kv_tier.h - a group's half of the host tier: what is in it, what goes, and the copies under way.
 *
 * The group fills the slots of its share, least recently used ones again, and finds what is in anybody's
 * (proto/host_tier_layout.h).  When to save and what to bring back is kvcache_tier.c's to say.  Rank 0's engine thread
 * alone calls this.
 *
 * A page goes here by its name: {page, generation}, or, when it was filled from a slot, by the name that the slot's
 * page had.  So what comes back is not saved again, and is still the parent of what was computed behind it.
 *
 * When memory cannot be pinned, or a copy fails, the tier is off for the life of this worker: nothing is saved or
 * found, and pages are computed again as without it. */
#ifndef LLMD_GPU_WORKER_KV_TIER_H
#define LLMD_GPU_WORKER_KV_TIER_H

#include "gpu-worker/kv_tier_data.h"
#include "gpu-worker/page_list.h"
#include "proto/host_tier.h"
#include "proto/stats.h"

/* Copies that were begun together. */
struct kv_tier_batch {
    uint32_t n; /* 0: none is under way */
    uint32_t pages[KV_TIER_BATCH_MAX], slots[KV_TIER_BATCH_MAX];
};

/* The name of a page that was filled from a slot. */
struct kv_tier_alias {
    uint32_t generation; /* of the page, for which it holds */
    struct kvpool_ref name;
};

struct kv_tier {
    struct host_tier *host; /* borrowed */
    struct kvpool *pool;    /* borrowed */
    struct stats *stats;    /* borrowed */
    struct kv_tier_data data;
    uint32_t epoch;
    uint32_t batch_max; /* pages; bounds the bytes under way */
    bool is_ready, is_off;
    uint64_t next_look_ns; /* for memory */
    uint32_t cursor;       /* of host_tier_take() */
    uint32_t n_quarantined;
    uint64_t quiet_ns;             /* before then none of these is free */
    uint64_t n_uses;               /* host_page.last_used of the newest */
    struct page_list sealed;       /* slots of the share */
    struct kv_tier_alias *aliases; /* [pool pages] */
    struct kv_tier_batch batches[N_KV_TIER_WAYS];
};

struct kv_tier_setup {
    struct host_tier *host; /* borrowed */
    struct kvpool *pool;    /* borrowed */
    struct stats *stats;    /* borrowed */
    const struct kv_tier_data *data;
    uint32_t group, n_groups, epoch;
};

/* Takes over what dead epochs of the group have left. */
struct kv_tier *kv_tier_new(const struct kv_tier_setup *setup);
/* NULL is fine.  What is under way goes on, and is nobody's: its slots are as a dead worker's. */
void kv_tier_free(struct kv_tier *t);

/* Now and then: looks for memory, quarantine, and saves that are done. */
void kv_tier_look(struct kv_tier *t, uint64_t now_ns);

static inline bool kv_tier_works(const struct kv_tier *t)
{
    return t->is_ready && !t->is_off;
}

static inline bool kv_tier_is_under_way(const struct kv_tier *t, enum kv_tier_way way)
{
    return t->batches[way].n > 0;
}

/* ---- saving ---- */

/* Whether a sealed page is there, or on its way. */
bool kv_tier_has(const struct kv_tier *t, uint32_t page);
/* Whether it is being read, and must stay. */
bool kv_tier_is_saving(const struct kv_tier *t, uint32_t page);

/* Begin to save n sealed pages, at most .batch_max, that are not there; none is under way.  Fewer when there are fewer
 * slots. */
void kv_tier_save(struct kv_tier *t, const uint32_t *pages, uint32_t n);
/* Wait for them, if any. */
void kv_tier_finish_saving(struct kv_tier *t);

/* ---- finding and restoring ---- */

/* The next slot with this hash and these ids, of any group; as host_tier_find(), and nothing while it does not work. */
bool kv_tier_find(const struct kv_tier *t, uint64_t hash, const int32_t *ids, uint32_t *at,
                  struct host_slot_ref *ref, struct host_copy *copy);

/* The name that pages behind this one may know it by; itself when it has no other. */
struct kvpool_ref kv_tier_name(const struct kv_tier *t, struct kvpool_ref page);

/* A slot was found and is wanted: it goes later. */
void kv_tier_touch(struct kv_tier *t, struct host_slot_ref ref);

/* Begin to fill n pages, at most .batch_max, from slots; none is under way. */
bool kv_tier_restore(struct kv_tier *t, const uint32_t *pages, const uint32_t *slots, uint32_t n);
/* How that goes; DONE and FAILED once, and it is over. */
enum kv_tier_wait kv_tier_poll_restore(struct kv_tier *t);

/* A page is what was saved under this name. */
void kv_tier_note_name(struct kv_tier *t, uint32_t page, struct kvpool_ref name);

/* What is in the slot is not what was saved: nobody finds it any more. */
void kv_tier_drop(struct kv_tier *t, struct host_slot_ref ref);

#endif
