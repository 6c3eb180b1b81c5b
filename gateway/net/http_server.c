/* http_server.c - the server: its parts, the end of each turn, drain.
 *
 * What handlers ask for is done at the end of the turn in which they asked: the connections are in a
 * list, and a deferred event runs after all that the poll brought.  So many small writes to a
 * connection become one system call, and no handler is called from inside its own call. */
#include "gateway/net/http_server.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/net/http_conn.h"

const struct http_config http_config_default = {
    .limits = { .head_bytes_max = 64 << 10,
                .target_bytes_max = 8 << 10,
                .fields_max = 100,
                .chunk_ext_bytes_max = 4 << 10,
                .trailer_bytes_max = 8 << 10 },
    .body_bytes_max = HTTP_BODY_BYTES_MAX_DEFAULT,
    .conns_max = 16384,
    .idle_ms = 75000,
    .head_ms = 10000,
    .body_ms = 10000,
    .body_bytes_per_s_min = 1024,
    .write_ms = 20000,
    .write_bytes_per_s_min = 0,
    .linger_ms = 2000,
    .accept_pause_ms = 100,
    .out_high_bytes = 256 << 10,
    .out_max_bytes = 1 << 20,
    .send_date = true,
};

const char *server_date(struct http_server *s, int64_t *date_s)
{
    struct tm tm;
    time_t when;

    if (*date_s == 0)
        *date_s = (int64_t)(clock_wall_ns() / NS_PER_S);
    if (*date_s != s->date_s) {
        when = (time_t)*date_s;
        gmtime_r(&when, &tm);
        strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_s = *date_s;
    }
    return s->date;
}

/* What becomes ready while the end of a turn runs waits for the next turn, so that sockets are looked
 * at in between. */
void server_finish_turn(struct http_server *s)
{
    if (s->is_in_turn_end)
        loop_timer_set(s->turn_end, 0);
    else
        loop_timer_fire(s->turn_end);
}

static void free_closed(struct http_server *s)
{
    struct http_conn *c;

    while ((c = STAILQ_FIRST(&s->closed))) {
        STAILQ_REMOVE_HEAD(&s->closed, in_dirty);
        conn_free(c);
    }
}

static void run_dirty(struct http_server *s)
{
    struct conn_queue now = STAILQ_HEAD_INITIALIZER(now);
    struct http_conn *c;

    STAILQ_CONCAT(&now, &s->dirty);
    while ((c = STAILQ_FIRST(&now))) {
        STAILQ_REMOVE_HEAD(&now, in_dirty);
        c->is_dirty = false;
        if (c->phase == CONN_CLOSED)
            conn_free(c);
        else
            conn_run(c);
    }
}

static void on_turn_end(void *arg)
{
    struct http_server *s = arg;

    s->is_in_turn_end = true;
    run_dirty(s);
    free_closed(s);
    s->is_in_turn_end = false;
    if (s->is_draining && !s->is_drained && s->n_conns == 0) {
        s->is_drained = true;
        log_info("event=drained");
        if (s->handler.on_drained)
            s->handler.on_drained(s, s->ctx);
    }
}

struct http_server *http_server_new(struct loop *loop, const struct http_config *config,
                                    const struct http_handler *handler, void *ctx,
                                    struct http_counters *counters, struct err *e)
{
    struct http_server *s = mem_zalloc(1, sizeof *s);

    assert(handler->on_request);
    s->config = *config;
    s->handler = *handler;
    s->ctx = ctx;
    s->loop = loop;
    s->counters = counters ? counters : &s->own_counters;
    STAILQ_INIT(&s->listeners);
    STAILQ_INIT(&s->dirty);
    STAILQ_INIT(&s->closed);
    TAILQ_INIT(&s->conns);
    s->turn_end = loop_timer_new(loop, on_turn_end, s);
    s->accept_again = loop_timer_new(loop, listeners_resume, s);
    deadlines_init(s);
    s->peer_watch = peer_watch_new(loop, conn_on_peer, e);
    if (!s->peer_watch) {
        http_server_free(s);
        return NULL;
    }
    return s;
}

void http_server_free(struct http_server *s)
{
    struct http_conn *c;

    if (!s)
        return;
    assert(!s->is_in_turn_end);
    http_server_unlisten(s);
    listeners_free(s);
    while ((c = TAILQ_FIRST(&s->conns)))
        conn_lose(c, c->req ? HTTP_SHUTDOWN : HTTP_SENT);
    run_dirty(s); /* only closed ones are left in it */
    free_closed(s);
    peer_watch_free(s->peer_watch);
    deadlines_fini(s);
    loop_timer_free(s->accept_again);
    loop_timer_free(s->turn_end);
    buf_fini(&s->scratch);
    free(s);
}

void http_server_drain(struct http_server *s)
{
    struct http_conn *c;

    if (s->is_draining)
        return;
    log_info("event=draining connections=%zu", s->n_conns);
    s->is_draining = true;
    http_server_unlisten(s);
    TAILQ_FOREACH(c, &s->conns, all)
    conn_mark_dirty(c);
    server_finish_turn(s);
}

bool http_server_is_draining(const struct http_server *s)
{
    return s->is_draining;
}

size_t http_server_n_conns(const struct http_server *s)
{
    return s->n_conns;
}
