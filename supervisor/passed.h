/* passed.h - the descriptors llmd was started with (LISTEN_FDS): those it, or the llmd before it, gave the
 * service manager to keep (fdstore.h), and listening sockets of socket activation. */
#ifndef LLMD_SUPERVISOR_PASSED_H
#define LLMD_SUPERVISOR_PASSED_H

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/fdstore.h"

struct passed_fd {
    int fd; /* owned; -1 = taken */
    char name[FDSTORE_NAME_BYTES];
};

struct passed {
    struct passed_fd *list;
    uint32_t n;
};

/* All of them, close-on-exec, and the environment forgets them.  Once, before any child is started. */
void passed_init(struct passed *p);
/* Close what was not taken; safe on a zeroed struct. */
void passed_fini(struct passed *p);

/* Take the first of this name; -1 when there is none. */
int passed_take(struct passed *p, const char *name);
/* The same for "<name><number>". */
int passed_take_numbered(struct passed *p, const char *name, uint32_t number);
/* Take the first that is not one of ours: of socket activation. */
int passed_take_activated(struct passed *p);

#endif
