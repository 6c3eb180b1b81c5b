/* weights_device.h - the data of a rank's weights in GPU memory that outlives the rank: a weights_place.
 *
 * Threads of the loader fill pinned buffers, which are copied over on a stream of their own; kernels sum what has
 * arrived, chunk by chunk (kernels/pages.h); then the range is mapped read-only, so that a stray write of a
 * kernel faults at the culprit.  What a predecessor loaded is mapped and not a byte of it touched. */
#ifndef LLMD_GPU_WORKER_CUDA_WEIGHTS_DEVICE_H
#define LLMD_GPU_WORKER_CUDA_WEIGHTS_DEVICE_H

#include "gpu-worker/cuda/chunks.h"
#include "gpu-worker/load/weights_place.h"

struct weights_device;

/* The mapped chunks become the place; they are borrowed for its life, and what they allow is changed.
 *   piece_bytes  weights_plan_piece_bytes()
 *   is_fresh     nothing is in them yet
 * The thread that has the device calls this and everything else here; of the place, threads that are filling it call
 * stage() and put().  NULL and ERR_DEVICE. */
struct weights_device *weights_device_new(struct device *device, struct chunks *chunks,
                                          uint64_t piece_bytes, bool is_fresh, struct err *e);
/* NULL is fine. */
void weights_device_free(struct weights_device *w);

/* Borrowed for *w's life. */
const struct weights_place *weights_device_place(const struct weights_device *w);

#endif
