/* test_system.c - the whole path with real processes and the demo model: what a client sees, alone, in
 * company, when it leaves, and when a process is killed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/open_fds.h"
#include "tests/proc/golden.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

#define MODEL TEST_SOURCE_DIR "/models/stories-demo"

enum { PATIENCE_MS = 60000 };

static const char *const plain_args[] = { "--model", MODEL, "--log-level", "warning", NULL };

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 },
              NULL);
}

/* ---- requests ---- */

static char *generate_body(int i, int max_tokens)
{
    static const char *const starts[] = { "Once upon a time", "Tom and his dog",
                                          "One day, a little girl", "The sun was",
                                          "Lily had a red ball and" };
    struct buf b = { 0 };

    buf_printf(&b,
               "{\"inputs\":\"%s\",\"parameters\":{\"max_new_tokens\":%d,\"details\":true,"
               "\"do_sample\":true,\"temperature\":0.8,\"top_p\":0.95,\"repetition_penalty\":1.1,"
               "\"seed\":%d}}",
               starts[i % 5], max_tokens, 1000 + i);
    return buf_take(&b);
}

/* One streamed answer, whole; the caller frees. */
static char *stream_alone(const struct system *s, int i, int max_tokens)
{
    char *body = generate_body(i, max_tokens);
    struct buf out = { 0 };

    assert_int_equal(http_ask(s->port, "/generate_stream", body, &out), 200);
    assert_non_null(strstr(out.data, "\"finish_reason\""));
    free(body);
    return buf_take(&out);
}

static void start_stream(const struct system *s, struct exchange *x, int i, int max_tokens)
{
    char *body = generate_body(i, max_tokens);

    exchange_start(x, s->port, "/generate_stream", "", body);
    free(body);
}

static void expect_same(struct exchange *x, const char *solo)
{
    assert_true(exchange_finish(x));
    assert_int_equal(x->status, 200);
    assert_string_equal(x->body.data ? x->body.data : "", solo);
    http_exchange_close(x);
}

/* ---- golden ---- */

static void golden_prompts_go_on_as_the_reference_does(void **state)
{
    golden_expect_all(*state);
}

/* ---- company ---- */

static void a_request_gets_the_same_bytes_among_32_others_as_alone(void **state)
{
    const struct system *s = *state;
    char *solo = stream_alone(s, 7, 100);
    struct exchange others[32], it;

    for (int i = 0; i < 32; i++)
        start_stream(s, &others[i], 100 + i, 150);
    nap_ms(30);
    start_stream(s, &it, 7, 100);
    assert_true(exchanges_run(&it, 1, PATIENCE_MS));
    expect_same(&it, solo);
    assert_true(exchanges_run(others, 32, PATIENCE_MS));
    for (int i = 0; i < 32; i++)
        http_exchange_close(&others[i]);
    free(solo);
}

static void sixty_four_streams_end_each_equal_to_its_solo_run(void **state)
{
    const struct system *s = *state;
    struct exchange x[64];
    char *solo[64];

    for (int i = 0; i < 64; i++)
        solo[i] = stream_alone(s, i, 40 + i);
    for (int i = 0; i < 64; i++)
        start_stream(s, &x[i], i, 40 + i);
    assert_true(exchanges_run(x, 64, 2 * PATIENCE_MS));
    for (int i = 0; i < 64; i++) {
        expect_same(&x[i], solo[i]);
        free(solo[i]);
    }
}

/* ---- nothing stays behind ---- */

static bool wait_metric(const struct system *s, const char *name, double want)
{
    for (int waited = 0; waited <= PATIENCE_MS; waited += 10) {
        if (system_metric(s, name, "") == want)
            return true;
        nap_ms(10);
    }
    print_error("%s is %g, not %g\n", name, system_metric(s, name, ""), want);
    return false;
}

static void expect_nothing_held(const struct system *s)
{
    assert_true(wait_metric(s, "llmd_requests_active", 0));
    assert_true(wait_metric(s, "llmd_ledger_entries_used", 0));
    assert_true(wait_metric(s, "llmd_kv_pages_leased", 0));
    assert_true(wait_metric(s, "llmd_kv_pages_pinned", 0));
    assert_true(wait_metric(s, "llmd_connections_open", 1)); /* the one that asks */
    assert_true(system_metric(s, "llmd_sequences_accepted_total", "") ==
                system_metric(s, "llmd_sequences_finished_total", "") +
                    system_metric(s, "llmd_sequences_cancelled_total", "") +
                    system_metric(s, "llmd_sequences_failed_total", ""));
}

