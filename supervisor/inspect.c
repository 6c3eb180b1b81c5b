/* inspect.c - one short run of the worker; its answer comes over a pipe, its complaints over control.
 *
 * It is over when the program has exited: by then all it wrote is in the pipe.  A worker that cannot
 * read the model makes llmd give up, so nothing here is tried again. */
#include "supervisor/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

enum { PLAN_BYTES_MAX = 64 << 10 };

static void read_answer(struct inspect *in)
{
    char bytes[4096];
    ssize_t got = 0;

    while (in->answer.n <= PLAN_BYTES_MAX && (got = read(in->out, bytes, sizeof bytes)) > 0)
        buf_add(&in->answer, bytes, (size_t)got);
    if (got == 0 || in->answer.n > PLAN_BYTES_MAX) /* the end, or it babbles */
        in->on_out = sd_event_source_disable_unref(in->on_out);
}

static int on_out(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    (void)source, (void)fd, (void)revents;
    read_answer(arg);
    return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *arg)
{
    struct inspect *in = arg;

    (void)source, (void)usec;
    in->is_late = true;
    child_signal(&in->child, SIGKILL);
    return 0;
}

static void on_message(void *arg, struct control_msg *m)
{
    struct inspect *in = arg;

    if (m->type == MSG_FATAL)
        snprintf(in->words, sizeof in->words, "%s", ((const Llmd__Fatal *)m->body)->message);
}

/* NULL and *e when the frame is not a plan that segments can be made from. */
static Llmd__ModelPlan *unpack_plan(const struct buf *answer, struct err *e)
{
    Llmd__ModelPlan *plan;
    struct frame f;

    if (answer->n == 0) {
        err_set(e, ERR_PROTO, 0, "llm-worker --inspect said nothing");
        return NULL;
    }
    if (!frame_parse(&f, (const uint8_t *)answer->data, answer->n, e))
        return NULL;
    if (f.type != MSG_MODEL_PLAN) {
        err_set(e, ERR_PROTO, 0, "llm-worker --inspect answered %s", msg_name(f.type));
        return NULL;
    }
    plan = (Llmd__ModelPlan *)frame_unpack(&f, e);
    if (plan && (plan->max_model_len == 0 || plan->kv_pages == 0 || plan->kv_page_tokens == 0 ||
                 plan->kv_page_bytes == 0 || plan->weights_shard_bytes == 0)) {
        err_set(e, ERR_PROTO, 0, "llm-worker --inspect gave a plan with a size of 0");
        frame_free_body(plan);
        return NULL;
    }
    return plan;
}

static void on_exited(void *arg, const siginfo_t *info)
{
    struct inspect *in = arg;
    Llmd__ModelPlan *plan = NULL;
    struct err why = { 0 };

    read_answer(in);
    if (in->is_late)
        err_set(&why, ERR_TIMEOUT, 0, "reading the model took longer than start_timeout_s");
    else if (in->words[0])
        err_set(&why, ERR_MODEL, 0, "%s", in->words);
    else if (info->si_code != CLD_EXITED)
        err_set(&why, ERR_MODEL, 0, "llm-worker --inspect: signal %d (%s)", info->si_status,
                strsignal(info->si_status));
    else if (info->si_status != 0)
        err_set(&why, ERR_MODEL, 0, "llm-worker --inspect: exit code %d", info->si_status);
    else
        plan = unpack_plan(&in->answer, &why);
    inspect_stop(in);
    in->done(in->arg, plan, &why);
}

static const struct child_events events = { .message = on_message, .exited = on_exited };

static bool start(struct inspect *in, sd_event *event, const struct inspect_call *call,
                  int stdout_fd, struct err *e)
{
    struct spawn spawn = { .path = call->worker_path, .arg = "--inspect", .stdout_fd = stdout_fd };
    uint64_t late_us = (clock_mono_ns() + call->timeout_ns) / 1000;
    int r;

    if (!child_start(&in->child, event, &spawn, call->boot, NULL, 0, &events, in, e))
        return false;
    r = sd_event_add_io(event, &in->on_out, in->out, EPOLLIN, on_out, in);
    if (r >= 0)
        r = sd_event_add_time(event, &in->timer, CLOCK_MONOTONIC, late_us, 0, on_late, in);
    return r >= 0 || err_set(e, ERR_SYS, -r, "watch llm-worker --inspect");
}

bool inspect_start(struct inspect *in, sd_event *event, const struct inspect_call *call,
                   struct err *e)
{
    int ends[2];
    bool ok;

    *in = (struct inspect){ .done = call->done, .arg = call->arg, .out = -1 };
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(e, ERR_SYS, errno, "make a pipe");
    in->out = ends[0];
    fcntl(in->out, F_SETFL, O_NONBLOCK);
    ok = start(in, event, call, ends[1], e);
    close(ends[1]);
    if (!ok)
        inspect_stop(in);
    return ok;
}

void inspect_stop(struct inspect *in)
{
    if (!in->done)
        return;
    if (in->child.pid > 0) {
        child_signal(&in->child, SIGKILL);
        waitid(P_PIDFD, (id_t)in->child.pidfd, &(siginfo_t){ 0 }, WEXITED);
    }
    child_close(&in->child);
    in->on_out = sd_event_source_disable_unref(in->on_out);
    in->timer = sd_event_source_disable_unref(in->timer);
    if (in->out >= 0)
        close(in->out);
    in->out = -1;
    buf_fini(&in->answer);
}
