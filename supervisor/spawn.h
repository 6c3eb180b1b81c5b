/* spawn.h - start a child with its control socket, and read how it ended.
 *
 * A child starts with descriptors 0..2 of llmd and CONTROL_FD; everything else is close-on-exec.  Signals
 * are as new; it has a process group of its own, so that a terminal's Ctrl-C reaches llmd alone.  It is
 * not tied to llmd's life: children outlive their supervisor. */
#ifndef LLMD_SUPERVISOR_SPAWN_H
#define LLMD_SUPERVISOR_SPAWN_H

#include <sys/types.h>

#include "common/err.h"

struct child {
    pid_t pid;
    int pidfd;   /* readable when it has ended */
    int control; /* llmd's end, non-blocking */
};

/* Start `program` (a file in llmd's own folder, e.g. "llm-worker") with one optional argument.  stdout_fd
 * replaces descriptor 1 unless -1.  ERR_SYS. */
bool spawn_child(struct child *c, const char *program, const char *argument, int stdout_fd,
                 struct err *e);

/* Reap it, after its pidfd became readable: "exit code 1", "signal 9 (Killed)". */
void spawn_reap(const struct child *c, char *how, size_t n, int *exit_code);

void spawn_close(struct child *c); /* closes both descriptors */

#endif
