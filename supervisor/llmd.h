/* llmd.h - the supervisor: everything it owns, and the order in which it brings it up and down.
 *
 *   INSPECTING --plan--> SERVING --SIGTERM, drain--> DRAINING --all gone--> end
 *
 * One thread on sd-event.  llmd touches no tensor, parses no client's byte and loads no CUDA: it owns
 * descriptors, and starts, watches and replaces the processes that work on them. */
#ifndef LLMD_SUPERVISOR_LLMD_H
#define LLMD_SUPERVISOR_LLMD_H

#include <systemd/sd-event.h>

#include "common/config.h"
#include "supervisor/control_server.h"
#include "supervisor/inspect.h"
#include "supervisor/listeners.h"
#include "supervisor/options.h"
#include "supervisor/segments.h"
#include "supervisor/team.h"

enum llmd_phase { LLMD_INSPECTING, LLMD_SERVING, LLMD_DRAINING };

struct llmd {
    struct options options; /* to read the sources again */
    struct config config;
    enum llmd_phase phase;
    sd_event *event;
    uint64_t instance; /* random; part of the queue's addresses */
    uint64_t started_ns;
    int runtime_dir_fd; /* its lock */
    struct inspect inspect;
    Llmd__ModelPlan *plan; /* NULL until inspected */
    struct segments segments;
    struct listeners listeners;
    struct control_server control;
    struct team gateway;
    struct team *groups; /* [config.groups] */
    uint32_t n_groups;   /* initialised ones; 0 until the plan is there */
    bool was_ready;      /* READY=1 was said */
};

/* Run until asked to end.  Returns the exit code. */
int llmd_run(struct llmd *l);

/* Drain, then end; called again: at once. */
void llmd_drain(struct llmd *l);
/* Read all sources again; apply what may change while running. */
void llmd_reload(struct llmd *l);

/* A team's processes changed state (called by team.c): decide what follows. */
void llmd_team_changed(struct llmd *l, struct team *t);

/* "starting", "ready", "degraded", "down", "draining". */
const char *llmd_state(const struct llmd *l);

#endif
