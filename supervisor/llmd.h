/* llmd.h - the supervisor: everything it owns, and the order in which it brings it up and down.
 *
 *   INSPECTING --plan--> SERVING --SIGTERM, drain--> DRAINING --gateway gone--> CLOSING --all gone--> end
 *
 * An llmd that finds what a dead one left with the service manager goes on from there: adopt.c.
 *
 * One thread on sd-event.  llmd touches no tensor, parses no client's byte and loads no CUDA: it owns
 * descriptors, and starts, watches and replaces the processes that work on them. */
#ifndef LLMD_SUPERVISOR_LLMD_H
#define LLMD_SUPERVISOR_LLMD_H

#include <limits.h>

#include "supervisor/control_server.h"
#include "supervisor/fdstore.h"
#include "supervisor/former.h"
#include "supervisor/gpu_memory.h"
#include "supervisor/hang.h"
#include "supervisor/inspect.h"
#include "supervisor/kept.h"
#include "supervisor/listeners.h"
#include "supervisor/model_switch.h"
#include "supervisor/notify.h"
#include "supervisor/options.h"
#include "supervisor/rate.h"
#include "supervisor/segments.h"
#include "supervisor/team.h"
#include "supervisor/upgrade.h"

enum llmd_phase {
    LLMD_INSPECTING, /* no child but --inspect or those of another build, no segment */
    LLMD_SERVING,
    LLMD_DRAINING, /* the gateway finishes; the workers still compute for it */
    LLMD_CLOSING,  /* the workers finish */
};

struct llmd {
    struct options options; /* to read the sources again */
    struct config config;
    enum llmd_phase phase;
    sd_event *event;
    sd_event_source *tick;
    uint64_t instance;   /* random; part of the queue's addresses */
    uint64_t started_ns; /* of this llmd */
    uint32_t epoch;      /* counts the llmds of this service, from 1 */
    int state_fd;        /* state.h; -1 = no service yet */
    uint32_t state_serial;
    int runtime_dir_fd; /* its lock; -1 = not ours */
    bool on_terminal;   /* stderr is one, or was at the start */
    char self_path[PATH_MAX], gateway_path[PATH_MAX], worker_path[PATH_MAX];
    struct notify notify;
    struct fdstore store;
    struct passed passed; /* until service begins */
    struct former former;
    struct model_switch model_switch;
    struct upgrade upgrade;
    struct kept kept;
    struct gpu_memory gpu;
    struct inspect inspect;
    Llmd__ModelPlan *plan; /* NULL until inspected */
    struct segments segments;
    struct listeners listeners;
    struct control_server control;
    struct hang_watch hang;
    struct team gateway;
    struct team *groups;    /* [n_groups] */
    struct rate *rates;     /* [n_groups], generated tokens */
    uint32_t n_groups;      /* 0 until the plan is there */
    uint64_t weights_ready; /* bit r: shard r is complete, said by a rank of group 0 */
    uint32_t serving_epoch; /* of the gateway that said SERVING; 0 = none has */
    bool was_ready;         /* READY=1 was said */
    uint32_t haste;         /* how often it was asked again to stop */
};

/* Run until asked to end.  Returns the exit code: 0 after a clean drain; 1 when llmd could not start,
 * the model could not be read, or a child in service had to be killed at the end. */
int llmd_run(struct llmd *l);

/* For adopt.c: tables for the children, all down; this llmd on the board; and, when all is adopted, go on with
 * what the board says was going on. */
bool llmd_make_teams(struct llmd *l, struct err *e);
void llmd_on_board(struct llmd *l);
void llmd_go_on(struct llmd *l, enum process_state was);

/* "starting", "ready", "degraded", "down", "upgrading", "draining". */
const char *llmd_state(const struct llmd *l);
uint32_t llmd_groups_up(const struct llmd *l);

#endif
