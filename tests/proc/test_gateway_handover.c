/* test_gateway_handover.c - what a gateway owes to llmd so that the next gateway can go on, and what becomes
 * of those with whom nobody can: clients that left, journals that were full, descriptors that were lost.
 * None of it may block a gateway, lose a permit, or leave the counters unbalanced. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"
#include "tests/gateway/talk.h"

#define STREAM "{\"prompt\":\"Once upon a time\",\"max_tokens\":300,\"seed\":7,\"stream\":true}"

static struct harness h;

static void open_house(void)
{
    harness_start(&h, 1, NULL);
    harness_start_worker(&h, 0);
}

static void expect_balance(void)
{
    uint64_t gone = 0;

    for (enum stat_id s = STAT_requests_finished_stop; s <= STAT_requests_refused_unavailable; s++)
        gone += harness_stat(&h, s);
    assert_int_equal(gone, harness_stat(&h, STAT_requests_generate));
}

static void close_house(void)
{
    assert_true(harness_wait_stat(&h, STAT_connections_open, 0));
    assert_int_equal(harness_stat(&h, STAT_requests_active), 0);
    assert_int_equal(harness_stop(&h), 0);
    assert_int_equal(connections_count(&h.connections), 0);
    assert_int_equal(connections_blocks_used(&h.connections), 0);
    expect_balance();
    harness_free(&h);
    h = (struct harness){ 0 };
}

static void kill_and_respawn(void)
{
    harness_kill(&h);
    assert_true(harness_respawn(&h));
}

static void get_version(int fd)
{
    static const char request[] = "GET /version HTTP/1.1\r\nHost: t\r\n\r\n";
    struct answer a = { 0 };

    client_send(fd, request, sizeof request - 1);
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
}

/* Arm fault points, and be sure of it: the next message has been obeyed too. */
static void arm(const char *points)
{
    struct answer a = { 0 };

    harness_reload(&h, "fault_points", points);
    harness_say_service(&h, 0, false, "a test");
    do
        client_get(h.port, "/health/ready", &a);
    while (a.status != 503);
    harness_say_service(&h, 0, true, "");
    do
        client_get(h.port, "/health/ready", &a);
    while (a.status != 200);
    answer_fini(&a);
}

/* ---- llmd ---- */

static void a_new_llmd_is_given_everything_again(void **state)
{
    int fds[5];

    (void)state;
    open_house();
    for (int i = 0; i < 5; i++)
        fds[i] = client_connect(h.port);
    assert_true(harness_take(&h, 5));
    for (int round = 1; round <= 2; round++) {
        harness_adopt(&h);
        assert_true(harness_take(&h, 5 + 5 * (uint32_t)round));
        assert_int_equal(h.n_ready, round);
        assert_int_equal(h.ready_pid, h.pid);
        for (uint32_t i = 0; i < h.n_kept; i++) /* each was in the first five */
            assert_in_range(h.kept[i].generation, 1, 1);
    }
    kill_and_respawn(); /* three descriptors of each: one is taken */
    for (int i = 0; i < 5; i++) {
        get_version(fds[i]);
        close(fds[i]);
    }
    assert_int_equal(harness_stat(&h, STAT_connections_resumed), 5);
    close_house();
}

/* llmd is dead, and the other end of the socket lies in a store: nobody reads. */
static void a_full_control_socket_blocks_nobody(void **state)
{
    enum { N = 400 };
    static int fds[N];

    (void)state;
    open_house();
    for (int i = 0; i < N; i++) {
        fds[i] = client_connect(h.port);
        get_version(fds[i]);
    }
    assert_true(harness_take(&h, N));
    kill_and_respawn();
    for (int i = 0; i < N; i++) {
        get_version(fds[i]);
        close(fds[i]);
    }
    assert_int_equal(harness_stat(&h, STAT_connections_lost), 0);
    close_house();
}

