/* http_answer.c - from what a handler says to bytes in the connection's output.
 *
 * The head of an answer is composed in one buffer of the server and added to the output in one
 * piece.  Everything goes through answer_put(), which counts the byte stream and drops what the client
 * of an adopted connection has had already; so whatever decides bytes (version, Connection, Date)
 * must come out the same when the answer is written again, and is taken from the mark then. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/json.h"
#include "common/log.h"
#include "gateway/net/http_conn.h"

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    { 200, "OK" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 301, "Moved Permanently" },
    { 302, "Found" },
    { 304, "Not Modified" },
    { 307, "Temporary Redirect" },
    { 308, "Permanent Redirect" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 406, "Not Acceptable" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 411, "Length Required" },
    { 413, "Content Too Large" },
    { 414, "URI Too Long" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 422, "Unprocessable Content" },
    { 424, "Failed Dependency" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 502, "Bad Gateway" },
    { 503, "Service Unavailable" },
    { 504, "Gateway Timeout" },
    { 505, "HTTP Version Not Supported" },
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown";
}

void answer_put(struct http_conn *c, const void *bytes, size_t n)
{
    size_t drop = n < c->skip ? n : (size_t)c->skip;

    c->skip -= drop;
    c->out_queued += n;
    c->out_counted += drop;
    if (n > drop)
        stream_add_output(c, (const char *)bytes + drop, n - drop);
}

/* ---- what a successor must know ---- */

/* The output of the current request has come so far that it must be noted.  While it is written again,
 * what the dead process noted is never taken back. */
static void note_output(struct http_conn *c, bool is_begun, bool is_whole)
{
    const struct http_mark *old = c->resume && c->resume->has_mark ? &c->resume->mark : NULL;
    const struct http_request *req = c->req;
    struct http_mark mark;

    if (!c->server->handler.on_output || (old && old->is_begun && !is_begun) || !conn_find_base(c))
        return;
    mark = (struct http_mark){ .answer_start = c->out_base + c->out_start,
                               .whole_bytes = is_whole ? c->out_queued - c->out_start : 0,
                               .date_s = req ? req->date_s : 0,
                               .is_begun = is_begun,
                               .is_repeatable = req && req->is_repeatable,
                               .keep_alive = req && req->keep_alive,
                               .sent_continue = c->sent_continue };
    if (old && old->is_begun && !is_whole)
        mark.whole_bytes = old->whole_bytes;
    c->server->handler.on_output(c, &mark, c->server->ctx);
}

void answer_continue(struct http_conn *c)
{
    static const char text[] = HTTP_CONTINUE;

    answer_put(c, text, sizeof text - 1);
    c->req->parser.expects_continue = false;
    c->sent_continue = true;
    note_output(c, false, false);
}

/* ---- heads ---- */
static bool is_of_the_layer(const char *name)
{
    return !strcasecmp(name, "Content-Length") || !strcasecmp(name, "Transfer-Encoding") ||
           !strcasecmp(name, "Connection") || !strcasecmp(name, "Date");
}

static void head_add(struct buf *head, const struct http_header *header)
{
    size_t at;

    assert(!is_of_the_layer(header->name));
    buf_add_str(head, header->name);
    buf_add(head, ": ", 2);
    at = head->n;
    buf_add_str(head, header->value);
    for (; at < head->n; at++) {
        unsigned char b = (unsigned char)head->data[at];
        if ((b < ' ' && b != '\t') || b == 0x7f)
            head->data[at] = ' ';
    }
    buf_add(head, "\r\n", 2);
}

static bool has_no_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

static void head_begin(struct http_conn *c, struct http_request *req, int status)
{
    struct http_server *s = c->server;
    struct buf *head = &s->scratch;

    buf_clear(head);
    buf_printf(head, "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    if (s->config.send_date) {
        int64_t now_s = 0;
        const char *date = server_date(s, req ? &req->date_s : &now_s);
        buf_add(head, "Date: ", 6);
        buf_add_str(head, date);
        buf_add(head, "\r\n", 2);
    }
}

static void head_end(struct http_conn *c, int minor_version, bool keep_alive)
{
    struct buf *head = &c->server->scratch;

    if (!keep_alive)
        buf_add_str(head, "Connection: close\r\n");
    else if (minor_version == 0)
        buf_add_str(head, "Connection: keep-alive\r\n");
    buf_add(head, "\r\n", 2);
    answer_put(c, head->data, head->n);
}

/* What the answer's head says about the connection; nothing may change it later. */
static void settle_keep_alive(struct http_request *req, bool ends_by_closing)
{
    if (req->is_adopted) /* said already, perhaps */
        return;
    if (req->conn->server->is_draining || ends_by_closing || !conn_body_is_at_hand(req->conn))
        req->keep_alive = false;
}

/* ---- for handlers ---- */
static bool is_silenced(const struct http_request *req)
{
    return req->conn->is_cut || req->conn->phase == CONN_CLOSED;
}

static bool is_head_request(const struct http_request *req)
{
    return req->parser.method == HTTP_HEAD;
}

