/* client.h - streaming clients of a completions API, all at once, for items that do something to the server meanwhile:
 * which tokens came, whether the answer was whole, and how long a client had to wait for the next event.
 *
 * Greedy, with token ids in and out.  Like everything in the main process it knows no GPU. */
#ifndef LLMD_CUDA_VERIFY_CLIENT_H
#define LLMD_CUDA_VERIFY_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

enum { CLIENT_TOKENS_MAX = 1024 };

struct client {
    int fd;            /* -1: ended */
    bool is_whole;     /* the answer's last event has come */
    char why[160];     /* ended and not whole */
    uint32_t n_tokens; /* answered so far */
    int32_t tokens[CLIENT_TOKENS_MAX];
    uint64_t first_ns; /* of the first event */
    uint64_t event_ns; /* of the last one; 0 = none yet */
    uint64_t gap_ns;   /* the longest time between two */
    bool has_status;   /* the status line was read */
    struct buf line;   /* the one that is being read */
};

/* A prompt of n_prompt made-up tokens below n_ids, the same for a seed every time; n_answer tokens are wanted. */
struct client_question {
    uint32_t n_prompt, n_answer, n_ids, seed;
};

/* Ask 127.0.0.1:port.  What goes wrong is in .why. */
void client_start(struct client *c, int port, const struct client_question *q);
/* Read until all have ended (true) or CLOCK_MONOTONIC passes until_ns. */
bool clients_read(struct client *c, uint32_t n, uint64_t until_ns);
/* Zeroed or ended: fine. */
void client_close(struct client *c);

/* Sum of the series of the metrics page called `name`; -1 when there is none. */
double client_metric(int port, const char *name);

#endif
