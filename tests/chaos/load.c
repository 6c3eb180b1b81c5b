/* load.c - see load.h. */
#include "tests/chaos/load.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"

enum { REFUSED_REST_MS = 100 }; /* before a client that was refused tries again */

/* A watched client has gone on, or its answer is at its end. */
static void take_watch(struct load *l, struct client *c)
{
    struct client_watch *w = &c->watch;

    if (w->longest_ns > l->watch.longest_ns)
        l->watch.longest_ns = w->longest_ns;
    if (w->longest_ns && w->end_ns - w->since_ns > l->watch.recovery_ns)
        l->watch.recovery_ns = w->end_ns - w->since_ns;
    *w = (struct client_watch){ 0 };
}

/* ---- verdicts ---- */

static const struct ask *current_ask(const struct load *l, const struct client *c)
{
    uint32_t i = c->n_answered < c->n_asks ? c->n_answered : c->n_asks - 1;

    return &l->catalog->asks[c->asks[i]];
}

static void judge(struct load *l, struct client *c, const struct buf *got)
{
    const struct buf *wanted = &l->catalog->asks[c->asks[c->n_answered]].calm;
    bool is_last = c->n_answered + 1 == c->n_asks;

    if (got->n != wanted->n || memcmp(got->data, wanted->data, got->n) != 0) {
        l->counts.wrong++;
        if (!l->of_peer)
            evidence_defect(l->evidence, wanted, got,
                            "wrong answer to %s (%s, client %u, begun %.6f)",
                            current_ask(l, c)->name, manner_name(c->manner), c->index,
                            (double)c->begun_ns / NS_PER_S);
    } else if (is_last && !c->answer.says_close && !l->of_peer) {
        l->counts.wrong++;
        evidence_defect(l->evidence, NULL, got, "no Connection: close in the answer to %s",
                        current_ask(l, c)->name);
    }
}

static void on_answer(struct client *c, void *ctx)
{
    struct load *l = ctx;
    struct buf got = { 0 };

    l->counts.requests++;
    take_watch(l, c);
    answer_normalise(&c->answer, c->in.data + c->start, l->of_peer, &got);
    if (l->takes_calm) {
        buf_fini(&l->catalog->asks[c->asks[0]].calm);
        l->catalog->asks[c->asks[0]].calm = got;
        return;
    }
    judge(l, c, &got);
    buf_fini(&got);
}

static void on_lost(struct client *c, const char *why, void *ctx)
{
    struct load *l = ctx;
    struct buf got = { 0 };
    uint32_t n = c->n_asks - c->n_answered;

    if (n == 0) { /* all answered, and the connection ends wrongly */
        l->counts.wrong++;
    } else {
        n = c->manner == MANNER_PIPELINED ? n : 1;
        l->counts.requests += n;
        l->counts.lost += n;
    }
    if (l->of_peer)
        return; /* measured, not judged */
    buf_add(&got, c->in.data + c->start, c->in.n - c->start);
    evidence_defect(l->evidence, n ? &current_ask(l, c)->calm : NULL, &got,
                    "lost: %s (%s, %s, client %u, answer %u of %u, begun %.6f, last byte %.6f, "
                    "bytes %zu)",
                    why, current_ask(l, c)->name, manner_name(c->manner), c->index,
                    c->n_answered + 1, c->n_asks, (double)c->begun_ns / NS_PER_S,
                    (double)c->last_byte_ns / NS_PER_S, got.n);
    buf_fini(&got);
}

static void on_refused(struct client *c, void *ctx)
{
    struct load *l = ctx;

    l->counts.refused++;
    l->counts.requests++;
    c->rest_until_ns = clock_mono_ns() + (uint64_t)REFUSED_REST_MS * NS_PER_MS;
    if (!l->of_peer)
        evidence_defect(l->evidence, NULL, NULL, "connection refused (client %u)", c->index);
}

/* ---- pauses ---- */

static void on_bytes(struct client *c, uint64_t now_ns, void *ctx)
{
    struct load *l = ctx;
    struct client_watch *w = &c->watch;
    uint64_t gap_ns = now_ns - c->last_byte_ns;

    if (l->gaps && client_is_streaming(c))
        samples_add(l->gaps, (double)gap_ns / NS_PER_MS);
    if (!w->is_on)
        return;
    if (c->last_byte_ns <= w->limit_ns && gap_ns > w->longest_ns) {
        w->longest_ns = gap_ns;
        w->end_ns = now_ns;
    }
    if (now_ns > w->limit_ns)
        take_watch(l, c);
}

void load_watch(struct load *l, uint64_t since_ns, uint64_t limit_ms)
{
    l->watch =
        (struct load_watch){ .since_ns = since_ns, .limit_ns = since_ns + limit_ms * NS_PER_MS };
    for (uint32_t i = 0; i < l->n_clients; i++) {
        struct client *c = &l->clients[i];
        c->watch = (struct client_watch){ 0 };
        if (!client_is_streaming(c))
            continue;
        c->watch.is_on = true;
        c->watch.since_ns = since_ns;
        c->watch.limit_ns = l->watch.limit_ns;
        l->watch.n_clients++;
    }
}

