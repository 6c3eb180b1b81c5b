/* exchange.h - one generation request from its head to the last byte of its answer.
 *
 *   HEAD ---- parsed, permit taken ----> BODY ---- tokenized, submitted ----> RUNNING ----> ANSWERED
 *     |  refused (busy, draining, type)    |  refused (malformed, too long)     |  fault, deadline
 *     +------------------------------------+-----------------------------------+--> ANSWERED
 *   any of them --- the client leaves ---> GONE
 *
 * (A route may refuse for want of a permit only when the body is there: refuses_by_body.)
 *
 * Made when the head is complete, freed at the request's last callback; in between it owns the request,
 * its permit, its timers and its connection record, and gives each back exactly once. */
#ifndef LLMD_GATEWAY_EXCHANGE_H
#define LLMD_GATEWAY_EXCHANGE_H

#include "gateway/answer/beam_run.h"
#include "gateway/net/http_request.h"
#include "gateway/net/loop.h"
#include "gateway/request.h"
#include "gateway/request_id.h"
#include "gateway/routes.h"
#include "gateway/takeover/record.h"

struct gateway_thread;

struct exchange {
    struct gateway_thread *thread;
    struct exchange *prev, *next; /* of the thread's list */
    struct http_request *http;
    const struct route *route;
    struct request rq;
    char id[REQUEST_ID_BYTES]; /* in logs, the answer's header and with the workers */
    struct beam_run *beams;    /* NULL: its choices are sequences */
    uint64_t first_sequence_id;
    uint32_t n_submitted; /* choices */
    struct loop_timer *deadline;
    struct loop_timer *keep_alive; /* of a stream; NULL: the dialect has none */
    struct record *record;         /* of its connection; NULL: none */
    uint32_t key;                  /* it was let in by: proto/keys_layout.h */
    struct turn turn;
    uint64_t n_charged; /* generated tokens that the key has been charged for */
    uint32_t n_permits;
    struct fault refusal;    /* there was no permit; its body says in what form it is told */
    bool is_of_key;          /* it counts among those of its key */
    bool is_accounted;       /* its end is in the statistics */
    uint64_t went_ns;        /* its turn came */
    uint64_t first_token_ns; /* 0: none has come */
    bool is_restored;        /* a dead gateway had read it whole: it has id, seed and sequences */
    uint32_t n_events;       /* pieces of a stream written so far */
    uint32_t n_comments;     /* of the dead gateway's keep-alive comments, written again so far */
    uint32_t n_old_comments;
    struct fault old_fault; /* by which it ended the stream ... */
    uint32_t old_fault_at;  /* ... after so many pieces */
};

/* The head is there: take a permit or refuse. */
void exchange_begin(struct gateway_thread *t, struct http_request *http, const struct route *route,
                    uint32_t key);
/* The body is there: parse and submit, or refuse. */
void exchange_run(struct exchange *x);
/* Its turn has come. */
void exchange_go(struct exchange *x);
/* The client has read some of it. */
void exchange_resume(struct exchange *x);
/* The last callback: whatever is still running is cancelled.  Frees x. */
void exchange_end(struct exchange *x, enum http_outcome outcome);
/* The server ends before the answer does. */
void exchange_abort(struct exchange *x);

#endif
