/* bench_request.h - one request of the load generator: its body, and what its stream tells and when. */
#ifndef LLMD_LLMCTL_BENCH_REQUEST_H
#define LLMD_LLMCTL_BENCH_REQUEST_H

#include <stdint.h>

#include "llmctl/http.h"
#include "llmctl/sse.h"

enum bench_api { BENCH_OPENAI, BENCH_CHAT, BENCH_TGI, N_BENCH_APIS };

struct bench_api_words {
    const char *name; /* of --api */
    const char *path;
};
extern const struct bench_api_words bench_apis[N_BENCH_APIS];

/* Why a request counts as failed. */
enum bench_failure {
    BENCH_FINE,
    BENCH_CONNECTION, /* none came about, or it broke */
    BENCH_TIMEOUT,
    BENCH_HTTP,      /* a status other than 200 */
    BENCH_IN_STREAM, /* an error event */
    BENCH_CUT_SHORT, /* the stream ended without its end, or without a token */
    N_BENCH_FAILURES
};
extern const char *const bench_failures[N_BENCH_FAILURES];

struct bench_ask {
    enum bench_api api;
    const char *model;
    uint64_t max_tokens;
    double temperature;
    bool ignore_eos;
    bool has_seed;
    uint64_t seed; /* of the server's sampler */
};

/* Times are CLOCK_MONOTONIC in ns. */
struct bench_request {
    void *owner; /* who started it; not looked at here */
    enum bench_api api;
    /* when it should leave, and when it did: later when as many as may be were running */
    uint64_t due_ns, sent_ns;
    uint64_t first_ns, last_ns, end_ns; /* tokens first and last seen; the end of the answer */
    uint64_t *gaps_ns;                  /* between events with tokens; [n_events - 1] */
    uint64_t n_events;
    uint64_t n_prompt, n_generated; /* as the server tells, else 0 and n_events */
    bool is_finished;               /* the stream said so */
    enum bench_failure failure;
    long status;
    char error[160];

    struct sse sse;
    struct buf body;
    struct http_post post;
};

/* Make the body; .post is filled but for url and key. */
void bench_request_init(struct bench_request *r, const struct bench_ask *ask, const char *prompt);
/* The transfer is over; the verdict. */
void bench_request_end(struct bench_request *r, const struct http_end *end);
/* Keeps what was measured. */
void bench_request_forget(struct bench_request *r);
void bench_request_fini(struct bench_request *r);

#endif
