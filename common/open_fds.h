/* open_fds.h - how many descriptors a process has open, as /proc shows it. */
#ifndef LLMD_COMMON_OPEN_FDS_H
#define LLMD_COMMON_OPEN_FDS_H

#include <sys/types.h>

/* -1: there is no such process, or it is not ours to look at.  Of ourselves: without the one it is read by. */
int open_fds_count(pid_t pid);

#endif
