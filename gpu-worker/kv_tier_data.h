/* kv_tier_data.h - who copies pages between GPUs and the host tier.
 *
 * As kv_data.h is for the pages themselves: what the engine does with the tier's data goes through this table, which
 * rank 0's backend fills and which speaks for all ranks of the group.  Copies are begun and not waited for: they
 * go beside the steps.  In each way one batch is under way at a time. */
#ifndef LLMD_GPU_WORKER_KV_TIER_DATA_H
#define LLMD_GPU_WORKER_KV_TIER_DATA_H

#include <stdbool.h>
#include <stdint.h>

enum { KV_TIER_BATCH_MAX = 32 }; /* pages */

enum kv_tier_way { KV_TIER_SAVE, KV_TIER_RESTORE, N_KV_TIER_WAYS };

/* Of memory that GPUs can copy to and from. */
enum kv_tier_memory { KV_TIER_COMING, KV_TIER_READY, KV_TIER_NONE };

enum kv_tier_wait { KV_TIER_UNDER_WAY, KV_TIER_DONE, KV_TIER_FAILED };

struct kv_tier_data {
    void *ctx;
    /* Asked again and again, and never waits.  The first call has every rank pin its part, in the background; NONE once
     * one of them cannot, for good. */
    enum kv_tier_memory (*memory)(void *ctx);
    /* Begin to copy n pages, 1..KV_TIER_BATCH_MAX, to as many slots, or back.  Pages to be saved are sealed, and stay;
     * those to be filled, and slots, are nobody else's until it is done.  False: the device has failed. */
    bool (*begin)(void *ctx, enum kv_tier_way way, const uint32_t *pages, const uint32_t *slots,
                  uint32_t n);
    /* Whether what was begun is done, by every rank. */
    enum kv_tier_wait (*poll)(void *ctx, enum kv_tier_way way);
    /* Wait for it.  False: the device has failed. */
    bool (*finish)(void *ctx, enum kv_tier_way way);
};

#endif
