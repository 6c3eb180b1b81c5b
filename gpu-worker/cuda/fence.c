/* fence.c - see fence.h. */
#include "gpu-worker/cuda/fence.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/nvml.h"

#define AFTER_NVML_NS (200 * NS_PER_MS)
#define WITHOUT_NS    (2 * NS_PER_S)

void fence_open(struct fence *f, const char *const *uuids, uint32_t n)
{
    struct nvml_state s;
    struct err e;

    assert(n > 0 && n <= FENCE_GPUS_MAX);
    *f = (struct fence){ .n = n };
    for (uint32_t i = 0; i < n; i++)
        snprintf(f->uuids[i], sizeof f->uuids[i], "%s", uuids[i]);
    f->sees_us = nvml_open(&e) && nvml_read(uuids[0], &s, &e) && s.processes_known &&
                 nvml_has_process(&s, getpid());
}

uint64_t fence_wait_ns(const struct fence *f)
{
    return f->sees_us ? AFTER_NVML_NS : WITHOUT_NS;
}

/* Killed and not yet reaped counts: its files may be open still. */
static bool is_dead(pid_t pid)
{
    char path[48], text[256], *end;
    FILE *stat;
    bool dead = false;

    if (kill(pid, 0) < 0)
        return errno == ESRCH;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    stat = fopen(path, "re");
    if (!stat)
        return errno == ENOENT;
    if (fgets(text, sizeof text, stat) && (end = strrchr(text, ')')))
        dead = end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
    fclose(stat);
    return dead;
}

static bool gpu_is_quiet(const char *uuid)
{
    struct nvml_state s;
    struct err e;

    if (!nvml_read(uuid, &s, &e) || s.is_lost)
        return true;
    for (unsigned i = 0; i < s.n_processes; i++)
        if (is_dead(s.processes[i].pid))
            return false;
    return true;
}

bool fence_is_quiet(void *arg)
{
    const struct fence *f = arg;

    for (uint32_t i = 0; f->sees_us && i < f->n; i++)
        if (!gpu_is_quiet(f->uuids[i]))
            return false;
    return true;
}