/* ... and the gateway dies as well, with connections that it could not hand over. */
static void what_did_not_fit_is_handed_over_by_the_keeper(void **state)
{
    enum { N = 400 };
    static int fds[N];

    (void)state;
    open_house();
    for (int i = 0; i < N; i++) {
        fds[i] = client_connect(h.port);
        get_version(fds[i]);
    }
    kill_and_respawn();
    for (int i = 0; i < N; i++) {
        get_version(fds[i]);
        close(fds[i]);
    }
    close_house();
}

static void reload_arms_fault_points(void **state)
{
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house();
    fd = client_connect(h.port);
    get_version(fd);
    arm("gateway.parsed=kill");
    client_post(fd, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":3}");
    assert_true(harness_wait_dead(&h, 5000));
    assert_true(harness_respawn(&h));
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
    close(fd);
    close_house();
}

/* A loop that turns no more is found by llmd on the board, whatever the other loops do. */
static void a_hung_loop_stops_the_heartbeat(void **state)
{
    const _Atomic uint64_t *beat;
    uint64_t age_ns = 0;
    int fd;

    (void)state;
    open_house();
    beat = &board_slot(&h.board, BOARD_SLOT_GATEWAY)->heartbeat_ns;
    for (int i = 0; i < 150; i++) {
        age_ns = clock_mono_ns() - atomic_load(beat);
        usleep(10000);
    }
    assert_true(age_ns < 8 * NS_PER_S);
    arm("gateway.parsed=loop");
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":3}");
    for (int i = 0; i < 2000 && age_ns < 3 * NS_PER_S; i++) {
        age_ns = clock_mono_ns() - atomic_load(beat);
        usleep(10000);
    }
    assert_true(age_ns >= 3 * NS_PER_S);
    kill_and_respawn();
    struct answer a = { 0 };
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
    close(fd);
    close_house();
}

/* ---- clients ---- */

static void idle_connections_are_kept(void **state)
{
    enum { N = 20 };
    int fds[N];

    (void)state;
    open_house();
    for (int i = 0; i < N; i++) {
        fds[i] = client_connect(h.port);
        if (i % 2)
            get_version(fds[i]);
    }
    for (int round = 0; round < 3; round++)
        kill_and_respawn();
    for (int i = 0; i < N; i++) {
        get_version(fds[i]);
        close(fds[i]);
    }
    assert_int_equal(harness_stat(&h, STAT_connections_lost), 0);
    assert_int_equal(harness_stat(&h, STAT_connections_accepted), N);
    close_house();
}

static void start_stream(int *fd)
{
    struct answer a = { 0 };

    atomic_store(&h.workers[0].step_us, 3000);
    *fd = client_connect(h.port);
    client_post(*fd, "/v1/completions", "", STREAM);
    client_read_some(*fd, &a, 500);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
}

/* Its descriptor comes back, and nobody is at the other end. */
static void a_client_that_left_meanwhile_costs_nothing(void **state)
{
    int fd;

    (void)state;
    open_house();
    start_stream(&fd);
    harness_kill(&h);
    close(fd);
    assert_true(harness_respawn(&h));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    for (int i = 0; i < 5000 && atomic_load(&h.workers[0].n_live) > 0; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&h.workers[0].n_live), 0);
    assert_int_equal(harness_stat(&h, STAT_requests_generate), 1);
    close_house();
}

/* The answer is out and lies in the kernel, the gateway dies while it ends the connection: the client reads all
 * of it and the end, at once, and nobody goes on with that connection. */
static void a_connection_that_was_being_ended_is_over(void **state)
{
    static const char body[] = "{\"prompt\":\"x\",\"max_tokens\":300,\"logprobs\":20,\"n\":4}";
    const char *points[] = { "gateway.shut=kill", "gateway.closed=kill" };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct answer a = { 0 };
        int fd;
        open_house();
        h.fault_points = points[i];
        kill_and_respawn();
        fd = client_connect(h.port);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 65536 }, sizeof(int));
        client_post(fd, "/v1/completions", "Connection: close\r\n", body);
        assert_true(harness_wait_dead(&h, 10000));
        h.fault_points = NULL;
        assert_true(harness_respawn(&h));
        client_read(fd, &a);
        assert_int_equal(a.status, 200);
        assert_true(a.is_whole);
        assert_true(a.body.n > 200000);
        assert_int_equal(recv(fd, &(char){ 0 }, 1, 0), 0); /* the client gives up after a minute */
        assert_int_equal(harness_stat(&h, STAT_connections_resumed), 0);
        answer_fini(&a);
        close(fd);
        close_house();
    }
}

