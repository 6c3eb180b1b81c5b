/* team.c - the state machine of processes that live and die together.
 *
 *            START               ALL_READY
 *   DOWN --------------> STARTING ----------> UP
 *    ^ ^                  ^   |                |
 *    | |            TIMER |   | LOST           | LOST: kill the other members
 *    | |                  |   v                v
 *    | |  STOP            |  FALLING <---------+
 *    | +-------------- BACKOFF <--+ GONE: all have exited
 *    |
 *    | GONE               STOP from STARTING, UP, FALLING
 *    +-- DRAINING <------
 *
 *   RESTART in STARTING, UP: FALLING, but no pause follows.   RESTART in BACKOFF, GPU_DOWN: STARTING at once.
 *   STOP in DRAINING: kill them all now.   HASTEN in DRAINING: the deadline is now.
 *   STUCK in STARTING, UP: FALLING, before its end.   STUCK in FALLING: said to all who ask.
 *   GPU_BAD in FALLING: GPU_DOWN, instead of BACKOFF.
 *
 *   GPU_DOWN: at TIMER the GPUs are asked about.   GPU_BAD: wait, twice as long.   GPU_WELL: STARTING.   STOP: DOWN.
 *
 * A rank never restarts alone: it shares memory phases (and on GPUs a communicator) with its peers, and
 * those die with it.  Each start is a new epoch, by which everything a dead epoch left behind is known.
 *
 * Members only record what happened to them; team_look() then decides from their states.  So the order
 * in which the kernel reports several deaths does not matter.
 *
 * A GPU that was lost comes back when somebody resets it, which may be tomorrow; one whose memory others have taken, when
 * they let go.  To start a group on it again and again would only hide that, so the pauses are long, and a start comes
 * when NVML says that all is well. */
#include "supervisor/team.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"

static uint32_t count_state(const struct team *t, enum process_state s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n_members; i++)
        n += t->members[i].state == s;
    return n;
}

static uint32_t count_stuck(const struct team *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n_members; i++)
        n += t->members[i].is_stuck && process_is_running(&t->members[i]);
    return n;
}

static void act_start(struct team *t)
{
    t->epoch++;
    t->up_ns = t->retry_ns = 0;
    t->is_stuck = false;
    t->gpu_words[0] = '\0';
    if (t->epoch == 1)
        snprintf(t->cause, sizeof t->cause, "loading");
    t->ops->arm(t, 0);
    for (uint32_t i = 0; i < t->n_members; i++) {
        atomic_store_explicit(&t->members[i].slot->epoch, t->epoch, memory_order_relaxed);
        process_handle(&t->members[i], PROCESS_EV_START);
    }
}

static void act_announce(struct team *t)
{
    t->up_ns = clock_mono_ns();
    t->cause[0] = '\0';
}

/* The member whose death came first and was not of our doing; NULL when none has died. */
static const struct process *first_dead(const struct team *t)
{
    const struct process *first = NULL;

    for (uint32_t i = 0; i < t->n_members; i++) {
        const struct process *p = &t->members[i];
        if (p->state == PROCESS_BACKOFF && (!first || p->died_ns < first->died_ns))
            first = p;
    }
    return first;
}

static void act_fall(struct team *t)
{
    const struct process *dead = first_dead(t);
    const char *name = dead ? dead->slot->name : t->name;
    char why[80];

    snprintf(t->cause, sizeof t->cause, "%s: %s", name, dead ? dead->last_exit : "stopped");
    snprintf(why, sizeof why, "%s of its group died", name);
    for (uint32_t i = 0; i < t->n_members; i++)
        process_kill(&t->members[i], why);
}

/* The kernel waits for the GPU, most likely; until it lets go, nobody can start there. */
static void act_tell_stuck(struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        if (t->members[i].is_stuck && process_is_running(&t->members[i]))
            snprintf(t->cause, sizeof t->cause, "%s: killed (%s) but not reaped in %d s%s",
                     t->members[i].slot->name, t->members[i].killed_why, PROCESS_REAP_S,
                     t->members[i].on_gpu ? ": its GPU does not let go of it" : "");
    t->is_stuck = true;
}

/* It serves nobody any more, though it has not ended. */
static void act_fall_stuck(struct team *t)
{
    act_fall(t);
    act_tell_stuck(t);
}

