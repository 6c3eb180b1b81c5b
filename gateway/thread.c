/* thread.c - glue: HTTP callbacks to exchanges and pages, link descriptors to upstream, time to both. */
#include "gateway/thread.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/admission/access.h"
#include "gateway/request_id.h"

/* A stream's pieces are written until http_is_congested(), so what waits is at most that and one piece:
 * this bound is for a piece with a whole long text in it (the OCI dialect's). */
enum { MOVE_AFTER_MS = 3000, OUT_BYTES_MAX = 64 << 20 };

/* ---- answers of the thread's own ---- */

void thread_add_request_id(const struct gateway_thread *t, const struct http_request *http,
                           uint64_t bits, struct reply *r)
{
    char id[REQUEST_ID_BYTES];

    if (strcmp(t->service->config.request_id_headers, "on") != 0)
        return;
    request_id_of(http, bits, id);
    reply_header(r, "X-Request-Id", "%s", id);
}

void thread_send(struct gateway_thread *t, struct http_request *http, struct reply *r)
{
    reply_header(r, "Access-Control-Allow-Origin", "*");
    if (service_is_draining(t->service))
        http_set_close(http);
    http_respond(http, r->status, r->headers, r->n_headers, r->body.data, r->body.n);
}

/* An answer of no exchange.  Probes ask often: what is in order is told to who looks closely. */
static void send_page(struct gateway_thread *t, struct http_request *http, struct reply *r)
{
    uint64_t bits = request_random();
    char id[REQUEST_ID_BYTES];

    request_id_of(http, bits, id);
    log_request(r->status < 400 ? LOG_DEBUG : LOG_INFO, id, "page path=\"%s\" status=%d",
                http_request_path(http), r->status);
    thread_add_request_id(t, http, bits, r);
    thread_send(t, http, r);
}

static void send_refusal(struct gateway_thread *t, struct http_request *http, int status,
                         const char *allow)
{
    struct reply r;

    reply_init(&r);
    routes_refuse(t->service, http_request_path(http), status, allow, &r);
    send_page(t, http, &r);
    reply_fini(&r);
}

/* What a browser asks before it sends JSON to another origin.  The star does not stand for
 * Authorization (Fetch standard, "CORS non-wildcard request-header name"), and OpenAI's client
 * always sends that. */
static void send_preflight(struct gateway_thread *t, struct http_request *http)
{
    struct reply r;

    reply_init(&r);
    reply_set(&r, 200, NULL);
    reply_header(&r, "Access-Control-Allow-Methods", "GET,POST");
    reply_header(&r, "Access-Control-Allow-Headers", "*, Authorization");
    thread_send(t, http, &r);
    reply_fini(&r);
}

/* False: it was refused for want of a key. */
static bool has_access(struct gateway_thread *t, struct http_request *http, struct record *record,
                       const struct route *route, uint32_t *key)
{
    enum access_result access;
    struct reply r;

    if (record_was_admitted(record, key))
        return true;
    access = access_check(t->service, route, http, key);
    if (access == ACCESS_GIVEN)
        return true;
    if (record_counts(record, CONNECTION_COUNTED_END))
        stat_add(t->service->stats, STAT_requests_refused_unauthorized, 1);
    reply_init(&r);
    access_refuse(route, access, &r);
    send_page(t, http, &r);
    reply_fini(&r);
    return false;
}

/* ---- the HTTP server's callbacks ---- */

static void on_head(struct http_request *http, void *ctx)
{
    struct record *record = http_conn_user(http_request_conn(http));
    struct gateway_thread *t = ctx;
    const struct route *route = NULL;
    char allow[HTTP_ALLOW_BYTES];
    uint32_t key;

    record_reading(record, DIALECT_NONE);
    if (record_counts(record, CONNECTION_COUNTED_RECEIVED))
        stat_add(t->service->stats, STAT_requests_received, 1);
    if (http_request_method(http) == HTTP_OPTIONS) {
        send_preflight(t, http);
        return;
    }
    switch (routes_find(t->service, http_request_method(http), http_request_path(http), http,
                        &route, allow)) {
    case HTTP_ROUTE_NO_PATH:
        send_refusal(t, http, 404, NULL);
        return;
    case HTTP_ROUTE_NO_METHOD:
        send_refusal(t, http, 405, allow);
        return;
    case HTTP_ROUTE_FOUND:
        break;
    }
    if (has_access(t, http, record, route, &key) && route->generates)
        exchange_begin(t, http, route, key);
}

static void on_request(struct http_request *http, void *ctx)
{
    struct gateway_thread *t = ctx;
    struct exchange *x = http_request_user(http);
    const struct route *route = NULL;
    char allow[HTTP_ALLOW_BYTES];
    struct reply r;

    if (x) {
        exchange_run(x);
        return;
    }
    routes_find(t->service, http_request_method(http), http_request_path(http), http, &route,
                allow);
    reply_init(&r);
    route->serve(t->service, http, &r);
    send_page(t, http, &r);
    reply_fini(&r);
}

