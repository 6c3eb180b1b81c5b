/* gpu_end.h - what the end of a worker says of the GPU memory that llmd keeps for its successor (gpu_memory.h).
 *
 * A worker says by its exit code (proto/worker_exit.h) when its GPU's memory is lost, or has a bad part: what is kept
 * of that is let go.  So are sets that it had not finished.  All else the next worker of that rank is given. */
#ifndef LLMD_SUPERVISOR_GPU_END_H
#define LLMD_SUPERVISOR_GPU_END_H

#include <signal.h>

#include "supervisor/process.h"

struct llmd;

/* A rank has ended, and all it has said is heard. */
void gpu_end_of_worker(struct llmd *l, const struct process *p, const siginfo_t *info);

/* After adoption: GPU memory that no dead worker finished, and no living one will. */
void gpu_end_of_orphans(struct llmd *l);

#endif
