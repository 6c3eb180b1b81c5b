/* http_conn.c - the state machine of one connection.
 *
 *            BYTES           HEAD            BODY             ANSWERED
 *     IDLE ----------> HEAD -------> BODY ----------> ANSWER ----------> FLUSH
 *      ^                 | REFUSE     | REFUSE, ANSWERED                 ^ | |
 *      |                 +------------+----------------------------------+ | |
 *      |  SENT_KEEP                                                        | |
 *      +-------------------------------------------------------------------+ |
 *                                             CLOSED <---- LINGER <----------+
 *   LOST leads from every phase to CLOSED.                        SENT_LINGER
 *
 * conn_run() drives it: it asks the step function of the phase to do what can be done now, until one
 * says that it has to wait.  libevent's callbacks, the deadlines and the handlers only note what
 * happened, so a handler is never called from inside a function that it called.
 *
 * Reading is on in the phases that want bytes, and off while a request is answered; then
 * peer_watch.c alone sees the client leave. */
#include "gateway/net/http_conn.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"

enum { HEAD_STEP_BYTES = 4096 };

static const char *const phase_names[N_CONN_PHASES] = {
    [CONN_IDLE] = "idle",     [CONN_HEAD] = "head",   [CONN_BODY] = "body",
    [CONN_ANSWER] = "answer", [CONN_FLUSH] = "flush", [CONN_LINGER] = "linger",
    [CONN_CLOSED] = "closed",
};

static const char *const event_names[N_CONN_EVENTS] = {
    [CE_BYTES] = "bytes",
    [CE_HEAD] = "head",
    [CE_BODY] = "body",
    [CE_ANSWERED] = "answered",
    [CE_REFUSE] = "refuse",
    [CE_SENT_KEEP] = "sent_keep",
    [CE_SENT_LINGER] = "sent_linger",
    [CE_LOST] = "lost",
};

const char *conn_phase_name(enum conn_phase phase)
{
    return phase_names[phase];
}

/* ---- the end of a request, and of a connection ---- */
static void end_request(struct http_conn *c, enum http_outcome outcome)
{
    struct http_request *req = c->req;
    struct http_server *s = c->server;

    if (!req)
        return;
    if (outcome == HTTP_SENT)
        counter_add(&s->counters->answers, 1);
    else if (outcome == HTTP_GONE && req->is_announced)
        counter_add(&s->counters->gone, 1);
    else if (outcome == HTTP_STALLED)
        counter_add(&s->counters->stalled, 1);
    if (req->is_announced && s->handler.on_done)
        s->handler.on_done(req, outcome, s->ctx);
    c->req = NULL;
    request_free(req);
}

/* What the client sent so far is dealt with.  Noted before anyone is told that the request is over:
 * from here on a successor will not look at it again. */
static void note_used(struct http_conn *c)
{
    fault_point("gateway.done");
    c->out_start = c->out_queued;
    c->sent_continue = false;
    free(c->resume);
    c->resume = NULL;
    if (c->server->handler.on_used)
        c->server->handler.on_used(c, c->in_used, c->server->ctx);
}

/* ---- what happens on the way into a phase ---- */
static void begin_idle(struct http_conn *c)
{
    note_used(c);
    end_request(c, HTTP_SENT);
    c->has_served = true;
    deadline_set(c, DL_IDLE);
}

static void begin_head(struct http_conn *c)
{
    c->req = request_new(c);
    if (c->resume && c->resume->started_ns)
        c->req->started_ns = c->resume->started_ns;
    deadline_set(c, DL_HEAD);
}

/* The request that the dead process was at: what it has said to the client stands.  True: that was all
 * there is to say. */
