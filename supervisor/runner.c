/* runner.c - process_ops and team_ops over posix_spawn and sd-event.
 *
 * A team looks at its members from an event of its own, after all that the kernel reported in one turn
 * of the loop has been recorded: see team_look(). */
#include "supervisor/runner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fault_point.h"
#include "common/mem.h"
#include "supervisor/boot.h"
#include "supervisor/holdings.h"
#include "supervisor/llmd.h"
#include "supervisor/news.h"
#include "supervisor/pidfd.h"

/* ---- a member ---- */

/* For the next llmd, should this one die: the child's descriptors lie in the store while it runs. */
static void store_pidfd(struct process *p)
{
    char name[FDSTORE_NAME_BYTES];

    holdings_pidfd_name(p->slot_index, name, sizeof name);
    fdstore_put(&p->team->llmd->store, name, p->child.pidfd, false);
}

static void forget_child(struct process *p)
{
    char name[FDSTORE_NAME_BYTES];

    holdings_control_name(p->slot_index, name, sizeof name);
    fdstore_remove(&p->team->llmd->store, name);
    holdings_pidfd_name(p->slot_index, name, sizeof name);
    fdstore_remove(&p->team->llmd->store, name);
}

static void note_pid(struct process *p)
{
    atomic_store_explicit(&p->slot->pid, (uint32_t)p->child.pid, memory_order_relaxed);
}

static void take_ready(struct process *p, const Llmd__Ready *ready)
{
    if (ready->epoch != p->team->epoch) {
        log_warning("process=\"%s\" event=ready epoch=%u, expected %u, ignoring", p->slot->name,
                    ready->epoch, p->team->epoch);
        return;
    }
    fault_point("llmd.ready");
    if (child_learn_pid(&p->child, (pid_t)ready->pid)) {
        note_pid(p);
        store_pidfd(p);
    }
    process_handle(p, PROCESS_EV_READY);
}

