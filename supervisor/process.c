/* process.c - the state machine of one child.
 *
 *             START              READY             STOP (from STARTING too)
 *    DOWN ------------> STARTING ------> READY ----------> DRAINING
 *     ^  ^                  | EXIT         | EXIT              | EXIT
 *     |  | STOP             v              v                   |
 *     |  +-------------- BACKOFF <---------+                   |
 *     |                     | START: STARTING again            |
 *     +--------------------------------------------------------+
 * TIMER in STARTING or DRAINING: too slow, kill it and wait for EXIT.  KILL wherever it runs: SIGKILL, and
 * EXIT leads to BACKOFF.  STOP while DRAINING: kill it.  An empty cell is late news, and is dropped. */
#include "supervisor/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/llmd.h"
#include "supervisor/team.h"

/* How long past the drain deadline a child may take to write its last bytes. */
#define DRAIN_GRACE_NS (2 * NS_PER_S)

static struct board_slot *slot_of(const struct process *p)
{
    return board_slot(&p->team->llmd->segments.board, p->slot);
}

static int on_exit_ready(sd_event_source *s, int fd, uint32_t revents, void *arg);
static int on_control_ready(sd_event_source *s, int fd, uint32_t revents, void *arg);
static int on_timer(sd_event_source *s, uint64_t usec, void *arg);

static void arm(struct process *p, uint64_t after_ns)
{
    uint64_t at_us = (clock_mono_ns() + after_ns) / 1000;

    p->timer = sd_event_source_disable_unref(p->timer);
    sd_event_add_time(p->team->llmd->event, &p->timer, CLOCK_MONOTONIC, at_us, 1000, on_timer, p);
}

static void disarm(struct process *p)
{
    p->timer = sd_event_source_disable_unref(p->timer);
}

static void forget_child(struct process *p)
{
    disarm(p);
    p->on_exit = sd_event_source_disable_unref(p->on_exit);
    p->on_control = sd_event_source_disable_unref(p->on_control);
    spawn_close(&p->child);
    p->child.pid = 0;
}

/* ---- actions of the table ---- */

static void act_start(struct process *p)
{
    struct llmd *l = p->team->llmd;
    struct board_slot *slot = slot_of(p);
    struct err e = { 0 };

    p->fatal[0] = '\0';
    p->asked_to_end = false;
    if (!spawn_child(&p->child, p->team->program, NULL, -1, &e)) {
        snprintf(p->last_exit, sizeof p->last_exit, "not started: %s", e.msg);
        log_error("process=\"%s\" event=start_failed cause=\"%s\"", p->name, e.msg);
        team_process_ended(p->team, p); /* as if it had died at once */
        return;
    }
    stat_add(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->stats, STAT_process_starts, 1);
    atomic_store(&slot->pid, (uint32_t)p->child.pid);
    atomic_store(&slot->epoch, p->team->epoch);
    atomic_store(&slot->started_ns, clock_mono_ns());
    atomic_store(&slot->step_started_ns, 0);
    sd_event_add_io(l->event, &p->on_exit, p->child.pidfd, EPOLLIN, on_exit_ready, p);
    sd_event_add_io(l->event, &p->on_control, p->child.control, EPOLLIN, on_control_ready, p);
    /* Last words first: what the child said before its end is read before the end is. */
    sd_event_source_set_priority(p->on_exit, SD_EVENT_PRIORITY_NORMAL + 10);
    arm(p, l->config.start_timeout_s * NS_PER_S);
    team_boot(p->team, p);
}

static void act_ready(struct process *p)
{
    disarm(p);
    team_process_ready(p->team, p);
}

static void act_ended(struct process *p)
{
    team_process_ended(p->team, p);
}

static void act_kill(struct process *p)
{
    p->asked_to_end = true;
    kill(p->child.pid, SIGKILL);
}

static void act_too_slow(struct process *p)
{
    log_warning("process=\"%s\" pid=%d event=too_slow state=%s, killing it", p->name,
                (int)p->child.pid, process_state_name(p->state));
    if (p->state == PROCESS_STARTING)
        snprintf(p->fatal, sizeof p->fatal, "not ready within %llu s",
                 (unsigned long long)p->team->llmd->config.start_timeout_s);
    kill(p->child.pid, SIGKILL);
}

static void act_drain(struct process *p)
{
    uint64_t left_ns = p->team->llmd->config.drain_timeout_s * NS_PER_S;
    Llmd__Drain drain = LLMD__DRAIN__INIT;

    p->asked_to_end = true;
    drain.deadline_ns = clock_mono_ns() + left_ns;
    process_send(p, MSG_DRAIN, &drain);
    arm(p, left_ns + DRAIN_GRACE_NS);
}

static void act_stopped(struct process *p)
{
    disarm(p);
    team_process_stopped(p->team, p);
}

struct process_edge_to {
    enum process_state to;
    void (*act)(struct process *p);
};