static bool any_watched(const struct load *l)
{
    for (uint32_t i = 0; i < l->n_clients; i++)
        if (l->clients[i].watch.is_on)
            return true;
    return false;
}

void load_watch_end(struct load *l, uint64_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;

    while (any_watched(l) && clock_mono_ns() < end_ns)
        load_turn(l, 10);
    for (uint32_t i = 0; i < l->n_clients; i++)
        if (l->clients[i].watch.is_on)
            take_watch(l, &l->clients[i]);
}

uint32_t load_n_streaming(const struct load *l)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n_clients; i++)
        n += client_is_streaming(&l->clients[i]);
    return n;
}

/* ---- the loop ---- */

void load_init(struct load *l, const struct load_config *config, struct evidence *evidence)
{
    *l = (struct load){ .catalog = config->catalog,
                        .n_clients = config->n_clients,
                        .of_peer = config->of_peer,
                        .evidence = evidence };
    l->events = (struct client_events){ .on_answer = on_answer,
                                        .on_lost = on_lost,
                                        .on_refused = on_refused,
                                        .on_bytes = on_bytes,
                                        .ctx = l };
    for (uint32_t i = 0; i < l->n_clients; i++) {
        client_init(&l->clients[i], i, config->seed);
        l->clients[i].events = &l->events;
        l->clients[i].catalog = l->catalog;
        l->clients[i].asks_once = config->asks_once;
        l->clients[i].patience_ns = config->patience_ms * NS_PER_MS;
    }
}

void load_fini(struct load *l)
{
    for (uint32_t i = 0; i < l->n_clients; i++)
        client_fini(&l->clients[i]);
}

void load_set_port(struct load *l, uint16_t port)
{
    for (uint32_t i = 0; i < l->n_clients; i++)
        l->clients[i].port = port;
}

static void begin_visits(struct load *l, uint64_t now_ns)
{
    for (uint32_t i = 0; l->is_open && i < l->n_clients; i++) {
        struct client *c = &l->clients[i];
        if (client_is_busy(c) || now_ns < c->rest_until_ns)
            continue;
        take_watch(l, c);
        client_visit(c, now_ns, l->n_kills);
    }
}

/* What to wait for, and how long in milliseconds. */
static int prepare(struct load *l, struct pollfd *polls, uint64_t now_ns, int timeout_ms)
{
    uint64_t wake_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;

    for (uint32_t i = 0; i < l->n_clients; i++) {
        const struct client *c = &l->clients[i];
        short events = 0;
        if (client_is_busy(c))
            events = client_wants(c, now_ns, l->n_kills, &wake_ns);
        polls[i] = (struct pollfd){ .fd = events ? c->fd : -1, .events = events };
    }
    return wake_ns <= now_ns ? 0 : (int)((wake_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

void load_turn(struct load *l, int timeout_ms)
{
    struct pollfd polls[CLIENTS_MAX];
    uint64_t now_ns = clock_mono_ns();

    begin_visits(l, now_ns);
    if (poll(polls, l->n_clients, prepare(l, polls, now_ns, timeout_ms)) < 0)
        return;
    for (uint32_t i = 0; i < l->n_clients; i++) {
        struct client *c = &l->clients[i];
        if (client_is_busy(c))
            client_turn(c, polls[i].fd >= 0 ? polls[i].revents : 0, clock_mono_ns(), l->n_kills);
    }
}

void load_run_ms(struct load *l, uint64_t ms)
{
    uint64_t end_ns = clock_mono_ns() + ms * NS_PER_MS, now_ns;

    while ((now_ns = clock_mono_ns()) < end_ns)
        load_turn(l, (int)((end_ns - now_ns) / NS_PER_MS));
}

static bool any_busy(const struct load *l)
{
    for (uint32_t i = 0; i < l->n_clients; i++)
        if (client_is_busy(&l->clients[i]))
            return true;
    return false;
}

bool load_close(struct load *l, uint64_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;

    l->is_open = false;
    while (any_busy(l) && clock_mono_ns() < end_ns)
        load_turn(l, 20);
    return !any_busy(l);
}

bool load_take_calm(struct load *l)
{
    uint64_t lost = l->counts.lost, refused = l->counts.refused;

    l->takes_calm = true;
    for (uint32_t i = 0; i < l->catalog->n; i++) {
        client_ask(&l->clients[0], i, clock_mono_ns());
        while (client_is_busy(&l->clients[0]))
            load_turn(l, 20);
    }
    l->takes_calm = false;
    l->catalog->is_answered = l->counts.lost == lost && l->counts.refused == refused;
    return l->catalog->is_answered;
}

void load_ask_again(struct load *l, uint32_t n, struct random *r)
{
    for (uint32_t i = 0; i < n; i++) {
        client_ask(&l->clients[0], random_below(r, l->catalog->n), clock_mono_ns());
        while (client_is_busy(&l->clients[0]))
            load_turn(l, 20);
    }
}
