/* fake_peer.c - stands in for a server that a user would pick instead, in the test of --peer-command.
 *
 *   fake_peer PORT
 *
 * Answers /v1/models, and /v1/completions with fifty fixed words, streamed at some pace or at once.  It is
 * what such servers are when they are killed: every open answer is lost, and nobody listens until the
 * shell has started the next. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { N_WORDS = 50, WORD_US = 4000, REQUEST_BYTES_MAX = 262144 };

static bool say(int fd, const char *text)
{
    size_t n = strlen(text);

    return send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool say_chunk(int fd, const char *text)
{
    char framed[256];

    snprintf(framed, sizeof framed, "%zx\r\n%s\r\n", strlen(text), text);
    return say(fd, framed);
}

static bool stream(int fd)
{
    bool ok = say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n");

    for (int i = 0; ok && i < N_WORDS; i++) {
        ok = say_chunk(fd, "data: {\"id\":\"cmpl-7\",\"choices\":[{\"text\":\" word\"}]}\n\n");
        usleep(WORD_US);
    }
    return ok && say_chunk(fd, "data: [DONE]\n\n") && say(fd, "0\r\n\r\n");
}

static bool answer_whole(int fd, const char *body)
{
    char text[512];

    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
             body);
    return say(fd, text);
}

/* The end of the first request in the bytes, NULL when it is not there yet.  Lengths and chunks. */
static const char *end_of_request(const char *bytes, size_t n)
{
    const char *head = memmem(bytes, n, "\r\n\r\n", 4), *length, *last;

    if (!head)
        return NULL;
    head += 4;
    length = memmem(bytes, (size_t)(head - bytes), "Content-Length: ", 16);
    if (length) {
        size_t body = strtoul(length + 16, NULL, 10);
        return n - (size_t)(head - bytes) >= body ? head + body : NULL;
    }
    if (!memmem(bytes, (size_t)(head - bytes), "Transfer-Encoding", 17))
        return head;
    last = memmem(head, n - (size_t)(head - bytes), "0\r\n\r\n", 5);
    return last ? last + 5 : NULL;
}

/* Take the framing of a chunked body out: what is looked for may lie on two sides of it. */
static size_t unchunk(char *request, size_t n)
{
    char *from = memmem(request, n, "\r\n\r\n", 4), *to, *end;
    size_t size;

    if (!memmem(request, (size_t)(from - request), "Transfer-Encoding", 17))
        return n;
    for (to = from += 4; (size = strtoul(from, &end, 16)) > 0; from = end + 2 + size + 2) {
        memmove(to, end + 2, size);
        to += size;
    }
    return (size_t)(to - request);
}

static bool answer(int fd, char *request, size_t n)
{
    n = unchunk(request, n);
    if (memcmp(request, "GET ", 4) == 0)
        return answer_whole(fd, "{\"object\":\"list\",\"data\":[]}");
    if (memmem(request, n, "\"stream\":true", 13))
        return stream(fd);
    usleep(N_WORDS * WORD_US);
    return answer_whole(fd, "{\"id\":\"cmpl-7\",\"choices\":[{\"text\":\" word word\"}]}");
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char *bytes = calloc(1, REQUEST_BYTES_MAX + 1);
    size_t n = 0;
    ssize_t got = 1;
    bool goes_on = true;

    while (goes_on && got > 0) {
        const char *end = end_of_request(bytes, n);
        if (!end) {
            got = recv(fd, bytes + n, REQUEST_BYTES_MAX - n, 0);
            n += got > 0 ? (size_t)got : 0;
            continue;
        }
        goes_on = !memmem(bytes, (size_t)(end - bytes), "Connection: close", 17);
        goes_on = answer(fd, bytes, (size_t)(end - bytes)) && goes_on;
        n -= (size_t)(end - bytes);
        memmove(bytes, end, n);
    }
    free(bytes);
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    at.sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 128) < 0) {
        perror("fake_peer");
        return 1;
    }
    for (;;) {
        int client = accept(fd, NULL, NULL);
        pthread_t thread;
        if (client >= 0 && pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
    }
}
