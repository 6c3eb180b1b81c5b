/* http_stream.c - the bytes of a connection: its bufferevent, its socket, how they begin and end.
 *
 * Output goes to the kernel directly, once per turn and connection; only what the kernel does not take is
 * left to the bufferevent (is_blocked), which saves two system calls for nearly every answer.  Input is
 * read by the bufferevent, and only in phases that want it. */
#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "gateway/net/http_conn.h"
#include "gateway/net/tcp_offset.h"

enum { READ_BYTES_MAX = 64 << 10, WRITE_BYTES_MAX = 256 << 10 };

static struct evbuffer *input_of(const struct http_conn *c)
{
    return bufferevent_get_input(c->bev);
}

size_t conn_unread(const struct http_conn *c)
{
    return evbuffer_get_length(input_of(c));
}

size_t conn_waiting(const struct http_conn *c)
{
    return c->bev ? evbuffer_get_length(bufferevent_get_output(c->bev)) : 0;
}

void stream_use(struct http_conn *c, size_t n)
{
    evbuffer_drain(input_of(c), n);
    c->in_used += n;
}

size_t stream_peek(const struct http_conn *c, const char **bytes)
{
    struct evbuffer_iovec span = { 0 };

    if (evbuffer_peek(input_of(c), -1, NULL, &span, 1) < 1)
        return 0;
    *bytes = span.iov_base;
    return span.iov_len;
}

size_t stream_copy_input(const struct http_conn *c, void *out, size_t cap)
{
    evbuffer_copyout(input_of(c), out, cap);
    return conn_unread(c);
}

void stream_add_input(struct http_conn *c, const void *bytes, size_t n)
{
    struct evbuffer *in = input_of(c);

    evbuffer_unfreeze(in, 0); /* libevent guards the end of a bufferevent's input */
    if (evbuffer_add(in, bytes, n))
        assert(!"memory for input");
    evbuffer_freeze(in, 0);
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
    if (c->has_eof)
        c->is_reading = on = false; /* libevent stopped by itself */
    if (c->is_reading == on)
        return;
    c->is_reading = on;
    if (on)
        bufferevent_enable(c->bev, EV_READ);
    else
        bufferevent_disable(c->bev, EV_READ);
}

bool stream_put(struct http_conn *c)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    int rc;

    while (!c->is_blocked && evbuffer_get_length(out) > 0) {
        evbuffer_unfreeze(out, 1); /* libevent guards the front of a bufferevent's output */
        rc = evbuffer_write(out, c->fd);
        evbuffer_freeze(out, 1);
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

static void report_input(struct http_conn *c, size_t n_new)
{
    struct http_server *s = c->server;
    struct evbuffer *in = input_of(c);
    struct evbuffer_ptr at;
    struct evbuffer_iovec span;

    if (!s->handler.on_input)
        return;
    evbuffer_ptr_set(in, &at, evbuffer_get_length(in) - n_new, EVBUFFER_PTR_SET);
    while (n_new > 0 && evbuffer_peek(in, -1, &at, &span, 1) > 0 && span.iov_len > 0) {
        s->handler.on_input(c, span.iov_base, span.iov_len, s->ctx);
        n_new -= span.iov_len;
        if (evbuffer_ptr_set(in, &at, span.iov_len, EVBUFFER_PTR_ADD))
            break;
    }
}

static void on_readable(struct bufferevent *bev, void *arg)
{
    struct http_conn *c = arg;
    uint64_t seen = c->in_used + evbuffer_get_length(bufferevent_get_input(bev));

    if (c->phase == CONN_CLOSED)
        return;
    counter_add(&c->server->counters->bytes_in, seen - c->in_seen);
    report_input(c, (size_t)(seen - c->in_seen));
    c->in_seen = seen;
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
    if (c->phase == CONN_CLOSED)
        return;
    if (what & BEV_EVENT_EOF) {
        c->has_eof = true;
        conn_run(c);
    } else if (what & BEV_EVENT_ERROR) {
        conn_lose(c, HTTP_GONE);
    }
}

/* ---- life ---- */
/* Others may hold the descriptor, so what we mean is said to the socket.  A cut answer must not look
 * whole: chunked, its missing end shows; ended by closing, only a reset does. */
void stream_close(struct http_conn *c, bool softly)
{
    if (softly)
        shutdown(c->fd, SHUT_RDWR);
    else
        tcp_abort(c->fd);
    peer_watch_remove(c->server->peer_watch, c->fd);
    bufferevent_free(c->bev);
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

/* TLS would make an OpenSSL bufferevent here; stream_put() would then leave writing to libevent, as it
 * does while blocked. */
void stream_open(struct http_conn *c)
{
    struct bufferevent *bev = bufferevent_socket_new(loop_base(c->server->loop), c->fd, 0);

    assert(bev);
    bufferevent_setcb(bev, on_readable, on_writable, on_stream_event, c);
    bufferevent_disable(bev, EV_READ | EV_WRITE);
    bufferevent_setwatermark(bev, EV_WRITE, c->server->config.out_high_bytes / 2, 0);
    bufferevent_set_max_single_read(bev, READ_BYTES_MAX);
    bufferevent_set_max_single_write(bev, WRITE_BYTES_MAX);
    c->bev = bev;
    read_peer(c);
}
