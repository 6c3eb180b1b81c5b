/* hang.c - judge by the board, kill by process_kill(): what follows is an ordinary crash.
 *
 * llmd's tick looks once a second, which is all that an idle service costs.  While a worker is in a step, or
 * between two, the timer wakes us when that would be too long: a worker that gets its steps done is looked at once per
 * limit, however many it makes.
 *
 * When the look comes late, llmd itself or the whole machine has stood still (SIGSTOP, a suspended guest): the
 * ages on the board then say nothing about the others, and everybody gets a new chance. */
#include "supervisor/hang.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/llmd.h"

#define HANG_STEP_NS    (30 * NS_PER_S)
#define BUSY_SILENCE_NS (2 * NS_PER_S)
#define LATE_NS         (1 * NS_PER_S) /* half of what the shortest limit is by default */
#define TICK_NS         (1 * NS_PER_S) /* llmd's, at the latest */
#define LOOK_MIN_NS     (100 * NS_PER_MS)
#define TIMER_SLACK_US  10000

/* In the order of the calls: the worker ends a step by heartbeat, step, limit. */
static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A worker with sequences to compute shows life at each of its turns, others once a second. */
static uint64_t silence_limit_ns(const struct config *c, bool is_busy)
{
    return is_busy ? later(c->hang_step_ms * NS_PER_MS, BUSY_SILENCE_NS)
                   : c->hang_timeout_s * NS_PER_S;
}

struct hang_verdict hang_judge(const struct board_slot *slot, const struct config *c,
                               uint64_t now_ns, uint64_t chance_ns)
{
    uint64_t step_ns = load(&slot->step_started_ns), limit_ns = load(&slot->step_limit_ns);
    uint64_t since_ns = later(step_ns ? step_ns : load(&slot->heartbeat_ns), chance_ns);
    struct hang_verdict v = { .is_busy = step_ns != 0 ||
                                         stat_get(&slot->stats, STAT_sequences_running) > 0 };

    if (step_ns == 0)
        limit_ns = silence_limit_ns(c, v.is_busy);
    else if (limit_ns == 0)
        limit_ns = HANG_STEP_NS;
    v.due_ns = since_ns + limit_ns;
    /* a step that ended just now may have left us with its start and without its limit */
    v.is_hung = now_ns > v.due_ns && load(&slot->step_started_ns) == step_ns;
    if (v.is_hung)
        snprintf(v.why, sizeof v.why, "%s %.1f s, limit %.1f s",
                 step_ns ? "step running for" : "no sign of life for",
                 (double)(now_ns - since_ns) / NS_PER_S, (double)limit_ns / NS_PER_S);
    return v;
}

/* Returns when to look again; UINT64_MAX = at the tick. */
static uint64_t look_at(struct process *p, uint64_t now_ns, uint64_t chance_ns)
{
    struct hang_verdict v;

    if (p->state != PROCESS_READY || p->last_signal == SIGKILL)
        return UINT64_MAX;
    v = hang_judge(p->slot, p->config, now_ns, later(p->ready_ns, chance_ns));
    if (!v.is_hung)
        return v.is_busy ? v.due_ns : UINT64_MAX;
    log_error("process=\"%s\" event=hung cause=\"%s\", killing it", p->slot->name, v.why);
    stat_add(p->counts, STAT_processes_hung, 1);
    process_kill(p, v.why);
    return UINT64_MAX;
}

static uint64_t look_at_team(struct team *t, uint64_t now_ns, uint64_t chance_ns)
{
    uint64_t next_ns = UINT64_MAX;

    for (uint32_t i = 0; i < t->n_members; i++)
        next_ns = earlier(next_ns, look_at(&t->members[i], now_ns, chance_ns));
    return next_ns;
}

static void see_whether_late(struct hang_watch *w, uint64_t now_ns)
{
    if (w->expected_ns == 0 || now_ns <= w->expected_ns + LATE_NS)
        return;
    log_warning("event=stood_still late_ms=%llu, watching for hangs anew",
                (unsigned long long)((now_ns - w->expected_ns) / NS_PER_MS));
    w->chance_ns = now_ns;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
    struct llmd *l = arg;

    (void)source, (void)usec;
    hang_look(&l->hang, l);
    return 0;
}

bool hang_open(struct hang_watch *w, struct llmd *l, struct err *e)
{
    int r;

    *w = (struct hang_watch){ 0 };
    r = sd_event_add_time(l->event, &w->timer, CLOCK_MONOTONIC, 0, TIMER_SLACK_US, on_timer, l);
    if (r >= 0)
        r = sd_event_source_set_enabled(w->timer, SD_EVENT_OFF);
    return r >= 0 || err_set(e, ERR_SYS, -r, "watch for hangs");
}

void hang_close(struct hang_watch *w)
{
    w->timer = sd_event_source_disable_unref(w->timer);
}

void hang_look(struct hang_watch *w, struct llmd *l)
{
    uint64_t now_ns = clock_mono_ns(), next_ns;

    see_whether_late(w, now_ns);
    next_ns = look_at_team(&l->gateway, now_ns, w->chance_ns);
    for (uint32_t g = 0; g < l->n_groups; g++)
        next_ns = earlier(next_ns, look_at_team(&l->groups[g], now_ns, w->chance_ns));
    /* a step that begins after this look must not be overdue at the next one */
    next_ns = earlier(next_ns, now_ns + later(l->config.hang_step_ms * NS_PER_MS, LOOK_MIN_NS));
    w->expected_ns = now_ns + TICK_NS;
    if (next_ns >= w->expected_ns) {
        sd_event_source_set_enabled(w->timer, SD_EVENT_OFF);
        return;
    }
    w->expected_ns = next_ns;
    sd_event_source_set_time(w->timer, next_ns / 1000 + 1);
    sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
}
