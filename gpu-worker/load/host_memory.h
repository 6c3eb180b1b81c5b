/* host_memory.h - how much memory this process may still take: the machine's, or its control group's. */
#ifndef LLMD_GPU_WORKER_LOAD_HOST_MEMORY_H
#define LLMD_GPU_WORKER_LOAD_HOST_MEMORY_H

#include <stdint.h>

/* Bytes: MemAvailable of /proc/meminfo, less when a cgroup (v2) of ours allows less.  Page cache counts as
 * free in both.  0 when nothing can be read. */
uint64_t host_memory_available(void);

#endif
