/* huge_pages.h - have the kernel keep a large segment in huge pages.
 *
 * A worker that maps two gigabytes in pages of 4 KiB needs half a second on a busy machine to fault them in,
 * and as long to be torn down when it is killed; in huge pages both are milliseconds.  So this is what makes
 * the restart of a large model quick; and a stream of weights is read some percent faster.  The pages are the
 * memfd's: whoever maps it later has them at once, at an aligned address (segment_attach()). */
#ifndef LLMD_GPU_WORKER_LOAD_HUGE_PAGES_H
#define LLMD_GPU_WORKER_LOAD_HUGE_PAGES_H

#include "gpu-worker/ops/threads.h"
#include "proto/segment.h"

/* Give a writable segment its memory in huge pages, before it is filled, each by the thread that comes to it first:
 * reserved ones, else advised, else collapsed, and note which in its header.  That costs no more than small
 * ones would.  What is there already keeps its bytes.  Small segments (below 64 MiB) and kernels that
 * cannot do it stay as they are, which is no error.  ERR_SYS: a page that was reserved is refused, which a
 * touch would have been told by SIGBUS. */
bool huge_pages_take(struct segment *s, struct threads *threads, struct err *e);

/* Ask for huge pages where a segment's memory comes page by page, as that of a KV pool does. */
void huge_pages_advise(struct segment *s);

#endif
