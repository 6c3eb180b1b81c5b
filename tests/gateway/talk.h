/* talk.h - many clients at once on one thread, each with its own pace: raw bytes out in pieces, raw bytes
 * in, and what came compared with what an undisturbed server answers, byte for byte.
 *
 * A talk is everything that one connection says; its last request asks for the connection to be closed,
 * so the end of the answers is seen without looking into them. */
#ifndef LLMD_TESTS_TALK_H
#define LLMD_TESTS_TALK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

struct talk {
    const char *name;
    struct buf request;
    size_t send_max;   /* at most so many bytes in one send(); 0 = all */
    size_t recv_max;   /* likewise */
    uint32_t pause_us; /* between two sends or two receives */

    /* how it goes */
    int fd;
    size_t n_sent;
    struct buf in;
    uint64_t next_ns;
    bool is_done, is_broken;
};

/* Add a request; `connection`: "close" for the last one of a talk. */
void talk_post(struct talk *t, const char *path, const char *headers, const char *body,
               const char *connection);
void talk_start(struct talk *t, uint16_t port);
/* Send and receive what is possible now on all of them, waiting at most wait_ms.  Returns how many are
 * not over. */
int talk_turn(struct talk *talks, int n, int wait_ms);
void talk_stop(struct talk *t); /* and forget what came */
void talk_fini(struct talk *t);
/* Take out of the answers what differs between two runs: dates, drawn ids, times. */
void talk_blank(struct buf *in);

#endif
