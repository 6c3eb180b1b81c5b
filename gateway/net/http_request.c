/* http_request.c - what a handler may know about its request and the connection. */
#include "gateway/net/http_request.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gateway/net/http_conn.h"
#include "gateway/net/tcp_offset.h"

const char *http_outcome_name(enum http_outcome o)
{
    static const char *const names[] = {
        [HTTP_SENT] = "sent",       [HTTP_GONE] = "gone",       [HTTP_STALLED] = "stalled",
        [HTTP_REFUSED] = "refused", [HTTP_ABORTED] = "aborted", [HTTP_SHUTDOWN] = "shutdown",
    };

    return names[o];
}

/* ---- life ---- */
struct http_request *request_new(struct http_conn *c)
{
    const struct http_config *config = &c->server->config;
    struct http_request *req = mem_zalloc(1, sizeof *req);
    struct http_field *fields = mem_alloc(config->limits.fields_max * sizeof *fields);

    req->conn = c;
    req->started_ns = clock_mono_ns();
    http_parser_init(&req->parser, &config->limits, fields);
    req->parser.body_bytes_max = config->body_bytes_max;
    return req;
}

/* The byte after a name is ':', after a value CR or blank, after the target a blank: all are free. */
static void end_strings(struct http_request *req)
{
    const struct http_parser *p = &req->parser;
    char *head = req->head.data;

    for (uint32_t i = 0; i < p->n_fields; i++) {
        head[p->fields[i].name.at + p->fields[i].name.n] = '\0';
        head[p->fields[i].value.at + p->fields[i].value.n] = '\0';
    }
    head[p->target.at + p->target.n] = '\0';
}

void request_keep_head(struct http_request *req, const char *bytes, size_t n)
{
    const struct http_parser *p = &req->parser;
    size_t path_n = 0;

    if (bytes != req->head.data) {
        buf_reserve(&req->head, n + p->path.n + 2);
        buf_add(&req->head, bytes, n);
    } else {
        req->head.n = n;
        buf_reserve(&req->head, p->path.n + 2);
    }
    if (p->path.at + p->path.n == 0) /* refused before there was a target */
        return;
    char *path = req->head.data + n;
    if (!http_percent_decode(path, &path_n, req->head.data + p->path.at, p->path.n, false))
        return;
    if (path_n == 0)
        path[path_n++] = '/';
    path[path_n] = '\0';
    req->path = path;
    if (p->refused == HTTP_REFUSED_NOT)
        end_strings(req);
}

/* Most requests have few fields, and many requests wait long. */
void request_trim(struct http_request *req)
{
    struct http_parser *p = &req->parser;

    if (p->fields && p->n_fields < p->limits->fields_max)
        p->fields = mem_realloc(p->fields, (p->n_fields + 1) * sizeof *p->fields);
}

void request_free(struct http_request *req)
{
    if (!req)
        return;
    free(req->parser.fields);
    buf_fini(&req->head);
    buf_fini(&req->body);
    free(req);
}

/* ---- the request ---- */
enum http_method http_request_method(const struct http_request *req)
{
    return req->parser.method;
}

int http_request_minor_version(const struct http_request *req)
{
    return req->parser.minor_version;
}

const char *http_request_target(const struct http_request *req)
{
    return req->head.data ? req->head.data + req->parser.target.at : "";
}

const char *http_request_path(const struct http_request *req)
{
    return req->path ? req->path : "";
}

const char *http_request_query(const struct http_request *req)
{
    return req->parser.query.n > 0 ? req->head.data + req->parser.query.at : "";
}

bool http_request_header_at(const struct http_request *req, size_t i, const char **name,
                            const char **value)
{
    const struct http_parser *p = &req->parser;

    if (i >= p->n_fields)
        return false;
    *name = req->head.data + p->fields[i].name.at;
    *value = req->head.data + p->fields[i].value.at;
    return true;
}

