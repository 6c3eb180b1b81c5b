/* inspect.c - one short run of the worker; its answer comes over a pipe, its complaints over control. */
#include "supervisor/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "proto/control.h"
#include "supervisor/boot.h"

enum { PLAN_BYTES_MAX = 64 << 10 };

static void finish(struct inspect *in, Llmd__ModelPlan *plan, const struct err *why)
{
    in->child.pid = 0;
    inspect_stop(in);
    in->done(in->arg, plan, why);
}

static void read_answer(struct inspect *in)
{
    char bytes[4096];
    ssize_t got;

    while ((got = read(in->out, bytes, sizeof bytes)) > 0 && in->bytes.n <= PLAN_BYTES_MAX)
        buf_add(&in->bytes, bytes, (size_t)got);
    if (got == 0)
        in->on_out = sd_event_source_disable_unref(in->on_out);
}

static int on_out(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    (void)s, (void)fd, (void)revents;
    read_answer(arg);
    return 0;
}

static void read_complaints(struct inspect *in)
{
    struct control_msg m;
    enum control_result r;

    while ((r = control_recv(in->child.control, &m, NULL)) == CONTROL_OK) {
        if (m.type == MSG_FATAL)
            snprintf(in->fatal, sizeof in->fatal, "%s", ((const Llmd__Fatal *)m.body)->message);
        control_msg_fini(&m);
    }
    if (r != CONTROL_EMPTY)
        in->on_control = sd_event_source_disable_unref(in->on_control);
}

static int on_control(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    (void)s, (void)fd, (void)revents;
    read_complaints(arg);
    return 0;
}

static int on_exit_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct inspect *in = arg;
    Llmd__ModelPlan *plan = NULL;
    struct err why = { 0 };
    struct frame f;
    char how[80];
    int code;

    (void)s, (void)fd, (void)revents;
    spawn_reap(&in->child, how, sizeof how, &code);
    read_answer(in);
    read_complaints(in);
    if (code != 0)
        err_set(&why, ERR_MODEL, 0, "%s", in->fatal[0] ? in->fatal : how);
    else if (frame_parse(&f, (const uint8_t *)in->bytes.data, in->bytes.n, &why)) {
        if (f.type == MSG_MODEL_PLAN)
            plan = (Llmd__ModelPlan *)frame_unpack(&f, &why);
        else
            err_set(&why, ERR_PROTO, 0, "llm-worker --inspect answered %s", msg_name(f.type));
    }
    finish(in, plan, &why);
    return 0;
}

bool inspect_start(struct inspect *in, sd_event *event, const struct config *c,
                   void (*done)(void *arg, Llmd__ModelPlan *plan, const struct err *why), void *arg,
                   struct err *e)
{
    int pipe_fd[2];
    bool ok;

    *in = (struct inspect){
        .done = done, .arg = arg, .out = -1, .child = { .pidfd = -1, .control = -1 }
    };
    if (pipe2(pipe_fd, O_CLOEXEC) < 0)
        return err_set(e, ERR_SYS, errno, "make a pipe");
    ok = spawn_child(&in->child, "llm-worker", "--inspect", pipe_fd[1], e);
    close(pipe_fd[1]);
    in->out = pipe_fd[0];
    fcntl(in->out, F_SETFL, O_NONBLOCK);
    if (!ok || !boot_send_settings(in->child.control, c, e)) {
        inspect_stop(in);
        return false;
    }
    sd_event_add_io(event, &in->on_out, in->out, EPOLLIN, on_out, in);
    sd_event_add_io(event, &in->on_control, in->child.control, EPOLLIN, on_control, in);
    sd_event_add_io(event, &in->on_exit, in->child.pidfd, EPOLLIN, on_exit_ready, in);
    return true;
}

void inspect_stop(struct inspect *in)
{
    int code;
    char how[80];

    if (!in->done)
        return;
    if (in->child.pid > 0) {
        kill(in->child.pid, SIGKILL);
        spawn_reap(&in->child, how, sizeof how, &code);
        in->child.pid = 0;
    }
    in->on_out = sd_event_source_disable_unref(in->on_out);
    in->on_exit = sd_event_source_disable_unref(in->on_exit);
    in->on_control = sd_event_source_disable_unref(in->on_control);
    spawn_close(&in->child);
    if (in->out >= 0)
        close(in->out);
    in->out = -1;
    buf_fini(&in->bytes);
}
