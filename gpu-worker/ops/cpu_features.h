/* cpu_features.h - what this machine has and this operating system saves. */
#ifndef LLMD_GPU_WORKER_OPS_CPU_FEATURES_H
#define LLMD_GPU_WORKER_OPS_CPU_FEATURES_H

#include "gpu-worker/ops/ops.h"

/* Can every instruction of the tier be run here?  CPU_PLAIN always can.  The registers of CPU_AMXINT8 are saved for a
 * process only that has asked the kernel for it: this asks, and is false if the kernel refuses. */
bool cpu_enable_tier(enum cpu_tier tier);

#endif
