/* fence.h - when memory that a dead worker may still write to can be used again.
 *
 * That a process is reaped does not prove that its work on the GPU is over: the kernel driver may close a killed
 * process's device file later, from a queue of work (design of the GPU backend, 1.6).  So what it may write to
 * is left alone until NVML has ceased to list any dead process on the GPU, and a moment more; where NVML cannot be
 * believed (no library; a container, whose processes it lists by other numbers or not at all), for a fixed time that is
 * much longer than any kernel of ours. */
#ifndef LLMD_GPU_WORKER_CUDA_FENCE_H
#define LLMD_GPU_WORKER_CUDA_FENCE_H

#include <stdbool.h>
#include <stdint.h>

enum { FENCE_GPUS_MAX = 8 };

struct fence {
    char uuids[FENCE_GPUS_MAX][48]; /* as struct device_info.uuid */
    uint32_t n;
    bool sees_us; /* NVML lists this process by its number: then it lists others so, too */
};

/* Of the GPUs of all ranks of a group, the caller's first; this process must have its context there.  Asks NVML once. */
void fence_open(struct fence *f, const char *const *uuids, uint32_t n);

/* How long to wait at least, from now on. */
uint64_t fence_wait_ns(const struct fence *f);

/* Whether no dead process is listed on any of them; true where that cannot be known.  arg: struct fence. */
bool fence_is_quiet(void *arg);

#endif
