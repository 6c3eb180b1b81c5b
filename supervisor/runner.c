/* runner.c - process_ops and team_ops over posix_spawn and sd-event.
 *
 * A team looks at its members from an event of its own, after all that the kernel reported in one turn
 * of the loop has been recorded: see team_look(). */
#include "supervisor/runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "supervisor/boot.h"
#include "supervisor/llmd.h"

/* ---- a member ---- */

static void on_message(void *arg, const struct control_msg *m)
{
    struct process *p = arg;

    switch (m->type) {
    case MSG_READY:
        if (((const Llmd__Ready *)m->body)->epoch == p->team->epoch)
            process_handle(p, PROCESS_EV_READY);
        else
            log_warning("process=\"%s\" event=ready epoch=%u, expected %u, ignoring", p->slot->name,
                        ((const Llmd__Ready *)m->body)->epoch, p->team->epoch);
        break;
    case MSG_WEIGHTS_READY:
        llmd_weights_ready(p->team->llmd, p);
        break;
    case MSG_FATAL:
        snprintf(p->words, sizeof p->words, "%s", ((const Llmd__Fatal *)m->body)->message);
        break;
    default:
        log_warning("process=\"%s\" sent %s, which is not for llmd, ignoring", p->slot->name,
                    msg_name(m->type));
    }
}

static void on_exited(void *arg, const siginfo_t *info)
{
    process_exited(arg, info);
}

static void on_writable(void *arg)
{
    struct process *p = arg;

    llmd_writable(p->team->llmd, p);
}

static const struct child_events child_events = { .message = on_message,
                                                  .exited = on_exited,
                                                  .writable = on_writable };

static bool do_spawn(struct process *p, struct err *e)
{
    struct llmd *l = p->team->llmd;
    struct spawn spawn = { .path = p->team->kind == TEAM_GATEWAY ? l->gateway_path : l->worker_path,
                           .stdout_fd = -1 };
    struct boot *boot = boot_new(l, p);
    bool ok = child_start(&p->child, l->event, &spawn, &boot->message, boot->fds, boot->n_fds,
                          &child_events, p, e);

    boot_free(boot);
    if (ok) {
        atomic_store_explicit(&p->slot->pid, (uint32_t)p->child.pid, memory_order_relaxed);
        llmd_spawned(l, p);
    }
    return ok;
}

static void do_signal(struct process *p, int sig)
{
    child_signal(&p->child, sig);
}

static bool do_drain(struct process *p, uint64_t deadline_ns)
{
    Llmd__Drain drain = LLMD__DRAIN__INIT;
    struct err e = { 0 };

    drain.deadline_ns = deadline_ns;
    if (child_send(&p->child, MSG_DRAIN, &drain, &e))
        return true;
    log_warning("process=\"%s\" error=\"%s\", sending SIGTERM instead", p->slot->name, e.msg);
    return false;
}

static int on_process_timer(sd_event_source *source, uint64_t usec, void *arg)
{
    (void)source, (void)usec;
    process_handle(arg, PROCESS_EV_TIMER);
    return 0;
}

/* One-shot; accuracy of 1 us, since the default of 250 ms would be most of a recovery. */
static void arm(sd_event *event, sd_event_source **timer, uint64_t deadline_ns,
                sd_event_time_handler_t handler, void *arg)
{
    int r;

    *timer = sd_event_source_disable_unref(*timer);
    if (deadline_ns == 0)
        return;
    r = sd_event_add_time(event, timer, CLOCK_MONOTONIC, deadline_ns / 1000, 1, handler, arg);
    if (r < 0)
        log_error("event=timer_failed error=\"%s\"", strerror(-r));
}

static void do_arm_process(struct process *p, uint64_t deadline_ns)
{
    arm(p->team->llmd->event, &p->timer, deadline_ns, on_process_timer, p);
}

static void do_process_changed(struct process *p)
{
    sd_event_source_set_enabled(p->team->look, SD_EVENT_ONESHOT);
}

const struct process_ops runner_process_ops = { .spawn = do_spawn,
                                                .signal = do_signal,
                                                .drain = do_drain,
                                                .arm = do_arm_process,
                                                .changed = do_process_changed };

/* ---- a team ---- */

static int on_team_timer(sd_event_source *source, uint64_t usec, void *arg)
{
    (void)source, (void)usec;
    team_handle(arg, TEAM_EV_TIMER);
    return 0;
}

static int on_look(sd_event_source *source, void *arg)
{
    (void)source;
    team_look(arg);
    return 0;
}

static void do_arm_team(struct team *t, uint64_t deadline_ns)
{
    arm(t->llmd->event, &t->timer, deadline_ns, on_team_timer, t);
}

static void do_team_changed(struct team *t)
{
    llmd_team_changed(t->llmd, t);
}

const struct team_ops runner_team_ops = { .arm = do_arm_team, .changed = do_team_changed };

static void init_member(struct team *t, uint32_t rank)
{
    struct board *b = &t->llmd->segments.board;
    struct process *p = &t->members[rank];
    uint32_t slot = BOARD_SLOT_GATEWAY;
    char name[32] = "gateway";

    if (t->kind == TEAM_GROUP) {
        slot = board_rank_slot(b, t->group, rank);
        snprintf(name, sizeof name, "worker %u.%u", t->group, rank);
    }
    process_init(p, &runner_process_ops, t->config, name, board_slot(b, slot),
                 &board_slot(b, BOARD_SLOT_LLMD)->stats);
    p->team = t;
    p->rank = rank;
    p->slot_index = slot;
}

bool runner_init(struct team *t, struct llmd *l, enum team_kind kind, uint32_t group, uint32_t n,
                 struct err *e)
{
    char name[32] = "gateway";
    int r;

    if (kind == TEAM_GROUP)
        snprintf(name, sizeof name, "group %u", group);
    team_init(t, &runner_team_ops, &l->config, name, mem_zalloc(n, sizeof *t->members), n);
    t->llmd = l;
    t->kind = kind;
    t->group = group;
    for (uint32_t rank = 0; rank < n; rank++)
        init_member(t, rank);
    r = sd_event_add_defer(l->event, &t->look, on_look, t);
    if (r < 0)
        return err_set(e, ERR_SYS, -r, "watch the processes of %s", name);
    sd_event_source_set_enabled(t->look, SD_EVENT_OFF);
    return true;
}

void runner_fini(struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++) {
        sd_event_source_disable_unref(t->members[i].timer);
        child_close(&t->members[i].child);
    }
    sd_event_source_disable_unref(t->timer);
    sd_event_source_disable_unref(t->look);
    free(t->members);
    *t = (struct team){ 0 };
}

void runner_send(struct team *t, enum msg_type type, const void *message)
{
    for (uint32_t i = 0; i < t->n_members; i++) {
        struct process *p = &t->members[i];
        struct err e = { 0 };
        if (process_is_running(p) && !child_send(&p->child, type, message, &e))
            log_warning("process=\"%s\" error=\"%s\", going on without", p->slot->name, e.msg);
    }
}
