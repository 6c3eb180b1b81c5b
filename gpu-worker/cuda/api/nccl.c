/* nccl.c - the table of NCCL's functions, filled from the library once. */
#include "gpu-worker/cuda/api/nccl.h"

#include <dlfcn.h>
#include <string.h>

struct nccl nccl;

static const struct {
    const char *name;
    size_t member;
    bool is_optional;
} symbols[] = {
#define NCCL(symbol, params)          { #symbol, offsetof(struct nccl, symbol), false },
#define NCCL_OPTIONAL(symbol, params) { #symbol, offsetof(struct nccl, symbol), true },
#include "gpu-worker/cuda/api/nccl.def"
#undef NCCL
#undef NCCL_OPTIONAL
};

enum { N_SYMBOLS = sizeof symbols / sizeof symbols[0] };

static bool find_all(struct nccl *found, void *library, struct err *e)
{
    for (int i = 0; i < N_SYMBOLS; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol && !symbols[i].is_optional)
            return err_set(e, ERR_DEVICE, 0, "libnccl.so.2 has no %s", symbols[i].name);
        /* POSIX lets a symbol be a function; C needs this way round. */
        memcpy((char *)found + symbols[i].member, &symbol, sizeof symbol);
    }
    if (found->ncclGetVersion(&found->version) != NCCL_SUCCESS ||
        found->version < NCCL_CONFIG_VERSION)
        return err_set(e, ERR_DEVICE, 0, "libnccl.so.2 is version %d, at least %d is needed",
                       found->version, NCCL_CONFIG_VERSION);
    return true;
}

bool nccl_open(struct err *e)
{
    struct nccl found = { 0 };
    void *library;

    if (nccl.ncclGetVersion)
        return true;
    library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, ERR_DEVICE, 0, "libnccl.so.2 cannot be loaded: %s", dlerror());
    if (!find_all(&found, library, e)) {
        dlclose(library);
        return false;
    }
    nccl = found;
    return true;
}

const char *nccl_result_name(int result)
{
    static const char *const names[] = {
        [NCCL_SUCCESS] = "ncclSuccess",
        [NCCL_UNHANDLED_CUDA_ERROR] = "ncclUnhandledCudaError",
        [NCCL_SYSTEM_ERROR] = "ncclSystemError",
        [NCCL_INTERNAL_ERROR] = "ncclInternalError",
        [NCCL_INVALID_ARGUMENT] = "ncclInvalidArgument",
        [NCCL_INVALID_USAGE] = "ncclInvalidUsage",
        [NCCL_REMOTE_ERROR] = "ncclRemoteError",
        [NCCL_IN_PROGRESS] = "ncclInProgress",
    };

    if (result < 0 || (size_t)result >= sizeof names / sizeof names[0])
        return "unknown ncclResult_t";
    return names[result];
}
