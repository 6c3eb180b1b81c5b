/* client.c - see client.h. */
#include "tests/chaos/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"

enum {
    READ_BYTES = 65536,
    SLOW_RECEIVE_BUFFER = 4096,
    HALF_WAIT_MS = 500, /* nobody is killed for so long: send the rest anyway */
    CLOSE_WAIT_MS = 10000,
};

/* How often each manner is chosen, of a hundred. */
static const struct {
    const char *name;
    uint32_t weight;
} manners[N_MANNERS] = {
    [MANNER_PLAIN] = { "plain", 38 },
    [MANNER_KEEP] = { "keep", 14 },
    [MANNER_PIPELINED] = { "pipelined", 8 },
    [MANNER_SLOW_SENDER] = { "slow_sender", 8 },
    [MANNER_CHUNKED] = { "chunked", 8 },
    [MANNER_HALF] = { "half", 8 },
    [MANNER_SLOW_READER] = { "slow_reader", 8 },
    [MANNER_LEAVER] = { "leaver", 8 },
};

const char *manner_name(enum manner m)
{
    return manners[m].name;
}

static enum manner draw_manner(struct random *r)
{
    uint32_t at = random_below(r, 100);

    for (int m = 0; m < N_MANNERS; m++) {
        if (at < manners[m].weight)
            return (enum manner)m;
        at -= manners[m].weight;
    }
    return MANNER_PLAIN;
}

void client_init(struct client *c, uint32_t index, uint64_t seed)
{
    *c = (struct client){ .index = index, .random = random_stream(seed, 100 + index), .fd = -1 };
}

static void close_visit(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->watch.is_on = c->watch.is_on && c->watch.longest_ns > 0;
}

void client_fini(struct client *c)
{
    close_visit(c);
    buf_fini(&c->in);
    buf_fini(&c->out);
}

/* ---- a visit begins ---- */

static uint64_t ms_from(struct random *r, uint32_t from, uint32_t to)
{
    return (uint64_t)random_from(r, from, to) * NS_PER_MS;
}

static bool sends_in_pieces(const struct client *c)
{
    return c->manner == MANNER_SLOW_SENDER || c->manner == MANNER_CHUNKED ||
           c->manner == MANNER_HALF;
}

/* The next bytes that may leave, of a request that ends at `end`. */
static void open_gate(struct client *c, size_t end)
{
    size_t rest = end - c->gate;

    if (!sends_in_pieces(c) || rest == 0) {
        c->gate = end;
    } else if (c->manner == MANNER_HALF) {
        c->gate = c->gate == 0 ? random_from(&c->random, 1, (uint32_t)end - 1) : end;
    } else {
        uint32_t most = (uint32_t)(rest / 3) + 1;
        c->gate += random_from(&c->random, 1, most < 40 && rest > 40 ? 40 : most);
    }
}

static void write_requests(struct client *c)
{
    buf_clear(&c->out);
    for (uint32_t i = 0; i < c->n_asks; i++) {
        const struct ask *ask = &c->catalog->asks[c->asks[i]];
        ask_write(ask, i + 1 == c->n_asks, c->manner == MANNER_CHUNKED ? &c->random : NULL,
                  &c->out);
        c->request_end[i] = c->out.n;
    }
    c->n_sent = c->gate = 0;
    open_gate(c, c->request_end[c->manner == MANNER_PIPELINED ? c->n_asks - 1 : 0]);
}

static void connect_to(struct client *c)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(c->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int bytes = SLOW_RECEIVE_BUFFER;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->manner == MANNER_SLOW_READER)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    c->is_connected = connect(c->fd, (struct sockaddr *)&to, sizeof to) == 0;
    if (!c->is_connected && errno != EINPROGRESS) {
        c->events->on_refused(c, c->events->ctx);
        close_visit(c);
    }
}

