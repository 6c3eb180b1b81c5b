/* gpu_check.h - ask whether the GPUs of a group's ranks can be used again.
 *
 * A process asks NVML (`llm-worker gpu-check`), never llmd: a call about a GPU that is in trouble may not come back.  It
 * has some seconds; if the kernel cannot end it either, no other one is started beside it, and the group waits. */
#ifndef LLMD_SUPERVISOR_GPU_CHECK_H
#define LLMD_SUPERVISOR_GPU_CHECK_H

#include "supervisor/capture.h"

struct llmd;
struct team;

struct gpu_check {
    struct capture capture;
};

/* TEAM_EV_GPU_WELL or, with t->gpu_words, TEAM_EV_GPU_BAD follows, unless one is under way already; in the second case
 * what llmd keeps of their memory is let go.  False: *e says why none does. */
bool gpu_check_start(struct gpu_check *c, struct llmd *l, struct team *t, struct err *e);

/* Kill it if it still runs, without waiting for its end; safe on a zeroed struct. */
void gpu_check_leave(struct gpu_check *c);

#endif
