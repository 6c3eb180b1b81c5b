/* system.c - start, watch and stop a real llmd for the process tests. */
#include "tests/proc/system.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proto/control_client.h"
#include "tests/proc/http_client.h"

enum { ARGS_MAX = 40, START_TIMEOUT_MS = 120000, ASK_TIMEOUT_MS = 60000 };

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 },
              NULL);
}

static void put_log_path(const struct system *s, char out[96])
{
    snprintf(out, 96, "%s.log", s->dir);
}

static void show_log(const struct system *s)
{
    char path[96], line[512];
    FILE *f;

    put_log_path(s, path);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
}

static void run_llmd(const struct system *s, const char *const *args)
{
    char log[96];
    const char *argv[ARGS_MAX] = { TEST_BIN_DIR "/llm-init",
                                   TEST_BIN_DIR "/llmd",
                                   "--host",
                                   "127.0.0.1",
                                   "--port",
                                   "0",
                                   "--hang-step-ms",
                                   "100000",
                                   "--runtime-dir",
                                   s->dir };
    const char **program = s->has_init ? argv : argv + 1;
    int n = 10, fd;

    for (; args && *args; args++) {
        if (n == ARGS_MAX - 1)
            _exit(126);
        argv[n++] = *args;
    }
    put_log_path(s, log);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a test that fails leaves nothing running */
    execv(program[0], (char *const *)(uintptr_t)program);
    _exit(127);
}

static void start(struct system *s, bool has_init, const char *const *args)
{
    *s = (struct system){ .has_init = has_init };
    snprintf(s->dir, sizeof s->dir, "/tmp/llmd-test-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    s->pid = fork();
    if (s->pid == 0)
        run_llmd(s, args);
    assert_true(s->pid > 0);
    if (!system_wait_ready(s, START_TIMEOUT_MS)) {
        show_log(s);
        kill(s->pid, SIGKILL);
        fail_msg("llmd did not become ready");
    }
    Llmd__CtlReply *reply = system_ask(s, LLMD__CTL_COMMAND__CTL_STATUS);
    s->port = control_port_of(reply);
    assert_true(s->port > 0);
    frame_free_body(reply);
}

void system_start(struct system *s, const char *const *args)
{
    start(s, false, args);
}

void system_start_below_init(struct system *s, const char *const *args)
{
    start(s, true, args);
}

Llmd__CtlReply *system_ask(const struct system *s, Llmd__CtlCommand command)
{
    return control_ask(s->dir, command, ASK_TIMEOUT_MS);
}

bool system_wait(const struct system *s, bool (*is)(const Llmd__Status *, void *), void *arg,
                 int timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    bool holds = false;

    while (!holds && clock_mono_ns() < end_ns) {
        Llmd__CtlReply *reply = system_ask(s, LLMD__CTL_COMMAND__CTL_STATUS);
        holds = reply && reply->status && is(reply->status, arg);
        frame_free_body(reply);
        if (!holds)
            nap_ms(10);
    }
    return holds;
}

static bool is_ready(const Llmd__Status *status, void *arg)
{
    (void)arg;
    return strcmp(status->state, "ready") == 0;
}

bool system_wait_ready(const struct system *s, int timeout_ms)
{
    return system_wait(s, is_ready, NULL, timeout_ms);
}

pid_t system_pid_of(const struct system *s, const char *process)
{
    Llmd__CtlReply *reply = system_ask(s, LLMD__CTL_COMMAND__CTL_STATUS);
    pid_t pid = control_pid_of(reply, process);

    frame_free_body(reply);
    return pid;
}

int system_wait_exit(struct system *s, int timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    int status;

    do {
        if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
            s->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        }
        nap_ms(5);
    } while (clock_mono_ns() < end_ns);
    return -1000;
}

void system_forget(struct system *s)
{
    char log[96];

    put_log_path(s, log);
    unlink(log);
    rmdir(s->dir);
}

int system_stop(struct system *s)
{
    int code;

    kill(s->pid, SIGTERM);
    code = system_wait_exit(s, 60000);
    if (code != 0)
        show_log(s);
    system_forget(s);
    return code;
}

/* Adds one line of the metrics page to *sum when it is one of the series asked for. */
static void add_series(const char *line, const char *name, const char *label, double *sum)
{
    size_t n = strlen(name), len = strcspn(line, "\n");
    const char *value = memrchr(line, ' ', len), *found = strstr(line, label);

    if (strncmp(line, name, n) != 0 || (line[n] != ' ' && line[n] != '{') || !value)
        return;
    if (found && found < line + len)
        *sum = (*sum < 0 ? 0 : *sum) + strtod(value + 1, NULL);
}

double system_metric(const struct system *s, const char *name, const char *label)
{
    struct buf page = { 0 };
    double sum = -1;

    if (http_ask(s->port, "/metrics", NULL, &page) == 200)
        for (const char *at = page.data; at && *at; at = strchr(at, '\n'))
            add_series(at += *at == '\n', name, label, &sum);
    buf_fini(&page);
    return sum;
}
