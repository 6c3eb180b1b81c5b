/* cpu_features.h - what this machine has and this operating system saves. */
#ifndef LLMD_GPU_WORKER_OPS_CPU_FEATURES_H
#define LLMD_GPU_WORKER_OPS_CPU_FEATURES_H

#include "gpu-worker/ops/ops.h"

/* Can every instruction of the tier be run here?  CPU_PLAIN always can.  The registers of CPU_AMXINT8 are saved for a
 * process only that has asked the kernel for it: this asks, and is false if the kernel refuses. */
bool cpu_enable_tier(enum cpu_tier tier);

/* Is memory better asked for into the second cache, far ahead, than into the first?  So it is with Zen 4, whose first cache
 * waits for 24 lines at most: 1.5 KiB in the time that memory takes, half of what it gives a core. */
bool cpu_fetches_far(void);

#endif
