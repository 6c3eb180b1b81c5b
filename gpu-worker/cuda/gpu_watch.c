/* gpu_watch.c - see gpu_watch.h.  Meanings: NVIDIA's "XID Errors" (docs.nvidia.com/deploy/xid-errors). */
#include "gpu-worker/cuda/gpu_watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/nvml.h"
#include "proto/control.h"
#include "proto/worker_exit.h"

enum { WAIT_MS = 60000, OFF_THE_BUS = 79 };

static const struct {
    uint64_t xid;
    int exit_code;
    bool of_peers; /* means something only to ranks that exchange */
    const char *words;
} known[] = {
    { 48, WORKER_EXIT_DEVICE_LOST, false, "memory error that cannot be corrected" },
    { 74, WORKER_EXIT_DEVICE_STICKY, true, "NVLink error" },
    { OFF_THE_BUS, WORKER_EXIT_DEVICE_LOST, false, "fallen off the bus" },
    { 95, WORKER_EXIT_DEVICE_LOST, false, "uncontained memory error" },
    { 119, WORKER_EXIT_DEVICE_LOST, false, "its system processor does not answer" },
    { 120, WORKER_EXIT_DEVICE_LOST, false, "error of its system processor" },
};

struct watched {
    struct nvml_event_set *events;
    bool has_peers;
};

int gpu_watch_verdict(uint64_t xid, bool has_peers, const char **words)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].xid == xid && (has_peers || !known[i].of_peers)) {
            *words = known[i].words;
            return known[i].exit_code;
        }
    return 0;
}

/* As after a SIGKILL nothing of value is lost: whatever other threads are doing. */
static void leave(uint64_t xid, int code, const char *words)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;
    char text[120];

    snprintf(text, sizeof text, "NVIDIA's driver reports Xid %llu of the GPU: %s",
             (unsigned long long)xid, words);
    log_error("%s", text);
    fatal.message = text;
    control_send(CONTROL_FD, MSG_FATAL, &fatal, NULL, 0, NULL);
    _exit(code);
}

static void judge(const struct watched *w, uint64_t xid)
{
    const char *words = "";
    int code = gpu_watch_verdict(xid, w->has_peers, &words);

    if (code != 0)
        leave(xid, code, words);
    log_warning("NVIDIA's driver reports Xid %llu of the GPU, going on", (unsigned long long)xid);
}

static void *watch(void *arg)
{
    struct watched *w = arg;
    enum nvml_news news;
    uint64_t xid = 0;

    while ((news = nvml_wait(w->events, WAIT_MS, &xid)) != NVML_NEWS_FAILED)
        if (news != NVML_NEWS_NONE)
            judge(w, news == NVML_NEWS_LOST ? OFF_THE_BUS : xid);
    log_warning("NVML tells of no more errors of the GPU");
    nvml_unwatch(w->events);
    free(w);
    return NULL;
}

static int start_thread(struct watched *w)
{
    pthread_attr_t detached;
    sigset_t all, before;
    pthread_t thread;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &detached, watch, w);
    pthread_attr_destroy(&detached);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void gpu_watch_start(const char *uuid, bool has_peers)
{
    struct watched *w = mem_zalloc(1, sizeof *w);
    struct err e;

    w->has_peers = has_peers;
    w->events = nvml_watch(uuid, &e);
    if (w->events && start_thread(w) == 0)
        return;
    if (w->events)
        log_warning("gpu=%s no thread can be started to watch it", uuid);
    else
        log_info("gpu=%s is not watched: %s", uuid, e.msg);
    nvml_unwatch(w->events);
    free(w);
}
