/* test_metrics_requests.c - what the numbers say of requests that a real gateway has answered: each counted once, in
 * the right place, also when it was killed in the middle.  If this breaks, dashboards tell of load that was not, or
 * of none while customers wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"

static struct harness h;

static int set_up(void **state)
{
    (void)state;
    static const struct harness_setting settings[] = { { "tool_call_parser", "hermes" },
                                                       { NULL, NULL } };

    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    return 0;
}

static uint64_t count_of(enum hist_id id)
{
    return atomic_load(&harness_stats(&h)->hist[id].count);
}

static double sum_of(enum hist_id id)
{
    return hist_sum(harness_stats(&h), id);
}

static void ask(const char *path, const char *body, int status)
{
    struct answer a = { 0 };

    client_request(h.port, path, "", body, &a);
    assert_int_equal(a.status, status);
    answer_fini(&a);
}

static void tokens_and_answers_are_counted_by_request(void **state)
{
    (void)state;
    ask("/v1/completions", "{\"prompt\":\"Once upon a time\",\"max_tokens\":7,\"n\":3,\"seed\":1}",
        200);
    assert_true(harness_wait_stat(&h, STAT_requests_finished_length, 1));
    assert_int_equal(count_of(HIST_request_answers), 1);
    assert_true(sum_of(HIST_request_answers) == 3);
    assert_true(sum_of(HIST_request_max_tokens) == 7);
    assert_true(sum_of(HIST_request_prompt_tokens) == 5);
    assert_true(sum_of(HIST_request_computed_tokens) == 5);
    assert_true(sum_of(HIST_request_generated_tokens) == 21);
    assert_true(sum_of(HIST_request_longest_tokens) == 7);
    assert_true(count_of(HIST_inter_token_latency_seconds) > 0);
}

/* Arrived, parsed, its turn, scheduled, first token, last token: the parts fit together. */
static void a_requests_time_is_the_sum_of_its_parts(void **state)
{
    static const enum hist_id parts[] = {
        HIST_time_to_first_token_seconds,    HIST_request_validation_seconds,
        HIST_request_turn_seconds,           HIST_request_queue_seconds,
        HIST_request_prefill_seconds,        HIST_request_decode_seconds,
        HIST_request_inference_seconds,      HIST_request_seconds,
        HIST_request_time_per_token_seconds,
    };
    double inference;

    (void)state;
    atomic_store(&h.workers[0].step_us, 2000);
    ask("/v1/completions", "{\"prompt\":\"One\",\"max_tokens\":20,\"seed\":1}", 200);
    assert_true(harness_wait_stat(&h, STAT_requests_finished_length, 1));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_int_equal(count_of(parts[i]), 1);
    inference = sum_of(HIST_request_inference_seconds);
    assert_true(inference > 0);
    assert_true(sum_of(HIST_request_decode_seconds) <= inference + 1e-6);
    assert_true(sum_of(HIST_request_prefill_seconds) <= inference + 1e-6);
    assert_true(inference <= sum_of(HIST_request_seconds));
    /* the fake worker's word, and all there is before the first token, where that is less */
    assert_true(sum_of(HIST_request_queue_seconds) >= 0.001 ||
                sum_of(HIST_request_prefill_seconds) == 0);
    assert_true(sum_of(HIST_request_time_per_token_seconds) * 19 <=
                sum_of(HIST_request_decode_seconds) + 1e-6);
    assert_true(sum_of(HIST_time_to_first_token_seconds) <= sum_of(HIST_request_seconds));
}

static void refusals_are_counted_by_cause(void **state)
{
    (void)state;
    ask("/v1/chat/completions",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":\"b\"}]}",
        400);
    ask("/v1/completions", "{\"prompt\":", 400);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_template), 1);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_invalid), 1);
    assert_int_equal(count_of(HIST_request_inference_seconds), 0);
}

/* Killed in the middle of a stream: its first token came before, its last one after. */
static void a_killed_gateways_request_is_counted_once(void **state)
{
    static const enum hist_id once[] = {
        HIST_time_to_first_token_seconds, HIST_request_prompt_tokens,     HIST_request_answers,
        HIST_request_decode_seconds,      HIST_request_inference_seconds, HIST_request_seconds
    };
    struct answer a = { 0 };
    double before;
    int fd;

    (void)state;
    atomic_store(&h.workers[0].step_us, 3000);
    fd = client_connect(h.port);
    client_post(fd, "/v1/completions", "",
                "{\"prompt\":\"One\",\"max_tokens\":60,\"seed\":1,\"stream\":true}");
    client_read_some(fd, &a, 200);
    before = sum_of(HIST_time_to_first_token_seconds);
    assert_true(harness_take(&h, 1));
    harness_kill(&h);
    usleep(100000); /* nobody is there */
    assert_true(harness_respawn(&h));
    client_read_rest(fd, &a);
    assert_true(a.is_whole);
    close(fd);
    assert_true(harness_wait_stat(&h, STAT_requests_finished_length, 1));
    for (size_t i = 0; i < sizeof once / sizeof *once; i++)
        assert_int_equal(count_of(once[i]), 1);
    assert_true(sum_of(HIST_time_to_first_token_seconds) == before);
    assert_true(sum_of(HIST_request_decode_seconds) > 0.1); /* the pause is in it */
    assert_int_equal(harness_stat(&h, STAT_requests_generate), 1);
    assert_int_equal(harness_stat(&h, STAT_gateway_prompt_tokens), 2);
    answer_fini(&a);
}

/* Whole or streamed, with calls or without: each answer that was looked through is counted once. */
static void answers_looked_through_for_calls_are_counted(void **state)
{
#define ASK_TOOLS                                                                                  \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Where\"}],\"tools\":[{\"type\":\"function\"," \
    "\"function\":{\"name\":\"clock\"}}],\"max_tokens\":300"
    struct answer a = { 0 };

    (void)state;
    ask("/v1/chat/completions", ASK_TOOLS ",\"seed\":20240726}", 200); /* the script has calls */
    ask("/v1/chat/completions", ASK_TOOLS ",\"seed\":20240726,\"stream\":true}", 200);
    ask("/v1/chat/completions", ASK_TOOLS ",\"seed\":3,\"n\":2}", 200);
    ask("/v1/chat/completions", ASK_TOOLS ",\"seed\":3,\"tool_choice\":\"none\"}", 200);
    assert_true(harness_wait_stat(&h, STAT_chat_texts_called, 1));
    assert_true(harness_wait_stat(&h, STAT_chat_streams_called, 1));
    assert_true(harness_wait_stat(&h, STAT_chat_texts_plain, 2));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    assert_int_equal(harness_stat(&h, STAT_chat_texts_plain), 2);
    assert_int_equal(harness_stat(&h, STAT_chat_streams_plain), 0);
    client_get(h.port, "/metrics", &a);
    assert_non_null(strstr(answer_body(&a), "mode=\"streaming\",outcome=\"tool_call\",request_type="
                                            "\"chat_completions\"} 1\n"));
    answer_fini(&a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(tokens_and_answers_are_counted_by_request),
        TEST(a_requests_time_is_the_sum_of_its_parts),
        TEST(answers_looked_through_for_calls_are_counted),
        TEST(refusals_are_counted_by_cause),
        TEST(a_killed_gateways_request_is_counted_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
