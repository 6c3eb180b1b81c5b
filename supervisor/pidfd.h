/* pidfd.h - processes by descriptor, also those that are not our children. */
#ifndef LLMD_SUPERVISOR_PIDFD_H
#define LLMD_SUPERVISOR_PIDFD_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

int pidfd_of(pid_t pid); /* -1 and errno; close-on-exec */
bool pidfd_signal(int pidfd, int sig);

/* Its number; 0 when the process is gone altogether. */
pid_t pidfd_pid(int pidfd);

/* Of the process whose descriptor `fd` is the socket with this inode; -1 = none has it.  A scan of /proc, for
 * what a former llmd started and did not live to note. */
int pidfd_of_holder(int fd, unsigned long inode);

/* It has ended: *info as waitid() would fill it, and what there is to reap stays.  For a process that is
 * not our child si_code is 0 where the kernel does not tell how it ended (before Linux 6.15). */
bool pidfd_has_ended(int pidfd, siginfo_t *info);

#endif
