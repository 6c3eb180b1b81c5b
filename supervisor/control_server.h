/* control_server.h - control.sock: the operator asks, llmd answers.
 *
 * SOCK_SEQPACKET, one request and one answer per datagram.  Only root and the user llmd runs as are let in.
 * A client that does not read its answer is cut off; it cannot hold llmd up. */
#ifndef LLMD_SUPERVISOR_CONTROL_SERVER_H
#define LLMD_SUPERVISOR_CONTROL_SERVER_H

#include <systemd/sd-event.h>

#include "common/err.h"

enum { CONTROL_CLIENTS_MAX = 32 };

struct llmd;

struct control_client {
    int fd; /* -1 = free */
    sd_event_source *source;
    struct control_server *server;
    uint64_t heard_ns; /* newest request, or its connection */
};

struct control_server {
    struct llmd *llmd; /* borrowed; NULL = not open */
    int fd;
    sd_event_source *source;
    struct control_client clients[CONTROL_CLIENTS_MAX];
};

/* Listen on `<dir>/control.sock`; the caller holds the folder's lock, so a socket that is there is a
 * dead one's and is replaced. */
bool control_server_open(struct control_server *s, struct llmd *l, const char *dir, struct err *e);
void control_server_close(struct control_server *s);

/* Pid of the llmd that accepts on `<dir>/control.sock`; 0 = none does. */
pid_t control_server_holder(const char *dir);

#endif
