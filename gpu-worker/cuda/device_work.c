/* device_work.c - streams, events, kernels, copies and graphs: what is done all day.
 *
 * A kernel has one argument, a struct by value, given as a buffer with its size: the driver compares the size with
 * what the kernel was compiled for, so a host and a fatbin that differ are refused at the first launch. */
#include <assert.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gpu-worker/cuda/device_state.h"

/* Of a block, what its kernel declares and what its launch asks for together: more is opted into. */
enum { SHARED_BYTES_USUAL = 48 << 10 };

/* Waiting: spin, since most steps end within a few polls of the deadline's scale; then nap for a part of what has been
 * waited, so that the end is seen late by no more than that. */
#define SPIN_NS    50000ull
#define NAP_PART   32
#define NAP_MIN_NS 20000ull
#define NAP_MAX_NS 200000ull

/* Others on the GPU may have taken what the driver wants for a launch (a module that it loads now, local memory, a
 * graph), and may give it back: much less than a step may take. */
#define MEMORY_WAIT_NS (300 * NS_PER_MS)

#define TELL_NS (5 * NS_PER_S) /* between words about kernels that take long to load */

/* ---- Streams ---- */

bool device_stream_open(struct device_stream *s, struct device *d, int priority, struct err *e)
{
    int r;

    *s = (struct device_stream){ .device = d };
    r = cuda.cuStreamCreateWithPriority(&s->stream, CU_STREAM_NON_BLOCKING, priority);
    return r == CU_OK || device_denied(d, r, "cuStreamCreate", 0, e);
}

void device_stream_close(struct device_stream *s)
{
    if (s->stream && !device_has_fault(s->device))
        device_check(s->device, cuda.cuStreamDestroy_v2(s->stream), "cuStreamDestroy", "");
    *s = (struct device_stream){ 0 };
}

/* ---- Events ---- */

bool device_event_open(struct device_event *ev, struct device *d, bool with_time, struct err *e)
{
    int r;

    *ev = (struct device_event){ .device = d };
    r = cuda.cuEventCreate(&ev->event, with_time ? CU_EVENT_DEFAULT : CU_EVENT_DISABLE_TIMING);
    return r == CU_OK || device_denied(d, r, "cuEventCreate", 0, e);
}

void device_event_close(struct device_event *ev)
{
    if (ev->event && !device_has_fault(ev->device))
        device_check(ev->device, cuda.cuEventDestroy_v2(ev->event), "cuEventDestroy", "");
    *ev = (struct device_event){ 0 };
}

bool device_event_record(struct device_event *ev, struct device_stream *s)
{
    return !device_has_fault(s->device) &&
           device_check(s->device, cuda.cuEventRecord(ev->event, s->stream), "cuEventRecord", "");
}

bool device_stream_wait(struct device_stream *s, const struct device_event *ev)
{
    return !device_has_fault(s->device) &&
           device_check(s->device, cuda.cuStreamWaitEvent(s->stream, ev->event, 0),
                        "cuStreamWaitEvent", "");
}

enum device_wait device_event_poll(const struct device_event *ev)
{
    int r;

    if (device_has_fault(ev->device))
        return DEVICE_FAILED;
    r = cuda.cuEventQuery(ev->event);
    if (r == CU_NOT_READY)
        return DEVICE_PENDING;
    return device_check(ev->device, r, "cuEventQuery", "") ? DEVICE_DONE : DEVICE_FAILED;
}

static void nap(uint64_t waited_ns)
{
    uint64_t ns = waited_ns / NAP_PART;

    ns = ns < NAP_MIN_NS ? NAP_MIN_NS : ns > NAP_MAX_NS ? NAP_MAX_NS : ns;
    nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
}

enum device_wait device_event_wait(const struct device_event *ev, uint64_t deadline_ns)
{
    uint64_t start = clock_mono_ns();

    for (;;) {
        enum device_wait w = device_event_poll(ev);
        uint64_t now = clock_mono_ns();

        if (w != DEVICE_PENDING || now >= deadline_ns)
            return w;
        if (now - start >= SPIN_NS)
            nap(now - start);
    }
}

float device_event_ms(const struct device_event *from, const struct device_event *to)
{
    float ms = -1;

    if (device_has_fault(from->device) ||
        cuda.cuEventElapsedTime(&ms, from->event, to->event) != CU_OK)
        return -1;
    return ms;
}

