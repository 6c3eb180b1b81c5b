/* process.c - the state machine of one child.
 *
 *            START              READY             STOP (from STARTING too)
 *   DOWN ------------> STARTING -------> READY -----------> DRAINING
 *    ^  ^                  | EXIT          | EXIT               | EXIT
 *    |  | STOP             v               v                    |
 *    |  +-------------- BACKOFF <----------+                    |
 *    |                     | START: STARTING again              |
 *    +----------------------------------------------------------+
 *   TIMER in STARTING: never became ready, kill it and wait for EXIT.
 *   TIMER in DRAINING: too slow, SIGTERM, then SIGKILL.   STOP in DRAINING: SIGKILL at once.
 *   TIMER behind SIGKILL, in any of them: the kernel does not end it; said once, and EXIT is waited for.
 *   HASTEN in DRAINING: DRAIN again, with a deadline that is now.
 *
 * An empty cell is late news, and is dropped.  A process does not leave BACKOFF by itself: the ranks of
 * a group start together (shared plan, one epoch), so the team owns the pause and sends START.
 *
 * llmd asks politely once (DRAIN) and then uses signals.  A process that is STARTING has nothing to
 * finish, so it is killed straight away.
 *
 * Each step stands on the board before it is done, for the llmd after this one: process_adopt(). */
#include "supervisor/process.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "proto/worker_exit.h"
#include "supervisor/last_words.h"

/* At the drain deadline a child ends what is left: it may take this long to write its last bytes before
 * it is sent SIGTERM, and then before SIGKILL. */
#define DRAIN_GRACE_NS   (1 * NS_PER_S)
#define TERM_PATIENCE_NS (2 * NS_PER_S)

static void set_word(_Atomic uint32_t *at, uint32_t v)
{
    atomic_store_explicit(at, v, memory_order_relaxed);
}

static void set_time(_Atomic uint64_t *at, uint64_t v)
{
    atomic_store_explicit(at, v, memory_order_relaxed);
}

