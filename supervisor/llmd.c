/* llmd.c - bring everything up in order, watch, and bring it down in order.
 *
 * Up: lock the runtime folder, listen, ask the worker what the model needs, make the segments, start the
 * gateway and group 0; the other groups follow when the weights are there to be mapped.  Down: the gateway
 * drains first, with the workers still computing for it, then the workers. */
#include "supervisor/llmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "supervisor/boot.h"
#include "supervisor/notify.h"
#include "supervisor/status.h"

/* ---- what the children are told ---- */

static bool any_group_ready(const struct llmd *l)
{
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (team_is_ready(&l->groups[g]))
            return true;
    return false;
}

static bool all_groups_ready(const struct llmd *l)
{
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (!team_is_ready(&l->groups[g]))
            return false;
    return l->n_groups > 0;
}

static void tell_gateway(struct llmd *l)
{
    Llmd__Service service = LLMD__SERVICE__INIT;
    Llmd__Service__Group **pointers = mem_zalloc(l->n_groups, sizeof *pointers);
    Llmd__Service__Group *groups = mem_zalloc(l->n_groups, sizeof *groups);
    char(*causes)[320] = mem_zalloc(l->n_groups, sizeof *causes);

    for (uint32_t g = 0; g < l->n_groups; g++) {
        llmd__service__group__init(&groups[g]);
        groups[g].group = g;
        groups[g].up = team_is_ready(&l->groups[g]);
        if (!groups[g].up)
            team_cause(&l->groups[g], causes[g], sizeof causes[g]);
        groups[g].cause = causes[g];
        pointers[g] = &groups[g];
    }
    service.n_groups = l->n_groups;
    service.groups = pointers;
    service.draining = l->phase == LLMD_DRAINING;
    process_send(&l->gateway.processes[0], MSG_SERVICE, &service);
    free(pointers);
    free(groups);
    free(causes);
}

/* ---- what follows from a change ---- */

const char *llmd_state(const struct llmd *l)
{
    if (l->phase == LLMD_DRAINING)
        return "draining";
    if (l->phase == LLMD_SERVING && team_is_ready(&l->gateway)) {
        if (all_groups_ready(l))
            return "ready";
        if (any_group_ready(l) && l->was_ready)
            return "degraded";
    }
    return l->was_ready ? "down" : "starting";
}

static void announce(struct llmd *l)
{
    char line[800];

    status_line(l, line, sizeof line);
    notify_status("%s", line);
    if (!l->was_ready && team_is_ready(&l->gateway) && any_group_ready(l)) {
        l->was_ready = true;
        log_info("event=ready model=\"%s\" listen=%s start_ms=%llu", l->config.model,
                 l->listeners.name[0],
                 (unsigned long long)((clock_mono_ns() - l->started_ns) / NS_PER_MS));
        notify_ready();
    }
}

/* Weights are loaded by group 0; the others map what it made. */
static void start_followers(struct llmd *l)
{
    const struct team *first = &l->groups[0];

    if (!team_is_ready(first) && first->n_weights_ready < first->n)
        return;
    for (uint32_t g = 1; g < l->n_groups; g++)
        if (l->groups[g].epoch == 0)
            team_start(&l->groups[g]);
}

static void drain_on(struct llmd *l)
{
    bool all_down = true;

    if (!team_is_down(&l->gateway))
        return;
    listeners_close(&l->listeners);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        if (!l->groups[g].stopping)
            team_stop(&l->groups[g]);
        all_down = all_down && team_is_down(&l->groups[g]);
    }
    if (all_down)
        sd_event_exit(l->event, 0);
}

void llmd_team_changed(struct llmd *l, struct team *t)
{
    if (l->phase == LLMD_DRAINING) {
        if (t != &l->gateway)
            tell_gateway(l);
        drain_on(l);
        return;
    }
    start_followers(l);
    tell_gateway(l);
    announce(l);
}

/* ---- commands ---- */

void llmd_drain(struct llmd *l)
{
    if (l->phase == LLMD_INSPECTING) {
        sd_event_exit(l->event, 0);
        return;
    }
    if (l->phase != LLMD_DRAINING) {
        log_info("event=drain timeout_s=%llu", (unsigned long long)l->config.drain_timeout_s);
        l->phase = LLMD_DRAINING;
        atomic_store(&l->segments.board.hdr->draining, 1);
        notify_stopping();
        tell_gateway(l);
        team_stop(&l->gateway);
    } else {
        log_info("event=drain_hastened");
        team_stop(&l->gateway);
        for (uint32_t g = 0; g < l->n_groups; g++)
            team_stop(&l->groups[g]);
    }
    drain_on(l);
}

static void send_reload(struct llmd *l)
{
    Llmd__Reload reload;

    boot_fill_live(&l->config, &reload);
    process_send(&l->gateway.processes[0], MSG_RELOAD, &reload);
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t r = 0; r < l->groups[g].n; r++)
            process_send(&l->groups[g].processes[r], MSG_RELOAD, &reload);
    boot_free_live(&reload);
}

