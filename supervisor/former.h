/* former.h - processes of a service that ends: of a former llmd whose memory has other layouts, so that they
 * cannot be adopted, or of the model that was served before.
 *
 * They finish what they have: the gateway first, with the workers still computing for it, then the workers.
 * It takes nothing new: who connects now comes to the next gateway. */
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
    const char *prefix;
    struct fdstore *store;
    void (*done)(void *arg); /* all are gone; called once, from the loop */
    void *arg;
};

struct former_call {
    sd_event *event;
    struct passed *from;
    const char *prefix;    /* of their names: "llmd-", before "ctl-SLOT" and "pid-SLOT"; static */
    struct fdstore *store; /* borrowed: their names are removed from it one by one */
    uint64_t timeout_ns;
    void (*done)(void *arg);
    void *arg;
};

/* Take their sockets and pidfds out of call->from and ask them to finish within the time.  False: there is
 * none, and done is not called. */
bool former_start(struct former *f, const struct former_call *call);
/* Their time is up now. */
void former_hasten(struct former *f);
/* Kill what is left; safe on a zeroed struct. */
void former_stop(struct former *f);

#endif
