/* capture.h - run a program for what it writes to its stdout, without waiting for it. */
#ifndef LLMD_SUPERVISOR_CAPTURE_H
#define LLMD_SUPERVISOR_CAPTURE_H

#include "common/buf.h"
#include "supervisor/child.h"

/* Called once, when the program has ended and everything is closed.  *out: all it wrote (borrowed).  *why:
 * empty after exit code 0, else what went wrong; its FATAL message if it sent one. */
typedef void capture_done_fn(void *arg, const struct buf *out, const struct err *why);

struct capture_call {
    const char *path;
    char *const *argv;      /* NULL-terminated; borrowed during the call */
    const char *name;       /* for errors; borrowed until done */
    const Llmd__Boot *boot; /* NULL = an empty one; borrowed during the call */
    uint64_t timeout_ns;
    capture_done_fn *done;
    void *arg;
};

struct capture {
    struct child child;
    int out; /* its stdout; -1 = none */
    struct buf text;
    char words[240]; /* its FATAL message */
    const char *name;
    bool is_late;
    sd_event_source *on_out, *timer;
    capture_done_fn *done;
    void *arg;
};

bool capture_start(struct capture *c, sd_event *event, const struct capture_call *call,
                   struct err *e);
void capture_stop(struct capture *c); /* kills it if it still runs; safe on a zeroed struct */
void capture_leave(
    struct capture
        *c); /* the same, without waiting for its end: the kernel may not be able to end it */

#endif