static void on_drain(struct http_request *http, void *ctx)
{
    struct exchange *x = http_request_user(http);

    (void)ctx;
    if (x)
        exchange_resume(x);
}

static void on_done(struct http_request *http, enum http_outcome outcome, void *ctx)
{
    struct exchange *x = http_request_user(http);

    (void)ctx;
    if (x)
        exchange_end(x, outcome);
}

static const char *on_error(const struct http_error *error, struct buf *body, void *ctx)
{
    struct gateway_thread *t = ctx;
    const struct route *route = error->path ? routes_of_path(t->service, error->path) : NULL;

    if (route && route->dialect)
        return route->dialect->layer_error(error->status, error->text, body);
    return dialect_openai_completions.layer_error(error->status, error->text, body);
}

/* Handed over before a byte is read; a death in between is the keeper's business. */
static void *on_accept(int fd, bool is_tcp, void *ctx)
{
    struct gateway_thread *t = ctx;
    uint32_t hint = t->n_accepted++ * t->service->n_threads + t->index;
    struct record *r;

    fault_point("gateway.accept");
    r = record_open(t->service, fd, is_tcp, hint, t->index);
    record_identify(r);
    handover_add(&t->handover, r, false);
    fault_point("gateway.handed");
    stat_add(t->service->stats, STAT_connections_accepted, 1);
    return r;
}

static void on_open(struct http_conn *conn, void *ctx)
{
    struct gateway_thread *t = ctx;

    (void)conn;
    stat_add(t->service->stats, STAT_connections_open, 1);
}

static void on_close(struct http_conn *conn, void *ctx)
{
    struct record *r = http_conn_user(conn);
    struct gateway_thread *t = ctx;

    stat_sub(t->service->stats, STAT_connections_open, 1);
    handover_remove(&t->handover, r);
    record_close(r);
    http_conn_set_user(conn, NULL);
}

static char *on_room(struct http_conn *conn, size_t *n, void *ctx)
{
    (void)ctx;
    return record_room(http_conn_user(conn), n);
}

static void on_input(struct http_conn *conn, size_t n, void *ctx)
{
    (void)ctx;
    record_input(http_conn_user(conn), n);
}

static void on_used(struct http_conn *conn, uint64_t n, void *ctx)
{
    (void)ctx;
    record_used(http_conn_user(conn), n);
}

static void on_output(struct http_conn *conn, const struct http_mark *mark, void *ctx)
{
    (void)ctx;
    record_output(http_conn_user(conn), mark);
}

static void on_drained(struct http_server *server, void *ctx)
{
    struct gateway_thread *t = ctx;

    (void)server;
    atomic_store(&t->is_drained, true);
}

static const struct http_handler handler = {
    .on_head = on_head,
    .on_request = on_request,
    .on_drain = on_drain,
    .on_done = on_done,
    .on_error = on_error,
    .on_accept = on_accept,
    .on_open = on_open,
    .on_close = on_close,
    .on_room = on_room,
    .on_input = on_input,
    .on_used = on_used,
    .on_output = on_output,
    .on_drained = on_drained,
};

/* ---- the groups ---- */

void thread_arm_tick(struct gateway_thread *t)
{
    uint64_t due = upstream_tick_due_ns(t->upstream);
    uint64_t now = clock_mono_ns();

    if (due && !loop_timer_is_set(t->tick))
        loop_timer_set(t->tick, due > now ? due - now : 0);
}

static void on_link(void *arg)
{
    struct thread_watch *w = arg;

    upstream_receive(w->thread->upstream, w->group);
    thread_arm_tick(w->thread);
}

static void on_beat(void *arg)
{
    struct gateway_thread *t = arg;

    service_beat(t->service, t->index);
    loop_timer_set(t->beat, SERVICE_BEAT_MS * NS_PER_MS);
}

static void on_tick(void *arg)
{
    struct gateway_thread *t = arg;

    upstream_tick(t->upstream, clock_mono_ns());
    thread_arm_tick(t);
}

/* Something was sent: the link's descriptor may have used up its edge. */
static void kick(uint32_t group, void *ctx)
{
    struct gateway_thread *t = ctx;

    loop_watch_kick(t->watches[group].watch);
}

static void on_hello(const Llmd__Hello *hello, void *ctx)
{
    struct gateway_thread *t = ctx;

    service_note_hello(t->service, hello);
}

static void describe(char *out, size_t n, void *ctx)
{
    struct gateway_thread *t = ctx;

    service_describe(t->service, out, n);
}

/* ---- turns ---- */

static void take_turns(void *arg)
{
    struct gateway_thread *t = arg;
    struct turn *turn;

    while ((turn = admission_called(&t->service->admission, &t->gate)))
        exchange_go(turn->owner);
}

/* Any thread. */
static void wake(void *ctx)
{
    struct gateway_thread *t = ctx;

    loop_post(t->loop, take_turns, t);
}

/* ---- life ---- */

