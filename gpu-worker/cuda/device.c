/* device.c - opens a GPU, says what it is, and keeps its first failure.
 *
 * The primary context is used, not one of our own: cuBLASLt and NCCL work in it as well, and a device has only
 * one.  It is never reset: after a sticky error only the end of the process gives the device back. */
#include "gpu-worker/cuda/device.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault_point.h"
#include "gpu-worker/cuda/device_state.h"
#include "proto/worker_exit.h"

enum { SM_MIN = 70 };

/* What is loaded where the build has no kernels: the fake driver does not look, a real one refuses it. */
static const char no_kernels[64] = "llmd: built without kernels";

/* ---- Errors ---- */

bool device_err(struct err *e, int result, const char *call, const char *fmt, ...)
{
    char what[120];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(e, ERR_DEVICE, result, "%s%s%s: %s", call, what[0] ? " " : "", what,
                   cuda_result_name(result));
}

const struct device_fault *device_fault(const struct device *d)
{
    return atomic_load_explicit(&d->has_fault, memory_order_acquire) == 2 ? &d->fault : NULL;
}

bool device_check(struct device *d, int result, const char *call, const char *what)
{
    int none = 0;

    result = fault_point_call("worker.device", result);
    if (cuda_result_severity(result) == CUDA_FINE)
        return result == CU_OK;
    if (!atomic_compare_exchange_strong(&d->has_fault, &none, 1))
        return false;
    d->fault.result = result;
    d->fault.severity = cuda_result_severity(result);
    snprintf(d->fault.call, sizeof d->fault.call, "%s", call);
    snprintf(d->fault.what, sizeof d->fault.what, "%s", what);
    atomic_store_explicit(&d->has_fault, 2, memory_order_release);
    return false;
}

bool device_forgive(struct device *d)
{
    const struct device_fault *f = device_fault(d);

    if (!f || f->result != CU_OUT_OF_MEMORY)
        return false;
    atomic_store_explicit(&d->has_fault, 0, memory_order_release);
    return true;
}

bool device_fault_err(const struct device *d, struct err *e)
{
    const struct device_fault *f = device_fault(d);

    assert(f);
    return err_set(e, ERR_DEVICE, f->result, "%s%s%s: %s (%s)", f->what, f->what[0] ? ": " : "",
                   f->call, cuda_result_name(f->result), cuda_severity_name(f->severity));
}

int device_fault_exit(const struct device_fault *fault)
{
    switch (fault->severity) {
    case CUDA_CONTAINED:
        return WORKER_EXIT_DEVICE_CONTAINED;
    case CUDA_LOST:
        return WORKER_EXIT_DEVICE_LOST;
    case CUDA_FINE:
    case CUDA_REFUSED:
    case CUDA_STICKY:
        break;
    }
    return WORKER_EXIT_DEVICE_STICKY;
}

/* ---- What the device is ---- */

/* An attribute that the driver does not know is 0. */
static int attribute(int device, enum cu_attribute a)
{
    int value = 0;

    return cuda.cuDeviceGetAttribute(&value, a, device) == CU_OK ? value : 0;
}

/* As nvidia-smi writes it. */
static void format_uuid(char out[48], const struct cu_uuid *u)
{
    static const int dashes[] = { 4, 6, 8, 10 };
    int at = snprintf(out, 48, "GPU-");

    for (int i = 0, dash = 0; i < 16; i++) {
        if (dash < 4 && dashes[dash] == i) {
            out[at++] = '-';
            dash++;
        }
        at += snprintf(out + at, 48 - (size_t)at, "%02x", u->bytes[i]);
    }
}

bool device_uuid(int ordinal, char uuid[48], struct err *e)
{
    struct cu_uuid bytes;
    int device, r = cuda.cuDeviceGet(&device, ordinal);

    if (r == CU_OK)
        r = cuda.cuDeviceGetUuid_v2(&bytes, device);
    if (r != CU_OK)
        return device_err(e, r, "cuDeviceGetUuid", "of GPU %d", ordinal);
    format_uuid(uuid, &bytes);
    return true;
}