static const struct process_edge_to edges[N_PROCESS_STATES][N_PROCESS_EVENTS] = {
    [PROCESS_DOWN] = { [PROCESS_EV_START] = { PROCESS_STARTING, act_start } },
    [PROCESS_STARTING] = { [PROCESS_EV_READY] = { PROCESS_READY, act_ready },
                           [PROCESS_EV_EXIT] = { PROCESS_BACKOFF, act_ended },
                           [PROCESS_EV_TIMER] = { PROCESS_STARTING, act_too_slow },
                           [PROCESS_EV_STOP] = { PROCESS_DRAINING, act_drain },
                           [PROCESS_EV_KILL] = { PROCESS_STARTING, act_kill } },
    [PROCESS_READY] = { [PROCESS_EV_EXIT] = { PROCESS_BACKOFF, act_ended },
                        [PROCESS_EV_STOP] = { PROCESS_DRAINING, act_drain },
                        [PROCESS_EV_KILL] = { PROCESS_READY, act_kill } },
    [PROCESS_DRAINING] = { [PROCESS_EV_EXIT] = { PROCESS_DOWN, act_stopped },
                           [PROCESS_EV_TIMER] = { PROCESS_DRAINING, act_too_slow },
                           [PROCESS_EV_STOP] = { PROCESS_DRAINING, act_kill },
                           [PROCESS_EV_KILL] = { PROCESS_DRAINING, act_kill } },
    [PROCESS_BACKOFF] = { [PROCESS_EV_START] = { PROCESS_STARTING, act_start },
                          [PROCESS_EV_STOP] = { PROCESS_DOWN, act_stopped } },
};

enum process_state process_edge(enum process_state from, enum process_event ev)
{
    return edges[from][ev].act ? edges[from][ev].to : N_PROCESS_STATES;
}

void process_handle(struct process *p, enum process_event ev)
{
    const struct process_edge_to *edge = &edges[p->state][ev];

    if (!edge->act)
        return;
    if (edge->to != p->state)
        log_info("process=\"%s\" pid=%d from=%s to=%s event=%s", p->name, (int)p->child.pid,
                 process_state_name(p->state), process_state_name(edge->to),
                 process_event_name(ev));
    p->state = edge->to;
    atomic_store(&slot_of(p)->state, (uint32_t)p->state);
    edge->act(p);
}

/* ---- what happens to a child ---- */

static void note_end(struct process *p, int exit_code, const char *how)
{
    struct llmd *l = p->team->llmd;

    snprintf(p->last_exit, sizeof p->last_exit, "%s%s%s", how, p->fatal[0] ? ": " : "", p->fatal);
    atomic_store(&slot_of(p)->pid, 0);
    if (p->asked_to_end || p->state == PROCESS_DRAINING) {
        log_info("process=\"%s\" event=ended how=\"%s\"", p->name, p->last_exit);
        return;
    }
    stat_add(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->stats, STAT_process_deaths, 1);
    (void)exit_code;
    log_error("process=\"%s\" event=died how=\"%s\"", p->name, p->last_exit);
}

static int on_exit_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct process *p = arg;
    int exit_code;
    char how[80];

    (void)s, (void)fd, (void)revents;
    spawn_reap(&p->child, how, sizeof how, &exit_code);
    note_end(p, exit_code, how);
    forget_child(p);
    process_handle(p, PROCESS_EV_EXIT);
    return 0;
}

static void handle_message(struct process *p, const struct control_msg *m)
{
    switch (m->type) {
    case MSG_READY:
        if (((const Llmd__Ready *)m->body)->epoch == p->team->epoch)
            process_handle(p, PROCESS_EV_READY);
        break;
    case MSG_WEIGHTS_READY:
        team_weights_ready(p->team, p);
        break;
    case MSG_FATAL:
        snprintf(p->fatal, sizeof p->fatal, "%s", ((const Llmd__Fatal *)m->body)->message);
        break;
    default:
        log_warning("process=\"%s\" event=unexpected_message type=%s, ignoring", p->name,
                    msg_name(m->type));
    }
}

static int on_control_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct process *p = arg;
    struct control_msg m;
    struct err e = { 0 };

    (void)revents;
    for (;;) {
        switch (control_recv(fd, &m, &e)) {
        case CONTROL_OK:
            handle_message(p, &m);
            control_msg_fini(&m);
            if (p->on_control != s)
                return 0;
            continue;
        case CONTROL_EMPTY:
            return 0;
        case CONTROL_FAILED:
            log_warning("process=\"%s\" event=bad_message cause=\"%s\", ignoring", p->name, e.msg);
            return 0;
        case CONTROL_CLOSED: /* its exit follows */
            p->on_control = sd_event_source_disable_unref(p->on_control);
            return 0;
        }
    }
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    (void)s, (void)usec;
    process_handle(arg, PROCESS_EV_TIMER);
    return 0;
}

void process_send(struct process *p, enum msg_type type, const void *message)
{
    struct err e = { 0 };

    if (p->child.pid && !control_send(p->child.control, type, message, NULL, 0, &e))
        log_warning("process=\"%s\" event=send_failed cause=\"%s\", ignoring", p->name, e.msg);
}

void process_init(struct process *p, struct team *team, const char *name, uint32_t slot,
                  uint32_t rank)
{
    *p = (struct process){
        .team = team, .slot = slot, .rank = rank, .child = { .pidfd = -1, .control = -1 }
    };
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(slot_of(p)->name, sizeof slot_of(p)->name, "%s", name);
}

void process_fini(struct process *p)
{
    if (p->team)
        forget_child(p);
}

const char *process_event_name(enum process_event ev)
{
    static const char *const names[N_PROCESS_EVENTS] = { "start", "ready", "exit",
                                                         "timer", "stop",  "kill" };
    return names[ev];
}
