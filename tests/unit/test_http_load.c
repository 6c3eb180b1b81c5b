/* test_http_load.c - the clients that measure a server over HTTP.
 *
 * What would break: an answer that was refused or cut short counted as a fast one. */
#include "bench/compare/http_load.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "tests/check.h"

static const char complete[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "b\r\ndata: {1}\n\n\r\nb\r\ndata: {2}\n\n\r\n"
                               "b\r\ndata: {3}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
static const char refused[] =
    "HTTP/1.1 503 Service Unavailable\r\n\r\ndata: {1}\n\ndata: [DONE]\n\n";
static const char cut[] = "HTTP/1.1 200 OK\r\n\r\ndata: {1}\n\ndata: {2}\n\n";

struct fake {
    pid_t pid;
    int port;
};

/* One connection after the other: read a request, send the answer, one byte at a time, and close. */
static _Noreturn void fake_main(int listener, const char *answer)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        char request[8192];
        int fd = accept(listener, NULL, NULL);
        size_t n = 0;
        ssize_t got;
        while (n < sizeof request - 1 &&
               (got = recv(fd, request + n, sizeof request - 1 - n, 0)) > 0) {
            n += (size_t)got;
            request[n] = '\0';
            if (strstr(request, "\"stream\":true}"))
                break;
        }
        for (const char *at = answer; *at; at++)
            send(fd, at, 1, MSG_NOSIGNAL);
        close(fd);
    }
}

static struct fake fake_start(const char *answer)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct fake f;

    assert_int_equal(bind(listener, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &n), 0);
    f = (struct fake){ fork(), ntohs(at.sin_port) };
    if (f.pid == 0)
        fake_main(listener, answer);
    close(listener);
    return f;
}

static void fake_stop(const struct fake *f)
{
    kill(f->pid, SIGKILL);
    waitpid(f->pid, NULL, 0);
}

static struct http_load load_of(int port)
{
    return (struct http_load){ .port = port,
                               .n_clients = 3,
                               .n_requests = 7,
                               .prompt_words = 5,
                               .max_tokens = 3,
                               .seed = 1,
                               .timeout_s = 60 };
}

static void every_event_of_every_answer_is_counted(void **state)
{
    struct fake f = fake_start(complete);
    struct http_load l = load_of(f.port);
    struct http_load_result r;
    struct err e;

    (void)state;
    assert_ok(http_load_run(&l, &r, &e), e);
    fake_stop(&f);
    assert_int_equal(r.n_events, 7 * 3);
    assert_true(r.tokens_per_s > 0);
    assert_true(r.first_p50_ms > 0 && r.first_p99_ms >= r.first_p50_ms);
    assert_true(r.gap_p99_ms >= r.gap_p50_ms);
}

static void a_refusal_is_an_error_that_shows_the_status(void **state)
{
    struct fake f = fake_start(refused);
    struct http_load l = load_of(f.port);
    struct http_load_result r;
    struct err e;

    (void)state;
    assert_fails(http_load_run(&l, &r, &e), e, ERR_PROTO, "503");
    fake_stop(&f);
}

static void an_answer_without_its_end_is_an_error(void **state)
{
    struct fake f = fake_start(cut);
    struct http_load l = load_of(f.port);
    struct http_load_result r;
    struct err e;

    (void)state;
    assert_fails(http_load_run(&l, &r, &e), e, ERR_PROTO, "ended before its last event");
    fake_stop(&f);
}

static void no_server_is_an_error_that_names_the_port(void **state)
{
    struct fake f = fake_start(complete);
    struct http_load l = load_of(f.port);
    struct http_load_result r;
    struct err e;

    (void)state;
    fake_stop(&f);
    assert_fails(http_load_run(&l, &r, &e), e, ERR_SYS, "connect to 127.0.0.1:");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_event_of_every_answer_is_counted),
        cmocka_unit_test(a_refusal_is_an_error_that_shows_the_status),
        cmocka_unit_test(an_answer_without_its_end_is_an_error),
        cmocka_unit_test(no_server_is_an_error_that_names_the_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