/* For the llmd after this one. */
static void note_pause(const struct team *t, uint64_t pause_ms)
{
    for (uint32_t i = 0; i < t->n_members; i++) {
        struct board_kept *kept = &t->members[i].slot->kept;
        atomic_store_explicit(&kept->deaths, t->backoff.deaths, memory_order_relaxed);
        atomic_store_explicit(&kept->pause_ms, (uint32_t)pause_ms, memory_order_relaxed);
        atomic_store_explicit(&kept->deadline_ns, t->retry_ns, memory_order_relaxed);
    }
}

/* How long it had been in service; 0 = it was not. */
static uint64_t served_ns(const struct team *t)
{
    const struct process *dead = first_dead(t);
    uint64_t died = dead && dead->died_ns > t->up_ns ? dead->died_ns : clock_mono_ns();

    return t->up_ns ? died - t->up_ns + 1 : 0;
}

static void arm_retry(struct team *t, uint64_t pause_ms)
{
    t->up_ns = 0;
    t->is_replaced = false;
    t->retry_ns = clock_mono_ns() + pause_ms * NS_PER_MS;
    t->ops->arm(t, t->retry_ns);
}

static void act_pause(struct team *t)
{
    uint64_t pause_ms = t->is_replaced ? 0 : backoff_next_ms(&t->backoff, t->config, served_ns(t));

    arm_retry(t, pause_ms);
    note_pause(t, t->backoff.pause_ms);
    log_info("team=\"%s\" event=backoff pause_ms=%llu cause=\"%s\"", t->name,
             (unsigned long long)pause_ms, t->cause);
}

/* The first member whose end said that its GPU is in trouble; NULL when none did. */
static const struct process *first_in_trouble(const struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        if (t->members[i].trouble != GPU_TROUBLE_NONE)
            return &t->members[i];
    return NULL;
}

/* One that held a process back is asked about at once when it has let go. */
static uint64_t next_gpu_pause_ms(struct team *t, const struct process *in_trouble)
{
    uint64_t before = t->gpu_pause_ms;

    if (served_ns(t) >= t->config->backoff_reset_s * NS_PER_S)
        before = 0;
    t->gpu_pause_ms = before ? 2 * before : t->config->gpu_retry_ms;
    if (t->gpu_pause_ms > t->config->gpu_retry_max_ms)
        t->gpu_pause_ms = t->config->gpu_retry_max_ms;
    return in_trouble->trouble == GPU_TROUBLE_STUCK && !t->gpu_words[0] ? 0 : t->gpu_pause_ms;
}

static void act_wait_for_gpu(struct team *t)
{
    const struct process *p = first_in_trouble(t);
    uint64_t pause_ms;

    assert(p);
    snprintf(t->cause, sizeof t->cause, "%s: %s%s%s", p->slot->name, p->last_exit,
             t->gpu_words[0] ? "; " : "", t->gpu_words);
    pause_ms = next_gpu_pause_ms(t, p);
    arm_retry(t, pause_ms);
    note_pause(t, t->gpu_pause_ms);
    log_error("team=\"%s\" event=gpu_down retry_ms=%llu cause=\"%s\"", t->name,
              (unsigned long long)pause_ms, t->cause);
}

/* Where nobody can be asked, a start will tell. */
static void act_check_gpus(struct team *t)
{
    struct err e = { 0 };

    t->retry_ns = 0;
    if (t->ops->check_gpus(t, &e))
        return;
    log_warning("team=\"%s\" error=\"%s\", starting it without a look at its GPUs", t->name, e.msg);
    team_handle(t, TEAM_EV_GPU_WELL);
}

static void act_replace(struct team *t)
{
    t->is_replaced = true;
    snprintf(t->cause, sizeof t->cause, "restarting, as asked");
    for (uint32_t i = 0; i < t->n_members; i++)
        process_replace(&t->members[i], "restarted, as asked");
}

static void act_stop(struct team *t)
{
    t->ops->arm(t, 0);
    if (!t->cause[0] || t->epoch <= 1)
        snprintf(t->cause, sizeof t->cause, "stopped, as asked");
    for (uint32_t i = 0; i < t->n_members; i++) {
        t->members[i].drain_deadline_ns = t->drain_deadline_ns;
        process_handle(&t->members[i], PROCESS_EV_STOP);
    }
}

static void act_hasten(struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        process_handle(&t->members[i], PROCESS_EV_HASTEN);
}

static void act_end(struct team *t)
{
    t->up_ns = 0;
}