bool device_find(const char *uuid, int *ordinal, struct err *e)
{
    int n = device_count(e);
    struct err why;
    char name[48];

    for (int i = 0; i < n; i++)
        if (device_uuid(i, name, &why) && strcmp(name, uuid) == 0) {
            *ordinal = i;
            return true;
        }
    return n > 0 && err_set(e, ERR_DEVICE, CU_NO_DEVICE,
                            "GPU '%s' is not among the %d that the driver shows", uuid, n);
}

static bool read_names(struct device_info *out, int device, struct err *e)
{
    struct cu_uuid uuid;
    int r = cuda.cuDeviceGetName(out->name, sizeof out->name, device);

    if (r != CU_OK)
        return device_err(e, r, "cuDeviceGetName", "%s", "");
    r = cuda.cuDeviceGetUuid_v2(&uuid, device);
    if (r != CU_OK)
        return device_err(e, r, "cuDeviceGetUuid", "%s", "");
    format_uuid(out->uuid, &uuid);
    if (cuda.cuDeviceGetPCIBusId(out->pci, sizeof out->pci, device) != CU_OK)
        out->pci[0] = '\0';
    r = cuda.cuDeviceTotalMem_v2(&out->memory_bytes, device);
    return r == CU_OK || device_err(e, r, "cuDeviceTotalMem", "%s", "");
}

static void read_attributes(struct device_info *out, int device)
{
    out->sm =
        attribute(device, CU_ATTR_COMPUTE_MAJOR) * 10 + attribute(device, CU_ATTR_COMPUTE_MINOR);
    out->n_multiprocessors = attribute(device, CU_ATTR_MULTIPROCESSORS);
    out->warp_threads = attribute(device, CU_ATTR_WARP_SIZE);
    out->shared_bytes_max = (size_t)attribute(device, CU_ATTR_SHARED_BYTES_PER_BLOCK_OPTIN_MAX);
    out->shared_bytes_multiprocessor =
        (size_t)attribute(device, CU_ATTR_SHARED_BYTES_PER_MULTIPROCESSOR_MAX);
    out->l2_bytes = (size_t)attribute(device, CU_ATTR_L2_BYTES);
    /* Two transfers a clock; the bus in bits. */
    out->memory_bytes_per_s = 2ull * 1000 * (unsigned)attribute(device, CU_ATTR_MEMORY_CLOCK_KHZ) *
                              (unsigned)attribute(device, CU_ATTR_MEMORY_BUS_BITS) / 8;
    out->has_vmm = attribute(device, CU_ATTR_VMM) != 0;
    out->has_fd_handles = attribute(device, CU_ATTR_FD_HANDLES) != 0;
    out->has_host_numa = attribute(device, CU_ATTR_HOST_NUMA_VMM) != 0;
    out->has_multicast = attribute(device, CU_ATTR_MULTICAST) != 0;
    out->has_ecc = attribute(device, CU_ATTR_ECC_ENABLED) != 0;
    out->is_mps = attribute(device, CU_ATTR_MPS) != 0;
}

static bool read_info(struct device_info *out, int ordinal, struct err *e)
{
    int device, r;

    *out = (struct device_info){ .ordinal = ordinal };
    if (!cuda_driver_open(e))
        return false;
    r = cuda.cuDeviceGet(&device, ordinal);
    if (r != CU_OK)
        return err_set(e, ERR_DEVICE, r, "GPU %d: there are %d", ordinal, cuda.n_devices);
    read_attributes(out, device);
    return read_names(out, device, e) || err_wrap(e, "GPU %d", ordinal);
}

static bool info_is_usable(const struct device_info *i, struct err *e)
{
    if (i->sm < SM_MIN)
        return err_set(e, ERR_DEVICE, 0,
                       "GPU %d (%s) has compute capability %d.%d, %d.%d is wanted", i->ordinal,
                       i->name, i->sm / 10, i->sm % 10, SM_MIN / 10, SM_MIN % 10);
    if (!i->has_vmm)
        return err_set(e, ERR_DEVICE, 0, "GPU %d (%s) has no virtual memory management", i->ordinal,
                       i->name);
    if (!i->has_fd_handles)
        return err_set(e, ERR_DEVICE, 0, "GPU %d (%s) cannot export memory as descriptors",
                       i->ordinal, i->name);
    return true;
}