static void end_answer(struct http_request *req)
{
    struct http_conn *c = req->conn;

    req->is_ended = true;
    note_output(c, true, true);
    if (c->skip > 0) { /* written again, it came out shorter than what the client has had */
        log_error("conn=%lu event=adopted_answer_differs surplus_bytes=%lu", (unsigned long)c->id,
                  (unsigned long)c->skip);
        conn_cut(c, HTTP_ABORTED);
    }
    conn_mark_dirty(c);
}

void http_respond(struct http_request *req, int status, const struct http_header *headers,
                  size_t n_headers, const void *body, size_t n)
{
    struct http_conn *c = req->conn;
    struct buf *head = &c->server->scratch;

    assert(!req->is_started && req->is_announced);
    if (is_silenced(req))
        return;
    req->is_started = true;
    settle_keep_alive(req, false);
    head_begin(c, req, status);
    for (size_t i = 0; i < n_headers; i++)
        head_add(head, &headers[i]);
    if (!has_no_body(status))
        buf_printf(head, "Content-Length: %zu\r\n", n);
    head_end(c, req->parser.minor_version, req->keep_alive);
    if (n > 0 && !is_head_request(req) && !has_no_body(status))
        answer_put(c, body, n);
    end_answer(req);
}

void http_start(struct http_request *req, int status, const struct http_header *headers,
                size_t n_headers)
{
    struct http_conn *c = req->conn;
    struct buf *head = &c->server->scratch;

    assert(!req->is_started && req->is_announced && !has_no_body(status));
    if (is_silenced(req))
        return;
    assert(c->phase == CONN_ANSWER); /* before the body was read only http_respond() is possible */
    req->is_started = true;
    req->is_chunked = req->parser.minor_version == 1;
    settle_keep_alive(req, !req->is_chunked);
    head_begin(c, req, status);
    for (size_t i = 0; i < n_headers; i++)
        head_add(head, &headers[i]);
    if (req->is_chunked)
        buf_add_str(head, "Transfer-Encoding: chunked\r\n");
    head_end(c, req->parser.minor_version, req->keep_alive);
    note_output(c, true, false);
    conn_mark_dirty(c);
}

void http_write(struct http_request *req, const void *bytes, size_t n)
{
    struct http_conn *c = req->conn;
    char size[24];

    if (is_silenced(req))
        return;
    assert(req->is_started && !req->is_ended);
    if (n == 0 || is_head_request(req))
        return;
    if (conn_waiting(c) > c->server->config.out_max_bytes) {
        conn_cut(c, HTTP_STALLED);
        return;
    }
    if (req->is_chunked)
        answer_put(c, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n));
    answer_put(c, bytes, n);
    if (req->is_chunked)
        answer_put(c, "\r\n", 2);
    c->is_congested |= conn_waiting(c) > c->server->config.out_high_bytes;
    conn_mark_dirty(c);
}

void http_end(struct http_request *req)
{
    if (is_silenced(req))
        return;
    assert(req->is_started && !req->is_ended);
    if (req->is_chunked && !is_head_request(req))
        answer_put(req->conn, "0\r\n\r\n", 5);
    end_answer(req);
}

void http_set_close(struct http_request *req)
{
    assert(!req->is_started);
    if (!req->is_adopted)
        req->keep_alive = false;
}

void http_set_repeatable(struct http_request *req)
{
    assert(!req->is_started);
    req->is_repeatable = true;
}

bool http_is_behind(const struct http_request *req)
{
    return req->conn->skip > 0;
}

void http_abort(struct http_request *req)
{
    conn_cut(req->conn, HTTP_ABORTED);
}

/* ---- by the layer itself ---- */
static const char *format_error(const struct http_error *error, struct buf *body)
{
    struct json_writer w = { .out = body };

    jw_object(&w);
    jw_key(&w, "error");
    jw_object(&w);
    jw_key(&w, "message");
    jw_str(&w, error->text);
    jw_key(&w, "type");
    jw_str(&w, error->status < 500 ? "invalid_request_error" : "server_error");
    jw_key(&w, "code");
    jw_int(&w, error->status);
    jw_object_end(&w);
    jw_object_end(&w);
    return "application/json";
}

void answer_refusal(struct http_conn *c)
{
    struct http_server *s = c->server;
    struct http_request *req = c->req;
    enum http_refusal why = (enum http_refusal)c->refusal;
    struct http_error error = { .status = http_refusal_status(why),
                                .why = why,
                                .text = http_refusal_text(why),
                                .path = req ? req->path : NULL };
    struct buf body = { 0 };
    struct http_header type = { .name = "Content-Type" };

    type.value = s->handler.on_error ? s->handler.on_error(&error, &body, s->ctx)
                                     : format_error(&error, &body);
    head_begin(c, NULL, error.status);
    head_add(&s->scratch, &type);
    buf_printf(&s->scratch, "Content-Length: %zu\r\n", body.n);
    head_end(c, 1, false);
    if (body.n > 0 && !(req && is_head_request(req)))
        answer_put(c, body.data, body.n);
    if (req)
        req->keep_alive = req->is_repeatable = false;
    note_output(c, true, true);
    buf_fini(&body);
}
