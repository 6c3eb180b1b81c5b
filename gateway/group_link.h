/* group_link.h - one gateway thread's link to one group, and what the group is owed.
 *
 * CANCEL and ACK are owed until they are sent, many ids in one message; RESYNC, the list of all sequences that the group
 * should have, says as much and ends all debts.  Which sequences those are, and whether the group is there to be told,
 * upstream.c knows. */
#ifndef LLMD_GATEWAY_GROUP_LINK_H
#define LLMD_GATEWAY_GROUP_LINK_H

#include "gateway/answer/sequence_list.h"
#include "proto/link.h"

struct id_list {
    uint64_t *ids; /* [n], owned */
    size_t n, cap;
};

struct group_link {
    uint32_t group;
    void (*kick)(uint32_t group,
                 void *ctx); /* after each send: receive in this turn (proto/link.h) */
    void *ctx;
    struct link *link;
    struct id_list acks, cancels; /* owed */
};

/* group, kick and ctx are set, all else is zero.  peer: link_connect()'s.  ERR_SYS. */
bool group_link_open(struct group_link *l, const char *instance, uint32_t peer, struct err *e);
void group_link_close(struct group_link *l); /* safe on one that was not opened */

/* False: it could not be sent now (link_send()). */
bool group_link_send(struct group_link *l, enum msg_type type, const void *message);

void group_link_owe_cancel(struct group_link *l, uint64_t id);
void group_link_owe_ack(struct group_link *l, uint64_t id);
bool group_link_is_owed(const struct group_link *l);
/* Send what is owed, as far as it can be. */
void group_link_flush(struct group_link *l);
/* Nothing is owed: the group will be told in another way. */
void group_link_forget(struct group_link *l);

/* Send the list of what the group should have; nothing else is owed then.  False: as group_link_send(). */
bool group_link_resync(struct group_link *l, const struct sequence_list *held,
                       const struct sequence_list *finished);

#endif
