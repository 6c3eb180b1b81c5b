/* audit.h - what must not be left behind: by an idle server, and by one that has ended. */
#ifndef LLMD_TESTS_CHAOS_AUDIT_H
#define LLMD_TESTS_CHAOS_AUDIT_H

#include "tests/chaos/evidence.h"
#include "tests/chaos/server.h"

struct audit {
    int llmd_fds, init_fds; /* of the idle server before the first kill */
    uint32_t gpu_pieces;    /* of memory that it holds then */
    struct buf shm;         /* /dev/shm before it was started */
};

/* Before the server is started, and when it is idle for the first time. */
void audit_before(struct audit *a);
void audit_baseline(struct audit *a, const struct server *s);
void audit_fini(struct audit *a);

/* No client is connected: each number is right within a deadline, or a defect.  Returns how many were
 * not. */
uint32_t audit_idle(const struct audit *a, struct server *s, struct evidence *v);
/* The server has ended with `code`; with processes or files it left behind. */
uint32_t audit_ended(const struct audit *a, struct server *s, int code, struct evidence *v);

#endif
