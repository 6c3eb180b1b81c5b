/* http_fixture.h - a server on its own thread, and a client that sends exactly the bytes it is told to.
 *
 * Routes of the fixture:
 *   GET  /ok               "ok"                      POST /echo     the body
 *   GET  /peer             the peer's address        GET  /fields   a value with control bytes in it
 *   POST /refuse           429 in on_head            POST /small    body limit 8, set in on_head
 *   GET  /hold             no answer until fixture_release()
 *   GET  /stream           one event, then silence   GET  /stream?n=3  three events and the end
 *   GET  /flood?n=BYTES    as much as congestion allows, until n bytes are written
 *   GET  /rude?n=BYTES     the same without looking at congestion
 *   GET  /abort            one event, then cut
 *   GET  /doze?n=MS        the server's thread sleeps, then "ok" */
#ifndef LLMD_TESTS_UNIT_HTTP_FIXTURE_H
#define LLMD_TESTS_UNIT_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above */
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "gateway/net/http_route.h"
#include "gateway/net/http_server.h"

enum { PATIENCE_MS = 10000, N_OUTCOMES = HTTP_SHUTDOWN + 1, HELD_MAX = 64, FLOOD_PIECE = 1000 };

struct fixture {
    struct http_config config; /* change before fixture_start() */
    struct http_handler handler;
    struct http_counters counters;
    struct loop *loop;
    struct http_server *server;
    pthread_t thread;
    int listen_fd;
    bool borrows_listener;
    uint16_t port;
    struct http_request *held[HELD_MAX]; /* on the loop's thread only */
    size_t n_held;
    _Atomic int n_heads, n_requests, n_drains, n_drained, n_opened, n_closed;
    _Atomic int done[N_OUTCOMES];
    _Atomic uint64_t done_ns;
    _Atomic uint64_t waiting_max;
    _Atomic uint64_t input_bytes; /* seen by on_input */
};

/* ---- the handler ---- */
struct flood {
    uint64_t left;
    uint64_t at;
    bool is_rude;
};

static inline char flood_byte(uint64_t at)
{
    return (char)('!' + at * 131 % 89);
}

static inline void flood_write(struct fixture *f, struct http_request *req)
{
    struct flood *flood = http_request_user(req);
    char piece[FLOOD_PIECE];

    while (flood->left > 0 && (flood->is_rude || !http_is_congested(req))) {
        size_t n = flood->left < sizeof piece ? (size_t)flood->left : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = flood_byte(flood->at++);
        http_write(req, piece, n);
        flood->left -= n;
        if (http_output_waiting(req) > atomic_load(&f->waiting_max))
            atomic_store(&f->waiting_max, http_output_waiting(req));
    }
    if (flood->left == 0)
        http_end(req);
}

static inline void fixture_on_head(struct http_request *req, void *ctx)
{
    struct fixture *f = ctx;
    const struct http_header retry = { "Retry-After", "1" };

    atomic_fetch_add(&f->n_heads, 1);
    if (!strcmp(http_request_path(req), "/refuse"))
        http_respond(req, 429, &retry, 1, "busy", 4);
    else if (!strcmp(http_request_path(req), "/small"))
        http_request_set_body_max(req, 8);
}

static inline void fixture_stream(struct fixture *f, struct http_request *req, uint64_t n)
{
    const struct http_header type = { "Content-Type", "text/event-stream" };

    http_start(req, 200, &type, 1);
    for (uint64_t i = 0; i < (n > 0 ? n : 1); i++)
        http_write(req, "data: x\n\n", 9);
    if (n > 0)
        http_end(req);
    else
        f->held[f->n_held++] = req;
}

static inline void fixture_flood(struct fixture *f, struct http_request *req, uint64_t n,
                                 bool is_rude)
{
    struct flood *flood = mem_zalloc(1, sizeof *flood);

    *flood = (struct flood){ .left = n, .is_rude = is_rude };
    http_request_set_user(req, flood);
    http_start(req, 200, NULL, 0);
    flood_write(f, req);
}

