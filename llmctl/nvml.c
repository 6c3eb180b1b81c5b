/* nvml.c - the few functions that are asked, declared after NVIDIA's NVML API reference (docs.nvidia.com/deploy/
 * nvml-api); all return 0 for success. */
#include "llmctl/nvml.h"

#include <dlfcn.h>
#include <string.h>

typedef struct nvml_device *device;

enum { FEATURE_ENABLED = 1, ECC_UNCORRECTED = 1, ECC_VOLATILE = 0 };

struct memory {
    unsigned long long total, free, used;
};

struct library {
    void *handle;
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *n);
    int (*by_index)(unsigned i, device *d);
    int (*name)(device d, char *name, unsigned n);
    int (*memory)(device d, struct memory *m);
    int (*persistence)(device d, int *mode);
    int (*ecc)(device d, int error, int counter, unsigned long long *n);
};

/* POSIX lets dlsym()'s result be a function; C needs this way round. */
static bool find(const struct library *l, const char *name, void *function)
{
    void *symbol = dlsym(l->handle, name);

    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bool open_library(struct library *l)
{
    l->handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!l->handle)
        return false;
    if (find(l, "nvmlInit_v2", &l->init) && find(l, "nvmlShutdown", &l->shutdown) &&
        find(l, "nvmlDeviceGetCount_v2", &l->count) &&
        find(l, "nvmlDeviceGetHandleByIndex_v2", &l->by_index) &&
        find(l, "nvmlDeviceGetName", &l->name) && find(l, "nvmlDeviceGetMemoryInfo", &l->memory) &&
        find(l, "nvmlDeviceGetPersistenceMode", &l->persistence) &&
        find(l, "nvmlDeviceGetTotalEccErrors", &l->ecc) && l->init() == 0)
        return true;
    dlclose(l->handle);
    return false;
}

static void read_gpu(const struct library *l, unsigned i, struct nvml_gpu *g)
{
    struct memory memory;
    unsigned long long errors;
    device d;
    int mode;

    if (l->by_index(i, &d) != 0)
        return;
    if (l->name(d, g->name, sizeof g->name) != 0)
        g->name[0] = '\0';
    if (l->memory(d, &memory) == 0)
        g->memory_bytes = memory.total;
    g->persistent = l->persistence(d, &mode) == 0 && mode == FEATURE_ENABLED;
    g->ecc_known = l->ecc(d, ECC_UNCORRECTED, ECC_VOLATILE, &errors) == 0;
    g->ecc_uncorrected = g->ecc_known ? errors : 0;
}

void nvml_read(struct nvml *out)
{
    struct library l;
    unsigned n = 0;

    *out = (struct nvml){ 0 };
    if (!open_library(&l))
        return;
    out->is_loaded = l.count(&n) == 0;
    out->n = n < NVML_GPUS_MAX ? n : NVML_GPUS_MAX;
    for (unsigned i = 0; i < out->n; i++)
        read_gpu(&l, i, &out->gpus[i]);
    l.shutdown();
    dlclose(l.handle);
}
