/* successor.h - become another llmd: exec with every descriptor passed on, as a service manager would. */
#ifndef LLMD_SUPERVISOR_SUCCESSOR_H
#define LLMD_SUPERVISOR_SUCCESSOR_H

#include "common/err.h"

struct llmd;

/* Run the program that is installed where this one came from, with the same arguments, pid and children.  It
 * finds what llmd holds as LISTEN_FDS under the names of fdstore.h, and `asker` (-1 = none) under
 * "llmd-asker": the operator's connection, which waits for a reply.
 *
 * Returns only when that failed: *e, and everything is as before. */
void successor_exec(const struct llmd *l, int asker, struct err *e);

#endif
