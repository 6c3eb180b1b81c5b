/* driver.c - opens libcuda.so.1 and fills the table of driver.def.
 *
 * A machine without a GPU is usual and no error of anybody: each way of not having CUDA is one sentence. */
#include "gpu-worker/cuda/api/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct cuda_driver cuda;

struct symbol {
    const char *name;
    size_t offset; /* in struct cuda_driver */
    bool is_optional;
};

static const struct symbol symbols[] = {
#define CU(symbol, params)          { #symbol, offsetof(struct cuda_driver, symbol), false },
#define CU_OPTIONAL(symbol, params) { #symbol, offsetof(struct cuda_driver, symbol), true },
#include "gpu-worker/cuda/api/driver.def"
#undef CU
#undef CU_OPTIONAL
};

#define N_SYMBOLS (sizeof symbols / sizeof symbols[0])

static const struct {
    int result;
    enum cuda_severity severity;
    const char *name;
} results[] = {
    { CU_OK, CUDA_FINE, "CUDA_SUCCESS" },
    { CU_INVALID_VALUE, CUDA_REFUSED, "CUDA_ERROR_INVALID_VALUE" },
    { CU_OUT_OF_MEMORY, CUDA_REFUSED, "CUDA_ERROR_OUT_OF_MEMORY" },
    { CU_NOT_INITIALIZED, CUDA_REFUSED, "CUDA_ERROR_NOT_INITIALIZED" },
    { CU_DEINITIALIZED, CUDA_STICKY, "CUDA_ERROR_DEINITIALIZED" },
    { CU_STUB_LIBRARY, CUDA_REFUSED, "CUDA_ERROR_STUB_LIBRARY" },
    { CU_CALL_REQUIRES_NEWER_DRIVER, CUDA_REFUSED, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER" },
    { CU_DEVICE_UNAVAILABLE, CUDA_LOST, "CUDA_ERROR_DEVICE_UNAVAILABLE" },
    { CU_NO_DEVICE, CUDA_REFUSED, "CUDA_ERROR_NO_DEVICE" },
    { CU_INVALID_DEVICE, CUDA_REFUSED, "CUDA_ERROR_INVALID_DEVICE" },
    { CU_INVALID_IMAGE, CUDA_REFUSED, "CUDA_ERROR_INVALID_IMAGE" },
    { CU_INVALID_CONTEXT, CUDA_REFUSED, "CUDA_ERROR_INVALID_CONTEXT" },
    { CU_MAP_FAILED, CUDA_REFUSED, "CUDA_ERROR_MAP_FAILED" },
    { CU_NO_BINARY_FOR_GPU, CUDA_REFUSED, "CUDA_ERROR_NO_BINARY_FOR_GPU" },
    { CU_ECC_UNCORRECTABLE, CUDA_LOST, "CUDA_ERROR_ECC_UNCORRECTABLE" },
    { CU_NVLINK_UNCORRECTABLE, CUDA_STICKY, "CUDA_ERROR_NVLINK_UNCORRECTABLE" },
    { CU_UNSUPPORTED_PTX_VERSION, CUDA_REFUSED, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" },
    { CU_CONTAINED, CUDA_CONTAINED, "CUDA_ERROR_CONTAINED" },
    { CU_OPERATING_SYSTEM, CUDA_REFUSED, "CUDA_ERROR_OPERATING_SYSTEM" },
    { CU_INVALID_HANDLE, CUDA_REFUSED, "CUDA_ERROR_INVALID_HANDLE" },
    { CU_ILLEGAL_STATE, CUDA_REFUSED, "CUDA_ERROR_ILLEGAL_STATE" },
    { CU_NOT_FOUND, CUDA_REFUSED, "CUDA_ERROR_NOT_FOUND" },
    { CU_NOT_READY, CUDA_FINE, "CUDA_ERROR_NOT_READY" },
    { CU_ILLEGAL_ADDRESS, CUDA_STICKY, "CUDA_ERROR_ILLEGAL_ADDRESS" },
    { CU_LAUNCH_OUT_OF_RESOURCES, CUDA_REFUSED, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES" },
    { CU_LAUNCH_TIMEOUT, CUDA_STICKY, "CUDA_ERROR_LAUNCH_TIMEOUT" },
    { CU_PEER_ACCESS_ALREADY_ENABLED, CUDA_REFUSED, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED" },
    { CU_CONTEXT_IS_DESTROYED, CUDA_STICKY, "CUDA_ERROR_CONTEXT_IS_DESTROYED" },
    { CU_ASSERT, CUDA_STICKY, "CUDA_ERROR_ASSERT" },
    { CU_HOST_MEMORY_ALREADY_REGISTERED, CUDA_REFUSED,
      "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED" },
    { CU_HOST_MEMORY_NOT_REGISTERED, CUDA_REFUSED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED" },
    { CU_HARDWARE_STACK_ERROR, CUDA_STICKY, "CUDA_ERROR_HARDWARE_STACK_ERROR" },
    { CU_ILLEGAL_INSTRUCTION, CUDA_STICKY, "CUDA_ERROR_ILLEGAL_INSTRUCTION" },
    { CU_MISALIGNED_ADDRESS, CUDA_STICKY, "CUDA_ERROR_MISALIGNED_ADDRESS" },
    { CU_INVALID_ADDRESS_SPACE, CUDA_STICKY, "CUDA_ERROR_INVALID_ADDRESS_SPACE" },
    { CU_INVALID_PC, CUDA_STICKY, "CUDA_ERROR_INVALID_PC" },
    { CU_LAUNCH_FAILED, CUDA_STICKY, "CUDA_ERROR_LAUNCH_FAILED" },
    { CU_TENSOR_MEMORY_LEAK, CUDA_STICKY, "CUDA_ERROR_TENSOR_MEMORY_LEAK" },
    { CU_NOT_PERMITTED, CUDA_REFUSED, "CUDA_ERROR_NOT_PERMITTED" },
    { CU_NOT_SUPPORTED, CUDA_REFUSED, "CUDA_ERROR_NOT_SUPPORTED" },
    { CU_SYSTEM_NOT_READY, CUDA_REFUSED, "CUDA_ERROR_SYSTEM_NOT_READY" },
    { CU_SYSTEM_DRIVER_MISMATCH, CUDA_REFUSED, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" },
    { CU_STREAM_CAPTURE_UNSUPPORTED, CUDA_REFUSED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" },
    { CU_STREAM_CAPTURE_INVALIDATED, CUDA_REFUSED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" },
    { CU_STREAM_CAPTURE_UNMATCHED, CUDA_REFUSED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED" },
    { CU_CAPTURED_EVENT, CUDA_REFUSED, "CUDA_ERROR_CAPTURED_EVENT" },
    { CU_EXTERNAL_DEVICE, CUDA_STICKY, "CUDA_ERROR_EXTERNAL_DEVICE" },
    { CU_UNKNOWN, CUDA_STICKY, "CUDA_ERROR_UNKNOWN" },
};

#define N_RESULTS (sizeof results / sizeof results[0])

const char *cuda_result_name(int result)
{
    for (size_t i = 0; i < N_RESULTS; i++)
        if (results[i].result == result)
            return results[i].name;
    return "unknown CUresult";
}

/* A number that this build does not know refuses a call; if the context is dead, further calls say so. */
enum cuda_severity cuda_result_severity(int result)
{
    for (size_t i = 0; i < N_RESULTS; i++)
        if (results[i].result == result)
            return results[i].severity;
    return CUDA_REFUSED;
}

const char *cuda_severity_name(enum cuda_severity severity)
{
    static const char *const names[] = { [CUDA_FINE] = "fine",
                                         [CUDA_REFUSED] = "refused",
                                         [CUDA_STICKY] = "sticky",
                                         [CUDA_CONTAINED] = "contained",
                                         [CUDA_LOST] = "lost" };

    return names[severity];
}

static bool find_symbols(struct cuda_driver *d, void *library, struct err *e)
{
    for (size_t i = 0; i < N_SYMBOLS; i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol && !symbols[i].is_optional)
            return err_set(
                e, ERR_DEVICE, 0,
                "CUDA driver is too old: libcuda.so.1 has no %s (470 or later is wanted)",
                symbols[i].name);
        memcpy((char *)d + symbols[i].offset, &symbol, sizeof symbol);
    }
    return true;
}

static bool start(struct cuda_driver *d, struct err *e)
{
    int result = d->cuInit(0);

    if (result != CU_OK)
        return err_set(e, ERR_DEVICE, result, "cuInit: %s", cuda_result_name(result));
    result = d->cuDriverGetVersion(&d->version);
    if (result != CU_OK)
        return err_set(e, ERR_DEVICE, result, "cuDriverGetVersion: %s", cuda_result_name(result));
    result = d->cuDeviceGetCount(&d->n_devices);
    if (result != CU_OK)
        return err_set(e, ERR_DEVICE, result, "cuDeviceGetCount: %s", cuda_result_name(result));
    if (d->n_devices < 1)
        return err_set(e, ERR_DEVICE, CU_NO_DEVICE, "the CUDA driver shows no device");
    return true;
}

/* The same for all models and both the worker and --inspect; the driver tells its versions' and GPUs' apart. */
static void set_cache_folder(void)
{
    const char *all = getenv("CACHE_DIRECTORY");
    char path[PATH_MAX];
    int n;

    if (!all || !*all || getenv("CUDA_CACHE_PATH"))
        return;
    n = snprintf(path, sizeof path, "%.*s/cuda", (int)strcspn(all, ":"), all);
    if (n < (int)sizeof path && (mkdir(path, 0700) == 0 || errno == EEXIST))
        setenv("CUDA_CACHE_PATH", path, false);
}

void cuda_environment(void)
{
    /* Kernels are loaded when they are asked for: drivers before CUDA 12.2 load all of a module otherwise, NCCL's for most
     * of a minute. */
    setenv("CUDA_MODULE_LOADING", "LAZY", false);
    set_cache_folder();
}

bool cuda_driver_open(struct err *e)
{
    struct cuda_driver d = { 0 };
    void *library;

    if (cuda.n_devices > 0)
        return true;
    cuda_environment();
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, ERR_DEVICE, 0, "no CUDA driver: %s", dlerror());
    if (!find_symbols(&d, library, e) || !start(&d, e)) {
        dlclose(library); /* the real one stays loaded; harmless */
        return false;
    }
    cuda = d;
    return true;
}
