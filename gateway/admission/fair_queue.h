/* fair_queue.h - whose request goes next, when there is not enough for all.
 *
 *    key a:  r r r r r r        \      the smallest priority; among these the key that was served
 *    key b:  r                   >---> least, by its weight; of that key the request with the smallest
 *    key c:  r r                /      priority, the oldest of these.   Room: so many sequences.
 *
 * How long an answer will be nobody knows, so a key is not charged for it in advance: each has a count of
 * the tokens it was served (a generated one counts twice, a prompt's once), divided by its weight, and who
 * has had least is next.  A key that asks for nothing must not save up: when its first request comes to the
 * queue its count is lifted to the least of those that wait.  This is the virtual token counter of Sheng et al.
 * 2024, "Fairness in Serving Large Language Models", arXiv:2401.00588.
 *
 * The counts are in the keys' records (proto/keys_layout.h), so fairness goes on over a restart.  Whoever
 * waits here has a permit: the queue is no longer than the permits are many.
 *
 * It knows neither threads nor clocks: admission.h has the lock. */
#ifndef LLMD_GATEWAY_ADMISSION_FAIR_QUEUE_H
#define LLMD_GATEWAY_ADMISSION_FAIR_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/keys_layout.h"

/* A request; its owner's storage. */
struct fair_waiter {
    TAILQ_ENTRY(fair_waiter) link;
    uint32_t key;
    int32_t priority;     /* of the request, a smaller one first; of no weight against other keys */
    uint32_t n_sequences; /* the room that it takes */
    uint64_t prompt_tokens; /* charged when it goes */
    uint64_t order;         /* of its coming */
};

TAILQ_HEAD(fair_list, fair_waiter);

struct fair_queue {
    struct key_record *records; /* [KEYS_MAX]; borrowed */
    struct fair_list lists[KEYS_MAX];
    uint32_t keys[KEYS_MAX]; /* those with a list that is not empty, in no order */
    uint32_t n_keys;
    uint32_t n_waiting;
    uint64_t n_ever; /* gives .order */
    uint64_t level;  /* count of the key that went last */
    uint32_t room;   /* sequences that may go at once */
    uint32_t n_going;
};

void fair_queue_init(struct fair_queue *q, struct key_record *records, uint32_t room);

/* w's key, priority, n_sequences and prompt_tokens are set. */
void fair_queue_push(struct fair_queue *q, struct fair_waiter *w);
/* It gives up waiting. */
void fair_queue_remove(struct fair_queue *q, struct fair_waiter *w);
/* Take out the next that may go; NULL: nobody, or no room.  A request goes when there is room for one
 * sequence: otherwise one with many might wait for ever. */
struct fair_waiter *fair_queue_next(struct fair_queue *q, bool has_room_for_all);
/* One goes without having waited here. */
void fair_queue_go(struct fair_queue *q, uint32_t n_sequences);
/* One that went is over. */
void fair_queue_done(struct fair_queue *q, uint32_t n_sequences);

/* Count tokens for a key; any thread. */
void fair_charge(struct key_record *record, uint64_t prompt_tokens, uint64_t generated_tokens);

#endif
