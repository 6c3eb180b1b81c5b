/* gpu_check.c - see gpu_check.h.  NVML alone is asked: a context would be one more thing to hang in. */
#include "gpu-worker/gpu_check.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/nvml.h"
#include "proto/control.h"

/* Without a library nobody can say; a driver that is gone, or does not know the GPU, is a clear answer. */
static bool is_well(const char *uuid, struct err *e)
{
    struct nvml_state s;

    if (!nvml_open(e) || !nvml_read(uuid, &s, e))
        return e->sys == 0;
    if (!nvml_is_unusable(&s))
        return true;
    if (s.is_lost)
        return err_set(e, ERR_DEVICE, 0, "%s does not answer: it is to be reset", uuid);
    return err_set(e, ERR_DEVICE, 0, "%s: NVIDIA's driver asks for a %s", uuid,
                   nvml_recovery_name(s.recovery));
}

int gpu_check_main(int argc, char **argv)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;
    struct err e;

    log_init("llm-worker/check", LOG_WARNING, LOG_AUTO);
    for (int i = 1; i < argc; i++)
        if (!is_well(argv[i], &e)) {
            fatal.message = e.msg;
            control_send(CONTROL_FD, MSG_FATAL, &fatal, NULL, 0, NULL);
            return EXIT_FAILURE;
        }
    return EXIT_SUCCESS;
}
