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
    /* A client was accepted, and nothing else happened yet: the moment to see to it that the descriptor
     * outlives us.  Returns the connection's user pointer. */
    void *(*on_accept)(int fd, bool is_tcp, void *ctx);
    /* A connection begins and ends. */
    void (*on_open)(struct http_conn *conn, void *ctx);
    void (*on_close)(struct http_conn *conn, void *ctx);
    /* The journal of what clients send.  Where the next bytes are to be received, *n at most; NULL: nowhere,
     * they are read all the same.  Then how many came, 0 if none did. */
    char *(*on_room)(struct http_conn *conn, size_t *n, void *ctx);
    void (*on_input)(struct http_conn *conn, size_t n, void *ctx);
    /* The first n bytes that the client sent are answered, and will not be needed again. */
    void (*on_used)(struct http_conn *conn, uint64_t n, void *ctx);
    /* The output of the connection's current request has begun, goes on after 100 Continue, or is
     * complete.  Called inside the answering functions, before the kernel gets a byte of what is new. */
    void (*on_output)(struct http_conn *conn, const struct http_mark *mark, void *ctx);
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

/* ---- taking over a connection of a process that died ----
 *
 *   http_server_adopt()   http_conn_feed() with all that was read, in pieces   http_conn_go_on()
 *
 * What the dead process had read is looked at again from the first byte of the request it was at, then the
 * socket; callbacks come as for any request.  The answer's bytes that the kernel had already taken are
 * dropped (is_repeatable), or the whole of it when it was all out (no callback comes then); so the client
 * reads one unbroken answer, and no answer twice. */
struct http_resume {
    uint64_t in_start;   /* of that request, in all that the client has sent */
    uint64_t started_ns; /* of that request; 0: not known */
    bool has_mark;       /* some output of it may be out */
    struct http_mark mark;
    void *user; /* of the connection */
};

/* Takes fd, also on failure; the client is then cut off.  ERR_PROTO: part of an answer is out that cannot
 * be made again.  ERR_SYS: the descriptor is no connection. */
struct http_conn *http_server_adopt(struct http_server *s, int fd, const struct http_resume *resume,
                                    struct err *e);
void http_conn_feed(struct http_conn *conn, const void *bytes, size_t n);
/* Outside of callbacks of the server. */
void http_conn_go_on(struct http_conn *conn);
/* Whether the whole output that the mark speaks of is in the kernel. */
bool http_mark_is_out(const struct http_mark *mark, int fd);

#endif
