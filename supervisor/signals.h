/* signals.h - what signals mean to llmd: orders of the operator, and the ends of children.
 *
 *   SIGTERM, SIGINT   end: drain_ask()
 *   SIGHUP            read the settings again, or the terminal is closed
 *   SIGCHLD           a child has ended, ours or a stranger's
 *
 * All are blocked and read by the event loop; SIGPIPE is ignored. */
#ifndef LLMD_SUPERVISOR_SIGNALS_H
#define LLMD_SUPERVISOR_SIGNALS_H

#include <stdbool.h>

struct llmd;

/* Listen for them on l->event, as long as that lives.  False: errno. */
bool signals_open(struct llmd *l);

#endif
