/* nvml.h - the door to NVIDIA's management library: libnvidia-ml.so.1, opened at run time.
 *
 * What the driver says of a GPU without being asked to compute: is it kept initialised while nobody has it open
 * (persistence mode, without which memory owned by descriptors is lost with the last process), who uses it, how full is
 * it, does it need a reset.  Needs no CUDA context and works while a context is dead.  Declarations after the NVML API
 * Reference Guide (docs.nvidia.com/deploy/nvml-api). */
#ifndef LLMD_COMMON_NVML_H
#define LLMD_COMMON_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct nvml_device;    /* opaque */
struct nvml_event_set; /* opaque */

enum {
    NVML_OK = 0,
    NVML_NOT_SUPPORTED = 3,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_TIMEOUT = 10,
    NVML_GPU_IS_LOST = 15
};
enum { NVML_EVENT_XID = 8 };
enum { NVML_ECC_UNCORRECTED = 1, NVML_ECC_VOLATILE = 0 };
enum { NVML_FIELD_RECOVERY_ACTION = 230, NVML_VALUE_UNSIGNED = 1 };

/* nvmlMemory_t */
struct nvml_memory {
    unsigned long long total, free, used;
};

/* nvmlProcessInfo_t of the _v2 and _v3 calls */
struct nvml_process {
    unsigned pid;
    unsigned long long used_bytes; /* ~0 = not known */
    unsigned gpu_instance, compute_instance;
};

/* nvmlFieldValue_t */
struct nvml_field {
    unsigned id, scope;
    long long timestamp, latency_us;
    unsigned type;
    int result;
    union {
        double d;
        unsigned u;
        unsigned long long ull;
    } value;
};

/* nvmlEventData_t of the _v2 call */
struct nvml_event {
    struct nvml_device *device;
    unsigned long long type, data; /* of NVML_EVENT_XID: the Xid */
    unsigned gpu_instance, compute_instance;
};

/* What NVIDIA's driver wants done (nvmlDeviceGpuRecoveryAction_t). */
enum nvml_recovery {
    NVML_RECOVERY_NONE = 0,
    NVML_RECOVERY_RESET = 1,
    NVML_RECOVERY_REBOOT = 2,
    NVML_RECOVERY_DRAIN_P2P = 3,
    NVML_RECOVERY_DRAIN_AND_RESET = 4,
};

enum { NVML_PROCESSES_MAX = 64 };

struct nvml_state {
    bool is_lost; /* the GPU does not answer: everything below is 0 */
    bool is_persistent;
    uint64_t total_bytes, used_bytes; /* of everybody */
    bool recovery_known;              /* driver of 2024 or later */
    enum nvml_recovery recovery;
    bool processes_known; /* false in some containers and on old drivers */
    unsigned n_processes; /* at most NVML_PROCESSES_MAX are told */
    struct {
        pid_t pid; /* as NVML sees it: in a container it may be another namespace's */
        uint64_t used_bytes;
    } processes[NVML_PROCESSES_MAX];
};

/* Load the library; true at once when it is.  ERR_DEVICE with the reason in one line. */
bool nvml_open(struct err *e);

/* Of the GPU with this UUID (struct device_info).  ERR_DEVICE: no library, no such GPU. */
bool nvml_read(const char *uuid, struct nvml_state *out, struct err *e);

/* ---- Xids: errors of a GPU that the driver reports (docs.nvidia.com/deploy/xid-errors) ---- */

enum nvml_news { NVML_NEWS_NONE, NVML_NEWS_XID, NVML_NEWS_LOST, NVML_NEWS_FAILED };

/* From now on; the set is the caller's, to nvml_unwatch().  ERR_DEVICE. */
struct nvml_event_set *nvml_watch(const char *uuid, struct err *e);
void nvml_unwatch(struct nvml_event_set *set); /* NULL is fine */

/* Blocks until there is one, or for so long.  FAILED: nothing more will come. */
enum nvml_news nvml_wait(struct nvml_event_set *set, unsigned timeout_ms, uint64_t *xid);

enum { NVML_GPUS_MAX = 16 };

/* All GPUs of the machine, for people. */
struct nvml_gpus {
    bool is_loaded; /* the library is there and answered */
    unsigned n;
    struct nvml_gpu {
        char name[96];
        uint64_t memory_bytes;
        bool persistent;
        bool ecc_known;
        uint64_t ecc_uncorrected; /* since the driver was loaded */
        bool is_unusable;         /* nvml_is_unusable() */
    } gpus[NVML_GPUS_MAX];
};

void nvml_list(struct nvml_gpus *out);

/* Does NVML list the process on the GPU?  Part of the fence before a dead worker's pages are used again (design 1.6). */
bool nvml_has_process(const struct nvml_state *s, pid_t pid);

/* The GPU computes nothing any more, until it is reset or the machine is started again. */
bool nvml_is_unusable(const struct nvml_state *s);

/* "none", "reset", "reboot", ... */
const char *nvml_recovery_name(enum nvml_recovery r);

#endif
