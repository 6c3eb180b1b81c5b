/* llmd.c - bring everything up in order, watch, and bring it down in order.
 *
 * Up: lock the runtime folder, listen, ask the worker what the model needs, make the segments, start the
 * gateway and group 0; the other groups follow when the weights are there to be mapped.  Down: the gateway
 * drains first, with the workers still computing for it, then the workers.
 *
 * llmd sleeps until something happens, but for one tick a second: its heartbeat on the board, and the
 * sample that tokens per second are measured from. */
#include "supervisor/llmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/api_keys.h"
#include "common/arena.h"
#include "common/clock.h"
#include "common/fault_point.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "supervisor/adopt.h"
#include "supervisor/boot.h"
#include "supervisor/holdings.h"
#include "supervisor/runner.h"
#include "supervisor/state.h"
#include "supervisor/status.h"

#define TICK_NS            (900 * NS_PER_MS) /* with the loop's slack less than a second */
#define TICK_SLACK_US      (100 * 1000)
#define CLOSE_TIMEOUT_NS   (5 * NS_PER_S) /* workers without a gateway have nobody to finish for */
#define START_EXTENSION_NS (15 * NS_PER_S)

/* ---- what the children and the service manager are told ---- */

uint32_t llmd_groups_up(const struct llmd *l)
{
    uint32_t n = 0;

    for (uint32_t g = 0; g < l->n_groups; g++)
        n += team_is_up(&l->groups[g]);
    return n;
}

const char *llmd_state(const struct llmd *l)
{
    uint32_t up = llmd_groups_up(l);

    if (l->phase == LLMD_DRAINING || l->phase == LLMD_CLOSING)
        return "draining";
    if (!l->was_ready)
        return "starting";
    if (upgrade_is_on(l))
        return "upgrading";
    if (!team_is_up(&l->gateway) || up == 0)
        return "down";
    return up == l->n_groups ? "ready" : "degraded";
}

/* Whoever asks during a drain is refused, for nobody comes after us; but where the service manager holds the sockets
 * the next llmd does: there the gateway closes its doors, as for a successor, and clients wait in the backlog.  (Not
 * with drain_lead_s: who sets it wants load balancers to be told.) */
static bool refuses_in_drain(const struct llmd *l)
{
    return !listeners_are_activated(&l->listeners) || l->config.drain_lead_s > 0;
}

/* Which groups are up.  It is a state, not an event: when the gateway does not read just now, it is
 * made and sent again when it does (llmd_writable). */
static void tell_gateway(struct llmd *l)
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

static void announce(struct llmd *l)
{
    struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
    char line[800];

    if (!l->was_ready && l->phase == LLMD_SERVING && team_is_up(&l->gateway) &&
        llmd_groups_up(l) > 0) {
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

/* ---- what follows from news ---- */

/* Weights are loaded by group 0; the others map what it made. */
static void start_followers(struct llmd *l)
{
    uint64_t all = UINT64_MAX >> (64 - l->config.tp_size);

    if (team_is_up(&l->groups[0]))
        l->weights_ready = all;
    if (l->weights_ready != all)
        return;
    for (uint32_t g = 1; g < l->n_groups; g++)
        if (team_is_down(&l->groups[g]))
            team_handle(&l->groups[g], TEAM_EV_START);
}

/* With --gateway-last it has not been started yet. */
static void start_gateway(struct llmd *l)
{
    if (team_is_down(&l->gateway) && llmd_groups_up(l) > 0)
        team_handle(&l->gateway, TEAM_EV_START);
}

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
        return; /* llmd_former_gone() comes back here */
    sd_event_exit(l->event, forced ? 1 : 0);
}

void llmd_team_changed(struct llmd *l, struct team *t)
{
    if (t != &l->gateway)
        tell_gateway(l);
    if (l->phase == LLMD_SERVING) {
        start_followers(l);
        start_gateway(l);
    }
    if (l->phase == LLMD_DRAINING && team_is_down(&l->gateway))
        close_groups(l);
    if (l->phase == LLMD_CLOSING)
        finish_if_gone(l);
    upgrade_go_on(l);
    announce(l);
}

void llmd_former_gone(struct llmd *l)
{
    if (l->phase == LLMD_CLOSING)
        finish_if_gone(l);
}

void llmd_weights_ready(struct llmd *l, const struct process *p)
{
    if (p->team != &l->groups[0] || l->phase != LLMD_SERVING)
        return;
    l->weights_ready |= 1ull << p->rank;
    start_followers(l);
}

/* What a new gateway is told behind BOOT, in this order: connections, then SERVICE. */
static void tell_new_gateway(struct llmd *l, struct process *p)
{
    if (!kept_is_handing(&l->kept) || kept_hand(&l->kept, &p->child))
        tell_gateway(l);
}

void llmd_spawned(struct llmd *l, struct process *p)
{
    if (p->team == &l->gateway)
        tell_new_gateway(l, p);
}

void llmd_writable(struct llmd *l, struct process *p)
{
    if (p->team == &l->gateway)
        tell_new_gateway(l, p);
}

void llmd_ended(struct llmd *l, const struct process *p)
{
    if (p->team != &l->gateway)
        return;
    kept_end_handing(&l->kept);
    kept_store_all(&l->kept);
}

/* ---- orders ---- */

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

static void begin_drain(struct llmd *l, uint64_t deadline_ns)
{
    struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
    uint64_t now = clock_mono_ns();

    l->phase = LLMD_DRAINING;
    atomic_store(&slot->kept.deadline_ns, deadline_ns);
    atomic_store(&slot->state, PROCESS_DRAINING);
    notify_stopping(&l->notify, (deadline_ns > now ? deadline_ns - now : 0) + 2 * CLOSE_TIMEOUT_NS +
                                    5 * NS_PER_S);
    tell_gateway(l);
    stop_team(l, &l->gateway, deadline_ns);
}

void llmd_drain(struct llmd *l)
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
        begin_drain(l, clock_mono_ns() +
                           (l->config.drain_lead_s + l->config.drain_timeout_s) * NS_PER_S);
    } else {
        hasten(l);
    }
}

