/* host_tier_device.h - one rank's half of the host tier: its part of the memory pinned, and copies between that and its
 * GPU's pages.
 *
 * The segment (proto/host_tier_layout.h) is memory of the host that llmd owns, so every worker pins it anew.  That
 * takes about a tenth of a second for a gigabyte, and the driver holds locks meanwhile that other processes wait for; so it
 * is done by a thread, a piece at a time, after the worker serves, and the pages are there before the driver is asked.
 * When a piece cannot be pinned the others are let go again: the tier is not used.
 *
 * Copies are the driver's, one run of bytes a page, on a stream for each way beside that of the steps: they take no
 * multiprocessor, and nobody waits for them until it is asked how they go. */
#ifndef LLMD_GPU_WORKER_CUDA_HOST_TIER_DEVICE_H
#define LLMD_GPU_WORKER_CUDA_HOST_TIER_DEVICE_H

#include "gpu-worker/cuda/device.h"
#include "gpu-worker/kv_tier_data.h"

#define HOST_TIER_PIECE_BYTES ((uint64_t)1 << 30)

struct host_tier_device_setup {
    struct device *device; /* borrowed */
    cu_ptr base;           /* page p at base + p * page_bytes */
    uint64_t page_bytes;   /* a slot has as many */
    char *memory;          /* of all slots, slot s at s * page_bytes; borrowed, page aligned */
    uint64_t bytes;
    uint64_t piece_bytes; /* pinned at a time; 0 = HOST_TIER_PIECE_BYTES */
};

struct host_tier_device;

/* Nothing is pinned yet.  NULL and ERR_DEVICE. */
struct host_tier_device *host_tier_device_new(const struct host_tier_device_setup *setup,
                                              struct err *e);
/* Waits for the thread, and for copies, unless the device has failed.  NULL is fine. */
void host_tier_device_free(struct host_tier_device *h);

/* The first call begins to pin.  NONE once it could not be done, which the log says. */
enum kv_tier_memory host_tier_device_memory(struct host_tier_device *h);
/* It will not be used: let go of what is pinned. */
void host_tier_device_drop(struct host_tier_device *h);

/* This rank's copies of pairs {page, slot}, pairs [2 * n]; none is under way in this way.  false: the device's
 * fault. */
bool host_tier_device_begin(struct host_tier_device *h, enum kv_tier_way way, const uint32_t *pairs,
                            uint32_t n);
enum kv_tier_wait host_tier_device_poll(struct host_tier_device *h, enum kv_tier_way way);
bool host_tier_device_finish(struct host_tier_device *h, enum kv_tier_way way, struct err *e);

#endif