static bool resume_request(struct http_conn *c)
{
    const struct http_mark *mark = &c->resume->mark;
    struct http_request *req = c->req;

    if (mark->sent_continue)
        answer_continue(c);
    if (!mark->is_begun)
        return false;
    req->is_adopted = true;
    req->date_s = mark->date_s;
    req->keep_alive = mark->keep_alive;
    req->was_whole = mark->whole_bytes > 0;
    if (!c->is_out)
        return false;
    req->is_started = req->is_ended = true;
    return true;
}

static void begin_body(struct http_conn *c)
{
    struct http_server *s = c->server;

    deadline_set(c, DL_BODY);
    c->req->keep_alive = c->req->parser.keep_alive && !s->is_draining;
    if (c->resume && c->resume->has_mark && resume_request(c))
        return;
    counter_add(&s->counters->requests, 1);
    c->req->is_announced = true;
    if (s->handler.on_head)
        s->handler.on_head(c->req, s->ctx);
}

static void begin_answer(struct http_conn *c)
{
    c->server->handler.on_request(c->req, c->server->ctx);
    if (!c->req->is_ended)
        request_trim(c->req);
}

static void begin_flush(struct http_conn *c)
{
    c->must_linger |= !c->req->body_done;
}

static void begin_refusal(struct http_conn *c)
{
    counter_add(&c->server->counters->refused[c->refusal], 1);
    log_debug("conn=%lu event=refused why=%s", (unsigned long)c->id,
              http_refusal_name((enum http_refusal)c->refusal));
    answer_refusal(c);
    end_request(c, HTTP_REFUSED);
    c->must_linger = true;
}

static void begin_linger(struct http_conn *c)
{
    end_request(c, HTTP_SENT);
    shutdown(c->fd, SHUT_WR);
    deadline_set(c, DL_LINGER);
}

/* The socket is told first: whoever finds the connection after our death must not take it for an open one,
 * be it by the record that on_close gives up or by the descriptor. */
static void begin_closed(struct http_conn *c)
{
    struct http_server *s = c->server;
    enum http_outcome outcome = (enum http_outcome)c->outcome;
    bool softly = outcome == HTTP_SENT ||
                  (outcome == HTTP_ABORTED && c->req && c->req->is_chunked && !c->is_blocked);

    stream_count_output(c);
    deadline_set(c, DL_NONE);
    end_request(c, outcome);
    stream_shut(c, softly);
    fault_point("gateway.shut");
    if (s->handler.on_close)
        s->handler.on_close(c, s->ctx);
    fault_point("gateway.closed");
    stream_close(c);
    counter_add(&s->counters->connections_done, 1);
    TAILQ_REMOVE(&s->conns, c, all);
    s->n_conns--;
    if (!c->is_dirty) /* else conn_free() happens when it is taken from that list */
        STAILQ_INSERT_TAIL(&s->closed, c, in_dirty);
    server_finish_turn(s);
}

static const struct {
    enum conn_phase to;
    void (*act)(struct http_conn *);
} edges[N_CONN_PHASES][N_CONN_EVENTS] = {
    [CONN_IDLE] = { [CE_BYTES] = { CONN_HEAD, begin_head },
                    [CE_REFUSE] = { CONN_FLUSH, begin_refusal }, /* too many connections */
                    [CE_LOST] = { CONN_CLOSED, begin_closed } },
    [CONN_HEAD] = { [CE_HEAD] = { CONN_BODY, begin_body },
                    [CE_REFUSE] = { CONN_FLUSH, begin_refusal },
                    [CE_LOST] = { CONN_CLOSED, begin_closed } },
    [CONN_BODY] = { [CE_BODY] = { CONN_ANSWER, begin_answer },
                    [CE_ANSWERED] = { CONN_FLUSH, begin_flush }, /* before the body was read */
                    [CE_REFUSE] = { CONN_FLUSH, begin_refusal },
                    [CE_LOST] = { CONN_CLOSED, begin_closed } },
    [CONN_ANSWER] = { [CE_ANSWERED] = { CONN_FLUSH, begin_flush },
                      [CE_LOST] = { CONN_CLOSED, begin_closed } },
    [CONN_FLUSH] = { [CE_SENT_KEEP] = { CONN_IDLE, begin_idle },
                     [CE_SENT_LINGER] = { CONN_LINGER, begin_linger },
                     [CE_LOST] = { CONN_CLOSED, begin_closed } },
    [CONN_LINGER] = { [CE_LOST] = { CONN_CLOSED, begin_closed } },
};

