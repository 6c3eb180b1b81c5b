/* device.h - one GPU as the worker uses it: context, streams, events, kernels, copies, graphs, plain memory.
 *
 * Everything above the driver's table (api/driver.h) goes through here but memory that outlives the worker
 * (chunks.h), so that two things hold everywhere:
 *
 *   Nothing blocks without a limit.  Waiting is polling an event until a deadline; no call synchronises with the
 *   device, since a device that hangs would keep the caller for ever.  (Opening, allocating and freeing may block
 *   inside the driver; they happen at start and at the end.)  A step that does not end is found by llmd, which
 *   knows its limit (step_history.h) and kills the worker; the deadlines here are for what is no step, and a
 *   second line behind that.
 *
 *   The first failure is kept.  Work is put into a stream by functions whose result need not be looked at: after
 *   the first failing call of a device they do nothing, and whoever waits for the step gets that call by name
 *   (struct device_fault).  A context that has met a sticky error is never used again; the worker exits with the
 *   code of proto/worker_exit.h, and a successor attaches.  (Want of memory is no such failure.  A launch that meets it is
 *   tried again for a moment; then its step is given up, by device_forgive(), and the worker goes on.)
 *
 * Threads: a device and its streams belong to the one thread that opened it or last called device_bind();
 * device_fault() and device_event_poll() may be called by any bound thread.
 *
 * Sizes are bytes, addresses device addresses (cu_ptr); a launch's args are copied before the call returns. */
#ifndef LLMD_CUDA_DEVICE_H
#define LLMD_CUDA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gpu-worker/cuda/api/driver.h"
#include "gpu-worker/cuda/images.h"

/* What the device is; fixed once opened. */
struct device_info {
    int ordinal;   /* among the visible devices: CUDA_VISIBLE_DEVICES has been applied */
    char name[96]; /* "NVIDIA A10" */
    char uuid[48]; /* "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", as NVML and nvidia-smi write it */
    char pci[16];  /* "0000:01:00.0" */
    int sm;        /* 75, 80, 86, 89, 90, ...: 10 * major + minor */
    int n_multiprocessors;
    int warp_threads;                   /* 32 */
    size_t shared_bytes_max;            /* dynamic shared memory of one block, opted in */
    size_t shared_bytes_multiprocessor; /* of all blocks together */
    size_t l2_bytes;
    size_t memory_bytes; /* all of the device's, also what others use */
    uint64_t
        memory_bytes_per_s; /* of the datasheet: 2 * clock * bus width; 0 = the driver does not say */
    bool has_vmm;           /* cuMemCreate and mapping */
    bool has_fd_handles;    /* its allocations can be exported as descriptors */
    bool has_host_numa;     /* allocations on a host NUMA node */
    bool has_multicast;
    bool has_ecc;
    bool is_mps; /* a client of MPS: faults of others end us (design 1.7) */
};

/* The compiled kernels: fatbins in memory, one a family (images.h).  n = 0: this build has none, which a fake driver
 * does not mind. */
struct device_images {
    const struct cuda_image *list;
    size_t n; /* at most DEVICE_IMAGES_MAX */
};
enum { DEVICE_IMAGES_MAX = 32 };

/* The first call that failed. */
struct device_fault {
    int result; /* CUresult; CU_OK = none yet */
    enum cuda_severity severity;
    char call[48]; /* "cuLaunchKernel" */
    char what[80]; /* the kernel's name, or what was being done: "gemv_f16", "step 812" */
};

struct device;        /* opaque */
struct device_kernel; /* opaque; belongs to its device */

struct device_stream {
    struct device *device;
    struct cu_stream *stream;
};

struct device_event {
    struct device *device;
    struct cu_event *event;
};

/* ---- Open and close ---- */

/* How many devices are visible; opens the driver.  0 with *e filled where CUDA cannot be used. */
int device_count(struct err *e);

/* Is the device fit for us?  sm >= 70, VMM and descriptors.  ERR_DEVICE says what is missing. */
bool device_is_usable(int ordinal, struct err *e);

/* Of a device that need not be opened, as in struct device_info.  ERR_DEVICE. */
bool device_uuid(int ordinal, char uuid[48], struct err *e);

/* Which one has this UUID.  ERR_DEVICE: no driver, or the driver does not show it (any more). */
bool device_find(const char *uuid, int *ordinal, struct err *e);

