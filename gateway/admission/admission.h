/* admission.h - which requests come in, and when it is their turn.
 *
 *   head complete ---- permit ----> body read and parsed ---- turn ----> sequences sent ----> over
 *
 * A permit is taken when the head of a request is complete, before its body is read, and given back
 * when the request is over, whatever became of it.  It is refused when the house is full, when one key has
 * more than its part of the house, or when the key has used up one of its limits.
 *
 * A turn is waited for by requests that are ready to be computed: groups are sent as much as they can
 * work on and a little more, the others wait here, where keys are treated fairly (fair_queue.h).  A turn
 * ends when the tokens are all there, the permit when the answer is out.
 *
 * Permits and limits are single words that all threads share.  Turns are behind a mutex: one that comes by another's
 * end is given through the gate of its thread, never by calling into it. */
#ifndef LLMD_GATEWAY_ADMISSION_ADMISSION_H
#define LLMD_GATEWAY_ADMISSION_ADMISSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "gateway/admission/fair_queue.h"
#include "gateway/admission/key_table.h"
#include "proto/stats.h"

enum admission_refusal {
    ADMISSION_OK,
    ADMISSION_FULL,        /* max_concurrent_requests */
    ADMISSION_SHARE,       /* ... of which this key has more than its part */
    ADMISSION_CONCURRENCY, /* the key's limits */
    ADMISSION_REQUESTS,
    ADMISSION_TOKENS,
};

struct admission_answer {
    enum admission_refusal why;
    uint64_t limit;   /* the one that was met */
    uint64_t wait_ns; /* when it is worth asking again; 0 = not known */
};

/* Of one thread: turns that have come, and how to tell it. */
struct turn_gate {
    TAILQ_HEAD(, turn) called;
    void (*wake)(void *ctx); /* any thread, with the mutex held */
    void *ctx;
};

enum turn_state { TURN_NONE, TURN_WAITING, TURN_CALLED, TURN_GOING };

/* Of one request; zeroed to begin with.  Owner: its thread. */
struct turn {
    struct fair_waiter waiter;
    enum turn_state state;
    TAILQ_ENTRY(turn) link; /* CALLED: of the gate */
    struct turn_gate *gate;
    void *owner;
    uint64_t since_ns; /* WAITING and CALLED: CLOCK_MONOTONIC */
};

struct admission {
    struct key_table keys;
    _Atomic uint64_t permits_max; /* LIVE setting max_concurrent_requests */
    _Atomic uint64_t taken;
    struct stats *stats; /* keeps the gauges requests_active and requests_queued true; borrowed */
    _Atomic bool is_unserved; /* no group takes work: nobody needs to wait for a turn */
    pthread_mutex_t lock;     /* of what follows */
    struct fair_queue queue;
};

/* key_records: borrowed, or NULL. */
void admission_init(struct admission *a, uint64_t permits_max, struct key_record *key_records,
                    struct stats *stats);
void admission_fini(struct admission *a);
/* A smaller limit takes nothing from those inside. */
void admission_set_max(struct admission *a, uint64_t permits_max);

/* ---- permits ---- */
struct admission_answer admission_take(struct admission *a, uint32_t key, uint64_t now_ns);
/* The permit of a request that a dead gateway had let in: there is one, whatever the limits. */
void admission_take_over(struct admission *a, uint32_t key);
/* It is answered: its key may have another at once.  Its permit stays until the client has the answer. */
void admission_answered(struct admission *a, uint32_t key);
/* n further permits for a request that has one, all or none; of one that a dead gateway had let in, whatever the
 * limits. */
bool admission_take_more(struct admission *a, uint32_t n, bool was_let_in);
/* All n that a request has. */
void admission_give(struct admission *a, uint32_t n);
uint64_t admission_taken(const struct admission *a);

/* Tokens that the key has used up of its minute and, generated ones, of its share; a prompt is charged to that
 * by its turn. */
void admission_charge_prompt(struct admission *a, uint32_t key, uint64_t n, uint64_t now_ns);
void admission_charge_generated(struct admission *a, uint32_t key, uint64_t n, uint64_t now_ns);

/* ---- turns ---- */
void turn_gate_init(struct turn_gate *gate, void (*wake)(void *ctx), void *ctx);
/* Sequences that may be under way at once. */
void admission_set_room(struct admission *a, uint32_t n_sequences);
/* Whether any group takes work; while none does, all go, and are refused by who knows why. */
void admission_set_served(struct admission *a, bool is_served);

/* t->waiter, gate and owner are set.  True: it is its turn now.  Else it comes through the gate. */
bool admission_wait(struct admission *a, struct turn *t, uint64_t now_ns);
/* It went under a dead gateway. */
void admission_go_on(struct admission *a, struct turn *t);
/* The next turn that has come, of this thread; it is GOING.  NULL: none. */
struct turn *admission_called(struct admission *a, struct turn_gate *gate);
/* Whatever its state: it waits no more, is under way no more.  More than once is fine. */
void admission_leave(struct admission *a, struct turn *t);

#endif
