/* successor.h - become another llmd: exec with every descriptor passed on, as a service manager would. */
#ifndef LLMD_SUPERVISOR_SUCCESSOR_H
#define LLMD_SUPERVISOR_SUCCESSOR_H

#include "common/err.h"

struct llmd;
struct successor_row;

struct successor {
    /* Say what it is given, with successor_add(). */
    void (*fill)(const struct llmd *l, struct successor_row *row);
    char **argv; /* borrowed */
    int asker;   /* -1 = none */
};

/* All that llmd holds. */
void successor_fill_all(const struct llmd *l, struct successor_row *row);
/* fd: borrowed; -1 is left out. */
void successor_add(struct successor_row *row, const char *name, int fd);

/* Run the program that is installed where this one came from, with the same pid and children.  It finds
 * what it is given as LISTEN_FDS under the names of fdstore.h, and `asker` under "llmd-asker": the
 * operator's connection, which waits for a reply.
 *
 * Returns only when that failed: *e, and everything is as before. */
void successor_exec(const struct llmd *l, const struct successor *s, struct err *e);

#endif
