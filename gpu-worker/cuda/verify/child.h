/* child.h - a process of gpu-verify that uses the GPU, since the main one never does: it holds descriptors and
 * kills, as llmd would, and a process that has used CUDA cannot be forked.
 *
 * Parent and child speak by one socket, a struct child_message at a time with descriptors.  The first thing a child
 * says is usually that it is ready; child_fail() ends it with a reason. */
#ifndef LLMD_CUDA_VERIFY_CHILD_H
#define LLMD_CUDA_VERIFY_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/fdpass.h"
#include "gpu-worker/cuda/device.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/report.h"

enum { CHILD_VALUES_MAX = 24 };

struct child_message {
    bool has_failed;
    double values[CHILD_VALUES_MAX];
    char text[200];
};

struct child {
    pid_t pid; /* 0 = none */
    int sock;
};

typedef void child_fn(int sock, const void *arg);

/* Start fn in a process of its own; it ends when fn returns.  false: told on r. */
bool child_start(struct child *c, child_fn *fn, const void *arg, struct item_report *r);

/* Its next message within 120 s; false, told on r: it has failed, ended or is silent.  fds may be NULL when none are
 * expected; else there is room for FDPASS_FDS_MAX, and the caller owns them. */
bool child_hear(struct child *c, struct child_message *m, int *fds, int *n_fds,
                struct item_report *r);

/* Let it go on: it waits in child_await(). */
bool child_go(struct child *c, struct item_report *r);

/* SIGKILL and reap; the time until it was reaped in ms.  Safe on a zeroed struct. */
double child_kill(struct child *c);

/* Let it end by itself (30 s), then reap: its exit code, or -1 when it had to be killed or died. */
int child_end(struct child *c);

/* ---- In the child ---- */

void child_say(int sock, const struct child_message *m, const int *fds, int n_fds);
void child_await(int sock);
void child_fail(int sock, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Before CUDA is opened: let v->gpu be the only GPU, and so number 0.  The fake driver has all it has. */
void child_show_gpu(const struct verify *v);

/* The device with its stream, or child_fail(). */
struct child_device {
    struct device *device;
    struct device_stream stream;
};
void child_open(int sock, struct child_device *d, int ordinal);
void child_close(struct child_device *d);
/* Wait for all work, 60 s. */
void child_finish(int sock, struct child_device *d);
/* A CUresult that has to be CU_OK. */
void child_check(int sock, int result, const char *call);

double child_ms_since(uint64_t ns);

#endif
