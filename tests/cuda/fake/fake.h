/* fake.h - what the parts of the fake libcuda.so.1 share.
 *
 *   device.c   cuInit, attributes, contexts, what every call checks first
 *   memory.c   allocations by descriptor, reservations, mappings, plain and host memory
 *   stream.c   streams: a thread and a queue each; events; waiting
 *   work.c     one piece of work: a copy, a fill, a kernel, ...; wild accesses and script actions
 *   kernel.c   modules, functions, launches
 *   graph.c    captures and graphs
 *
 * One mutex guards everything but the content of device memory; one condition is signalled at every change.  Work
 * runs without the mutex.  A thread whose work dies (wild access, hang) never comes back: it is parked, as
 * what it was doing has no defined end, and its stream with it. */
#ifndef LLMD_TESTS_CUDA_FAKE_FAKE_H
#define LLMD_TESTS_CUDA_FAKE_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu-worker/cuda/api/driver.h"
#include "tests/cuda/fake/fake_cuda.h"
#include "tests/cuda/fake/fault.h"
#include "tests/cuda/fake/settings.h"

#define FAKE_EXPORT __attribute__((visibility("default")))

/* The driver's functions, as their table has them. */
#define CU(symbol, params)          FAKE_EXPORT int symbol params;
#define CU_OPTIONAL(symbol, params) FAKE_EXPORT int symbol params;
#include "gpu-worker/cuda/api/driver.def"
#undef CU
#undef CU_OPTIONAL

enum { FAKE_ARGS_MAX = 4096, FAKE_GRANULARITY = 2 << 20 };

/* ---- Contexts (device.c) ---- */

struct cu_context {
    int gpu;
    unsigned uses;           /* retained, not released */
    int error;               /* the sticky CUresult; atomic: also read without the mutex */
    char death[200];         /* what happened, for people */
    struct cu_stream *usual; /* the default stream, made on first use */
    struct cu_stream *streams;
};

/* Of the calling thread; NULL = none. */
struct cu_context *fake_current(void);

/* Count the call `name`, do what the script says and check that the call can be made: initialised, with
 * needs_context a current one that is alive.  CU_OK, or what the call returns at once. */
int fake_enter(const char *name, bool needs_context);

/* The context dies of `result`; words say of what.  Safe in a signal handler of a thread that runs work.
 * The first cause is kept. */
