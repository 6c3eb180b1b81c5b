/* state.h - what the next llmd must know and cannot see: settings in force, the model's plan, the instance.
 *
 * One packed Keep (proto/llmd.proto) in a memfd that is sealed when it has been written, so who finds it
 * finds it whole.  What changes later is on the board. */
#ifndef LLMD_SUPERVISOR_STATE_H
#define LLMD_SUPERVISOR_STATE_H

#include "common/config.h"
#include "proto/frame.h"

/* How llmd uses Keep, the .kept words of the board and the names of fdstore.h. */
enum { STATE_VERSION = 1 };

/* The memfd, owned by the caller; -1 and *e. */
int state_make(const struct config *c, const Llmd__ModelPlan *plan, uint64_t instance,
               struct err *e);

/* fd: borrowed.  NULL and ERR_PROTO when it is not whole.  Returned: frame_free_body(). */
Llmd__Keep *state_read(int fd, struct err *e);

/* It was made by a build with these layouts.  False: *e names both. */
bool state_is_ours(const Llmd__Keep *k, struct err *e);

/* The settings as they were in force. */
bool state_settings(const Llmd__Keep *k, struct config *c, struct err *e);

#endif
