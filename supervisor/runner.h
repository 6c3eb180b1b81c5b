/* runner.h - what stands behind the state machines of process.h and team.h when they are run for real:
 * programs, timers and the event loop. */
#ifndef LLMD_SUPERVISOR_RUNNER_H
#define LLMD_SUPERVISOR_RUNNER_H

#include "supervisor/passed.h"
#include "supervisor/team.h"

extern const struct process_ops runner_process_ops;
extern const struct team_ops runner_team_ops;

/* Make the members of a team known to the board, all DOWN.  l: borrowed.  t->members: owned by t. */
bool runner_init(struct team *t, struct llmd *l, enum team_kind kind, uint32_t group, uint32_t n,
                 struct err *e);

/* Give up event sources, descriptors and memory; safe on a zeroed team.  No program is touched. */
void runner_fini(struct team *t);

/* Take over the members that a former llmd started: their descriptors under the names of fdstore.h, their
 * states from the board.  After runner_init(); what happened meanwhile is seen at the next turn of the
 * loop. */
void runner_adopt(struct team *t, struct passed *from);

/* Send a message to every member that runs.  A failure is logged. */
void runner_send(struct team *t, enum msg_type type, const void *message);

#endif
