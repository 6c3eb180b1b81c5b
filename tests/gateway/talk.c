/* talk.c - a poll loop over clients. */
#include "tests/gateway/talk.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

enum { RCVBUF_SLOW_BYTES = 2048, TALKS_PER_TURN_MAX = 256 };

void talk_post(struct talk *t, const char *path, const char *headers, const char *body,
               const char *connection)
{
    buf_printf(&t->request,
               "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
               "Connection: %s\r\nContent-Length: %zu\r\n%s\r\n",
               path, connection, strlen(body), headers);
    buf_add_str(&t->request, body);
}

void talk_start(struct talk *t, uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    int small = RCVBUF_SLOW_BYTES;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    t->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (t->recv_max)
        setsockopt(t->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    t->is_broken = connect(t->fd, (struct sockaddr *)&to, sizeof to) < 0;
    t->is_done = t->is_broken;
    t->n_sent = 0;
    t->next_ns = 0;
    buf_clear(&t->in);
}

static void send_some(struct talk *t)
{
    size_t n = t->request.n - t->n_sent;
    ssize_t sent;

    if (t->send_max && n > t->send_max)
        n = t->send_max;
    sent = send(t->fd, t->request.data + t->n_sent, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0)
        t->n_sent += (size_t)sent;
    else if (sent < 0 && errno != EAGAIN)
        t->n_sent = t->request.n; /* what comes back will say why */
}

static void recv_some(struct talk *t)
{
    char bytes[16384];
    size_t n = t->recv_max && t->recv_max < sizeof bytes ? t->recv_max : sizeof bytes;
    ssize_t got = recv(t->fd, bytes, n, MSG_DONTWAIT);

    if (got > 0) {
        buf_add(&t->in, bytes, (size_t)got);
    } else if (got == 0 || errno != EAGAIN) {
        t->is_done = true;
        t->is_broken = got < 0;
    }
}

int talk_turn(struct talk *talks, int n, int wait_ms)
{
    struct pollfd p[TALKS_PER_TURN_MAX];
    uint64_t now_ns = clock_mono_ns();
    int n_open = 0;

    assert(n <= TALKS_PER_TURN_MAX);
    for (int i = 0; i < n; i++) {
        struct talk *t = &talks[i];
        bool is_due = now_ns >= t->next_ns;
        p[i] = (struct pollfd){ .fd = t->is_done ? -1 : t->fd };
        if (is_due)
            p[i].events = (short)(POLLIN | (t->n_sent < t->request.n ? POLLOUT : 0));
        n_open += !t->is_done;
    }
    if (n_open == 0 || poll(p, (nfds_t)n, wait_ms) < 0)
        return n_open;
    for (int i = 0; i < n; i++) {
        struct talk *t = &talks[i];
        if (p[i].fd < 0 || !(p[i].revents & p[i].events))
            continue;
        if (p[i].revents & POLLOUT)
            send_some(t);
        if (p[i].revents & POLLIN)
            recv_some(t);
        t->next_ns = clock_mono_ns() + t->pause_us * 1000ull;
    }
    return n_open;
}

void talk_stop(struct talk *t)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
    t->is_done = true;
    buf_fini(&t->in);
}

void talk_fini(struct talk *t)
{
    talk_stop(t);
    buf_fini(&t->request);
}

/* ---- what differs between two runs ---- */

static bool follows(const struct buf *in, size_t at, const char *text)
{
    size_t n = strlen(text);

    return in->n - at >= n && memcmp(in->data + at, text, n) == 0;
}

/* The value of a header that tells a time, whatever its length. */
static size_t skip_time(const struct buf *in, size_t at)
{
    static const char *const names[] = {
        "Date: ",         "x-compute-time: ",   "x-total-time: ",    "x-validation-time: ",
        "x-queue-time: ", "x-inference-time: ", "x-time-per-token: "
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!follows(in, at, names[i]))
            continue;
        for (at += strlen(names[i]); at < in->n && in->data[at] != '\r';)
            at++;
        return at;
    }
    return at;
}

enum { ID_DIGITS = 16, IDS_MAX = 16 };

/* Ids that an answer has shown, drawn or made from the drawn one. */
struct seen_ids {
    char digits[IDS_MAX][ID_DIGITS];
    int n;
};

/* The same id is blanked to the same letter all over an answer, so that one that changes within it is seen. */
static void blank_id(char *digits, struct seen_ids *seen)
{
    int i = 0;

    for (int k = 0; k < ID_DIGITS; k++)
        if (!isxdigit((unsigned char)digits[k]))
            return;
    while (i < seen->n && memcmp(seen->digits[i], digits, ID_DIGITS) != 0)
        i++;
    if (i == IDS_MAX)
        return;
    memcpy(seen->digits[i], digits, ID_DIGITS);
    seen->n += i == seen->n;
    memset(digits, 'G' + i, ID_DIGITS);
}

static void blank_ids_at(struct buf *in, size_t at, struct seen_ids *seen)
{
    static const char *const prefixes[] = { "cmpl-", "embd-", "-tool-", "resp_",
                                            "msg_",  "rs_",   "fc_",    "call_" };

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t n = strlen(prefixes[i]);
        if (follows(in, at, prefixes[i]) && in->n - at >= n + ID_DIGITS)
            blank_id(in->data + at + n, seen);
    }
}

/* Two of them in one, when the gateway made it up. */
static void blank_request_id_at(struct buf *in, size_t at, struct seen_ids *seen)
{
    static const char field[] = "X-Request-Id: ";
    size_t n = strlen(field);

    if (follows(in, at, field) && in->n - at >= n + 2 * ID_DIGITS) {
        blank_id(in->data + at + n, seen);
        blank_id(in->data + at + n + ID_DIGITS, seen);
    }
}

/* A wall clock's seconds. */
static void blank_time_at(struct buf *in, size_t at)
{
    static const char *const names[] = { "\"created\":", "\"created_at\":" };

    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (size_t i = at + strlen(names[k]);
             follows(in, at, names[k]) && i < in->n && isdigit((unsigned char)in->data[i]); i++)
            in->data[i] = 'c';
}

void talk_blank(struct buf *in)
{
    struct buf out = { 0 };
    struct seen_ids seen = { 0 };

    for (size_t at = 0; at < in->n;) {
        size_t end = skip_time(in, at);
        if (end > at) {
            buf_add_char(&out, '~');
            at = end;
            continue;
        }
        if (follows(in, at, "HTTP/1.1 2"))
            seen.n = 0;
        blank_ids_at(in, at, &seen);
        blank_request_id_at(in, at, &seen);
        blank_time_at(in, at);
        buf_add_char(&out, in->data[at++]);
    }
    buf_fini(in);
    *in = out;
}
