/* host.h - what this process may use of the machine: its memory and cores, or what its control groups (version
 * 1 or 2) leave of them.  Read at start-up.
 *
 * `root` is put before /proc and /sys: "" for the real ones, a test's folder else. */
#ifndef LLMD_COMMON_HOST_H
#define LLMD_COMMON_HOST_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes: MemAvailable of /proc/meminfo, less when a control group of ours allows less.  Page cache counts
 * as free in both.  0 when nothing can be read. */
uint64_t host_memory_available(const char *root);

/* Cores that the control groups' quotas leave us, rounded up; UINT32_MAX without one. */
uint32_t host_quota(const char *root);

/* Whether something besides the pool itself can refuse us a huge page of 2 MiB that was reserved: a control
 * group's limit on them, or one on memory that counts them. */
bool host_huge_is_limited(const char *root);

/* Cores of the scheduling mask, fewer when a control group's quota is smaller (rounded up); at least 1. */
uint32_t host_cores(const char *root);

#endif
