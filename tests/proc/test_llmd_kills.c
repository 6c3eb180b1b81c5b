/* test_llmd_kills.c - the real llmd killed below llm-init, and its children stopped, while clients stream.
 *
 * What would break in production: a crash of llmd that takes its children along, an llmd that finds them and does
 * not manage them, a drain that is forgotten.  Every answer must be the bytes of the undisturbed run. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/open_fds.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

enum { N_STREAMS = 8, TOKENS = 120, PATIENCE_MS = 30000 };

#define MODEL TEST_SOURCE_DIR "/models/stories-demo"
#define BASE                                                                                       \
    "--model", MODEL, "--backoff-ms", "10", "--backoff-max-ms", "10", "--log-level", "warning"

static const char *const patient[] = { BASE, NULL };
/* Who stands still is soon found; on a machine with other work, so is who is only slow. */
static const char *const impatient[] = { BASE, "--hang-timeout-s", "3", "--hang-step-ms", "2000",
                                         NULL };

static struct system s;
static char *calm[N_STREAMS];

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

static void ask(struct exchange *x, int i)
{
    struct buf body = { 0 };

    buf_printf(&body,
               "{\"inputs\":\"Once upon a time %d\",\"parameters\":{\"max_new_tokens\":%d,"
               "\"do_sample\":true,\"temperature\":0.9,\"seed\":%d}}",
               i, TOKENS, i);
    exchange_start(x, s.port, i % 2 ? "/generate_stream" : "/generate", "", body.data);
    buf_fini(&body);
}

static int start(const char *const *args)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what is left behind becomes ours, and is seen */
    system_start_below_init(&s, args);
    for (int i = 0; i < N_STREAMS; i++) {
        struct exchange x;
        ask(&x, i);
        assert_true(exchanges_run(&x, 1, 60000));
        assert_true(exchange_finish(&x));
        assert_int_equal(x.status, 200);
        calm[i] = buf_take(&x.body);
        http_exchange_close(&x);
    }
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return start(patient);
}

static int setup_impatient(void **state)
{
    (void)state;
    return start(impatient);
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_STREAMS; i++)
        free(calm[i]);
    if (s.pid > 0) /* a test that failed */
        system_stop(&s);
    return 0;
}

static void stop_and_expect_nothing(void)
{
    assert_int_equal(system_stop(&s), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* Another llmd than this one answers. */
static pid_t wait_llmd(pid_t old)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
    pid_t now;

    do {
        if (clock_mono_ns() > end_ns)
            fail_msg("no new llmd");
        now = system_pid_of(&s, "llmd");
        nap_ms(2);
    } while (now <= 0 || now == old);
    return now;
}

static void start_all(struct exchange x[N_STREAMS])
{
    for (int i = 0; i < N_STREAMS; i++)
        ask(&x[i], i);
}

static void expect_calm(struct exchange x[N_STREAMS])
{
    assert_true(exchanges_run(x, N_STREAMS, 120000));
    for (int i = 0; i < N_STREAMS; i++) {
        if (!exchange_finish(&x[i]))
            fail_msg("stream %d was cut off: '%s'", i, x[i].raw.data ? x[i].raw.data : "");
        assert_int_equal(x[i].status, 200);
        assert_string_equal(x[i].body.data, calm[i]);
        http_exchange_close(&x[i]);
    }
}

/* Connections that have ended are given up a moment later. */
static void expect_few_fds(pid_t pid, int n_max)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;

    while (open_fds_count(pid) > n_max && clock_mono_ns() < end_ns)
        nap_ms(5);
    assert_in_range(open_fds_count(pid), 1, n_max);
}

static void children_of_a_killed_llmd_serve_on(void **state)
{
    pid_t gateway = system_pid_of(&s, "gateway"), worker = system_pid_of(&s, "worker 0.0");
    int fds = 0;

    (void)state;
    for (int round = 0; round < 6; round++) {
        struct exchange x[N_STREAMS];
        pid_t llmd = system_pid_of(&s, "llmd");
        start_all(x);
        nap_ms(rand() % 30);
        kill(llmd, SIGKILL);
        expect_calm(x);
        llmd = wait_llmd(llmd);
        assert_true(system_wait_ready(&s, PATIENCE_MS));
        assert_int_equal(system_pid_of(&s, "gateway"), gateway);
        assert_int_equal(system_pid_of(&s, "worker 0.0"), worker);
        if (round == 2)
            fds = open_fds_count(llmd);
        if (round == 5)
            expect_few_fds(llmd, fds + 4); /* a moment's connections, no more */
    }
    stop_and_expect_nothing();
}

/* All connections are known to llmd and lie in the store: a connection is stored when it has been open for some
 * milliseconds, and is lost when gateway and llmd both die before. */
static void wait_until_stored(struct exchange x[N_STREAMS])
{
    for (int i = 1; i < N_STREAMS; i += 2)
        assert_true(exchange_read_some(&x[i], 1, PATIENCE_MS));
    nap_ms(40);
}

static void deaths_at_the_same_time_are_healed(void **state)
{
    static const char *const others[] = { "worker 0.0", "gateway" };

    (void)state;
    for (int round = 0; round < 4; round++) {
        struct exchange x[N_STREAMS];
        pid_t llmd = system_pid_of(&s, "llmd"), other = system_pid_of(&s, others[round % 2]);
        start_all(x);
        if (round % 2)
            wait_until_stored(x);
        else
            nap_ms(rand() % 30);
        kill(round % 4 < 2 ? llmd : other, SIGKILL);
        kill(round % 4 < 2 ? other : llmd, SIGKILL);
        expect_calm(x);
        wait_llmd(llmd);
        assert_true(system_wait_ready(&s, PATIENCE_MS));
    }
    stop_and_expect_nothing();
}

static void stopped_processes_are_replaced_and_streams_go_on(void **state)
{
    static const char *const names[] = { "worker 0.0", "gateway" };

    (void)state;
    for (int round = 0; round < 4; round++) {
        struct exchange x[N_STREAMS];
        pid_t pid = system_pid_of(&s, names[round % 2]);
        start_all(x);
        nap_ms(rand() % 30);
        kill(pid, SIGSTOP);
        expect_calm(x);
        assert_true(system_wait_ready(&s, PATIENCE_MS));
        assert_int_not_equal(system_pid_of(&s, names[round % 2]), pid);
    }
    stop_and_expect_nothing();
}

static void a_drain_is_finished_by_the_next_llmd(void **state)
{
    struct exchange x[N_STREAMS];
    pid_t llmd = system_pid_of(&s, "llmd");

    (void)state;
    start_all(x);
    nap_ms(20);
    kill(s.pid, SIGTERM);
    nap_ms(5);
    kill(llmd, SIGKILL);
    expect_calm(x);
    assert_int_equal(system_wait_exit(&s, 60000), 0);
    system_forget(&s);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(children_of_a_killed_llmd_serve_on, setup, teardown),
        cmocka_unit_test_setup_teardown(deaths_at_the_same_time_are_healed, setup, teardown),
        cmocka_unit_test_setup_teardown(stopped_processes_are_replaced_and_streams_go_on,
                                        setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(a_drain_is_finished_by_the_next_llmd, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
