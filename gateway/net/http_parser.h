/* http_parser.h - an HTTP/1.1 request, from bytes to meaning.  RFC 9112, strict.
 *
 * A pure function over bytes: no socket, no clock, no allocation; all it keeps is in the caller's
 * struct and the caller's field table.  Fed byte by byte or all at once, it says the same.
 *
 * What two readers could understand differently is refused, never mended: two Content-Length
 * fields (equal ones too), Content-Length beside Transfer-Encoding, any Transfer-Encoding but exactly
 * "chunked", a length that is not plain digits, white space around a field name, folded lines, line ends
 * other than CRLF, control bytes, a missing or second Host.  One empty line before a request is
 * skipped, as RFC 9112 section 2.2 asks. */
#ifndef LLMD_GATEWAY_NET_HTTP_PARSER_H
#define LLMD_GATEWAY_NET_HTTP_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, status, what the client is told): why the layer itself refuses a request.  It makes the enum,
 * the statuses, the texts and the counters. */
#define HTTP_REFUSALS(X)                                                                           \
    X(REQUEST_LINE, 400, "malformed request line")                                                 \
    X(TARGET, 400, "malformed request target")                                                     \
    X(TARGET_LONG, 414, "request target too long")                                                 \
    X(METHOD, 501, "method not implemented")                                                       \
    X(VERSION, 505, "HTTP version not supported")                                                  \
    X(LINE_END, 400, "line does not end in CRLF")                                                  \
    X(FIELD_NAME, 400, "malformed header field name")                                              \
    X(FIELD_VALUE, 400, "forbidden byte in a header field value")                                  \
    X(FIELD_FOLDED, 400, "folded header field")                                                    \
    X(HEAD_LONG, 431, "request header fields too large")                                           \
    X(FIELDS_MANY, 431, "too many header fields")                                                  \
    X(HOST, 400, "exactly one valid Host field is required")                                       \
    X(LENGTH, 400, "malformed Content-Length")                                                     \
    X(LENGTH_TWICE, 400, "more than one Content-Length")                                           \
    X(LENGTH_AND_CODING, 400, "Content-Length and Transfer-Encoding together")                     \
    X(CODING, 400, "malformed Transfer-Encoding")                                                  \
    X(CODING_UNKNOWN, 501, "transfer coding not implemented")                                      \
    X(EXPECT, 417, "expectation not supported")                                                    \
    X(CHUNK, 400, "malformed chunk")                                                               \
    X(CHUNK_EXT_LONG, 400, "chunk extensions too long")                                            \
    X(TRAILER, 400, "a field that frames or routes the request among the trailers")                \
    X(TRAILER_LONG, 431, "trailer fields too large")                                               \
    X(BODY_LONG, 413, "request body too large")                                                    \
    X(HEAD_SLOW, 408, "request head not received in time")                                         \
    X(BODY_SLOW, 408, "request body not received in time")                                         \
    X(CONNECTIONS, 503, "too many connections")

enum http_refusal {
    HTTP_REFUSED_NOT,
#define X(name, status, text) HTTP_REFUSED_##name,
    HTTP_REFUSALS(X)
#undef X
        N_HTTP_REFUSALS
};

int http_refusal_status(enum http_refusal why);
const char *http_refusal_text(enum http_refusal why); /* for the client */
const char *http_refusal_name(enum http_refusal why); /* for logs and metrics: "length_twice" */

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_PATCH,
    HTTP_TRACE,
    N_HTTP_METHODS
};

const char *http_method_name(enum http_method m);

/* Places in the head, counted from its first byte: the buffer may move between calls. */
struct http_span {
    uint32_t at;
    uint32_t n;
};

struct http_field {
    struct http_span name;  /* as sent; compare without case */
    struct http_span value; /* without the white space around it; may be empty */
};

struct http_limits {
    uint32_t head_bytes_max; /* request line, fields and the empty line */
    uint32_t target_bytes_max;
    uint32_t fields_max;          /* size of the caller's field table */
    uint32_t chunk_ext_bytes_max; /* all chunk extensions of one body */
    uint32_t trailer_bytes_max;
};

/* 64 KiB head, 8 KiB target, 100 fields, 4 KiB of chunk extensions, 8 KiB of trailers. */
extern const struct http_limits http_limits_default;

#define HTTP_BODY_BYTES_MAX_DEFAULT (16ull << 20)

struct http_parser {
    /* what was found; valid once http_parse_head() said HTTP_PARSE_DONE */
    enum http_method method;
    uint8_t minor_version; /* 1, or 0 for HTTP/1.0 */
    bool keep_alive;       /* the client would send another request */
    bool is_chunked;
    bool has_length;           /* a Content-Length field was there */
    bool expects_continue;     /* and there is a body to wait for */
    uint64_t content_length;   /* 0 without one */
    struct http_span target;   /* as sent */
    struct http_span path;     /* inside target, not decoded; "*" for the asterisk form */
    struct http_span query;    /* after '?', not decoded; n = 0 without one */
    struct http_span host;     /* of an absolute target, else of the Host field */
    struct http_field *fields; /* borrowed from the caller */
    uint32_t n_fields;
    uint32_t head_bytes; /* the head's size, the body begins there */

    enum http_refusal refused; /* set with HTTP_PARSE_REFUSED */
    uint64_t body_bytes;       /* body bytes decoded so far */
    uint64_t body_bytes_max;   /* may be changed between head and body */

    /* how far it is */
    const struct http_limits *limits;
    uint32_t at;   /* head bytes looked at */
    uint32_t mark; /* where the current word began */
    uint8_t state; /* of the head */
    uint8_t body_state;
    uint8_t n_host;
    uint8_t digits; /* of the current chunk size */
    uint32_t ext_bytes;
    uint32_t trailer_bytes;
    uint8_t name_n; /* of a trailer's name; its first bytes in small letters: */
    char name[18];
    uint64_t left; /* of the chunk or of the body */
};

enum http_parse {
    HTTP_PARSE_MORE,    /* give more bytes */
    HTTP_PARSE_DATA,    /* body: a piece of data was found */
    HTTP_PARSE_DONE,    /* head or body complete */
    HTTP_PARSE_REFUSED, /* p->refused says why; nothing more may be fed */
};

/* fields: limits->fields_max entries, borrowed until the parser is last used; limits likewise. */
void http_parser_init(struct http_parser *p, const struct http_limits *limits,
                      struct http_field *fields);

/* Look at the head's bytes [0, n): all of those seen before, perhaps moved, and perhaps more.
 * DONE: the head is the first p->head_bytes of them (the rest is body or the next request). */
enum http_parse http_parse_head(struct http_parser *p, const char *bytes, size_t n);

bool http_parser_has_body(const struct http_parser *p);

struct http_piece {
    size_t used;      /* of the bytes given, framing included */
    const char *data; /* DATA: inside the bytes given */
    size_t n;
};

/* After the head: decode the next bytes of the body.  Call again with the bytes past piece->used until
 * MORE (all were used), DONE (the rest is the next request) or REFUSED. */
enum http_parse http_parse_body(struct http_parser *p, const char *bytes, size_t n,
                                struct http_piece *piece);

/* Decode %XX from src into dst, which has room for n bytes and may be src.  False for an incomplete or
 * non-hex escape and for %00.  is_query: '+' is a space. */
bool http_percent_decode(char *dst, size_t *dst_n, const char *src, size_t n, bool is_query);

#endif
