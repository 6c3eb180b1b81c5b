/* client.c - sockets and framing of the test client. */
#include "tests/gateway/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void answer_fini(struct answer *a)
{
    buf_fini(&a->raw);
    buf_fini(&a->head);
    buf_fini(&a->body);
    *a = (struct answer){ 0 };
}

const char *answer_header(const struct answer *a, const char *name)
{
    static char value[1024];
    size_t n = strlen(name);

    for (const char *line = a->head.data; line && *line;) {
        const char *end = strstr(line, "\r\n");
        if (!end)
            break;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *from = line + n + 1;
            while (*from == ' ')
                from++;
            snprintf(value, sizeof value, "%.*s", (int)(end - from), from);
            return value;
        }
        line = end + 2;
    }
    return NULL;
}

int client_connect(uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct timeval limit = { .tv_sec = 60 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void client_send(int fd, const void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t sent = send(fd, (const char *)bytes + done, n - done, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        done += (size_t)sent;
    }
}

void client_post(int fd, const char *path, const char *headers, const char *body)
{
    struct buf out = { 0 };

    buf_printf(
        &out, "POST %s HTTP/1.1\r\nHost: t\r\nContent-Length: %zu\r\n%s%s\r\n", path, strlen(body),
        strcasestr(headers, "content-type:") ? "" : "Content-Type: application/json\r\n", headers);
    buf_add_str(&out, body);
    client_send(fd, out.data, out.n);
    buf_fini(&out);
}

/* Decode as much of a chunked body as is there.  True: the last chunk was seen. */
static bool decode_chunks(const char *raw, size_t n, struct buf *out)
{
    size_t at = 0;

    buf_clear(out);
    while (at < n) {
        const char *end = memmem(raw + at, n - at, "\r\n", 2);
        unsigned long size;
        if (!end)
            return false;
        size = strtoul(raw + at, NULL, 16);
        at = (size_t)(end - raw) + 2;
        if (size == 0)
            return n - at >= 2;
        if (n - at < size + 2) {
            return false;
        }
        buf_add(out, raw + at, size);
        at += size + 2;
    }
    return false;
}

static bool take_apart(struct answer *a, bool closed)
{
    const struct buf *raw = &a->raw;
    const char *end = raw->data ? strstr(raw->data, "\r\n\r\n") : NULL;
    size_t head_n, n;
    const char *length;

    if (!end)
        return false;
    head_n = (size_t)(end - raw->data) + 4;
    n = raw->n - head_n;
    buf_clear(&a->head);
    buf_add(&a->head, raw->data, head_n);
    a->status = atoi(raw->data + strlen("HTTP/1.1 "));
    if (answer_header(a, "Transfer-Encoding"))
        return a->is_whole = decode_chunks(raw->data + head_n, n, &a->body);
    buf_clear(&a->body);
    length = answer_header(a, "Content-Length");
    buf_add(&a->body, raw->data + head_n, n);
    return a->is_whole = length ? n >= strtoul(length, NULL, 10) : closed;
}

/* Decoding a long answer after each read would take quadratic time: is it worth a look? */
static bool may_be_whole(const struct buf *raw, size_t n_body)
{
    return raw->n < 65536 || n_body != SIZE_MAX ||
           memcmp(raw->data + raw->n - 5, "0\r\n\r\n", 5) == 0 ||
           !memmem(raw->data, 2048, "Transfer-Encoding", 17);
}

static void read_on(int fd, struct answer *a, size_t n_body)
{
    char bytes[65536];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
        buf_add(&a->raw, bytes, (size_t)n);
        if (may_be_whole(&a->raw, n_body) &&
            (take_apart(a, false) || (a->status && a->body.n >= n_body)))
            break;
    }
    if (n == 0)
        take_apart(a, true);
}

void client_read_some(int fd, struct answer *a, size_t n_body)
{
    answer_fini(a);
    read_on(fd, a, n_body);
}

void client_read_rest(int fd, struct answer *a)
{
    if (!a->is_whole)
        read_on(fd, a, SIZE_MAX);
}

void client_read(int fd, struct answer *a)
{
    client_read_some(fd, a, SIZE_MAX);
}

void client_request(uint16_t port, const char *path, const char *headers, const char *body,
                    struct answer *a)
{
    int fd = client_connect(port);

    answer_fini(a);
    if (fd < 0)
        return;
    client_post(fd, path, headers, body);
    client_read(fd, a);
    close(fd);
}

void client_get(uint16_t port, const char *path, struct answer *a)
{
    char head[512];
    int fd = client_connect(port);

    answer_fini(a);
    if (fd < 0)
        return;
    snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", path);
    client_send(fd, head, strlen(head));
    client_read(fd, a);
    close(fd);
}

json_t *answer_json(const struct answer *a)
{
    struct err e;
    json_t *v = json_parse(answer_body(a), a->body.n, &e);

    if (!v) {
        fprintf(stderr, "not JSON: %s: %s\n", e.msg, answer_body(a));
        abort();
    }
    return v;
}