static void begin(struct client *c, uint64_t now_ns, uint32_t n_kills)
{
    c->n_answered = 0;
    c->begun_ns = c->last_byte_ns = now_ns;
    c->send_after_ns = c->read_after_ns = 0;
    c->kills_seen = n_kills;
    c->answer = (struct answer){ .phase = ANSWER_HEAD };
    c->start = 0;
    c->watch = (struct client_watch){ 0 };
    buf_clear(&c->in);
    write_requests(c);
    connect_to(c);
}

void client_visit(struct client *c, uint64_t now_ns, uint32_t n_kills)
{
    struct random *r = &c->random;

    c->manner = draw_manner(r);
    c->n_asks =
        c->manner == MANNER_KEEP || c->manner == MANNER_PIPELINED ? random_from(r, 2, 3) : 1;
    if (c->asks_once)
        c->n_asks = 1;
    for (uint32_t i = 0; i < c->n_asks; i++)
        c->asks[i] = random_below(r, c->catalog->n);
    c->leave_bytes = random_below(r, 2) ? random_from(r, 0, 4000) : SIZE_MAX;
    c->leave_ns = now_ns + ms_from(r, 0, 300);
    begin(c, now_ns, n_kills);
}

void client_ask(struct client *c, uint32_t ask, uint64_t now_ns)
{
    c->manner = MANNER_PLAIN;
    c->asks[0] = ask;
    c->n_asks = 1;
    begin(c, now_ns, 0);
}

/* ---- sending ---- */

static bool may_send(const struct client *c, uint64_t now_ns, uint32_t n_kills)
{
    if (!c->is_connected)
        return true;
    return c->n_sent < c->gate &&
           (now_ns >= c->send_after_ns || (c->manner == MANNER_HALF && n_kills != c->kills_seen));
}

static bool take_connected(struct client *c)
{
    int error = 0;
    socklen_t n = sizeof error;

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    c->is_connected = error == 0;
    if (error)
        c->events->on_refused(c, c->events->ctx);
    return error == 0;
}

/* All before the gate is sent: when and what next. */
static void pass_gate(struct client *c, uint64_t now_ns, uint32_t n_kills)
{
    size_t end = c->request_end[c->n_answered];

    if (c->gate >= end)
        return;
    open_gate(c, end);
    c->kills_seen = n_kills;
    c->send_after_ns = now_ns + (c->manner == MANNER_HALF ? (uint64_t)HALF_WAIT_MS * NS_PER_MS
                                                          : ms_from(&c->random, 0, 20));
}

static void send_some(struct client *c, uint64_t now_ns, uint32_t n_kills)
{
    ssize_t sent =
        send(c->fd, c->out.data + c->n_sent, c->gate - c->n_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0) /* reset by the server: reading says so, after what came before */
        return;
    c->n_sent += (size_t)sent;
    if (c->n_sent == c->gate)
        pass_gate(c, now_ns, n_kills);
}

/* ---- receiving ---- */

static void lose(struct client *c, const char *why)
{
    c->events->on_lost(c, why, c->events->ctx);
    close_visit(c);
}

static void next_answer(struct client *c)
{
    c->start += c->answer.at;
    c->answer = (struct answer){ .phase = ANSWER_HEAD };
    c->n_answered++;
    if (c->n_answered < c->n_asks && c->gate < c->request_end[c->n_answered])
        open_gate(c, c->request_end[c->n_answered]);
}

/* An answer is whole: judge it, and what it says about the connection. */
static void take_answer(struct client *c)
{
    bool is_last = c->n_answered + 1 == c->n_asks, says_close = c->answer.says_close;

    c->events->on_answer(c, c->events->ctx);
    next_answer(c);
    if (!is_last && says_close)
        lose(c, "the connection is closed before the last request");
}

static void read_answers(struct client *c)
{
    while (c->fd >= 0 && c->n_answered < c->n_asks) {
        answer_read(&c->answer, c->in.data + c->start, c->in.n - c->start);
        if (c->answer.phase == ANSWER_BAD)
            lose(c, c->answer.problem);
        else if (c->answer.phase == ANSWER_WHOLE)
            take_answer(c);
        else
            return;
    }
    if (c->fd >= 0 && c->in.n > c->start)
        lose(c, "bytes behind the last answer");
}

