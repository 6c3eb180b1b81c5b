/* client.c - see client.h.  One thread, poll(), a connection a question.
 *
 * The answer is not parsed as HTTP: it begins with a status line, an event is a line that begins with "data: ", and
 * "data: [DONE]" ends it.  Sizes of chunks stand on lines of their own and are passed over. */
#include "gpu-worker/cuda/verify/client.h"

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

#include "common/clock.h"
#include "common/json.h"

enum { READ_BYTES = 65536, CLIENTS_MAX = 64, PAGE_WAIT_S = 10, FIRST_ID = 3 };

static int connect_to(int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool send_all(int fd, const struct buf *b)
{
    for (size_t at = 0; at < b->n;) {
        ssize_t n = send(fd, b->data + at, b->n - at, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static void put_question(struct buf *out, const struct client_question *q)
{
    struct buf body = { 0 };

    buf_add_str(&body, "{\"prompt\":[");
    for (uint32_t i = 0; i < q->n_prompt; i++)
        buf_printf(&body, "%s%u", i ? "," : "",
                   (q->seed * 7919 + i * i * 31 + i * 37) % (q->n_ids - FIRST_ID) + FIRST_ID);
    buf_printf(&body,
               "],\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true,\"stream\":true,"
               "\"return_token_ids\":true}",
               q->n_answer);
    buf_printf(out,
               "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
               "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
               body.n, body.data);
    buf_fini(&body);
}

/* Ended; `why` is kept of an answer that is not whole. */
static void end(struct client *c, const char *why)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (!c->is_whole && !c->why[0])
        snprintf(c->why, sizeof c->why, "%s", why);
}

void client_start(struct client *c, int port, const struct client_question *q)
{
    struct buf request = { 0 };

    *c = (struct client){ .fd = connect_to(port) };
    put_question(&request, q);
    if (c->fd < 0)
        end(c, "no connection");
    else if (!send_all(c->fd, &request))
        end(c, "the question was not taken");
    buf_fini(&request);
}

void client_close(struct client *c)
{
    if (c->fd > 0)
        close(c->fd);
    buf_fini(&c->line);
    c->fd = -1;
}

/* ---- events ---- */

static void take_tokens(struct client *c, const char *text, size_t n)
{
    json_t *event = json_loadb(text, n, JSON_ALLOW_NUL, NULL), *id; /* random models say NUL too */
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    size_t i;

    json_array_foreach (json_object_get(choice, "token_ids"), i, id)
        if (c->n_tokens < CLIENT_TOKENS_MAX)
            c->tokens[c->n_tokens++] = (int32_t)json_integer_value(id);
    if (!event || json_object_get(event, "error"))
        snprintf(c->why, sizeof c->why, "%.*s", (int)(n < 150 ? n : 150), text);
    json_decref(event);
}

static void take_event(struct client *c, const char *text, size_t n)
{
    uint64_t now = clock_mono_ns();

    if (n >= 6 && memcmp(text, "[DONE]", 6) == 0) {
        c->is_whole = !c->why[0];
        return;
    }
    if (c->event_ns && now - c->event_ns > c->gap_ns)
        c->gap_ns = now - c->event_ns;
    if (!c->event_ns)
        c->first_ns = now;
    c->event_ns = now;
    take_tokens(c, text, n);
}

static void take_line(struct client *c)
{
    const char *line = c->line.data;
    size_t n = c->line.n;

    if (!c->has_status) {
        c->has_status = true;
        if (strncmp(line, "HTTP/1.1 200", 12) != 0)
            snprintf(c->why, sizeof c->why, "the server answers '%.100s'", line);
    } else if (strncmp(line, "data: ", 6) == 0)
        take_event(c, line + 6, n - 6);
}

static void take_bytes(struct client *c, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != '\n')
            buf_add_char(&c->line, bytes[i]);
        else if (c->line.n > 0) {
            take_line(c);
            buf_clear(&c->line);
        }
}

static void read_some(struct client *c)
{
    char bytes[READ_BYTES];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        take_bytes(c, bytes, (size_t)n);
    if (n <= 0 || c->is_whole)
        end(c, "the answer ended before its last event");
}

bool clients_read(struct client *c, uint32_t n, uint64_t until_ns)
{
    struct pollfd polled[CLIENTS_MAX];
    uint32_t n_open;

    do {
        n_open = 0;
        for (uint32_t i = 0; i < n; i++) { /* a negative one is passed over */
            polled[i] = (struct pollfd){ .fd = c[i].fd, .events = POLLIN };
            n_open += c[i].fd >= 0;
        }
        if (n_open == 0 || poll(polled, n, 1) <= 0)
            continue;
        for (uint32_t i = 0; i < n; i++)
            if (c[i].fd >= 0 && polled[i].revents)
                read_some(&c[i]);
    } while (n_open > 0 && clock_mono_ns() < until_ns);
    return n_open == 0;
}

/* ---- the metrics page ---- */

static void get_page(int port, const char *path, struct buf *out)
{
    const struct timeval patience = { .tv_sec = PAGE_WAIT_S };
    struct buf request = { 0 };
    char bytes[READ_BYTES];
    int fd = connect_to(port);
    ssize_t n = 0;

    buf_printf(&request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
        send_all(fd, &request))
        while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
            buf_add(out, bytes, (size_t)n);
    if (fd >= 0)
        close(fd);
    buf_fini(&request);
}

static void add_series(const char *line, const char *name, double *sum)
{
    size_t n = strlen(name), length = strcspn(line, "\r\n");
    const char *value = memrchr(line, ' ', length);

    if (strncmp(line, name, n) == 0 && (line[n] == ' ' || line[n] == '{') && value)
        *sum = (*sum < 0 ? 0 : *sum) + strtod(value + 1, NULL);
}

double client_metric(int port, const char *name)
{
    struct buf page = { 0 };
    double sum = -1;

    get_page(port, "/metrics", &page);
    for (const char *at = page.data; at && *at; at = strchr(at, '\n'))
        add_series(at += *at == '\n', name, &sum);
    buf_fini(&page);
    return sum;
}