/* Take over LIVE settings of `fresh`; name the others that differ. */
static void take_live(struct llmd *l, const struct config *fresh)
{
    char old_value[CONFIG_TEXT_BYTES], new_value[CONFIG_TEXT_BYTES];

    for (int i = 0; i < N_CONFIG; i++) {
        enum config_id id = (enum config_id)i;
        config_value(&l->config, id, old_value, sizeof old_value);
        config_value(fresh, id, new_value, sizeof new_value);
        if (strcmp(old_value, new_value) == 0 || id == CONFIG_runtime_dir)
            continue;
        if (config_is_live(id)) {
            log_info("event=setting_changed name=%s from=\"%s\" to=\"%s\"", config_name(id),
                     old_value, new_value);
            config_set(&l->config, config_name(id), new_value, fresh->source[i], NULL);
        } else {
            log_warning("event=setting_needs_restart name=%s from=\"%s\" to=\"%s\", ignoring",
                        config_name(id), old_value, new_value);
        }
    }
}

void llmd_reload(struct llmd *l)
{
    struct config *fresh = mem_zalloc(1, sizeof *fresh);
    struct err e = { 0 };

    notify_reloading();
    if (!options_apply(&l->options, fresh, &e)) {
        log_error("event=reload_failed cause=\"%s\"", e.msg);
    } else {
        take_live(l, fresh);
        log_set_level(config_log_level(&l->config));
        if (l->phase != LLMD_INSPECTING)
            send_reload(l);
    }
    notify_ready();
    free(fresh);
}

static int on_stop_signal(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    (void)s;
    log_info("event=signal number=%u", info->ssi_signo);
    llmd_drain(arg);
    return 0;
}

static int on_reload_signal(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    (void)s, (void)info;
    llmd_reload(arg);
    return 0;
}

/* ---- up ---- */

static void on_plan(void *arg, Llmd__ModelPlan *plan, const struct err *why)
{
    struct llmd *l = arg;
    struct err e = { 0 };

    if (!plan) {
        log_error("event=model_refused model=\"%s\" cause=\"%s\"", l->config.model, why->msg);
        sd_event_exit(l->event, 1);
        return;
    }
    l->plan = plan;
    if (!segments_create(&l->segments, &l->config, plan, l->instance, &e)) {
        log_error("event=start_failed cause=\"%s\"", e.msg);
        sd_event_exit(l->event, 1);
        return;
    }
    l->phase = LLMD_SERVING;
    atomic_store(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->pid, (uint32_t)getpid());
    atomic_store(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->started_ns, l->started_ns);
    team_init(&l->gateway, l, TEAM_GATEWAY, 0, 1);
    l->groups = mem_zalloc(l->config.groups, sizeof *l->groups);
    for (; l->n_groups < l->config.groups; l->n_groups++)
        team_init(&l->groups[l->n_groups], l, TEAM_GROUP, l->n_groups, (uint32_t)l->config.tp_size);
    notify_extend_start(l->config.start_timeout_s);
    team_start(&l->groups[0]);
    team_start(&l->gateway);
}

static bool add_signals(struct llmd *l)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return sd_event_add_signal(l->event, NULL, SIGTERM, on_stop_signal, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGINT, on_stop_signal, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGHUP, on_reload_signal, l) >= 0;
}

static bool bring_up(struct llmd *l, struct err *e)
{
    char dir[CONFIG_TEXT_BYTES];

    if (!runtime_dir_resolve(&l->config, dir, sizeof dir, e) ||
        !config_set(&l->config, "runtime_dir", dir, l->config.source[CONFIG_runtime_dir], e))
        return false;
    l->runtime_dir_fd = runtime_dir_open(dir, e);
    if (l->runtime_dir_fd < 0)
        return false;
    if (getrandom(&l->instance, sizeof l->instance, 0) != sizeof l->instance)
        return err_set(e, ERR_SYS, errno, "draw a random number");
    if (sd_event_default(&l->event) < 0 || !add_signals(l))
        return err_set(e, ERR_SYS, errno, "make the event loop");
    sd_event_set_watchdog(l->event, true);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return listeners_open(&l->listeners, &l->config, e) &&
           control_server_open(&l->control, l, dir, e) &&
           inspect_start(&l->inspect, l->event, &l->config, on_plan, l, e);
}

static void take_down(struct llmd *l)
{
    inspect_stop(&l->inspect);
    if (l->n_groups)
        team_fini(&l->gateway);
    for (uint32_t g = 0; g < l->n_groups; g++)
        team_fini(&l->groups[g]);
    free(l->groups);
    control_server_close(&l->control);
    listeners_close(&l->listeners);
    segments_close(&l->segments);
    if (l->plan)
        frame_free_body(l->plan);
    sd_event_unref(l->event);
    if (l->runtime_dir_fd >= 0) {
        runtime_dir_remove(l->config.runtime_dir);
        close(l->runtime_dir_fd);
    }
}

int llmd_run(struct llmd *l)
{
    struct err e = { 0 };
    int code = 1;

    l->runtime_dir_fd = -1;
    l->control.fd = -1;
    l->started_ns = clock_mono_ns();
    log_info("event=start version=%s model=\"%s\" groups=%llu tp_size=%llu", LLMD_VERSION,
             l->config.model, (unsigned long long)l->config.groups,
             (unsigned long long)l->config.tp_size);
    if (bring_up(l, &e)) {
        notify_status("starting: reading the model");
        code = sd_event_loop(l->event);
    } else {
        log_error("event=start_failed cause=\"%s\"", e.msg);
    }
    take_down(l);
    log_info("event=end exit_code=%d", code);
    return code;
}