static bool wait_for_event(struct device_event *ev, struct device_stream *s, uint64_t limit_ns,
                           struct err *e)
{
    enum device_wait w = DEVICE_FAILED;

    if (device_event_record(ev, s))
        w = device_event_wait(ev, clock_mono_ns() + limit_ns);
    if (w == DEVICE_FAILED)
        return device_fault_err(s->device, e);
    if (w == DEVICE_PENDING)
        return err_set(e, ERR_TIMEOUT, 0, "GPU %d: work is not done after %.1f s",
                       s->device->info.ordinal, (double)limit_ns / (double)NS_PER_S);
    return true;
}

bool device_stream_finish(struct device_stream *s, uint64_t limit_ns, struct err *e)
{
    struct device_event ev;
    bool ok;

    if (device_has_fault(s->device))
        return device_fault_err(s->device, e);
    if (!device_event_open(&ev, s->device, false, e))
        return device_has_fault(s->device) ? device_fault_err(s->device, e) : false;
    ok = wait_for_event(&ev, s, limit_ns, e);
    device_event_close(&ev);
    return ok;
}

/* ---- Kernels ---- */

struct device_kernel *device_kernel(struct device *d, const char *name)
{
    struct device_kernel *k;

    for (unsigned i = 0; i < d->n_kernels; i++)
        if (strcmp(d->kernels[i].name, name) == 0)
            return &d->kernels[i];
    assert(d->n_kernels < DEVICE_KERNELS_MAX);
    k = &d->kernels[d->n_kernels++];
    *k = (struct device_kernel){ .device = d, .name = name };
    return k;
}

static int find_function(struct device_kernel *k)
{
    struct cu_function *f = NULL;
    int own_bytes = 0, r = CU_NOT_FOUND;

    for (size_t i = 0; i < k->device->n_modules && r == CU_NOT_FOUND; i++)
        r = cuda.cuModuleGetFunction(&f, k->device->modules[i], k->name);
    if (r == CU_OK) /* now it is loaded */
        r = cuda.cuFuncGetAttribute(&own_bytes, CU_FUNC_SHARED_BYTES, f);
    if (r != CU_OK)
        return r;
    k->function = f;
    k->device->n_loaded++;
    k->shared_bytes = SHARED_BYTES_USUAL - (uint32_t)own_bytes;
    return CU_OK;
}

/* A step may be recorded by a kernel that has not run yet, and loading it is what a capture does not allow its thread. */
static int load(struct device_kernel *k)
{
    int mode = CU_CAPTURE_RELAXED, r;

    if (k->function)
        return CU_OK;
    cuda.cuThreadExchangeStreamCaptureMode(&mode);
    r = find_function(k);
    cuda.cuThreadExchangeStreamCaptureMode(&mode);
    return r;
}

static int load_in_time(struct device_kernel *k, uint64_t limit_ns, uint64_t *deadline_ns)
{
    int r;

    do
        r = load(k);
    while (device_waits_for_memory(r, limit_ns, deadline_ns));
    return r;
}

bool device_kernel_load(struct device_kernel *k, struct err *e)
{
    uint64_t deadline_ns = 0;
    int r = load_in_time(k, DEVICE_MEMORY_WAIT_NS, &deadline_ns);

    if (r == CU_NOT_FOUND)
        return err_set(e, ERR_DEVICE, r, "this build has no kernel '%s'", k->name);
    return r == CU_OK || device_err(e, r, "cuModuleGetFunction", "of '%s'", k->name);
}

bool device_kernel_describe(struct device_kernel *k, int threads, size_t shared_bytes,
                            struct device_kernel_info *out, struct err *e)
{
    const struct {
        int attribute;
        int *to;
    } asked[] = { { CU_FUNC_REGISTERS, &out->registers },
                  { CU_FUNC_LOCAL_BYTES, &out->local_bytes },
                  { CU_FUNC_SHARED_BYTES, &out->shared_bytes },
                  { CU_FUNC_THREADS_PER_BLOCK_MAX, &out->threads_max } };
    int r = CU_OK;

