/* spawn.c - posix_spawn with everything a child must, and must not, inherit.
 *
 * posix_spawn and not fork: it shares llmd's memory until exec, so starting costs the same however much
 * llmd has mapped.  The pidfd is opened right after: llmd is one thread and has not reaped in between,
 * so the number still means our child, even if it is dead by then.
 *
 * Close-on-exec is the rule for every descriptor of llmd; the four a child keeps are named here.  There
 * is no PR_SET_PDEATHSIG: children outlive llmd. */
#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/mem.h"
#include "proto/control.h"

static bool is_for_llmd_only(const char *variable)
{
    static const char *const names[] = { "NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=",
                                         "LISTEN_FDS=",    "LISTEN_PID=",    "LISTEN_FDNAMES=" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Returned array: caller frees; its strings are borrowed from environ. */
static char **child_environment(void)
{
    char **out;
    size_t n = 0, kept = 0;

    while (environ && environ[n])
        n++;
    out = mem_zalloc(n + 1, sizeof *out);
    for (size_t i = 0; i < n; i++)
        if (!is_for_llmd_only(environ[i]))
            out[kept++] = environ[i];
    return out;
}

static int set_attributes(posix_spawnattr_t *attr)
{
    sigset_t all, none;

    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(attr, &all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setpgroup(attr, 0);
    return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETPGROUP);
}

/* In this order: 1 first, because stdout_fd may be the number CONTROL_FD here. */
static int set_descriptors(posix_spawn_file_actions_t *actions, const struct spawn *s)
{
    int r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, s->stdout_fd >= 0 ? s->stdout_fd : 2, 1);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, s->control_fd, CONTROL_FD);
    return r;
}

bool spawn_start(const struct spawn *s, pid_t *pid, int *pidfd, struct err *e)
{
    char *const alone[] = { (char *)(uintptr_t)s->path, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    char **environment = child_environment();
    int r;

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    r = set_attributes(&attr);
    if (r == 0)
        r = set_descriptors(&actions, s);
    if (r == 0)
        r = posix_spawn(pid, s->path, &actions, &attr, s->argv ? s->argv : alone, environment);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    if (r != 0)
        return err_set(e, ERR_SYS, r, "start '%s'", s->path);
    *pidfd = (int)syscall(SYS_pidfd_open, *pid, 0);
    if (*pidfd < 0) {
        err_set(e, ERR_SYS, errno, "watch process %d", (int)*pid);
        kill(*pid, SIGKILL); /* not reaped yet, so still ours */
        return false;
    }
    return true;
}

bool spawn_find_self(char *out, size_t n, struct err *e)
{
    static const char deleted[] = " (deleted)";
    ssize_t len = readlink("/proc/self/exe", out, n - 1);
    char *mark;

    if (len < 0)
        return err_set(e, ERR_SYS, errno, "read /proc/self/exe");
    out[len] = '\0';
    mark = strrchr(out, ' ');
    if (mark && strcmp(mark, deleted) == 0)
        *mark = '\0'; /* another was installed in this moment; that one is meant */
    return true;
}

bool spawn_find(const char *name, char *out, size_t n, struct err *e)
{
    char self[PATH_MAX];

    if (!spawn_find_self(self, sizeof self, e))
        return false;
    *strrchr(self, '/') = '\0';
    if ((size_t)snprintf(out, n, "%s/%s", self, name) >= n)
        return err_set(e, ERR_CONFIG, 0, "the path of '%s' is too long", name);
    if (access(out, X_OK) < 0)
        return err_set(e, ERR_SYS, errno, "program '%s'", out);
    return true;
}
