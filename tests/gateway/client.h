/* client.h - a blocking HTTP/1.1 client for tests: raw bytes out, an answer taken apart in. */
#ifndef LLMD_TESTS_CLIENT_H
#define LLMD_TESTS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/json.h"

struct answer {
    int status;     /* 0: no answer */
    struct buf raw; /* as it came */
    struct buf head;
    struct buf body; /* decoded */
    bool is_whole;   /* ended as its framing says */
};

void answer_fini(struct answer *a);
/* The body as JSON, the caller's; a body that is none ends the program. */
json_t *answer_json(const struct answer *a);
/* Value of a field, or NULL; valid until the next call. */
const char *answer_header(const struct answer *a, const char *name);
static inline const char *answer_body(const struct answer *a)
{
    return a->body.data ? a->body.data : "";
}

/* Connect to 127.0.0.1:port; -1 when refused.  Reads give up after a minute. */
int client_connect(uint16_t port);
/* POST with Content-Type application/json and `headers` ("Name: value\r\n..." or ""). */
void client_post(int fd, const char *path, const char *headers, const char *body);
void client_send(int fd, const void *bytes, size_t n);
/* Read one answer to its end. */
void client_read(int fd, struct answer *a);
/* Read until the body holds at least n bytes, or the answer ends. */
void client_read_some(int fd, struct answer *a, size_t n_body);
/* And then to its end. */
void client_read_rest(int fd, struct answer *a);

/* One request on a connection of its own. */
void client_get(uint16_t port, const char *path, struct answer *a);
void client_request(uint16_t port, const char *path, const char *headers, const char *body,
                    struct answer *a);

#endif
