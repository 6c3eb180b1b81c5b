/* notify.h - what llmd tells the service manager, and what that gives it: the door to sd-daemon.
 *
 * Without a service manager every call does nothing. */
#ifndef LLMD_SUPERVISOR_NOTIFY_H
#define LLMD_SUPERVISOR_NOTIFY_H

#include <stdint.h>

void notify_ready(void);
void notify_reloading(void); /* followed by notify_ready() */
void notify_stopping(void);
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Loading goes on: the start may take this much longer. */
void notify_extend_start(uint64_t seconds);

/* Sockets of socket activation; asked once, before any child is started. */
int notify_n_passed_fds(void);
int notify_passed_fd(int i);

#endif
