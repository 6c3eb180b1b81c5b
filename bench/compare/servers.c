#include "bench/compare/servers.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "tests/proc/http_client.h"

enum { STOP_S = 20 };

/* One that is free now. */
static int free_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = 0;

    if (fd >= 0 && bind(fd, (struct sockaddr *)&at, n) == 0 &&
        getsockname(fd, (struct sockaddr *)&at, &n) == 0)
        port = ntohs(at.sin_port);
    if (fd >= 0)
        close(fd);
    return port;
}

/* The folder of this program. */
static void own_folder(char *out, size_t n)
{
    ssize_t k = readlink("/proc/self/exe", out, n - 1);
    char *slash;

    out[k > 0 ? k : 0] = '\0';
    slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
}

static void expand(struct buf *out, const char *command, const char *const names[],
                   const char *const values[], size_t n)
{
    while (*command) {
        size_t i = 0;
        while (i < n && strncmp(command, names[i], strlen(names[i])) != 0)
            i++;
        if (i < n) {
            buf_add_str(out, values[i]);
            command += strlen(names[i]);
        } else {
            buf_add_char(out, *command++);
        }
    }
}

static void build_command(struct buf *out, const char *command, const char *model,
                          const struct server *s, uint32_t n_threads)
{
    static const char *const names[] = { "{model}", "{port}", "{threads}", "{bin}", "{dir}" };
    char port_text[16], threads_text[16], folder[4096];
    const char *values[] = { model, port_text, threads_text, folder, s->dir };

    snprintf(port_text, sizeof port_text, "%d", s->port);
    snprintf(threads_text, sizeof threads_text, "%u", n_threads);
    own_folder(folder, sizeof folder);
    expand(out, command, names, values, sizeof names / sizeof *names);
}

static _Noreturn void child_main(const char *command)
{
    int null = open("/dev/null", O_RDWR);

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static bool wait_until_ready(struct server *s, uint32_t timeout_s, struct err *e)
{
    uint64_t deadline = clock_mono_ns() + timeout_s * NS_PER_S;
    const struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };

    while (clock_mono_ns() < deadline) {
        struct buf body = { 0 };
        int status = http_ask(s->port, "/health", NULL, &body);
        buf_fini(&body);
        if (status == 200)
            return true;
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            s->pid = 0;
            return err_set(e, ERR_CONFIG, 0, "the server ended before it was ready");
        }
        nanosleep(&pause, NULL);
    }
    return err_set(e, ERR_TIMEOUT, 0, "the server is not ready after %u s", timeout_s);
}

bool server_start(struct server *s, const char *command, const char *model, uint32_t n_threads,
                  uint32_t timeout_s, struct err *e)
{
    struct buf line = { 0 };

    *s = (struct server){ .port = free_port(), .dir = "/tmp/llmd-bench-XXXXXX" };
    if (!mkdtemp(s->dir))
        return err_set(e, ERR_SYS, errno, "make a folder '%s'", s->dir);
    build_command(&line, command, model, s, n_threads);
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0)
        child_main(line.data);
    buf_fini(&line);
    if (s->pid < 0) {
        s->pid = 0;
        server_stop(s);
        return err_set(e, ERR_SYS, errno, "fork");
    }
    setpgid(s->pid, s->pid); /* whichever of the two is first */
    if (!wait_until_ready(s, timeout_s, e)) {
        server_stop(s);
        return false;
    }
    return true;
}

/* It is flat: a runtime directory has sockets and files only. */
static void remove_folder(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;

    while (d && (entry = readdir(d)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    if (d)
        closedir(d);
    rmdir(path);
}

void server_stop(struct server *s)
{
    uint64_t deadline = clock_mono_ns() + STOP_S * NS_PER_S;
    const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };

    if (s->pid) {
        kill(-s->pid, SIGTERM);
        while (waitpid(s->pid, NULL, WNOHANG) == 0 && clock_mono_ns() < deadline)
            nanosleep(&pause, NULL);
        kill(-s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
        s->pid = 0;
    }
    if (s->dir[0])
        remove_folder(s->dir);
    s->dir[0] = '\0';
}
