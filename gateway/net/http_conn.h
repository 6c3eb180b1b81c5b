/* http_conn.h - the inside of a connection, for the files of the HTTP layer only.
 *
 *   http_server.c   the server: life, drain, what is left to do at the end of a turn
 *   http_listen.c   accepting
 *   http_deadline.c deadlines of all connections
 *   http_conn.c     the state machine of one connection
 *   http_stream.c   its bytes: the only one of these files that knows bufferevents
 *   http_answer.c   answers, into the connection's output
 *   http_request.c  what handlers may ask about request and connection
 *   http_adopt.c    connections of a process that died */
#ifndef LLMD_GATEWAY_NET_HTTP_CONN_H
#define LLMD_GATEWAY_NET_HTTP_CONN_H

#include <sys/queue.h>
#include <sys/socket.h>

#include "gateway/net/http_server.h"
#include "gateway/net/peer_watch.h"

struct bufferevent;
struct evbuffer;
struct event;

enum conn_phase {
    CONN_IDLE,   /* no byte of a request yet */
    CONN_HEAD,   /* reading the head */
    CONN_BODY,   /* the handler has seen the head; reading the body */
    CONN_ANSWER, /* the handler has the request; nothing is read */
    CONN_FLUSH,  /* the answer is complete, the kernel has not taken all of it */
    CONN_LINGER, /* we have finished; reading on so that the client can read our answer */
    CONN_CLOSED, /* freed at the end of the turn */
    N_CONN_PHASES
};

enum conn_event {
    CE_BYTES,       /* the first bytes of a request */
    CE_HEAD,        /* the head is complete */
    CE_BODY,        /* the body is complete */
    CE_ANSWERED,    /* the handler has completed its answer */
    CE_REFUSE,      /* the layer answers by itself: c->refusal */
    CE_SENT_KEEP,   /* the answer is in the kernel; another request may come */
    CE_SENT_LINGER, /* ... and the connection ends, with unread bytes on their way */
    CE_LOST,        /* the connection ends now: c->outcome */
    N_CONN_EVENTS
};

enum { HTTP_READ_BYTES = 16 << 10 };

enum deadline_kind {
    DL_IDLE,
    DL_HEAD,
    DL_BODY,
    DL_WRITE,
    DL_LINGER,
    N_DEADLINES,
    DL_NONE = N_DEADLINES
};

struct http_peer {
    sa_family_t family;
    uint16_t port;
    uint8_t addr[16];
};

struct http_request {
    struct http_conn *conn;
    struct http_parser parser;
    struct buf head;  /* a NUL after each name, each value and the target; then the decoded path */
    const char *path; /* inside head; NULL while unknown */
    struct buf body;
    uint64_t started_ns;
    int64_t date_s; /* 0: not decided yet */
    void *user;
    bool is_announced;  /* on_head was called, so on_done must be */
    bool is_adopted;    /* its head may be out: date and keep_alive are settled */
    bool was_whole;     /* the dead process had completed the answer */
    bool is_repeatable; /* so is the answer */
    bool body_done;
    bool keep_alive;
    bool is_started;
    bool is_ended;
    bool is_chunked; /* the answer */
};

struct http_conn {
    TAILQ_ENTRY(http_conn) all;
    TAILQ_ENTRY(http_conn) in_deadline;
    STAILQ_ENTRY(http_conn) in_dirty; /* or in the list of the closed */
    struct http_server *server;
    struct bufferevent *bev; /* of the output */
    struct evbuffer *in;     /* read, and not yet used */
    struct event *readable;
    struct http_resume *resume; /* of an adopted connection, during its first request */
    struct http_request *req;   /* from the first byte of a request until its answer is sent */
    void *user;
    uint64_t id;
    uint64_t deadline_ns;
    uint64_t period_start; /* progress when the deadline was set */
    uint64_t in_used;      /* bytes taken out of the input */
    uint64_t in_seen;      /* bytes read */
    uint64_t out_queued;   /* bytes put into the output, dropped ones included */
    uint64_t out_start;    /* of the current request's, in out_queued */
    uint64_t out_counted;  /* of them, those added to the counters */
    uint64_t out_base;     /* kernel's count of bytes taken = out_base + out_queued - waiting */
    uint64_t skip;         /* bytes of an adopted answer that the client has already been sent */
    int fd;
    struct http_peer peer;
    uint8_t phase;    /* enum conn_phase */
    uint8_t deadline; /* enum deadline_kind */
    uint8_t outcome;  /* enum http_outcome, once cut */
    uint8_t refusal;  /* enum http_refusal */
    bool is_tcp;
    bool is_reading;
    bool is_blocked;   /* the kernel took less than we had; libevent writes the rest */
    bool is_dirty;     /* in the server's dirty list */
    bool is_cut;       /* ends at the next look */
    bool is_congested; /* on_drain is owed */
    bool has_base;     /* out_base is known */
    bool has_eof;      /* the client's last byte was read */
    bool has_left;     /* the client has sent its last byte, read or not */
    bool must_linger;
    bool sent_continue; /* to the current request */
    bool has_served;    /* a request was answered before */
    bool is_out;        /* the answer to the adopted request was all taken */
};

