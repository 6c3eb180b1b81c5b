/* kernel_registry.h - the kernels that a program has on the CPU, found by name and launched like a GPU's.
 *
 * The fake driver and the tests are its users, in C.  Any number of threads of the system may launch at a time;
 * a launch runs on the thread that calls, its blocks one after the other (together when they wait for each
 * other, see k_pause() in port.h).  Faults of a kernel - barriers in divergent code, a deadlock, lanes missing in
 * a warp operation, unaligned accesses - end the process with a line that says which thread of which block.
 *
 * In which order the threads of a block run is a choice: a kernel that lacks a barrier is right in some orders
 * only.  The choice is the process's, from LLMD_SHIM_ORDER (forward, reverse, rotated, eager, random[:SEED]) or
 * shim_set_order(). */
#ifndef LLMD_TESTS_CUDA_SHIM_KERNEL_REGISTRY_H
#define LLMD_TESTS_CUDA_SHIM_KERNEL_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shim_kernel {
    const char *name;
    void (*run)(const void *args); /* one thread of a block */
    size_t args_bytes;
    uint32_t threads;               /* of a block; a launch must have as many */
    const struct shim_kernel *next; /* of the registry, in no particular order */
};

struct shim_launch {
    uint32_t grid[3], block[3];
    uint32_t shared_bytes; /* dynamic */
    const void *args;      /* [args_bytes], of any alignment; borrowed for the launch */
    /* NULL, or called when all threads of a block, or of a warp, have met and none has gone on: for the n-th time in
     * this launch, from 1.  On the stack of one of them; it need not return. */
    void (*met)(void *ctx, uint64_t n);
    void *met_ctx;
};

enum shim_order {
    SHIM_FORWARD,
    SHIM_REVERSE,
    SHIM_ROTATED, /* each time from another one on */
    SHIM_EAGER,   /* who could go on last goes first: a warp runs far ahead of the others */
    SHIM_RANDOM,
    N_SHIM_ORDERS
};

const struct shim_kernel *shim_find(const char *name); /* NULL: there is none */
const struct shim_kernel *shim_first(void);

/* Returns when all blocks are done. */
void shim_run(const struct shim_kernel *k, const struct shim_launch *launch);

void shim_set_order(enum shim_order order, uint64_t seed);
const char *shim_order_name(enum shim_order order);

#ifdef __cplusplus
}
#endif

#endif
