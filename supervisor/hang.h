/* hang.h - which process has stopped to work without having ended.
 *
 *   a step of a worker     older than .step_limit_ns of its slot, which the worker sets by the history of steps
 *                          of that size; HANG_STEP_NS when it has set none
 *   a worker between two   no heartbeat for hang_step_ms, two seconds at least
 *   anything else          no heartbeat for hang_timeout_s
 *
 * Only processes in service are judged: starting and draining have deadlines of their own (process.c). */
#ifndef LLMD_SUPERVISOR_HANG_H
#define LLMD_SUPERVISOR_HANG_H

#include <systemd/sd-event.h>

#include "common/config.h"
#include "proto/board.h"

struct hang_verdict {
    bool is_hung;
    bool is_busy;    /* clients wait for it */
    uint64_t due_ns; /* it will be hung then, if nothing changes */
    char why[96];    /* "step running for 3.2 s, limit 2.1 s"; "" when it is not hung */
};

/* Judge one process by its slot.  chance_ns: nothing that is older counts, see hang_look(). */
struct hang_verdict hang_judge(const struct board_slot *slot, const struct config *c,
                               uint64_t now_ns, uint64_t chance_ns);

struct llmd;

struct hang_watch {
    sd_event_source *timer;
    uint64_t expected_ns; /* when the next look should come at the latest; 0 = never looked */
    uint64_t chance_ns;   /* everything counts as alive at this time */
};

bool hang_open(struct hang_watch *w, struct llmd *l, struct err *e);
void hang_close(struct hang_watch *w); /* safe on a zeroed struct */

/* Look at all processes, kill those that hang, and arm the timer for the next that may.  llmd calls it at each
 * tick. */
void hang_look(struct hang_watch *w, struct llmd *l);

#endif
