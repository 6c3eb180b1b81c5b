/* process.h - one child of llmd from start to end: gateway or worker rank. */
#ifndef LLMD_SUPERVISOR_PROCESS_H
#define LLMD_SUPERVISOR_PROCESS_H

#include <signal.h>

#include "common/config.h"
#include "proto/board.h"
#include "supervisor/child.h"

/* A process that is killed is gone after this time, or the kernel cannot end it: a GPU's driver waits for the GPU. */
enum { PROCESS_REAP_S = 5 };

enum process_event {
    PROCESS_EV_START, /* its team starts */
    PROCESS_EV_READY,
    PROCESS_EV_EXIT,   /* it ended, or could not be started */
    PROCESS_EV_TIMER,  /* the deadline armed last has passed */
    PROCESS_EV_STOP,   /* finish; a second time: killed */
    PROCESS_EV_HASTEN, /* the deadline of the drain is now */
    N_PROCESS_EVENTS
};

struct process;
struct team;

/* What a process does to the world outside, so that tests can stand in for it. */
struct process_ops {
    /* Start its program.  False: *e says why, and nothing runs. */
    bool (*spawn)(struct process *p, struct err *e);
    void (*signal)(struct process *p, int sig);
    /* Send DRAIN.  False: there is no way to ask. */
    bool (*drain)(struct process *p, uint64_t deadline_ns);
    /* PROCESS_EV_TIMER at this CLOCK_MONOTONIC time, replacing the one armed before; 0 = never. */
    void (*arm)(struct process *p, uint64_t deadline_ns);
    /* Its state is another now; look later, not from within. */
    void (*changed)(struct process *p);
};

struct process {
    enum process_state state;
    const struct process_ops *ops;
    const struct config *config; /* borrowed; read at each use, so a reload counts */
    struct board_slot *slot;     /* borrowed; its name is the name in logs */
    struct stats *counts;        /* borrowed; llmd's own slot: process_starts, process_deaths */
    struct team *team;           /* borrowed; for ops */
    uint32_t rank;               /* index in its team */
    uint32_t slot_index;
    uint32_t starts;
    uint64_t ready_ns;          /* since when in service; 0 = not */
    uint64_t died_ns;           /* newest death */
    uint64_t drain_deadline_ns; /* set before PROCESS_EV_STOP */
    int last_signal;            /* newest one we sent to the running process; 0 = none */
    char killed_why[160];       /* why llmd killed it; "" = it did not */
    char words[240];            /* its newest FATAL message; "" = none */
    char last_exit[320];        /* of its newest end, for people; "" = never ended */
    bool was_forced;            /* it was in service, was asked to finish, and had to be killed */
    bool is_replaced;           /* killed so that a new one takes over: its end is no death */
    bool owes_adopt;            /* ADOPT is to be sent when its socket has room; for ops */
    bool on_gpu;                /* its end may say something of its GPU */
    bool is_stuck;              /* killed, and not gone PROCESS_REAP_S later */
    enum gpu_trouble trouble;   /* what its newest end says of its GPU */
    uint64_t contained_ns;      /* newest end by a bad part of its GPU's memory; 0 = none */
    struct child child;         /* for ops */
    sd_event_source *timer;
};

struct process_edge {
    enum process_state to;
    void (*act)(struct process *p); /* NULL: the event is late news here, and is dropped */
};

void process_init(struct process *p, const struct process_ops *ops, const struct config *config,
                  const char *name, struct board_slot *slot, struct stats *counts);

/* The only function that changes .state. */
void process_handle(struct process *p, enum process_event ev);

/* It ended as `info` says (waitid): keep the words for status, then PROCESS_EV_EXIT. */
void process_exited(struct process *p, const siginfo_t *info);

/* Kill it in whatever state, keeping the reason for status; PROCESS_EV_EXIT follows. */
void process_kill(struct process *p, const char *why);

/* The same, in order to have a successor: its end is not counted as a death. */
void process_replace(struct process *p, const char *why);

/* Take over what the board says of it: a former llmd left it in that state.  After process_init(), and
 * after the child was adopted, if there is one. */
void process_adopt(struct process *p);

bool process_is_running(const struct process *p);

const struct process_edge *process_edge(enum process_state s, enum process_event ev);
const char *process_event_name(enum process_event ev);

#endif