/* As after the death of an llmd without a store. */
static void lost_descriptors_are_accounted_for(void **state)
{
    int fd;

    (void)state;
    open_house();
    start_stream(&fd);
    h.loses_connections = true;
    kill_and_respawn();
    assert_int_equal(harness_stat(&h, STAT_connections_lost), 1);
    assert_int_equal(harness_stat(&h, STAT_requests_cancelled), 1);
    assert_int_equal(connections_count(&h.connections), 0);
    for (int i = 0; i < 5000 && atomic_load(&h.workers[0].n_live) > 0; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&h.workers[0].n_live), 0);
    close(fd);
    close_house();
}

/* ---- uploads ---- */

static void post_head(int fd, size_t n)
{
    char head[256];

    snprintf(head, sizeof head,
             "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n",
             n);
    client_send(fd, head, strlen(head));
}

/* A small request in n bytes. */
static char *long_body(size_t n)
{
    static const char tail[] = "\",\"prompt\":\"Big\",\"max_tokens\":5,\"seed\":1}";
    char *body = malloc(n + 1);
    size_t at = (size_t)sprintf(body, "{\"user\":\"");

    while (at < n - (sizeof tail - 1))
        body[at] = at % 7 ? 'a' : ' ', at++;
    memcpy(body + at, tail, sizeof tail);
    return body;
}

static void an_upload_of_megabytes_goes_on(void **state)
{
    enum { N = 5 << 20 };
    char *body = long_body(N);
    struct answer calm = { 0 }, rough = { 0 };
    int fd;

    (void)state;
    open_house();
    client_request(h.port, "/v1/completions", "", body, &calm);
    assert_int_equal(calm.status, 200);
    fd = client_connect(h.port);
    post_head(fd, N);
    for (size_t at = 0; at < N;) {
        size_t n = N - at < N / 4 ? N - at : N / 4;
        client_send(fd, body + at, n);
        at += n;
        kill_and_respawn();
    }
    client_read(fd, &rough);
    assert_int_equal(rough.status, 200);
    assert_string_equal(strstr(answer_body(&rough), "\"choices\""),
                        strstr(answer_body(&calm), "\"choices\""));
    close(fd);
    answer_fini(&calm);
    answer_fini(&rough);
    free(body);
    close_house();
}

