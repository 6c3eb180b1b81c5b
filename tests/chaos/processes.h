/* processes.h - other processes as /proc shows them. */
#ifndef LLMD_TESTS_CHAOS_PROCESSES_H
#define LLMD_TESTS_CHAOS_PROCESSES_H

#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"

/* The letter of /proc/PID/stat; 0 when there is no such process. */
char pid_state(pid_t pid);
/* The first living child of that name (NULL: any); 0 when there is none. */
pid_t pid_child_named(pid_t parent, const char *name);
/* All living descendants, this one not included: how many; their "pid name" lines in *lines. */
uint32_t pid_descendants(pid_t ancestor, struct buf *lines);
/* Its descriptors, one a line, and what they are of. */
void pid_list_fds(pid_t pid, struct buf *lines);

int loopback_connect(uint16_t port); /* -1: refused */

#endif
