/* child.h - a running child: its pidfd and control socket on the event loop.
 *
 * This is the half of a process that exists only while it runs; process.h is the half that stays. */
#ifndef LLMD_SUPERVISOR_CHILD_H
#define LLMD_SUPERVISOR_CHILD_H

#include <signal.h>
#include <systemd/sd-event.h>

#include "proto/control.h"
#include "supervisor/spawn.h"

struct child_events {
    void (*message)(void *arg, const struct control_msg *m);
    /* It ended; the child is already closed.  All its messages have come before. */
    void (*exited)(void *arg, const siginfo_t *info);
    /* May be NULL: a send that failed with EAGAIN may be tried again. */
    void (*writable)(void *arg);
};

struct child {
    const struct child_events *events;
    void *arg;
    pid_t pid; /* 0 = none runs */
    int pidfd, control;
    sd_event_source *exit_source, *control_source;
};

/* Send `boot` with fds (borrowed) ahead, then start the program.  spawn->control_fd is filled here. */
bool child_start(struct child *c, sd_event *event, struct spawn *spawn, const Llmd__Boot *boot,
                 const int *fds, int n_fds, const struct child_events *events, void *arg,
                 struct err *e);

/* One message.  ERR_SYS with EAGAIN when the child does not read its socket; see child_events. */
bool child_send(struct child *c, enum msg_type type, const void *message, struct err *e);

void child_signal(const struct child *c, int sig);

/* Take its last messages and its exit, if it has ended. */
void child_reap(struct child *c);

/* Forget it; safe on a zeroed or closed one.  The program itself is not touched. */
void child_close(struct child *c);

#endif
