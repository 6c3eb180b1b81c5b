/* delivery.h - what goes back to the gateways: HELLO, replies, and the tokens of each step.
 *
 * Effects happen once, delivery is repeated (design rule 3).  Tokens are always read from the ledger,
 * from n_sent on; a link that takes no message costs nothing but a later try.  A reply that could not be
 * sent is not kept: the peer gets another HELLO, answers with RESYNC, and that repairs everything.
 *
 * A peer is one gateway thread.  Sequences whose gateway has just connected (again), and those of a dead
 * predecessor, stay silent until a RESYNC says what the gateway holds. */
#ifndef LLMD_GPU_WORKER_DELIVERY_H
#define LLMD_GPU_WORKER_DELIVERY_H

#include "gpu-worker/sequence_table.h"
#include "proto/link.h"

enum { DELIVERY_PEERS_MAX = 256 };

struct delivery_peer {
    uint32_t id; /* 0 = free place */
    bool hello_due;
    uint32_t retry_ms;    /* pause after the last failure; 0 = the last send went well */
    uint64_t retry_at_ns; /* send nothing before */
};

struct delivery_message; /* memory of one TOKENS message */

struct delivery {
    struct link *link;                  /* borrowed */
    const struct ledger *ledger;        /* borrowed */
    const struct sequence_table *table; /* borrowed */
    Llmd__Hello hello;                  /* .draining changes */
    struct delivery_peer peers[DELIVERY_PEERS_MAX];
    struct sequence **outbox; /* sequences that have something to send */
    uint32_t n_outbox;
    struct delivery_message *message;
};

void delivery_init(struct delivery *d, struct link *link, const struct ledger *ledger,
                   const struct sequence_table *table, const Llmd__Hello *hello);
void delivery_fini(struct delivery *d);

/* This peer has connected: it is owed a HELLO, and its sequences are silent until its RESYNC. */
void delivery_connected(struct delivery *d, uint32_t peer);

/* Say HELLO to every peer again (draining has begun). */
void delivery_hello_all(struct delivery *d);

/* ACCEPTED, REFUSED, or TOKENS with FINISH_UNKNOWN. */
void delivery_reply(struct delivery *d, uint32_t peer, enum msg_type type, const void *message);
void delivery_unknown(struct delivery *d, uint32_t peer, const uint64_t *ids, size_t n);

/* `q` may have something new to send. */
void delivery_notice(struct delivery *d, struct sequence *q);
/* `q` is about to be freed. */
void delivery_forget(struct delivery *d, struct sequence *q);

/* Send what there is, one TOKENS message per peer when it fits.  True when anything was sent: the link
 * must then be received from before the caller may block. */
bool delivery_publish(struct delivery *d, uint64_t now_ns);

/* When to publish again although nothing happens; UINT64_MAX = never. */
uint64_t delivery_wake_ns(const struct delivery *d);

#endif
