/* http_describe.h - what the parser makes of a byte stream, as text: for its unit test, its fuzz target
 * and the comparison with another parser.
 *
 * One line for each request:    POST /a?b HTTP/1.1 host=x keep=1 [Name: value|...] "body"
 * and for what comes then:      refused length_twice 400      or      more (the request is not complete) */
#ifndef LLMD_TESTS_HTTP_DESCRIBE_H
#define LLMD_TESTS_HTTP_DESCRIBE_H

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "gateway/net/http_parser.h"

/* How the stream comes in pieces: the first of `first` bytes, then of `each` (0: the rest at once); with a
 * seed, of random sizes instead. */
struct describe_pieces {
    size_t first;
    size_t each;
    uint32_t seed;
};

static inline void describe_bytes(struct buf *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= ' ' && c < 0x7f && c != '\\' && c != '"' && c != '|')
            buf_add_char(out, bytes[i]);
        else
            buf_printf(out, "\\x%02x", c);
    }
}

static inline void describe_head(struct buf *out, const struct http_parser *p, const char *head)
{
    buf_printf(out, "%s ", http_method_name(p->method));
    if (p->path.n == 0)
        buf_add_char(out, '/');
    describe_bytes(out, head + p->path.at, p->path.n);
    if (p->query.n > 0) {
        buf_add_char(out, '?');
        describe_bytes(out, head + p->query.at, p->query.n);
    }
    buf_printf(out, " HTTP/1.%d host=", p->minor_version);
    describe_bytes(out, head + p->host.at, p->host.n);
    buf_printf(out, " keep=%d%s [", p->keep_alive, p->expects_continue ? " continue" : "");
    for (uint32_t i = 0; i < p->n_fields; i++) {
        buf_add_str(out, i > 0 ? "|" : "");
        describe_bytes(out, head + p->fields[i].name.at, p->fields[i].name.n);
        buf_add(out, ": ", 2);
        describe_bytes(out, head + p->fields[i].value.at, p->fields[i].value.n);
    }
    buf_add(out, "] \"", 3);
}

struct describe {
    struct http_parser p;
    const struct http_limits *limits;
    struct http_field *fields;
    uint64_t body_bytes_max;
    struct buf *out;
    struct buf line; /* of the request that is not complete yet */
    char *pending; /* bytes not used yet, in memory of exactly their size, so that ASan guards it */
    size_t n_pending;
    bool in_body;
    bool is_closed; /* the last request was the last: what follows is not looked at */
};

static inline void describe_use(struct describe *d, size_t n)
{
    char *rest = mem_alloc(d->n_pending - n);

    memcpy(rest, d->pending + n, d->n_pending - n);
    free(d->pending);
    d->pending = rest;
    d->n_pending -= n;
}

/* One call of the parser; false when it wants more bytes or has refused. */
static inline bool describe_step(struct describe *d)
{
    struct http_piece piece = { 0 };
    enum http_parse result;

    if (!d->in_body) {
        result = http_parse_head(&d->p, d->pending, d->n_pending);
        if (result != HTTP_PARSE_DONE)
            return false;
        describe_head(&d->line, &d->p, d->pending);
        describe_use(d, d->p.head_bytes);
        d->p.body_bytes_max = d->body_bytes_max;
        d->in_body = true;
        return true;
    }
    result = http_parse_body(&d->p, d->pending, d->n_pending, &piece);
    if (result == HTTP_PARSE_DATA)
        describe_bytes(&d->line, piece.data, piece.n);
    describe_use(d, piece.used);
    if (result != HTTP_PARSE_DONE)
        return result == HTTP_PARSE_DATA;
    buf_add(d->out, d->line.data, d->line.n);
    buf_add(d->out, "\"\n", 2);
    buf_clear(&d->line);
    d->in_body = false;
    d->is_closed = !d->p.keep_alive;
    http_parser_init(&d->p, d->limits, d->fields);
    return d->n_pending > 0 && !d->is_closed;
}

static inline size_t describe_piece_bytes(struct describe_pieces *pieces, size_t left)
{
    size_t n = pieces->first > 0 ? pieces->first : pieces->each;

    pieces->first = 0;
    if (pieces->seed) {
        pieces->seed = pieces->seed * 1103515245u + 12345u;
        n = 1 + (pieces->seed >> 16) % 17;
    }
    return n == 0 || n > left ? left : n;
}

static inline void http_describe(struct buf *out, const char *bytes, size_t n,
                                 const struct http_limits *limits, uint64_t body_bytes_max,
                                 struct describe_pieces pieces)
{
    struct describe d = { .limits = limits, .out = out, .body_bytes_max = body_bytes_max };

    d.fields = mem_alloc(limits->fields_max * sizeof *d.fields);
    http_parser_init(&d.p, limits, d.fields);
    for (size_t at = 0, piece; at < n && !d.p.refused && !d.is_closed; at += piece) {
        piece = describe_piece_bytes(&pieces, n - at);
        d.pending = mem_realloc(d.pending, d.n_pending + piece);
        memcpy(d.pending + d.n_pending, bytes + at, piece);
        d.n_pending += piece;
        while (describe_step(&d))
            ;
    }
    if (d.p.refused)
        buf_printf(out, "refused %s %d\n", http_refusal_name(d.p.refused),
                   http_refusal_status(d.p.refused));
    else if (!d.is_closed && (d.in_body || d.n_pending > 0))
        buf_add_str(out, "more\n");
    buf_reserve(out, 0);
    out->data[out->n] = '\0';
    buf_fini(&d.line);
    free(d.pending);
    free(d.fields);
}

#endif