static void a_thousand_cut_off_requests_leave_nothing_behind(void **state)
{
    static const char *const paths[] = { "/generate", "/generate_stream" };
    const struct system *s = *state;
    pid_t gateway = system_pid_of(s, "gateway"), worker = system_pid_of(s, "worker 0.0");
    int gateway_fds, worker_fds, n_cut = 0;
    struct exchange x[20];

    expect_nothing_held(s);
    gateway_fds = open_fds_count(gateway);
    worker_fds = open_fds_count(worker);
    srand(20261123);
    while (n_cut < 1000) {
        for (int i = 0; i < 20; i++) {
            char *body = generate_body(rand() % 1000, 20 + rand() % 400);
            exchange_start(&x[i], s->port, paths[rand() % 2], "", body);
            free(body);
        }
        for (int i = 0; i < 20; i++, n_cut++) {
            exchange_read_some(&x[i], (size_t)(rand() % 3000), rand() % 12);
            http_exchange_close(&x[i]);
        }
    }
    expect_nothing_held(s);
    assert_in_range(open_fds_count(gateway), gateway_fds - 8, gateway_fds + 2);
    assert_int_equal(open_fds_count(worker), worker_fds);
}

/* ---- refusals ---- */

static void bad_requests_get_the_error_of_their_dialect(void **state)
{
    static const struct {
        const char *path, *body;
        int status;
        const char *says;
    } rows[] = {
        { "/generate", "{", 400, "Failed to parse the request body as JSON" },
        { "/generate", "{}", 422, "inputs" },
        { "/generate", "{\"inputs\":\"\"}", 422, "`inputs` cannot be empty" },
        { "/generate", "{\"inputs\":\"a\",\"parameters\":{\"top_p\":1.0}}", 422,
          "`top_p` must be > 0.0 and < 1.0" },
        { "/generate", "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":0}}", 422,
          "`max_new_tokens` must be strictly positive" },
        { "/generate", "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":100000}}", 422,
          "must be <= 512" },
        { "/v1/completions", "{", 400, "\"type\":\"Bad Request\"" },
        { "/v1/completions", "{\"model\":\"nobody\",\"prompt\":\"a\"}", 404, "NotFoundError" },
        { "/v1/completions", "{\"prompt\":\"a\",\"temperature\":\"hot\"}", 400, "temperature" },
        { "/v1/completions", "{\"prompt\":\"a\",\"top_p\":0}", 400, "top_p must be in (0, 1]" },
        { "/v1/chat/completions", "{}", 400, "messages" },
        { "/v1/chat/completions", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}",
          400, "roles must alternate" },
        { "/predict", "{", 400, "" },
        { "/nowhere", "{}", 404, "" },
    };
    const struct system *s = *state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf out = { 0 };
        buf_add_str(&out, "");
        int status = http_ask(s->port, rows[i].path, rows[i].body, &out);
        if (status != rows[i].status || !strstr(out.data, rows[i].says))
            fail_msg("%s %s gave %d %s", rows[i].path, rows[i].body, status, out.data);
        buf_fini(&out);
    }
}

static void a_prompt_longer_than_the_context_is_refused_by_every_dialect(void **state)
{
    const struct system *s = *state;
    struct buf words = { 0 }, body = { 0 }, out = { 0 };

    for (int i = 0; i < 700; i++)
        buf_add_str(&words, "ball ");
    buf_printf(&body, "{\"inputs\":\"%s\"}", words.data);
    assert_int_equal(http_ask(s->port, "/generate", body.data, &out), 422);
    assert_non_null(strstr(out.data, "`inputs` tokens + `max_new_tokens` must be <= 512"));
    buf_clear(&body);
    buf_clear(&out);
    buf_printf(&body, "{\"prompt\":\"%s\"}", words.data);
    assert_int_equal(http_ask(s->port, "/v1/completions", body.data, &out), 400);
    assert_non_null(strstr(out.data, "maximum context length is 512 tokens"));
    buf_fini(&words);
    buf_fini(&body);
    buf_fini(&out);
}

/* ---- death ---- */

static bool worker_has_restarted(const Llmd__Status *status, void *arg)
{
    (void)arg;
    for (size_t i = 0; i < status->n_processes; i++)
        if (strcmp(status->processes[i]->name, "worker 0.0") == 0)
            return status->processes[i]->restarts > 0 && strcmp(status->state, "ready") == 0;
    return false;
}

