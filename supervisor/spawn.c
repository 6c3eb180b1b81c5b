/* spawn.c - posix_spawn with a control socketpair and a pidfd. */
#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/control.h"

extern char **environ;

static bool sibling_path(char *out, size_t n, const char *program, struct err *e)
{
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash;

    if (len < 0)
        return err_set(e, ERR_SYS, errno, "read /proc/self/exe");
    self[len] = '\0';
    slash = strrchr(self, '/');
    if (snprintf(out, n, "%.*s/%s", (int)(slash - self), self, program) >= (int)n)
        return err_set(e, ERR_CONFIG, 0, "the path of '%s' is too long", program);
    return true;
}

/* Attributes every child shares: default signals, none blocked, own process group. */
static void set_attributes(posix_spawnattr_t *attr)
{
    sigset_t all, none;

    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_init(attr);
    posix_spawnattr_setsigdefault(attr, &all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setpgroup(attr, 0);
    posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                       POSIX_SPAWN_SETPGROUP);
}

static int run(pid_t *pid, const char *path, const char *argument, int control, int stdout_fd)
{
    char *argv[] = { (char *)(uintptr_t)path, (char *)(uintptr_t)argument, NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int failed;

    set_attributes(&attr);
    posix_spawn_file_actions_init(&files);
    if (stdout_fd >= 0)
        posix_spawn_file_actions_adddup2(&files, stdout_fd, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, control, CONTROL_FD);
    failed = posix_spawn(pid, path, &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return failed;
}

bool spawn_child(struct child *c, const char *program, const char *argument, int stdout_fd,
                 struct err *e)
{
    int pair[2], failed;
    char path[4200];
    pid_t pid;

    if (!sibling_path(path, sizeof path, program, e))
        return false;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(e, ERR_SYS, errno, "make a control socketpair");
    failed = run(&pid, path, argument, pair[1], stdout_fd);
    close(pair[1]);
    if (failed) {
        close(pair[0]);
        return err_set(e, ERR_SYS, failed, "start '%s'", path);
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    *c = (struct child){ .pid = pid,
                         .pidfd = (int)syscall(SYS_pidfd_open, pid, 0),
                         .control = pair[0] };
    if (c->pidfd < 0) {
        err_set(e, ERR_SYS, errno, "open a pidfd of %s", program);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(pair[0]);
        return false;
    }
    return true;
}

void spawn_reap(const struct child *c, char *how, size_t n, int *exit_code)
{
    siginfo_t info = { 0 };

    *exit_code = -1;
    if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0) {
        snprintf(how, n, "unknown end");
    } else if (info.si_code == CLD_EXITED) {
        *exit_code = info.si_status;
        snprintf(how, n, "exit code %d", info.si_status);
    } else {
        snprintf(how, n, "signal %d (%s%s)", info.si_status, strsignal(info.si_status),
                 info.si_code == CLD_DUMPED ? ", core dumped" : "");
    }
}

void spawn_close(struct child *c)
{
    if (c->pidfd >= 0)
        close(c->pidfd);
    if (c->control >= 0)
        close(c->control);
    *c = (struct child){ .pidfd = -1, .control = -1 };
}
