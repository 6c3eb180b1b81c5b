/* team.h - processes that live and die together: the ranks of one group, or the gateway alone. */
#ifndef LLMD_SUPERVISOR_TEAM_H
#define LLMD_SUPERVISOR_TEAM_H

#include "supervisor/backoff.h"
#include "supervisor/gpu_check.h"
#include "supervisor/process.h"

enum team_state {
    TEAM_DOWN,     /* not started, or stopped for good */
    TEAM_STARTING, /* all members run, not all are ready */
    TEAM_UP,       /* in service */
    TEAM_FALLING,  /* a member died, the others are being killed */
    TEAM_BACKOFF,  /* all members are gone; waits to start again */
    TEAM_DRAINING, /* asked to finish, for good */
    TEAM_GPU_DOWN, /* all members are gone; waits until the GPU of one can be used again */
    N_TEAM_STATES
};

enum team_event {
    TEAM_EV_START,
    TEAM_EV_ALL_READY,
    TEAM_EV_LOST,    /* a member died */
    TEAM_EV_GONE,    /* no member runs any more */
    TEAM_EV_TIMER,   /* the pause is over */
    TEAM_EV_STOP,    /* finish; a second time: killed */
    TEAM_EV_HASTEN,  /* the deadline of the drain is now */
    TEAM_EV_RESTART, /* killed, so that new ones take over: no death */
    TEAM_EV_STUCK,   /* the kernel does not end a killed member */
    TEAM_EV_GPU_BAD, /* as GONE, and the GPU of one was in trouble; or it was asked, and still is */
    TEAM_EV_GPU_WELL,
    N_TEAM_EVENTS
};

enum team_kind { TEAM_GATEWAY, TEAM_GROUP };

struct llmd;
struct team;

struct team_ops {
    void (*arm)(struct team *t, uint64_t deadline_ns); /* TEAM_EV_TIMER then; 0 = never */
    void (*changed)(struct team *t);                   /* after each change of state */
    /* Ask whether its GPUs are well.  False: *e says why that cannot be asked; else TEAM_EV_GPU_WELL or, with
     * t->gpu_words, TEAM_EV_GPU_BAD follows. */
    bool (*check_gpus)(struct team *t, struct err *e);
};

struct team {
    enum team_state state;
    enum team_kind kind;
    const struct team_ops *ops;
    const struct config *config; /* borrowed */
    struct llmd *llmd;           /* borrowed; for ops */
    char name[32];               /* "gateway", "group 0" */
    uint32_t group;              /* number of TEAM_GROUP; 0 for the gateway */
    uint32_t epoch;              /* counts its starts */
    struct process *members;
    uint32_t n_members;
    struct backoff backoff;
    uint64_t up_ns;             /* since when in service; 0 = not in this epoch */
    uint64_t retry_ns;          /* when BACKOFF ends */
    uint64_t drain_deadline_ns; /* set before TEAM_EV_STOP */
    bool is_replaced;           /* it falls because that was asked for */
    bool is_stuck;              /* of its falling members one is */
    uint64_t gpu_pause_ms;      /* newest one of TEAM_GPU_DOWN; 0 = none in this row */
    char gpu_words[160]; /* what the newest check of its GPUs said; "" = none, or they are well */
    char cause[640];     /* why it is not up, for people */
    sd_event_source *timer, *look;
    struct gpu_check gpu_check; /* for ops */
};

struct team_edge {
    enum team_state to;
    void (*act)(struct team *t);
};

/* members: n of them, initialised by the caller, who keeps owning them. */
void team_init(struct team *t, const struct team_ops *ops, const struct config *config,
               const char *name, struct process *members, uint32_t n);

/* Find the state that the adopted members are in together; a call of team_look() must follow. */
void team_adopt(struct team *t);

bool team_is_up(const struct team *t);
bool team_is_down(const struct team *t); /* none runs, none will */

/* The only function that changes .state. */
void team_handle(struct team *t, enum team_event ev);

/* Look at the members and handle what that means for the group.  Call it after any change of a member,
 * not from within one: it reads states only, so several changes at once count as one. */
void team_look(struct team *t);

const struct team_edge *team_edge(enum team_state s, enum team_event ev);
const char *team_state_name(enum team_state s);
const char *team_event_name(enum team_event ev);

#endif
