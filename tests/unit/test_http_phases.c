/* test_http_phases.c - clients that are slow, silent, greedy or gone, in every phase of a connection, and
 * the server's own limits: connections, descriptors, drain.
 *
 * Deadlines are tens of milliseconds here.  What must happen is waited for patiently; only what is a
 * promise in time (a client that leaves is noticed within 100 ms) is measured, and then the middle of
 * several tries counts, because the machine may be busy. */
#include <sys/resource.h>
#include <sys/time.h>

#include "tests/unit/http_fixture.h"

static struct fixture *start_with(void (*change)(struct http_config *))
{
    struct fixture *f = fixture_new();

    if (change)
        change(&f->config);
    fixture_start(f);
    return f;
}

/* ---- deadlines ---- */

/* Quick, but not so quick that a client is late which other work keeps from its first byte. */
static void quick_head(struct http_config *config)
{
    config->head_ms = 400;
}

static void a_slow_head_is_refused(void **state)
{
    struct fixture *f = start_with(quick_head);

    (void)state;
    expect_closed_with(f, "GET /ok HT", "HTTP/1.1 408 Request Timeout\r\n");
    assert_int_equal(atomic_load(&f->counters.refused[HTTP_REFUSED_HEAD_SLOW]), 1);
    fixture_stop(f);
}