static void a_killed_worker_is_replaced_and_service_goes_on(void **state)
{
    const struct system *s = *state;
    char *solo[8];
    struct exchange x[8];

    for (int i = 0; i < 8; i++)
        solo[i] = stream_alone(s, i, 300);
    for (int i = 0; i < 8; i++)
        start_stream(s, &x[i], i, 300);
    for (int i = 0; i < 8; i++)
        assert_true(exchange_read_some(&x[i], 2000, PATIENCE_MS));
    assert_int_equal(kill(system_pid_of(s, "worker 0.0"), SIGKILL), 0);
    assert_true(system_wait(s, worker_has_restarted, NULL, PATIENCE_MS));
    free(stream_alone(s, 99, 20)); /* a new request is served */
    assert_true(exchanges_run(x, 8, PATIENCE_MS));
    for (int i = 0; i < 8; i++) {
        expect_same(&x[i], solo[i]); /* and those in flight never noticed */
        free(solo[i]);
    }
    expect_nothing_held(s);
}

static void a_killed_gateway_is_replaced_and_service_goes_on(void **state)
{
    const struct system *s = *state;
    pid_t old = system_pid_of(s, "gateway");

    assert_int_equal(kill(old, SIGKILL), 0);
    free(stream_alone(s, 3, 20)); /* waits in the listening socket's backlog */
    assert_int_not_equal(system_pid_of(s, "gateway"), old);
    assert_true(system_wait_ready(s, PATIENCE_MS));
}

/* ---- shapes of service ---- */

