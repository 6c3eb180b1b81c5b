/* orphans.h - what a test's processes leave behind, when the test has become their reaper (PR_SET_CHILD_SUBREAPER). */
#ifndef LLMD_TESTS_ORPHANS_H
#define LLMD_TESTS_ORPHANS_H

/* Until nothing is left: the children of what dies become ours. */
void orphans_kill(void);

#endif
