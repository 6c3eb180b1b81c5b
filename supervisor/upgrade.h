/* upgrade.h - replace running processes by the installed programs: llmd by exec in place, then the others
 * by the way of a crash, one team after the other.
 *
 *   ask `llmd ARGS --layouts` --> exec --> adopt --> gateway --> group 0 --> group 1 ... --> done
 *
 * Clients see the pauses of so many crashes.  How far it is stands on the board (board_hdr.upgrade_ns and
 * when each process was started), so an llmd that dies in between goes on.  When the installed llmd has
 * other layouts it cannot adopt: it lets the old processes finish, and starts afresh (former.h). */
#ifndef LLMD_SUPERVISOR_UPGRADE_H
#define LLMD_SUPERVISOR_UPGRADE_H

#include "supervisor/capture.h"

struct llmd;

struct upgrade {
    struct llmd *llmd; /* borrowed; NULL = none is being asked for */
    struct capture probe;
    bool is_for_all; /* else llmd alone */
    int asker;       /* the operator's connection, owned */
    char *layouts;   /* what the installed llmd said */
};

/* Begin.  asker: a connection that gets its CtlReply later, from whoever is llmd then; a copy is kept.
 * False: *e, and the caller replies. */
bool upgrade_start(struct upgrade *u, struct llmd *l, bool is_for_all, int asker, struct err *e);
void upgrade_stop(struct upgrade *u); /* safe on a zeroed struct */

/* Tell an operator whose request outlived an llmd that it is done.  Takes fd; -1 = nobody. */
void upgrade_answer(int fd, const char *error);

bool upgrade_is_on(const struct llmd *l);
/* The next step, if there is one to take: called after each change. */
void upgrade_go_on(struct llmd *l);

#endif
