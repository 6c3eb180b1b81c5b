/* weights_place.h - where the data of a weights segment lies, when that is not the segment itself.
 *
 * Then the segment holds header, tensor table and checksums, and the data is in memory that the host cannot
 * read: on a GPU, chunks that llmd keeps (gpu-worker/cuda/weights_device.h).  Offsets are those of the segment's data,
 * from 0.  Loading: stage() and put() by many threads at once, then finish().  After that, and always when data of a
 * predecessor is used, the data is read-only; open_for_writing() is for a repair. */
#ifndef LLMD_GPU_WORKER_LOAD_WEIGHTS_PLACE_H
#define LLMD_GPU_WORKER_LOAD_WEIGHTS_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct weights_place {
    void *ctx;
    const void *base; /* of data byte 0, as kernels are given it; the host never reads there */
    bool is_fresh;    /* newly made: whatever the header says, there is nothing in it */

    /* A buffer for at most `n` bytes on their way; waits for one to be free.  Any thread. */
    char *(*stage)(void *ctx, uint64_t n, struct err *e);
    /* Take the first n bytes of a staged buffer to data offset `at`; the buffer is given back, also on failure. */
    bool (*put)(void *ctx, char *staged, uint64_t at, uint64_t n, struct err *e);
    /* All that was put is there, and read-only from now on. */
    bool (*finish)(void *ctx, struct err *e);
    bool (*open_for_writing)(void *ctx, struct err *e);
    /* out[i]: checksum of chunk first + i of WEIGHTS_CHUNK_BYTES (the last one ends at data_bytes), of the place's own
     * kind; the same bytes always give the same one. */
    bool (*checksums)(void *ctx, uint64_t data_bytes, uint32_t first, uint32_t n, uint64_t *out,
                      struct err *e);
};

#endif
