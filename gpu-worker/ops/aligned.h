/* aligned.h - memory for vectors: aligned, uninitialised, and never NULL (see common/mem.h).
 *
 * Not zeroed on purpose: activations are sized for the largest step that the settings allow, and pages
 * that no step has needed yet are not resident. */
#ifndef LLMD_GPU_WORKER_OPS_ALIGNED_H
#define LLMD_GPU_WORKER_OPS_ALIGNED_H

#include <stdlib.h>

#include "common/log.h"

/* alignment: a power of two.  Returned, caller gives it to free(). */
static inline void *aligned_mem(size_t alignment, size_t bytes)
{
    size_t whole = (bytes + alignment - 1) / alignment * alignment;
    void *p = whole >= bytes ? aligned_alloc(alignment, whole ? whole : alignment) : NULL;

    if (!p) {
        log_error("event=out_of_memory bytes=%zu", bytes);
        abort();
    }
    return p;
}

#endif
