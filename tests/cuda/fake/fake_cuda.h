/* fake_cuda.h - what the fake libcuda.so.1 gives beside the driver's functions: to the other fake libraries
 * (cuBLASLt, NCCL), which put work into its streams, and to tests.
 *
 * The worker never sees this header.  The functions are exported by the fake library; since it is opened at run
 * time, they are looked up there:
 *
 *     struct fake_cuda fake;
 *     assert_true(fake_cuda_find(&fake));
 *
 * Settings, modes and the fault script: README.md. */
#ifndef LLMD_TESTS_CUDA_FAKE_FAKE_CUDA_H
#define LLMD_TESTS_CUDA_FAKE_FAKE_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cu_context;
struct cu_stream;

#define FAKE_CUDA_API __attribute__((visibility("default")))

/* Work of a stream: called once on the stream's thread, in stream order; args is a copy, 16-byte aligned. */
typedef void fake_work_fn(void *args);

/* A kernel of a test: called once per launch on the stream's thread. */
struct fake_launch {
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
};
typedef void fake_kernel_fn(const void *args, const struct fake_launch *launch);

/* What the process has now, and what it has done since it started. */
struct fake_cuda_counts {
    /* Held now; all zero before a clean exit. */
    uint64_t contexts, modules, streams, events, graphs, graph_execs;
    uint64_t handles; /* created or imported, not released */
    uint64_t reservations, mappings;
    uint64_t allocations; /* cuMemAlloc */
    uint64_t host_allocations, host_registrations;
    uint64_t descriptors; /* open descriptors of this process that own device memory */
    /* Done so far. */
    uint64_t functions; /* found in modules, and so loaded */
    uint64_t launches;  /* kernels put into a stream or run by a graph */
    uint64_t captured;  /* kernels recorded by captures */
    uint64_t graph_launches;
    uint64_t exports, imports;
    uint64_t bytes_in, bytes_out, bytes_within; /* copied host to device, back, and on the device */
    uint64_t faults;                            /* rules of the script that fired */
};

/* Put work into a stream as if it were a kernel called `name`: it keeps the stream's order, waits in lazy mode,
 * is recorded by a capture (args baked in), obeys rules of the fault script for that kernel, and a wild access
 * in it is a sticky 700 of the context.  args of at most 4096 bytes are copied; name is borrowed for ever.
 * s NULL = the default stream of the current context.  Gives a CUresult. */
FAKE_CUDA_API int fake_cuda_enqueue(struct cu_stream *s, const char *name, fake_work_fn *run,
                                    const void *args, size_t args_bytes);

/* Make the kernel known by that name to every module, before those of the kernel registry. */
FAKE_CUDA_API void fake_cuda_add_kernel(const char *name, fake_kernel_fn *run, size_t args_bytes,
                                        uint32_t threads_max);

FAKE_CUDA_API void fake_cuda_counts(struct fake_cuda_counts *out);

/* Add rules to the fault script (README.md); false when one cannot be read. */
FAKE_CUDA_API bool fake_cuda_add_faults(const char *rules);

/* What the fault script wants of a call of another fake library; whatever is neither of these is done here.
 * *code: of FAKE_CUDA_RETURN. */
enum fake_cuda_script { FAKE_CUDA_GO_ON, FAKE_CUDA_RETURN, FAKE_CUDA_HANG };
FAKE_CUDA_API enum fake_cuda_script fake_cuda_ask_script(const char *name, int *code);

/* Is [address, address + bytes) device memory, mapped and writable (or readable) for kernels? */
FAKE_CUDA_API bool fake_cuda_is_device(uint64_t address, size_t bytes, bool for_write);

/* "700 at kernel 'gemv_f16', address 0x7f..." of the current context's death, or "". */
FAKE_CUDA_API const char *fake_cuda_death(void);

/* The functions above, found in the loaded libcuda.so.1, and two of the driver's own. */
struct fake_cuda {
    int (*enqueue)(struct cu_stream *, const char *, fake_work_fn *, const void *, size_t);
    void (*add_kernel)(const char *, fake_kernel_fn *, size_t, uint32_t);
    void (*counts)(struct fake_cuda_counts *);
    bool (*add_faults)(const char *);
    bool (*is_device)(uint64_t, size_t, bool);
    const char *(*death)(void);
    enum fake_cuda_script (*ask_script)(const char *, int *);
    int (*get_current)(struct cu_context **);
    int (*set_current)(struct cu_context *);
};

#ifdef __cplusplus
}
#else
#include <dlfcn.h>
#include <string.h>

/* false where libcuda.so.1 is missing or a real one. */
static inline bool fake_cuda_find(struct fake_cuda *f)
{
    static const char *const names[] = { "fake_cuda_enqueue",    "fake_cuda_add_kernel",
                                         "fake_cuda_counts",     "fake_cuda_add_faults",
                                         "fake_cuda_is_device",  "fake_cuda_death",
                                         "fake_cuda_ask_script", "cuCtxGetCurrent",
                                         "cuCtxSetCurrent" };
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *symbol = library ? dlsym(library, names[i]) : NULL;

        if (!symbol)
            return false;
        memcpy((char *)f + i * sizeof symbol, &symbol, sizeof symbol);
    }
    return true;
}
#endif

#endif
