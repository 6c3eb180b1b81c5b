/* http_client.c - the tests' HTTP client: poll() over plain sockets. */
#include "tests/proc/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"

enum { PATIENCE_MS = 120000 };

static int connect_to(int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        bytes += sent;
        n -= (size_t)sent;
    }
    return true;
}

void exchange_start(struct exchange *x, int port, const char *path, const char *headers,
                    const char *body)
{
    struct buf out = { 0 };

    *x = (struct exchange){ .fd = connect_to(port), .started_ns = clock_mono_ns() };
    buf_printf(&out, "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s",
               body ? "POST" : "GET", path, headers);
    if (body)
        buf_printf(&out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    buf_printf(&out, "\r\n%s", body ? body : "");
    x->refused = x->fd < 0 || !send_all(x->fd, out.data, out.n);
    x->done = x->refused;
    buf_fini(&out);
}

static void read_ready(struct exchange *x)
{
    char bytes[16384];
    ssize_t got = recv(x->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        x->done = true;
        x->ended_ns = clock_mono_ns();
        return;
    }
    buf_add(&x->raw, bytes, (size_t)got);
    if (!x->first_ns) {
        const char *end = strstr(x->raw.data, "\r\n\r\n");
        if (end && end[4])
            x->first_ns = clock_mono_ns();
    }
}

bool exchanges_run(struct exchange *x, size_t n, int timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    struct pollfd *polls = mem_zalloc(n, sizeof *polls);
    size_t n_open = 1;

    while (n_open > 0 && clock_mono_ns() < end_ns) {
        n_open = 0;
        for (size_t i = 0; i < n; i++) {
            polls[i] = (struct pollfd){ .fd = x[i].done ? -1 : x[i].fd, .events = POLLIN };
            n_open += !x[i].done;
        }
        if (n_open == 0 || poll(polls, n, 50) <= 0)
            continue;
        for (size_t i = 0; i < n; i++)
            if (polls[i].fd >= 0 && polls[i].revents)
                read_ready(&x[i]);
    }
    free(polls);
    return n_open == 0;
}

bool exchange_read_some(struct exchange *x, size_t bytes, int timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    while (!x->done && x->raw.n < bytes && clock_mono_ns() < end_ns) {
        struct pollfd p = { .fd = x->fd, .events = POLLIN };
        if (poll(&p, 1, 20) > 0)
            read_ready(x);
    }
    return x->raw.n >= bytes;
}

static bool unchunk(struct buf *out, const char *at, const char *end)
{
    for (;;) {
        char *after;
        unsigned long n = strtoul(at, &after, 16);
        if (after == at || after + 2 > end || memcmp(after, "\r\n", 2) != 0)
            return false;
        at = after + 2;
        if (n == 0)
            return true;
        if (n + 2 > (size_t)(end - at))
            return false;
        buf_add(out, at, n);
        at += n + 2;
    }
}

bool exchange_finish(struct exchange *x)
{
    const char *head_end = x->raw.data ? strstr(x->raw.data, "\r\n\r\n") : NULL;
    const char *length, *end;

    if (!head_end || sscanf(x->raw.data, "HTTP/1.1 %d", &x->status) != 1)
        return false;
    end = x->raw.data + x->raw.n;
    buf_clear(&x->body);
    length = strcasestr(x->raw.data, "\r\nContent-Length:");
    if (length && length < head_end) {
        size_t n = strtoul(length + 17, NULL, 10);
        if (n > (size_t)(end - head_end - 4))
            return false;
        buf_add(&x->body, head_end + 4, n);
        return true;
    }
    const char *coding = strcasestr(x->raw.data, "\r\nTransfer-Encoding: chunked");
    if (coding && coding < head_end + 2)
        return unchunk(&x->body, head_end + 4, end);
    buf_add(&x->body, head_end + 4, (size_t)(end - head_end - 4));
    return true;
}

void http_exchange_close(struct exchange *x)
{
    if (x->fd >= 0)
        close(x->fd);
    x->fd = -1;
    buf_fini(&x->raw);
    buf_fini(&x->body);
}

int http_ask(int port, const char *path, const char *body, struct buf *out)
{
    struct exchange x;
    int status = 0;

    exchange_start(&x, port, path, "", body);
    if (exchanges_run(&x, 1, PATIENCE_MS) && exchange_finish(&x)) {
        status = x.status;
        if (x.body.n)
            buf_add(out, x.body.data, x.body.n);
    }
    http_exchange_close(&x);
    return status;
}
