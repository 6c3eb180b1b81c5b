/* device_memory.c - memory that dies with the worker: plain device memory and pinned host memory. */
#include <time.h>

#include "common/clock.h"
#include "gpu-worker/cuda/device_state.h"

#define MEMORY_NAP_NS (5 * NS_PER_MS)

bool device_waits_for_memory(int result, uint64_t limit_ns, uint64_t *deadline_ns)
{
    uint64_t now = clock_mono_ns();

    if (result != CU_OUT_OF_MEMORY)
        return false;
    if (*deadline_ns == 0)
        *deadline_ns = now + limit_ns;
    if (now >= *deadline_ns)
        return false;
    nanosleep(&(struct timespec){ .tv_nsec = MEMORY_NAP_NS }, NULL);
    return true;
}

bool device_denied(struct device *d, int result, const char *call, size_t bytes, struct err *e)
{
    if (cuda_result_severity(result) != CUDA_REFUSED)
        device_check(d, result, call, "");
    if (bytes > 0)
        return device_err(e, result, call, "of %zu bytes on GPU %d", bytes, d->info.ordinal);
    return device_err(e, result, call, "on GPU %d", d->info.ordinal);
}

bool device_alloc(struct device *d, cu_ptr *out, size_t bytes, struct err *e)
{
    int r = cuda.cuMemAlloc_v2(out, bytes);

    return r == CU_OK || device_denied(d, r, "cuMemAlloc", bytes, e);
}

bool device_alloc_patiently(struct device *d, cu_ptr *out, size_t bytes, struct err *e)
{
    uint64_t deadline_ns = 0;
    int r;

    do
        r = cuda.cuMemAlloc_v2(out, bytes);
    while (device_waits_for_memory(r, DEVICE_MEMORY_WAIT_NS, &deadline_ns));
    return r == CU_OK || device_denied(d, r, "cuMemAlloc", bytes, e);
}

/* With a fault nothing is given back: the process ends, and the driver frees all. */
void device_free(struct device *d, cu_ptr p)
{
    if (p && !device_has_fault(d))
        device_check(d, cuda.cuMemFree_v2(p), "cuMemFree", "");
}

bool device_host_alloc(struct device *d, void **out, size_t bytes, struct err *e)
{
    int r = cuda.cuMemHostAlloc(out, bytes, CU_HOSTALLOC_PORTABLE | CU_HOSTALLOC_DEVICEMAP);

    return r == CU_OK || device_denied(d, r, "cuMemHostAlloc", bytes, e);
}

void device_host_free(struct device *d, void *p)
{
    if (p && !device_has_fault(d))
        device_check(d, cuda.cuMemFreeHost(p), "cuMemFreeHost", "");
}

bool device_host_register(struct device *d, void *p, size_t bytes, bool read_only, struct err *e)
{
    unsigned flags = CU_HOSTREGISTER_PORTABLE | CU_HOSTREGISTER_DEVICEMAP |
                     (read_only ? (unsigned)CU_HOSTREGISTER_READ_ONLY : 0);
    int r = cuda.cuMemHostRegister_v2(p, bytes, flags);

    return r == CU_OK || device_denied(d, r, "cuMemHostRegister", bytes, e);
}

void device_host_unregister(struct device *d, void *p)
{
    if (p && !device_has_fault(d))
        device_check(d, cuda.cuMemHostUnregister(p), "cuMemHostUnregister", "");
}

bool device_host_address(struct device *d, cu_ptr *out, void *p, struct err *e)
{
    int r = cuda.cuMemHostGetDevicePointer_v2(out, p, 0);

    return r == CU_OK || device_denied(d, r, "cuMemHostGetDevicePointer", 0, e);
}