static void take_end(struct client *c, int error)
{
    if (c->n_answered == c->n_asks) {
        close_visit(c);
        return;
    }
    if (!error)
        answer_end(&c->answer);
    if (c->answer.phase == ANSWER_WHOLE)
        take_answer(c);
    else
        lose(c, error          ? strerror(error)
                : c->answer.at ? "the connection ended before the answer did"
                               : "the connection ended without an answer");
    close_visit(c);
}

static void read_some(struct client *c, uint64_t now_ns)
{
    bool is_slow = c->manner == MANNER_SLOW_READER;
    size_t most = is_slow ? random_from(&c->random, 100, 3000) : READ_BYTES;
    ssize_t got;

    buf_reserve(&c->in, READ_BYTES);
    got = recv(c->fd, c->in.data + c->in.n, most, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        take_end(c, got < 0 ? errno : 0);
        return;
    }
    c->in.n += (size_t)got;
    c->in.data[c->in.n] = '\0';
    if (is_slow)
        c->read_after_ns = now_ns + ms_from(&c->random, 0, 15);
    c->events->on_bytes(c, now_ns, c->events->ctx);
    c->last_byte_ns = now_ns;
    read_answers(c);
}

/* ---- turns ---- */

static void wake_at(uint64_t *wake_ns, uint64_t at_ns)
{
    if (at_ns < *wake_ns)
        *wake_ns = at_ns;
}

static uint64_t patience_end(const struct client *c)
{
    bool is_done = c->n_answered == c->n_asks;

    return c->last_byte_ns + (is_done ? (uint64_t)CLOSE_WAIT_MS * NS_PER_MS : c->patience_ns);
}

short client_wants(const struct client *c, uint64_t now_ns, uint32_t n_kills, uint64_t *wake_ns)
{
    short events = 0;

    wake_at(wake_ns, patience_end(c));
    if (c->manner == MANNER_LEAVER)
        wake_at(wake_ns, c->leave_ns);
    if (may_send(c, now_ns, n_kills))
        events |= POLLOUT;
    else if (c->n_sent < c->gate)
        wake_at(wake_ns, c->send_after_ns);
    if (now_ns >= c->read_after_ns)
        events |= POLLIN;
    else
        wake_at(wake_ns, c->read_after_ns);
    return events;
}

/* It goes away: by the book, or with a reset. */
static bool leaves(struct client *c, uint64_t now_ns)
{
    struct linger abortive = { .l_onoff = 1 };

    if (c->manner != MANNER_LEAVER || (now_ns < c->leave_ns && c->in.n < c->leave_bytes))
        return false;
    if (random_below(&c->random, 2))
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &abortive, sizeof abortive);
    close_visit(c);
    return true;
}

void client_turn(struct client *c, short events, uint64_t now_ns, uint32_t n_kills)
{
    if (events && !c->is_connected && !take_connected(c)) {
        close_visit(c);
        return;
    }
    if (leaves(c, now_ns))
        return;
    if (c->is_connected && may_send(c, now_ns, n_kills))
        send_some(c, now_ns, n_kills);
    if (events & (POLLIN | POLLHUP | POLLERR) && now_ns >= c->read_after_ns)
        read_some(c, now_ns);
    if (c->fd >= 0 && now_ns >= patience_end(c))
        lose(c, c->n_answered == c->n_asks ? "the connection was not closed behind the last answer"
                                           : "no byte for too long");
}

bool client_is_streaming(const struct client *c)
{
    return c->fd >= 0 && c->manner != MANNER_SLOW_READER && c->manner != MANNER_LEAVER &&
           c->n_answered < c->n_asks && c->catalog->asks[c->asks[c->n_answered]].is_stream &&
           c->answer.head_end > 0;
}
