/* test_gateway_life.c - what happens when things go away: clients, workers, groups, the gateway's own
 * permission to live.  Nothing may be lost, repeated, or left behind. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"

#define STREAM_BODY                                                                                \
    "{\"prompt\":\"Once upon a time\",\"max_tokens\":200,\"seed\":7,\"stream\":true,"              \
    "\"request_id\":\"r\",\"return_token_ids\":true}"

static void open_house(struct harness *h, uint32_t n_groups, const struct harness_setting *settings)
{
    harness_start(h, n_groups, settings);
    for (uint32_t g = 0; g < n_groups; g++)
        harness_start_worker(h, g);
}

static void close_house(struct harness *h)
{
    assert_int_equal(harness_stop(h), 0);
    assert_int_equal(connections_count(&h->connections), 0);
    assert_int_equal(harness_stat(h, STAT_requests_active), 0);
    assert_int_equal(harness_stat(h, STAT_connections_open), 0);
    harness_free(h);
}

/* The `created` second differs between two runs, nothing else may. */
static void blank_created(struct buf *b)
{
    static const char key[] = "\"created\":";
    size_t n = sizeof key - 1;

    /* By hand: a sanitizer's strstr() looks at the whole rest of the text at each call. */
    for (size_t i = 0; i + n < b->n; i++)
        if (b->data[i] == '"' && memcmp(b->data + i, key, n) == 0)
            for (i += n; i < b->n && b->data[i] >= '0' && b->data[i] <= '9'; i++)
                b->data[i] = '0';
}

static void take_stream(struct harness *h, struct answer *a)
{
    client_request(h->port, "/v1/completions", "", STREAM_BODY, a);
    assert_int_equal(a->status, 200);
    assert_true(a->is_whole);
    blank_created(&a->body);
}

/* ---- workers ---- */

/* mode 1: the ledger survives; 2: it is lost too, and the gateway brings back what it has. */
static void stream_survives_restart(uint32_t mode)
{
    static struct harness h;
    struct answer calm = { 0 }, rough = { 0 };
    int fd;

    open_house(&h, 1, NULL);
    take_stream(&h, &calm);
    atomic_store(&h.workers[0].step_us, 2000);
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "", STREAM_BODY);
    for (int i = 0; i < 3; i++) {
        uint32_t resyncs = atomic_load(&h.workers[0].n_resyncs);
        usleep(50000);
        atomic_store(&h.workers[0].restart, mode);
        assert_true(harness_wait_for(&h.workers[0].n_resyncs, resyncs + 2));
    }
    client_read(fd, &rough);
    close(fd);
    blank_created(&rough.body);
    assert_true(rough.is_whole);
    assert_string_equal(answer_body(&rough), answer_body(&calm));
    if (mode == 2) {
        assert_int_equal(harness_stat(&h, STAT_sequences_resubmitted), 3);
        assert_true(atomic_load(&h.workers[0].n_resubmitted_tokens) > 0);
    } else {
        assert_int_equal(harness_stat(&h, STAT_sequences_resubmitted), 0);
        assert_true(atomic_load(&h.workers[0].n_held_listed) >= 3);
    }
    answer_fini(&calm);
    answer_fini(&rough);
    close_house(&h);
}

static void worker_restart_is_a_pause(void **state)
{
    (void)state;
    stream_survives_restart(1);
}

static void lost_ledger_is_a_pause_too(void **state)
{
    (void)state;
    stream_survives_restart(2);
}

static void tokens_sent_twice_are_taken_once(void **state)
{
    static struct harness h;
    struct answer calm = { 0 }, twice = { 0 };

    (void)state;
    open_house(&h, 1, NULL);
    take_stream(&h, &calm);
    atomic_store(&h.workers[0].sends_twice, true);
    take_stream(&h, &twice);
    assert_string_equal(answer_body(&twice), answer_body(&calm));
    assert_true(harness_stat(&h, STAT_duplicate_tokens_dropped) > 100);
    answer_fini(&calm);
    answer_fini(&twice);
    close_house(&h);
}

static void full_group_is_asked_again(void **state)
{
    static struct harness h;
    struct answer a = { 0 };

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].refuse_first, 3);
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One\",\"max_tokens\":2}", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(atomic_load(&h.workers[0].n_submits), 4);
    answer_fini(&a);
    close_house(&h);
}

