/* record.h - keep the connections segment true: what a successor must know of each connection.
 *
 * A slot is claimed when a client is accepted and released when its connection closes.  All functions do
 * nothing for NULL (no segment, or more connections than slots).  Only the owning thread.
 *
 * The first request of a connection that was taken over may be one that a dead gateway was at: then
 * what its record says is obeyed, and nothing of it is overwritten with anything else, so that a further
 * successor finds it just as true. */
#ifndef LLMD_GATEWAY_TAKEOVER_RECORD_H
#define LLMD_GATEWAY_TAKEOVER_RECORD_H

#include <sys/queue.h>

#include "gateway/net/http_server.h"
#include "gateway/request.h"
#include "gateway/takeover/journal.h"

struct record {
    TAILQ_ENTRY(record) link; /* of its thread's list */
    struct service *service;
    struct connection_record *shared;
    struct journal journal;
    uint32_t slot;
    int fd;
    bool is_tcp;
    bool must_hand;  /* llmd has still to be given the descriptor */
    bool is_resumed; /* the request that the record speaks of is a dead gateway's */
};

TAILQ_HEAD(record_list, record);

/* NULL: no slot.  `hint`: where to look for one. */
struct record *record_open(struct service *s, int fd, bool is_tcp, uint32_t hint, uint32_t thread);
/* Which descriptor it is, where its bytes begin. */
void record_identify(struct record *r);
/* Of a connection taken over; the slot is not free. */
struct record *record_adopt(struct service *s, uint32_t slot, int fd, uint32_t thread);
/* Frees r. */
void record_close(struct record *r);

/* ---- input ---- */
char *record_room(struct record *r, size_t *n);
void record_input(struct record *r, size_t n);
/* All that came before the n-th byte is answered: the request is over. */
void record_used(struct record *r, uint64_t n);

/* ---- the request ---- */
/* Its head is complete. */
void record_reading(struct record *r, enum dialect_id dialect);
/* Before a statistic CONNECTION_COUNTED_... : has it still to be told of this request? */
bool record_counts(struct record *r, uint8_t what);
/* It was let in under a key, by us; by a dead gateway, and under which. */
void record_admit(struct record *r, uint32_t key);
bool record_was_admitted(const struct record *r, uint32_t *key);
/* Generated tokens that the key has been charged for. */
void record_charged(struct record *r, uint64_t n_tokens);
uint64_t record_old_charged(const struct record *r);
/* Times for the statistics: notes *ns, or sets it to what a dead gateway has noted of this request. */
void record_went(struct record *r, uint64_t *ns);
void record_first_token(struct record *r, uint64_t *ns);
void record_started(struct record *r, struct request *rq); /* sets or restores rq->started_ns */
/* Before the body is parsed: give rq the id, times and seed that it had.  False: it had none. */
bool record_restore(const struct record *r, struct request *rq);
/* It is complete, and will be answered. */
void record_waiting(struct record *r, const struct request *rq, uint64_t first_sequence_id);
void record_group(struct record *r, uint32_t choice, uint32_t group);

/* ---- the answer ---- */
void record_output(struct record *r, const struct http_mark *mark);
/* The times that a whole answer tells. */
void record_answered(struct record *r, const struct request *rq);
/* What it tells of the prefix cache, before a byte does. */
void record_cached(struct record *r, const struct request *rq);
/* A keep-alive comment goes out after n_events pieces.  False: there is no room to remember it, so it must
 * not be sent. */
bool record_keep_alive(struct record *r, uint32_t n_events);
/* The stream ends by a fault after n_events pieces.  Its text is cut to what can be remembered. */
void record_fault(struct record *r, struct fault *f, uint32_t n_events);
/* How the dead gateway ended the stream; false: it did not. */
bool record_old_fault(const struct record *r, struct fault *f, uint32_t *n_events);

#endif