static const struct team_edge edges[N_TEAM_STATES][N_TEAM_EVENTS] = {
    [TEAM_DOWN] = { [TEAM_EV_START] = { TEAM_STARTING, act_start } },
    [TEAM_STARTING] = { [TEAM_EV_ALL_READY] = { TEAM_UP, act_announce },
                        [TEAM_EV_LOST] = { TEAM_FALLING, act_fall },
                        [TEAM_EV_STUCK] = { TEAM_FALLING, act_fall_stuck },
                        [TEAM_EV_STOP] = { TEAM_DRAINING, act_stop },
                        [TEAM_EV_RESTART] = { TEAM_FALLING, act_replace } },
    [TEAM_UP] = { [TEAM_EV_LOST] = { TEAM_FALLING, act_fall },
                  [TEAM_EV_STUCK] = { TEAM_FALLING, act_fall_stuck },
                  [TEAM_EV_STOP] = { TEAM_DRAINING, act_stop },
                  [TEAM_EV_RESTART] = { TEAM_FALLING, act_replace } },
    [TEAM_FALLING] = { [TEAM_EV_GONE] = { TEAM_BACKOFF, act_pause },
                       [TEAM_EV_STUCK] = { TEAM_FALLING, act_tell_stuck },
                       [TEAM_EV_GPU_BAD] = { TEAM_GPU_DOWN, act_wait_for_gpu },
                       [TEAM_EV_STOP] = { TEAM_DRAINING, act_stop } },
    [TEAM_BACKOFF] = { [TEAM_EV_TIMER] = { TEAM_STARTING, act_start },
                       [TEAM_EV_RESTART] = { TEAM_STARTING, act_start },
                       [TEAM_EV_STOP] = { TEAM_DOWN, act_stop } },
    [TEAM_DRAINING] = { [TEAM_EV_GONE] = { TEAM_DOWN, act_end },
                        [TEAM_EV_STOP] = { TEAM_DRAINING, act_stop },
                        [TEAM_EV_HASTEN] = { TEAM_DRAINING, act_hasten } },
    [TEAM_GPU_DOWN] = { [TEAM_EV_TIMER] = { TEAM_GPU_DOWN, act_check_gpus },
                        [TEAM_EV_GPU_BAD] = { TEAM_GPU_DOWN, act_wait_for_gpu },
                        [TEAM_EV_GPU_WELL] = { TEAM_STARTING, act_start },
                        [TEAM_EV_RESTART] = { TEAM_STARTING, act_start },
                        [TEAM_EV_STOP] = { TEAM_DOWN, act_stop } },
};

const struct team_edge *team_edge(enum team_state s, enum team_event ev)
{
    assert((unsigned)s < N_TEAM_STATES && (unsigned)ev < N_TEAM_EVENTS);
    return &edges[s][ev];
}

void team_handle(struct team *t, enum team_event ev)
{
    const struct team_edge *edge = team_edge(t->state, ev);

    if (!edge->act) {
        log_debug("team=\"%s\" state=%s event=%s dropped", t->name, team_state_name(t->state),
                  team_event_name(ev));
        return;
    }
    log_info("team=\"%s\" from=%s to=%s event=%s epoch=%u", t->name, team_state_name(t->state),
             team_state_name(edge->to), team_event_name(ev), t->epoch);
    t->state = edge->to;
    edge->act(t);
    t->ops->changed(t);
}

void team_look(struct team *t)
{
    uint32_t gone = count_state(t, PROCESS_DOWN) + count_state(t, PROCESS_BACKOFF);

    if (t->state == TEAM_STARTING || t->state == TEAM_UP) {
        if (gone > 0)
            team_handle(t, TEAM_EV_LOST);
        else if (count_stuck(t) > 0)
            team_handle(t, TEAM_EV_STUCK);
        else if (t->state == TEAM_STARTING && count_state(t, PROCESS_READY) == t->n_members)
            team_handle(t, TEAM_EV_ALL_READY);
    }
    if (t->state == TEAM_FALLING && gone < t->n_members && !t->is_stuck && count_stuck(t) > 0)
        team_handle(t, TEAM_EV_STUCK);
    if (t->state == TEAM_FALLING && gone == t->n_members)
        team_handle(t, first_in_trouble(t) ? TEAM_EV_GPU_BAD : TEAM_EV_GONE);
    if (t->state == TEAM_DRAINING && gone + count_stuck(t) == t->n_members)
        team_handle(t, TEAM_EV_GONE); /* llmd's end does not wait for what the kernel cannot end */
}

