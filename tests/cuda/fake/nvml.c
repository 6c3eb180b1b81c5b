/* nvml.c - the fake libnvidia-ml.so.1: what the processes' shared state says of the GPUs. */
#include "common/nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/cuda/fake/settings.h"
#include "tests/cuda/fake/state.h"

enum { NVML_INVALID_ARGUMENT = 2, NVML_NOT_FOUND = 6, PROCESSES_MAX = 256 };

#define NVML(symbol, params)          __attribute__((visibility("default"))) int symbol params;
#define NVML_OPTIONAL(symbol, params) NVML(symbol, params)
#include "common/nvml.def"
#undef NVML
#undef NVML_OPTIONAL

/* A device is its number. */
struct nvml_device {
    int gpu;
};

static struct nvml_device devices[FAKE_GPUS_MAX];

int nvmlInit_v2(void)
{
    for (int i = 0; i < FAKE_GPUS_MAX; i++)
        devices[i].gpu = i;
    return NVML_OK;
}

int nvmlShutdown(void)
{
    return NVML_OK;
}

int nvmlSystemGetDriverVersion(char *version, unsigned bytes)
{
    snprintf(version, bytes, "fake");
    return NVML_OK;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = (unsigned)fake_settings()->n_gpus;
    return NVML_OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct nvml_device **device)
{
    if (index >= (unsigned)fake_settings()->n_gpus)
        return NVML_INVALID_ARGUMENT;
    *device = &devices[index];
    return NVML_OK;
}

/* As cuDeviceGetUuid has it: "fake", then zeros and the number. */
int nvmlDeviceGetUUID(struct nvml_device *device, char *uuid, unsigned bytes)
{
    snprintf(uuid, bytes, "GPU-66616b65-0000-0000-0000-0000000000%02x", device->gpu);
    return NVML_OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct nvml_device **device)
{
    char name[64];

    for (int i = 0; i < fake_settings()->n_gpus; i++) {
        nvmlDeviceGetUUID(&devices[i], name, sizeof name);
        if (strcmp(name, uuid) == 0) {
            *device = &devices[i];
            return NVML_OK;
        }
    }
    return NVML_NOT_FOUND;
}

int nvmlDeviceGetPersistenceMode(struct nvml_device *device, int *mode)
{
    (void)device;
    *mode = fake_settings()->is_persistent;
    return NVML_OK;
}

int nvmlDeviceGetMemoryInfo(struct nvml_device *device, struct nvml_memory *memory)
{
    uint64_t used = state_used(device->gpu), total = fake_settings()->memory_bytes;

    *memory = (struct nvml_memory){ total, used < total ? total - used : 0, used };
    return NVML_OK;
}

int nvmlDeviceGetName(struct nvml_device *device, char *name, unsigned bytes)
{
    (void)device;
    snprintf(name, bytes, "fake GPU");
    return NVML_OK;
}

int nvmlDeviceGetTotalEccErrors(struct nvml_device *device, int error, int counter,
                                unsigned long long *n)
{
    (void)device;
    (void)error;
    (void)counter;
    *n = 0;
    return NVML_OK;
}

int nvmlDeviceGetFieldValues(struct nvml_device *device, int n, struct nvml_field *fields)
{
    for (int i = 0; i < n; i++) {
        struct nvml_field *f = &fields[i];

        f->result = f->id == NVML_FIELD_RECOVERY_ACTION ? NVML_OK : NVML_NOT_SUPPORTED;
        f->type = NVML_VALUE_UNSIGNED;
        f->value.u = state_lost(device->gpu) ? NVML_RECOVERY_RESET : NVML_RECOVERY_NONE;
    }
    return NVML_OK;
}

/* ---- events ---- */

struct nvml_event_set {
    struct nvml_device *device;
    unsigned n_told;
};

int nvmlEventSetCreate(struct nvml_event_set **set)
{
    *set = calloc(1, sizeof **set);
    return *set ? NVML_OK : NVML_INVALID_ARGUMENT;
}

int nvmlEventSetFree(struct nvml_event_set *set)
{
    free(set);
    return NVML_OK;
}

/* Of one GPU; what is there already is no news. */
int nvmlDeviceRegisterEvents(struct nvml_device *device, unsigned long long types,
                             struct nvml_event_set *set)
{
    if (types != NVML_EVENT_XID || set->device)
        return NVML_INVALID_ARGUMENT;
    set->device = device;
    while (state_xid(device->gpu, set->n_told) != 0)
        set->n_told++;
    return NVML_OK;
}

int nvmlEventSetWait_v2(struct nvml_event_set *set, struct nvml_event *event, unsigned timeout_ms)
{
    enum { LOOK_MS = 20 };

    for (unsigned ms = 0; ms < timeout_ms; ms += LOOK_MS) {
        unsigned xid = state_xid(set->device->gpu, set->n_told);
        if (xid != 0) {
            set->n_told++;
            *event = (struct nvml_event){ set->device, NVML_EVENT_XID, xid, ~0u, ~0u };
            return NVML_OK;
        }
        nanosleep(&(struct timespec){ .tv_nsec = LOOK_MS * 1000000L }, NULL);
    }
    return NVML_TIMEOUT;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct nvml_device *device, unsigned *n,
                                            struct nvml_process *processes)
{
    struct state_process found[PROCESSES_MAX];
    unsigned n_found = state_processes(device->gpu, found, PROCESSES_MAX), room = *n;

    *n = n_found;
    for (unsigned i = 0; i < n_found && i < room; i++)
        processes[i] = (struct nvml_process){ .pid = (unsigned)found[i].pid,
                                              .used_bytes = found[i].bytes,
                                              .gpu_instance = ~0u,
                                              .compute_instance = ~0u };
    return n_found > room ? NVML_INSUFFICIENT_SIZE : NVML_OK;
}
