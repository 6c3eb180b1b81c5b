/* llmd.h - the supervisor: everything it owns, and the order in which it brings it up and down.
 *
 *   INSPECTING --plan--> SERVING --SIGTERM, drain--> DRAINING --gateway gone--> CLOSING --all gone--> end
 *
 * One thread on sd-event.  llmd touches no tensor, parses no client's byte and loads no CUDA: it owns
 * descriptors, and starts, watches and replaces the processes that work on them. */
#ifndef LLMD_SUPERVISOR_LLMD_H
#define LLMD_SUPERVISOR_LLMD_H

#include <limits.h>

#include "supervisor/control_server.h"
#include "supervisor/hang.h"
#include "supervisor/inspect.h"
#include "supervisor/listeners.h"
#include "supervisor/notify.h"
#include "supervisor/options.h"
#include "supervisor/rate.h"
#include "supervisor/segments.h"
#include "supervisor/team.h"

enum llmd_phase {
    LLMD_INSPECTING, /* no child but --inspect, no segment */
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
    uint64_t instance; /* random; part of the queue's addresses */
    uint64_t started_ns;
    int runtime_dir_fd; /* its lock; -1 = not ours */
    bool on_terminal;   /* stderr is one, or was at the start */
    char gateway_path[PATH_MAX], worker_path[PATH_MAX];
    struct notify notify;
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
    bool was_ready;         /* READY=1 was said */
    bool is_hasty;          /* asked a second time to stop */
};

/* Run until asked to end.  Returns the exit code: 0 after a clean drain; 1 when llmd could not start,
 * the model could not be read, or a child in service had to be killed at the end. */
int llmd_run(struct llmd *l);

/* Orders of the operator: signals and llmctl. */
void llmd_drain(struct llmd *l);                 /* finish and end; a second time: at once */
bool llmd_reload(struct llmd *l, struct err *e); /* read all sources again */
void llmd_restart(struct llmd *l,
                  struct team *t); /* drain and start anew; a second time: at once */

/* News from the runner. */
void llmd_team_changed(struct llmd *l, struct team *t);
void llmd_weights_ready(struct llmd *l, const struct process *p);
void llmd_spawned(struct llmd *l, const struct process *p);
void llmd_writable(struct llmd *l, const struct process *p);

/* "starting", "ready", "degraded", "down", "draining". */
const char *llmd_state(const struct llmd *l);
uint32_t llmd_groups_up(const struct llmd *l);

#endif
