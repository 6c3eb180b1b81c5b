/* capture.c - a child with a pipe.  It is over when the program has exited: by then all it wrote is in the
 * pipe. */
#include "supervisor/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

enum { TEXT_BYTES_MAX = 64 << 10 };

static void read_text(struct capture *c)
{
    char bytes[4096];
    ssize_t got = 0;

    while (c->text.n <= TEXT_BYTES_MAX && (got = read(c->out, bytes, sizeof bytes)) > 0)
        buf_add(&c->text, bytes, (size_t)got);
    if (got == 0 || c->text.n > TEXT_BYTES_MAX) /* the end, or it babbles */
        c->on_out = sd_event_source_disable_unref(c->on_out);
}

static int on_out(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    (void)source, (void)fd, (void)revents;
    read_text(arg);
    return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *arg)
{
    struct capture *c = arg;

    (void)source, (void)usec;
    c->is_late = true;
    child_signal(&c->child, SIGKILL);
    return 0;
}

static void on_message(void *arg, struct control_msg *m)
{
    struct capture *c = arg;

    if (m->type == MSG_FATAL)
        snprintf(c->words, sizeof c->words, "%s", ((const Llmd__Fatal *)m->body)->message);
}

static void describe(const struct capture *c, const siginfo_t *info, struct err *why)
{
    if (c->is_late)
        err_set(why, ERR_TIMEOUT, 0, "%s took too long", c->name);
    else if (c->words[0])
        err_set(why, ERR_MODEL, 0, "%s", c->words);
    else if (info->si_code != CLD_EXITED)
        err_set(why, ERR_MODEL, 0, "%s: signal %d (%s)", c->name, info->si_status,
                strsignal(info->si_status));
    else if (info->si_status != 0)
        err_set(why, ERR_MODEL, 0, "%s: exit code %d", c->name, info->si_status);
}

static void on_exited(void *arg, const siginfo_t *info)
{
    struct capture *c = arg;
    capture_done_fn *done = c->done;
    void *done_arg = c->arg;
    struct err why = { 0 };
    struct buf text;

    read_text(c);
    describe(c, info, &why);
    text = c->text;
    c->text = (struct buf){ 0 };
    capture_stop(c);
    done(done_arg, &text, &why);
    buf_fini(&text);
}

static const struct child_events events = { .message = on_message, .exited = on_exited };

static bool start(struct capture *c, sd_event *event, const struct capture_call *call,
                  int stdout_fd, struct err *e)
{
    struct spawn spawn = { .path = call->path, .argv = call->argv, .stdout_fd = stdout_fd };
    Llmd__Boot empty = LLMD__BOOT__INIT;
    uint64_t late_us = (clock_mono_ns() + call->timeout_ns) / 1000;
    int r;

    if (!child_start(&c->child, event, &spawn, call->boot ? call->boot : &empty, NULL, 0, &events,
                     c, e))
        return false;
    r = sd_event_add_io(event, &c->on_out, c->out, EPOLLIN, on_out, c);
    if (r >= 0)
        r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, late_us, 0, on_late, c);
    return r >= 0 || err_set(e, ERR_SYS, -r, "watch %s", call->name);
}

bool capture_start(struct capture *c, sd_event *event, const struct capture_call *call,
                   struct err *e)
{
    int ends[2];
    bool ok;

    *c = (struct capture){ .done = call->done, .arg = call->arg, .name = call->name, .out = -1 };
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(e, ERR_SYS, errno, "make a pipe");
    c->out = ends[0];
    fcntl(c->out, F_SETFL, O_NONBLOCK);
    ok = start(c, event, call, ends[1], e);
    close(ends[1]);
    if (!ok)
        capture_stop(c);
    return ok;
}

void capture_stop(struct capture *c)
{
    if (c->done && c->child.pid > 0) {
        child_signal(&c->child, SIGKILL);
        waitid(P_PIDFD, (id_t)c->child.pidfd, &(siginfo_t){ 0 }, WEXITED);
    }
    capture_leave(c);
}

void capture_leave(struct capture *c)
{
    if (!c->done)
        return;
    if (c->child.pid > 0)
        child_signal(&c->child, SIGKILL); /* nothing, when it has been waited for */
    child_close(&c->child);
    sd_event_source_disable_unref(c->on_out);
    sd_event_source_disable_unref(c->timer);
    if (c->out >= 0)
        close(c->out);
    buf_fini(&c->text);
    *c = (struct capture){ .out = -1 };
}
