/* former.c - DRAIN, wait for pidfds, SIGKILL when the time is up.  DRAIN is the same in all versions: the
 * frame says its own (proto/frame.h), and a child that does not understand it is killed in the end. */
#include "supervisor/former.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/control.h"
#include "supervisor/pidfd.h"

#define GRACE_NS           (3 * NS_PER_S) /* at the deadline they say so to their clients */
#define WORKERS_TIMEOUT_NS (5 * NS_PER_S)

static bool is_gateway(const struct former_process *p)
{
    return p == &p->former->by_slot[BOARD_SLOT_GATEWAY];
}

static void forget(const struct former_process *p, const char *what)
{
    const struct former *f = p->former;
    char name[FDSTORE_NAME_BYTES];

    snprintf(name, sizeof name, "%s%s%u", f->prefix, what, (unsigned)(p - f->by_slot));
    fdstore_remove(f->store, name);
}

static void close_process(struct former_process *p)
{
    if (p->control >= 0)
        forget(p, "ctl-");
    if (p->pidfd >= 0)
        forget(p, "pid-");
    p->exit_source = sd_event_source_disable_unref(p->exit_source);
    if (p->control >= 0)
        close(p->control);
    if (p->pidfd >= 0)
        close(p->pidfd);
    p->control = p->pidfd = -1;
}

static void ask_to_finish(struct former_process *p, uint64_t deadline_ns)
{
    Llmd__Drain drain = LLMD__DRAIN__INIT;
    struct err e = { 0 };

    drain.deadline_ns = deadline_ns;
    if (p->pidfd >= 0 &&
        (p->control < 0 || !control_send(p->control, MSG_DRAIN, &drain, NULL, 0, &e)))
        pidfd_signal(p->pidfd, SIGTERM);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
    struct former *f = arg;

    (void)source, (void)usec;
    log_warning("event=former_processes_killed n=%u", f->n_alive);
    for (uint32_t i = 0; i < f->n_slots; i++)
        if (f->by_slot[i].pidfd >= 0)
            pidfd_signal(f->by_slot[i].pidfd, SIGKILL);
    return 0;
}

/* The gateway if it lives, else the workers. */
static void ask_next(struct former *f)
{
    bool gateway_lives = f->by_slot[BOARD_SLOT_GATEWAY].pidfd >= 0;
    uint64_t timeout_ns = gateway_lives ? f->timeout_ns : WORKERS_TIMEOUT_NS;
    uint64_t deadline_ns = clock_mono_ns() + timeout_ns;

    for (uint32_t i = 0; i < f->n_slots; i++)
        if (is_gateway(&f->by_slot[i]) == gateway_lives)
            ask_to_finish(&f->by_slot[i], deadline_ns);
    sd_event_source_disable_unref(f->timer);
    f->timer = NULL;
    sd_event_add_time(f->event, &f->timer, CLOCK_MONOTONIC, (deadline_ns + GRACE_NS) / 1000, 0,
                      on_timer, f);
}

static int on_exit_seen(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct former_process *p = arg;
    struct former *f = p->former;
    bool was_gateway = is_gateway(p);
    void (*done)(void *) = f->done;
    void *done_arg = f->arg;

    (void)source, (void)fd, (void)revents;
    close_process(p);
    if (--f->n_alive == 0) {
        former_stop(f);
        done(done_arg);
    } else if (was_gateway) {
        ask_next(f);
    }
    return 0;
}

static void take_one(struct former *f, struct passed_fd *p)
{
    size_t n = strlen(f->prefix);
    const char *what = p->name + n;
    bool is_control = strncmp(what, "ctl-", 4) == 0;
    struct former_process *to;
    unsigned long slot;

    if (p->fd < 0 || strncmp(p->name, f->prefix, n) != 0 ||
        (!is_control && strncmp(what, "pid-", 4) != 0))
        return;
    slot = strtoul(what + 4, NULL, 10);
    if (slot >= f->n_slots)
        return;
    to = &f->by_slot[slot];
    if (is_control && to->control < 0)
        to->control = p->fd;
    else if (!is_control && to->pidfd < 0)
        to->pidfd = p->fd;
    else
        return;
    p->fd = -1;
}

static void watch(struct former *f, struct former_process *p)
{
    if (p->pidfd < 0)
        return;
    if (sd_event_add_io(f->event, &p->exit_source, p->pidfd, EPOLLIN, on_exit_seen, p) < 0) {
        pidfd_signal(p->pidfd, SIGKILL);
        close_process(p);
        return;
    }
    f->n_alive++;
}

bool former_start(struct former *f, const struct former_call *call)
{
    struct passed *from = call->from;

    *f = (struct former){ .n_slots = FORMER_SLOTS_MAX,
                          .event = call->event,
                          .prefix = call->prefix,
                          .store = call->store,
                          .timeout_ns = call->timeout_ns,
                          .done = call->done,
                          .arg = call->arg };
    f->by_slot = mem_zalloc(f->n_slots, sizeof *f->by_slot);
    for (uint32_t i = 0; i < f->n_slots; i++)
        f->by_slot[i] = (struct former_process){ .former = f, .control = -1, .pidfd = -1 };
    for (uint32_t i = 0; i < from->n; i++)
        take_one(f, &from->list[i]);
    for (uint32_t i = 0; i < f->n_slots; i++)
        watch(f, &f->by_slot[i]);
    if (f->n_alive == 0) {
        former_stop(f);
        return false;
    }
    log_info("event=former_processes n=%u, they finish first", f->n_alive);
    ask_next(f);
    return true;
}

void former_hasten(struct former *f)
{
    if (!f->by_slot)
        return;
    f->timeout_ns = 0;
    ask_next(f);
}

void former_stop(struct former *f)
{
    for (uint32_t i = 0; i < f->n_slots; i++) {
        if (f->by_slot[i].pidfd >= 0)
            pidfd_signal(f->by_slot[i].pidfd, SIGKILL);
        close_process(&f->by_slot[i]);
    }
    sd_event_source_disable_unref(f->timer);
    free(f->by_slot);
    *f = (struct former){ 0 };
}
