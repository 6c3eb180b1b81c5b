/* huge_pages.h - have the kernel keep a large segment in huge pages, whatever its settings are by default.
 *
 * A worker that maps two gigabytes in pages of 4 KiB needs half a second on a busy machine to fault them in,
 * and as long to be torn down when it is killed; in huge pages both are milliseconds.  So this is what makes
 * the restart of a large model quick.  The pages are the memfd's: whoever maps it later has them at once,
 * at an aligned address (segment_attach()). */
#ifndef LLMD_GPU_WORKER_LOAD_HUGE_PAGES_H
#define LLMD_GPU_WORKER_LOAD_HUGE_PAGES_H

#include <stddef.h>

#include "gpu-worker/ops/threads.h"

/* Give the writable mapping of a memfd its memory in huge pages, before it is filled: that costs no more than
 * the small ones would.  What is there already keeps its bytes.  Small mappings (below 64 MiB) and kernels
 * that cannot do it (before 6.1, or shmem_enabled = deny) stay as they are. */
void huge_pages_reserve(void *map, size_t bytes, struct threads *threads);

#endif