struct http_listener {
    STAILQ_ENTRY(http_listener) next;
    struct http_server *server;
    struct loop_watch *watch;
    int fd;
    bool is_tcp;
    bool is_closed;
};

TAILQ_HEAD(conn_list, http_conn);
STAILQ_HEAD(conn_queue, http_conn);

struct http_server {
    struct http_config config;
    struct http_handler handler;
    void *ctx;
    struct loop *loop;
    struct http_counters *counters;
    struct http_counters own_counters; /* when the caller has none */
    struct peer_watch *peer_watch;
    STAILQ_HEAD(, http_listener) listeners;
    struct loop_timer *accept_again;
    bool accept_is_failing; /* logged already */
    struct conn_list conns;
    size_t n_conns;
    uint64_t next_conn_id;
    struct conn_queue dirty;  /* something to do at the end of the turn */
    struct conn_queue closed; /* to be freed there */
    struct loop_timer *turn_end;
    bool is_in_turn_end;
    struct conn_list deadlines[N_DEADLINES];
    uint64_t periods_ns[N_DEADLINES];
    struct loop_timer *tick;
    uint64_t tick_at_ns;
    struct buf scratch;               /* heads of answers are composed here */
    char in_scratch[HTTP_READ_BYTES]; /* input that no journal has room for */
    int64_t date_s;                   /* of date */
    char date[32];
    bool is_draining;
    bool is_drained;
};

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- http_server.c ---- */
/* Look at the dirty and the closed connections before the loop sleeps. */
void server_finish_turn(struct http_server *s);
const char *server_date(struct http_server *s, int64_t *date_s);

/* ---- http_conn.c ---- */
/* Takes fd.  The caller must conn_run() it. */
struct http_conn *conn_new(struct http_server *s, int fd, bool is_tcp, void *user);
/* Do all that can be done now.  The connection may be closed (not freed) on return. */
void conn_run(struct http_conn *c);
/* End it now with an outcome for its request. */
void conn_lose(struct http_conn *c, enum http_outcome outcome);
void conn_refuse(struct http_conn *c, enum http_refusal why);
/* End it at the end of the turn: for functions that handlers call. */
void conn_cut(struct http_conn *c, enum http_outcome outcome);
/* Have conn_run() called at the end of the turn. */
void conn_mark_dirty(struct http_conn *c);
void conn_on_deadline(struct http_conn *c);
bool conn_body_is_at_hand(const struct http_conn *c); /* all of it is in the input */
void conn_on_peer(void *conn, bool is_dead);          /* peer_watch_fn */
void conn_free(struct http_conn *c);
const char *conn_phase_name(enum conn_phase phase);
/* An adopted connection whose last answer is out: end it, before its first conn_run(). */
void conn_set_done(struct http_conn *c);

/* ---- http_stream.c ---- */
void stream_open(struct http_conn *c);
/* Say the end to the client, softly or by a reset; then give the socket up. */
void stream_shut(struct http_conn *c, bool softly);
void stream_close(struct http_conn *c);
void stream_set_reading(struct http_conn *c, bool on);
/* The first contiguous bytes of the input, and how many they are. */
size_t stream_peek(const struct http_conn *c, const char **bytes);
void stream_use(struct http_conn *c, size_t n); /* they are done with */
void stream_add_input(struct http_conn *c, const void *bytes,
                      size_t n); /* as if it had been read */
void stream_add_output(struct http_conn *c, const void *bytes, size_t n);
/* Give the kernel what it takes now; true when that is all.  May find the client gone: closed then. */
bool stream_put(struct http_conn *c);
void stream_count_output(struct http_conn *c);  /* into the counters */
size_t conn_unread(const struct http_conn *c);  /* input not yet used */
size_t conn_waiting(const struct http_conn *c); /* output not yet taken by the kernel */

/* ---- http_deadline.c ---- */
void deadlines_init(struct http_server *s);
void deadlines_fini(struct http_server *s);
void deadline_set(struct http_conn *c, enum deadline_kind kind); /* DL_NONE: none */
/* Bytes moved in the direction the connection now waits for. */
uint64_t conn_progress(const struct http_conn *c);

/* ---- http_answer.c ---- */
#define HTTP_CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"
void answer_put(struct http_conn *c, const void *bytes, size_t n);
void answer_continue(struct http_conn *c); /* 100 */
/* The layer's own answer to c->refusal; the connection closes after it. */
void answer_refusal(struct http_conn *c);

/* ---- http_request.c ---- */
struct http_request *request_new(struct http_conn *c);
/* Keep a copy of the head's n bytes and make its parts strings. */
void request_keep_head(struct http_request *req, const char *bytes, size_t n);
void request_trim(struct http_request *req);
void request_free(struct http_request *req);
/* Find out_base; false: the kernel does not count this connection's bytes. */
bool conn_find_base(struct http_conn *c);

/* ---- http_listen.c ---- */
void listeners_resume(void *server);
void listeners_free(struct http_server *s);

#endif
