/* wait.c - `llmctl wait`: until the server is ready, telling what it waits for.
 *
 * It asks llmd every 50 ms: STATUS costs llmd microseconds, and readiness is then known at once.  An llmd
 * that is not there yet is waited for; with --pid the end of that process ends the wait too. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "llmctl/command.h"
#include "llmctl/terminal.h"

enum { POLL_MS = 50, TIMEOUT_S = 600, RESTARTS_HOPELESS = 3 };

struct wait_options {
    struct globals globals;
    uint64_t timeout_s;
    pid_t pid; /* of llmd; 0 = not known */
    bool quiet;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct wait_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 't':
        o->timeout_s = command_number(state, "--timeout", arg, 0, 86400);
        return 0;
    case 'p':
        o->pid = (pid_t)command_number(state, "--pid", arg, 1, INT32_MAX);
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Progress on stderr: one line that changes on a terminal, a line per change elsewhere. */
struct progress {
    bool quiet, is_terminal;
    char last[256];
};

static void progress_show(struct progress *p, const char *text)
{
    if (p->quiet || strcmp(p->last, text) == 0)
        return;
    snprintf(p->last, sizeof p->last, "%s", text);
    if (p->is_terminal)
        fprintf(stderr, "\r\033[K%s", text);
    else
        fprintf(stderr, "%s\n", text);
}

static void progress_end(struct progress *p)
{
    if (!p->quiet && p->is_terminal && p->last[0])
        fputs("\r\033[K", stderr);
    p->last[0] = '\0';
}

/* "llmd is starting: gateway ready, worker 0.0 starting". */
static void describe(const Llmd__Status *s, struct buf *out)
{
    const char *before = ": ";

    buf_printf(out, "llmd is %s", s->state);
    for (size_t i = 0; i < s->n_processes; i++) {
        if (strcmp(s->processes[i]->name, "llmd") == 0)
            continue;
        buf_printf(out, "%s%s %s", before, s->processes[i]->name, s->processes[i]->state);
        before = ", ";
    }
}

/* The process that dies again and again, or NULL. */
static const Llmd__ProcessStatus *find_hopeless(const Llmd__Status *s)
{
    for (size_t i = 0; i < s->n_processes; i++) {
        const Llmd__ProcessStatus *p = s->processes[i];
        if (strcmp(p->state, "backoff") == 0 && p->restarts >= RESTARTS_HOPELESS)
            return p;
    }
    return NULL;
}

static const char *last_exit_of_any(const Llmd__Status *s)
{
    for (size_t i = 0; i < s->n_processes; i++)
        if (s->processes[i]->last_exit[0])
            return s->processes[i]->last_exit;
    return "";
}

enum verdict { NOT_YET, READY, FAILED };

static enum verdict judge(const Llmd__Status *s, struct progress *p, struct err *e)
{
    const Llmd__ProcessStatus *hopeless = find_hopeless(s);
    struct buf text = { 0 };

    if (strcmp(s->state, "ready") == 0)
        return READY;
    if (strcmp(s->state, "down") == 0 || strcmp(s->state, "draining") == 0) {
        const char *why = last_exit_of_any(s);
        err_set(e, ERR_CONFIG, 0, "llmd is %s%s%s", s->state, why[0] ? ": " : "", why);
        return FAILED;
    }
    if (hopeless) {
        err_set(e, ERR_CONFIG, 0, "%s died %u times: %s", hopeless->name, hopeless->restarts,
                hopeless->last_exit);
        return FAILED;
    }
    describe(s, &text);
    progress_show(p, text.data);
    buf_fini(&text);
    return NOT_YET;
}

static enum verdict ask(const struct client *c, struct progress *p, struct err *e)
{
    enum verdict verdict = NOT_YET;
    struct control_msg reply;

    if (client_ask_status(c, &reply, e) != CLIENT_OK) {
        progress_show(p, "waiting for llmd to start");
        return NOT_YET;
    }
    if (command_reply(&reply)->status)
        verdict = judge(command_reply(&reply)->status, p, e);
    control_msg_fini(&reply);
    return verdict;
}

/* Sleep until the next question.  False when that process has ended. */
static bool pause_while_alive(int pidfd)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };

    return poll(&p, 1, POLL_MS) <= 0;
}

static void set_ended(struct err *e, pid_t pid)
{
    err_set(e, ERR_CONFIG, 0, "llmd (process %d) has ended", (int)pid);
}

static int wait_until_ready(const struct wait_options *o, const struct client *c, int pidfd,
                            struct err *e)
{
    struct progress p = { .quiet = o->quiet, .is_terminal = isatty(STDERR_FILENO) };
    uint64_t start = clock_mono_ns();
    int code = WAIT_EXIT_TIMEOUT;

    for (;;) {
        enum verdict verdict = ask(c, &p, e);
        if (verdict != NOT_YET) {
            code = verdict == READY ? WAIT_EXIT_READY : WAIT_EXIT_FAILED;
            break;
        }
        if (clock_mono_ns() - start >= o->timeout_s * NS_PER_S) {
            err_set(e, ERR_TIMEOUT, 0, "not ready after %llu s: %s",
                    (unsigned long long)o->timeout_s, p.last);
            break;
        }
        if (!pause_while_alive(pidfd)) {
            set_ended(e, o->pid);
            code = WAIT_EXIT_FAILED;
            break;
        }
    }
    progress_end(&p);
    if (code == WAIT_EXIT_READY && !o->quiet)
        fprintf(stderr, "llmd is ready after %.2f s\n", (double)(clock_mono_ns() - start) / 1e9);
    return code;
}

static const struct argp_option wait_option_list[] = {
    { "timeout", 't', "S", 0, "Give up after S seconds (default 600)", 0 },
    { "pid", 'p', "PID", 0, "Give up when this process, an llmd, ends", 0 },
    { "quiet", 'q', 0, 0, "Show no progress", 0 },
    { 0 },
};
const struct argp wait_argp = {
    .options = wait_option_list,
    .parser = parse,
    .doc = "Wait until the server is ready, and show what it waits for."
           "\vExit codes: 0 ready; 1 it failed (the reason is on stderr); 2 timeout.",
    .children = global_options,
};

int wait_command(int argc, char **argv, struct globals g)
{
    struct wait_options o = { .globals = g, .timeout_s = TIMEOUT_S };
    struct client c;
    int pidfd = -1, code;
    struct err e;

    command_parse(&wait_argp, argc, argv, &o);
    if (!client_find(&c, o.globals.runtime_dir, &e)) {
        command_complain(&e);
        return WAIT_EXIT_FAILED;
    }
    if (o.pid && (pidfd = (int)syscall(SYS_pidfd_open, o.pid, 0)) < 0) {
        if (errno == ESRCH)
            set_ended(&e, o.pid);
        else
            err_set(&e, ERR_SYS, errno, "watch process %d", (int)o.pid);
        command_complain(&e);
        return WAIT_EXIT_FAILED;
    }
    code = wait_until_ready(&o, &c, pidfd, &e);
    if (code != WAIT_EXIT_READY)
        command_complain(&e);
    if (pidfd >= 0)
        close(pidfd);
    return code;
}