const char *http_request_header(const struct http_request *req, const char *name)
{
    const char *its_name, *value;

    for (size_t i = 0; http_request_header_at(req, i, &its_name, &value); i++)
        if (!strcasecmp(its_name, name))
            return value;
    return NULL;
}

bool http_request_has_body(const struct http_request *req)
{
    return http_parser_has_body(&req->parser);
}

uint64_t http_request_content_length(const struct http_request *req)
{
    return req->parser.content_length;
}

const char *http_request_body(const struct http_request *req, size_t *n)
{
    *n = req->body_done ? req->body.n : 0;
    return req->body_done && req->body.data ? req->body.data : "";
}

void http_request_drop_body(struct http_request *req)
{
    if (req->body_done)
        buf_fini(&req->body);
}

struct http_conn *http_request_conn(const struct http_request *req)
{
    return req->conn;
}

uint64_t http_request_started_ns(const struct http_request *req)
{
    return req->started_ns;
}

void http_request_set_user(struct http_request *req, void *user)
{
    req->user = user;
}

void *http_request_user(const struct http_request *req)
{
    return req->user;
}

void http_request_set_body_max(struct http_request *req, uint64_t bytes)
{
    assert(req->conn->phase == CONN_BODY);
    req->parser.body_bytes_max = bytes;
}

/* ---- the answer's state ---- */
bool http_is_started(const struct http_request *req)
{
    return req->is_started;
}

bool http_is_ended(const struct http_request *req)
{
    return req->is_ended;
}

bool http_is_congested(const struct http_request *req)
{
    return conn_waiting(req->conn) > req->conn->server->config.out_high_bytes;
}

size_t http_output_waiting(const struct http_request *req)
{
    return conn_waiting(req->conn);
}

/* ---- offsets ---- */
/* What the kernel has taken and what waits here make up all that was queued, so the origin of the
 * kernel's count is found at any time. */
bool conn_find_base(struct http_conn *c)
{
    uint64_t taken;

    if (c->has_base)
        return true;
    if (!c->is_tcp || c->is_cut || c->phase == CONN_CLOSED || !tcp_bytes_taken(c->fd, &taken))
        return false;
    c->out_base = taken - (c->out_queued - conn_waiting(c));
    c->has_base = true;
    return true;
}

/* ---- the connection ---- */
int http_conn_fd(const struct http_conn *conn)
{
    return conn->fd;
}

uint64_t http_conn_id(const struct http_conn *conn)
{
    return conn->id;
}

uint64_t http_conn_bytes_out(const struct http_conn *conn)
{
    return conn->out_queued - conn_waiting(conn);
}

bool http_conn_bytes_taken(const struct http_conn *conn, uint64_t *bytes)
{
    return conn->is_tcp && conn->phase != CONN_CLOSED && tcp_bytes_taken(conn->fd, bytes);
}

void http_conn_set_user(struct http_conn *conn, void *user)
{
    conn->user = user;
}

void *http_conn_user(const struct http_conn *conn)
{
    return conn->user;
}

void http_conn_peer(const struct http_conn *conn, char out[HTTP_PEER_BYTES])
{
    const struct http_peer *peer = &conn->peer;
    char text[INET6_ADDRSTRLEN] = "";
    struct ucred who = { 0 };
    socklen_t n = sizeof who;

    if (peer->family == AF_INET || peer->family == AF_INET6) {
        inet_ntop(peer->family, peer->addr, text, sizeof text);
        snprintf(out, HTTP_PEER_BYTES, peer->family == AF_INET ? "%s:%u" : "[%s]:%u", text,
                 peer->port);
    } else if (peer->family == AF_UNIX &&
               !getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &who, &n)) {
        snprintf(out, HTTP_PEER_BYTES, "unix:uid=%u", who.uid);
    } else {
        snprintf(out, HTTP_PEER_BYTES, "unknown");
    }
}
