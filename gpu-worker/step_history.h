/* step_history.h - how long steps of each size take, so that a hang can be told from work.
 *
 * A step's work is counted in tokens of attention: each row costs STEP_ROW_WORK of them for the matrices,
 * and one for every token it looks back on.  Work falls into buckets of powers of two; a bucket keeps the
 * longest time seen, with a slow decay towards what is seen now, so that one stall is forgotten and a machine
 * that became slower is learnt.  A size never seen borrows from the nearest one that was: time is not more
 * than proportional to work and does not fall with it, so a smaller one is scaled up, a larger one
 * taken as it is.
 *
 * The limit is hang_step_factor times that, and never below hang_step_ms.  With no history at all, half
 * a minute.  The times live in the ledger's header (ledger_layout.h): a successor knows what its dead
 * predecessor learnt. */
#ifndef LLMD_GPU_WORKER_STEP_HISTORY_H
#define LLMD_GPU_WORKER_STEP_HISTORY_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/config.h"
#include "gpu-worker/scheduler.h"

enum { STEP_ROW_WORK = 256 };

struct step_history {
    _Atomic uint64_t *took_ns; /* [LEDGER_STEP_SIZES] borrowed; 0 = never seen */
};

/* Of a plan about to be run; > 0. */
uint64_t step_work(const struct plan *plan);

/* A step of this work took so long. */
void step_history_learn(struct step_history *h, uint64_t work, uint64_t took_ns);

/* What a step of this work should not exceed; 0 when nothing is known at all. */
uint64_t step_history_expect_ns(const struct step_history *h, uint64_t work);

/* After this it is hung (board_slot.step_limit_ns). */
uint64_t step_history_limit_ns(const struct step_history *h, uint64_t work,
                               const struct config *config);

#endif
