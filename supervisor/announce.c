/* announce.c - see announce.h. */
#include "supervisor/announce.h"

#include "common/arena.h"
#include "common/clock.h"
#include "common/log.h"
#include "supervisor/llmd.h"
#include "supervisor/runner.h"
#include "supervisor/status.h"

/* Whoever asks during a drain is refused, for nobody comes after us; but where the service manager holds the sockets
 * the next llmd does: there the gateway closes its doors, as for a successor, and clients wait in the backlog.  (Not
 * with drain_lead_s: who sets it wants load balancers to be told.) */
static bool refuses_in_drain(const struct llmd *l)
{
    return !listeners_are_activated(&l->listeners) || l->config.drain_lead_s > 0;
}

void announce_to_gateway(struct llmd *l)
{
    Llmd__Service service = LLMD__SERVICE__INIT;
    struct arena a = { 0 };

    if (kept_is_handing(&l->kept))
        return; /* behind the connections, which it waits for */
    service.draining = l->phase != LLMD_SERVING && refuses_in_drain(l);
    service.n_groups = l->n_groups;
    service.groups = arena_alloc(&a, l->n_groups * sizeof *service.groups);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        Llmd__Service__Group *one = arena_alloc(&a, sizeof *one);
        llmd__service__group__init(one);
        one->group = g;
        one->up = team_is_up(&l->groups[g]);
        one->cause = l->groups[g].cause;
        service.groups[g] = one;
    }
    runner_send(&l->gateway, MSG_SERVICE, &service);
    arena_fini(&a);
}

void announce_to_manager(struct llmd *l)
{
    struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
    char line[800];

    if (!l->was_ready && l->phase == LLMD_SERVING && team_is_up(&l->gateway) &&
        l->serving_epoch == l->gateway.epoch && llmd_groups_up(l) > 0) {
        l->was_ready = true;
        atomic_store_explicit(&slot->state, PROCESS_READY, memory_order_relaxed);
        log_info("event=ready model=\"%s\" listen=%s start_ms=%llu", l->config.model,
                 l->listeners.name[0],
                 (unsigned long long)((clock_mono_ns() - l->started_ns) / NS_PER_MS));
        notify_ready(&l->notify);
    }
    status_line(l, line, sizeof line);
    notify_status(&l->notify, line);
}
