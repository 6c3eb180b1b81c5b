/* process.h - one child's life as a state machine.
 *
 * A process never acts alone: it tells its team (team.h) that it became ready or ended, and the team
 * decides for all that live and die together. */
#ifndef LLMD_SUPERVISOR_PROCESS_H
#define LLMD_SUPERVISOR_PROCESS_H

#include <systemd/sd-event.h>

#include "proto/board.h"
#include "proto/control.h"
#include "supervisor/spawn.h"

enum process_event {
    PROCESS_EV_START, /* the team wants it to run */
    PROCESS_EV_READY, /* it said so */
    PROCESS_EV_EXIT,  /* its pidfd became readable and it was reaped */
    PROCESS_EV_TIMER, /* too slow to start, or to finish */
    PROCESS_EV_STOP,  /* finish and exit; a second time: at once */
    PROCESS_EV_KILL,  /* a peer died, or the operator wants it anew */
    N_PROCESS_EVENTS
};

struct team;

struct process {
    struct team *team; /* borrowed; outlives the process */
    char name[32];     /* "gateway", "worker 0.1" */
    uint32_t slot, rank;
    enum process_state state;
    struct child child; /* pid 0: none */
    sd_event_source *on_exit, *on_control, *timer;
    uint32_t restarts;
    bool asked_to_end;   /* by EV_STOP or EV_KILL: its exit is no death of its own */
    char fatal[240];     /* its FATAL message */
    char last_exit[320]; /* "" = never ended */
};

void process_init(struct process *p, struct team *team, const char *name, uint32_t slot,
                  uint32_t rank);
void process_fini(struct process *p); /* gives up its event sources and descriptors, kills nobody */

/* The only place where a state changes. */
void process_handle(struct process *p, enum process_event ev);

/* Send a message to a running child; a failure is logged, its exit will tell. */
void process_send(struct process *p, enum msg_type type, const void *message);

const char *process_event_name(enum process_event ev);

/* For tests: the state an event leads to, or N_PROCESS_STATES where the cell is empty. */
enum process_state process_edge(enum process_state from, enum process_event ev);

#endif