static void on_message(void *arg, struct control_msg *m)
{
    struct process *p = arg;

    switch (m->type) {
    case MSG_READY:
        take_ready(p, m->body);
        break;
    case MSG_SERVING:
        news_serving(p->team->llmd, p, ((const Llmd__Serving *)m->body)->epoch);
        break;
    case MSG_CONNECTIONS:
        fault_point("llmd.connections");
        if (p->team->kind == TEAM_GATEWAY)
            kept_take(&p->team->llmd->kept, m);
        break;
    case MSG_CHUNKS:
        if (p->team->kind == TEAM_GROUP)
            gpu_memory_take(&p->team->llmd->gpu, p->team->group, p->rank, m);
        break;
    case MSG_WEIGHTS_READY:
        news_weights_ready(p->team->llmd, p);
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
    struct process *p = arg;

    p->owes_adopt = false;
    forget_child(p);
    news_ended(p->team->llmd, p, info);
    process_exited(p, info);
}

/* It says again what the dead llmd may have heard and not kept. */
static void send_adopt(struct process *p)
{
    Llmd__Adopt adopt = LLMD__ADOPT__INIT;
    struct err e = { 0 };

    adopt.pid = (uint32_t)getpid();
    p->owes_adopt = !child_send(&p->child, MSG_ADOPT, &adopt, &e) && e.sys == EAGAIN;
}

static void on_writable(void *arg)
{
    struct process *p = arg;

    if (p->owes_adopt)
        send_adopt(p);
    news_writable(p->team->llmd, p);
}

/* Before the program runs: should llmd die now, the next one finds a socket, whose other end is closed or
 * is the child's. */
static void on_starting(void *arg, int control, unsigned long peer_inode)
{
    struct process *p = arg;
    char name[FDSTORE_NAME_BYTES];

    atomic_store(&p->slot->kept.control_inode, (uint32_t)peer_inode);
    holdings_control_name(p->slot_index, name, sizeof name);
    fdstore_put(&p->team->llmd->store, name, control, false);
    fdstore_settle(&p->team->llmd->store);
    fault_point("llmd.spawn");
}

static void on_message_lost(void *arg)
{
    struct process *p = arg;

    if (p->team->kind == TEAM_GATEWAY)
        kept_sweep(&p->team->llmd->kept); /* too many descriptors are open: make room */
}

static const struct child_events child_events = { .message = on_message,
                                                  .exited = on_exited,
                                                  .writable = on_writable,
                                                  .starting = on_starting,
                                                  .message_lost = on_message_lost };

static bool do_spawn(struct process *p, struct err *e)
{
    struct llmd *l = p->team->llmd;
    struct spawn spawn = { .path = p->team->kind == TEAM_GATEWAY ? l->gateway_path : l->worker_path,
                           .stdout_fd = -1 };
    struct boot *boot = boot_new(l, p);
    bool ok = child_start(&p->child, l->event, &spawn, &boot->message, boot->fds, boot->n_fds,
                          &child_events, p, e);

    boot_free(boot);
    if (!ok) {
        forget_child(p);
        return false;
    }
    fault_point("llmd.spawned");
    note_pid(p);
    store_pidfd(p);
    fault_point("llmd.store");
    news_spawned(l, p);
    return true;
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
    news_team_changed(t->llmd, t);
}

static bool do_check_gpus(struct team *t, struct err *e)
{
    return gpu_check_start(&t->gpu_check, t->llmd, t, e);
}

const struct team_ops runner_team_ops = { .arm = do_arm_team,
                                          .changed = do_team_changed,
                                          .check_gpus = do_check_gpus };

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
    p->on_gpu = t->kind == TEAM_GROUP && t->llmd->plan->on_device;
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

/* What is left of the member's program; false when there is nothing. */
static bool adopt_child(struct process *p, struct passed *from)
{
    int control = passed_take_numbered(from, "llmd-ctl-", p->slot_index);
    int pidfd = passed_take_numbered(from, "llmd-pid-", p->slot_index);
    bool is_stored = pidfd >= 0;
    struct err e = { 0 };

    if (control < 0 && pidfd < 0)
        return false;
    if (pidfd < 0)
        pidfd = pidfd_of_holder(CONTROL_FD, atomic_load(&p->slot->kept.control_inode));
    if (!child_adopt(&p->child, p->team->llmd->event, control, pidfd, &child_events, p, &e)) {
        log_error("process=\"%s\" error=\"%s\"", p->slot->name, e.msg);
        return false;
    }
    if (pidfd >= 0 && !is_stored)
        store_pidfd(p);
    return true;
}

/* A starting gateway waits for the connections of its predecessor, and how many of them it was given only
 * the dead llmd knew. */
static bool is_half_told(const struct process *p)
{
    return p->team->kind == TEAM_GATEWAY && p->state == PROCESS_STARTING && p->slot->epoch > 1;
}

static void adopt_member(struct process *p, struct passed *from)
{
    bool has_child = adopt_child(p, from);

    process_adopt(p);
    if (!process_is_running(p)) {
        if (has_child) { /* its end was noted, its descriptors not yet taken back */
            child_signal(&p->child, SIGKILL);
            child_close(&p->child);
            forget_child(p);
        }
        return;
    }
    if (!has_child) {
        process_exited(p, &(siginfo_t){ 0 });
        return;
    }
    if (p->child.pidfd >= 0)
        note_pid(p);
    if (p->child.control < 0)
        process_kill(p, "it cannot be spoken to");
    else if (!is_half_told(p))
        send_adopt(p);
}

void runner_adopt(struct team *t, struct passed *from)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        adopt_member(&t->members[i], from);
    team_adopt(t);
    if (is_half_told(&t->members[0]))
        team_handle(t, TEAM_EV_RESTART);
    sd_event_source_set_enabled(t->look, SD_EVENT_ONESHOT);
}

void runner_fini(struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++) {
        sd_event_source_disable_unref(t->members[i].timer);
        child_close(&t->members[i].child);
    }
    sd_event_source_disable_unref(t->timer);
    sd_event_source_disable_unref(t->look);
    gpu_check_leave(&t->gpu_check);
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
