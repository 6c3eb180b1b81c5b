/* lasting.c - see lasting.h. */
#include "gpu-worker/cuda/lasting.h"

#include "common/log.h"
#include "common/nvml.h"

bool lasting_is_persistent(const char *uuid, struct err *why)
{
    struct nvml_state s;
    struct err e;

    if (!nvml_open(&e) || !nvml_read(uuid, &s, &e))
        return err_set(why, ERR_DEVICE, 0,
                       "persistence mode not known (%.100s): if it is off, a "
                       "crash costs loading the weights again",
                       e.msg);
    return s.is_persistent || err_set(why, ERR_DEVICE, 0,
                                      "persistence mode is off: a crash that ends its last process "
                                      "costs all weights and KV pages; run nvidia-persistenced or "
                                      "`nvidia-smi -pm 1`, or set gpu_memory_owner to keeper");
}

static bool is_persistent(const struct device_info *info)
{
    struct err why;

    if (lasting_is_persistent(info->uuid, &why))
        return true;
    log_warning("gpu=%s %s", info->uuid, why.msg);
    return false;
}

bool lasting_check(const struct device_info *info, bool has_keeper)
{
    bool ok = has_keeper || is_persistent(info);

    if (info->is_mps)
        log_warning(
            "gpu=%s is shared by an MPS daemon: a fault of any of its processes ends all of "
            "them, and new ones are refused until they have ended; run without MPS",
            info->uuid);
    return ok && !info->is_mps;
}
