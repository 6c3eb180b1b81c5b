/* child.h - a running child: its pidfd and control socket on the event loop.
 *
 * This is the half of a process that exists only while it runs; process.h is the half that stays.  A child
 * may have been started by this llmd or by one before it: then it need not be our child to the kernel,
 * and for a moment its pid may not be known. */
#ifndef LLMD_SUPERVISOR_CHILD_H
#define LLMD_SUPERVISOR_CHILD_H

#include <signal.h>
#include <systemd/sd-event.h>

#include "proto/control.h"
#include "supervisor/spawn.h"

enum { CHILD_PID_UNKNOWN = -1 };

struct child_events {
    void (*message)(void *arg, struct control_msg *m); /* may take descriptors of it */
    /* It ended; the child is already closed.  All its messages have come before.  si_code 0: nobody can
     * say how. */
    void (*exited)(void *arg, const siginfo_t *info);
    /* May be NULL: a send that failed with EAGAIN may be tried again. */
    void (*writable)(void *arg);
    /* May be NULL: its program starts next, BOOT is in this socket (ours, borrowed), and the inode is that of
     * its end. */
    void (*starting)(void *arg, int control, unsigned long peer_inode);
    /* May be NULL: a message was lost on arrival. */
    void (*message_lost)(void *arg);
};

struct child {
    const struct child_events *events;
    void *arg;
    pid_t pid;          /* 0 = none runs; CHILD_PID_UNKNOWN */
    int pidfd, control; /* -1 = none */
    sd_event_source *exit_source, *control_source;
};

/* Send `boot` with fds (borrowed) ahead, then start the program.  spawn->control_fd is filled here. */
bool child_start(struct child *c, sd_event *event, struct spawn *spawn, const Llmd__Boot *boot,
                 const int *fds, int n_fds, const struct child_events *events, void *arg,
                 struct err *e);

/* Watch one that a former llmd started.  Takes control and pidfd, of which one may be -1: without control
 * it can only be killed, without pidfd its hang-up tells its end.  Its pid is asked of the kernel. */
bool child_adopt(struct child *c, sd_event *event, int control, int pidfd,
                 const struct child_events *events, void *arg, struct err *e);
/* It says that this is its pid; believed while the control socket shows that it lives. */
bool child_learn_pid(struct child *c, pid_t pid);

/* One message.  ERR_SYS with EAGAIN when the child does not read its socket; see child_events. */
bool child_send(struct child *c, enum msg_type type, const void *message, struct err *e);
bool child_send_fds(struct child *c, enum msg_type type, const void *message, const int *fds,
                    int n_fds, struct err *e);

void child_signal(const struct child *c, int sig);

/* Take its last messages and its exit, if it has ended. */
void child_reap(struct child *c);

/* Forget it; safe on a zeroed or closed one.  The program itself is not touched. */
void child_close(struct child *c);

#endif
