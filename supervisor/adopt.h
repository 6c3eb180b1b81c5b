/* adopt.h - go on where a dead llmd stopped: its descriptors came back from the service manager. */
#ifndef LLMD_SUPERVISOR_ADOPT_H
#define LLMD_SUPERVISOR_ADOPT_H

#include "common/config.h"

struct llmd;

/* Take over settings, plan, segments and listening sockets from l->passed.  False: there is no complete set
 * of this build's layouts; then l is as before, and what there was of a former service is ended. */
bool adopt_service(struct llmd *l);

/* Then the children and client connections, and go on.  fresh: the settings as this llmd was given them; the
 * LIVE ones count.  False: *e, and llmd cannot serve. */
bool adopt_children(struct llmd *l, const struct config *fresh, struct err *e);

#endif