/* Open device `ordinal` with its primary context, made current on this thread, and load the kernels.
 * On success *out is to be closed with device_close().  ERR_DEVICE: no driver, no such device, unfit, no kernels
 * for this GPU in the build; .sys is the CUresult.  images are borrowed until device_close(); NULL = none. */
bool device_open(struct device **out, int ordinal, const struct device_images *images,
                 struct err *e);

/* Give the context back.  NULL is fine.  With a dead context nothing is asked of the driver. */
void device_close(struct device *d);

const struct device_info *device_info(const struct device *d);
struct cu_context *device_context(const struct device *d);

/* Make the device's context current on the calling thread. */
bool device_bind(struct device *d, struct err *e);

/* Free and total bytes of the device now. */
bool device_memory(struct device *d, size_t *free_bytes, size_t *total_bytes, struct err *e);

/* ---- Faults ---- */

/* NULL while nothing has failed.  The pointer lives as long as the device. */
const struct device_fault *device_fault(const struct device *d);

/* Keep `result` of `call` as the device's fault unless there is one already; CU_OK and CU_NOT_READY are none.
 * For the doors beside this one (cuBLASLt with its own numbers passes CU_LAUNCH_FAILED) and for code that
 * calls the table itself.  Returns whether result was CU_OK. */
bool device_check(struct device *d, int result, const char *call, const char *what);

/* The fault as an error: ERR_DEVICE, .sys = CUresult, "kernel 'gemv_f16': cuLaunchKernel:
 * CUDA_ERROR_ILLEGAL_ADDRESS (sticky)".  Always false.  There must be one. */
bool device_fault_err(const struct device *d, struct err *e);

/* ERR_DEVICE for a refused call of the table, without keeping it: "cuMemCreate 268435456 bytes:
 * CUDA_ERROR_OUT_OF_MEMORY".  Always false. */