    if (!device_kernel_load(k, e))
        return false;
    for (size_t i = 0; r == CU_OK && i < sizeof asked / sizeof asked[0]; i++)
        r = cuda.cuFuncGetAttribute(asked[i].to, asked[i].attribute, k->function);
    if (r == CU_OK)
        r = cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor(&out->blocks_per_multiprocessor,
                                                             k->function, threads, shared_bytes);
    return r == CU_OK || device_err(e, r, "cuFuncGetAttribute", "of '%s'", k->name);
}

/* More shared memory than usual has to be allowed once. */
static int allow_shared(struct device_kernel *k, uint32_t bytes)
{
    int r;

    if (bytes <= k->shared_bytes)
        return CU_OK;
    r = cuda.cuFuncSetAttribute(k->function, CU_FUNC_DYNAMIC_SHARED_BYTES_MAX, (int)bytes);
    if (r == CU_OK)
        k->shared_bytes = bytes;
    return r;
}

static int launch(struct device_stream *s, const struct device_kernel *k,
                  const struct device_grid *g, const void *args, size_t args_bytes)
{
    void *extra[] = { CU_PARAM_BUFFER_POINTER, (void *)(uintptr_t)args, CU_PARAM_BUFFER_BYTES,
                      &args_bytes, CU_PARAM_END };

    return cuda.cuLaunchKernel(k->function, g->grid[0], g->grid[1] ? g->grid[1] : 1,
                               g->grid[2] ? g->grid[2] : 1, g->block, 1, 1, g->shared_bytes,
                               s->stream, NULL, extra);
}

static int launch_in_time(struct device_stream *s, const struct device_kernel *k,
                          const struct device_grid *g, const void *args, size_t args_bytes,
                          uint64_t *deadline_ns)
{
    int r;

    do
        r = launch(s, k, g, args, args_bytes);
    while (device_waits_for_memory(r, MEMORY_WAIT_NS, deadline_ns));
    return r;
}

static void count_launch(struct device *d)
{
    if (d->is_capturing)
        d->n_captured++;
    else
        atomic_fetch_add_explicit(&d->n_launches, 1, memory_order_relaxed);
}

/* At a start nobody waits for this launch, and a dead predecessor's memory may still be on its way back. */
static uint64_t load_limit_ns(const struct device *d)
{
    return d->is_rehearsing ? DEVICE_MEMORY_WAIT_NS : MEMORY_WAIT_NS;
}

static void tell_of_loading(struct device *d)
{
    uint64_t now = clock_mono_ns();

    if (now < d->told_ns + TELL_NS)
        return;
    d->told_ns = now;
    log_info("kernels=%u loaded so far; the driver seems to compile them for sm_%d", d->n_loaded,
             d->info.sm);
}

bool device_launch(struct device_stream *s, struct device_kernel *k, const struct device_grid *grid,
                   const void *args, size_t args_bytes)
{
    struct device *d = s->device;
    uint64_t deadline_ns = 0;

    if (device_has_fault(d))
        return false;
    if (grid->grid[0] == 0)
        return true;
    if (!device_check(d, load_in_time(k, load_limit_ns(d), &deadline_ns), "cuModuleGetFunction",
                      k->name) ||
        !device_check(d, allow_shared(k, grid->shared_bytes), "cuFuncSetAttribute", k->name))
        return false;
    if (d->is_rehearsing) {
        tell_of_loading(d);
        return true;
    }
    if (!device_check(d, launch_in_time(s, k, grid, args, args_bytes, &deadline_ns),
                      "cuLaunchKernel", k->name))
        return false;
    count_launch(d);
    return true;
}

void device_rehearse_begin(struct device *d)
{
    d->is_rehearsing = true;
    if (d->told_ns == 0)
        d->told_ns = clock_mono_ns();
}

void device_rehearse_end(struct device *d)
{
    d->is_rehearsing = false;
}

bool device_is_rehearsing(const struct device *d)
{
    return d->is_rehearsing;
}

unsigned device_kernels_loaded(const struct device *d)
{
    return d->n_loaded;
}

uint64_t device_launches(const struct device *d)
{
    return atomic_load_explicit(&d->n_launches, memory_order_relaxed);
}

/* ---- Copies ---- */

static bool is_nothing(const struct device_stream *s, size_t bytes)
{
    return bytes == 0 || s->device->is_rehearsing;
}