/* What the journal has no room for is served, but does not outlive the gateway; the others do. */
static void a_full_journal_costs_only_who_filled_it(void **state)
{
    enum { N = 200 << 10 };
    char *body = long_body(N), byte;
    struct answer a = { 0 };
    int big, small;

    (void)state;
    h.journal_bytes = 3 * CONNECTIONS_BLOCK_BYTES;
    open_house();
    small = client_connect(h.port);
    client_send(small, "GET /ver", 8);
    for (int i = 0; i < 5000 && connections_blocks_used(&h.connections) < 1; i++)
        usleep(1000); /* it has its block before others take all */
    client_request(h.port, "/v1/completions", "", body, &a);
    assert_int_equal(a.status, 200);
    big = client_connect(h.port);
    post_head(big, N);
    client_send(big, body, N / 2);
    for (int i = 0; i < 5000 && connections_blocks_used(&h.connections) < 3; i++)
        usleep(1000);
    usleep(20000); /* and some more of it is read */
    kill_and_respawn();
    assert_int_equal(recv(big, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    client_send(small, "sion HTTP/1.1\r\nHost: t\r\n\r\n", 26);
    client_read(small, &a);
    assert_int_equal(a.status, 200);
    assert_true(harness_wait_stat(&h, STAT_connections_lost, 1)); /* another thread's */
    assert_true(harness_wait_stat(&h, STAT_requests_finished_error, 1));
    answer_fini(&a);
    close(small);
    close(big);
    free(body);
    close_house();
}

/* ---- what the first gateway drew or decided ---- */

static void read_generated(const struct answer *a, char *text, size_t n, unsigned long long *seed)
{
    const char *at = strstr(answer_body(a), "\"generated_text\":\"");

    assert_non_null(at);
    snprintf(text, n, "%.*s", (int)strcspn(at + 18, "\""), at + 18);
    at = strstr(answer_body(a), "\"seed\":");
    assert_non_null(at);
    *seed = strtoull(at + 7, NULL, 10);
}

/* Who asks again with the seed that was told must get the same: so the seed was not drawn anew. */
static void a_drawn_seed_is_kept(void **state)
{
    char body[256], text[2][4096];
    unsigned long long seed, again;
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house();
    atomic_store(&h.workers[0].step_us, 3000);
    fd = client_connect(h.port);
    client_post(fd, "/generate", "",
                "{\"inputs\":\"One\",\"parameters\":{\"do_sample\":true,\"details\":true,"
                "\"max_new_tokens\":100}}");
    for (int i = 0; i < 5000 && atomic_load(&h.workers[0].n_live) == 0; i++)
        usleep(1000);
    kill_and_respawn();
    client_read(fd, &a);
    read_generated(&a, text[0], sizeof text[0], &seed);
    atomic_store(&h.workers[0].step_us, 0);
    snprintf(body, sizeof body,
             "{\"inputs\":\"One\",\"parameters\":{\"do_sample\":true,\"details\":true,"
             "\"max_new_tokens\":100,\"seed\":%llu}}",
             seed);
    client_request(h.port, "/generate", "", body, &a);
    read_generated(&a, text[1], sizeof text[1], &again);
    assert_string_equal(text[0], text[1]);
    close(fd);
    answer_fini(&a);
    close_house();
}

/* The worker gives up after the first gateway has died: the stream says so once, at its end, whichever
 * gateway writes it. */
static void a_failure_after_the_death_is_told(void **state)
{
    struct talk t = { .name = "stream" };
    const char *error;

    (void)state;
    open_house();
    atomic_store(&h.workers[0].step_us, 3000);
    talk_post(&t, "/v1/completions", "", STREAM, "close");
    talk_start(&t, h.port);
    while (t.in.n < 3000)
        talk_turn(&t, 1, 10);
    harness_kill(&h);
    atomic_store(&h.workers[0].fail_at, 200);
    assert_true(harness_respawn(&h));
    while (t.in.n < 30000)
        talk_turn(&t, 1, 10);
    kill_and_respawn();
    while (talk_turn(&t, 1, 10) > 0)
        ;
    assert_false(t.is_broken);
    error = memmem(t.in.data, t.in.n, "injected failure", 16);
    assert_non_null(error);
    assert_null(memmem(error + 1, t.in.n - (size_t)(error + 1 - t.in.data), "injected", 8));
    assert_memory_equal(t.in.data + t.in.n - 5, "0\r\n\r\n", 5);
    talk_fini(&t);
    assert_int_equal(harness_stat(&h, STAT_requests_finished_error), 1);
    close_house();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_llmd_is_given_everything_again),
        cmocka_unit_test(a_full_control_socket_blocks_nobody),
        cmocka_unit_test(what_did_not_fit_is_handed_over_by_the_keeper),
        cmocka_unit_test(reload_arms_fault_points),
        cmocka_unit_test(a_hung_loop_stops_the_heartbeat),
        cmocka_unit_test(idle_connections_are_kept),
        cmocka_unit_test(a_client_that_left_meanwhile_costs_nothing),
        cmocka_unit_test(a_connection_that_was_being_ended_is_over),
        cmocka_unit_test(lost_descriptors_are_accounted_for),
        cmocka_unit_test(an_upload_of_megabytes_goes_on),
        cmocka_unit_test(a_full_journal_costs_only_who_filled_it),
        cmocka_unit_test(a_drawn_seed_is_kept),
        cmocka_unit_test(a_failure_after_the_death_is_told),
    };

    return cmocka_run_group_tests_name("gateway_handover", tests, NULL, NULL);
}
