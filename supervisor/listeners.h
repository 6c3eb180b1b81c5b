/* listeners.h - the listening sockets: llmd's own for its whole life, or those of socket activation.
 *
 * The gateway gets copies; since llmd never closes its own before the end of service, no connection is
 * refused while a gateway is replaced: it waits in the backlog. */
#ifndef LLMD_SUPERVISOR_LISTENERS_H
#define LLMD_SUPERVISOR_LISTENERS_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

enum { LISTENERS_MAX = 16, LISTENER_NAME_BYTES = 108 };

struct listeners {
    int fd[LISTENERS_MAX];
    char name[LISTENERS_MAX][LISTENER_NAME_BYTES]; /* "127.0.0.1:8080", "[::1]:8080", "unix:PATH" */
    uint32_t n;
};

/* Take the sockets of socket activation when there are any, else listen on config host and port. */
bool listeners_open(struct listeners *l, const struct config *c, struct err *e);
void listeners_close(struct listeners *l);

#endif
