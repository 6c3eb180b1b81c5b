/* cpu_features.h - what this machine has and this operating system saves. */
#ifndef LLMD_GPU_WORKER_OPS_CPU_FEATURES_H
#define LLMD_GPU_WORKER_OPS_CPU_FEATURES_H

#include "gpu-worker/ops/ops.h"

/* Can every instruction of the tier be run here?  CPU_PLAIN always can.  For CPU_AMXINT8 the process asks the kernel to
 * save its registers, so ask before they are used. */
bool cpu_has_tier(enum cpu_tier tier);

#endif