static inline void fixture_on_request(struct http_request *req, void *ctx)
{
    struct fixture *f = ctx;
    const char *path = http_request_path(req), *body;
    char arg[24] = "0", peer[HTTP_PEER_BYTES];
    const struct http_header evil = { "X-Echo", "a\r\nSet-Cookie: b\tc" };
    uint64_t n;
    size_t body_n;

    atomic_fetch_add(&f->n_requests, 1);
    http_query_get(http_request_query(req), "n", arg, sizeof arg);
    n = strtoull(arg, NULL, 10);
    body = http_request_body(req, &body_n);
    if (!strcmp(path, "/echo") || !strcmp(path, "/small"))
        http_respond(req, 200, NULL, 0, body, body_n);
    else if (!strcmp(path, "/ok"))
        http_respond(req, 200, NULL, 0, "ok", 2);
    else if (!strcmp(path, "/fields"))
        http_respond(req, 200, &evil, 1, NULL, 0);
    else if (!strcmp(path, "/hold"))
        f->held[f->n_held++] = req;
    else if (!strcmp(path, "/stream"))
        fixture_stream(f, req, n);
    else if (!strcmp(path, "/flood") || !strcmp(path, "/rude"))
        fixture_flood(f, req, n, path[1] == 'r');
    else if (!strcmp(path, "/abort")) {
        http_start(req, 200, NULL, 0);
        http_write(req, "begun", 5);
        http_abort(req);
    } else if (!strcmp(path, "/doze")) {
        poll(NULL, 0, (int)n);
        http_respond(req, 200, NULL, 0, "ok", 2);
    } else if (!strcmp(path, "/peer")) {
        http_conn_peer(http_request_conn(req), peer);
        http_respond(req, 200, NULL, 0, peer, strlen(peer));
    } else
        http_respond(req, 404, NULL, 0, NULL, 0);
}

static inline void fixture_on_drain(struct http_request *req, void *ctx)
{
    struct fixture *f = ctx;

    atomic_fetch_add(&f->n_drains, 1);
    flood_write(f, req);
}

static inline void fixture_on_done(struct http_request *req, enum http_outcome outcome, void *ctx)
{
    struct fixture *f = ctx;

    for (size_t i = 0; i < f->n_held; i++)
        if (f->held[i] == req)
            f->held[i--] = f->held[--f->n_held];
    free(http_request_user(req));
    atomic_store(&f->done_ns, clock_mono_ns());
    atomic_fetch_add(&f->done[outcome], 1);
}

static inline void fixture_on_open(struct http_conn *conn, void *ctx)
{
    (void)conn;
    atomic_fetch_add(&((struct fixture *)ctx)->n_opened, 1);
}

static inline void fixture_on_close(struct http_conn *conn, void *ctx)
{
    (void)conn;
    atomic_fetch_add(&((struct fixture *)ctx)->n_closed, 1);
}

static inline void fixture_on_input(struct http_conn *conn, size_t n, void *ctx)
{
    (void)conn;
    atomic_fetch_add(&((struct fixture *)ctx)->input_bytes, n);
}

static inline void fixture_on_drained(struct http_server *server, void *ctx)
{
    (void)server;
    atomic_fetch_add(&((struct fixture *)ctx)->n_drained, 1);
}

/* ---- life ---- */
static inline int listen_tcp(uint16_t *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && !bind(fd, (struct sockaddr *)&at, n) && !listen(fd, 256) &&
                !getsockname(fd, (struct sockaddr *)&at, &n));
    *port = ntohs(at.sin_port);
    return fd;
}

static inline struct fixture *fixture_new(void)
{
    struct fixture *f = mem_zalloc(1, sizeof *f);

    f->config = http_config_default;
    f->handler = (struct http_handler){ .on_head = fixture_on_head,
                                        .on_request = fixture_on_request,
                                        .on_drain = fixture_on_drain,
                                        .on_done = fixture_on_done,
                                        .on_open = fixture_on_open,
                                        .on_close = fixture_on_close,
                                        .on_input = fixture_on_input,
                                        .on_drained = fixture_on_drained };
    f->listen_fd = listen_tcp(&f->port);
    return f;
}

static inline void *fixture_thread(void *arg)
{
    struct fixture *f = arg;

    loop_run(f->loop);
    return NULL;
}

