/* spawn.h - start a program as a child of llmd. */
#ifndef LLMD_SUPERVISOR_SPAWN_H
#define LLMD_SUPERVISOR_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

struct spawn {
    const char *path;  /* of the program */
    char *const *argv; /* NULL = the path alone; borrowed */
    int control_fd;    /* becomes CONTROL_FD in the child; borrowed */
    int stdout_fd;     /* becomes 1; -1 = the same as 2; borrowed */
};

/* Start it.  *pid, and *pidfd (owned by the caller, close-on-exec).  ERR_SYS.
 *
 * The child has descriptors 0 (/dev/null), 1, 2 (llmd's own, so it goes on logging when llmd is dead)
 * and CONTROL_FD, no other; default signal actions, an empty signal mask, a process group of its own
 * (Ctrl-C on the terminal reaches llmd alone), and the environment without what systemd meant for
 * llmd. */
bool spawn_start(const struct spawn *s, pid_t *pid, int *pidfd, struct err *e);

/* Where llmd itself was started from; asked at the start, since a program that is replaced later loses its
 * name. */
bool spawn_find_self(char *out, size_t n, struct err *e);

/* Path of a program in llmd's own folder: "<folder of /proc/self/exe>/<name>". */
bool spawn_find(const char *name, char *out, size_t n, struct err *e);

#endif
