/* layouts.h - the versions of everything that processes of llmd share, as one line.
 *
 * Two builds whose lines are equal may take over each other's processes and memory; others may not.
 * `llmd --layouts` prints it, so that a running llmd can ask the installed program before it becomes it. */
#ifndef LLMD_SUPERVISOR_LAYOUTS_H
#define LLMD_SUPERVISOR_LAYOUTS_H

/* "layouts frame=1 keep=1 board=2 ...", without a newline. */
const char *layouts_line(void);

#endif