static bool open_upstream(struct gateway_thread *t, struct err *e)
{
    struct service *s = t->service;
    struct upstream_config config = {
        .instance = s->instance,
        .n_groups = s->n_groups,
        .thread = t->index,
        .n_threads = s->n_threads,
        .gateway_epoch = s->gateway_epoch,
        .wait_ns = atomic_load(&s->unavailable_wait_s) * NS_PER_S,
        .move_ns = MOVE_AFTER_MS * NS_PER_MS,
        .stats = s->stats,
        .load = s->load,
        .on_hello = on_hello,
        .kick = kick,
        .describe = describe,
        .ctx = t,
    };

    t->upstream = upstream_new(&config, e);
    if (!t->upstream)
        return false;
    t->watches = mem_zalloc(s->n_groups, sizeof *t->watches);
    for (uint32_t g = 0; g < s->n_groups; g++) {
        struct thread_watch *w = &t->watches[g];
        *w = (struct thread_watch){ .thread = t, .group = g };
        w->watch = loop_watch_new(t->loop, upstream_fd(t->upstream, g), on_link, w);
        loop_watch_kick(w->watch); /* what came before we watched */
    }
    t->tick = loop_timer_new(t->loop, on_tick, t);
    return true;
}

bool thread_init(struct gateway_thread *t, struct service *service, uint32_t index,
                 const int *listen_fds, size_t n_fds, struct takeover *takeover,
                 struct http_counters *counters, struct err *e)
{
    struct http_config config = http_config_default;

    *t = (struct gateway_thread){ .service = service, .index = index, .takeover = takeover };
    turn_gate_init(&t->gate, wake, t);
    config.body_bytes_max = service->config.max_body_bytes;
    config.conns_max = (uint32_t)(service->config.max_connections / service->n_threads + 1);
    config.idle_ms = (uint32_t)(service->config.idle_timeout_s * 1000);
    config.out_max_bytes = OUT_BYTES_MAX;
    t->loop = loop_new(e);
    if (!t->loop || !open_upstream(t, e))
        return false;
    t->server = http_server_new(t->loop, &config, &handler, t, counters, e);
    if (!t->server)
        return false;
    handover_init(&t->handover, t->loop, service->control);
    t->beat = loop_timer_new(t->loop, on_beat, t);
    loop_timer_set(t->beat, 0);
    for (size_t i = 0; i < n_fds; i++)
        if (!http_server_listen(t->server, listen_fds[i], e))
            return false;
    return true;
}

static void *run(void *arg)
{
    struct gateway_thread *t = arg;

    if (t->takeover)
        takeover_run(t->takeover, t);
    loop_run(t->loop);
    return NULL;
}

bool thread_start(struct gateway_thread *t, struct err *e)
{
    int rc = pthread_create(&t->thread, NULL, run, t);

    if (rc)
        return err_set(e, ERR_SYS, rc, "start gateway thread %u", t->index);
    t->is_running = true;
    return true;
}

void thread_fini(struct gateway_thread *t)
{
    if (t->is_running) {
        loop_stop(t->loop);
        pthread_join(t->thread, NULL);
        t->is_running = false;
    }
    http_server_free(t->server);
    for (uint32_t g = 0; t->watches && g < t->service->n_groups; g++)
        loop_watch_free(t->watches[g].watch);
    loop_timer_free(t->tick);
    loop_timer_free(t->beat);
    handover_fini(&t->handover);
    upstream_free(t->upstream);
    loop_free(t->loop);
    free(t->watches);
    *t = (struct gateway_thread){ 0 };
}

/* ---- from other threads ---- */

struct group_news {
    struct gateway_thread *thread;
    uint32_t group;
    bool is_up;
};

static void take_group_news(void *arg)
{
    struct group_news *news = arg;

    upstream_set_service(news->thread->upstream, news->group, news->is_up);
    thread_arm_tick(news->thread);
    free(news);
}

void thread_set_group(struct gateway_thread *t, uint32_t group, bool is_up)
{
    struct group_news *news = mem_alloc(sizeof *news);

    *news = (struct group_news){ .thread = t, .group = group, .is_up = is_up };
    loop_post(t->loop, take_group_news, news);
}

static void take_settings(void *arg)
{
    struct gateway_thread *t = arg;

    upstream_set_wait(t->upstream, atomic_load(&t->service->unavailable_wait_s) * NS_PER_S);
}

void thread_reload(struct gateway_thread *t)
{
    loop_post(t->loop, take_settings, t);
}

static void hand_over(void *arg)
{
    struct gateway_thread *t = arg;

    handover_all(&t->handover);
}

void thread_hand_over(struct gateway_thread *t)
{
    loop_post(t->loop, hand_over, t);
}

static void drain(void *arg)
{
    struct gateway_thread *t = arg;

    if (!http_server_is_draining(t->server))
        http_server_drain(t->server);
}

static void abort_all(void *arg)
{
    struct gateway_thread *t = arg;

    for (struct exchange *x = t->exchanges, *next; x; x = next) {
        next = x->next;
        exchange_abort(x);
    }
    drain(t);
}

void thread_drain(struct gateway_thread *t)
{
    loop_post(t->loop, drain, t);
}

void thread_abort_all(struct gateway_thread *t)
{
    loop_post(t->loop, abort_all, t);
}