void fake_kill_context(struct cu_context *c, int result, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The context's GPU is lost, for all processes that share the state. */
void fake_lose(struct cu_context *c, int result, const char *rule);

/* Do what a fired rule says, for a call (c may be NULL) or for the launch of a kernel, else NULL.  Gives the CUresult to
 * go on with: CU_OK for actions that do not stop the work. */
struct kernel_call;
int fake_act(const struct fault *f, struct cu_context *c, const struct kernel_call *k);

/* Never come back. */
void fake_park(void) __attribute__((noreturn));

extern pthread_mutex_t fake_mutex;
extern pthread_cond_t fake_changed;
extern struct fake_cuda_counts fake_counts; /* under the mutex */

/* Zeroed memory for what the caller of the driver holds.  All of it stays known to us, since a process whose context
 * has died cannot give it back, and that is no leak of its.  Aborts when there is none. */
void *fake_new(size_t bytes);
void fake_delete(void *p); /* NULL is fine */

static inline void fake_lock(void)
{
    pthread_mutex_lock(&fake_mutex);
}

static inline void fake_unlock(void)
{
    pthread_mutex_unlock(&fake_mutex);
}

/* ---- Memory (memory.c) ---- */

enum fake_memory { FAKE_DEVICE, FAKE_HOST };

/* Is the range in one piece of memory of that kind that kernels may read (or write)? */
bool fake_is_memory(enum fake_memory kind, uint64_t address, size_t bytes, bool for_write);

/* May a kernel be given this value as a pointer?  false only when it certainly is one of the host's. */
bool fake_is_fit_argument(uint64_t value);

/* Open descriptors of device memory that belong to the caller of the driver, not to the fake itself. */
unsigned fake_given_descriptors(void);

/* The address that a rule names, or 0. */
uint64_t fake_address(const struct fault_address *a, const void *args, size_t args_bytes);

/* ---- Work (work.c) ---- */

enum work_kind {
    WORK_COPY,
    WORK_FILL,
    WORK_KERNEL,
    WORK_CALL,
    WORK_RECORD,
    WORK_WAIT,
    WORK_GRAPH,
    WORK_WRITE_VALUE,
    WORK_WAIT_VALUE
};

enum copy_kind { COPY_IN, COPY_OUT, COPY_WITHIN };

struct kernel_call {
    const struct cu_function *function;
    struct fake_launch launch;
    size_t args_bytes;
    char args[] __attribute__((aligned(16)));
};

struct work_list;

struct work {
    struct work *next;
    enum work_kind kind;
    uint64_t serial; /* its place in the stream, from 1 */
    union {
        struct {
            uint64_t to, from;
            size_t bytes;
            enum copy_kind kind;
            void *staged; /* pageable memory's content at the time of the call; owned */
        } copy;
        struct {
            uint64_t to;
            size_t n;
            uint32_t value;
            int width; /* bytes: 1 or 4 */
        } fill;
        struct {
            void (*function)(void *arg);
            void *arg;
        } call;
        struct cu_event *event; /* WORK_RECORD */
        struct {
            struct cu_stream *stream;
            uint64_t serial;
        } wait;
        struct work_list *graph; /* counted */
        struct {
            uint64_t address;
            uint32_t value;
        } word;
    };
    struct kernel_call kernel; /* last: args follow */
};

struct work *work_new(enum work_kind kind, size_t args_bytes);
void work_free(struct work *w);

/* What a capture recorded, in the order of its calls; shared by a graph and what was made of it. */
struct work_list {
    unsigned uses;
    uint64_t serial; /* of the capture, from 1 */
    struct work *first, **end;
    size_t n, n_kernels;
};

struct work_list *work_list_new(void);
void work_list_add(struct work_list *list, struct work *w);
void work_list_drop(struct work_list *list); /* one use less */

/* On a thread that runs work, first and last. */
void work_thread_begin(void);
void work_thread_end(void);

/* Run one piece of the stream's work, on its thread, without the mutex.  Does not return when it dies. */
void work_run(struct cu_stream *s, struct work *w);

/* ---- Streams (stream.c) ---- */

struct cu_stream {
    struct cu_stream *next; /* of the context */
    struct cu_context *context;
    pthread_t thread;
    struct work *first, **end;
    uint64_t n_given; /* serial of the last piece of work */
    uint64_t n_done;
    uint64_t n_wanted; /* lazy mode: may run up to here */
    bool is_closing, is_parked, is_gone;
    uint64_t random; /* state of random mode */
    /* Capturing: what is given goes to the list instead. */
    struct work_list *capture;
    struct cu_stream *capture_origin;
    bool capture_is_broken;
    int capture_mode;
    pthread_t capture_thread;
};

struct cu_event {
    struct cu_stream
        *stream; /* of the last record; NULL = never recorded, which counts as reached */
    uint64_t serial;
    uint64_t done_ns;
    unsigned flags;
    uint64_t capture; /* serial of the capture in which it was recorded; 0 = none */
    bool is_doomed;   /* destroyed while its record is pending: freed by the stream */
    unsigned pending; /* records in queues */
};

/* s, or the current context's default stream. */
struct cu_stream *fake_stream(struct cu_stream *s);

/* Give the stream work, which it owns from now on; recorded where it captures.  Gives a CUresult. */
int stream_give(struct cu_stream *s, struct work *w);

/* Wait until the stream has done `serial`, or all with UINT64_MAX; the mutex is held.  CU_OK or the context's
 * error. */
int stream_wait(struct cu_stream *s, uint64_t serial);

/* All streams of the context; the mutex is held. */
int context_wait(struct cu_context *c);

/* Close all of the context's streams; the mutex is held. */
void context_close_streams(struct cu_context *c);

/* A call that a capture does not allow; breaks captures of the calling thread's context.  CU_OK when none is active. */
int capture_refuses(struct cu_context *c);

/* ---- Kernels (kernel.c) ---- */

struct cu_function {
    struct cu_function *next;
    char name[80];
    fake_kernel_fn *run;             /* a test's, or */
    const struct shim_kernel *entry; /* the registry's, or */
    fake_work_fn *work;              /* another fake library's */
    size_t args_bytes;
    uint32_t threads_max;
    uint32_t shared_bytes_max; /* dynamic shared memory allowed by cuFuncSetAttribute */
};

/* Run every block.  met: of struct shim_launch, or NULL; only the registry's kernels tell. */
void kernel_run(const struct kernel_call *k, void (*met)(void *ctx, uint64_t n), void *ctx);

#endif
