/* child.c - see child.h. */
#include "gpu-worker/cuda/verify/child.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "gpu-worker/cuda/images.h"

enum { HEAR_MS = 120000, END_MS = 30000 };
#define FINISH_NS (60 * NS_PER_S)

double child_ms_since(uint64_t ns)
{
    return (double)(clock_mono_ns() - ns) / (double)NS_PER_MS;
}

bool child_start(struct child *c, child_fn *fn, const void *arg, struct item_report *r)
{
    int pair[2];

    *c = (struct child){ 0 };
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        report_failure(r, "no socket");
        return false;
    }
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0) {
        close(pair[0]);
        fn(pair[1], arg);
        _exit(EXIT_SUCCESS);
    }
    close(pair[1]);
    c->sock = pair[0];
    if (c->pid > 0)
        return true;
    close(pair[0]);
    c->pid = 0;
    report_failure(r, "no process");
    return false;
}

static bool is_there(int sock, int ms)
{
    struct pollfd p = { .fd = sock, .events = POLLIN };

    return poll(&p, 1, ms) == 1;
}

bool child_hear(struct child *c, struct child_message *m, int *fds, int *n_fds,
                struct item_report *r)
{
    int own[FDPASS_FDS_MAX], n_own = 0;
    struct err e = { 0 };
    size_t n = 0;

    if (!is_there(c->sock, HEAR_MS)) {
        report_failure(r, "process %d is silent", (int)c->pid);
        return false;
    }
    if (fdpass_recv(c->sock, m, sizeof *m, &n, fds ? fds : own, n_fds ? n_fds : &n_own, &e) !=
            FDPASS_OK ||
        n != sizeof *m) {
        report_failure(r, "process %d has ended before its time", (int)c->pid);
        return false;
    }
    if (m->has_failed)
        report_failure(r, "%s", m->text);
    return !m->has_failed;
}

bool child_go(struct child *c, struct item_report *r)
{
    struct err e = { 0 };

    if (fdpass_send(c->sock, "g", 1, NULL, 0, &e))
        return true;
    report_failure(r, "process %d has ended before its time", (int)c->pid);
    return false;
}

double child_kill(struct child *c)
{
    uint64_t start = clock_mono_ns();

    if (c->pid == 0)
        return 0;
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    close(c->sock);
    *c = (struct child){ 0 };
    return child_ms_since(start);
}

int child_end(struct child *c)
{
    int status = 0;

    if (c->pid == 0)
        return -1;
    for (int ms = 0; ms < END_MS; ms++) {
        if (waitpid(c->pid, &status, WNOHANG) == c->pid) {
            close(c->sock);
            *c = (struct child){ 0 };
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        usleep(1000);
    }
    child_kill(c);
    return -1;
}

/* ---- In the child ---- */

void child_say(int sock, const struct child_message *m, const int *fds, int n_fds)
{
    struct err e = { 0 };

    if (!fdpass_send(sock, m, sizeof *m, fds, n_fds, &e))
        _exit(EXIT_FAILURE);
}

void child_await(int sock)
{
    int fds[FDPASS_FDS_MAX], n_fds;
    struct err e = { 0 };
    char byte;
    size_t n;

    if (fdpass_recv(sock, &byte, 1, &n, fds, &n_fds, &e) != FDPASS_OK)
        _exit(EXIT_FAILURE);
}

void child_fail(int sock, const char *fmt, ...)
{
    struct child_message m = { .has_failed = true };
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(m.text, sizeof m.text, fmt, ap);
    va_end(ap);
    child_say(sock, &m, NULL, 0);
    _exit(EXIT_FAILURE);
}

void child_show_gpu(const struct verify *v)
{
    if (!v->is_dry_run)
        setenv("CUDA_VISIBLE_DEVICES", v->uuid, 1);
}

void child_open(int sock, struct child_device *d, int ordinal)
{
    const struct device_images images = { cuda_images, n_cuda_images };
    struct err e = { 0 };

    if (!device_open(&d->device, ordinal, &images, &e) ||
        !device_stream_open(&d->stream, d->device, 0, &e))
        child_fail(sock, "%s", e.msg);
}

void child_close(struct child_device *d)
{
    device_stream_close(&d->stream);
    device_close(d->device);
}

void child_finish(int sock, struct child_device *d)
{
    struct err e = { 0 };

    if (!device_stream_finish(&d->stream, FINISH_NS, &e))
        child_fail(sock, "%s", e.msg);
}

void child_check(int sock, int result, const char *call)
{
    if (result != CU_OK)
        child_fail(sock, "%s: %s", call, cuda_result_name(result));
}
