/* kv_data.h - who reads and copies the bytes of KV pages.
 *
 * The directory of the pool is host memory always; the pages' data may lie on a GPU, where the host cannot
 * look.  What the pool does with data goes through this table: memory of the host by default
 * (kvpool.c), kernels when the worker sets another one (gpu-worker/cuda/kv_device.h).  With several ranks in a group
 * the table of rank 0 speaks for the heads of all of them.
 *
 * A process that is dead to the host may still have work under way on a GPU, which writes.  So pages that it may
 * write to are used again only after a while (.quarantine_ns), and when nothing of it is seen any more. */
#ifndef LLMD_PROTO_KV_DATA_H
#define LLMD_PROTO_KV_DATA_H

#include <stdbool.h>
#include <stdint.h>

struct kv_data {
    void *ctx;
    /* sums[i] = of all bytes of pages[i]; the same bytes always give the same one.  False: cannot be known. */
    bool (*checksums)(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums);
    /* The first n_tokens of page `from` to page `to`, of all layers and heads; what is behind them in `to` is
     * undefined.  Done when it returns.  False: not done, `to` is undefined. */
    bool (*copy)(void *ctx, uint32_t to, uint32_t from, uint32_t n_tokens);
    /* Whether a page that is not of the group's share can be copied from; asked each time, it may find out.  NULL: none
     * can. */
    bool (*can_read)(void *ctx, uint32_t page);
    /* A copy of such a page, which did not change, was not what was sealed; NULL: nobody wants to know. */
    void (*was_wrong)(void *ctx, uint32_t page);
    uint64_t quarantine_ns; /* 0: who is dead writes no more */
    bool (*is_quiet)(
        void *ctx); /* no trace of a dead process is left; NULL: cannot be asked, time must do */
};

#endif