void team_init(struct team *t, const struct team_ops *ops, const struct config *config,
               const char *name, struct process *members, uint32_t n)
{
    assert(n > 0);
    *t = (struct team){ .ops = ops, .config = config, .members = members, .n_members = n };
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->cause, sizeof t->cause, "not started yet");
}

/* All have stopped; whether their pause had begun, the board tells. */
static enum team_state adopted_when_gone(struct team *t)
{
    const struct board_kept *kept = &t->members[0].slot->kept;
    const struct process *dead = first_dead(t);

    if (!dead)
        return TEAM_DOWN;
    snprintf(t->cause, sizeof t->cause, "%s: %s", dead->slot->name, dead->last_exit);
    t->retry_ns = atomic_load_explicit(&kept->deadline_ns, memory_order_relaxed);
    if (t->retry_ns < dead->died_ns)
        return TEAM_FALLING;
    t->ops->arm(t, t->retry_ns);
    if (!first_in_trouble(t))
        return TEAM_BACKOFF;
    t->gpu_pause_ms = t->backoff.pause_ms; /* it is of this kind */
    t->backoff.pause_ms = 0;
    return TEAM_GPU_DOWN;
}

static enum team_state adopted_state(struct team *t)
{
    uint32_t n_ready = count_state(t, PROCESS_READY);

    if (count_state(t, PROCESS_DRAINING) > 0)
        return TEAM_DRAINING;
    if (n_ready == t->n_members)
        return TEAM_UP;
    if (n_ready + count_state(t, PROCESS_STARTING) > 0)
        return TEAM_STARTING; /* and falls when it is looked at, if some are gone */
    return adopted_when_gone(t);
}

/* The former llmd had not come to them. */
static void stop_the_others(struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        if (t->members[i].drain_deadline_ns > t->drain_deadline_ns)
            t->drain_deadline_ns = t->members[i].drain_deadline_ns;
    for (uint32_t i = 0; i < t->n_members; i++) {
        if (t->members[i].state == PROCESS_DRAINING)
            continue;
        t->members[i].drain_deadline_ns = t->drain_deadline_ns;
        process_handle(&t->members[i], PROCESS_EV_STOP);
    }
}

void team_adopt(struct team *t)
{
    const struct board_kept *kept = &t->members[0].slot->kept;
    bool were_ready = true;

    t->backoff.deaths = atomic_load_explicit(&kept->deaths, memory_order_relaxed);
    t->backoff.pause_ms = atomic_load_explicit(&kept->pause_ms, memory_order_relaxed);
    for (uint32_t i = 0; i < t->n_members; i++) {
        const struct process *p = &t->members[i];
        uint32_t epoch = atomic_load_explicit(&p->slot->epoch, memory_order_relaxed);
        t->epoch = epoch > t->epoch ? epoch : t->epoch;
        t->up_ns = p->ready_ns > t->up_ns ? p->ready_ns : t->up_ns;
        were_ready = were_ready && p->ready_ns;
    }
    if (!were_ready)
        t->up_ns = 0;
    snprintf(t->cause, sizeof t->cause, "loading");
    t->state = adopted_state(t);
    if (t->state == TEAM_UP)
        t->cause[0] = '\0';
    if (t->state == TEAM_DRAINING)
        stop_the_others(t);
    log_info("team=\"%s\" event=adopted state=%s epoch=%u", t->name, team_state_name(t->state),
             t->epoch);
}

bool team_is_up(const struct team *t)
{
    return t->state == TEAM_UP;
}

bool team_is_down(const struct team *t)
{
    return t->state == TEAM_DOWN;
}

const char *team_state_name(enum team_state s)
{
    static const char *const names[N_TEAM_STATES] = { "down",    "starting", "up",      "falling",
                                                      "backoff", "draining", "gpu_down" };
    return (unsigned)s < N_TEAM_STATES ? names[s] : "?";
}

const char *team_event_name(enum team_event ev)
{
    static const char *const names[N_TEAM_EVENTS] = { "start", "all_ready", "lost",    "gone",
                                                      "timer", "stop",      "hasten",  "restart",
                                                      "stuck", "gpu_bad",   "gpu_well" };
    return (unsigned)ev < N_TEAM_EVENTS ? names[ev] : "?";
}
