/* fake_llmd.h - a process that answers llmctl as llmd and its gateway would, by a script.
 *
 * It listens at DIR/control.sock and on a free port of 127.0.0.1, and writes down what it was asked. */
#ifndef LLMD_TESTS_PROC_FAKE_LLMD_H
#define LLMD_TESTS_PROC_FAKE_LLMD_H

#include <stdbool.h>
#include <sys/types.h>

struct fake_llmd {
    /* the script, set before fake_llmd_start() */
    const char *states; /* of each STATUS in turn, the last one again and again: "starting ready" */
    const char *last_exit; /* of the worker; its state is then backoff */
    unsigned restarts;     /* of the worker */
    const char
        *weights_pages; /* the way to them, without a byte of them huge; NULL = all of them huge */
    const char *refuse; /* the answer to any order, NULL = ok */
    bool is_silent;     /* closes connections without an answer */
    bool answers_nonsense; /* another message than CTL_REPLY */
    bool listens_nowhere;  /* no address in STATUS */
    int http_status;       /* 0 = 200 */
    const char *http_body; /* sent in pieces of http_piece bytes */
    int http_piece;        /* 0 = all at once */
    bool http_hangs;       /* after the body: neither more nor the end */

    uid_t uid; /* not 0: this user listens (root only) */

    /* what it is */
    char dir[64]; /* the runtime dir, made by fake_llmd_start() */
    int port;
    pid_t pid;
};

void fake_llmd_start(struct fake_llmd *f);

/* Kill it, and remove its folder. */
void fake_llmd_stop(struct fake_llmd *f);

/* What it was asked so far: a line "CTL_DRAIN 0" per order (with "model DIR", "process NAME" if it says so), "POST /path {body}" per request, then its "Authorization: ..." if it has one.  Borrowed
 * until the next call. */
const char *fake_llmd_asked(const struct fake_llmd *f);

#endif
