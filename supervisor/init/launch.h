/* launch.h - start llmd with everything that is kept for it. */
#ifndef LLMD_SUPERVISOR_INIT_LAUNCH_H
#define LLMD_SUPERVISOR_INIT_LAUNCH_H

#include <sys/types.h>

#include "common/err.h"
#include "supervisor/init/fd_store.h"

struct launch {
    const char *path; /* of the program */
    char *const *argv;
    const struct fd_store *store; /* becomes LISTEN_FDS, in any order */
    const char *notify_address;   /* becomes NOTIFY_SOCKET */
    uint64_t watchdog_us;         /* becomes WATCHDOG_USEC; 0 = none */
    int death_signal;             /* what it gets when its parent dies; 0 = nothing */
};

/* The pid of the new process; -1: none runs, and *e says why.  A program that cannot be executed is
 * logged, and ends with exit code 127. */
pid_t launch_start(const struct launch *l, struct err *e);

/* Where the program `name` lies: beside our own, or else in PATH.  ERR_SYS: nowhere. */
bool launch_find(const char *name, char *out, size_t n, struct err *e);

#endif