/* Take over the LIVE settings of `fresh` that differ, noting them in *changed; name the others. */
static void take_live(struct llmd *l, const struct config *fresh, struct boot_settings *changed)
{
    char old_value[CONFIG_TEXT_BYTES], new_value[CONFIG_TEXT_BYTES];

    for (int i = 0; i < N_CONFIG; i++) {
        enum config_id id = (enum config_id)i;
        config_value(&l->config, id, old_value, sizeof old_value);
        config_value(fresh, id, new_value, sizeof new_value);
        if (strcmp(old_value, new_value) == 0)
            continue;
        if (!config_is_live(id)) {
            log_warning("setting=%s from=\"%s\" to=\"%s\" takes effect when llmd is restarted, "
                        "ignoring it now",
                        config_name(id), old_value, new_value);
            continue;
        }
        config_shown_value(&l->config, id, old_value, sizeof old_value);
        config_set(&l->config, config_name(id), new_value, fresh->source[i], NULL);
        config_shown_value(&l->config, id, new_value, sizeof new_value);
        log_info("setting=%s from=\"%s\" to=\"%s\" source=\"%s\"", config_name(id), old_value,
                 new_value, fresh->source[i]);
        boot_add_setting(changed, &l->config, id);
    }
}

/* The gateway is told even when no setting has changed: it reads its file of keys again. */
static void send_reload(struct llmd *l, struct boot_settings *changed)
{
    Llmd__Reload reload = LLMD__RELOAD__INIT;

    if (changed->n == 0 && !l->config.api_keys_file[0])
        return;
    reload.n_settings = changed->n;
    reload.settings = changed->pointer;
    runner_send(&l->gateway, MSG_RELOAD, &reload);
    for (uint32_t g = 0; changed->n > 0 && g < l->n_groups; g++)
        runner_send(&l->groups[g], MSG_RELOAD, &reload);
}

/* Put before the older one is removed, so that there is always one. */
static bool write_state(struct llmd *l, struct err *e)
{
    const struct state state = { .instance = l->instance,
                                 .serial = l->state_serial + 1,
                                 .config = &l->config,
                                 .plan = l->plan };
    int fd = state_make(&state, e);

    if (fd < 0)
        return false;
    if (l->state_fd >= 0) {
        fdstore_put(&l->store, state_name(state.serial), fd, false);
        fdstore_remove(&l->store, state_name(l->state_serial));
        close(l->state_fd);
    }
    l->state_fd = fd;
    l->state_serial++;
    return true;
}

void llmd_take_settings(struct llmd *l, const struct config *fresh)
{
    struct boot_settings *changed = mem_zalloc(1, sizeof *changed);
    struct err e = { 0 };

    take_live(l, fresh, changed);
    log_set_level(config_log_level(&l->config));
    if (!fault_points_set(l->config.fault_points, l->epoch, &e))
        log_warning("%s, arming none", e.msg);
    send_reload(l, changed);
    if (changed->n > 0 && l->state_fd >= 0 && !write_state(l, &e))
        log_warning("%s, the old one stays", e.msg);
    free(changed);
}

