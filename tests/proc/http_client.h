/* http_client.h - a small HTTP/1.1 client of the tests' own: many exchanges at once from one thread, and
 * connections that can be cut off at any byte.  Independent of gateway/net on purpose. */
#ifndef LLMD_TESTS_HTTP_CLIENT_H
#define LLMD_TESTS_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct exchange {
    int fd;
    bool done;                               /* the server closed, or the answer is complete */
    bool refused;                            /* connect() or send() failed */
    struct buf raw;                          /* all bytes received */
    uint64_t started_ns, first_ns, ended_ns; /* first body byte */
    int status;                              /* after exchange_finish() */
    struct buf body;                         /* de-chunked, after exchange_finish() */
};

/* Connect to 127.0.0.1:port and send one request with "Connection: close". `headers` are whole lines
 * with CRLF, or "". body NULL: GET. */
void exchange_start(struct exchange *x, int port, const char *path, const char *headers,
                    const char *body);
/* Read from all until each is done or timeout_ms passed.  True when all are done. */
bool exchanges_run(struct exchange *x, size_t n, int timeout_ms);
/* Read until `bytes` bytes came in, or it is done, or timeout. */
bool exchange_read_some(struct exchange *x, size_t bytes, int timeout_ms);
/* Split head and body, undo chunking.  False when the answer is cut short or malformed. */
bool exchange_finish(struct exchange *x);
void http_exchange_close(struct exchange *x);

/* All in one: returns the status, body in *out (appended); 0 when anything failed. */
int http_ask(int port, const char *path, const char *body, struct buf *out);

#endif
