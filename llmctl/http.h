/* http.h - the one door to libcurl: POST a JSON body, take the answer as it comes. */
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
    const char *body;
    size_t n;
    const char *api_key; /* NULL: none */
    int stop_fd;         /* readable: stop now; -1 = none */
    http_body_fn *on_body;
    void *arg;
};

/* Send and wait for the end of the answer.  *refusal and *status are filled for HTTP_REFUSED. */
enum http_result http_post(const struct http_post *p, struct buf *refusal, long *status,
                           struct err *e);

#endif