static void worker_error_is_an_answer(void **state)
{
    static struct harness h;
    struct answer a = { 0 };

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].fail_at, 3);
    client_request(h.port, "/generate", "", "{\"inputs\":\"One\"}", &a);
    assert_int_equal(a.status, 424);
    assert_string_equal(answer_body(&a),
                        "{\"error\":\"Request failed during generation: injected failure\","
                        "\"error_type\":\"generation\"}");
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One\",\"stream\":true}", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_body(&a),
                           "data: {\"error\": {\"message\": \"injected failure\", \"type\": "
                           "\"InternalServerError\", \"param\": null, \"code\": 500}}\n\n"
                           "data: [DONE]\n\n"));
    client_request(h.port, "/generate_stream", "", "{\"inputs\":\"One\"}", &a);
    assert_non_null(strstr(answer_body(&a), "\"error_type\":\"generation\"}\n\n"));
    assert_int_equal(harness_stat(&h, STAT_requests_finished_error), 3);
    answer_fini(&a);
    close_house(&h);
}

/* ---- groups ---- */

static void no_group_is_503_with_the_cause(void **state)
{
    static const struct harness_setting settings[] = { { "unavailable_wait_s", "1" }, { 0 } };
    static struct harness h;
    struct answer a = { 0 };

    (void)state;
    harness_start(&h, 1, settings);
    harness_say_service(&h, 0, false, "signal 9 (Killed)");
    client_get(h.port, "/health/ready", &a);
    assert_int_equal(a.status, 503);
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One\",\"stream\":true}", &a);
    assert_int_equal(a.status, 503);
    assert_string_equal(answer_body(&a),
                        "{\"error\":{\"message\":\"no group is in service; group 0: signal 9 "
                        "(Killed)\",\"type\":\"ServiceUnavailableError\",\"param\":null,"
                        "\"code\":503}}");
    assert_non_null(answer_header(&a, "Retry-After"));
    assert_int_equal(harness_stat(&h, STAT_requests_refused_unavailable), 1);
    client_get(h.port, "/health", &a);
    assert_int_equal(a.status, 503);
    assert_string_equal(answer_body(&a),
                        "{\"error\":\"unhealthy\",\"error_type\":\"healthcheck\"}");
    answer_fini(&a);
    close_house(&h);
}

/* Each in the words of its dialect, and with the time to come back. */
static void every_dialect_says_why_nobody_serves(void **state)
{
    static const struct harness_setting settings[] = { { "unavailable_wait_s", "1" }, { 0 } };
    static const char *const requests[][2] = {
        { "/generate", "{\"inputs\":\"One\"}" },
        { "/generate_stream", "{\"inputs\":\"One\"}" },
        { "/", "{\"inputs\":\"One\",\"stream\":true}" },
        { "/v1/completions", "{\"prompt\":\"One\"}" },
        { "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"One\"}]}" },
        { "/v1/chat/completions",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"One\"}],\"stream\":true}" },
        { "/predict", "{\"inputs\":\"One\"}" },
        { "/predict", "{\"inputs\":\"One\",\"stream\":true}" },
    };
    enum { N = sizeof requests / sizeof *requests };
    static struct harness h;
    int fds[N];

    (void)state;
    harness_start(&h, 1, settings);
    harness_say_service(&h, 0, false, "exit code 1: cannot read the model");
    for (int i = 0; i < N; i++) {
        fds[i] = client_connect(h.port);
        client_post(fds[i], requests[i][0], "", requests[i][1]);
    }
    for (int i = 0; i < N; i++) {
        struct answer a = { 0 };
        client_read(fds[i], &a);
        if (a.status != 503 || !answer_header(&a, "Retry-After") ||
            !strstr(answer_body(&a), "group 0: exit code 1: cannot read the model"))
            fail_msg("%s %s: %d %s", requests[i][0], requests[i][1], a.status, answer_body(&a));
        close(fds[i]);
        answer_fini(&a);
    }
    assert_int_equal(harness_stat(&h, STAT_requests_refused_unavailable), N);
    close_house(&h);
}

