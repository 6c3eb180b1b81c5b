/* park.h - descriptors on their way through a socketpair, both ends of which lie in the fd store.
 *
 * A client connection goes to the store only when it has been open for a while (kept.h), since a service
 * manager should not see every health probe.  Until then llmd's copy would die with llmd.  So a copy waits in
 * a socket that outlives it: put in by the side where it is kept, taken out when the store has it or the client
 * has left.  It costs two system calls, and wakes nobody. */
#ifndef LLMD_SUPERVISOR_PARK_H
#define LLMD_SUPERVISOR_PARK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct park_place {
    uint32_t slot, generation;
};

struct park {
    int in, out;               /* -1 = none: nothing is ever parked */
    struct park_place *places; /* a ring: whose copies wait, oldest first */
    uint32_t first, n, n_room;
};

bool park_open(struct park *p, struct err *e);
/* Of a former llmd.  Takes both; copies wait there of which it has no places: park_take_over() them all. */
void park_adopt(struct park *p, int in, int out);
void park_close(struct park *p); /* safe on one with in and out -1 */

/* Leave a copy.  False: no room. */
bool park_put(struct park *p, int fd, struct park_place at);
/* The oldest, or NULL; and close its copy. */
const struct park_place *park_oldest(const struct park *p);
void park_drop_oldest(struct park *p);

/* The oldest copy that a former llmd left, owned by the caller; -1 = none is left.  It waits on until
 * park_forget_one(): who dies in between has not lost it. */
int park_look(const struct park *p);
void park_forget_one(struct park *p);

#endif
