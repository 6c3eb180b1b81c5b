/* reply.h - a complete answer, before it meets a socket: status, header fields, body.
 *
 * Formatters fill one; exchange.c sends it.  So every answer of every dialect can be compared with
 * the contract byte by byte in a unit test. */
#ifndef LLMD_GATEWAY_REPLY_H
#define LLMD_GATEWAY_REPLY_H

#include "common/arena.h"
#include "common/buf.h"
#include "gateway/net/http_request.h"

enum { REPLY_HEADERS_MAX = 16 };

struct reply {
    int status;
    struct http_header headers[REPLY_HEADERS_MAX];
    size_t n_headers;
    struct buf body;
    struct arena arena; /* of header values */
};

void reply_init(struct reply *r);
void reply_fini(struct reply *r);

/* Add a field; the name must outlive the reply (a literal), the value is copied. */
void reply_header(struct reply *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Status and Content-Type; the body is appended to r->body. */
void reply_set(struct reply *r, int status, const char *content_type);

#define REPLY_JSON "application/json"
#define REPLY_TEXT "text/plain; charset=utf-8"
#define REPLY_SSE  "text/event-stream"

#endif
