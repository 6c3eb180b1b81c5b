/* launch.c - fork, put the descriptors where the protocol wants them, exec.
 *
 * fork and not posix_spawn: LISTEN_PID must be the pid of the new process, which only itself knows in
 * time.  llm-init is small, so the copy is cheap; and it has one thread, so the copy may do what it likes.
 *
 * SIGTERM, SIGINT and SIGHUP are blocked when the program starts.  llmd blocks them itself to take them
 * from its loop; this way one that is sent before it came so far waits for it instead of ending it. */
#include "supervisor/init/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"

enum { FIRST_FD = 3 };

/* Descriptor i becomes FIRST_FD + i.  Who is in the way moves past the last place; the old number is closed at
 * once, so that this needs few more numbers than there are descriptors. */
static bool place_fds(const struct fd_store *s)
{
    int n = (int)s->n, past = FIRST_FD + n;
    int *from = mem_zalloc(s->n + 1, sizeof *from);       /* where descriptor i is now */
    int *who = mem_zalloc((size_t)past + 1, sizeof *who); /* 1 + the descriptor at a number */

    for (int i = 0; i < n; i++) {
        from[i] = s->fds[i].fd;
        if (from[i] < past)
            who[from[i]] = 1 + i;
    }
    for (int i = 0; i < n; i++) {
        int place = FIRST_FD + i, other = who[place] - 1;
        if (other > i && (from[other] = fcntl(place, F_DUPFD_CLOEXEC, past)) < 0)
            return false;
        if (from[i] == place ? fcntl(place, F_SETFD, 0) < 0 : dup2(from[i], place) < 0)
            return false;
        if (from[i] != place) {
            close(from[i]);
            if (from[i] < past)
                who[from[i]] = 0;
        }
    }
    free(who);
    free(from);
    return true;
}

static void set_number(const char *name, uint64_t v)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    setenv(name, text, 1);
}

static void name_fds(const struct fd_store *s)
{
    char *names = mem_zalloc(s->names_bytes + 1, 1), *end = names;

    for (uint32_t i = 0; i < s->n; i++)
        end = stpcpy(stpcpy(end, i ? ":" : ""), s->fds[i].name);
    setenv("LISTEN_FDNAMES", names, 1);
    set_number("LISTEN_FDS", s->n);
    set_number("LISTEN_PID", (uint64_t)getpid());
    free(names);
}

static void set_environment(const struct launch *l)
{
    static const char *const ours[] = { "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
                                        "WATCHDOG_USEC", "WATCHDOG_PID" };

    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        unsetenv(ours[i]);
    setenv("NOTIFY_SOCKET", l->notify_address, 1);
    if (l->watchdog_us) {
        set_number("WATCHDOG_USEC", l->watchdog_us);
        set_number("WATCHDOG_PID", (uint64_t)getpid());
    }
    if (l->store->n > 0)
        name_fds(l->store);
}

static void set_signals(void)
{
    sigset_t held;

    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGHUP);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &held, NULL);
}

static void become(const struct launch *l) __attribute__((noreturn));

static void become(const struct launch *l)
{
    setpgid(0, 0); /* Ctrl-C comes to llm-init, which passes it on: once is enough */
    if (l->death_signal)
        prctl(PR_SET_PDEATHSIG, l->death_signal);
    set_environment(l);
    if (!place_fds(l->store))
        log_error("cannot hand over %u descriptors: %s", l->store->n, strerror(errno));
    else {
        set_signals();
        execv(l->path, l->argv);
        log_error("cannot start '%s': %s", l->path, strerror(errno));
    }
    _exit(127);
}

pid_t launch_start(const struct launch *l, struct err *e)
{
    pid_t pid = fork();

    if (pid == 0)
        become(l);
    if (pid < 0)
        err_set(e, ERR_SYS, errno, "start '%s'", l->path);
    return pid;
}

static bool is_program(const char *dir, size_t n_dir, const char *name, char *out, size_t n)
{
    return (size_t)snprintf(out, n, "%.*s/%s", (int)n_dir, dir, name) < n && access(out, X_OK) == 0;
}

bool launch_find(const char *name, char *out, size_t n, struct err *e)
{
    const char *path = getenv("PATH");
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    if (strchr(name, '/')) {
        snprintf(out, n, "%s", name);
        return access(name, X_OK) == 0 || err_set(e, ERR_SYS, errno, "program '%s'", name);
    }
    if (length > 0) {
        self[length] = '\0';
        if (is_program(self, (size_t)(strrchr(self, '/') - self), name, out, n))
            return true;
    }
    for (const char *dir = path; dir; dir = strchr(dir, ':') ? strchr(dir, ':') + 1 : NULL)
        if (is_program(dir, strcspn(dir, ":"), name, out, n))
            return true;
    return err_set(e, ERR_SYS, ENOENT, "program '%s'", name);
}
