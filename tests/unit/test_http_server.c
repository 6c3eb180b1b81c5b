/* test_http_server.c - the protocol as a client sees it on a real socket: framing of answers,
 * keep-alive, pipelining, bodies, refusals. */
#include <fcntl.h>

#include "tests/unit/http_fixture.h"

static int setup(void **state)
{
    struct fixture *f = fixture_new();

    fixture_start(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_stop(*state);
    return 0;
}

/* Exactly these bytes, and nothing behind them. */
static void expect_exactly(int fd, const char *want)
{
    struct buf in = { 0 };
    char more;

    while (in.n < strlen(want) && recv(fd, &more, 1, 0) == 1)
        buf_add_char(&in, more);
    assert_string_equal(in.data ? in.data : "", want);
    assert_int_equal(recv(fd, &more, 1, MSG_DONTWAIT), -1);
    buf_fini(&in);
}

static void one_connection_carries_many_requests(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    for (int i = 1; i <= 20; i++) {
        send_text(fd, GET("/ok"));
        assert_true(recv_times(fd, &in, "\r\n\r\nok", i));
    }
    expect_contains(&in, "HTTP/1.1 200 OK\r\nDate: ");
    expect_lacks(&in, "Connection:");
    assert_int_equal(atomic_load(&f->counters.connections), 1);
    assert_int_equal(atomic_load(&f->counters.requests), 20);
    close(fd);
    buf_fini(&in);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct fixture *f = *state;
    struct buf out = { 0 }, in = { 0 }, want = { 0 };
    int fd = connect_to(f);

    for (int i = 0; i < 200; i++)
        buf_printf(&out, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n<%03d>", i);
    send_bytes(fd, out.data, out.n);
    assert_true(recv_until(fd, &in, "<199>"));
    for (const char *at = in.data; (at = strchr(at, '<')); at += 5)
        buf_add(&want, at, 5);
    assert_int_equal(want.n, 200 * 5);
    for (int i = 0; i < 200; i++) {
        char tag[8];
        snprintf(tag, sizeof tag, "<%03d>", i);
        assert_memory_equal(want.data + i * 5, tag, 5);
    }
    close(fd);
    buf_fini(&out), buf_fini(&in), buf_fini(&want);
}

/* The second request must not overtake the first, which is answered later. */
static void a_pipelined_request_waits_for_the_one_before(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, GET("/hold") GET("/ok") GET("/hold"));
    assert_true(wait_until(&f->n_requests, 1));
    poll(NULL, 0, 30);
    assert_int_equal(atomic_load(&f->n_requests), 1);
    fixture_release(f);
    assert_true(recv_until(fd, &in, "\r\n\r\nok"));
    assert_true(strstr(in.data, "held") < strstr(in.data, "\r\n\r\nok"));
    assert_true(wait_until(&f->n_requests, 3));
    fixture_release(f);
    assert_true(recv_times(fd, &in, "held", 2));
    close(fd);
    buf_fini(&in);
}

static void a_request_in_single_bytes_is_understood(void **state)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nA: b\r\n\r\n";
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f), on = 1;

    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
    for (size_t i = 0; i < sizeof request - 1; i++)
        send_bytes(fd, request + i, 1);
    assert_true(recv_until(fd, &in, "\r\n\r\nhello!"));
    expect_contains(&in, "Content-Length: 6\r\n");
    assert_int_equal(atomic_load(&f->counters.bytes_in), sizeof request - 1);
    assert_int_equal(atomic_load(&f->input_bytes), sizeof request - 1);
    close(fd);
    buf_fini(&in);
}

static void a_large_body_arrives_whole(void **state)
{
    enum { N = 9 << 20 };
    struct fixture *f = *state;
    struct buf head = { 0 }, in = { 0 };
    char *body = mem_alloc(N + 1);
    int fd = connect_to(f);

    for (int i = 0; i < N; i++)
        body[i] = flood_byte((uint64_t)i);
    body[N] = '\0';
    buf_printf(&head,
               "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
               N);
    send_bytes(fd, head.data, head.n);
    send_bytes(fd, body, N);
    shutdown(fd, SHUT_WR);
    recv_rest(fd, &in);
    expect_contains(&in, "Connection: close\r\n");
    assert_true(in.n > N);
    assert_memory_equal(in.data + in.n - N, body, N);
    close(fd);
    free(body);
    buf_fini(&head), buf_fini(&in);
}