/* The gateway would keep the old keys, and only its log would say why. */
static bool keys_can_be_read(const struct config *c, struct err *e)
{
    struct api_keys keys;

    if (!c->api_keys_file[0])
        return true;
    if (!api_keys_read(&keys, c->api_keys_file, e))
        return false;
    api_keys_fini(&keys);
    return true;
}

bool llmd_reload(struct llmd *l, struct err *e)
{
    struct config *fresh = mem_zalloc(1, sizeof *fresh);
    bool ok;

    if (l->was_ready)
        notify_reloading(&l->notify);
    ok = options_apply(&l->options, fresh, e) && keys_can_be_read(fresh, e);
    if (ok)
        llmd_take_settings(l, fresh);
    else
        log_error("event=reload_failed error=\"%s\", keeping the old settings", e->msg);
    if (l->was_ready)
        notify_ready(&l->notify);
    free(fresh);
    return ok;
}

/* ---- signals and time ---- */

static int on_stop_signal(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    (void)s;
    log_info("signal=%u from_pid=%u", info->ssi_signo, info->ssi_pid);
    llmd_drain(arg);
    return 0;
}

/* SIGHUP is the operator's order to reload, and what the kernel sends when the terminal that llmd was
 * started on is closed: then nobody is left to end it. */
static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    struct llmd *l = arg;
    struct err e = { 0 };

    (void)s, (void)info;
    if (l->on_terminal && !isatty(STDERR_FILENO))
        llmd_drain(l);
    else
        llmd_reload(l, &e);
    return 0;
}

static struct child *find_child(struct llmd *l, pid_t pid)
{
    if (l->inspect.capture.child.pid == pid)
        return &l->inspect.capture.child;
    if (l->upgrade.probe.child.pid == pid)
        return &l->upgrade.probe.child;
    for (uint32_t i = 0; i < l->gateway.n_members; i++)
        if (l->gateway.members[i].child.pid == pid)
            return &l->gateway.members[i].child;
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = 0; i < l->groups[g].n_members; i++)
            if (l->groups[g].members[i].child.pid == pid)
                return &l->groups[g].members[i].child;
    return NULL;
}

/* llmd is a subreaper: whatever its children leave behind ends up here and must not stay a zombie.  Our
 * own are reported by their pidfds as well; who comes first takes the exit. */
static int on_child_signal(sd_event_source *s, const struct signalfd_siginfo *signal_info,
                           void *arg)
{
    struct llmd *l = arg;

    (void)s, (void)signal_info;
    for (;;) {
        siginfo_t info = { 0 };
        struct child *c;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return 0;
        c = find_child(l, info.si_pid);
        if (c) {
            child_reap(c);
        } else {
            log_debug("pid=%d event=stranger_reaped", (int)info.si_pid);
            waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
        }
    }
}

/* A first start that goes well may take long; one that fails and is tried again is not extended, so
 * that the service manager's own timeout counts. */
static void extend_start(struct llmd *l)
{
    if (!l->was_ready && l->n_groups && l->groups[0].epoch == 1 &&
        l->groups[0].state == TEAM_STARTING)
        notify_extend(&l->notify, START_EXTENSION_NS);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg)
{
    struct llmd *l = arg;
    uint64_t now = clock_mono_ns();

    (void)usec;
    sd_event_source_set_time_relative(source, TICK_NS / 1000);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    extend_start(l);
    notify_flush(&l->notify);
    fdstore_flush(&l->store);
    if (!l->segments.board.hdr)
        return 0;
    atomic_store_explicit(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->heartbeat_ns, now,
                          memory_order_relaxed);
    hang_look(&l->hang, l);
    for (uint32_t g = 0; g < l->n_groups; g++)
        rate_sample(&l->rates[g], now, status_generated_tokens(l, g));
    kept_sweep(&l->kept);
    return 0;
}

/* ---- up ---- */

bool llmd_make_teams(struct llmd *l, struct err *e)
{
    uint32_t n = (uint32_t)l->config.groups;

    if (!runner_init(&l->gateway, l, TEAM_GATEWAY, 0, 1, e))
        return false;
    l->groups = mem_zalloc(n, sizeof *l->groups);
    l->rates = mem_zalloc(n, sizeof *l->rates);
    for (l->n_groups = 0; l->n_groups < n; l->n_groups++)
        if (!runner_init(&l->groups[l->n_groups], l, TEAM_GROUP, l->n_groups,
                         (uint32_t)l->config.tp_size, e))
            return false;
    return true;
}

