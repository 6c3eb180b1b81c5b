/* peer_watch.c - an epoll set inside the loop's epoll set. */
#include "gateway/net/peer_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/mem.h"

enum { EVENTS_PER_LOOK = 64 };

struct peer_watch {
    struct loop_watch *watch;
    peer_watch_fn *fn;
    int epoll_fd;
};

/* Those beyond the first 64 leave the set readable, so the loop comes back at once. */
static void on_events(void *arg)
{
    struct peer_watch *w = arg;
    struct epoll_event events[EVENTS_PER_LOOK];
    int n = epoll_wait(w->epoll_fd, events, EVENTS_PER_LOOK, 0);

    for (int i = 0; i < n; i++)
        w->fn(events[i].data.ptr, (events[i].events & (EPOLLERR | EPOLLHUP)) != 0);
}

struct peer_watch *peer_watch_new(struct loop *l, peer_watch_fn *fn, struct err *e)
{
    struct peer_watch *w;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (epoll_fd < 0) {
        err_set(e, ERR_SYS, errno, "make an epoll set");
        return NULL;
    }
    w = mem_zalloc(1, sizeof *w);
    *w = (struct peer_watch){ .fn = fn, .epoll_fd = epoll_fd };
    w->watch = loop_watch_new(l, epoll_fd, on_events, w);
    return w;
}

void peer_watch_free(struct peer_watch *w)
{
    if (!w)
        return;
    loop_watch_free(w->watch);
    close(w->epoll_fd);
    free(w);
}

bool peer_watch_add(struct peer_watch *w, int fd, void *peer, struct err *e)
{
    struct epoll_event event = { .events = EPOLLRDHUP | EPOLLET, .data.ptr = peer };

    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event))
        return err_set(e, ERR_SYS, errno, "watch a connection");
    return true;
}

void peer_watch_remove(struct peer_watch *w, int fd)
{
    epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
