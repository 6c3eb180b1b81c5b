/* lasting.h - whether this GPU keeps memory when none of its users lives, and what an operator should know of it. */
#ifndef LLMD_GPU_WORKER_CUDA_LASTING_H
#define LLMD_GPU_WORKER_CUDA_LASTING_H

#include "gpu-worker/cuda/device.h"

/* Whether the GPU with this UUID is in persistence mode, as far as NVML says.  False: *why for an operator. */
bool lasting_is_persistent(const char *uuid, struct err *why);

/* At the start of a rank: log in one line each what makes its weights and pages end with it, or a crash reach further
 * than itself: persistence mode off (a keeper holds the GPU open all the same), an MPS daemon.  True: nothing does. */
bool lasting_check(const struct device_info *info, bool has_keeper);

#endif
