/* team.h - processes that live and die together: the ranks of one group, or the gateway alone.
 *
 * A rank never restarts alone, since its peers' collectives die with it: when one ends unasked the team
 * kills the others, waits until all are gone, then the back-off, and starts all with a new epoch. */
#ifndef LLMD_SUPERVISOR_TEAM_H
#define LLMD_SUPERVISOR_TEAM_H

#include "supervisor/backoff.h"
#include "supervisor/process.h"

enum team_kind { TEAM_GATEWAY, TEAM_GROUP };

struct llmd;

struct team {
    struct llmd *llmd; /* borrowed */
    enum team_kind kind;
    const char *program; /* "llm-gateway", "llm-worker" */
    uint32_t group;      /* TEAM_GROUP: its number */
    uint32_t n;          /* processes */
    struct process *processes;
    uint32_t epoch; /* counts starts; 0 = never started */
    uint32_t n_weights_ready;
    struct backoff backoff;
    sd_event_source *timer; /* back-off runs */
    bool stopping;          /* drains for good */
    bool restart_asked;     /* by the operator: no back-off, no death */
};

bool team_init(struct team *t, struct llmd *l, enum team_kind kind, uint32_t group, uint32_t n);
void team_fini(struct team *t);

void team_start(struct team *t);   /* all of them, with the next epoch */
void team_stop(struct team *t);    /* drain; called again: at once */
void team_restart(struct team *t); /* kill and start anew without back-off */

bool team_is_ready(const struct team *t); /* all in service */
bool team_is_down(const struct team *t);  /* none runs, none will */
/* Why it is not ready, for people: "worker 0.0: signal 9 (Killed)". */
void team_cause(const struct team *t, char *out, size_t n);

/* Called by processes. */
void team_boot(struct team *t, struct process *p);
void team_process_ready(struct team *t, struct process *p);
void team_process_ended(struct team *t, struct process *p);
void team_process_stopped(struct team *t, struct process *p);
void team_weights_ready(struct team *t, struct process *p);

#endif