int device_count(struct err *e)
{
    return cuda_driver_open(e) ? cuda.n_devices : 0;
}

bool device_is_usable(int ordinal, struct err *e)
{
    struct device_info info;

    return read_info(&info, ordinal, e) && info_is_usable(&info, e);
}

/* ---- Open and close ---- */

/* A context takes some hundred megabytes, which a dead predecessor may still have. */
static int retain_context(struct device *d, int device)
{
    uint64_t deadline_ns = 0;
    int r;

    do
        r = cuda.cuDevicePrimaryCtxRetain(&d->context, device);
    while (device_waits_for_memory(r, DEVICE_MEMORY_WAIT_NS, &deadline_ns));
    return r;
}

static bool open_context(struct device *d, struct err *e)
{
    int device, r;

    r = cuda.cuDeviceGet(&device, d->info.ordinal);
    if (r == CU_OK)
        r = retain_context(d, device);
    if (r != CU_OK)
        return device_err(e, r, "cuDevicePrimaryCtxRetain", "of GPU %d", d->info.ordinal);
    return device_bind(d, e);
}

static bool load_module(struct device *d, const char *bytes, struct err *e)
{
    int r = cuda.cuModuleLoadData(&d->modules[d->n_modules], bytes);

    d->n_modules += r == CU_OK;
    if (r == CU_OK)
        return true;
    if (bytes == no_kernels)
        return err_set(e, ERR_DEVICE, r, "this build has no CUDA kernels");
    if (r == CU_NO_BINARY_FOR_GPU || r == CU_UNSUPPORTED_PTX_VERSION)
        return err_set(e, ERR_DEVICE, r, "this build has no kernels for GPU %d (%s, sm_%d)",
                       d->info.ordinal, d->info.name, d->info.sm);
    return device_err(e, r, "cuModuleLoadData", "%s", "");
}

static bool load_modules(struct device *d, const struct device_images *images, struct err *e)
{
    if (!images || images->n == 0)
        return load_module(d, no_kernels, e);
    assert(images->n <= DEVICE_IMAGES_MAX);
    for (size_t i = 0; i < images->n; i++)
        if (!load_module(d, images->list[i].begin, e))
            return err_wrap(e, "kernels '%s'", images->list[i].family);
    return true;
}

bool device_open(struct device **out, int ordinal, const struct device_images *images,
                 struct err *e)
{
    struct device *d = calloc(1, sizeof *d);

    if (!d)
        return err_set(e, ERR_SYS, ENOMEM, "GPU %d", ordinal);
    if (!read_info(&d->info, ordinal, e) || !info_is_usable(&d->info, e) || !open_context(d, e) ||
        !load_modules(d, images, e)) {
        device_close(d);
        return false;
    }
    *out = d;
    return true;
}

void device_close(struct device *d)
{
    if (!d)
        return;
    if (d->context && !device_has_fault(d) && cuda.cuCtxSetCurrent(d->context) == CU_OK) {
        for (size_t i = 0; i < d->n_modules; i++)
            cuda.cuModuleUnload(d->modules[i]);
        cuda.cuCtxSetCurrent(NULL);
        cuda.cuDevicePrimaryCtxRelease_v2(d->info.ordinal);
    }
    free(d);
}

const struct device_info *device_info(const struct device *d)
{
    return &d->info;
}

struct cu_context *device_context(const struct device *d)
{
    return d->context;
}

bool device_bind(struct device *d, struct err *e)
{
    int r = cuda.cuCtxSetCurrent(d->context);

    return r == CU_OK || device_err(e, r, "cuCtxSetCurrent", "of GPU %d", d->info.ordinal);
}

bool device_memory(struct device *d, size_t *free_bytes, size_t *total_bytes, struct err *e)
{
    int r = cuda.cuMemGetInfo_v2(free_bytes, total_bytes);

    return r == CU_OK || device_err(e, r, "cuMemGetInfo", "of GPU %d", d->info.ordinal);
}