static inline void fixture_start(struct fixture *f)
{
    struct err e = { 0 };

    f->loop = loop_new(&e);
    assert_non_null(f->loop);
    f->server = http_server_new(f->loop, &f->config, &f->handler, f, &f->counters, &e);
    assert_non_null(f->server);
    if (!http_server_listen(f->server, f->listen_fd, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(pthread_create(&f->thread, NULL, fixture_thread, f), 0);
}

static inline void fixture_stop(struct fixture *f)
{
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    http_server_free(f->server);
    loop_free(f->loop);
    if (!f->borrows_listener)
        close(f->listen_fd);
    assert_int_equal(atomic_load(&f->n_opened), atomic_load(&f->n_closed));
    free(f);
}

static inline void release_held(void *arg)
{
    struct fixture *f = arg;

    while (f->n_held > 0) {
        struct http_request *req = f->held[--f->n_held];
        if (http_is_started(req))
            http_end(req);
        else
            http_respond(req, 200, NULL, 0, "held", 4);
    }
}

static inline void fixture_release(struct fixture *f)
{
    loop_post(f->loop, release_held, f);
}

static inline bool wait_until(_Atomic int *value, int wanted)
{
    for (int i = 0; i < PATIENCE_MS; i++) {
        if (atomic_load(value) >= wanted)
            return true;
        poll(NULL, 0, 1);
    }
    return false;
}

/* CPU time the server's thread used while this thread did nothing for some time. */
static inline uint64_t fixture_idle_cpu_ns(struct fixture *f, int ms)
{
    clockid_t id;
    uint64_t before;

    pthread_getcpuclockid(f->thread, &id);
    before = clock_read_ns(id);
    poll(NULL, 0, ms);
    return clock_read_ns(id) - before;
}

/* ---- the client ---- */
static inline int connect_port(uint16_t port)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && !connect(fd, (struct sockaddr *)&at, sizeof at));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static inline int connect_to(struct fixture *f)
{
    return connect_port(f->port);
}

static inline void send_bytes(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;

    while (n > 0) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the server has closed: its answer is what the test looks at */
        at += sent;
        n -= (size_t)sent;
    }
}

static inline void send_text(int fd, const char *text)
{
    send_bytes(fd, text, strlen(text));
}

/* Add what comes to *in until it contains `end` (n times), or the server closes.  True in the first case. */
static inline bool recv_times(int fd, struct buf *in, const char *end, int times)
{
    char bytes[4096];
    ssize_t n;

    for (;;) {
        int found = 0;
        for (const char *at = in->data; at && (at = strstr(at, end)); at += strlen(end))
            found++;
        if (found >= times)
            return true;
        n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN)
            fail_msg("nothing came for %d ms while waiting for '%s'", PATIENCE_MS, end);
        if (n <= 0)
            return false;
        buf_add(in, bytes, (size_t)n);
    }
}

static inline bool recv_until(int fd, struct buf *in, const char *end)
{
    return recv_times(fd, in, end, 1);
}

/* Everything until the server closes. */
static inline void recv_rest(int fd, struct buf *in)
{
    char bytes[65536];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        buf_add(in, bytes, (size_t)n);
    if (n < 0 && errno == EAGAIN)
        fail_msg("not closed within %d ms", PATIENCE_MS);
    buf_reserve(in, 0);
    in->data[in->n] = '\0';
}

static inline void expect_contains(const struct buf *in, const char *text)
{
    if (!in->data || !strstr(in->data, text))
        fail_msg("wanted '%s' in: %s", text, in->data ? in->data : "(nothing)");
}

static inline void expect_lacks(const struct buf *in, const char *text)
{
    if (in->data && strstr(in->data, text))
        fail_msg("did not want '%s' in: %s", text, in->data);
}

/* Send, read everything until the server closes, and look for a text. */
static inline void expect_closed_with(struct fixture *f, const char *request, const char *text)
{
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, request);
    recv_rest(fd, &in);
    expect_contains(&in, text);
    close(fd);
    buf_fini(&in);
}

#define GET(path)   "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"
#define GET10(path) "GET " path " HTTP/1.0\r\n\r\n"

#endif