/* A worker that says nothing, and as many waiting requests as you like: no probe looks at either. */
static void probes_answer_while_workers_are_silent(void **state)
{
    static struct harness h;
    struct answer a = { 0 };
    uint64_t worst_ns = 0;
    int fds[32];

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].is_silent, true);
    for (int i = 0; i < 32; i++) {
        fds[i] = client_connect(h.port);
        client_post(fds[i], "/v1/completions", "", STREAM_BODY);
    }
    assert_true(harness_wait_stat(&h, STAT_requests_active, 32));
    for (int i = 0; i < 100; i++) {
        static const char *const paths[] = { "/health", "/health/live", "/health/ready", "/ping" };
        uint64_t from_ns = clock_mono_ns();
        client_get(h.port, paths[i % 4], &a);
        assert_int_equal(a.status, 200);
        worst_ns = clock_mono_ns() - from_ns > worst_ns ? clock_mono_ns() - from_ns : worst_ns;
    }
    print_message("slowest probe of 100: %.1f ms\n", (double)worst_ns / 1e6);
    for (int i = 0; i < 32; i++)
        close(fds[i]);
    answer_fini(&a);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    close_house(&h);
}

/* A pause that clients only wait through must not make an orchestrator kill the container. */
static void health_outlasts_a_pause(void **state)
{
    static struct harness h;
    struct answer a = { 0 };

    (void)state;
    open_house(&h, 1, NULL);
    harness_say_service(&h, 0, false, "signal 9 (Killed)");
    do
        client_get(h.port, "/health/ready", &a);
    while (a.status == 200);
    assert_int_equal(a.status, 503);
    client_get(h.port, "/health", &a);
    assert_int_equal(a.status, 200);
    harness_say_service(&h, 0, true, "");
    do
        client_get(h.port, "/health/ready", &a);
    while (a.status == 503);
    answer_fini(&a);
    close_house(&h);
}

static void request_waits_for_a_late_group(void **state)
{
    static struct harness h;
    struct answer a = { 0 };
    int fd;

    (void)state;
    harness_start(&h, 1, NULL);
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "", "{\"prompt\":\"One\",\"max_tokens\":2}");
    usleep(100000);
    harness_start_worker(&h, 0);
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    close(fd);
    answer_fini(&a);
    close_house(&h);
}

/* Until two groups have so many sequences. */
static bool wait_live(struct harness *h, uint32_t n)
{
    for (int i = 0; i < 30000; i++) {
        if (atomic_load(&h->workers[0].n_live) + atomic_load(&h->workers[1].n_live) == n)
            return true;
        usleep(1000);
    }
    return false;
}

/* Both groups get work; one that goes for good gives its sequences to the other, with their tokens. */
static void lost_group_hands_its_streams_over(void **state)
{
    static struct harness h;
    struct answer calm = { 0 }, rough[4] = { 0 };
    int fds[4];

    (void)state;
    open_house(&h, 2, NULL);
    take_stream(&h, &calm);
    for (int g = 0; g < 2; g++) {
        atomic_store(&h.workers[g].step_us, 10000);
        atomic_store(&h.workers[g].is_paused, true);
    }
    for (uint32_t i = 0; i < 4; i++) {
        fds[i] = client_connect(h.port);
        client_post(fds[i], "/v1/completions", "", STREAM_BODY);
        assert_true(wait_live(&h, i + 1));
    }
    assert_true(atomic_load(&h.workers[0].n_live) > 0);
    assert_true(atomic_load(&h.workers[1].n_live) > 0);
    for (int g = 0; g < 2; g++)
        atomic_store(&h.workers[g].is_paused, false);
    usleep(20000); /* some tokens of two seconds' */
    harness_stop_worker(&h, 1);
    harness_say_service(&h, 1, false, "gone");
    for (int i = 0; i < 4; i++) {
        client_read(fds[i], &rough[i]);
        close(fds[i]);
        blank_created(&rough[i].body);
        assert_string_equal(answer_body(&rough[i]), answer_body(&calm));
        answer_fini(&rough[i]);
    }
    assert_true(harness_stat(&h, STAT_sequences_resubmitted) > 0);
    answer_fini(&calm);
    close_house(&h);
}

/* ---- clients ---- */

static void leaving_client_cancels(void **state)
{
    static const char *const paths[] = { "/generate", "/generate_stream", "/v1/completions" };
    static const char *const bodies[] = { "{\"inputs\":\"One\"}", "{\"inputs\":\"One\"}",
                                          "{\"prompt\":\"One\",\"max_tokens\":300,\"n\":3}" };
    static struct harness h;
    uint32_t cancels = 0;

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].step_us, 20000);
    for (int i = 0; i < 3; i++) {
        int fd = client_connect(h.port);
        client_post(fd, paths[i], "", bodies[i]);
        cancels += i == 2 ? 3 : 1;
        assert_true(harness_wait_for(&h.workers[0].n_submits, cancels));
        usleep(40000); /* some tokens of two seconds' */
        close(fd);
        assert_true(harness_wait_for(&h.workers[0].n_cancels, cancels));
    }
    assert_true(harness_wait_stat(&h, STAT_requests_cancelled, 3));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    assert_int_equal(atomic_load(&h.workers[0].n_live), 0);
    close_house(&h);
}

