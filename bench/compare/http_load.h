/* http_load.h - so many clients of an OpenAI completions API at once, and what each of them saw.
 *
 * Every client sends a streaming request to 127.0.0.1, waits for its end, and sends the next, until all have
 * been sent.  Times are taken when an event is read here: to the first one, and from one to the next. */
#ifndef LLMD_BENCH_COMPARE_HTTP_LOAD_H
#define LLMD_BENCH_COMPARE_HTTP_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { HTTP_CLIENTS_MAX = 256 };

struct http_load {
    int port;
    uint32_t n_clients;  /* 1..HTTP_CLIENTS_MAX */
    uint32_t n_requests; /* of all clients together */
    uint32_t prompt_words;
    uint32_t max_tokens; /* of each answer; its end is ignored */
    uint32_t seed; /* of the prompts: no two requests of a run share more than their first word */
    uint32_t timeout_s; /* of all */
};

struct http_load_result {
    double tokens_per_s; /* answered tokens of all clients over the time of the whole run */
    double first_p50_ms, first_p99_ms; /* request sent to first event */
    double gap_p50_ms, gap_p99_ms;     /* event to event */
    uint32_t n_events;
};

/* ERR_TIMEOUT, ERR_SYS, or ERR_PROTO when an answer is no complete stream with status 200. */
bool http_load_run(const struct http_load *l, struct http_load_result *r, struct err *e);

#endif
