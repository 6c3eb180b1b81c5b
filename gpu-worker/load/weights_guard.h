/* weights_guard.h - the thread that verifies what attach had no time for.
 *
 * Chunk by chunk, with pauses that leave it a twentieth of one core, and it ends when it is through; an idle
 * worker has no such thread.  Not at a lower priority: a process that is killed is gone only when each of
 * its threads has run once more to die, and on a busy machine one of SCHED_IDLE or nice 19 took a
 * second for that.  What it finds corrupt the owner's function repairs.  When that fails the guard
 * gives up: weights_guard_failed() then tells the owner, whose next step must not be computed.
 *
 * Data on a device has no such thread: only one thread at a time has the device, its memory corrects flipped bits
 * by itself (ECC), and no stray write reaches it.  When there is doubt all of it is looked at between two steps, which takes
 * milliseconds: weights_guard_look(). */
#ifndef LLMD_GPU_WORKER_LOAD_WEIGHTS_GUARD_H
#define LLMD_GPU_WORKER_LOAD_WEIGHTS_GUARD_H

#include "gpu-worker/load/weights_check.h"

struct weights_guard;

/* Make a corrupt chunk good again; on the guard's thread. */
typedef bool weights_repair_fn(void *arg, uint32_t chunk, struct err *e);

/* Everything is borrowed for the guard's life.  Starts nothing yet. */
struct weights_guard *weights_guard_new(const struct weights *w, weights_repair_fn *repair,
                                        void *arg);
/* Ends the thread at its next chunk.  NULL is fine. */
void weights_guard_free(struct weights_guard *g);

/* Verify chunks `from` and up, in the background; when it is at work already, all of them once more after.
 * A pass over all clears .doubt.  One caller at a time. */
void weights_guard_start(struct weights_guard *g, uint32_t from);

/* Verify all chunks now, on the caller's thread, and clear .doubt when all are good.  Not beside the guard's thread. */
void weights_guard_look(struct weights_guard *g, struct threads *threads);

/* Whether a repair failed, and why. */
bool weights_guard_failed(struct weights_guard *g, struct err *e);

#endif