void llmd_on_board(struct llmd *l)
{
    struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);

    strcpy(slot->name, "llmd");
    l->epoch = atomic_fetch_add(&slot->epoch, 1) + 1;
    atomic_store(&slot->restarts, l->epoch - 1);
    atomic_store(&slot->pid, (uint32_t)getpid());
    atomic_store(&slot->started_ns, l->started_ns);
    atomic_store(&slot->heartbeat_ns, clock_mono_ns());
    log_set_tap(board_log_line, slot);
}

static bool start_service(struct llmd *l, struct err *e)
{
    if (!segments_create(&l->segments, &l->config, l->plan, l->instance, e))
        return false;
    llmd_on_board(l);
    atomic_store(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->state, PROCESS_STARTING);
    if (!fault_points_set(l->config.fault_points, l->epoch, e))
        return false;
    if (!kept_init(&l->kept, &l->segments.connections, &l->store, l->event, e) ||
        !write_state(l, e) || !llmd_make_teams(l, e))
        return false;
    holdings_store(l);
    l->phase = LLMD_SERVING;
    team_handle(&l->groups[0], TEAM_EV_START); /* the slower one first */
    if (!l->options.gateway_last)
        team_handle(&l->gateway, TEAM_EV_START);
    return true;
}

/* It may have died between any two steps of start_service(), llmd_drain() and close_groups(). */
void llmd_go_on(struct llmd *l, enum process_state was)
{
    l->phase = LLMD_SERVING;
    l->was_ready = was != PROCESS_STARTING;
    if (was == PROCESS_DRAINING) {
        const struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
        begin_drain(l, atomic_load(&slot->kept.deadline_ns));
    } else {
        if (l->was_ready)
            notify_ready(&l->notify);
        tell_gateway(l);
        if (team_is_down(&l->groups[0]))
            team_handle(&l->groups[0], TEAM_EV_START);
        if (team_is_down(&l->gateway))
            team_handle(&l->gateway, TEAM_EV_START);
    }
    llmd_team_changed(l, &l->gateway);
}

/* Say why where the operator looks: log, and `systemctl status`. */
static void give_up(struct llmd *l, const struct err *why)
{
    char line[CONFIG_TEXT_BYTES + sizeof why->msg + 32];

    snprintf(line, sizeof line, "cannot serve model '%s': %s", l->config.model, why->msg);
    log_error("%s", line);
    notify_status(&l->notify, line);
    sd_event_exit(l->event, 1);
}

static void on_plan(void *arg, Llmd__ModelPlan *plan, const struct err *why)
{
    struct llmd *l = arg;
    struct err e = { 0 };

    l->plan = plan;
    if (!plan)
        give_up(l, why);
    else if (!start_service(l, &e))
        give_up(l, &e);
}

static bool add_signals(struct llmd *l)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return sd_event_add_signal(l->event, NULL, SIGTERM, on_stop_signal, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGINT, on_stop_signal, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGHUP, on_hangup, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGCHLD, on_child_signal, l) >= 0;
}

static bool make_loop(struct llmd *l, struct err *e)
{
    if (sd_event_new(&l->event) < 0 || !add_signals(l) ||
        sd_event_add_time_relative(l->event, &l->tick, CLOCK_MONOTONIC, TICK_NS / 1000,
                                   TICK_SLACK_US, on_tick, l) < 0)
        return err_set(e, ERR_SYS, errno, "make the event loop");
    return notify_open(&l->notify, l->event, e) && hang_open(&l->hang, l, e);
}

/* The gateway holds a descriptor per client; systemd's soft limit of 1024 is for programs that use
 * select(), and none of ours does. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool open_runtime_dir(struct llmd *l, struct err *e)
{
    l->runtime_dir_fd = runtime_dir_open(l->config.runtime_dir, e);
    if (l->runtime_dir_fd >= 0)
        return true;
    if (e->code == ERR_CONFIG) {
        pid_t holder = control_server_holder(l->config.runtime_dir);
        if (holder > 0)
            err_wrap(e, "llmd with pid %d is running", (int)holder);
    }
    return false;
}

static bool inspect_model(struct llmd *l, struct err *e)
{
    struct boot *boot = boot_new(l, NULL);
    const struct inspect_call call = { .worker_path = l->worker_path,
                                       .boot = &boot->message,
                                       .timeout_ns = l->config.start_timeout_s * NS_PER_S,
                                       .done = on_plan,
                                       .arg = l };
    bool ok = inspect_start(&l->inspect, l->event, &call, e);

    boot_free(boot);
    return ok;
}

/* The processes of another build are gone. */
static void on_former_gone(void *arg)
{
    struct llmd *l = arg;
    struct err e = { 0 };

    adopt_end_former(l);
    passed_fini(&l->passed);
    if (l->haste)
        sd_event_exit(l->event, 0);
    else if (!inspect_model(l, &e))
        give_up(l, &e);
}

