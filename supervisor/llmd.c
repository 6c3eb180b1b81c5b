/* llmd.c - bring everything up in order, and take it down.
 *
 * Up: lock the runtime folder, listen, ask the worker what the model needs, make the segments, start the
 * gateway and group 0; the other groups follow when the weights are there to be mapped.  What follows from then on is in
 * news.c, and how service ends in drain.c; what is left of llmd when it has is taken down here.
 *
 * llmd sleeps until something happens, but for one tick a second: its heartbeat on the board, and the
 * sample that tokens per second are measured from. */
#include "supervisor/llmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "supervisor/adopt.h"
#include "supervisor/announce.h"
#include "supervisor/boot.h"
#include "supervisor/drain.h"
#include "supervisor/holdings.h"
#include "supervisor/news.h"
#include "supervisor/runner.h"
#include "supervisor/signals.h"
#include "supervisor/status.h"

#define TICK_NS            (900 * NS_PER_MS) /* with the loop's slack less than a second */
#define TICK_SLACK_US      (100 * 1000)
#define START_EXTENSION_NS (15 * NS_PER_S)

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

/* ---- time ---- */

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
        !gpu_memory_init(&l->gpu, &l->segments.chunks, l->segments.n_groups, l->segments.tp_size,
                         &l->store, e) ||
        !holdings_write_state(l, e) || !llmd_make_teams(l, e))
        return false;
    holdings_store(l);
    l->phase = LLMD_SERVING;
    team_handle(&l->groups[0], TEAM_EV_START); /* the slower one first */
    if (!l->options.gateway_last)
        team_handle(&l->gateway, TEAM_EV_START);
    return true;
}

/* It may have died between any two steps of start_service(), drain_ask() and drain_go_on(). */
void llmd_go_on(struct llmd *l, enum process_state was)
{
    l->phase = LLMD_SERVING;
    l->was_ready = was != PROCESS_STARTING;
    if (was == PROCESS_DRAINING) {
        const struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
        drain_begin(l, atomic_load(&slot->kept.deadline_ns));
    } else {
        if (l->was_ready)
            notify_ready(&l->notify);
        announce_to_gateway(l);
        if (team_is_down(&l->groups[0]))
            team_handle(&l->groups[0], TEAM_EV_START);
        if (team_is_down(&l->gateway))
            team_handle(&l->gateway, TEAM_EV_START);
    }
    news_team_changed(l, &l->gateway);
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

static bool make_loop(struct llmd *l, struct err *e)
{
    if (sd_event_new(&l->event) < 0 || !signals_open(l) ||
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
    gpu_memory_fini(&l->gpu);
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
