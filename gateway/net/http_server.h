/* http_server.h - an HTTP/1.1 server on one event loop.
 *
 * One server per loop thread; threads share nothing but the listening sockets.  Requests of a
 * connection are handled one after the other (pipelined ones wait), and while one is being answered
 * nothing is read from its client: the kernel's buffers are the back-pressure.  A client that leaves is
 * seen in every phase, also when nothing is read or written.  A client that shuts down its sending side
 * counts as gone unless its request is answered before the handler returns.
 * (One end cannot be seen: behind more pipelined bytes than the kernel takes for us TCP does not deliver
 * it.  Such a client is found gone at the next write.)
 *
 * Always true: every connection is in one phase (http_conn.c draws them), every phase but the handler's
 * own has a deadline, and every buffer a bound.
 *
 * The descriptor of a connection may be held by another process too (design section 4), so
 * the end of a connection is always an explicit shutdown(), not only a close(). */
#ifndef LLMD_GATEWAY_NET_HTTP_SERVER_H
#define LLMD_GATEWAY_NET_HTTP_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "gateway/net/http_parser.h"
#include "gateway/net/http_request.h"
#include "gateway/net/loop.h"

struct http_server;

struct http_config {
    struct http_limits limits;
    uint64_t body_bytes_max;       /* default of http_request_set_body_max() */
    uint32_t conns_max;            /* further clients get 503 */
    uint32_t idle_ms;              /* between requests */
    uint32_t head_ms;              /* from accept or first byte to the end of the head */
    uint32_t body_ms;              /* in each such period the body must come on ... */
    uint32_t body_bytes_per_s_min; /* ... by this rate (0: by at least a byte) */
    uint32_t write_ms; /* in each such period of waiting output the client must take ... */
    uint32_t write_bytes_per_s_min; /* ... this rate (0: at least a byte) */
    uint32_t linger_ms;             /* reading on after an early refusal, so that it can be read */
    uint32_t accept_pause_ms;       /* after EMFILE and the like */
    uint32_t out_high_bytes;        /* http_is_congested(); on_drain comes at half of it */
    uint32_t out_max_bytes;         /* hard bound of http_write() */
    uint32_t sndbuf_bytes;          /* SO_SNDBUF of accepted sockets; 0 leaves it to the kernel */
    bool send_date;
};

extern const struct http_config http_config_default;

/* All may be shared by several servers: every field is only added to. */
struct http_counters {
    _Atomic uint64_t connections;      /* accepted and adopted */
    _Atomic uint64_t connections_done; /* open = connections - connections_done */
    _Atomic uint64_t requests;         /* complete heads */
    _Atomic uint64_t answers;          /* taken whole by the kernel */
    _Atomic uint64_t gone;             /* clients that left before that */
    _Atomic uint64_t stalled;          /* cut for reading too slowly */
    _Atomic uint64_t bytes_in;
    _Atomic uint64_t bytes_out;
    _Atomic uint64_t accept_errors;
    _Atomic uint64_t refused[N_HTTP_REFUSALS];
};

/* What the layer tells a client by itself. */
struct http_error {
    int status;
    enum http_refusal why;
    const char *text; /* http_refusal_text(why) */
    const char *path; /* of the request when known, else NULL; decides whose error format it is */
};

/* Called on the loop's thread, ctx as given.  Only on_request must be there. */
struct http_handler {
    /* The head is complete, the body not read.  May http_respond() (admission, unknown route, key
     * missing), may choose a body limit; else the layer reads the body. */
    void (*on_head)(struct http_request *req, void *ctx);
    /* The request is complete.  Answer now or later. */
    void (*on_request)(struct http_request *req, void *ctx);
    /* The answer was congested and is no more. */
    void (*on_drain)(struct http_request *req, void *ctx);
    /* The request's last callback. */
    void (*on_done)(struct http_request *req, enum http_outcome outcome, void *ctx);
    /* Write the body of an error answer; returns its Content-Type.  Default: JSON,
     * {"error":{"message":...,"type":...,"code":...}}. */
    const char *(*on_error)(const struct http_error *error, struct buf *body, void *ctx);
    /* A connection begins and ends; its descriptor may be handed on in between. */
    void (*on_open)(struct http_conn *conn, void *ctx);
    void (*on_close)(struct http_conn *conn, void *ctx);
    /* Bytes as they were read, before they are looked at: the journal of a request that a successor
     * is to finish reading. */
    void (*on_input)(struct http_conn *conn, const void *bytes, size_t n, void *ctx);
    /* After http_server_drain(): the last connection is gone. */
    void (*on_drained)(struct http_server *server, void *ctx);
};

/* handler is copied; loop and ctx are borrowed; counters may be NULL, else borrowed.  ERR_SYS. */
struct http_server *http_server_new(struct loop *loop, const struct http_config *config,
                                    const struct http_handler *handler, void *ctx,
                                    struct http_counters *counters, struct err *e);
/* Cuts every connection (each request gets its on_done, HTTP_SHUTDOWN).  Not inside a callback of
 * this server. */
void http_server_free(struct http_server *s);

/* Accept from fd, a listening TCP or unix socket, which is borrowed and becomes non-blocking.
 * ERR_SYS; ERR_CONFIG when it does not listen. */
bool http_server_listen(struct http_server *s, int fd, struct err *e);
/* Stop accepting, here only: the socket goes on listening for others. */
void http_server_unlisten(struct http_server *s);

/* Stop accepting, close idle connections, finish running requests with Connection: close; then
 * on_drained, once.  A client that has just connected may still send one request (within head_ms). */
void http_server_drain(struct http_server *s);
bool http_server_is_draining(const struct http_server *s);
size_t http_server_n_conns(const struct http_server *s);

/* ---- taking over a connection of a process that died ---- */
struct http_resume {
    const struct http_mark *mark; /* NULL: unknown, and then it cannot have been answering */
    bool is_answering;
    /* Bytes the dead process had read that no finished request used: the request so far, or
     * (answering) what came after the request. */
    const void *in;
    size_t n_in;
    void *user; /* answering: becomes http_request_user() */
};

/* Go on with the connection fd (taken, also on failure).
 *
 * Reading: `in` is looked at first, then the socket; callbacks come as for any request.  *req is NULL.
 *
 * Answering: *req is a request without head and body, for which on_done will come.  The handler answers
 * it again from its first byte, with the same status, fields and pieces; the layer drops
 * what the kernel had already taken, so the client reads one unbroken answer.
 *
 * ERR_PROTO when bytes are known to be lost (read by the dead process, but not in `in`'s record), ERR_SYS
 * when the descriptor is no connection; the client is then cut off. */
bool http_server_adopt(struct http_server *s, int fd, const struct http_resume *resume,
                       struct http_request **req, struct err *e);
/* The mark of a connection that is not answering, for its record. */
bool http_conn_mark(const struct http_conn *conn, struct http_mark *mark);

#endif
