/* loop.c - libevent's event base, and the one queue by which other threads reach it.
 *
 * The base is made without locks.  loop_post() puts a task into a list under a mutex and writes to an
 * eventfd; the loop takes the whole list at once and runs it outside the mutex, so a task may
 * post again without a deadlock and without starving the sockets (it runs in the next turn). */
#include "gateway/net/loop.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"

struct task {
    struct task *next;
    loop_task_fn *fn;
    void *arg;
};

struct loop {
    struct event_base *base;
    struct event *wake;
    int wake_fd;
    pthread_mutex_t mutex; /* guards first and last */
    struct task *first;
    struct task **last;
};

struct loop_timer {
    struct event *ev;
    loop_task_fn *fn;
    void *arg;
};

struct loop_watch {
    struct event *ev;
    loop_task_fn *fn;
    void *arg;
};

static struct task *take_tasks(struct loop *l)
{
    struct task *first;

    pthread_mutex_lock(&l->mutex);
    first = l->first;
    l->first = NULL;
    l->last = &l->first;
    pthread_mutex_unlock(&l->mutex);
    return first;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct loop *l = arg;
    struct task *t, *next;
    eventfd_t n;

    (void)what;
    eventfd_read(fd, &n);
    for (t = take_tasks(l); t; t = next) {
        next = t->next;
        t->fn(t->arg);
        free(t);
    }
}

static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config && !event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK))
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    return base;
}

struct loop *loop_new(struct err *e)
{
    struct loop *l = mem_zalloc(1, sizeof *l);

    signal(SIGPIPE, SIG_IGN);
    pthread_mutex_init(&l->mutex, NULL);
    l->last = &l->first;
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->base = base_new();
    if (l->wake_fd < 0 || !l->base) {
        err_set(e, ERR_SYS, errno, "make an event loop");
        loop_free(l);
        return NULL;
    }
    l->wake = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
    if (!l->wake || event_add(l->wake, NULL)) {
        err_set(e, ERR_SYS, errno, "watch the event loop's own descriptor");
        loop_free(l);
        return NULL;
    }
    return l;
}

void loop_free(struct loop *l)
{
    struct task *t, *next;

    if (!l)
        return;
    for (t = take_tasks(l); t; t = next) {
        next = t->next;
        free(t);
    }
    if (l->wake)
        event_free(l->wake);
    if (l->base)
        event_base_free(l->base);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

void loop_run(struct loop *l)
{
    event_base_dispatch(l->base);
}

void loop_post(struct loop *l, loop_task_fn *fn, void *arg)
{
    struct task *t = mem_alloc(sizeof *t);

    *t = (struct task){ .fn = fn, .arg = arg };
    pthread_mutex_lock(&l->mutex);
    *l->last = t;
    l->last = &t->next;
    /* Inside the mutex: the loop may be freed by its owner as soon as it has seen the task. */
    eventfd_write(l->wake_fd, 1);
    pthread_mutex_unlock(&l->mutex);
}

static void stop(void *arg)
{
    struct loop *l = arg;

    event_base_loopexit(l->base, NULL);
}

void loop_stop(struct loop *l)
{
    loop_post(l, stop, l);
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct loop_timer *t = arg;

    (void)fd, (void)what;
    t->fn(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *l, loop_task_fn *fn, void *arg)
{
    struct loop_timer *t = mem_zalloc(1, sizeof *t);

    t->fn = fn;
    t->arg = arg;
    t->ev = event_new(l->base, -1, 0, on_timer, t);
    assert(t->ev);
    return t;
}

void loop_timer_set(struct loop_timer *t, uint64_t delay_ns)
{
    struct timeval delay = { .tv_sec = (time_t)(delay_ns / NS_PER_S),
                             .tv_usec = (suseconds_t)(delay_ns % NS_PER_S / 1000) };

    event_add(t->ev, &delay);
}

void loop_timer_fire(struct loop_timer *t)
{
    event_active(t->ev, EV_TIMEOUT, 0);
}

void loop_timer_clear(struct loop_timer *t)
{
    event_del(t->ev);
}

bool loop_timer_is_set(const struct loop_timer *t)
{
    return event_pending(t->ev, EV_TIMEOUT, NULL) != 0;
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    event_free(t->ev);
    free(t);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct loop_watch *w = arg;

    (void)fd, (void)what;
    w->fn(w->arg);
}

struct loop_watch *loop_watch_new(struct loop *l, int fd, loop_task_fn *fn, void *arg)
{
    struct loop_watch *w = mem_zalloc(1, sizeof *w);

    w->fn = fn;
    w->arg = arg;
    w->ev = event_new(l->base, fd, EV_READ | EV_PERSIST, on_readable, w);
    assert(w->ev);
    loop_watch_resume(w);
    return w;
}

void loop_watch_pause(struct loop_watch *w)
{
    event_del(w->ev);
}

void loop_watch_resume(struct loop_watch *w)
{
    int rc = event_add(w->ev, NULL);

    assert(rc == 0); /* only a descriptor that cannot be polled is refused */
}

void loop_watch_kick(struct loop_watch *w)
{
    event_active(w->ev, EV_READ, 0);
}

void loop_watch_free(struct loop_watch *w)
{
    if (!w)
        return;
    event_free(w->ev);
    free(w);
}
