/* link.h - the queue between gateway threads and rank 0 of a group: the one door to ZeroMQ.
 *
 *   gateway thread t: DEALER ----- ipc, abstract address of the group ----- ROUTER: rank 0
 *
 * Rank 0 binds; each gateway thread connects one DEALER per group.  Either side may die: ZeroMQ connects
 * again, and the DEALER's probe tells the new ROUTER of the peer, which answers with HELLO.  What was
 * queued meanwhile may be lost or come late; RESYNC and token indexes make that harmless.
 *
 * Addresses are in the abstract namespace, so no file is left behind; only processes of the same user
 * are let in (peer credentials).  The descriptor is edge-triggered (ZMQ_FD): after opening, after it
 * wakes, and after every send, receive until LINK_EMPTY; this also moves a connection forward that is
 * being made.  A link is used by one thread. */
#ifndef LLMD_PROTO_LINK_H
#define LLMD_PROTO_LINK_H

#include "proto/frame.h"

enum link_result {
    LINK_OK,
    LINK_EMPTY,     /* nothing to receive now */
    LINK_CONNECTED, /* router only: this peer has just connected (again) */
    LINK_FAILED,    /* one malformed message was dropped, *e says why; go on receiving */
};

struct link_msg {
    uint32_t peer; /* router: who sent it */
    enum msg_type type;
    void *body; /* unpacked, owned; frame_free_body() */
};

struct link;

/* Rank 0's end.  NULL and ERR_SYS. */
struct link *link_bind(const char *instance, uint32_t group, struct err *e);

/* A gateway thread's end.  `peer` (any number but 0) is its identity: a new gateway that uses the same
 * number takes the place of the dead one. */
struct link *link_connect(const char *instance, uint32_t group, uint32_t peer, struct err *e);

void link_close(struct link *l); /* drops what is still queued; NULL is fine */
int link_fd(const struct link *l);

enum link_result link_recv(struct link *l, struct link_msg *m, struct err *e);

/* Queue one message.  False when the peer is not connected or its queue is full: nothing was sent, try
 * again after the next LINK_CONNECTED or HELLO, or later.  `peer` is ignored on a gateway's end.  A
 * message queued for a peer that dies is lost; it never reaches its successor. */
bool link_send(struct link *l, uint32_t peer, enum msg_type type, const void *message);

#endif
