/* fdstore.c - FDSTORE and FDSTOREREMOVE of sd_notify(3), without ever waiting. */
#include "supervisor/fdstore.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdpass.h"
#include "common/log.h"
#include "common/mem.h"

enum { SYNC_PATIENCE_MS = 1000, SETTLE_PATIENCE_MS = 10 };

/* False: the manager has no room now.  What it refuses for good is told and given up. */
static bool send_order(const struct fdstore *s, const struct fdstore_order *o)
{
    char lines[FDSTORE_NAME_BYTES + 48];
    struct err e = { 0 };

    if (o->fd < 0)
        snprintf(lines, sizeof lines, "FDSTOREREMOVE=1\nFDNAME=%s", o->name);
    else
        snprintf(lines, sizeof lines, "FDSTORE=1\nFDNAME=%s%s", o->name,
                 o->is_polled ? "" : "\nFDPOLL=0");
    if (fdpass_send(s->notify->fd, lines, strlen(lines), &o->fd, o->fd >= 0, &e))
        return true;
    /* ETOOMANYREFS: it has too many of our descriptors unread */
    if (e.sys == EAGAIN || e.sys == ENOBUFS || e.sys == ETOOMANYREFS)
        return false;
    log_warning("event=fdstore_failed name=%s error=\"%s\", going on without", o->name, e.msg);
    return true;
}

void fdstore_flush(struct fdstore *s)
{
    uint32_t n = 0;

    while (n < s->n_queued && send_order(s, &s->queue[n])) {
        if (s->queue[n].fd >= 0)
            close(s->queue[n].fd);
        n++;
    }
    if (n > 0)
        memmove(s->queue, s->queue + n, (s->n_queued - n) * sizeof *s->queue);
    s->n_queued -= n;
    if (s->n_queued == 0)
        s->writable = sd_event_source_disable_unref(s->writable);
}

static int on_writable(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    (void)source, (void)fd, (void)revents;
    fdstore_flush(arg);
    return 0;
}

/* What a removal makes pointless: with a manager that never reads, the queue does not grow. */
static void forget_queued(struct fdstore *s, const char *name)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n_queued; i++) {
        if (strcmp(s->queue[i].name, name) != 0)
            s->queue[n++] = s->queue[i];
        else if (s->queue[i].fd >= 0)
            close(s->queue[i].fd);
    }
    s->n_queued = n;
}

/* Behind all of its kind: client connections, which may be thousands, wait for the others. */
static void insert(struct fdstore *s, const struct fdstore_order *o)
{
    uint32_t at = s->n_queued;

    if (s->n_queued == s->n_room) {
        s->n_room = s->n_room ? 2 * s->n_room : 16;
        s->queue = mem_realloc(s->queue, s->n_room * sizeof *s->queue);
    }
    while (!o->is_polled && at > 0 && s->queue[at - 1].is_polled)
        at--;
    memmove(s->queue + at + 1, s->queue + at, (s->n_queued - at) * sizeof *s->queue);
    s->queue[at] = *o;
    s->n_queued++;
}

static void queue_order(struct fdstore *s, const struct fdstore_order *o)
{
    struct fdstore_order own = *o;

    if (o->fd < 0)
        forget_queued(s, o->name);
    if (o->fd >= 0 && (own.fd = fcntl(o->fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        log_warning("event=fdstore_failed name=%s error=\"%s\", going on without", o->name,
                    strerror(errno));
        return;
    }
    insert(s, &own);
    if (!s->writable) /* else, and if this fails, the next order or the tick tries again */
        sd_event_add_io(s->event, &s->writable, s->notify->fd, EPOLLOUT, on_writable, s);
}

static void take_order(struct fdstore *s, const char *name, int fd, bool is_polled)
{
    struct fdstore_order o = { .fd = fd, .is_polled = is_polled };

    if (!fdstore_is_there(s))
        return;
    assert(strlen(name) < sizeof o.name);
    strcpy(o.name, name);
    fdstore_flush(s);
    if (s->n_queued > 0 || !send_order(s, &o)) {
        queue_order(s, &o);
        fdstore_flush(s);
    }
}

void fdstore_put(struct fdstore *s, const char *name, int fd, bool is_polled)
{
    assert(fd >= 0);
    take_order(s, name, fd, is_polled);
}

void fdstore_remove(struct fdstore *s, const char *name)
{
    take_order(s, name, -1, false);
}

/* Until the manager has taken an order, or ms have passed.  True: it has. */
static bool push(struct fdstore *s, uint64_t ms)
{
    uint64_t end_ns = clock_mono_ns() + ms * NS_PER_MS;
    uint32_t n_before = s->n_queued;

    do {
        struct pollfd p = { .fd = s->notify->fd, .events = POLLOUT };
        poll(&p, 1, (int)ms);
        fdstore_flush(s);
        if (s->n_queued == n_before) /* writable, but not for what carries a descriptor */
            poll(NULL, 0, 1);
    } while (s->n_queued == n_before && clock_mono_ns() < end_ns);
    return s->n_queued < n_before;
}

void fdstore_settle(struct fdstore *s)
{
    uint64_t end_ns = clock_mono_ns() + SETTLE_PATIENCE_MS * NS_PER_MS;

    while (s->n_queued > 0 && !s->queue[0].is_polled && clock_mono_ns() < end_ns)
        push(s, 1);
}

bool fdstore_is_there(const struct fdstore *s)
{
    return s->notify && s->notify->fd > 0;
}

bool fdstore_is_clogged(const struct fdstore *s)
{
    return s->n_queued > 0;
}

void fdstore_open(struct fdstore *s, struct notify *notify, sd_event *event)
{
    *s = (struct fdstore){ .notify = notify, .event = event };
}

bool fdstore_sync(struct fdstore *s)
{
    while (s->n_queued > 0 && push(s, SYNC_PATIENCE_MS))
        continue;
    return s->n_queued == 0;
}

void fdstore_close(struct fdstore *s)
{
    fdstore_sync(s);
    for (uint32_t i = 0; i < s->n_queued; i++)
        if (s->queue[i].fd >= 0)
            close(s->queue[i].fd);
    sd_event_source_disable_unref(s->writable);
    free(s->queue);
    *s = (struct fdstore){ 0 };
}
