/* team.c - start, stop and restart processes that depend on each other. */
#include "supervisor/team.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "supervisor/boot.h"
#include "supervisor/llmd.h"

bool team_init(struct team *t, struct llmd *l, enum team_kind kind, uint32_t group, uint32_t n)
{
    *t = (struct team){ .llmd = l, .kind = kind, .group = group, .n = n };
    t->program = kind == TEAM_GATEWAY ? "llm-gateway" : "llm-worker";
    t->processes = mem_zalloc(n, sizeof *t->processes);
    for (uint32_t r = 0; r < n; r++) {
        char name[32] = "gateway";
        uint32_t slot = BOARD_SLOT_GATEWAY;
        if (kind == TEAM_GROUP) {
            snprintf(name, sizeof name, "worker %u.%u", group, r);
            slot = board_rank_slot(&l->segments.board, group, r);
        }
        process_init(&t->processes[r], t, name, slot, r);
    }
    return true;
}

void team_fini(struct team *t)
{
    t->timer = sd_event_source_disable_unref(t->timer);
    for (uint32_t r = 0; r < t->n; r++)
        process_fini(&t->processes[r]);
    free(t->processes);
    t->processes = NULL;
    t->n = 0;
}

static void handle_all(struct team *t, enum process_event ev)
{
    for (uint32_t r = 0; r < t->n; r++)
        process_handle(&t->processes[r], ev);
}

static bool all_in(const struct team *t, enum process_state s)
{
    for (uint32_t r = 0; r < t->n; r++)
        if (t->processes[r].state != s)
            return false;
    return true;
}

void team_start(struct team *t)
{
    t->timer = sd_event_source_disable_unref(t->timer);
    t->epoch++;
    t->n_weights_ready = 0;
    t->restart_asked = false;
    handle_all(t, PROCESS_EV_START);
    for (uint32_t r = 0; r < t->n; r++) /* one could not even be started: none stays */
        if (t->processes[r].state == PROCESS_BACKOFF)
            handle_all(t, PROCESS_EV_KILL);
}

void team_stop(struct team *t)
{
    t->stopping = true;
    t->timer = sd_event_source_disable_unref(t->timer);
    handle_all(t, PROCESS_EV_STOP);
}

void team_restart(struct team *t)
{
    if (t->stopping || t->epoch == 0)
        return;
    t->restart_asked = true;
    if (all_in(t, PROCESS_BACKOFF))
        team_start(t);
    else
        handle_all(t, PROCESS_EV_KILL);
}

bool team_is_ready(const struct team *t)
{
    return all_in(t, PROCESS_READY);
}

bool team_is_down(const struct team *t)
{
    return all_in(t, PROCESS_DOWN);
}

void team_cause(const struct team *t, char *out, size_t n)
{
    snprintf(out, n, "%s", t->epoch == 0 ? "not started yet" : "starting");
    for (uint32_t r = 0; r < t->n; r++) {
        const struct process *p = &t->processes[r];
        if (p->state != PROCESS_READY && p->last_exit[0]) {
            snprintf(out, n, "%s: %s", p->name, p->last_exit);
            return;
        }
    }
}

void team_boot(struct team *t, struct process *p)
{
    struct err e = { 0 };

    if (!boot_send(t->llmd, t, p, &e))
        log_warning("process=\"%s\" event=boot_failed cause=\"%s\", its start timeout will end it",
                    p->name, e.msg);
}

void team_process_ready(struct team *t, struct process *p)
{
    (void)p;
    if (team_is_ready(t))
        backoff_service(&t->backoff, clock_mono_ns());
    llmd_team_changed(t->llmd, t);
}

static int on_backoff_over(sd_event_source *s, uint64_t usec, void *arg)
{
    struct team *t = arg;

    (void)s, (void)usec;
    team_start(t);
    llmd_team_changed(t->llmd, t);
    return 0;
}

static void wait_and_start(struct team *t)
{
    uint64_t pause_ns = backoff_death(&t->backoff, &t->llmd->config, clock_mono_ns());

    log_info("team=%s group=%u event=backoff pause_ms=%llu deaths=%u", t->program, t->group,
             (unsigned long long)(pause_ns / NS_PER_MS), t->backoff.n_deaths);
    sd_event_add_time(t->llmd->event, &t->timer, CLOCK_MONOTONIC,
                      (clock_mono_ns() + pause_ns) / 1000, 1000, on_backoff_over, t);
}

/* One has ended unasked or was killed: all must end before any starts again. */
void team_process_ended(struct team *t, struct process *p)
{
    p->restarts++;
    atomic_store(&board_slot(&t->llmd->segments.board, p->slot)->restarts, p->restarts);
    p->state = PROCESS_BACKOFF;
    if (!all_in(t, PROCESS_BACKOFF)) {
        for (uint32_t r = 0; r < t->n; r++)
            if (&t->processes[r] != p)
                process_handle(&t->processes[r], PROCESS_EV_KILL);
    } else if (t->restart_asked) {
        team_start(t);
    } else if (!t->timer) {
        wait_and_start(t);
    }
    llmd_team_changed(t->llmd, t);
}

void team_process_stopped(struct team *t, struct process *p)
{
    (void)p;
    llmd_team_changed(t->llmd, t);
}

void team_weights_ready(struct team *t, struct process *p)
{
    (void)p;
    t->n_weights_ready++;
    llmd_team_changed(t->llmd, t);
}
