/* adopt.h - go on where a dead llmd stopped: its descriptors came back from the service manager. */
#ifndef LLMD_SUPERVISOR_ADOPT_H
#define LLMD_SUPERVISOR_ADOPT_H

#include "common/config.h"

struct llmd;

enum adopt_result {
    ADOPT_NOTHING, /* nothing whole is there; what was is ended */
    ADOPT_FORMER,  /* a service of another build: its processes are to finish first (former.h) */
    ADOPT_SERVICE, /* taken over; adopt_children() is next */
};

/* Look what l->passed holds, and take over settings, plan, segments and listening sockets if they are of this
 * build's layouts.  Otherwise l is as before. */
enum adopt_result adopt_service(struct llmd *l);

/* Kill what lives of a former service, and forget what it left with the service manager. */
void adopt_end_former(struct llmd *l);

/* Then the children and client connections, and go on.  fresh: the settings as this llmd was given them; the
 * LIVE ones count.  False: *e, and llmd cannot serve. */
bool adopt_children(struct llmd *l, const struct config *fresh, struct err *e);

#endif