/* Also before a group has taken it. */
static void leaving_client_leaves_the_queue(void **state)
{
    static struct harness h;
    int fd;

    (void)state;
    harness_start(&h, 1, NULL);
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "", "{\"prompt\":\"One\"}");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 1));
    close(fd);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    harness_start_worker(&h, 0);
    assert_int_equal(atomic_load(&h.workers[0].n_submits), 0);
    close_house(&h);
}

static void random_disconnects_leave_nothing(void **state)
{
    static const char *const paths[] = { "/generate", "/generate_stream", "/predict",
                                         "/v1/completions", "/v1/chat/completions" };
    static const char *const bodies[] = {
        "{\"inputs\":\"One\",\"parameters\":{\"details\":true}}",
        "{\"inputs\":\"One\"}",
        "{\"inputs\":\"One\",\"stream\":true,\"parameters\":{\"max_new_tokens\":400}}",
        "{\"prompt\":[\"One\",\"Two\"],\"max_tokens\":300,\"stream\":true,\"n\":2}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true}",
    };
    static struct harness h;
    unsigned seed = (unsigned)getpid();
    int fds_before;

    (void)state;
    print_message("seed %u\n", seed);
    srand(seed);
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].step_us, 300);
    fds_before = harness_n_fds(&h);
    for (int i = 0; i < 200; i++) {
        int which = rand() % 5, fd = client_connect(h.port);
        char head[256];
        size_t n = strlen(bodies[which]);
        int head_n = snprintf(head, sizeof head,
                              "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                              "Content-Length: %zu\r\n\r\n",
                              paths[which], n);
        assert_true(fd >= 0);
        if (rand() % 4 == 0) { /* in the head or in the body */
            client_send(fd, head, (size_t)(rand() % head_n));
        } else if (rand() % 4 == 0) {
            client_send(fd, head, (size_t)head_n);
            client_send(fd, bodies[which], (size_t)rand() % n);
        } else {
            client_send(fd, head, (size_t)head_n);
            client_send(fd, bodies[which], n);
        }
        usleep((useconds_t)(rand() % 6000));
        if (rand() % 2 == 0) { /* a reset instead of an orderly end */
            struct linger l = { .l_onoff = 1 };
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
        }
        close(fd);
    }
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    assert_true(harness_wait_stat(&h, STAT_connections_open, 0));
    for (int i = 0; i < 2000 && atomic_load(&h.workers[0].n_live) > 0; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&h.workers[0].n_live), 0);
    assert_int_equal(connections_count(&h.connections), 0);
    assert_int_equal(harness_n_fds(&h), fds_before);
    close_house(&h);
}

/* A client that does not read must not make the gateway hold its text, nor stop the others. */
static void slow_reader_gets_everything(void **state)
{
    static struct harness h;
    struct answer calm = { 0 }, slow = { 0 };
    const char *body = "{\"prompt\":\"One\",\"max_tokens\":300,\"n\":40,\"seed\":3,"
                       "\"stream\":true,\"logprobs\":5,\"request_id\":\"r\"}";
    int fd;

    (void)state;
    open_house(&h, 1, NULL);
    client_request(h.port, "/v1/completions", "", body, &calm);
    assert_true(calm.body.n > 4u << 20); /* more than the kernel's buffers and the gateway's hold */
    fd = client_connect(h.port);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 131072 }, sizeof(int)), 0);
    client_post(fd, "/v1/completions", "", body);
    usleep(500000);
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"One\",\"parameters\":{\"max_new_tokens\":2}}", &slow);
    assert_int_equal(slow.status, 200);
    client_read(fd, &slow);
    close(fd);
    blank_created(&calm.body);
    blank_created(&slow.body);
    assert_true(slow.is_whole);
    assert_int_equal(slow.body.n, calm.body.n);
    assert_memory_equal(slow.body.data, calm.body.data, calm.body.n);
    answer_fini(&calm);
    answer_fini(&slow);
    close_house(&h);
}

/* ---- admission, deadline, drain ---- */

