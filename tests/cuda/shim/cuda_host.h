/* cuda_host.h - a GPU's block of threads on one thread of the system: what port_shim.h is made of.
 *
 * Every thread of a block is a fiber.  It runs until it must wait for others: at a barrier of the block or a
 * warp operation.  So a launch is repeatable for a given order (kernel_registry.h), and a thread that lacks a
 * barrier reads what the order left there. */
#ifndef LLMD_TESTS_CUDA_SHIM_CUDA_HOST_H
#define LLMD_TESTS_CUDA_SHIM_CUDA_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "tests/cuda/shim/kernel_registry.h"

namespace cuda_host
{

struct index3 {
    uint32_t x, y, z;
};

struct place {
    index3 thread, block, block_dim, grid_dim;
};

/* Of the thread that runs; initial-exec, so that the fake driver's library finds it without a call. */
extern __thread const struct place *here __attribute__((tls_model("initial-exec")));

/* What a lane shows the others of its warp. */
struct shown {
    uint64_t v[3];
};

enum warp_op { OP_SYNC, OP_SHUFFLE, OP_VOTE, OP_LDMATRIX, OP_MMA, N_WARP_OPS };

/* Of all 32 lanes, which call it together; valid until the lane's next call. */
const struct shown *exchange(enum warp_op op, struct shown mine);

/* Of the block; returns how many of its threads had p. */
uint32_t barrier(const char *file, int line, bool p);

/* Shared memory: NaNs (bytes 0xff) at first, each array an allocation of its own. */
void *shared_array(const void *key, size_t bytes);
void *shared_dynamic();

/* From issue to wait the 16 bytes at `to` are NaNs, for the copy may be done at any time between. */
void cp_async(void *to, const void *from, bool zeros);
void cp_async_commit();
void cp_async_wait(size_t n_pending);

/* Let others go on first: the calling thread waits for another block, or another process. */
void pause();
void fence();
uint64_t clock_ns();

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct registration {
    struct shim_kernel kernel;
    registration(const char *name, void (*run)(const void *), size_t args_bytes, uint32_t threads);
};

} // namespace cuda_host

#endif