static void two_ranks_give_the_tokens_of_one(void **state)
{
    static const char *const args[] = { "--model", MODEL,         "--tp-size", "2", "--threads",
                                        "1",       "--log-level", "warning",   NULL };
    const struct system *one = *state;
    struct system two;

    system_start(&two, args);
    assert_true(system_pid_of(&two, "worker 0.1") > 0);
    golden_expect_all(&two);
    for (int i = 0; i < 4; i++) {
        char *a = stream_alone(one, i, 80), *b = stream_alone(&two, i, 80);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
    assert_int_equal(system_stop(&two), 0);
}

static bool both_have_worked(const struct system *s)
{
    return system_metric(s, "llmd_sequences_accepted_total", "group=\"0\"") > 0 &&
           system_metric(s, "llmd_sequences_accepted_total", "group=\"1\"") > 0;
}

static void two_groups_share_the_work_and_outlive_each_other(void **state)
{
    static const char *const args[] = { "--model", MODEL,         "--groups", "2", "--threads",
                                        "1",       "--log-level", "warning",  NULL };
    const struct system *one = *state;
    struct system two;
    struct exchange x[16];

    system_start(&two, args);
    /* A group takes part as soon as each gateway thread has heard its HELLO, which is a moment later. */
    for (int round = 0; round < 20 && !both_have_worked(&two); round++) {
        for (int i = 0; i < 16; i++)
            start_stream(&two, &x[i], i, 60);
        assert_true(exchanges_run(x, 16, PATIENCE_MS));
        for (int i = 0; i < 16; i++) {
            char *solo = stream_alone(one, i, 60);
            expect_same(&x[i], solo);
            free(solo);
        }
    }
    assert_true(both_have_worked(&two));
    assert_int_equal(kill(system_pid_of(&two, "worker 1.0"), SIGKILL), 0);
    free(stream_alone(&two, 5, 20));
    assert_int_equal(system_stop(&two), 0);
}

/* 0: nobody answers. */
static int status_of(struct system *s, const char *path, const char *body)
{
    struct exchange x;
    int status;

    exchange_start(&x, s->port, path, "", body);
    assert_true(exchanges_run(&x, 1, PATIENCE_MS));
    status = exchange_finish(&x) ? x.status : 0;
    http_exchange_close(&x);
    return status;
}

static void sigterm_finishes_what_runs_and_refuses_what_is_new(void **state)
{
    struct system s;
    struct exchange running, late;
    char *solo;
    int code;

    (void)state;
    system_start(&s, plain_args);
    solo = stream_alone(&s, 1, 450);
    start_stream(&s, &running, 1, 450);
    assert_true(exchange_read_some(&running, 500, PATIENCE_MS));
    kill(s.pid, SIGTERM);
    while (status_of(&s, "/health/ready", NULL) == 200) /* until the gateway has heard of it */
        nap_ms(5);
    exchange_start(&late, s.port, "/generate", "", "{\"inputs\":\"a\"}");
    assert_true(exchanges_run(&running, 1, PATIENCE_MS));
    expect_same(&running, solo);
    assert_true(exchanges_run(&late, 1, PATIENCE_MS));
    if (!late.refused && exchange_finish(&late))
        assert_int_equal(late.status, 503);
    http_exchange_close(&late);
    code = system_wait_exit(&s, PATIENCE_MS);
    assert_int_equal(code, 0);
    assert_int_equal(rmdir(s.dir) == 0 || access(s.dir, F_OK) != 0, 1); /* no file was left in it */
    system_forget(&s);
    free(solo);
}

/* A load balancer looks every few seconds; until then it sends requests, and none may be refused. */
static void sigterm_says_not_ready_before_it_refuses(void **state)
{
    static const char *const args[] = { "--model", MODEL, "--drain-lead-s", "600", "--log-level",
                                        "error",   NULL };
    struct system s;

    (void)state;
    system_start(&s, args);
    assert_int_equal(status_of(&s, "/health/ready", NULL), 200);
    kill(s.pid, SIGTERM);
    while (status_of(&s, "/health/ready", NULL) == 200)
        nap_ms(5);
    assert_int_equal(status_of(&s, "/health/ready", NULL), 503);
    assert_int_equal(status_of(&s, "/health", NULL), 200); /* nobody is to kill it */
    assert_int_equal(status_of(&s, "/generate", "{\"inputs\":\"a\"}"), 200);
    kill(s.pid, SIGTERM); /* it need not be waited for */
    assert_int_equal(system_wait_exit(&s, PATIENCE_MS), 0);
    system_forget(&s);
}

static bool runs(pid_t pid)
{
    return kill(pid, 0) == 0;
}

static void children_of_a_killed_llmd_finish_what_runs_and_leave_nothing(void **state)
{
    static const char *const args[] = { "--model", MODEL, "--orphan-timeout-s", "5", "--log-level",
                                        "error",   NULL };
    struct system s;
    struct exchange x;
    pid_t gateway, worker;
    char *solo;

    (void)state;
    system_start(&s, args);
    solo = stream_alone(&s, 2, 400);
    gateway = system_pid_of(&s, "gateway");
    worker = system_pid_of(&s, "worker 0.0");
    start_stream(&s, &x, 2, 400);
    assert_true(exchange_read_some(&x, 500, PATIENCE_MS));
    kill(s.pid, SIGKILL);
    assert_int_equal(system_wait_exit(&s, PATIENCE_MS), -SIGKILL);
    free(stream_alone(&s, 3, 20)); /* they go on serving until the time is up */
    assert_true(exchanges_run(&x, 1, PATIENCE_MS));
    expect_same(&x, solo);
    for (int waited = 0; waited < PATIENCE_MS && (runs(gateway) || runs(worker)); waited += 20)
        nap_ms(20);
    assert_false(runs(gateway) || runs(worker));
    assert_int_not_equal(access(s.dir, F_OK) == 0 && rmdir(s.dir) != 0, 1); /* nothing in it */
    system_forget(&s);
    free(solo);
}

static int set_up(void **state)
{
    static struct system s;

    signal(SIGPIPE, SIG_IGN);
    system_start(&s, plain_args);
    *state = &s;
    return 0;
}

static int tear_down(void **state)
{
    return system_stop(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_prompts_go_on_as_the_reference_does),
        cmocka_unit_test(a_request_gets_the_same_bytes_among_32_others_as_alone),
        cmocka_unit_test(sixty_four_streams_end_each_equal_to_its_solo_run),
        cmocka_unit_test(a_thousand_cut_off_requests_leave_nothing_behind),
        cmocka_unit_test(bad_requests_get_the_error_of_their_dialect),
        cmocka_unit_test(a_prompt_longer_than_the_context_is_refused_by_every_dialect),
        cmocka_unit_test(two_ranks_give_the_tokens_of_one),
        cmocka_unit_test(two_groups_share_the_work_and_outlive_each_other),
        cmocka_unit_test(a_killed_worker_is_replaced_and_service_goes_on),
        cmocka_unit_test(a_killed_gateway_is_replaced_and_service_goes_on),
        cmocka_unit_test(sigterm_finishes_what_runs_and_refuses_what_is_new),
        cmocka_unit_test(sigterm_says_not_ready_before_it_refuses),
        cmocka_unit_test(children_of_a_killed_llmd_finish_what_runs_and_leave_nothing),
    };

    return cmocka_run_group_tests_name("system", tests, set_up, tear_down);
}