/* One byte now and then must not hold a connection for ever. */
static void a_trickling_head_is_refused(void **state)
{
    struct fixture *f = start_with(quick_head);
    struct buf in = { 0 };
    int fd = connect_to(f), n = 0;

    (void)state;
    send_text(fd, "GET /ok HTTP/1.1\r\nHost: x\r\nA: ");
    for (struct pollfd p = { .fd = fd, .events = POLLIN }; poll(&p, 1, 5) == 0 && n < 2000; n++)
        send_text(fd, "a");
    assert_in_range(n, 0, 1000);
    recv_rest(fd, &in);
    expect_contains(&in, "408");
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

static void a_client_that_never_speaks_is_closed_without_a_word(void **state)
{
    struct fixture *f = start_with(quick_head);
    struct buf in = { 0 };
    int fd = connect_to(f);

    (void)state;
    recv_rest(fd, &in);
    assert_int_equal(in.n, 0);
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

/* A machine that is suspended, a process that is stopped: who could not be heard is not late. */
static void a_server_that_stood_still_blames_nobody(void **state)
{
    struct fixture *f = start_with(quick_head);
    struct buf in = { 0 }, other = { 0 };
    int fd = connect_to(f), slow = connect_to(f);

    (void)state;
    send_text(slow, "GET /ok HT");
    send_text(fd, GET("/doze?n=1200"));
    assert_true(recv_until(fd, &in, "ok"));
    poll(NULL, 0, 50); /* for the deadline that is over */
    send_text(slow, "TP/1.1\r\nHost: x\r\n\r\n");
    assert_true(recv_until(slow, &other, "ok"));
    expect_contains(&other, "200 OK");
    assert_int_equal(atomic_load(&f->counters.refused[HTTP_REFUSED_HEAD_SLOW]), 0);
    close(fd);
    close(slow);
    fixture_stop(f);
    buf_fini(&in);
    buf_fini(&other);
}

static void quick_idle(struct http_config *config)
{
    config->idle_ms = 40;
}

static void an_idle_connection_is_closed(void **state)
{
    struct fixture *f = start_with(quick_idle);
    struct buf in = { 0 };
    int fd = connect_to(f);

    (void)state;
    send_text(fd, GET("/ok"));
    recv_rest(fd, &in);
    expect_contains(&in, "\r\n\r\nok");
    assert_string_equal(in.data + in.n - 2, "ok");
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

static void quick_body(struct http_config *config)
{
    config->body_ms = 60;
    config->body_bytes_per_s_min = 10000;
}

static void a_trickling_body_is_refused(void **state)
{
    struct fixture *f = start_with(quick_body);
    struct buf in = { 0 };
    int fd = connect_to(f), n = 0;

    (void)state;
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    for (struct pollfd p = { .fd = fd, .events = POLLIN }; poll(&p, 1, 5) == 0 && n < 2000; n++)
        send_text(fd, "a");
    assert_in_range(n, 0, 1000);
    recv_rest(fd, &in);
    expect_contains(&in, "408");
    assert_true(wait_until(&f->done[HTTP_REFUSED], 1));
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

static void patient_body(struct http_config *config)
{
    config->body_ms = 500;
    config->body_bytes_per_s_min = 0;
}

/* A long upload is no slow one: the deadline is for a period, not for the body. */
static void a_steady_body_may_take_many_periods(void **state)
{
    struct fixture *f = start_with(patient_body);
    struct buf in = { 0 };
    int fd = connect_to(f);

    (void)state;
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n");
    for (int i = 0; i < 30; i++) {
        poll(NULL, 0, 50);
        send_text(fd, "a");
    }
    assert_true(recv_until(fd, &in, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    expect_contains(&in, "200 OK");
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

static void all_quick(struct http_config *config)
{
    quick_head(config);
    config->body_ms = config->idle_ms = config->write_ms = 30;
}

/* The handler's time is its own: a prompt may wait in a queue for minutes. */
static void a_request_may_wait_for_its_answer(void **state)
{
    struct fixture *f = start_with(all_quick);
    struct buf in = { 0 };
    int fd = connect_to(f), stream;

    (void)state;
    send_text(fd, GET("/hold"));
    stream = connect_to(f);
    send_text(stream, GET("/stream"));
    assert_true(wait_until(&f->n_requests, 2));
    poll(NULL, 0, 600); /* longer than any of them */
    fixture_release(f);
    assert_true(recv_until(fd, &in, "held"));
    assert_true(recv_until(stream, &in, "0\r\n\r\n"));
    close(fd);
    close(stream);
    fixture_stop(f);
    buf_fini(&in);
}

/* ---- clients that leave ---- */
static void reset(int fd)
{
    struct linger now = { .l_onoff = 1 };

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static void leave_politely(int fd)
{
    close(fd);
}

static void leave_half(int fd)
{
    shutdown(fd, SHUT_WR); /* the descriptor is closed by the caller's end of process */
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Send a request, wait until `seen` says that the server has it, leave; ns until on_done said GONE. */
static uint64_t leave_after(struct fixture *f, const char *request, _Atomic int *seen,
                            const char *answer, void (*leave)(int))
{
    struct buf in = { 0 };
    int before = atomic_load(seen), gone = atomic_load(&f->done[HTTP_GONE]), fd = connect_to(f);
    uint64_t left_ns;

    send_text(fd, request);
    assert_true(wait_until(seen, before + 1));
    if (answer)
        assert_true(recv_until(fd, &in, answer));
    left_ns = clock_mono_ns();
    leave(fd);
    assert_true(wait_until(&f->done[HTTP_GONE], gone + 1));
    if (leave == leave_half)
        close(fd);
    buf_fini(&in);
    return atomic_load(&f->done_ns) - left_ns;
}

static void expect_noticed(const char *request, bool in_body, const char *answer,
                           void (*leave)(int))
{
    struct fixture *f = start_with(NULL);
    uint64_t took_ns[5];

    for (int i = 0; i < 5; i++)
        took_ns[i] = leave_after(f, request, in_body ? &f->n_heads : &f->n_requests, answer, leave);
    qsort(took_ns, 5, sizeof took_ns[0], by_size);
    assert_in_range(took_ns[2], 0, 5 * NS_PER_S); /* not at a deadline, which is 10 s at least */
    assert_in_range(fixture_idle_cpu_ns(f, 60), 0,
                    30 * NS_PER_MS); /* it does not spin afterwards */
    assert_int_equal(atomic_load(&f->counters.gone), 5);
    fixture_stop(f);
}

static void a_client_that_leaves_is_noticed_in_every_phase(void **state)
{
    static void (*const ways[])(int) = { leave_politely, reset, leave_half };

    (void)state;
    for (int i = 0; i < 3; i++) {
        expect_noticed(GET("/hold"), false, NULL, ways[i]);
        expect_noticed(GET("/stream"), false, "data: x", ways[i]);
        expect_noticed("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", true, NULL,
                       ways[i]);
    }
}

/* It leaves behind bytes that are not read while it is being answered: the end must not hide there. */
static void an_end_behind_unread_bytes_is_noticed(void **state)
{
    struct buf many = { 0 };

    (void)state;
    buf_add_str(&many, GET("/hold"));
    for (int i = 0; i < 3000; i++)
        buf_add_str(&many, GET("/ok"));
    expect_noticed(many.data, false, NULL, leave_politely);
    buf_fini(&many);
}

/* While it is answered nothing is read from it: the kernel holds it back, not our memory. */
static void a_client_that_pipelines_while_it_waits_is_held_back(void **state)
{
    struct fixture *f = start_with(NULL);
    struct timeval soon = { .tv_usec = 50000 };
    char *many = mem_alloc(1 << 20);
    int fd = connect_to(f);
    uint64_t sent = 0;

    (void)state;
    memset(many, 'x', 1 << 20);
    send_text(fd, GET("/hold"));
    assert_true(wait_until(&f->n_requests, 1));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    for (int i = 0; i < 30; i++) {
        ssize_t n = send(fd, many, 1 << 20, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (uint64_t)n;
    }
    assert_in_range(sent, 100000, 29 << 20);
    assert_in_range(atomic_load(&f->counters.bytes_in), 1, 100000);
    close(fd);
    free(many);
    fixture_stop(f);
}

static void a_reset_between_requests_is_no_trouble(void **state)
{
    struct fixture *f = start_with(NULL);

    (void)state;
    for (int i = 1; i <= 10; i++) {
        struct buf in = { 0 };
        int fd = connect_to(f);
        send_text(fd, i % 2 ? GET("/ok") "GET /half" : GET("/ok"));
        assert_true(recv_until(fd, &in, "\r\n\r\nok"));
        reset(fd);
        assert_true(wait_until(&f->n_closed, i));
        buf_fini(&in);
    }
    assert_in_range(fixture_idle_cpu_ns(f, 60), 0, 30 * NS_PER_MS);
    fixture_stop(f);
}

/* "Counts as gone" is for who waits: an answer that is there at once reaches a half-closed client. */
static void a_half_closed_client_gets_an_immediate_answer(void **state)
{
    struct fixture *f = start_with(NULL);

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct buf in = { 0 };
        int fd = connect_to(f);
        send_text(fd, GET("/ok") "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nlast");
        shutdown(fd, SHUT_WR);
        recv_rest(fd, &in);
        expect_contains(&in, "\r\n\r\nok");
        expect_contains(&in, "\r\n\r\nlast");
        close(fd);
        buf_fini(&in);
    }
    fixture_stop(f);
}

/* ---- slow readers ---- */
static void small_output(struct http_config *config)
{
    config->out_high_bytes = 20000;
    config->out_max_bytes = 60000;
    config->sndbuf_bytes = 16384;
}

static void expect_flood(const struct buf *in, uint64_t n)
{
    const char *at = strstr(in->data, "\r\n\r\n") + 4;
    uint64_t seen = 0;

    while (strncmp(at, "0\r\n\r\n", 5) != 0) {
        char *data;
        size_t piece = strtoul(at, &data, 16);
        data += 2;
        for (size_t i = 0; i < piece; i++)
            assert_true(data[i] == flood_byte(seen++));
        at = data + piece + 2;
    }
    assert_int_equal(seen, n);
}

static void a_slow_reader_is_waited_for_in_bounded_memory(void **state)
{
    enum { N = 3000000 };
    struct fixture *f = start_with(small_output);
    struct buf in = { 0 };
    char request[80];
    int fd = connect_to(f);

    (void)state;
    snprintf(request, sizeof request, "GET /flood?n=%d HTTP/1.1\r\nHost: x\r\n\r\n", N);
    send_text(fd, request);
    assert_true(wait_until(&f->n_requests, 1));
    poll(NULL, 0, 50);
    assert_in_range(fixture_idle_cpu_ns(f, 50), 0, 30 * NS_PER_MS); /* blocked, not busy */
    assert_true(recv_until(fd, &in, "\r\n0\r\n\r\n"));
    expect_flood(&in, N);
    assert_in_range(atomic_load(&f->waiting_max), 1, 20000 + FLOOD_PIECE + 16);
    assert_in_range(atomic_load(&f->n_drains), 5, 1000000);
    assert_true(wait_until(&f->done[HTTP_SENT], 1));
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

static void stall_quickly(struct http_config *config)
{
    small_output(config);
    config->write_ms = 50;
}

static void a_reader_that_stalls_is_cut(void **state)
{
    struct fixture *f = start_with(stall_quickly);
    int fd = connect_to(f);

    (void)state;
    send_text(fd, GET("/flood?n=30000000"));
    assert_true(wait_until(&f->done[HTTP_STALLED], 1));
    assert_int_equal(atomic_load(&f->counters.stalled), 1);
    close(fd);
    fixture_stop(f);
}

/* The whole answer is ready at once and larger than the kernel takes: the same deadline. */
static void a_reader_that_stalls_on_a_complete_answer_is_cut(void **state)
{
    struct fixture *f = start_with(stall_quickly);
    char *body = mem_zalloc(1, 9 << 20);
    int fd = connect_to(f);

    (void)state;
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9437184\r\n\r\n");
    send_bytes(fd, body, 9 << 20);
    assert_true(wait_until(&f->done[HTTP_STALLED], 1));
    close(fd);
    free(body);
    fixture_stop(f);
}

static void stall_later(struct http_config *config)
{
    small_output(config);
    config->write_ms = 500;
}

/* Slow, but it moves: not cut, however often the deadline passes.  (The client's own buffer is small,
 * for TCP opens its window in steps of a good part of it.) */
static void a_reader_that_crawls_is_not_cut(void **state)
{
    struct fixture *f = start_with(stall_later);
    struct buf in = { 0 };
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(f->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    char bytes[20000];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rcvbuf = 16384;

    (void)state;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    assert_false(connect(fd, (struct sockaddr *)&at, sizeof at));
    send_text(fd, GET("/flood?n=2000000"));
    for (int i = 0; i < 60; i++) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        assert_true(n > 0);
        buf_add(&in, bytes, (size_t)n);
        poll(NULL, 0, 30);
    }
    assert_true(in.n < 1500000); /* it was slow indeed */
    assert_true(recv_until(fd, &in, "\r\n0\r\n\r\n"));
    expect_flood(&in, 2000000);
    assert_int_equal(atomic_load(&f->done[HTTP_STALLED]), 0);
    close(fd);
    fixture_stop(f);
    buf_fini(&in);
}

static void a_handler_that_ignores_congestion_is_cut_off(void **state)
{
    struct fixture *f = start_with(small_output);
    int fd = connect_to(f);

    (void)state;
    send_text(fd, GET("/rude?n=30000000"));
    assert_true(wait_until(&f->done[HTTP_STALLED], 1));
    assert_in_range(atomic_load(&f->waiting_max), 1, 60000 + FLOOD_PIECE + 16);
    close(fd);
    fixture_stop(f);
}

/* ---- the server's limits ---- */
static void two_conns(struct http_config *config)
{
    config->conns_max = 2;
}

static void clients_over_the_limit_are_told_so(void **state)
{
    struct fixture *f = start_with(two_conns);
    struct buf in = { 0 };
    int a = connect_to(f), b = connect_to(f), c;

    (void)state;
    send_text(a, GET("/ok"));
    send_text(b, GET("/ok"));
    assert_true(recv_until(a, &in, "\r\n\r\nok"));
    buf_clear(&in);
    assert_true(recv_until(b, &in, "\r\n\r\nok"));
    expect_closed_with(f, GET("/ok"), "HTTP/1.1 503 Service Unavailable\r\n");
    assert_int_equal(atomic_load(&f->counters.refused[HTTP_REFUSED_CONNECTIONS]), 1);
    close(b);
    assert_true(wait_until(&f->n_closed, 2));
    c = connect_to(f);
    buf_clear(&in);
    send_text(c, GET("/ok"));
    assert_true(recv_until(c, &in, "\r\n\r\nok"));
    expect_lacks(&in, "503");
    close(a);
    close(c);
    fixture_stop(f);
    buf_fini(&in);
}

static void quick_accept_pause(struct http_config *config)
{
    config->accept_pause_ms = 20;
}

/* No descriptors left: clients wait in the backlog, the loop sleeps, and later all are served. */
static void without_descriptors_it_waits_and_does_not_spin(void **state)
{
    struct fixture *f = start_with(quick_accept_pause);
    struct rlimit had, none;
    struct buf in = { 0 };
    int first = connect_to(f), late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), lowest;
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(f->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    (void)state;
    send_text(first, GET("/ok"));
    assert_true(recv_until(first, &in, "\r\n\r\nok"));
    lowest = dup(0);
    close(lowest);
    getrlimit(RLIMIT_NOFILE, &had);
    none = (struct rlimit){ .rlim_cur = (rlim_t)lowest, .rlim_max = had.rlim_max };
    assert_false(setrlimit(RLIMIT_NOFILE, &none));
    assert_false(connect(late, (struct sockaddr *)&at, sizeof at));
    send_text(late, GET("/ok"));
    assert_in_range(fixture_idle_cpu_ns(f, 150), 0, 40 * NS_PER_MS);
    assert_in_range(atomic_load(&f->counters.accept_errors), 1, 20);
    buf_clear(&in);
    send_text(first, GET("/peer"));
    assert_true(recv_until(first, &in, "\r\n\r\n127.0.0.1:")); /* the others are served meanwhile */
    assert_false(setrlimit(RLIMIT_NOFILE, &had));
    buf_clear(&in);
    assert_true(recv_until(late, &in, "\r\n\r\nok"));
    close(first);
    close(late);
    fixture_stop(f);
    buf_fini(&in);
}

static void a_listener_that_was_shut_down_does_not_spin(void **state)
{
    struct fixture *f = start_with(quick_accept_pause);

    (void)state;
    shutdown(f->listen_fd, SHUT_RDWR);
    assert_in_range(fixture_idle_cpu_ns(f, 100), 0, 40 * NS_PER_MS);
    fixture_stop(f);
}

/* ---- the end ---- */
static void drain(void *arg)
{
    struct fixture *f = arg;

    http_server_drain(f->server);
}

static void drain_finishes_what_runs_and_closes_the_rest(void **state)
{
    struct fixture *f = start_with(NULL);
    struct buf in = { 0 };
    int idle = connect_to(f), held = connect_to(f), stream = connect_to(f), late;
    char byte;

    (void)state;
    send_text(idle, GET("/ok"));
    assert_true(recv_until(idle, &in, "\r\n\r\nok"));
    send_text(held, GET("/hold"));
    send_text(stream, GET("/stream"));
    assert_true(wait_until(&f->n_requests, 3));
    loop_post(f->loop, drain, f);
    assert_int_equal(recv(idle, &byte, 1, 0), 0);
    late = connect_to(
        f); /* the socket still listens for other processes: it is just not served here */
    assert_int_equal(atomic_load(&f->n_opened), 3);
    assert_int_equal(atomic_load(&f->n_drained), 0);
    fixture_release(f);
    buf_clear(&in);
    recv_rest(held, &in);
    expect_contains(&in, "Connection: close\r\n");
    expect_contains(&in, "held");
    recv_rest(stream, &in);
    expect_contains(&in, "\r\n0\r\n\r\n");
    assert_true(wait_until(&f->n_drained, 1));
    poll(NULL, 0, 20);
    assert_int_equal(atomic_load(&f->n_drained), 1);
    assert_int_equal(atomic_load(&f->n_opened), 3);
    close(idle), close(held), close(stream), close(late);
    fixture_stop(f);
    buf_fini(&in);
}

static void a_drained_server_without_clients_says_so(void **state)
{
    struct fixture *f = start_with(NULL);

    (void)state;
    loop_post(f->loop, drain, f);
    assert_true(wait_until(&f->n_drained, 1));
    fixture_stop(f);
}

/* on_done comes for every request that on_head saw, also when the server is taken down over it. */
static void freeing_the_server_ends_every_request(void **state)
{
    struct fixture *f = start_with(NULL);
    int fds[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        fds[i] = connect_to(f);
    send_text(fds[0], GET("/hold"));
    send_text(fds[1], GET("/stream"));
    send_text(fds[2], "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    assert_true(wait_until(&f->n_heads, 3));
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    http_server_free(f->server);
    assert_int_equal(atomic_load(&f->done[HTTP_SHUTDOWN]), 3);
    assert_int_equal(atomic_load(&f->n_closed), 3);
    loop_free(f->loop);
    close(f->listen_fd);
    free(f);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_head_is_refused),
        cmocka_unit_test(a_trickling_head_is_refused),
        cmocka_unit_test(a_server_that_stood_still_blames_nobody),
        cmocka_unit_test(a_client_that_never_speaks_is_closed_without_a_word),
        cmocka_unit_test(an_idle_connection_is_closed),
        cmocka_unit_test(a_trickling_body_is_refused),
        cmocka_unit_test(a_steady_body_may_take_many_periods),
        cmocka_unit_test(a_request_may_wait_for_its_answer),
        cmocka_unit_test(a_client_that_leaves_is_noticed_in_every_phase),
        cmocka_unit_test(an_end_behind_unread_bytes_is_noticed),
        cmocka_unit_test(a_client_that_pipelines_while_it_waits_is_held_back),
        cmocka_unit_test(a_reset_between_requests_is_no_trouble),
        cmocka_unit_test(a_half_closed_client_gets_an_immediate_answer),
        cmocka_unit_test(a_slow_reader_is_waited_for_in_bounded_memory),
        cmocka_unit_test(a_reader_that_stalls_is_cut),
        cmocka_unit_test(a_reader_that_stalls_on_a_complete_answer_is_cut),
        cmocka_unit_test(a_reader_that_crawls_is_not_cut),
        cmocka_unit_test(a_handler_that_ignores_congestion_is_cut_off),
        cmocka_unit_test(clients_over_the_limit_are_told_so),
        cmocka_unit_test(without_descriptors_it_waits_and_does_not_spin),
        cmocka_unit_test(a_listener_that_was_shut_down_does_not_spin),
        cmocka_unit_test(drain_finishes_what_runs_and_closes_the_rest),
        cmocka_unit_test(a_drained_server_without_clients_says_so),
        cmocka_unit_test(freeing_the_server_ends_every_request),
    };

    return cmocka_run_group_tests_name("http_phases", tests, NULL, NULL);
}
