/* notify.h - what llmd tells the service manager in words.
 *
 * Without a service manager every call does nothing. */
#ifndef LLMD_SUPERVISOR_NOTIFY_H
#define LLMD_SUPERVISOR_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"

struct notify {
    int fd;               /* connected to the manager; -1 = there is none */
    uint64_t watchdog_us; /* it wants a sign of life this often; 0 = never */
    sd_event_source *watchdog;
    char unsent[2048]; /* lines that the manager had no room for */
    char status[512];  /* said last */
};

/* Find the manager ($NOTIFY_SOCKET) and start to feed its watchdog from the loop. */
bool notify_open(struct notify *n, sd_event *event, struct err *e);
void notify_close(struct notify *n); /* safe on a zeroed struct */

void notify_ready(struct notify *n);
void notify_reloading(struct notify *n); /* followed by notify_ready() */
/* The end has begun; it may take this long (0 = not long). */
void notify_stopping(struct notify *n, uint64_t within_ns);
/* One line for people; sent when it differs from the last one. */
void notify_status(struct notify *n, const char *line);
/* What goes on now (start or stop) may take this much longer from now on. */
void notify_extend(struct notify *n, uint64_t ns);
/* Try again what could not be sent; called now and then. */
void notify_flush(struct notify *n);

#endif
