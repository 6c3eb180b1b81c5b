/* loop.h - one event loop on one thread: timers, descriptors, tasks from other threads.
 *
 * The rest of the gateway sees libevent only through this file.  A loop belongs to the thread that
 * runs it; every function here is for that thread (or for the owner before loop_run()), except
 * loop_post() and loop_stop(), which any thread may call.  libevent's own locks are not used: what
 * crosses threads goes through one queue and one eventfd, so a turn of the loop takes no lock. */
#ifndef LLMD_GATEWAY_NET_LOOP_H
#define LLMD_GATEWAY_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct event_base;
struct loop;
struct loop_timer;
struct loop_watch;

typedef void loop_task_fn(void *arg);

/* ERR_SYS.  Also sets SIGPIPE to ignored for the process: a client that leaves must not end it. */
struct loop *loop_new(struct err *e);
/* Timers, watches and servers of the loop must be gone.  Tasks still queued are dropped. */
void loop_free(struct loop *l);

/* Run until loop_stop().  Tasks posted before the stop have run when it returns. */
void loop_run(struct loop *l);
/* Any thread, also before loop_run() (which then returns after one turn), and more than once. */
void loop_stop(struct loop *l);
/* Any thread: run fn(arg) on the loop's thread, in the order of posting. */
void loop_post(struct loop *l, loop_task_fn *fn, void *arg);

/* A timer fires once per loop_timer_set(); setting it again moves it.  Allowed inside its own
 * callback: set, clear and free. */
struct loop_timer *loop_timer_new(struct loop *l, loop_task_fn *fn, void *arg);
void loop_timer_set(struct loop_timer *t, uint64_t delay_ns);
/* Have it fire once more in this turn of the loop, after what is already waiting to run. */
void loop_timer_fire(struct loop_timer *t);
void loop_timer_clear(struct loop_timer *t);
bool loop_timer_is_set(const struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

/* Call fn whenever fd is readable (level-triggered).  The fd is borrowed until loop_watch_free().
 * For an edge-triggered foreign fd (ZMQ_FD): loop_watch_kick() has fn called once more this turn. */
struct loop_watch *loop_watch_new(struct loop *l, int fd, loop_task_fn *fn, void *arg);
void loop_watch_pause(struct loop_watch *w);
void loop_watch_resume(struct loop_watch *w);
void loop_watch_kick(struct loop_watch *w);
void loop_watch_free(struct loop_watch *w);

/* For files of gateway/net only, which may include libevent. */
struct event_base *loop_base(struct loop *l);

#endif
