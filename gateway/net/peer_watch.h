/* peer_watch.h - sees a client leave while nothing is read from it.
 *
 * libevent's EV_CLOSED looks made for this, but a reset (EPOLLERR) reaches only events that wait for
 * reading or writing: an event that waits for EV_CLOSED alone never fires, and its loop spins.  So
 * the sockets are in an epoll set of our own, edge-triggered, for nothing but the peer's end, and the set is
 * one descriptor in the loop.  It costs one system call for a connection, none for a request. */
#ifndef LLMD_GATEWAY_NET_PEER_WATCH_H
#define LLMD_GATEWAY_NET_PEER_WATCH_H

#include <stdbool.h>

#include "common/err.h"
#include "gateway/net/loop.h"

struct peer_watch;

/* is_dead: the connection is gone in both directions; else the peer only sends no more. */
typedef void peer_watch_fn(void *peer, bool is_dead);

struct peer_watch *peer_watch_new(struct loop *l, peer_watch_fn *fn, struct err *e);
void peer_watch_free(struct peer_watch *w);
/* `peer` must stay valid until the end of the turn in which it is removed. */
bool peer_watch_add(struct peer_watch *w, int fd, void *peer, struct err *e);
/* Before closing fd: others may hold the same socket, and then closing alone removes nothing. */
void peer_watch_remove(struct peer_watch *w, int fd);

#endif