static void too_many_requests_are_429(void **state)
{
    static const struct harness_setting settings[] = { { "max_concurrent_requests", "2" }, { 0 } };
    static struct harness h;
    struct answer a = { 0 };
    int fds[2];

    (void)state;
    open_house(&h, 1, settings);
    atomic_store(&h.workers[0].is_paused, true);
    for (int i = 0; i < 2; i++) {
        fds[i] = client_connect(h.port);
        client_post(fds[i], "/generate", "",
                    "{\"inputs\":\"One\",\"parameters\":{\"max_new_tokens\":2}}");
    }
    assert_true(harness_wait_stat(&h, STAT_requests_active, 2));
    client_request(h.port, "/generate", "", "{\"inputs\":\"One\"}", &a);
    assert_int_equal(a.status, 429);
    assert_string_equal(answer_body(&a),
                        "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    client_request(h.port, "/generate_stream", "", "{\"inputs\":\"One\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_body(&a), "data: {\"error\":\"Model is overloaded\","
                                         "\"error_type\":\"overloaded\"}\n\n");
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One\"}", &a);
    assert_int_equal(a.status, 429);
    assert_non_null(answer_header(&a, "Retry-After"));
    assert_non_null(strstr(answer_body(&a), "\"type\":\"RateLimitError\""));
    atomic_store(&h.workers[0].is_paused, false);
    for (int i = 0; i < 2; i++) {
        client_read(fds[i], &a);
        assert_int_equal(a.status, 200);
        close(fds[i]);
    }
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"One\",\"parameters\":{\"max_new_tokens\":2}}", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_overload), 3);
    answer_fini(&a);
    close_house(&h);
}

static void deadline_ends_a_request(void **state)
{
    static const struct harness_setting settings[] = { { "request_timeout_s", "1" }, { 0 } };
    static struct harness h;
    struct answer a = { 0 };

    (void)state;
    open_house(&h, 1, settings);
    atomic_store(&h.workers[0].is_paused, true);
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One\"}", &a);
    assert_int_equal(a.status, 504);
    assert_non_null(strstr(answer_body(&a), "\"type\":\"TimeoutError\""));
    assert_true(harness_wait_for(&h.workers[0].n_cancels, 1));
    assert_int_equal(harness_stat(&h, STAT_requests_finished_error), 1);
    answer_fini(&a);
    close_house(&h);
}

static void drain_finishes_what_runs_and_refuses_the_new(void **state)
{
    static struct harness h;
    struct answer a = { 0 }, running = { 0 };
    int fd;

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].is_paused, true); /* it runs until all else is seen */
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "",
                "{\"prompt\":\"One\",\"max_tokens\":60,\"stream\":true}");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 1));
    harness_drain(&h, 30000);
    for (int i = 0; i < 1000; i++) {
        client_get(h.port, "/health/ready", &a);
        if (a.status == 503)
            break;
    }
    assert_non_null(strstr(answer_body(&a), "\"status\":\"draining\""));
    client_request(h.port, "/generate_stream", "", "{\"inputs\":\"One\"}", &a);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(answer_body(&a), "\"error_type\":\"unavailable\""));
    atomic_store(&h.workers[0].is_paused, false);
    client_read(fd, &running);
    assert_true(running.is_whole);
    assert_non_null(strstr(answer_body(&running), "\"finish_reason\":\"length\""));
    assert_int_equal(harness_wait(&h), 0);
    close(fd);
    answer_fini(&a);
    answer_fini(&running);
    harness_free(&h);
}

static void a_restart_refuses_nobody(void **state)
{
    static struct harness h;
    struct answer early = { 0 }, running = { 0 };
    int fd, waits, late;

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].step_us, 5000);
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "",
                "{\"prompt\":\"One\",\"max_tokens\":400,\"stream\":true}");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 1));
    waits = client_connect(h.port);
    assert_true(harness_wait_stat(&h, STAT_connections_open, 2));
    harness_restart(&h, 30000);
    client_post(waits, "/generate", "", "{\"inputs\":\"One\"}");
    client_read(waits, &early); /* it was connected: it gets its answer */
    assert_int_equal(early.status, 200);
    assert_int_equal(recv(waits, &(char){ 0 }, 1, 0), 0); /* the doors are closed now */
    late = client_connect(h.port);
    client_post(late, "/generate", "", "{\"inputs\":\"One\"}");
    client_read(fd, &running);
    assert_true(running.is_whole);
    assert_int_equal(harness_wait(&h), 0);
    if (recv(late, &(char){ 0 }, 1, MSG_DONTWAIT | MSG_PEEK) > 0) { /* another thread's last one */
        client_read(late, &early);
        assert_int_equal(early.status, 200);
    } else {
        assert_int_equal(errno, EAGAIN); /* it waits for the next gateway */
    }
    close(fd);
    close(waits);
    close(late);
    answer_fini(&early);
    answer_fini(&running);
    harness_free(&h);
}

