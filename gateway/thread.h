/* thread.h - one event-loop thread: an HTTP server, a view of the groups, and the exchanges between.
 *
 * Threads share struct service and the listening sockets, nothing else.  Other threads speak to one by
 * loop_post() only: the functions marked "any thread" do that. */
#ifndef LLMD_GATEWAY_THREAD_H
#define LLMD_GATEWAY_THREAD_H

#include <pthread.h>

#include "gateway/exchange.h"
#include "gateway/net/http_server.h"
#include "gateway/takeover/handover.h"
#include "gateway/takeover/takeover.h"
#include "gateway/upstream.h"

struct thread_watch {
    struct gateway_thread *thread;
    uint32_t group;
    struct loop_watch *watch;
};

struct gateway_thread {
    struct service *service;
    uint32_t index;
    struct loop *loop;
    struct http_server *server;
    struct upstream *upstream;
    struct thread_watch *watches; /* [n_groups] */
    struct loop_timer *tick, *beat;
    struct handover handover;
    struct turn_gate gate;     /* turns of its exchanges that have come */
    struct takeover *takeover; /* what a dead gateway has left; borrowed */
    uint32_t n_accepted;
    struct exchange *exchanges; /* list */
    pthread_t thread;
    bool is_running;
    _Atomic bool is_drained; /* its last connection is gone */
};

/* listen_fds and takeover (or NULL) are borrowed until thread_fini().  ERR_SYS. */
bool thread_init(struct gateway_thread *t, struct service *service, uint32_t index,
                 const int *listen_fds, size_t n_fds, struct takeover *takeover,
                 struct http_counters *counters, struct err *e);
bool thread_start(struct gateway_thread *t, struct err *e);
/* Stop the loop, join, free.  Safe on a zeroed or half-made one. */
void thread_fini(struct gateway_thread *t);

/* Any thread: llmd's word on a group. */
void thread_set_group(struct gateway_thread *t, uint32_t group, bool is_up);
/* Any thread: a new llmd wants to be given all connections. */
void thread_hand_over(struct gateway_thread *t);
/* Any thread: LIVE settings have changed. */
void thread_reload(struct gateway_thread *t);
/* Any thread: end every running answer, then close.  is_drained becomes true. */
void thread_abort_all(struct gateway_thread *t);
/* Any thread: accept no more, close what is idle, finish what is being written.  is_drained becomes
 * true. */
void thread_drain(struct gateway_thread *t);

/* After upstream was given something to wait for: see to it that time passes for it. */
void thread_arm_tick(struct gateway_thread *t);

/* The field X-Request-Id, where the setting asks for it: request_id_of() of the two. */
void thread_add_request_id(const struct gateway_thread *t, const struct http_request *http,
                           uint64_t bits, struct reply *r);
/* Send a whole answer; the thread's own fields are added. */
void thread_send(struct gateway_thread *t, struct http_request *http, struct reply *r);

#endif
