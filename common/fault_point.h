/* fault_point.h - named places in a process where a test may have it die or hang.
 *
 * A recovery path is only as good as the moments it was tried at.  Random kills find most of them; the
 * narrow ones ("token in the ledger, message not sent") have names in the code, and the setting
 * fault_points arms them:
 *
 *   NAME=ACTION[:N][@EPOCH], ...      worker.commit=kill:3@2
 *
 * The ACTION happens at the N-th pass (from 1, the default) since it was armed, in the process whose
 * BOOT said EPOCH (0 or left out: any), once.  Actions: kill (SIGKILL), abort, segv, exit (code 1),
 * stop (SIGSTOP), loop (for ever); failCODE: where the place is a call of a library, it is taken to have
 * answered CODE (worker.device=fail226: of NVIDIA's driver), elsewhere nothing.
 *
 * Not armed, a point costs one load of a flag.  Nothing but tests sets it; it is no secret door: who can
 * set it can kill the process anyway. */
#ifndef LLMD_COMMON_FAULT_POINT_H
#define LLMD_COMMON_FAULT_POINT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

/* Arm what `spec` says for a process of this epoch, in place of what was armed.  The whole program's;
 * at start-up, and when the setting has changed.  ERR_CONFIG: a part is malformed, and nothing is armed. */
bool fault_points_set(const char *spec, uint32_t epoch, struct err *e);

extern _Atomic bool fault_points_armed;

void fault_point_pass(const char *name);

/* Any thread. */
static inline void fault_point(const char *name)
{
    if (__builtin_expect(atomic_load_explicit(&fault_points_armed, memory_order_relaxed), 0))
        fault_point_pass(name);
}

/* A call has answered `result`: what it is to be taken for. */
int fault_point_answer(const char *name, int result);

static inline int fault_point_call(const char *name, int result)
{
    if (__builtin_expect(atomic_load_explicit(&fault_points_armed, memory_order_relaxed), 0))
        return fault_point_answer(name, result);
    return result;
}

#endif
