/* http_listen.c - accept, in bounded bursts, and back off when there are no descriptors left.
 *
 * Listening sockets are shared by threads and processes; whoever comes first gets the connection and
 * the others find none, which is no error.  libevent's epoll set cannot be told EPOLLEXCLUSIVE, so all
 * sleeping loops wake; that is harmless for long-lived connections, and SO_REUSEPORT sockets from
 * the supervisor avoid it.  A burst is bounded so that a flood of clients cannot hold up
 * those already connected.
 *
 * Whether accept waits is a property of the socket, not of our descriptor, and others hold it too: systemd makes it
 * blocking each time it starts a llmd (systemd.exec(5), NonBlocking=), until that sets it right.  An accept of this
 * moment ends by SO_RCVTIMEO. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/net/http_conn.h"

enum {
    ACCEPTS_PER_TURN = 32,
    ACCEPT_WAIT_US = 1000,
    REFUSING_CONNS_MAX = 64, /* beyond conns_max: clients being told so */
    KEEPALIVE_IDLE_S = 60,   /* a client whose machine vanished is noticed after 90 s */
    KEEPALIVE_EVERY_S = 10,
    KEEPALIVE_PROBES = 3,
};

static void listeners_pause(struct http_server *s)
{
    struct http_listener *l;

    STAILQ_FOREACH(l, &s->listeners, next)
    loop_watch_pause(l->watch);
    loop_timer_set(s->accept_again, s->config.accept_pause_ms * NS_PER_MS);
}

void listeners_resume(void *server)
{
    struct http_server *s = server;
    struct http_listener *l;

    STAILQ_FOREACH(l, &s->listeners, next)
    if (!l->is_closed)
        loop_watch_resume(l->watch);
}

/* Trouble of this one client, which accept(2) tells late: go on with the next. */
static bool is_of_one_client(int error)
{
    switch (error) {
    case ECONNABORTED:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EINTR:
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case EPERM:
    case EPROTO:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

/* Everything else (EMFILE, ENFILE, ENOMEM, ... or a listener someone shut down) stays true for a while,
 * and the socket stays readable: without a pause the loop would spin. */
static void accept_failed(struct http_server *s, int error)
{
    if (!s->accept_is_failing)
        log_error("event=accept_failed error=\"%s\" retry_ms=%u clients wait in the backlog",
                  strerror(error), s->config.accept_pause_ms);
    s->accept_is_failing = true;
    listeners_pause(s);
}

static void accepted(struct http_listener *l, int fd)
{
    struct http_server *s = l->server;
    struct http_conn *c;
    void *user;
    bool is_over = s->n_conns >= s->config.conns_max;

    s->accept_is_failing = false;
    if (s->n_conns >= (size_t)s->config.conns_max + REFUSING_CONNS_MAX) {
        counter_add(&s->counters->refused[HTTP_REFUSED_CONNECTIONS], 1);
        close(fd);
        return;
    }
    user = s->handler.on_accept ? s->handler.on_accept(fd, l->is_tcp, s->ctx) : NULL;
    c = conn_new(s, fd, l->is_tcp, user);
    if (is_over)
        conn_refuse(c, HTTP_REFUSED_CONNECTIONS);
    conn_run(c);
}

static void on_listener(void *arg)
{
    struct http_listener *l = arg;
    struct http_server *s = l->server;

    for (int i = 0; i < ACCEPTS_PER_TURN && !l->is_closed; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int error = errno;
        if (fd >= 0) {
            accepted(l, fd);
            continue;
        }
        if (error == EAGAIN)
            return;
        counter_add(&s->counters->accept_errors, 1);
        if (!is_of_one_client(error)) {
            accept_failed(s, error);
            return;
        }
    }
}

/* Accepted sockets inherit these. */
static void set_tcp_options(const struct http_server *s, int fd)
{
    const int on = 1, idle = KEEPALIVE_IDLE_S, every = KEEPALIVE_EVERY_S, n = KEEPALIVE_PROBES;
    int sndbuf = (int)s->config.sndbuf_bytes;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on,
               sizeof on); /* else read bytes cannot be counted */
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof n);
    if (sndbuf > 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf);
}

bool http_server_listen(struct http_server *s, int fd, struct err *e)
{
    const struct timeval wait = { .tv_usec = ACCEPT_WAIT_US };
    struct http_listener *l;
    int listens = 0, protocol = 0, flags = fcntl(fd, F_GETFL);
    socklen_t n = sizeof listens;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n))
        return err_set(e, ERR_SYS, errno, "take listening socket %d", fd);
    if (!listens)
        return err_set(e, ERR_CONFIG, 0, "socket %d: wanted a listening one", fd);
    n = sizeof protocol;
    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n);
    l = mem_zalloc(1, sizeof *l);
    *l = (struct http_listener){ .server = s, .fd = fd, .is_tcp = protocol == IPPROTO_TCP };
    if (l->is_tcp)
        set_tcp_options(s, fd);
    l->watch = loop_watch_new(s->loop, fd, on_listener, l);
    STAILQ_INSERT_TAIL(&s->listeners, l, next);
    return true;
}

/* They are freed with the server: this may be called under on_listener(). */
void http_server_unlisten(struct http_server *s)
{
    struct http_listener *l;

    loop_timer_clear(s->accept_again);
    STAILQ_FOREACH(l, &s->listeners, next)
    {
        if (!l->is_closed)
            loop_watch_pause(l->watch);
        l->is_closed = true;
    }
}

void listeners_free(struct http_server *s)
{
    struct http_listener *l;

    while ((l = STAILQ_FIRST(&s->listeners))) {
        STAILQ_REMOVE_HEAD(&s->listeners, next);
        loop_watch_free(l->watch);
        free(l);
    }
}
