/* kvpool.h - make, attach, lease and free pages of the KV pool (kvpool_layout.h). */
#ifndef LLMD_PROTO_KVPOOL_H
#define LLMD_PROTO_KVPOOL_H

#include "proto/dtype.h"
#include "proto/kvpool_layout.h"

struct kvpool {
    struct segment segment;
    struct kvpool_hdr *hdr;
    struct kv_page_desc *descs; /* [n_pages] */
};

struct kvpool_shape {
    uint32_t n_pages, page_tokens;
    uint32_t n_layers, n_kv_heads, head_dim;
    enum dtype dtype;
};

uint64_t kvpool_page_bytes(const struct kvpool_shape *shape);

bool kvpool_create(struct kvpool *p, const struct kvpool_shape *shape, uint64_t instance,
                   struct err *e);
bool kvpool_attach(struct kvpool *p, int fd, struct err *e); /* takes fd */
void kvpool_close(struct kvpool *p);

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

/* Chained: of a page's ids and all before them.  parent: the hash of the page before, 0 for the first. */
uint64_t kvpool_prefix_hash(uint64_t parent, const int32_t *ids, uint32_t n);

/* A full page becomes immutable.  parent: the sealed page before it in its sequence, KV_PAGE_NONE for the
 * first.  Reads the whole page. */
void kvpool_seal(struct kvpool *p, uint32_t page, uint32_t parent);

/* Whether a sealed page's data is what was sealed.  Reads the whole page; any thread. */
bool kvpool_is_intact(const struct kvpool *p, uint32_t page);

/* Free every page leased to `group` under an epoch other than `epoch`, whatever its pins, except
 * those keep(page) wants; those are re-leased to `epoch` with 0 pins.  Returns how many were freed. */
uint32_t kvpool_reclaim(struct kvpool *p, uint32_t group, uint32_t epoch,
                        bool (*keep)(uint32_t page, void *arg), void *arg);

uint32_t kvpool_count_free(const struct kvpool *p);

static inline char *kvpool_page(const struct kvpool *p, uint32_t page)
{
    assert(page < p->hdr->n_pages);
    return (char *)p->hdr + p->hdr->data_offset + page * p->hdr->page_bytes;
}

static inline int32_t *kvpool_token_ids(const struct kvpool *p, uint32_t page)
{
    assert(page < p->hdr->n_pages);
    return (int32_t *)((char *)p->hdr + p->hdr->tokens_offset) + (size_t)page * p->hdr->page_tokens;
}

#endif