static void conn_handle(struct http_conn *c, enum conn_event event)
{
    enum conn_phase from = (enum conn_phase)c->phase, to = edges[from][event].to;

    if (!edges[from][event].act)
        return;
    log_debug("conn=%lu from=%s to=%s event=%s", (unsigned long)c->id, phase_names[from],
              phase_names[to], event_names[event]);
    c->phase = (uint8_t)to;
    edges[from][event].act(c);
}

void conn_lose(struct http_conn *c, enum http_outcome outcome)
{
    c->outcome = (uint8_t)outcome;
    conn_handle(c, CE_LOST);
}

void conn_refuse(struct http_conn *c, enum http_refusal why)
{
    c->refusal = (uint8_t)why;
    conn_handle(c, CE_REFUSE);
}

void conn_cut(struct http_conn *c, enum http_outcome outcome)
{
    if (c->is_cut)
        return;
    c->is_cut = true;
    c->outcome = (uint8_t)outcome;
    conn_mark_dirty(c);
}

void conn_mark_dirty(struct http_conn *c)
{
    struct http_server *s = c->server;

    if (c->is_dirty || c->phase == CONN_CLOSED)
        return;
    c->is_dirty = true;
    STAILQ_INSERT_TAIL(&s->dirty, c, in_dirty);
    server_finish_turn(s);
}

/* Whether the client is, or may be, sending what we shall not read: closing now would reset the
 * connection and could take our answer from it. */
static bool has_unread_input(struct http_conn *c)
{
    int n = 0;

    return c->must_linger || conn_unread(c) > 0 || (!ioctl(c->fd, FIONREAD, &n) && n > 0);
}

/* ---- the steps; true: something has changed, ask again ---- */
static bool step_idle(struct http_conn *c)
{
    if (conn_unread(c) > 0)
        conn_handle(c, CE_BYTES);
    else if (c->has_eof || (c->server->is_draining && c->has_served && !has_unread_input(c)))
        conn_lose(c, HTTP_SENT);
    else
        return false;
    return true;
}

/* Look at the head where it lies when it came in one piece, else gather it in req->head. */
static bool step_head(struct http_conn *c)
{
    struct http_request *req = c->req;
    const char *bytes = NULL;
    size_t had = req->head.n, n = stream_peek(c, &bytes);
    enum http_parse result;

    if (n == 0) {
        if (c->has_eof)
            conn_lose(c, HTTP_GONE);
        return c->has_eof;
    }
    if (had > 0) {
        n = n < HEAD_STEP_BYTES ? n : HEAD_STEP_BYTES;
        buf_add(&req->head, bytes, n);
        bytes = req->head.data;
    }
    result = http_parse_head(&req->parser, bytes, had + n);
    if (result == HTTP_PARSE_MORE) {
        if (had == 0)
            buf_add(&req->head, bytes, n);
        stream_use(c, n);
        return true;
    }
    size_t head_bytes = result == HTTP_PARSE_DONE ? req->parser.head_bytes : req->parser.at;
    request_keep_head(req, bytes, head_bytes);
    stream_use(c, head_bytes - had);
    if (result == HTTP_PARSE_DONE)
        conn_handle(c, CE_HEAD);
    else
        conn_refuse(c, req->parser.refused);
    return true;
}

/* Decode what is there.  Nothing is kept of a body whose request was answered already. */
static enum http_parse read_body(struct http_conn *c)
{
    struct http_request *req = c->req;
    struct http_piece piece;
    enum http_parse result;

