/* http_request.h - one request and its answer, as a handler sees them.
 *
 * Ownership.  A request belongs to its connection.  The handler may keep the pointer from on_head until
 * on_done, which comes exactly once for every request that on_head saw, whatever happens to client
 * or server, and after which the pointer is dead.  What the accessors return is borrowed until then.
 *
 * No function of this file puts a byte into the kernel, and none but on_output (http_server.h) calls back
 * into the handler: both happen when the handler has returned to the loop.  on_output comes before anyone
 * can have seen a byte of the answer.
 *
 * Once the client is gone, or the answer was cut, all answering functions do nothing; on_done is then
 * on its way.  Only on the thread of the server's loop. */
#ifndef LLMD_GATEWAY_NET_HTTP_REQUEST_H
#define LLMD_GATEWAY_NET_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/net/http_parser.h"

struct http_conn;
struct http_request;

enum http_outcome {
    HTTP_SENT,     /* the kernel has taken the whole answer */
    HTTP_GONE,     /* the client left first */
    HTTP_STALLED,  /* the client read too slowly, or the handler wrote past the bound; cut */
    HTTP_REFUSED,  /* the body was malformed, too large or too slow; the layer answered */
    HTTP_ABORTED,  /* http_abort() */
    HTTP_SHUTDOWN, /* http_server_free() */
};

const char *http_outcome_name(enum http_outcome o);

/* ---- the request ---- */
enum http_method http_request_method(const struct http_request *req);
int http_request_minor_version(const struct http_request *req);  /* HTTP/1.x */
const char *http_request_target(const struct http_request *req); /* as sent */
const char *http_request_path(const struct http_request *req);  /* percent-decoded, without query */
const char *http_request_query(const struct http_request *req); /* as sent, "" without one */
/* Value of the first field of that name (any case), or NULL. */
const char *http_request_header(const struct http_request *req, const char *name);
/* The i-th field, in order; false past the last. */
bool http_request_header_at(const struct http_request *req, size_t i, const char **name,
                            const char **value);
/* Has a body by its head; its length there, 0 when chunked. */
bool http_request_has_body(const struct http_request *req);
uint64_t http_request_content_length(const struct http_request *req);
/* Contiguous, NUL-terminated past its n bytes.  Empty before on_request. */
const char *http_request_body(const struct http_request *req, size_t *n);
/* Give the body's memory back before the answer ends (prompts are long, answers slow). */
void http_request_drop_body(struct http_request *req);
struct http_conn *http_request_conn(const struct http_request *req);
uint64_t http_request_started_ns(const struct http_request *req); /* monotonic; first byte seen */

void http_request_set_user(struct http_request *req, void *user);
void *http_request_user(const struct http_request *req);

/* In on_head only: this request's body limit instead of the server's. */
void http_request_set_body_max(struct http_request *req, uint64_t bytes);

/* ---- the answer ---- */
/* Content-Length, Transfer-Encoding, Connection and Date are the layer's; naming one is a bug.  A
 * control byte in a value is sent as a space, so a value can never start another field. */
struct http_header {
    const char *name;
    const char *value;
};

/* The complete answer.  Everything is copied.  In on_head it refuses the request before its body
 * is read; on_request is then not called. */
void http_respond(struct http_request *req, int status, const struct http_header *headers,
                  size_t n_headers, const void *body, size_t n);

/* An answer in pieces: http_start, any http_write, http_end.  Chunked; to an HTTP/1.0 client as it
 * comes, ended by closing.  One http_write is one chunk (an adopted answer must be written again in the
 * same pieces). */
void http_start(struct http_request *req, int status, const struct http_header *headers,
                size_t n_headers);
void http_write(struct http_request *req, const void *bytes, size_t n);
void http_end(struct http_request *req);

/* The connection closes after this answer; before http_start or http_respond. */
void http_set_close(struct http_request *req);
/* Cut the connection: the only honest end of a started answer that cannot be completed. */
void http_abort(struct http_request *req);

bool http_is_started(const struct http_request *req);
bool http_is_ended(const struct http_request *req);
/* The output waiting in this process is past the high-water mark: stop writing, on_drain will come.
 * Writing on is allowed up to the server's hard bound, where the client is cut off. */
bool http_is_congested(const struct http_request *req);
size_t http_output_waiting(const struct http_request *req); /* bytes not yet taken by the kernel */

/* Made again from the same request, seed and tokens, the answer has the same bytes; before http_start
 * or http_respond.  A successor then writes it again and drops what the client has had; of other answers,
 * which must go by http_respond(), it only knows whether they are out. */
void http_set_repeatable(struct http_request *req);
/* The answer of a dead process is being written again and has not come as far as that one's. */
bool http_is_behind(const struct http_request *req);

/* ---- where the answer stands; see http_server_adopt() ---- */
struct http_mark {
    uint64_t answer_start; /* of its output, in all that was written, as the kernel counts */
    uint64_t whole_bytes;  /* of the complete output; 0: not complete yet */
    int64_t date_s;        /* of the Date field */
    bool is_begun;         /* more than 100 Continue */
    bool is_repeatable;
    bool keep_alive;
    bool sent_continue;
};

/* ---- the connection ---- */
int http_conn_fd(const struct http_conn *conn);
uint64_t http_conn_id(const struct http_conn *conn); /* unique in this server */
/* Bytes of output the kernel has taken since accept, or since the beginning of an adopted answer, those
 * that the dead process wrote included; does not ask the kernel. */
uint64_t http_conn_bytes_out(const struct http_conn *conn);
/* Bytes the kernel has ever taken from any process for this connection; false when not TCP. */
bool http_conn_bytes_taken(const struct http_conn *conn, uint64_t *bytes);
void http_conn_set_user(struct http_conn *conn, void *user);
void *http_conn_user(const struct http_conn *conn);

enum { HTTP_PEER_BYTES = 64 };
/* "127.0.0.1:4711", "[::1]:4711" or "unix:uid=0". */
void http_conn_peer(const struct http_conn *conn, char out[HTTP_PEER_BYTES]);

#endif
