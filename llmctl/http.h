/* http.h - the one door to libcurl: POST a JSON body, or GET, and take the answer as it comes; one transfer, or
 * many at once. */
#ifndef LLMD_LLMCTL_HTTP_H
#define LLMD_LLMCTL_HTTP_H

#include "common/buf.h"
#include "common/err.h"

enum http_result {
    HTTP_OK,
    HTTP_REFUSED, /* a status other than 200; its body is in *refusal */
    HTTP_STOPPED, /* stop_fd became readable, or the taker wanted no more */
    HTTP_FAILED,  /* no connection, or it broke; *e */
};

/* Bytes of a 200 answer.  False ends the transfer. */
typedef bool http_body_fn(void *arg, const char *bytes, size_t n);

struct http_post {
    const char *url;
    const char *body; /* NULL: GET */
    size_t n;
    const char *api_key; /* NULL: none */
    int stop_fd;         /* readable: stop now; -1 = none */
    unsigned timeout_s;  /* of the whole transfer; 0 = none */
    http_body_fn *on_body;
    void *arg; /* of on_body */
};

/* Send and wait for the end of the answer.  *refusal and *status are filled for HTTP_REFUSED. */
enum http_result http_post(const struct http_post *p, struct buf *refusal, long *status,
                           struct err *e);

/* ---- many at once ---- */

struct http_end {
    enum http_result result; /* HTTP_STOPPED: on_body wanted no more */
    bool timed_out;          /* of HTTP_FAILED: the transfer's timeout_s was over */
    long status;             /* 0: no answer came */
    const struct buf *refusal;
    struct err e;
};

/* The transfer is over; called from http_pool_turn(), which may start others. */
typedef void http_end_fn(void *arg, const struct http_end *end);

struct http_pool;

/* NULL and *e: libcurl cannot start. */
struct http_pool *http_pool_new(struct err *e);
/* Running transfers are broken off without a word. */
void http_pool_free(struct http_pool *pool); /* NULL is fine */

/* *p is borrowed until on_end, which gets p->arg; p->stop_fd is not looked at. */
bool http_pool_start(struct http_pool *pool, const struct http_post *p, http_end_fn *on_end,
                     struct err *e);

/* Wait at most wait_ms for bytes, connections or ends, or until stop_fd (-1: none) is readable, and handle
 * them.  False: stop_fd is. */
bool http_pool_turn(struct http_pool *pool, int wait_ms, int stop_fd);

#endif
