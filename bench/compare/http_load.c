/* http_load.c - the clients of http_load.h: one thread, poll(), a connection a request.
 *
 * The answer is not parsed as HTTP: it must begin with a status line of 200, an event is a line that begins
 * with "data: ", and "data: [DONE]" ends it.  Chunk sizes of the transfer coding stand on lines of their
 * own and are passed over; a line cut by a chunk's border would be missed, but both servers send whole
 * events. */
#include "bench/compare/http_load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

enum { READ_BYTES = 65536, LINE_BYTES = 4096 };

struct client {
    int fd; /* -1: has no request */
    uint64_t sent_ns, event_ns;
    bool status_seen, done;
    char line[LINE_BYTES]; /* the one that is being read; what does not fit is dropped */
    uint32_t line_n;
};

struct samples {
    double *ms;
    uint32_t n, cap;
};

struct load {
    const struct http_load *how;
    struct client clients[HTTP_CLIENTS_MAX];
    struct samples first, gaps;
    uint32_t n_sent, n_done;
};

static void samples_add(struct samples *s, uint64_t ns)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->ms = mem_realloc(s->ms, s->cap * sizeof *s->ms);
    }
    s->ms[s->n++] = (double)ns * 1e-6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* After sorting; 0 when there are none. */
static double samples_percentile(const struct samples *s, uint32_t percent)
{
    return s->n ? s->ms[((uint64_t)(s->n - 1) * percent + 50) / 100] : 0;
}

/* ---- requests ---- */

/* Made-up words, so that no prompt is the beginning of another. */
static void add_prompt(struct buf *b, uint32_t n_words, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1;

    for (uint32_t i = 0; i < n_words; i++) {
        if (i)
            buf_add_char(b, ' ');
        for (int k = 0; k < 3; k++) {
            state = state * 1664525u + 1013904223u;
            buf_add_char(b, (char)('a' + (state >> 24) % 26));
        }
    }
}

static void build_request(struct buf *b, const struct http_load *l, uint32_t number)
{
    struct buf body = { 0 };

    buf_add_str(&body, "{\"prompt\":\"");
    add_prompt(&body, l->prompt_words, l->seed * 100003u + number);
    buf_printf(&body, "\",\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true,\"stream\":true}",
               l->max_tokens);
    buf_printf(
        b,
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\nConnection: close\r\n\r\n",
        body.n);
    buf_add(b, body.data, body.n);
    buf_fini(&body);
}

static bool send_all(int fd, const struct buf *b, struct err *e)
{
    for (size_t at = 0; at < b->n;) {
        ssize_t n = send(fd, b->data + at, b->n - at, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return err_set(e, ERR_SYS, errno, "send to the server");
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool client_start(struct load *l, struct client *c, struct err *e)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)l->how->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct buf request = { 0 };
    int one = 1;
    bool ok;

    *c = (struct client){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0)
        return err_set(e, ERR_SYS, errno, "connect to 127.0.0.1:%d", l->how->port);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    build_request(&request, l->how, l->n_sent++);
    c->sent_ns = clock_mono_ns();
    ok = send_all(c->fd, &request, e);
    buf_fini(&request);
    return ok;
}

/* ---- answers ---- */

static void on_event(struct load *l, struct client *c, uint64_t now)
{
    if (strncmp(c->line + 6, "[DONE]", 6) == 0) {
        c->done = true;
        return;
    }
    if (c->event_ns)
        samples_add(&l->gaps, now - c->event_ns);
    else
        samples_add(&l->first, now - c->sent_ns);
    c->event_ns = now;
}

static bool on_line(struct load *l, struct client *c, uint64_t now, struct err *e)
{
    if (!c->status_seen) {
        c->status_seen = true;
        if (strncmp(c->line, "HTTP/1.1 200", 12) != 0)
            return err_set(e, ERR_PROTO, 0, "the server answers '%.100s'", c->line);
    } else if (strncmp(c->line, "data: ", 6) == 0) {
        on_event(l, c, now);
    }
    return true;
}

static bool on_bytes(struct load *l, struct client *c, const char *bytes, size_t n, struct err *e)
{
    uint64_t now = clock_mono_ns();

    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            if (c->line_n < LINE_BYTES - 1)
                c->line[c->line_n++] = bytes[i];
            continue;
        }
        c->line[c->line_n] = '\0';
        c->line_n = 0;
        if (!on_line(l, c, now, e))
            return false;
    }
    return true;
}