static void continue_is_said_only_to_who_waits_for_it(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(
        fd, "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    expect_exactly(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    send_text(fd, "hello");
    assert_true(recv_until(fd, &in, "\r\n\r\nhello"));
    buf_clear(&in);
    send_text(
        fd,
        "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    assert_true(recv_until(fd, &in, "\r\n\r\nhello"));
    expect_lacks(&in, "100 Continue");
    buf_clear(&in);
    send_text(
        fd,
        "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhe");
    assert_true(wait_until(&f->n_heads, 3));
    send_text(fd, "llo");
    assert_true(recv_until(fd, &in, "\r\n\r\nhello"));
    expect_lacks(&in, "100 Continue");
    close(fd);
    buf_fini(&in);
}

/* Refused in on_head: the client hears it before it has sent its body, and the body is not waited for. */
static void an_early_refusal_comes_before_the_body(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(
        fd,
        "POST /refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n");
    recv_rest(fd, &in);
    expect_contains(&in, "HTTP/1.1 429 Too Many Requests\r\n");
    expect_contains(&in, "Retry-After: 1\r\n");
    expect_contains(&in, "Connection: close\r\n");
    expect_lacks(&in, "100 Continue");
    assert_true(wait_until(&f->done[HTTP_SENT], 1));
    assert_int_equal(atomic_load(&f->n_requests), 0);
    close(fd);
    buf_fini(&in);
}

/* An overloaded server must not also force its clients to connect again. */
static void an_early_refusal_with_the_body_at_hand_keeps_the_connection(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" GET("/ok"));
    assert_true(recv_until(fd, &in, "\r\n\r\nok"));
    expect_contains(&in, "429");
    expect_lacks(&in, "Connection: close");
    close(fd);
    buf_fini(&in);
}

static void a_body_over_its_limit_is_refused_unread(void **state)
{
    struct fixture *f = *state;
    const char *big = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n";

    expect_closed_with(f, big, "HTTP/1.1 413 Content Too Large\r\n");
    expect_closed_with(f, "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "413");
    expect_closed_with(f,
                       "POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "4\r\nabcd\r\n5\r\n",
                       "413");
    assert_int_equal(atomic_load(&f->n_requests), 0);
    assert_true(wait_until(&f->done[HTTP_REFUSED], 3));
    assert_int_equal(atomic_load(&f->counters.refused[HTTP_REFUSED_BODY_LONG]), 3);
}

/* A client that is still sending must be able to read why it was refused: no reset may overtake it. */
static void a_refusal_can_be_read_by_a_client_that_is_still_sending(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    char *junk = mem_zalloc(1, 4 << 20);
    int fd = connect_to(f);

    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    send_bytes(fd, junk, 4 << 20);
    recv_rest(fd, &in);
    expect_contains(&in, "413 Content Too Large");
    close(fd);
    free(junk);
    buf_fini(&in);
}

static void bad_requests_are_refused_and_the_connection_closed(void **state)
{
    struct fixture *f = *state;
    struct buf head = { 0 };

    expect_closed_with(f, "GET / HTTP/1.1\nHost: x\n\n",
                       "{\"error\":{\"message\":\"line does not end in CRLF\","
                       "\"type\":\"invalid_request_error\",\"code\":400}}");
    expect_closed_with(f, "GET / HTTP/3.0\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n");
    expect_closed_with(f, "BREW / HTTP/1.1\r\n", "HTTP/1.1 501 Not Implemented\r\n");
    expect_closed_with(f,
                       "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 1\r\n\r\n",
                       "HTTP/1.1 417 ");
    expect_closed_with(f,
                       "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "0x3\r\nabc\r\n0\r\n\r\n",
                       "HTTP/1.1 400 ");
    buf_add_str(&head, "GET / HTTP/1.1\r\nHost: x\r\nA: ");
    for (int i = 1; i < 2000; i++)
        buf_add_str(&head, i % 30 ? "0123456789012345678901234567890123456789" : "\r\nA: ");
    expect_closed_with(f, head.data, "HTTP/1.1 431 ");
    assert_int_equal(atomic_load(&f->n_requests), 0);
    buf_fini(&head);
}

/* Two requests where a lax reader would see one, or one where it would see two. */
static void smuggled_requests_are_not_served(void **state)
{
    struct fixture *f = *state;

    expect_closed_with(f,
                       "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GET("/ok"),
                       "HTTP/1.1 400 ");
    expect_closed_with(
        f, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" GET("/ok"),
        "HTTP/1.1 400 ");
    expect_closed_with(
        f,
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 35\r\n"
        "\r\n" GET("/ok"),
        "HTTP/1.1 400 ");
    assert_int_equal(atomic_load(&f->n_requests), 0);
}

static void head_is_answered_without_a_body(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, "HEAD /ok HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(recv_until(fd, &in, "\r\n\r\n"));
    expect_contains(&in, "Content-Length: 2\r\n");
    send_text(fd, "HEAD /stream?n=3 HTTP/1.1\r\nHost: x\r\n\r\n" GET("/ok"));
    assert_true(recv_until(fd, &in, "\r\n\r\nok"));
    expect_lacks(&in, "data:");
    close(fd);
    buf_fini(&in);
}

static void a_stream_is_chunked_and_keeps_the_connection(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, GET("/stream?n=2") GET("/ok"));
    assert_true(recv_until(fd, &in, "\r\n\r\nok"));
    expect_contains(&in, "Transfer-Encoding: chunked\r\n");
    expect_contains(&in,
                    "\r\n\r\n9\r\ndata: x\n\n\r\n9\r\ndata: x\n\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n");
    close(fd);
    buf_fini(&in);
}

static void http_1_0_gets_no_chunks(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, "GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_true(recv_until(fd, &in, "\r\n\r\nok"));
    expect_contains(&in, "Connection: keep-alive\r\n");
    buf_clear(&in);
    send_text(fd, "GET /stream?n=2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    recv_rest(fd, &in);
    expect_contains(&in, "Connection: close\r\n");
    expect_contains(&in, "\r\n\r\ndata: x\n\ndata: x\n\n");
    expect_lacks(&in, "Transfer-Encoding");
    assert_string_equal(in.data + in.n - 9, "data: x\n\n");
    close(fd);
    expect_closed_with(f, GET10("/ok"), "Connection: close\r\n");
    buf_fini(&in);
}

static void close_is_honoured(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, "GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" GET("/ok"));
    recv_rest(fd, &in);
    expect_contains(&in, "Connection: close\r\n");
    assert_int_equal(atomic_load(&f->n_requests), 1); /* what comes after close is not looked at */
    close(fd);
    buf_fini(&in);
}

static void a_header_value_cannot_start_another_header(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, GET("/fields"));
    assert_true(recv_until(fd, &in, "\r\n\r\n"));
    expect_contains(&in, "X-Echo: a  Set-Cookie: b\tc\r\n");
    close(fd);
    buf_fini(&in);
}

static void an_aborted_answer_does_not_look_whole(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int fd = connect_to(f);

    send_text(fd, GET("/abort"));
    recv_rest(fd, &in);
    expect_contains(&in, "5\r\nbegun\r\n");
    expect_lacks(&in, "0\r\n\r\n");
    assert_true(wait_until(&f->done[HTTP_ABORTED], 1));
    close(fd);

    fd = connect_to(f);
    send_text(fd, GET10("/abort"));
    while (recv(fd, (char[64]){ 0 }, 64, 0) > 0)
        ;
    assert_int_equal(errno, ECONNRESET); /* ended by closing: only a reset tells */
    close(fd);
    buf_fini(&in);
}

static const char *plain_error(const struct http_error *error, struct buf *body, void *ctx)
{
    (void)ctx;
    buf_printf(body, "%d %s (%s)", error->status, error->text, error->path ? error->path : "-");
    return "text/plain";
}

static void the_dialect_owns_error_bodies(void **state)
{
    struct fixture *f = fixture_new();

    (void)state;
    f->handler.on_error = plain_error;
    fixture_start(f);
    expect_closed_with(f, "GET /a%20b HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
                       "400 malformed header field name (/a b)");
    expect_closed_with(f, "\r\r", "400 line does not end in CRLF (-)");
    expect_closed_with(f, "GET / HTTP/9.9\r\n", "Content-Type: text/plain\r\n");
    fixture_stop(f);
}

static void a_unix_socket_serves_too(void **state)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    socklen_t n;
    struct fixture *f = fixture_new();
    struct buf in = { 0 };
    char want[64];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "llmd-test-%d", (int)getpid());
    n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(at.sun_path + 1));
    close(f->listen_fd);
    f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_false(bind(f->listen_fd, (struct sockaddr *)&at, n) || listen(f->listen_fd, 8));
    fixture_start(f);
    assert_false(connect(fd, (struct sockaddr *)&at, n));
    send_text(fd, GET("/peer") GET("/stream"));
    snprintf(want, sizeof want, "unix:uid=%u", getuid());
    assert_true(recv_until(fd, &in, "data: x"));
    expect_contains(&in, want);
    close(fd);
    assert_true(wait_until(&f->done[HTTP_GONE], 1));
    fixture_stop(f);
    buf_fini(&in);
}

