/* cublaslt.c - the table of cuBLASLt's functions, filled from the library once. */
#include "gpu-worker/cuda/api/cublaslt.h"

#include <dlfcn.h>
#include <string.h>

#include "gpu-worker/cuda/api/driver.h"

struct cublaslt cublaslt;

static const struct {
    const char *name;
    size_t member;
} symbols[] = {
#define CUBLASLT(symbol, params) { #symbol, offsetof(struct cublaslt, symbol) },
#include "gpu-worker/cuda/api/cublaslt.def"
#undef CUBLASLT
};

enum { N_SYMBOLS = sizeof symbols / sizeof symbols[0] };

/* Where both are installed: the newer one that the driver can work with. */
static void *open_library(void)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12" };
    bool is_old = cuda.version > 0 && cuda.version < 13000;
    void *library = dlopen(names[is_old], RTLD_NOW | RTLD_LOCAL);

    return library ? library : dlopen(names[!is_old], RTLD_NOW | RTLD_LOCAL);
}

bool cublaslt_open(struct err *e)
{
    struct cublaslt found = { 0 };
    void *library;

    if (cublaslt.cublasLtCreate)
        return true;
    library = open_library();
    if (!library)
        return err_set(e, ERR_DEVICE, 0, "neither libcublasLt.so.13 nor .12 can be loaded: %s",
                       dlerror());
    for (int i = 0; i < N_SYMBOLS; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            dlclose(library);
            return err_set(e, ERR_DEVICE, 0, "libcublasLt has no %s", symbols[i].name);
        }
        /* POSIX lets a symbol be a function; C needs this way round. */
        memcpy((char *)&found + symbols[i].member, &symbol, sizeof symbol);
    }
    cublaslt = found;
    return true;
}

const char *cublaslt_status_name(int status)
{
    switch (status) {
    case CUBLASLT_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLASLT_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLASLT_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLASLT_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLASLT_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLASLT_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLASLT_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLASLT_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "unknown cublasStatus_t";
    }
}
