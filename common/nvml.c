/* nvml.c - opens libnvidia-ml.so.1 and asks it. */
#include "common/nvml.h"

#include <dlfcn.h>
#include <string.h>

struct library {
#define NVML(symbol, params)          int(*symbol) params;
#define NVML_OPTIONAL(symbol, params) int(*symbol) params;
#include "common/nvml.def"
#undef NVML
#undef NVML_OPTIONAL
    bool is_open;
};

static struct library nvml;

static const struct {
    const char *name;
    size_t offset;
    bool is_optional;
} symbols[] = {
#define NVML(symbol, params)          { #symbol, offsetof(struct library, symbol), false },
#define NVML_OPTIONAL(symbol, params) { #symbol, offsetof(struct library, symbol), true },
#include "common/nvml.def"
#undef NVML
#undef NVML_OPTIONAL
};

static bool find_symbols(struct library *l, void *handle, struct err *e)
{
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(handle, symbols[i].name);

        if (!symbol && !symbols[i].is_optional)
            return err_set(e, ERR_DEVICE, 0, "NVML is too old: libnvidia-ml.so.1 has no %s",
                           symbols[i].name);
        memcpy((char *)l + symbols[i].offset, &symbol, sizeof symbol);
    }
    return true;
}

bool nvml_open(struct err *e)
{
    struct library l = { 0 };
    void *handle;
    int r;

    if (nvml.is_open)
        return true;
    handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return err_set(e, ERR_DEVICE, 0, "no NVML: %s", dlerror());
    if (!find_symbols(&l, handle, e)) {
        dlclose(handle);
        return false;
    }
    r = l.nvmlInit_v2();
    if (r != NVML_OK) {
        dlclose(handle);
        return err_set(e, ERR_DEVICE, r, "nvmlInit: error %d", r);
    }
    nvml = l;
    nvml.is_open = true;
    return true;
}

static void read_processes(struct nvml_device *d, struct nvml_state *out)
{
    struct nvml_process found[NVML_PROCESSES_MAX] = { 0 };
    unsigned n = NVML_PROCESSES_MAX;
    int r = nvml.nvmlDeviceGetComputeRunningProcesses_v3
                ? nvml.nvmlDeviceGetComputeRunningProcesses_v3(d, &n, found)
                : NVML_NOT_SUPPORTED;

    out->processes_known = r == NVML_OK || r == NVML_INSUFFICIENT_SIZE;
    out->n_processes = r == NVML_OK ? n : r == NVML_INSUFFICIENT_SIZE ? NVML_PROCESSES_MAX : 0;
    for (unsigned i = 0; i < out->n_processes; i++) {
        out->processes[i].pid = (pid_t)found[i].pid;
        out->processes[i].used_bytes = found[i].used_bytes == ~0ull ? 0 : found[i].used_bytes;
    }
}

static void read_recovery(struct nvml_device *d, struct nvml_state *out)
{
    struct nvml_field f = { .id = NVML_FIELD_RECOVERY_ACTION };

    out->recovery_known = nvml.nvmlDeviceGetFieldValues(d, 1, &f) == NVML_OK &&
                          f.result == NVML_OK && f.type == NVML_VALUE_UNSIGNED;
    if (out->recovery_known)
        out->recovery = (enum nvml_recovery)f.value.u;
}

bool nvml_read(const char *uuid, struct nvml_state *out, struct err *e)
{
    struct nvml_memory memory = { 0 };
    struct nvml_device *d = NULL;
    int mode = 0, r;

    *out = (struct nvml_state){ 0 };
    if (!nvml_open(e))
        return false;
    r = nvml.nvmlDeviceGetHandleByUUID(uuid, &d);
    if (r == NVML_GPU_IS_LOST) {
        out->is_lost = true;
        return true;
    }
    if (r != NVML_OK)
        return err_set(e, ERR_DEVICE, r, "NVML knows no GPU '%s' (error %d)", uuid, r);
    r = nvml.nvmlDeviceGetMemoryInfo(d, &memory);
    out->is_lost = r == NVML_GPU_IS_LOST;
    out->total_bytes = memory.total;
    out->used_bytes = memory.used;
    out->is_persistent = nvml.nvmlDeviceGetPersistenceMode(d, &mode) == NVML_OK && mode != 0;
    read_recovery(d, out);
    read_processes(d, out);
    return true;
}

struct nvml_event_set *nvml_watch(const char *uuid, struct err *e)
{
    struct nvml_event_set *set = NULL;
    struct nvml_device *d = NULL;
    int r;

