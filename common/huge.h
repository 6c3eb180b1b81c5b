/* huge.h - what the kernel gives in huge pages (2 MiB), and how much of a mapping lies in them.
 *
 * Three ways lead shared memory into huge pages, best first:
 *   reserved   a memfd made with MFD_HUGETLB, from the pool of vm.nr_hugepages: sure, and never split
 *   advised    madvise(MADV_HUGEPAGE), where transparent_hugepage/shmem_enabled lets shared memory have them
 *   collapsed  madvise(MADV_COLLAPSE), Linux 6.1 and later, whatever that setting says but "deny"
 *
 * What was asked for is one thing, what came of it another: only /proc/PID/smaps tells.  `root` is put before
 * /proc and /sys: "" for the real ones, a test's folder else. */
#ifndef LLMD_COMMON_HUGE_H
#define LLMD_COMMON_HUGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HUGE_BYTES      ((uint64_t)2 << 20)
#define HUGE_FROM_BYTES ((uint64_t)64 << 20) /* smaller segments are not worth the trouble */

struct huge_host {
    uint64_t pool, pool_free; /* reserved pages of 2 MiB; free: and promised to nobody */
    char shmem_enabled[16];   /* the word in force: "never", "advise", ...; "" = no such setting */
};

/* What cannot be read is 0 and "". */
void huge_host_read(struct huge_host *h, const char *root);

/* Whether a mapping of shared memory that was advised may get huge pages. */
bool huge_host_takes_advice(const struct huge_host *h);

/* Of the largest mapping of one file in one process. */
struct huge_use {
    uint64_t bytes;    /* its addresses */
    uint64_t resident; /* of them with memory behind them, mapped here */
    uint64_t huge;     /* of that in huge pages, mapped as such */
};

/* Of the file whose path in /proc/PID/maps ends with "/memfd:NAME (deleted)".  pid 0: ourselves.  false when the process
 * has none, or cannot be looked at.  Costs a walk through the whole page table of the process. */
bool huge_use_read(struct huge_use *use, const char *root, pid_t pid, const char *name);

#endif
