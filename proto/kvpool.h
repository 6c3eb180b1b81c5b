/* kvpool.h - make, attach, lease, find and free pages of the KV pool (kvpool_layout.h). */
#ifndef LLMD_PROTO_KVPOOL_H
#define LLMD_PROTO_KVPOOL_H

#include "common/hash.h"
#include "proto/dtype.h"
#include "proto/kv_data.h"
#include "proto/kvpool_layout.h"

struct kvpool {
    struct segment segment;
    struct kvpool_hdr *hdr;
    struct kv_page_desc *descs; /* [n_pages] */
    _Atomic uint64_t *index;    /* [index_slots] */
    struct kv_data data;        /* host memory, until kvpool_set_data() */
    uint32_t first, n;          /* pages that kvpool_lease() takes; all, until kvpool_set_share() */
};

/* A page as long as it is not freed. */
struct kvpool_ref {
    uint32_t page, generation;
};

struct kvpool_shape {
    uint32_t n_pages, page_tokens;
    uint32_t n_layers, n_kv_heads, head_dim;
    enum dtype dtype;
    bool small_pages; /* of memory: never huge ones */
    bool on_device;   /* no data in the segment */
};

uint64_t kvpool_page_bytes(const struct kvpool_shape *shape);

bool kvpool_create(struct kvpool *p, const struct kvpool_shape *shape, uint64_t instance,
                   struct err *e);
bool kvpool_attach(struct kvpool *p, int fd, struct err *e); /* takes fd */
void kvpool_close(struct kvpool *p);

/* From now on the data is read and copied through this table; required of a pool on a device before any of that. */
void kvpool_set_data(struct kvpool *p, const struct kv_data *data);

/* Lease only pages first .. first + n - 1: the group's GPUs have no others. */
void kvpool_set_share(struct kvpool *p, uint32_t first, uint32_t n);

/* Whether this process can read the data of a page: of its own share, of anyone's in host memory, or of a GPU that
 * ours reaches. */
static inline bool kvpool_is_in_reach(const struct kvpool *p, uint32_t page)
{
    return (page >= p->first && page - p->first < p->n) ||
           (p->data.can_read && p->data.can_read(p->data.ctx, page));
}

/* Who leases: one group in one epoch (start). */
static inline uint64_t kvpool_lease_of(uint32_t group, uint32_t epoch)
{
    return (uint64_t)(group + 1) << 32 | epoch;
}

/* Lease a free page, searching from *cursor on (the caller's own, any value; moved past the page
 * found).  KV_PAGE_NONE when none is free.  The page is empty, unsealed and unpinned. */
uint32_t kvpool_lease(struct kvpool *p, uint64_t lease, uint32_t *cursor);

/* Free a page that this lease holds; pins must be 0. */
void kvpool_free(struct kvpool *p, uint64_t lease, uint32_t page);

/* Tokens 0..n_tokens-1 of the page are written; release.  ids: n_tokens - (committed so far) of them. */
void kvpool_commit(struct kvpool *p, uint32_t page, uint32_t n_tokens, const int32_t *ids);

/* Chained: of a page's ids and all before them.  parent: the hash of the page before, the root for the
 * first. */
uint64_t kvpool_prefix_hash(uint64_t parent, const int32_t *ids, uint32_t n);

/* Where chains of hashes begin, for KV of these weights and kernels, now. */
uint64_t kvpool_prefix_root(const struct kvpool *p, struct hash128 identity);

/* The KV there is may be wrong: no page sealed before is found any more, by any group. */
void kvpool_hide_all(struct kvpool *p);

/* Read pages whole.  False: the data cannot be read, which only a device's can. */
bool kvpool_checksums(const struct kvpool *p, const uint32_t *pages, uint32_t n, uint64_t *sums);

/* A full page becomes immutable.  parent: the sealed page before it in its sequence, KV_PAGE_NONE for the
 * first; parent_hash: its prefix hash, or the root; checksum: as kvpool_checksums() gives it. */
void kvpool_seal_as(struct kvpool *p, uint32_t page, uint32_t parent, uint64_t parent_hash,
                    uint64_t checksum);

