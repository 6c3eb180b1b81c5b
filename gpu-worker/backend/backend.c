/* backend.c - which backend a host, a model and the settings make. */
#include "gpu-worker/backend/backend.h"

#include <string.h>

#include "common/log.h"
#include "gpu-worker/cuda/api/driver.h"
#include "gpu-worker/cuda/nccl_comm.h"

void backend_environment(const struct config *config)
{
    cuda_environment();
    nccl_comm_environment(strcmp(config->gpu_exchange, "host") == 0);
}

bool backend_has_left_threads(void)
{
    return nccl_comm_is_left();
}

const struct backend_kind *backend_choose(const struct config *config,
                                          const struct ops_setup *setup, struct err *e)
{
    uint32_t n_ranks = (uint32_t)(config->groups * config->tp_size);
    struct err why;

    if (strcmp(config->device, "cpu") == 0)
        return &backend_cpu;
    if (backend_cuda.can(setup, n_ranks, (uint32_t)config->tp_size, &why))
        return &backend_cuda;
    if (strcmp(config->device, "cuda") == 0) {
        err_set(e, ERR_CONFIG, 0, "device is cuda, but no GPU can be used: %s", why.msg);
        return NULL;
    }
    log_info("computing on the CPU: %s", why.msg);
    return &backend_cpu;
}