bool device_err(struct err *e, int result, const char *call, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The driver had no memory for a launch, and nothing is broken: forget that as a fault.  What was put into streams before
 * runs to its end; behind it nothing was, until now.  False, and the fault stays: there is none, or it was more. */
bool device_forgive(struct device *d);

/* Exit code of a worker that ends for this fault (proto/worker_exit.h). */
int device_fault_exit(const struct device_fault *fault);

/* ---- Streams, events, waiting ---- */

/* priority: 0 = usual, -1 = before those, as far as the device has levels. */
bool device_stream_open(struct device_stream *s, struct device *d, int priority, struct err *e);
void device_stream_close(struct device_stream *s); /* zeroed or half-opened: fine */

/* with_time: device_event_ms() may be asked. */
bool device_event_open(struct device_event *ev, struct device *d, bool with_time, struct err *e);
void device_event_close(struct device_event *ev);

/* Mark this place of the stream; earlier marks of the event are forgotten. */
bool device_event_record(struct device_event *ev, struct device_stream *s);
/* Let what is put into s from now on start after ev's mark. */
bool device_stream_wait(struct device_stream *s, const struct device_event *ev);

enum device_wait {
    DEVICE_DONE,
    DEVICE_PENDING, /* not there yet; of device_event_wait(): and the deadline has passed */
    DEVICE_FAILED,  /* the device has a fault */
};

/* Asks once. */
enum device_wait device_event_poll(const struct device_event *ev);

/* Poll until the mark is reached, a fault shows or CLOCK_MONOTONIC passes deadline_ns: the first 50 us
 * spinning, then with naps of 20 us up to 200 us, a 32nd of the wait so far. */
enum device_wait device_event_wait(const struct device_event *ev, uint64_t deadline_ns);

/* Milliseconds between two reached marks, or a negative number when they cannot be had. */
float device_event_ms(const struct device_event *from, const struct device_event *to);

/* Wait until everything in s is done.  false: the fault, as device_fault_err() gives it, or ERR_TIMEOUT once
 * limit_ns have passed: the device hangs, and the worker should end with WORKER_EXIT_DEVICE_HANGS. */
bool device_stream_finish(struct device_stream *s, uint64_t limit_ns, struct err *e);

/* ---- Kernels ---- */

/* The kernel of that name: a place in the device's table, made on first use; the modules are asked at the first
 * launch (modules load lazily).  name is borrowed for ever: a string literal.  At most DEVICE_KERNELS_MAX. */
enum { DEVICE_KERNELS_MAX = 256 };
struct device_kernel *device_kernel(struct device *d, const char *name);

/* Ask the modules now, and wait for a dead predecessor's memory if need be (DEVICE_MEMORY_WAIT_NS).  ERR_DEVICE where
 * this build does not have the kernel. */
bool device_kernel_load(struct device_kernel *k, struct err *e);

/* From here to device_rehearse_end() nothing is put into any stream: a launch loads its kernel, and copies, fills and
 * products are left out.  A GPU for which the build has no machine code has kernels compiled by the driver as they are
 * loaded, which takes seconds each; one line of the log now and then says so. */
void device_rehearse_begin(struct device *d);
void device_rehearse_end(struct device *d);
bool device_is_rehearsing(const struct device *d);

/* Kernels that were loaded so far. */
unsigned device_kernels_loaded(const struct device *d);

/* Registers, local (spilled) and static shared bytes of a loaded kernel, and blocks that fit a multiprocessor. */
struct device_kernel_info {
    int registers, local_bytes, shared_bytes, threads_max, blocks_per_multiprocessor;
};
bool device_kernel_describe(struct device_kernel *k, int threads, size_t shared_bytes,
                            struct device_kernel_info *out, struct err *e);

struct device_grid {
    uint32_t grid[3];      /* blocks; 0 counts as 1; a 0 in grid[0] launches nothing */
    uint32_t block;        /* threads, along x */
    uint32_t shared_bytes; /* dynamic; more than 48 KiB is opted into */
};

/* Put the kernel into the stream; args, the kernel's one by-value struct of args_bytes, is copied.
 * false: the device has a fault now. */
bool device_launch(struct device_stream *s, struct device_kernel *k, const struct device_grid *grid,
                   const void *args, size_t args_bytes);

/* Kernels launched so far, graphs' included: for tests and counters. */
uint64_t device_launches(const struct device *d);

/* ---- Copies, in stream order ---- */

/* The host memory of copy_in and copy_out is pinned (device_host_alloc, device_host_register) and stays as it is until
 * the stream has passed the copy; pageable memory makes the driver wait. */
bool device_copy_in(struct device_stream *s, cu_ptr to, const void *from, size_t bytes);
bool device_copy_out(struct device_stream *s, void *to, cu_ptr from, size_t bytes);
bool device_copy(struct device_stream *s, cu_ptr to, cu_ptr from, size_t bytes);
bool device_fill(struct device_stream *s, cu_ptr to, uint8_t value, size_t bytes);

/* ---- Memory that dies with the worker ---- */

/* ERR_DEVICE with .sys CU_OUT_OF_MEMORY is no fault: refuse the work or free something.  256-byte aligned. */
bool device_alloc(struct device *d, cu_ptr *out, size_t bytes, struct err *e);
/* The same at a start, when a dead predecessor's memory may still be on its way back: tried again for
 * DEVICE_MEMORY_WAIT_NS. */
#define DEVICE_MEMORY_WAIT_NS (2 * 1000000000ull)
bool device_alloc_patiently(struct device *d, cu_ptr *out, size_t bytes, struct err *e);
void device_free(struct device *d, cu_ptr p); /* 0 is fine */

/* Pinned host memory that the device can address too. */
bool device_host_alloc(struct device *d, void **out, size_t bytes, struct err *e);
void device_host_free(struct device *d, void *p); /* NULL is fine */
/* Pin memory that is there already, page aligned (a mapped memfd).  read_only: the mapping is. */
bool device_host_register(struct device *d, void *p, size_t bytes, bool read_only, struct err *e);
void device_host_unregister(struct device *d, void *p);
/* The device's address of pinned memory. */
bool device_host_address(struct device *d, cu_ptr *out, void *p, struct err *e);

/* ---- Graphs ---- */

struct device_graph {
    struct cu_graph_exec *exec;
    size_t n_kernels; /* for device_launches() */
};

/* From here to device_capture_end() what is put into s is recorded instead of run.  Nothing may be allocated,
 * waited for or polled meanwhile on this thread. */
bool device_capture_begin(struct device_stream *s); /* false: not now, or the device has a fault */
/* *g, to be freed by device_graph_free().  false: the device has a fault, or ERR_DEVICE where the capture was
 * refused (then the step runs without a graph). */
bool device_capture_end(struct device_stream *s, struct device_graph *g, struct err *e);
/* false: the device has a fault, which may be want of memory: then device_forgive(), and go on without the graph. */
bool device_graph_launch(struct device_stream *s, const struct device_graph *g);
void device_graph_free(struct device *d, struct device_graph *g); /* zeroed: fine */

#endif
