/* former.h - processes of a former llmd that this one cannot adopt, since their memory has other layouts.
 *
 * They finish what they have: the gateway first, with the workers still computing for it, then the workers.
 * It takes nothing new: who connects now waits for the next gateway.  Then they are gone, and a fresh service
 * begins. */
#ifndef LLMD_SUPERVISOR_FORMER_H
#define LLMD_SUPERVISOR_FORMER_H

#include "proto/board_layout.h"
#include "supervisor/fdstore.h"
#include "supervisor/passed.h"

struct former_process {
    struct former *former;
    int control, pidfd; /* -1 = none; pidfd -1: it has ended */
    sd_event_source *exit_source;
};

/* 64 groups of 64 ranks, and the two before them. */
enum { FORMER_SLOTS_MAX = 64 * 64 + BOARD_SLOT_RANKS };

struct former {
    struct former_process *by_slot; /* [n_slots] */
    uint32_t n_slots, n_alive;
    uint64_t timeout_ns;
    sd_event *event;
    sd_event_source *timer;
    void (*done)(void *arg); /* all are gone; called once, from the loop */
    void *arg;
};

/* Take their sockets and pidfds out of `from` and ask them to finish within the time.  False: there is none,
 * and done is not called. */
bool former_start(struct former *f, sd_event *event, struct passed *from, uint64_t timeout_ns,
                  void (*done)(void *arg), void *arg);
/* Kill what is left; safe on a zeroed struct. */
void former_stop(struct former *f);

#endif