/* Both.  False: it cannot be read, and is not sealed. */
bool kvpool_seal(struct kvpool *p, uint32_t page, uint32_t parent, uint64_t parent_hash);

struct kvpool_ref kvpool_ref(const struct kvpool *p, uint32_t page);

/* Put a sealed page into the index, if it is not there. */
void kvpool_publish(struct kvpool *p, uint32_t page);

/* The next sealed page that the index has for this hash, whoever's it is; *at is 0 before the first call.  A
 * hint: what the page holds is for kvpool_holds() to say. */
bool kvpool_find(const struct kvpool *p, uint64_t hash, uint32_t *at, struct kvpool_ref *out);

/* The same, of pages sealed behind one with this hash, or behind the root. */
bool kvpool_find_next(const struct kvpool *p, uint64_t parent_hash, uint32_t *at,
                      struct kvpool_ref *out);

/* How many of ids[0..n-1], n at most a page, a page begins with, whoever's it is; 0 when it is not sealed any
 * more.  Else *parent is the page it was computed behind (.page KV_PAGE_NONE: it is a first one). */
uint32_t kvpool_common(const struct kvpool *p, struct kvpool_ref ref, const int32_t *ids,
                       uint32_t n, struct kvpool_ref *parent);

/* Fill the first n tokens of a page just leased from a sealed one that begins with ids[0..n-1], perhaps of
 * another group, and seal it when that is all.  False, and the page is empty still, when the other was
 * freed meanwhile, is corrupt or out of reach. */
bool kvpool_copy(struct kvpool *p, uint32_t page, struct kvpool_ref from, const int32_t *ids,
                 uint32_t n, uint32_t parent, uint64_t parent_hash);

/* Fill the first n tokens of a page just leased from one of the same lease that is not full, and begins with
 * ids[0..n-1].  Nobody computes meanwhile.  False, and the page is empty still, when the other was freed since. */
bool kvpool_copy_open(struct kvpool *p, uint32_t page, struct kvpool_ref from, const int32_t *ids,
                      uint32_t n);

/* Whether a sealed page's data is what was sealed.  Reads the whole page; of host memory on any thread. */
bool kvpool_is_intact(const struct kvpool *p, uint32_t page);

/* Fill the first n tokens of a page just leased from one that kvpool_reclaim() has quarantined a moment ago, whose
 * committed tokens they were.  False, and the page is empty still, when the data cannot be copied. */
bool kvpool_copy_quarantined(struct kvpool *p, uint32_t page, uint32_t from, const int32_t *ids,
                             uint32_t n);

/* Free every page leased to `group` under an epoch other than `epoch`, whatever its pins, except
 * those keep(page) wants; those are re-leased to `epoch` with 0 pins.  Returns how many were freed.  With
 * data.quarantine_ns those not sealed are not freed but quarantined, from now on. */
uint32_t kvpool_reclaim(struct kvpool *p, uint32_t group, uint32_t epoch,
                        bool (*keep)(uint32_t page, void *arg), void *arg);

/* Free the pages of the group whose quarantine is over; returns how many are left in it. */
uint32_t kvpool_end_quarantine(struct kvpool *p, uint32_t group, uint64_t now_ns);

/* The data of this group may be wrong from now on: a device has failed. */
void kvpool_doubt(struct kvpool *p, uint32_t group);
bool kvpool_is_doubted(const struct kvpool *p, uint32_t group);
/* All of it has been looked at. */
void kvpool_end_doubt(struct kvpool *p, uint32_t group);

uint32_t kvpool_count_free(const struct kvpool *p);

/* Of host memory. */
static inline char *kvpool_page(const struct kvpool *p, uint32_t page)
{
    assert(page < p->hdr->n_pages && p->hdr->place == KV_PLACE_HOST);
    return (char *)p->hdr + p->hdr->data_offset + page * p->hdr->page_bytes;
}

static inline int32_t *kvpool_token_ids(const struct kvpool *p, uint32_t page)
{
    assert(page < p->hdr->n_pages);
    return (int32_t *)((char *)p->hdr + p->hdr->tokens_offset) + (size_t)page * p->hdr->page_tokens;
}

#endif
