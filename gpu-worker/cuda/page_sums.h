/* page_sums.h - checksums of runs of GPU memory, by the kernel of kernels/pages.h: weights and KV pages. */
#ifndef LLMD_GPU_WORKER_CUDA_PAGE_SUMS_H
#define LLMD_GPU_WORKER_CUDA_PAGE_SUMS_H

#include "gpu-worker/cuda/device.h"

struct page_sums;

/* device: borrowed.  NULL and ERR_DEVICE. */
struct page_sums *page_sums_new(struct device *device, struct err *e);
void page_sums_free(struct page_sums *s); /* NULL is fine */

/* out[i] = page_sum() of the page_bytes (a multiple of 16) at base + pages[i] * page_bytes; pages NULL: 0, 1, ...
 * Waits for the answer; what was written on other streams must be done.  n = 0 is fine. */
bool page_sums_run(struct page_sums *s, cu_ptr base, uint64_t page_bytes, const uint32_t *pages,
                   uint32_t n, uint64_t *out, struct err *e);

#endif