    do {
        const char *bytes = NULL;
        size_t n = stream_peek(c, &bytes);
        result = http_parse_body(&req->parser, bytes, n, &piece);
        if (result == HTTP_PARSE_DATA && !req->is_ended)
            buf_add(&req->body, piece.data, piece.n);
        stream_use(c, piece.used);
    } while (result == HTTP_PARSE_DATA || (result == HTTP_PARSE_MORE && piece.used > 0));
    req->body_done = result == HTTP_PARSE_DONE;
    return result;
}

static bool step_body(struct http_conn *c)
{
    struct http_request *req = c->req;
    enum http_parse result;

    if (req->is_ended && !req->keep_alive) {
        req->body_done = !http_parser_has_body(&req->parser);
        conn_handle(c, CE_ANSWERED);
        return true;
    }
    result = read_body(c);
    if (result == HTTP_PARSE_REFUSED && !req->is_ended) {
        conn_refuse(c, req->parser.refused);
        return true;
    }
    if (req->is_ended) { /* the rest of the body was at hand, and is gone now */
        req->keep_alive = req->body_done;
        conn_handle(c, CE_ANSWERED);
        return true;
    }
    if (result == HTTP_PARSE_DONE) {
        conn_handle(c, CE_BODY);
        return true;
    }
    if (c->has_eof) {
        conn_lose(c, HTTP_GONE);
        return true;
    }
    if (req->parser.expects_continue && req->parser.body_bytes == 0)
        answer_continue(c);
    return false;
}

static bool step_answer(struct http_conn *c)
{
    if (c->req->is_ended)
        conn_handle(c, CE_ANSWERED);
    else if ((c->has_eof || c->has_left) && !c->req->was_whole)
        conn_lose(c, HTTP_GONE);
    else
        return false;
    return true;
}

static bool step_flush(struct http_conn *c)
{
    if (conn_waiting(c) > 0)
        return false;
    if (c->req && c->req->keep_alive)
        conn_handle(c, CE_SENT_KEEP);
    else if (!c->has_eof && has_unread_input(c))
        conn_handle(c, CE_SENT_LINGER);
    else
        conn_lose(c, HTTP_SENT);
    return true;
}

static bool step_linger(struct http_conn *c)
{
    stream_use(c, conn_unread(c));
    if (c->has_eof)
        conn_lose(c, HTTP_SENT);
    return c->has_eof;
}

static const struct {
    bool (*step)(struct http_conn *);
    bool reads;
} phases[N_CONN_PHASES] = {
    [CONN_IDLE] = { step_idle, true },    [CONN_HEAD] = { step_head, true },
    [CONN_BODY] = { step_body, true },    [CONN_ANSWER] = { step_answer, false },
    [CONN_FLUSH] = { step_flush, false }, [CONN_LINGER] = { step_linger, true },
    [CONN_CLOSED] = { NULL, false },
};

static bool is_drained(const struct http_conn *c)
{
    return c->is_congested && c->phase == CONN_ANSWER && !c->req->is_ended &&
           conn_waiting(c) <= c->server->config.out_high_bytes / 2;
}

/* on_drain, when it is owed and due: once per run, because a handler that always has more to write
 * and a client that always takes it would keep the loop for themselves.  True when it was called. */
static bool tell_drained(struct http_conn *c, bool *told)
{
    struct http_server *s = c->server;

    if (!is_drained(c))
        return false;
    if (*told) {
        conn_mark_dirty(c);
        return false;
    }
    *told = true;
    c->is_congested = false;
    if (s->handler.on_drain)
        s->handler.on_drain(c->req, s->ctx);
    return true;
}

/* Where the handler and the client work, only waiting output has a deadline. */
static void watch_output(struct http_conn *c)
{
    enum deadline_kind want = c->is_blocked ? DL_WRITE : DL_NONE;

    if ((c->phase == CONN_ANSWER || c->phase == CONN_FLUSH) && c->deadline != want)
        deadline_set(c, want);
}

