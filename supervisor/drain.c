/* drain.c - see drain.h. */
#include "supervisor/drain.h"

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/announce.h"
#include "supervisor/llmd.h"

#define CLOSE_TIMEOUT_NS (5 * NS_PER_S) /* workers without a gateway have nobody to finish for */

static void stop_team(struct llmd *l, struct team *t, uint64_t deadline_ns)
{
    t->drain_deadline_ns = deadline_ns;
    if (t->state != TEAM_DRAINING)
        team_handle(t, TEAM_EV_STOP);
    if (l->haste > 1)
        team_handle(t, TEAM_EV_STOP); /* the first STOP asked, this one kills */
}

static bool was_forced(const struct team *t)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        if (t->members[i].was_forced)
            return true;
    return false;
}

/* The gateway is gone: nobody waits for the workers any more. */
static void close_groups(struct llmd *l)
{
    l->phase = LLMD_CLOSING;
    kept_drop_all(&l->kept);
    listeners_close(&l->listeners);
    for (uint32_t g = 0; g < l->n_groups; g++)
        stop_team(l, &l->groups[g], clock_mono_ns() + (l->haste ? 0 : CLOSE_TIMEOUT_NS));
}

static void finish_if_gone(struct llmd *l)
{
    bool forced = was_forced(&l->gateway);

    for (uint32_t g = 0; g < l->n_groups; g++) {
        if (!team_is_down(&l->groups[g]))
            return;
        forced = forced || was_forced(&l->groups[g]);
    }
    if (l->former.by_slot)
        return; /* drain_former_gone() comes back here */
    sd_event_exit(l->event, forced ? 1 : 0);
}

static void hasten(struct llmd *l)
{
    enum team_event ev = l->haste == 0 ? TEAM_EV_HASTEN : TEAM_EV_STOP;

    if (l->haste == 2)
        return;
    l->haste++;
    log_warning("event=drain_hastened, %s",
                l->haste == 1 ? "what runs is ended now" : "killing what is left");
    former_hasten(&l->former);
    team_handle(&l->gateway, ev);
    for (uint32_t g = 0; l->phase == LLMD_CLOSING && g < l->n_groups; g++)
        team_handle(&l->groups[g], ev);
}

void drain_begin(struct llmd *l, uint64_t deadline_ns)
{
    struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
    uint64_t now = clock_mono_ns();

    l->phase = LLMD_DRAINING;
    atomic_store(&slot->kept.deadline_ns, deadline_ns);
    atomic_store(&slot->state, PROCESS_DRAINING);
    notify_stopping(&l->notify, (deadline_ns > now ? deadline_ns - now : 0) + 2 * CLOSE_TIMEOUT_NS +
                                    5 * NS_PER_S);
    announce_to_gateway(l);
    stop_team(l, &l->gateway, deadline_ns);
}

void drain_ask(struct llmd *l)
{
    if (l->phase == LLMD_INSPECTING && l->former.by_slot && l->haste++ == 0) {
        log_info("event=drain, when the former processes have finished");
        notify_stopping(&l->notify, l->config.drain_timeout_s * NS_PER_S + 5 * NS_PER_S);
    } else if (l->phase == LLMD_INSPECTING) {
        notify_stopping(&l->notify, 0);
        sd_event_exit(l->event, 0);
    } else if (l->phase == LLMD_SERVING) {
        log_info("event=drain lead_s=%llu timeout_s=%llu",
                 (unsigned long long)l->config.drain_lead_s,
                 (unsigned long long)l->config.drain_timeout_s);
        drain_begin(l, clock_mono_ns() +
                           (l->config.drain_lead_s + l->config.drain_timeout_s) * NS_PER_S);
    } else {
        hasten(l);
    }
}

void drain_go_on(struct llmd *l)
{
    if (l->phase == LLMD_DRAINING && team_is_down(&l->gateway))
        close_groups(l);
    if (l->phase == LLMD_CLOSING)
        finish_if_gone(l);
}

void drain_former_gone(struct llmd *l)
{
    if (l->phase == LLMD_CLOSING)
        finish_if_gone(l);
}
