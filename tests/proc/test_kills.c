/* test_kills.c - workers killed again and again, at random moments, under streams.
 *
 * What would break in production: a sequence lost between two ledgers' states, a token sampled twice, a
 * delivery repeated or skipped, a recovery killed in its middle.  Every answer must be the bytes of an
 * undisturbed run.  LLMD_TEST_ROUNDS and LLMD_TEST_SEED repeat or lengthen it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/buf.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

enum { N_STREAMS = 8, TOKENS = 250, ROUNDS = 10 };

/* Short pauses: the test is about what survives, not about patience. */
static const char *const args[] = { "--model",
                                    TEST_SOURCE_DIR "/models/stories-demo",
                                    "--backoff-ms",
                                    "10",
                                    "--backoff-max-ms",
                                    "10",
                                    "--log-level",
                                    "error",
                                    NULL };

static unsigned long number_from(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text && text[0] ? strtoul(text, NULL, 10) : otherwise;
}

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

/* Half of them greedy, half sampled with a penalty; two dialects. */
static void start(const struct system *s, struct exchange *x, int i)
{
    struct buf body = { 0 };

    if (i % 2)
        buf_printf(&body,
                   "{\"inputs\":\"Once upon a time %d\",\"parameters\":{\"max_new_tokens\":%d,"
                   "\"details\":true,\"do_sample\":true,\"temperature\":0.9,"
                   "\"repetition_penalty\":1.1,\"seed\":%d}}",
                   i, TOKENS, i);
    else
        buf_printf(&body,
                   "{\"inputs\":\"The dog %d\",\"parameters\":{\"max_new_tokens\":%d,"
                   "\"do_sample\":false}}",
                   i, TOKENS);
    exchange_start(x, s->port, i % 4 < 2 ? "/generate_stream" : "/generate", "", body.data);
    buf_fini(&body);
}

static void take_undisturbed(const struct system *s, char *calm[N_STREAMS])
{
    for (int i = 0; i < N_STREAMS; i++) {
        struct exchange x;
        start(s, &x, i);
        assert_true(exchanges_run(&x, 1, 60000));
        assert_true(exchange_finish(&x));
        assert_int_equal(x.status, 200);
        calm[i] = buf_take(&x.body);
        exchange_close(&x);
    }
}

/* One round: all streams at once, one to three deaths among them. */
static int run_round(const struct system *s, char *const calm[N_STREAMS])
{
    struct exchange x[N_STREAMS];
    int n_kills = 1 + rand() % 3, n_killed = 0;

    for (int i = 0; i < N_STREAMS; i++)
        start(s, &x[i], i);
    for (int k = 0; k < n_kills; k++) {
        nap_ms(rand() % 40);
        pid_t pid = system_pid_of(s, "worker 0.0");
        n_killed += pid > 0 && kill(pid, SIGKILL) == 0;
    }
    assert_true(exchanges_run(x, N_STREAMS, 120000));
    for (int i = 0; i < N_STREAMS; i++) {
        assert_true(exchange_finish(&x[i]));
        assert_int_equal(x[i].status, 200);
        assert_string_equal(x[i].body.data, calm[i]);
        exchange_close(&x[i]);
    }
    return n_killed;
}

static void killed_workers_lose_no_stream_and_change_no_byte(void **state)
{
    unsigned long seed = number_from("LLMD_TEST_SEED", 20261123);
    unsigned long rounds = number_from("LLMD_TEST_ROUNDS", ROUNDS);
    char *calm[N_STREAMS];
    struct system s;
    int n_kills = 0;

    (void)state;
    srand((unsigned)seed);
    system_start(&s, args);
    take_undisturbed(&s, calm);
    for (unsigned long r = 0; r < rounds; r++)
        n_kills += run_round(&s, calm);
    print_message("seed %lu: %d kills, %lu answers, none lost, none wrong\n", seed, n_kills,
                  rounds * N_STREAMS);
    assert_true(system_metric(&s, "llmd_sequences_recovered_total", "") > 0);
    assert_int_equal(system_stop(&s), 0);
    for (int i = 0; i < N_STREAMS; i++)
        free(calm[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_workers_lose_no_stream_and_change_no_byte),
    };

    return cmocka_run_group_tests_name("kills", tests, NULL, NULL);
}