static uint64_t get_time(const _Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

static void send_signal(struct process *p, int sig)
{
    p->last_signal = sig;
    p->ops->signal(p, sig);
}

static void act_spawn(struct process *p)
{
    uint64_t now = clock_mono_ns();
    struct err e = { 0 };

    p->words[0] = p->killed_why[0] = '\0';
    p->last_signal = 0;
    p->was_forced = p->is_replaced = p->is_stuck = false;
    p->trouble = GPU_TROUBLE_NONE;
    set_word(&p->slot->trouble, GPU_TROUBLE_NONE);
    p->ready_ns = 0;
    set_time(&p->slot->kept.ready_ns, 0);
    set_word(&p->slot->kept.log_start, atomic_load(&p->slot->log.n_lines));
    set_word(&p->slot->restarts, p->starts);
    p->starts++;
    set_time(&p->slot->started_ns, now);
    set_time(&p->slot->heartbeat_ns, now);
    set_time(&p->slot->step_started_ns, 0);
    if (p->ops->spawn(p, &e)) {
        stat_add(p->counts, STAT_process_starts, 1);
        p->ops->arm(p, now + p->config->start_timeout_s * NS_PER_S);
        return;
    }
    log_error("process=\"%s\" error=\"%s\"", p->slot->name, e.msg);
    snprintf(p->last_exit, sizeof p->last_exit, "cannot start: %s", e.msg);
    memcpy(p->slot->last_exit, p->last_exit, sizeof p->last_exit);
    process_handle(p, PROCESS_EV_EXIT);
}

static void act_announce(struct process *p)
{
    uint64_t now = clock_mono_ns();
    uint64_t started = get_time(&p->slot->started_ns);

    p->ops->arm(p, 0);
    p->ready_ns = now;
    set_time(&p->slot->kept.ready_ns, now);
    log_info("process=\"%s\" pid=%u ready_after_ms=%llu", p->slot->name, p->slot->pid,
             (unsigned long long)((now - started) / NS_PER_MS));
}

/* The deadline behind SIGKILL has passed. */
static void act_note_stuck(struct process *p)
{
    if (p->last_signal != SIGKILL || p->is_stuck)
        return;
    p->is_stuck = true;
    p->was_forced = p->was_forced || p->state == PROCESS_DRAINING;
    stat_add(p->counts, STAT_processes_unreaped, 1);
    log_error(
        "process=\"%s\" pid=%u event=stuck cause=\"killed but not reaped in %d s\", waiting for "
        "the kernel to end it",
        p->slot->name, p->slot->pid, PROCESS_REAP_S);
}

static void act_kill_slow(struct process *p)
{
    char why[96];

    if (p->last_signal == SIGKILL) {
        act_note_stuck(p);
        return;
    }
    snprintf(why, sizeof why, "not ready after %llu s",
             (unsigned long long)p->config->start_timeout_s);
    process_kill(p, why);
}

static void note_end(struct process *p)
{
    p->ops->arm(p, 0);
    p->died_ns = clock_mono_ns();
    set_time(&p->slot->kept.died_ns, p->died_ns);
    set_word(&p->slot->pid, 0);
    set_time(&p->slot->step_started_ns, 0);
}

static void act_note_end(struct process *p)
{
    note_end(p);
    log_info("process=\"%s\" event=ended how=\"%s\"", p->slot->name, p->last_exit);
}

/* It ended, and nobody asked it to, or its successor waits. */
static void act_note_death(struct process *p)
{
    if (p->is_replaced) {
        act_note_end(p);
        return;
    }
    note_end(p);
    stat_add(p->counts, STAT_process_deaths, 1);
    log_warning("process=\"%s\" event=died cause=\"%s\"", p->slot->name, p->last_exit);
}

static void act_terminate(struct process *p)
{
    send_signal(p, SIGTERM);
    p->ops->arm(p, clock_mono_ns() + TERM_PATIENCE_NS);
}

static void act_drain(struct process *p)
{
    set_time(&p->slot->kept.deadline_ns, p->drain_deadline_ns);
    if (p->last_signal == SIGKILL)
        return; /* its end is on the way */
    if (p->ops->drain(p, p->drain_deadline_ns))
        p->ops->arm(p, p->drain_deadline_ns + DRAIN_GRACE_NS);
    else
        act_terminate(p);
}

static void act_hasten(struct process *p)
{
    p->drain_deadline_ns = clock_mono_ns();
    if (p->last_signal == 0)
        act_drain(p);
}

static void act_kill_now(struct process *p)
{
    p->was_forced = p->ready_ns != 0;
    process_kill(p, "asked to stop at once");
}

/* Nothing runs in it yet, so there is nothing to finish. */
static void act_kill_starting(struct process *p)
{
    process_kill(p, "stopped while it was starting");
}

static void act_escalate(struct process *p)
{
    if (p->last_signal == 0) {
        log_warning("process=\"%s\" event=drain_timeout, sending SIGTERM", p->slot->name);
        act_terminate(p);
    } else if (p->last_signal == SIGKILL) {
        act_note_stuck(p);
    } else {
        log_warning("process=\"%s\" event=ignores_sigterm, sending SIGKILL", p->slot->name);
        p->was_forced = true;
        process_kill(p, "did not stop when asked");
    }
}

static void act_forget(struct process *p)
{
    p->ops->arm(p, 0);
}

static const struct process_edge edges[N_PROCESS_STATES][N_PROCESS_EVENTS] = {
    [PROCESS_DOWN] = { [PROCESS_EV_START] = { PROCESS_STARTING, act_spawn } },
    [PROCESS_STARTING] = { [PROCESS_EV_READY] = { PROCESS_READY, act_announce },
                           [PROCESS_EV_TIMER] = { PROCESS_STARTING, act_kill_slow },
                           [PROCESS_EV_EXIT] = { PROCESS_BACKOFF, act_note_death },
                           [PROCESS_EV_STOP] = { PROCESS_DRAINING, act_kill_starting } },
    [PROCESS_READY] = { [PROCESS_EV_EXIT] = { PROCESS_BACKOFF, act_note_death },
                        [PROCESS_EV_TIMER] = { PROCESS_READY, act_note_stuck },
                        [PROCESS_EV_STOP] = { PROCESS_DRAINING, act_drain } },
    [PROCESS_DRAINING] = { [PROCESS_EV_TIMER] = { PROCESS_DRAINING, act_escalate },
                           [PROCESS_EV_STOP] = { PROCESS_DRAINING, act_kill_now },
                           [PROCESS_EV_HASTEN] = { PROCESS_DRAINING, act_hasten },
                           [PROCESS_EV_EXIT] = { PROCESS_DOWN, act_note_end } },
    [PROCESS_BACKOFF] = { [PROCESS_EV_START] = { PROCESS_STARTING, act_spawn },
                          [PROCESS_EV_STOP] = { PROCESS_DOWN, act_forget } },
};

const struct process_edge *process_edge(enum process_state s, enum process_event ev)
{
    assert((unsigned)s < N_PROCESS_STATES && (unsigned)ev < N_PROCESS_EVENTS);
    return &edges[s][ev];
}

void process_handle(struct process *p, enum process_event ev)
{
    const struct process_edge *edge = process_edge(p->state, ev);

    if (!edge->act) {
        log_debug("process=\"%s\" state=%s event=%s dropped", p->slot->name,
                  process_state_name(p->state), process_event_name(ev));
        return;
    }
    log_info("process=\"%s\" from=%s to=%s event=%s", p->slot->name, process_state_name(p->state),
             process_state_name(edge->to), process_event_name(ev));
    p->state = edge->to;
    set_word(&p->slot->state, p->state);
    edge->act(p);
    p->ops->changed(p);
}

static void describe_how(const struct process *p, const siginfo_t *info, char *out, size_t n)
{
    const char *signal_words = info->si_code ? sigdescr_np(info->si_status) : NULL;

    if (info->si_code == 0)
        snprintf(out, n, "ended%s%s", p->killed_why[0] ? ", killed: " : "", p->killed_why);
    else if (info->si_code == CLD_EXITED && p->on_gpu && worker_exit_words(info->si_status)[0])
        snprintf(out, n, "exit code %d (%s)", info->si_status, worker_exit_words(info->si_status));
    else if (info->si_code == CLD_EXITED)
        snprintf(out, n, "exit code %d", info->si_status);
    else if (p->killed_why[0] && info->si_status == SIGKILL)
        snprintf(out, n, "killed: %s", p->killed_why);
    else
        snprintf(out, n, "signal %d (%s)%s", info->si_status,
                 signal_words ? signal_words : "unknown",
                 info->si_code == CLD_DUMPED ? ", core dumped" : "");
}

/* "signal 11 (Segmentation fault), core dumped: <words>", "exit code 1: <words>".  Who died without a
 * FATAL may have logged why. */
static void describe_end(struct process *p, const siginfo_t *info)
{
    char how[200];

    describe_how(p, info, how, sizeof how);
    if (!p->words[0] && !p->killed_why[0])
        last_words(p->slot, p->words, sizeof p->words);
    snprintf(p->last_exit, sizeof p->last_exit, "%s%s%s", how, p->words[0] ? ": " : "", p->words);
    memcpy(p->slot->last_exit, p->last_exit, sizeof p->last_exit);
}

static enum gpu_trouble trouble_of(const struct process *p, const siginfo_t *info)
{
    if (!p->on_gpu)
        return GPU_TROUBLE_NONE;
    if (info->si_code == CLD_EXITED && info->si_status == WORKER_EXIT_DEVICE_LOST)
        return GPU_TROUBLE_LOST;
    if (info->si_code == CLD_EXITED && info->si_status == WORKER_EXIT_DEVICE_UNUSABLE)
        return GPU_TROUBLE_UNUSABLE;
    return p->is_stuck ? GPU_TROUBLE_STUCK : GPU_TROUBLE_NONE;
}

void process_exited(struct process *p, const siginfo_t *info)
{
    describe_end(p, info);
    p->trouble = trouble_of(p, info);
    if (p->on_gpu && info->si_code == CLD_EXITED && info->si_status == WORKER_EXIT_DEVICE_CONTAINED)
        p->contained_ns = clock_mono_ns();
    set_word(&p->slot->trouble, p->trouble);
    process_handle(p, PROCESS_EV_EXIT);
}

void process_kill(struct process *p, const char *why)
{
    if (!process_is_running(p))
        return;
    if (!p->killed_why[0])
        snprintf(p->killed_why, sizeof p->killed_why, "%s", why);
    send_signal(p, SIGKILL);
    p->ops->arm(p, clock_mono_ns() + PROCESS_REAP_S * NS_PER_S);
}

void process_replace(struct process *p, const char *why)
{
    if (process_is_running(p) && p->last_signal != SIGKILL)
        p->is_replaced = true;
    process_kill(p, why);
}

void process_adopt(struct process *p)
{
    const struct board_kept *kept = &p->slot->kept;
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_relaxed);
    uint64_t started = get_time(&p->slot->started_ns);

    p->state = state < N_PROCESS_STATES ? (enum process_state)state : PROCESS_DOWN;
    p->starts = started ? p->slot->restarts + 1 : 0;
    p->ready_ns = get_time(&kept->ready_ns);
    p->died_ns = get_time(&kept->died_ns);
    memcpy(p->last_exit, p->slot->last_exit, sizeof p->last_exit - 1);
    p->trouble = (enum gpu_trouble)atomic_load_explicit(&p->slot->trouble, memory_order_relaxed);
    if (p->state == PROCESS_STARTING)
        p->ops->arm(p, started + p->config->start_timeout_s * NS_PER_S);
    if (p->state == PROCESS_DRAINING) {
        p->drain_deadline_ns = get_time(&kept->deadline_ns);
        p->ops->arm(p, p->drain_deadline_ns + DRAIN_GRACE_NS);
    }
    log_info("process=\"%s\" event=adopted state=%s pid=%d", p->slot->name,
             process_state_name(p->state), (int)p->child.pid);
}

bool process_is_running(const struct process *p)
{
    return p->state == PROCESS_STARTING || p->state == PROCESS_READY ||
           p->state == PROCESS_DRAINING;
}

void process_init(struct process *p, const struct process_ops *ops, const struct config *config,
                  const char *name, struct board_slot *slot, struct stats *counts)
{
    *p = (struct process){ .ops = ops, .config = config, .slot = slot, .counts = counts };
    snprintf(slot->name, sizeof slot->name, "%s", name); /* the board is zeroed: PROCESS_DOWN */
}

const char *process_event_name(enum process_event ev)
{
    static const char *const names[N_PROCESS_EVENTS] = { "start", "ready", "exit",
                                                         "timer", "stop",  "hasten" };
    return (unsigned)ev < N_PROCESS_EVENTS ? names[ev] : "?";
}