bool device_copy_in(struct device_stream *s, cu_ptr to, const void *from, size_t bytes)
{
    return !device_has_fault(s->device) &&
           (is_nothing(s, bytes) ||
            device_check(s->device, cuda.cuMemcpyHtoDAsync_v2(to, from, bytes, s->stream),
                         "cuMemcpyHtoDAsync", ""));
}

bool device_copy_out(struct device_stream *s, void *to, cu_ptr from, size_t bytes)
{
    return !device_has_fault(s->device) &&
           (is_nothing(s, bytes) ||
            device_check(s->device, cuda.cuMemcpyDtoHAsync_v2(to, from, bytes, s->stream),
                         "cuMemcpyDtoHAsync", ""));
}

bool device_copy(struct device_stream *s, cu_ptr to, cu_ptr from, size_t bytes)
{
    return !device_has_fault(s->device) &&
           (is_nothing(s, bytes) ||
            device_check(s->device, cuda.cuMemcpyDtoDAsync_v2(to, from, bytes, s->stream),
                         "cuMemcpyDtoDAsync", ""));
}

bool device_fill(struct device_stream *s, cu_ptr to, uint8_t value, size_t bytes)
{
    return !device_has_fault(s->device) &&
           (is_nothing(s, bytes) ||
            device_check(s->device, cuda.cuMemsetD8Async(to, value, bytes, s->stream),
                         "cuMemsetD8Async", ""));
}

/* ---- Graphs ---- */

bool device_capture_begin(struct device_stream *s)
{
    struct device *d = s->device;
    int r;

    if (device_has_fault(d))
        return false;
    /* Thread-local: threads that free or allocate meanwhile do not break it. */
    r = cuda.cuStreamBeginCapture_v2(s->stream, CU_CAPTURE_THREAD_LOCAL);
    if (r != CU_OK && cuda_result_severity(r) != CUDA_REFUSED)
        device_check(d, r, "cuStreamBeginCapture", "");
    if (r != CU_OK)
        return false;
    d->is_capturing = true;
    d->n_captured = 0;
    return true;
}

static bool instantiate(struct device_graph *g, struct cu_graph *graph, struct err *e)
{
    int r = cuda.cuGraphInstantiateWithFlags(&g->exec, graph, 0);

    cuda.cuGraphDestroy(graph);
    return r == CU_OK || device_err(e, r, "cuGraphInstantiate", "%s", "");
}

/* What was refused while nothing ran: want of memory, or what the driver does not record. */
static bool forgive_capture(struct device *d, struct err *e)
{
    if (!device_fault(d) || device_fault(d)->severity != CUDA_REFUSED)
        return false;
    device_fault_err(d, e);
    atomic_store_explicit(&d->has_fault, 0, memory_order_release);
    return true;
}

bool device_capture_end(struct device_stream *s, struct device_graph *g, struct err *e)
{
    struct device *d = s->device;
    struct cu_graph *graph = NULL;
    int r;

    *g = (struct device_graph){ .n_kernels = d->n_captured };
    d->is_capturing = false;
    r = cuda.cuStreamEndCapture(s->stream, &graph);
    if (forgive_capture(d, e)) {
        if (r == CU_OK)
            cuda.cuGraphDestroy(graph);
        return false;
    }
    if (r != CU_OK && cuda_result_severity(r) != CUDA_REFUSED)
        device_check(d, r, "cuStreamEndCapture", "");
    if (device_has_fault(d))
        return device_fault_err(d, e);
    if (r != CU_OK)
        return device_err(e, r, "cuStreamEndCapture", "%s", "");
    return instantiate(g, graph, e);
}

bool device_graph_launch(struct device_stream *s, const struct device_graph *g)
{
    struct device *d = s->device;

    if (device_has_fault(d) ||
        !device_check(d, cuda.cuGraphLaunch(g->exec, s->stream), "cuGraphLaunch", "graph"))
        return false;
    atomic_fetch_add_explicit(&d->n_launches, g->n_kernels, memory_order_relaxed);
    return true;
}

void device_graph_free(struct device *d, struct device_graph *g)
{
    if (g->exec && !device_has_fault(d))
        device_check(d, cuda.cuGraphExecDestroy(g->exec), "cuGraphExecDestroy", "");
    *g = (struct device_graph){ 0 };
}
