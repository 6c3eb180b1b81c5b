/* threads.h - the fixed compute threads of one rank.
 *
 * Made once.  threads_run() hands out the indexes 0..n-1 of a job to whoever is awake: the calling thread
 * always works, the others join while there is something left, and a thread that wakes too late
 * finds nothing and costs nothing.  So a busy machine slows a step by what it takes away and no more.
 *
 * Between jobs a thread spins for some microseconds and then sleeps in the kernel: idle means no CPU.
 * Who runs which index is not fixed; a job must not depend on it. */
#ifndef LLMD_GPU_WORKER_OPS_THREADS_H
#define LLMD_GPU_WORKER_OPS_THREADS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct threads;

enum { THREADS_MAX = 512, THREADS_JOB_MAX = UINT16_MAX };

/* n threads, the caller included; 1..THREADS_MAX.  NULL and ERR_SYS.  Signals are blocked in them. */
struct threads *threads_new(uint32_t n, struct err *e);
void threads_free(struct threads *t); /* NULL is fine; no job may be running */

uint32_t threads_count(const struct threads *t);

/* Pin thread i to CPU cpus[i], once, all or none of them.  Number 0 is the caller of threads_run(), who may not
 * be this thread: the caller is pinned by threads_pin_caller(), and while it is, what it starts begins
 * life on the same core; unpin around that.  Both do nothing where nothing is pinned.  ERR_SYS. */
bool threads_pin(struct threads *t, const uint32_t *cpus, struct err *e);
void threads_pin_caller(struct threads *t);
void threads_unpin_caller(struct threads *t);

/* Run fn(arg, i) for every i in 0..n-1, n <= THREADS_JOB_MAX; returns when all are done.  One caller at a
 * time, and not from inside a job.  Allocates nothing. */
void threads_run(struct threads *t, void (*fn)(void *arg, uint32_t i), void *arg, uint32_t n);

#endif
