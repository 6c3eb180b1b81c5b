/* kv_device.h - checksums and copies of KV pages that lie on a GPU, by kernels (kernels/pages.h); and to host memory.
 *
 * Each rank of a group has its own heads of every page of the group's share, page p of the pool at base + p *
 * page_bytes (kernels/kv_page.h).  Rank 0's table (proto/kv_data.h) is what the pool uses.  For its own part it starts
 * kernels; the other ranks do the same for theirs when `peers` tells them, and the sum of a page is made of the
 * ranks' sums in rank order.  Pages of another group are on other GPUs: where these are in reach, they are copied to
 * pages of our own.
 *
 * A failure is the device's fault, too: the next step reports it, and the worker ends. */
#ifndef LLMD_GPU_WORKER_CUDA_KV_DEVICE_H
#define LLMD_GPU_WORKER_CUDA_KV_DEVICE_H

#include "gpu-worker/cuda/device.h"
#include "gpu-worker/cuda/host_tier_device.h"
#include "proto/kv_data.h"

enum { KV_ORDER_PAGES_MAX = 64 };

/* The TIER ones: a call of host_tier_device.h each. */
enum kv_order_what {
    KV_ORDER_CHECKSUMS,
    KV_ORDER_COPY,
    KV_ORDER_REACH,
    KV_ORDER_TIER_MEMORY,
    KV_ORDER_TIER_DROP,
    KV_ORDER_TIER_BEGIN,
    KV_ORDER_TIER_POLL,
    KV_ORDER_TIER_FINISH,
};

/* What all ranks of a group do together.
 *   n      of .pages, 1..KV_ORDER_PAGES_MAX; COPY: 2; REACH: 1; TIER_BEGIN: two for each page; else 0
 *   pages  COPY: pages[0] becomes as pages[1]; TIER_BEGIN: page, slot, page, slot, .. */
struct kv_order {
    enum kv_order_what what;
    enum kv_tier_way way; /* of TIER_BEGIN, _POLL and _FINISH */
    uint32_t n;
    uint32_t pages[KV_ORDER_PAGES_MAX];
};

/* How many numbers each rank answers: the sums of pages, whether it could, or an enum of kv_tier_data.h. */
static inline uint32_t kv_order_n_answers(const struct kv_order *o)
{
    if (o->what == KV_ORDER_CHECKSUMS)
        return o->n;
    return o->what == KV_ORDER_COPY || o->what == KV_ORDER_REACH ||
           o->what == KV_ORDER_TIER_MEMORY || o->what == KV_ORDER_TIER_POLL;
}

/* Pages of other groups, as this rank reaches them (sibling_pages.h); all NULL: none. */
struct kv_siblings {
    void *ctx;
    bool (*reach)(void *ctx, uint32_t page);
    bool (*copy)(void *ctx, cu_ptr to, uint32_t page);
};

/* Have ranks 1..tp_size-1 carry out an order, each with kv_device_obey(), and wait for them.
 *   answers  [tp_size - 1][kv_order_n_answers(o)], written */
struct kv_peers {
    void *ctx;
    bool (*order)(void *ctx, const struct kv_order *o, uint64_t *answers, struct err *e);
};

struct kv_device;

struct kv_device_setup {
    struct device *device;        /* borrowed */
    cu_ptr base;                  /* page p at base + p * page_bytes, for pages of the share */
    uint64_t page_bytes;          /* of this rank's heads; a multiple of 16 */
    uint32_t first_page, n_pages; /* the group's share of the pool */
    uint32_t tp_size;
    struct kv_peers peers;         /* of rank 0 of several */
    struct host_tier_device *tier; /* borrowed; NULL: there is none */
    struct kv_siblings siblings;
    uint32_t group, n_groups; /* with those: the pool's pages are shared out evenly, */
    uint32_t n_pool_pages;    /* so many of them */
    uint64_t quarantine_ns;
    bool (*is_quiet)(void *ctx); /* as in proto/kv_data.h */
    void *quiet_ctx;
};

/* NULL and ERR_DEVICE. */
struct kv_device *kv_device_new(const struct kv_device_setup *setup, struct err *e);
void kv_device_free(struct kv_device *k); /* NULL is fine */

/* For struct kvpool of rank 0; lives as long as *k.  The thread that has the device alone may use it. */
struct kv_data kv_device_table(struct kv_device *k);

/* The same for the host tier (kv_tier_data.h); there must be one. */
struct kv_tier_data kv_device_tier_table(struct kv_device *k);

/* A rank's own part of an order.  answers: [kv_order_n_answers(o)].  Waits until it is done, but for what TIER_BEGIN
 * begins. */
bool kv_device_obey(struct kv_device *k, const struct kv_order *o, uint64_t *answers,
                    struct err *e);

#endif