static uint64_t count_first_tokens(struct harness *h)
{
    return atomic_load(&harness_stats(h)->hist[HIST_time_to_first_token_seconds].count);
}

static void drain_deadline_ends_answers_properly(void **state)
{
    static struct harness h;
    struct answer plain = { 0 }, stream = { 0 }, tgi = { 0 };
    int fds[3];

    (void)state;
    open_house(&h, 1, NULL);
    atomic_store(&h.workers[0].step_us, 50000);
    for (int i = 0; i < 3; i++)
        fds[i] = client_connect(h.port);
    client_post(fds[0], "/v1/completions", "", "{\"prompt\":\"One\",\"max_tokens\":400}");
    client_post(fds[1], "/v1/chat/completions", "",
                "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true}");
    client_post(fds[2], "/generate_stream", "", "{\"inputs\":\"One\"}");
    for (int i = 0; count_first_tokens(&h) < 3; i++) {
        assert_true(i < 30000);
        usleep(1000);
    }
    harness_drain(&h, 100);
    client_read(fds[0], &plain);
    client_read(fds[1], &stream);
    client_read(fds[2], &tgi);
    assert_int_equal(harness_wait(&h), 0);
    assert_int_equal(plain.status, 200);
    assert_non_null(strstr(answer_body(&plain), "\"finish_reason\":\"abort\""));
    assert_true(stream.is_whole);
    assert_non_null(strstr(answer_body(&stream), "\"finish_reason\":\"abort\""));
    assert_non_null(strstr(answer_body(&stream), "data: [DONE]"));
    assert_true(tgi.is_whole);
    assert_non_null(strstr(answer_body(&tgi), "the server is shutting down"));
    assert_int_equal(connections_count(&h.connections), 0);
    assert_int_equal(harness_stat(&h, STAT_requests_active), 0);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    answer_fini(&plain);
    answer_fini(&stream);
    answer_fini(&tgi);
    harness_free(&h);
}

/* llmd dies: the gateway serves on; when nobody adopts it, it goes, and takes the dead socket file along. */
static void orphan_serves_then_leaves(void **state)
{
    char dir[] = P_tmpdir "/llmd-test-XXXXXX", path[64];
    struct harness_setting settings[] = { { "orphan_timeout_s", "1" },
                                          { "runtime_dir", dir },
                                          { 0 } };
    static struct harness h;
    struct answer a = { 0 };
    FILE *file;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/control.sock", dir);
    open_house(&h, 1, settings);
    file = fopen(path, "w"); /* nobody accepts there */
    assert_non_null(file);
    fclose(file);
    close(h.control);
    h.control = -1;
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One\"}", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(harness_wait(&h), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(dir), 0);
    answer_fini(&a);
    harness_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_restart_is_a_pause),
        cmocka_unit_test(lost_ledger_is_a_pause_too),
        cmocka_unit_test(tokens_sent_twice_are_taken_once),
        cmocka_unit_test(full_group_is_asked_again),
        cmocka_unit_test(worker_error_is_an_answer),
        cmocka_unit_test(no_group_is_503_with_the_cause),
        cmocka_unit_test(every_dialect_says_why_nobody_serves),
        cmocka_unit_test(probes_answer_while_workers_are_silent),
        cmocka_unit_test(health_outlasts_a_pause),
        cmocka_unit_test(request_waits_for_a_late_group),
        cmocka_unit_test(lost_group_hands_its_streams_over),
        cmocka_unit_test(leaving_client_cancels),
        cmocka_unit_test(leaving_client_leaves_the_queue),
        cmocka_unit_test(random_disconnects_leave_nothing),
        cmocka_unit_test(slow_reader_gets_everything),
        cmocka_unit_test(too_many_requests_are_429),
        cmocka_unit_test(deadline_ends_a_request),
        cmocka_unit_test(drain_finishes_what_runs_and_refuses_the_new),
        cmocka_unit_test(a_restart_refuses_nobody),
        cmocka_unit_test(drain_deadline_ends_answers_properly),
        cmocka_unit_test(orphan_serves_then_leaves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
