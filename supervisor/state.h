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

/* Of several in the store, the one with the highest serial counts: the store can add and it can remove all of
 * a name, but it cannot exchange, and a moment without a state would be the end of the service. */
struct state {
    uint64_t instance;
    uint32_t serial;
    const struct config *config;
    const Llmd__ModelPlan *plan;
};

/* The memfd, owned by the caller; -1 and *e. */
int state_make(const struct state *s, struct err *e);

/* fd: borrowed.  NULL and ERR_PROTO when it is not whole.  Returned: frame_free_body(). */
Llmd__Keep *state_read(int fd, struct err *e);

/* It was made by a build with these layouts.  False: *e names both. */
bool state_is_ours(const Llmd__Keep *k, struct err *e);

/* The settings as they were in force.  Those this build does not have are left out. */
bool state_settings(const Llmd__Keep *k, struct config *c, struct err *e);

#endif
