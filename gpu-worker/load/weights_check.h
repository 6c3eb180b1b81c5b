/* weights_check.h - whether the weights in memory still are what was loaded, and how they become it again.
 *
 * Memory that lives for months meets flipped bits, and a worker that goes mad may meet the header.  Each
 * chunk has a checksum (proto/weights_layout.h).  At attach as many chunks are verified as fit in a moment,
 * all of them when there is doubt; one slow thread does the rest.  A corrupt chunk is written again from the
 * model's files.  When these have changed there is nothing to repair with, and the process must say so and
 * exit: no token may be computed with weights that are known to be wrong. */
#ifndef LLMD_GPU_WORKER_LOAD_WEIGHTS_CHECK_H
#define LLMD_GPU_WORKER_LOAD_WEIGHTS_CHECK_H

#include "gpu-worker/load/weights.h"

bool weights_chunk_is_intact(const struct weights *w, uint32_t chunk);

struct weights_scan {
    uint32_t n_checked; /* chunks 0..n_checked-1 were looked at */
    uint32_t n_corrupt;
    uint32_t *corrupt; /* [n_corrupt] caller frees */
};

/* Verify chunks from the first on, on all threads, until all are done or deadline_ns (CLOCK_MONOTONIC) has
 * passed; at least a few are looked at.  Of a place all are, or, when its device fails, none.  (A place's repairs
 * and checks are made between steps, by the thread that has the device.) */
void weights_scan(const struct weights *w, struct threads *threads, uint64_t deadline_ns,
                  struct weights_scan *out);

/* Write one chunk again from the plan's files, whose layout hash is that of *w.  ERR_MODEL: it does not
 * become what was loaded. */
bool weights_repair(const struct weights *w, const struct weights_plan *p, uint32_t chunk,
                    struct err *e);

#endif
