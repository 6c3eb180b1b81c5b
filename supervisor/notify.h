/* notify.h - what llmd tells the service manager, and what that gives it: the door to sd-daemon.
 *
 * Without a service manager every call does nothing. */
#ifndef LLMD_SUPERVISOR_NOTIFY_H
#define LLMD_SUPERVISOR_NOTIFY_H

#include <stdint.h>

void notify_ready(void);
void notify_reloading(void); /* followed by notify_ready() */
/* The end has begun; it may take this long (0 = not long). */
void notify_stopping(uint64_t within_ns);
/* One line for people; sent when it differs from the last one. */
void notify_status(const char *line);
/* What goes on now (start or stop) may take this much longer from now on. */
void notify_extend(uint64_t ns);

/* Sockets of socket activation; asked once, before any child is started. */
int notify_n_passed_fds(void);
int notify_passed_fd(int i);

#endif
