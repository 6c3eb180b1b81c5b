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
#include "supervisor/passed.h"

enum { LISTENERS_MAX = 16, LISTENER_NAME_BYTES = 108 };

struct listeners {
    int fd[LISTENERS_MAX];
    bool is_activated[LISTENERS_MAX]; /* the service manager's: it passes them at each start */
    char name[LISTENERS_MAX][LISTENER_NAME_BYTES]; /* "127.0.0.1:8080", "[::1]:8080", "unix:PATH" */
    uint32_t n;
};

/* Take what was passed: the sockets of socket activation, and those a former llmd listened on, if they have
 * the port that is wanted.  Else listen on config host and port. */
bool listeners_open(struct listeners *l, const struct config *c, struct passed *from,
                    struct err *e);
/* Take over a running service's, whatever the settings say now. */
bool listeners_adopt(struct listeners *l, struct passed *from, struct err *e);
/* All are the service manager's: it holds them when we are gone. */
bool listeners_are_activated(const struct listeners *l);
void listeners_close(struct listeners *l);

#endif