static bool start_fresh(struct llmd *l, bool has_former, struct err *e)
{
    const struct former_call call = { .event = l->event,
                                      .from = &l->passed,
                                      .prefix = "llmd-",
                                      .store = &l->store,
                                      .timeout_ns = l->config.drain_timeout_s * NS_PER_S,
                                      .done = on_former_gone,
                                      .arg = l };

    if (!listeners_open(&l->listeners, &l->config, &l->passed, e) ||
        !control_server_open(&l->control, l, l->config.runtime_dir, e))
        return false;
    upgrade_answer(passed_take(&l->passed, "llmd-asker"), NULL);
    if (has_former && former_start(&l->former, &call))
        return true;
    adopt_end_former(l);
    passed_fini(&l->passed);
    return inspect_model(l, e);
}

/* With the settings that are in force: of the service that is adopted, if one is. */
static bool begin(struct llmd *l, struct err *e)
{
    struct config *given = mem_zalloc(1, sizeof *given);
    enum adopt_result found;
    bool ok;

    *given = l->config;
    found = adopt_service(l);
    ok = open_runtime_dir(l, e);
    if (ok && found == ADOPT_SERVICE) {
        ok = control_server_open(&l->control, l, l->config.runtime_dir, e) &&
             adopt_children(l, given, e);
        model_switch_finish(l);
        passed_fini(&l->passed);
    } else if (ok) {
        ok = start_fresh(l, found == ADOPT_FORMER, e);
    }
    free(given);
    return ok;
}

static bool bring_up(struct llmd *l, struct err *e)
{
    raise_descriptor_limit();
    close_range(CONTROL_FD, ~0u, CLOSE_RANGE_CLOEXEC); /* what llmd was given is not for children */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (getrandom(&l->instance, sizeof l->instance, 0) != sizeof l->instance)
        return err_set(e, ERR_SYS, errno, "draw a random number");
    if (!make_loop(l, e) || !spawn_find_self(l->self_path, PATH_MAX, e) ||
        !spawn_find("llm-gateway", l->gateway_path, PATH_MAX, e) ||
        !spawn_find("llm-worker", l->worker_path, PATH_MAX, e))
        return false;
    fdstore_open(&l->store, &l->notify, l->event);
    passed_init(&l->passed);
    return begin(l, e);
}

/* ---- down ---- */

static void take_down(struct llmd *l)
{
    inspect_stop(&l->inspect);
    hang_close(&l->hang);
    upgrade_stop(&l->upgrade);
    former_stop(&l->former);
    model_switch_stop(&l->model_switch);
    passed_fini(&l->passed);
    holdings_forget(l);
    kept_fini(&l->kept);
    runner_fini(&l->gateway);
    for (uint32_t g = 0; g < l->config.groups && l->groups; g++)
        runner_fini(&l->groups[g]);
    free(l->groups);
    free(l->rates);
    control_server_close(&l->control);
    listeners_close(&l->listeners);
    log_set_tap(NULL, NULL); /* it writes to the board */
    segments_close(&l->segments);
    if (l->state_fd >= 0)
        close(l->state_fd);
    frame_free_body(l->plan);
    fdstore_close(&l->store);
    notify_close(&l->notify);
    sd_event_source_disable_unref(l->tick);
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

    l->runtime_dir_fd = l->state_fd = -1;
    l->on_terminal = isatty(STDERR_FILENO);
    l->started_ns = clock_mono_ns();
    log_info("event=start version=%s model=\"%s\" groups=%llu tp_size=%llu runtime_dir=\"%s\"",
             LLMD_VERSION, l->config.model, (unsigned long long)l->config.groups,
             (unsigned long long)l->config.tp_size, l->config.runtime_dir);
    if (bring_up(l, &e)) {
        for (uint32_t i = 0; i < l->listeners.n; i++)
            log_info("event=listen address=%s", l->listeners.name[i]);
        if (l->phase == LLMD_INSPECTING)
            notify_status(&l->notify, l->former.by_slot ? "starting: former processes finish"
                                                        : "starting: reading the model");
        code = sd_event_loop(l->event);
    } else {
        log_error("cannot start: %s", e.msg);
        notify_status(&l->notify, e.msg);
    }
    take_down(l);
    log_info("event=end exit_code=%d", code);
    return code;
}
