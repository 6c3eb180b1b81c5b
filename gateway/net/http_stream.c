/* http_stream.c - the bytes of a connection: its socket and buffers, how they begin and end.
 *
 * Output goes to the kernel directly, once per turn and connection; only what the kernel does not take is
 * left to the bufferevent (is_blocked), which saves two system calls for nearly every answer.  Input is
 * read by ourselves, straight into the handler's journal, and only in phases that want it. */
#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "common/fault_point.h"
#include "gateway/net/http_conn.h"
#include "gateway/net/tcp_offset.h"

enum { READ_BYTES_MAX = 64 << 10, WRITE_BYTES_MAX = 256 << 10 };

size_t conn_unread(const struct http_conn *c)
{
    return evbuffer_get_length(c->in);
}

size_t conn_waiting(const struct http_conn *c)
{
    return c->bev ? evbuffer_get_length(bufferevent_get_output(c->bev)) : 0;
}

void stream_use(struct http_conn *c, size_t n)
{
    evbuffer_drain(c->in, n);
    c->in_used += n;
}

size_t stream_peek(const struct http_conn *c, const char **bytes)
{
    struct evbuffer_iovec span = { 0 };

    if (evbuffer_peek(c->in, -1, NULL, &span, 1) < 1)
        return 0;
    *bytes = span.iov_base;
    return span.iov_len;
}

void stream_add_input(struct http_conn *c, const void *bytes, size_t n)
{
    if (evbuffer_add(c->in, bytes, n))
        assert(!"memory for input");
    c->in_seen += n;
}

void stream_add_output(struct http_conn *c, const void *bytes, size_t n)
{
    if (evbuffer_add(bufferevent_get_output(c->bev), bytes, n))
        assert(!"memory for output");
}

void stream_count_output(struct http_conn *c)
{
    uint64_t out = c->out_queued - conn_waiting(c);

    counter_add(&c->server->counters->bytes_out, out - c->out_counted);
    c->out_counted = out;
}

void stream_set_reading(struct http_conn *c, bool on)
{
    on = on && !c->has_eof; /* its end stays readable for ever */
    if (c->is_reading == on)
        return;
    c->is_reading = on;
    if (on)
        event_add(c->readable, NULL);
    else
        event_del(c->readable);
}

bool stream_put(struct http_conn *c)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    int rc;

    if (evbuffer_get_length(out) > 0)
        fault_point("gateway.write");
    while (!c->is_blocked && evbuffer_get_length(out) > 0) {
        evbuffer_unfreeze(out, 1); /* libevent guards the front of a bufferevent's output */
        rc = evbuffer_write(out, c->fd);
        evbuffer_freeze(out, 1);
        fault_point("gateway.written");
        if (rc > 0 || (rc < 0 && errno == EINTR))
            continue;
        if (rc < 0 && errno != EAGAIN) {
            conn_lose(c, HTTP_GONE);
            return false;
        }
        c->is_blocked = true;
        bufferevent_enable(c->bev, EV_WRITE);
    }
    stream_count_output(c);
    return evbuffer_get_length(out) == 0;
}

/* One recv(), into the journal where it has room: then the bytes outlive us from the instant at which the
 * kernel counts them as read.  *asked: how many could have come. */
static ssize_t receive(struct http_conn *c, size_t *asked)
{
    struct http_server *s = c->server;
    char *room = NULL;
    ssize_t got;

    *asked = sizeof s->in_scratch;
    if (s->handler.on_room && c->phase != CONN_LINGER)
        room = s->handler.on_room(c, asked, s->ctx);
    if (!room)
        *asked = sizeof s->in_scratch;
    do
        got = recv(c->fd, room ? room : s->in_scratch, *asked, 0);
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        fault_point("gateway.read");
        stream_add_input(c, room ? room : s->in_scratch, (size_t)got);
        counter_add(&s->counters->bytes_in, (uint64_t)got);
    }
    if (s->handler.on_input)
        s->handler.on_input(c, got > 0 ? (size_t)got : 0, s->ctx);
    return got;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *c = arg;
    size_t total = 0, asked;
    ssize_t got;

    (void)fd, (void)what;
    if (c->phase == CONN_CLOSED)
        return;
    do {
        got = receive(c, &asked);
        total += got > 0 ? (size_t)got : 0;
    } while (got > 0 && (size_t)got == asked && total < READ_BYTES_MAX);
    if (got < 0 && errno != EAGAIN) {
        conn_lose(c, HTTP_GONE);
        return;
    }
    c->has_eof |= got == 0;
    conn_run(c);
}

/* Less than the low-water mark waits; with nothing left, writing is ours again. */
static void on_writable(struct bufferevent *bev, void *arg)
{
    struct http_conn *c = arg;

    if (c->phase == CONN_CLOSED)
        return;
    if (c->is_blocked && evbuffer_get_length(bufferevent_get_output(bev)) == 0) {
        c->is_blocked = false;
        bufferevent_disable(bev, EV_WRITE);
    }
    stream_count_output(c);
    conn_run(c);
}

static void on_stream_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_conn *c = arg;

    (void)bev;
    if (c->phase != CONN_CLOSED && (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
        conn_lose(c, HTTP_GONE);
}

/* ---- life ---- */
/* Others may hold the descriptor, so what we mean is said to the socket.  A cut answer must not look
 * whole: chunked, its missing end shows; ended by closing, only a reset does. */
void stream_shut(struct http_conn *c, bool softly)
{
    if (softly)
        shutdown(c->fd, SHUT_RDWR);
    else
        tcp_abort(c->fd);
}

void stream_close(struct http_conn *c)
{
    peer_watch_remove(c->server->peer_watch, c->fd);
    event_free(c->readable);
    evbuffer_free(c->in);
    bufferevent_free(c->bev);
    c->readable = NULL;
    c->in = NULL;
    c->bev = NULL;
    close(c->fd);
    c->fd = -1;
}

static void read_peer(struct http_conn *c)
{
    struct sockaddr_storage from;
    socklen_t n = sizeof from;

    memset(&from, 0, sizeof from);
    if (getpeername(c->fd, (struct sockaddr *)&from, &n))
        return;
    c->peer.family = from.ss_family;
    if (from.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&from;
        c->peer.port = ntohs(in->sin_port);
        memcpy(c->peer.addr, &in->sin_addr, sizeof in->sin_addr);
    } else if (from.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&from;
        c->peer.port = ntohs(in6->sin6_port);
        memcpy(c->peer.addr, &in6->sin6_addr, sizeof in6->sin6_addr);
    }
}

void stream_open(struct http_conn *c)
{
    struct event_base *base = loop_base(c->server->loop);
    struct bufferevent *bev = bufferevent_socket_new(base, c->fd, 0);

    c->in = evbuffer_new();
    c->readable = event_new(base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
    assert(bev && c->in && c->readable);
    bufferevent_setcb(bev, NULL, on_writable, on_stream_event, c);
    bufferevent_disable(bev, EV_READ | EV_WRITE);
    bufferevent_setwatermark(bev, EV_WRITE, c->server->config.out_high_bytes / 2, 0);
    bufferevent_set_max_single_write(bev, WRITE_BYTES_MAX);
    c->bev = bev;
    read_peer(c);
}
