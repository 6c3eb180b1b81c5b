/* device_state.h - what device.c, device_work.c and device_memory.c share; nobody else includes it. */
#ifndef LLMD_CUDA_DEVICE_STATE_H
#define LLMD_CUDA_DEVICE_STATE_H

#include <stdatomic.h>

#include "gpu-worker/cuda/device.h"

struct device_kernel {
    struct device *device;
    const char *name;
    struct cu_function *function; /* NULL until the modules were asked */
    uint32_t shared_bytes;        /* dynamic, that a launch may have; from then on */
};

struct device {
    struct device_info info;
    struct cu_context *context;
    struct cu_module *modules[DEVICE_IMAGES_MAX];
    size_t n_modules;
    /* The first failure.  Written once, by whoever moves has_fault from 0 to 1; readable once it is 2. */
    struct device_fault fault;
    atomic_int has_fault;
    atomic_uint_least64_t n_launches;
    uint64_t n_captured; /* kernels recorded since device_capture_begin() */
    bool is_capturing, is_rehearsing;
    uint64_t told_ns; /* of a rehearsal that takes long */
    struct device_kernel kernels[DEVICE_KERNELS_MAX];
    unsigned n_kernels, n_loaded;
};

/* Has anything failed?  Then nothing more is put into a stream. */
static inline bool device_has_fault(const struct device *d)
{
    return atomic_load_explicit(&d->has_fault, memory_order_acquire) != 0;
}

/* Whether a call that gave `result` is to be made once more: it wanted memory, and has for less than limit_ns.  Naps.
 * *deadline_ns is 0 at first. */
bool device_waits_for_memory(int result, uint64_t limit_ns, uint64_t *deadline_ns);

/* A call that was to give something: its error, kept as the fault as well where it is more than a refusal.
 * Always false. */
bool device_denied(struct device *d, int result, const char *call, size_t bytes, struct err *e);

#endif
