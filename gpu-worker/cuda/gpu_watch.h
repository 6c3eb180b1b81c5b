/* gpu_watch.h - leave when NVIDIA's driver reports that this worker's GPU is lost.
 *
 * A call about a GPU that has fallen off the bus may fail, or never come back; and an idle worker makes none.  So a thread
 * sleeps in NVML until the driver reports an error of the GPU (an Xid), and ends the process with the code that says what
 * is left (proto/worker_exit.h).  Most Xids are of one process or corrected: they are not for us, since the calls of
 * whoever met them tell. */
#ifndef LLMD_GPU_WORKER_CUDA_GPU_WATCH_H
#define LLMD_GPU_WORKER_CUDA_GPU_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* What an Xid means for a rank on that GPU: the exit code, or 0, go on.  has_peers: the rank exchanges with others.
 * *words: "fallen off the bus". */
int gpu_watch_verdict(uint64_t xid, bool has_peers, const char **words);

/* Start to watch the GPU with this UUID, for the life of the process.  Where NVML cannot tell, nothing is watched. */
void gpu_watch_start(const char *uuid, bool has_peers);

#endif
