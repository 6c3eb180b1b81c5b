/* server.c - the HTTP layer with next to nothing behind it, to measure the layer itself.
 *
 *   GET  /        two bytes               POST /echo    the body
 *   GET  /events  one server-sent event, then one more every EVENT_EVERY_MS to every such client
 *   GET  /idle    one event, then silence
 *
 *   http_layer_server PORT [EVENT_EVERY_MS] */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "gateway/net/http_server.h"

enum { STREAMS_MAX = 16384 };

static struct http_request *streams[STREAMS_MAX];
static size_t n_streams;
static struct loop_timer *timer;
static uint64_t event_every_ns = 50 * NS_PER_MS;

static const char event[] =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"}}]}\n\n";

static void on_timer(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < n_streams; i++)
        if (!http_is_congested(streams[i]))
            http_write(streams[i], event, sizeof event - 1);
    loop_timer_set(timer, event_every_ns);
}

static void stream_start(struct http_request *req, bool goes_on)
{
    const struct http_header type = { "Content-Type", "text/event-stream" };

    http_start(req, 200, &type, 1);
    http_write(req, event, sizeof event - 1);
    if (goes_on && n_streams < STREAMS_MAX)
        streams[n_streams++] = req;
}

static void on_request(struct http_request *req, void *ctx)
{
    const struct http_header type = { "Content-Type", "application/json" };
    const char *path = http_request_path(req), *body;
    size_t n;

    (void)ctx;
    if (!strcmp(path, "/events") || !strcmp(path, "/idle")) {
        stream_start(req, path[1] == 'e');
        return;
    }
    body = http_request_body(req, &n);
    http_respond(req, 200, &type, 1, n > 0 ? body : "ok", n > 0 ? n : 2);
}

static void on_done(struct http_request *req, enum http_outcome outcome, void *ctx)
{
    (void)outcome, (void)ctx;
    for (size_t i = 0; i < n_streams; i++)
        if (streams[i] == req)
            streams[i--] = streams[--n_streams];
}

static int listen_on(int port)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        return -1;
    return fd;
}

int main(int argc, char **argv)
{
    const struct http_handler handler = { .on_request = on_request, .on_done = on_done };
    struct err e;
    int fd = argc > 1 ? listen_on(atoi(argv[1])) : -1;
    struct loop *loop = loop_new(&e);
    struct http_server *server;

    if (fd < 0 || !loop) {
        fprintf(stderr, "usage: http_layer_server PORT [EVENT_EVERY_MS]\n");
        return 2;
    }
    if (argc > 2)
        event_every_ns = (uint64_t)atoi(argv[2]) * NS_PER_MS;
    server = http_server_new(loop, &http_config_default, &handler, NULL, NULL, &e);
    timer = loop_timer_new(loop, on_timer, NULL);
    loop_timer_set(timer, event_every_ns);
    if (!server || !http_server_listen(server, fd, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    loop_run(loop);
    return 0;
}