static bool client_end(struct load *l, struct client *c, struct err *e)
{
    close(c->fd);
    c->fd = -1;
    if (!c->done || !c->event_ns)
        return err_set(e, ERR_PROTO, 0, "an answer ended before its last event");
    l->n_done++;
    return l->n_sent == l->how->n_requests || client_start(l, c, e);
}

static bool client_read(struct load *l, struct client *c, struct err *e)
{
    char bytes[READ_BYTES];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n < 0)
        return err_set(e, ERR_SYS, errno, "read from the server");
    if (n > 0 && !on_bytes(l, c, bytes, (size_t)n, e))
        return false;
    return n > 0 && !c->done ? true : client_end(l, c, e);
}

/* ---- the run ---- */

static bool wait_and_read(struct load *l, uint64_t deadline, struct err *e)
{
    struct pollfd polled[HTTP_CLIENTS_MAX];
    uint64_t now = clock_mono_ns();
    uint32_t n = l->how->n_clients;

    if (now > deadline)
        return err_set(e, ERR_TIMEOUT, 0, "%u of %u answers within %u s", l->n_done,
                       l->how->n_requests, l->how->timeout_s);
    for (uint32_t i = 0; i < n; i++) /* a negative one is passed over */
        polled[i] = (struct pollfd){ .fd = l->clients[i].fd, .events = POLLIN };
    poll(polled, n, 1000);
    for (uint32_t i = 0; i < n; i++)
        if (polled[i].revents && !client_read(l, &l->clients[i], e))
            return false;
    return true;
}

static bool run_all(struct load *l, struct err *e)
{
    uint64_t deadline = clock_mono_ns() + l->how->timeout_s * NS_PER_S;

    for (uint32_t i = 0; i < l->how->n_clients && l->n_sent < l->how->n_requests; i++)
        if (!client_start(l, &l->clients[i], e))
            return false;
    while (l->n_done < l->how->n_requests)
        if (!wait_and_read(l, deadline, e))
            return false;
    return true;
}

bool http_load_run(const struct http_load *how, struct http_load_result *r, struct err *e)
{
    struct load *l = mem_zalloc(1, sizeof *l);
    uint64_t begin = clock_mono_ns();
    bool ok;

    l->how = how;
    for (uint32_t i = 0; i < HTTP_CLIENTS_MAX; i++)
        l->clients[i].fd = -1;
    ok = run_all(l, e);
    if (ok) {
        double seconds = (double)(clock_mono_ns() - begin) * 1e-9;
        qsort(l->first.ms, l->first.n, sizeof *l->first.ms, by_value);
        if (l->gaps.n)
            qsort(l->gaps.ms, l->gaps.n, sizeof *l->gaps.ms, by_value);
        *r = (struct http_load_result){ (double)how->n_requests * how->max_tokens / seconds,
                                        samples_percentile(&l->first, 50),
                                        samples_percentile(&l->first, 99),
                                        samples_percentile(&l->gaps, 50),
                                        samples_percentile(&l->gaps, 99),
                                        l->first.n + l->gaps.n };
    }
    for (uint32_t i = 0; i < HTTP_CLIENTS_MAX; i++)
        if (l->clients[i].fd >= 0)
            close(l->clients[i].fd);
    free(l->first.ms);
    free(l->gaps.ms);
    free(l);
    return ok;
}