static void a_socket_that_does_not_listen_is_refused(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };
    struct loop *loop = loop_new(&e);
    struct http_server *s = http_server_new(loop, &f->config, &f->handler, f, NULL, &e);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_false(http_server_listen(s, fd, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_false(http_server_listen(s, -1, &e));
    assert_int_equal(e.code, ERR_SYS);
    close(fd);
    http_server_free(s);
    loop_free(loop);
}

/* As systemd does with the sockets of a service that it starts again. */
static void a_listening_socket_that_another_made_blocking_holds_up_nobody(void **state)
{
    struct fixture *f = *state;
    struct buf in = { 0 };
    int first = connect_to(f), second;

    send_text(first, GET("/ok"));
    assert_true(recv_times(first, &in, "\r\n\r\nok", 1));
    assert_false(fcntl(f->listen_fd, F_SETFL, fcntl(f->listen_fd, F_GETFL) & ~O_NONBLOCK));
    second = connect_to(f);
    send_text(first, GET("/ok"));
    assert_true(recv_times(first, &in, "\r\n\r\nok", 2));
    close(first), close(second);
    buf_fini(&in);
}

/* Each thread its own server, all on one listening socket; the thread sanitizer is the judge. */
static void threads_share_a_listening_socket(void **state)
{
    enum { N_SERVERS = 3, N_CLIENTS = 90 };
    struct fixture *f[N_SERVERS];
    uint64_t answers = 0;

    (void)state;
    for (int i = 0; i < N_SERVERS; i++) {
        f[i] = fixture_new();
        if (i > 0) {
            close(f[i]->listen_fd);
            f[i]->listen_fd = f[0]->listen_fd;
            f[i]->borrows_listener = true;
        }
        fixture_start(f[i]);
    }
    for (int i = 0; i < N_CLIENTS; i++) {
        struct buf in = { 0 };
        int fd = connect_to(f[0]);
        send_text(fd, GET("/peer") GET("/ok"));
        assert_true(recv_until(fd, &in, "\r\n\r\nok"));
        expect_contains(&in, "127.0.0.1:");
        close(fd);
        buf_fini(&in);
    }
    for (int tries = 0; tries < PATIENCE_MS && answers != 2 * N_CLIENTS; tries++) {
        answers = 0;
        for (int i = 0; i < N_SERVERS; i++)
            answers += atomic_load(&f[i]->counters.answers);
        poll(NULL, 0, 1);
    }
    assert_int_equal(answers, 2 * N_CLIENTS);
    for (int i = N_SERVERS - 1; i >= 0; i--)
        fixture_stop(f[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_connection_carries_many_requests),
        TEST(pipelined_requests_are_answered_in_order),
        TEST(a_pipelined_request_waits_for_the_one_before),
        TEST(a_request_in_single_bytes_is_understood),
        TEST(a_large_body_arrives_whole),
        TEST(continue_is_said_only_to_who_waits_for_it),
        TEST(an_early_refusal_comes_before_the_body),
        TEST(an_early_refusal_with_the_body_at_hand_keeps_the_connection),
        TEST(a_body_over_its_limit_is_refused_unread),
        TEST(a_refusal_can_be_read_by_a_client_that_is_still_sending),
        TEST(bad_requests_are_refused_and_the_connection_closed),
        TEST(smuggled_requests_are_not_served),
        TEST(head_is_answered_without_a_body),
        TEST(a_stream_is_chunked_and_keeps_the_connection),
        TEST(http_1_0_gets_no_chunks),
        TEST(close_is_honoured),
        TEST(a_header_value_cannot_start_another_header),
        TEST(an_aborted_answer_does_not_look_whole),
        cmocka_unit_test(the_dialect_owns_error_bodies),
        cmocka_unit_test(a_unix_socket_serves_too),
        TEST(a_socket_that_does_not_listen_is_refused),
        TEST(a_listening_socket_that_another_made_blocking_holds_up_nobody),
        cmocka_unit_test(threads_share_a_listening_socket),
    };

    return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