    if (!nvml_open(e))
        return NULL;
    if (!nvml.nvmlEventSetCreate || !nvml.nvmlEventSetFree || !nvml.nvmlDeviceRegisterEvents ||
        !nvml.nvmlEventSetWait_v2) {
        err_set(e, ERR_DEVICE, 0, "NVML is too old to tell of errors");
        return NULL;
    }
    r = nvml.nvmlDeviceGetHandleByUUID(uuid, &d);
    if (r == NVML_OK)
        r = nvml.nvmlEventSetCreate(&set);
    if (r == NVML_OK)
        r = nvml.nvmlDeviceRegisterEvents(d, NVML_EVENT_XID, set);
    if (r == NVML_OK)
        return set;
    nvml_unwatch(set);
    err_set(e, ERR_DEVICE, r, "NVML does not tell of errors of GPU '%s' (error %d)", uuid, r);
    return NULL;
}

void nvml_unwatch(struct nvml_event_set *set)
{
    if (set)
        nvml.nvmlEventSetFree(set);
}

enum nvml_news nvml_wait(struct nvml_event_set *set, unsigned timeout_ms, uint64_t *xid)
{
    struct nvml_event event = { 0 };

    switch (nvml.nvmlEventSetWait_v2(set, &event, timeout_ms)) {
    case NVML_OK:
        *xid = event.data;
        return event.type == NVML_EVENT_XID ? NVML_NEWS_XID : NVML_NEWS_NONE;
    case NVML_TIMEOUT:
        return NVML_NEWS_NONE;
    case NVML_GPU_IS_LOST:
        return NVML_NEWS_LOST;
    default:
        return NVML_NEWS_FAILED;
    }
}

bool nvml_is_unusable(const struct nvml_state *s)
{
    if (s->is_lost)
        return true;
    return s->recovery_known &&
           (s->recovery == NVML_RECOVERY_RESET || s->recovery == NVML_RECOVERY_REBOOT ||
            s->recovery == NVML_RECOVERY_DRAIN_AND_RESET);
}

static void read_gpu(unsigned index, struct nvml_gpu *g)
{
    struct nvml_memory memory;
    struct nvml_state state = { 0 };
    unsigned long long errors = 0;
    struct nvml_device *d;
    int mode, r;

    r = nvml.nvmlDeviceGetHandleByIndex_v2(index, &d);
    g->is_unusable = r == NVML_GPU_IS_LOST;
    if (r != NVML_OK)
        return;
    if (!nvml.nvmlDeviceGetName || nvml.nvmlDeviceGetName(d, g->name, sizeof g->name) != NVML_OK)
        g->name[0] = '\0';
    r = nvml.nvmlDeviceGetMemoryInfo(d, &memory);
    if (r == NVML_OK)
        g->memory_bytes = memory.total;
    state.is_lost = r == NVML_GPU_IS_LOST;
    read_recovery(d, &state);
    g->is_unusable = nvml_is_unusable(&state);
    g->persistent = nvml.nvmlDeviceGetPersistenceMode(d, &mode) == NVML_OK && mode != 0;
    g->ecc_known = nvml.nvmlDeviceGetTotalEccErrors &&
                   nvml.nvmlDeviceGetTotalEccErrors(d, NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE,
                                                    &errors) == NVML_OK;
    g->ecc_uncorrected = g->ecc_known ? errors : 0;
}

void nvml_list(struct nvml_gpus *out)
{
    struct err e;
    unsigned n = 0;

    *out = (struct nvml_gpus){ 0 };
    if (!nvml_open(&e))
        return;
    out->is_loaded = nvml.nvmlDeviceGetCount_v2(&n) == NVML_OK;
    out->n = n < NVML_GPUS_MAX ? n : NVML_GPUS_MAX;
    for (unsigned i = 0; i < out->n; i++)
        read_gpu(i, &out->gpus[i]);
}

bool nvml_has_process(const struct nvml_state *s, pid_t pid)
{
    for (unsigned i = 0; i < s->n_processes; i++)
        if (s->processes[i].pid == pid)
            return true;
    return false;
}

const char *nvml_recovery_name(enum nvml_recovery r)
{
    static const char *const names[] = { [NVML_RECOVERY_NONE] = "none",
                                         [NVML_RECOVERY_RESET] = "reset",
                                         [NVML_RECOVERY_REBOOT] = "reboot",
                                         [NVML_RECOVERY_DRAIN_P2P] = "drain peers",
                                         [NVML_RECOVERY_DRAIN_AND_RESET] = "drain and reset" };

    return r >= 0 && (size_t)r < sizeof names / sizeof names[0] ? names[r] : "unknown";
}
