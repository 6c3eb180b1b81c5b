/* adopt.c - from descriptors under names, and what the board says, to an llmd in mid-service.
 *
 * Nothing is started, stopped or made again, so no stream pauses.  Whatever happened while no llmd lived is
 * seen as if it happened now: a dead child's pidfd is readable, what children said waits in their sockets.
 *
 * The dead llmd may have been in the middle of anything.  Each step stands on the board before it is done,
 * so it is found there and done, or done again: everything here may come twice.  What it had started and not
 * stored is known by its control socket, which is stored before the program runs. */
#include "supervisor/adopt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/mem.h"
#include "supervisor/gpu_end.h"
#include "supervisor/holdings.h"
#include "supervisor/llmd.h"
#include "supervisor/pidfd.h"
#include "supervisor/reload.h"
#include "supervisor/runner.h"
#include "supervisor/state.h"
#include "supervisor/upgrade.h"

/* The runtime folder is where this llmd is asked for. */
static bool take_settings(struct llmd *l, const Llmd__Keep *k, struct err *e)
{
    char *dir = mem_strdup(l->config.runtime_dir);
    bool ok = state_settings(k, &l->config, e) &&
              config_set(&l->config, "runtime_dir", dir, "command line", e);

    free(dir);
    return ok;
}

static bool attach(struct llmd *l, const Llmd__Keep *k, struct err *e)
{
    return take_settings(l, k, e) &&
           segments_attach(&l->segments, &l->config, k->plan, &l->passed, e) &&
           listeners_adopt(&l->listeners, &l->passed, e);
}

/* Nothing may go on computing beside the new service; clients see the end of what they had. */
void adopt_end_former(struct llmd *l)
{
    for (uint32_t i = 0; i < l->passed.n; i++) {
        const struct passed_fd *p = &l->passed.list[i];
        bool is_client = strcmp(p->name, "llmd-c") == 0;
        if (strncmp(p->name, "llmd-", 5) != 0 || strcmp(p->name, "llmd-listen") == 0)
            continue;
        if (p->fd >= 0 && strncmp(p->name, "llmd-pid-", 9) == 0)
            pidfd_signal(p->fd, SIGKILL);
        if (p->fd >= 0 && is_client)
            shutdown(p->fd, SHUT_RDWR); /* the store drops it then */
        if (!is_client)
            fdstore_remove(&l->store, p->name);
    }
}

static void take_keep(struct llmd *l, Llmd__Keep *k, int state)
{
    l->state_fd = state;
    l->state_serial = k->serial;
    l->instance = k->instance;
    l->plan = k->plan;
    k->plan = NULL; /* taken */
}

/* What was taken of it goes; the listening sockets stay where they are. */
static void back_out(struct llmd *l, const struct config *given)
{
    segments_close(&l->segments);
    listeners_close(&l->listeners);
    l->config = *given;
    adopt_end_former(l);
}

/* The newest state that can be read; *fd: owned by the caller, -1 when there is none at all. */
static Llmd__Keep *find_state(struct llmd *l, int *fd, struct err *e)
{
    Llmd__Keep *best = NULL;
    int one;

    *fd = -1;
    while ((one = passed_take(&l->passed, state_name(1))) >= 0 ||
           (one = passed_take(&l->passed, state_name(0))) >= 0) {
        Llmd__Keep *k = state_read(one, e);
        if (*fd >= 0 && (!k || (best && k->serial < best->serial))) {
            frame_free_body(k);
            close(one);
            continue;
        }
        frame_free_body(best);
        if (*fd >= 0)
            close(*fd);
        best = k;
        *fd = one;
    }
    return best;
}

enum adopt_result adopt_service(struct llmd *l)
{
    int state;
    enum adopt_result result = ADOPT_NOTHING;
    const struct config given = l->config;
    struct err e = { 0 };
    Llmd__Keep *k = find_state(l, &state, &e);

    if (k && !state_is_ours(k, &e)) {
        log_warning("a former llmd shares other memory with its processes: %s; they finish first",
                    e.msg);
        result = ADOPT_FORMER;
    } else if (k && attach(l, k, &e)) {
        take_keep(l, k, state);
        result = ADOPT_SERVICE;
    } else {
        if (state >= 0)
            log_warning("cannot adopt what a former llmd left: %s; ending it and starting afresh",
                        e.msg);
        back_out(l, &given);
    }
    if (state >= 0 && result != ADOPT_SERVICE) {
        for (uint32_t i = 0; i < STATE_NAMES; i++)
            fdstore_remove(&l->store, state_name(i));
        close(state);
    }
    frame_free_body(k);
    return result;
}

bool adopt_children(struct llmd *l, const struct config *fresh, struct err *e)
{
    struct board_slot *slot = board_slot(&l->segments.board, BOARD_SLOT_LLMD);
    enum process_state was = (enum process_state)atomic_load(&slot->state);

    llmd_on_board(l);
    if (!fault_points_set(l->config.fault_points, l->epoch, e))
        log_warning("%s, arming none", e->msg);
    stat_add(&slot->stats, STAT_llmd_adoptions, 1);
    if (!llmd_make_teams(l, e) ||
        !kept_init(&l->kept, &l->segments.connections, &l->store, l->event, e) ||
        !gpu_memory_init(&l->gpu, &l->segments.chunks, l->n_groups, l->segments.tp_size, &l->store,
                         e))
        return false;
    kept_adopt(&l->kept, &l->passed);
    gpu_memory_adopt(&l->gpu, &l->passed);
    fault_point("llmd.adopt");
    runner_adopt(&l->gateway, &l->passed);
    for (uint32_t g = 0; g < l->n_groups; g++)
        runner_adopt(&l->groups[g], &l->passed);
    gpu_end_of_orphans(l);
    reload_take(l, fresh);
    llmd_go_on(l, was);
    upgrade_answer(passed_take(&l->passed, "llmd-asker"), NULL);
    log_info("event=adopted ms=%.1f epoch=%u connections=%u groups_up=%u of=%u",
             (double)(clock_mono_ns() - l->started_ns) / 1e6, l->epoch, l->kept.n_open,
             llmd_groups_up(l), l->n_groups);
    return true;
}