void conn_run(struct http_conn *c)
{
    bool again = true, told = false;

    while (again && c->phase != CONN_CLOSED) {
        bool all_put = stream_put(c);
        if (c->phase == CONN_CLOSED)
            break;
        if (c->is_cut)
            conn_lose(c, (enum http_outcome)c->outcome);
        else
            again = phases[c->phase].step(c) || (all_put && conn_waiting(c) > 0) ||
                    tell_drained(c, &told);
    }
    if (c->phase == CONN_CLOSED)
        return;
    stream_set_reading(c, phases[c->phase].reads);
    watch_output(c);
}

/* Is the time up, or is it a period in which enough has moved? */
static bool moves_fast_enough(const struct http_conn *c, uint32_t period_ms, uint32_t bytes_per_s)
{
    uint64_t want = (uint64_t)bytes_per_s * period_ms / 1000;

    return conn_progress(c) - c->period_start >= (want > 0 ? want : 1);
}

void conn_on_deadline(struct http_conn *c)
{
    const struct http_config *config = &c->server->config;
    enum deadline_kind kind = (enum deadline_kind)c->deadline;

    if ((kind == DL_BODY && moves_fast_enough(c, config->body_ms, config->body_bytes_per_s_min)) ||
        (kind == DL_WRITE &&
         moves_fast_enough(c, config->write_ms, config->write_bytes_per_s_min))) {
        deadline_set(c, kind);
        return;
    }
    deadline_set(c, DL_NONE);
    if (c->phase == CONN_HEAD)
        conn_refuse(c, HTTP_REFUSED_HEAD_SLOW);
    else if (c->phase == CONN_BODY && !c->req->is_ended)
        conn_refuse(c, HTTP_REFUSED_BODY_SLOW);
    else if (c->phase != CONN_BODY)
        conn_lose(c, kind == DL_WRITE ? HTTP_STALLED : HTTP_SENT);
    conn_run(c);
}

/* ---- life ---- */
void conn_on_peer(void *peer, bool is_dead)
{
    struct http_conn *c = peer;

    c->has_left = true; /* the end may be behind bytes not read yet: reading phases go on reading */
    if (c->phase == CONN_CLOSED)
        return;
    if (is_dead)
        conn_lose(c, HTTP_GONE);
    else
        conn_run(c);
}

struct http_conn *conn_new(struct http_server *s, int fd, bool is_tcp, void *user)
{
    struct http_conn *c = mem_zalloc(1, sizeof *c);
    struct err err;

    c->server = s;
    c->fd = fd;
    c->is_tcp = is_tcp;
    c->user = user;
    c->id = ++s->next_conn_id;
    c->deadline = DL_NONE;
    stream_open(c);
    TAILQ_INSERT_TAIL(&s->conns, c, all);
    s->n_conns++;
    counter_add(&s->counters->connections, 1);
    deadline_set(c, DL_HEAD);
    if (s->handler.on_open)
        s->handler.on_open(c, s->ctx);
    if (!peer_watch_add(s->peer_watch, fd, c, &err)) {
        log_warning("event=connection_dropped error=\"%s\"", err.msg);
        conn_cut(c, HTTP_SHUTDOWN);
    }
    return c;
}

void conn_set_done(struct http_conn *c)
{
    assert(c->phase == CONN_IDLE && !c->req);
    c->phase = CONN_FLUSH;
    c->must_linger = true;
    deadline_set(c, DL_NONE);
}

void conn_free(struct http_conn *c)
{
    assert(c->phase == CONN_CLOSED);
    free(c->resume);
    free(c);
}

bool conn_body_is_at_hand(const struct http_conn *c)
{
    const struct http_parser *p = &c->req->parser;

    return c->req->body_done || !http_parser_has_body(p) ||
           (!p->is_chunked && conn_unread(c) >= p->content_length - p->body_bytes);
}
