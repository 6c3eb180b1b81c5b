/* drain.h - the end of service, in order: the gateway first, with the workers still computing for it, then they.
 *
 *   SERVING --asked--> DRAINING --gateway gone--> CLOSING --all gone--> the loop ends
 *
 * Asked again: the deadline is now; once more: what is left is killed.  An llmd that dies in between leaves the
 * deadline on the board, and the next one goes on. */
#ifndef LLMD_SUPERVISOR_DRAIN_H
#define LLMD_SUPERVISOR_DRAIN_H

#include <stdint.h>

struct llmd;

/* From SERVING, with the deadline of an llmd that had begun. */
void drain_begin(struct llmd *l, uint64_t deadline_ns);

/* The order of the operator, by a signal or llmctl: finish and end; a second time: the deadline is now; a
 * third time: kill what is left. */
void drain_ask(struct llmd *l);

/* The next step, if there is one to take: called after each change. */
void drain_go_on(struct llmd *l);

/* The processes of the model before this one are gone. */
void drain_former_gone(struct llmd *l);

#endif
