/* test_gateway_tgi.c - the real gateway as a client of TGI meets it: every rule with its text, the routes that
 * need no worker, and what needs one with a fake one behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"

static struct harness h;

static int start(void **state)
{
    (void)state;
    harness_start(&h, 1, NULL);
    harness_start_worker(&h, 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    return 0;
}

static void expect_begin(const struct answer *a, const char *want)
{
    if (strncmp(answer_body(a), want, strlen(want)) != 0)
        fail_msg("%s\n  does not begin with %s", answer_body(a), want);
}

static void expect(const char *path, const char *body, int status, const char *want)
{
    struct answer a = { 0 };

    client_request(h.port, path, "", body, &a);
    if (a.status != status || strcmp(answer_body(&a), want) != 0)
        fail_msg("%s %s\n  got  %d %s\n  want %d %s", path, body, a.status, answer_body(&a), status,
                 want);
    answer_fini(&a);
}

/* ---- the rules ---- */

/* In TGI's order: the first that is broken is told. */
static const struct {
    const char *parameters;
    const char *text;
    bool in_stream_too;
} rules[] = {
    { "\"best_of\":3,\"do_sample\":true", "`best_of` must be > 0 and <= 2. Given: 3", false },
    { "\"best_of\":2", "you must use sampling when `best_of` is > 1", false },
    { "\"temperature\":0", "`temperature` must be strictly positive", true },
    { "\"temperature\":-1.5,\"top_p\":5", "`temperature` must be strictly positive", true },
    { "\"repetition_penalty\":0", "`repetition_penalty` must be strictly positive", true },
    { "\"frequency_penalty\":2.5", "`frequency_penalty` must be >= -2.0 and <= 2.0", true },
    { "\"frequency_penalty\":-2.5", "`frequency_penalty` must be >= -2.0 and <= 2.0", true },
    { "\"top_p\":1.0", "`top_p` must be > 0.0 and < 1.0", true },
    { "\"top_p\":0.99999999999", "`top_p` must be > 0.0 and < 1.0", true },
    { "\"top_p\":0", "`top_p` must be > 0.0 and < 1.0", true },
    { "\"typical_p\":1.0", "`typical_p` must be > 0.0 and < 1.0", true },
    { "\"typical_p\":-1", "`typical_p` must be > 0.0 and < 1.0", true },
    { "\"top_k\":0", "`top_k` must be strictly positive", true },
    { "\"top_k\":-1,\"max_new_tokens\":0", "`top_k` must be strictly positive", true },
    { "\"max_new_tokens\":0", "`max_new_tokens` must be strictly positive", true },
    { "\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]",
      "`stop` supports up to 4 stop sequences. Given: 5", true },
    { "\"best_of\":2,\"do_sample\":true,\"seed\":1", "`seed` must not be set when `best_of` > 1",
      false },
    { "\"top_n_tokens\":6", "`top_n_tokens` must be >= 0 and <= 5. Given: 6", true },
    { "\"truncate\":0", "`truncate` must be strictly positive and less than 511. Given: 0", true },
    { "\"truncate\":512", "`truncate` must be strictly positive and less than 511. Given: 512",
      true },
    { "\"max_new_tokens\":511",
      "`inputs` tokens + `max_new_tokens` must be <= 512. Given: 3 `inputs` tokens and 511 "
      "`max_new_tokens`",
      true },
    { "\"grammar\":{\"type\":\"json\",\"value\":{}}", "grammar is not supported", true },
    { "\"adapter_id\":\"a\"", "adapter_id is not supported", true },
};

static void each_rule_has_its_text(void **state)
{
    char body[512], want[512];

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        snprintf(body, sizeof body, "{\"inputs\":\"One day\",\"parameters\":{%s}}",
                 rules[i].parameters);
        snprintf(want, sizeof want,
                 "{\"error\":\"Input validation error: %s\",\"error_type\":\"validation\"}",
                 rules[i].text);
        expect("/generate", body, 422, want);
        expect("/", body, 422, want);
        expect("/invocations", body, 422, want);
    }
    expect("/generate", "{\"inputs\":\"\"}", 422,
           "{\"error\":\"Input validation error: `inputs` cannot be empty\",\"error_type\":"
           "\"validation\"}");
}

/* A stream has begun before anything is checked. */
static void in_a_stream_each_is_an_event(void **state)
{
    char body[512], want[512];

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (!rules[i].in_stream_too)
            continue;
        snprintf(body, sizeof body, "{\"inputs\":\"One day\",\"stream\":true,\"parameters\":{%s}}",
                 rules[i].parameters);
        snprintf(want, sizeof want,
                 "data: {\"error\":\"Input validation error: %s\",\"error_type\":\"validation\"}"
                 "\n\n",
                 rules[i].text);
        expect("/generate_stream", body, 200, want);
        expect("/", body, 200, want);
    }
    expect("/generate_stream", "{\"inputs\":\"a\",\"parameters\":{\"best_of\":0}}", 200,
           "data: {\"error\":\"Input validation error: `best_of` != 1 is not supported when "
           "streaming tokens\",\"error_type\":\"validation\"}\n\n");
    expect("/generate_stream", "{\"inputs\":\"a\",\"parameters\":{\"decoder_input_details\":true}}",
           200,
           "data: {\"error\":\"Input validation error: `decoder_input_details` == true is not "
           "supported when streaming tokens\",\"error_type\":\"validation\"}\n\n");
}

static void errors_carry_no_times(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_request(h.port, "/generate", "", "{\"inputs\":\"\"}", &a);
    assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
    assert_null(answer_header(&a, "x-compute-type"));
    assert_null(answer_header(&a, "x-total-time"));
    client_request(h.port, "/generate_stream", "",
                   "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":1}}", &a);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream");
    assert_string_equal(answer_header(&a, "Cache-Control"), "no-cache");
    assert_string_equal(answer_header(&a, "X-Accel-Buffering"), "no");
    assert_string_equal(answer_header(&a, "x-compute-type"), "gpu+optimized");
    assert_string_equal(answer_header(&a, "x-compute-characters"), "7");
    assert_string_equal(answer_header(&a, "Transfer-Encoding"), "chunked");
    answer_fini(&a);
}

/* ---- the permits ---- */

/* Until the gateway has taken the setting in, which /info tells. */
static void set_permits(const char *n)
{
    struct answer a = { 0 };
    char want[64];
    int tries = 0;

    snprintf(want, sizeof want, "\"max_concurrent_requests\":%s,", n);
    harness_reload(&h, "max_concurrent_requests", n);
    do {
        assert_true(tries++ < 5000);
        usleep(1000);
        client_get(h.port, "/info", &a);
    } while (!strstr(answer_body(&a), want));
    answer_fini(&a);
}

static void one_too_many_is_overloaded(void **state)
{
    static const char body[] = "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":2}}";
    uint32_t submits = atomic_load(&h.workers[0].n_submits);
    struct answer a = { 0 };
    int fd;

    (void)state;
    set_permits("1");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    atomic_store(&h.workers[0].is_paused, true);
    fd = client_connect(h.port);
    client_post(fd, "/generate", "", body);
    assert_true(harness_wait_for(&h.workers[0].n_submits, submits + 1));
    expect("/generate", body, 429,
           "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    expect("/generate", "{\"inputs\":\"\"}", 429, /* before validation */
           "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    expect("/generate_stream", body, 200,
           "data: {\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}\n\n");
    expect("/", "{\"inputs\":\"One day\"}", 429,
           "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    expect("/", "{\"inputs\":\"One day\",\"stream\":true}", 200,
           "data: {\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}\n\n");
    expect("/", "no JSON", 429,
           "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    client_get(h.port, "/health", &a); /* is not asked */
    assert_int_equal(a.status, 200);
    atomic_store(&h.workers[0].is_paused, false);
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    close(fd);
    set_permits("512");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    answer_fini(&a);
}

/* TGI takes one for each sequence, all or none. */
static void best_of_takes_as_many_permits(void **state)
{
    static const char body[] = "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":2,"
                               "\"best_of\":2,\"do_sample\":true}}";
    struct answer a = { 0 };

    (void)state;
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    set_permits("1");
    for (int i = 0; i < 3; i++)
        expect("/generate", body, 429,
               "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":2}}", &a);
    assert_int_equal(a.status, 200);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    set_permits("2");
    for (int i = 0; i < 3; i++) {
        client_request(h.port, "/generate", "", body, &a);
        assert_int_equal(a.status, 200);
        assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    }
    set_permits("512");
    answer_fini(&a);
}

/* ---- tokens ---- */

static void tokenize_tells_tokens_and_places(void **state)
{
    struct answer a = { 0 };

    (void)state;
    expect("/tokenize", "{\"inputs\":\"the dog.\"}", 200,
           "[{\"id\":1,\"text\":\"<s>\",\"start\":0,\"stop\":0},"
           "{\"id\":264,\"text\":\"the\",\"start\":0,\"stop\":3},"
           "{\"id\":533,\"text\":\" dog\",\"start\":3,\"stop\":7},"
           "{\"id\":1985,\"text\":\".\",\"start\":7,\"stop\":8}]");
    expect("/tokenize", "{\"inputs\":\"\"}", 200,
           "[{\"id\":1,\"text\":\"<s>\",\"start\":0,\"stop\":0}]");
    expect("/tokenize", "{}", 422,
           "Failed to deserialize the JSON body into the target type: missing field `inputs`");
    client_request(h.port, "/tokenize", "", "{\"inputs\":", &a);
    assert_int_equal(a.status, 400);
    client_request(h.port, "/tokenize", "Content-Type: text/plain\r\n", "{\"inputs\":\"x\"}", &a);
    assert_int_equal(a.status, 415);
    answer_fini(&a);
}

static void chat_tokenize_tells_the_prompt_too(void **state)
{
    struct answer a = { 0 };
    json_t *root, *last;
    const char *text;

    (void)state;
    client_request(h.port, "/chat_tokenize", "",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"the dog\"}]}", &a);
    assert_int_equal(a.status, 200);
    expect_begin(&a, "{\"tokenize_response\":[{\"id\":1,\"text\":\"<s>\",\"start\":0,\"stop\":3}");
    root = answer_json(&a);
    text = json_string_value(json_object_get(root, "templated_text"));
    assert_string_equal(text, "<s>[INST] the dog [/INST]");
    last = json_object_get(root, "tokenize_response");
    last = json_array_get(last, json_array_size(last) - 1);
    assert_int_equal(json_integer_value(json_object_get(last, "stop")), strlen(text));
    json_decref(root);
    client_request(h.port, "/chat_tokenize", "",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\","
                   "\"content\":\"the\"}]}",
                   &a);
    root = answer_json(&a);
    assert_string_equal(json_string_value(json_object_get(root, "templated_text")),
                        "<s>[INST] x [/INST] the"); /* to be continued */
    json_decref(root);
    expect("/chat_tokenize", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", 422,
           "{\"error\":\"Template error: Conversation roles must alternate "
           "user/assistant/user/assistant/...\",\"error_type\":\"template_error\"}");
    expect("/chat_tokenize", "{}", 422,
           "Failed to deserialize the JSON body into the target type: missing field `messages`");
    answer_fini(&a);
}

/* ---- with a worker ---- */

static double mean_logprob(const json_t *details)
{
    const json_t *tokens = json_object_get(details, "tokens");
    double sum = 0;

    for (size_t i = 0; i < json_array_size(tokens); i++)
        sum += json_number_value(json_object_get(json_array_get(tokens, i), "logprob"));
    return sum / (double)json_array_size(tokens);
}

static void best_of_is_the_likelier_of_two(void **state)
{
    struct answer a = { 0 };

    (void)state;
    for (int round = 0; round < 8; round++) {
        uint32_t submits = atomic_load(&h.workers[0].n_submits);
        json_t *root, *details, *other;
        client_request(h.port, "/generate", "",
                       "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":6,\"best_of\":2,"
                       "\"temperature\":0.9,\"details\":true}}",
                       &a);
        assert_int_equal(a.status, 200);
        assert_int_equal(atomic_load(&h.workers[0].n_submits), submits + 2);
        root = answer_json(&a);
        details = json_object_get(root, "details");
        other = json_array_get(json_object_get(details, "best_of_sequences"), 0);
        assert_int_equal(json_array_size(json_object_get(details, "best_of_sequences")), 1);
        assert_int_equal(json_array_size(json_object_get(other, "tokens")), 6);
        assert_true(mean_logprob(details) >= mean_logprob(other));
        assert_true(json_integer_value(json_object_get(details, "seed")) !=
                    json_integer_value(json_object_get(other, "seed")));
        assert_string_equal(answer_header(&a, "x-generated-tokens"), "6");
        json_decref(root);
    }
    answer_fini(&a);
}

static void prefill_comes_from_the_worker(void **state)
{
    struct answer a = { 0 };
    json_t *root, *prefill;

    (void)state;
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"the dog\",\"parameters\":{\"max_new_tokens\":1,"
                   "\"decoder_input_details\":true}}",
                   &a);
    assert_int_equal(a.status, 200);
    root = answer_json(&a);
    prefill = json_object_get(json_object_get(root, "details"), "prefill");
    assert_int_equal(json_array_size(prefill), 3);
    assert_true(json_is_null(json_object_get(json_array_get(prefill, 0), "logprob")));
    for (size_t i = 1; i < 3; i++)
        assert_true(json_number_value(json_object_get(json_array_get(prefill, i), "logprob")) < 0);
    assert_string_equal(json_string_value(json_object_get(json_array_get(prefill, 2), "text")),
                        "dog");
    json_decref(root);
    answer_fini(&a);
}

static void a_seed_of_64_bits_is_answered_whole(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"the\",\"parameters\":{\"max_new_tokens\":1,\"do_sample\":true,"
                   "\"details\":true,\"seed\":18446744073709551615}}",
                   &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_body(&a), "\"seed\":18446744073709551615,"));
    answer_fini(&a);
}

/* After 15 s without an event, so that nobody on the way takes the connection for dead. */
static void a_quiet_stream_is_kept_open(void **state)
{
    const struct timeval patience = { .tv_sec = 30 };
    int fd = client_connect(h.port);
    struct answer a = { 0 };

    (void)state;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    atomic_store(&h.workers[0].step_us, 50000);
    client_post(fd, "/generate_stream", "",
                "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":40}}");
    client_read_some(fd, &a, 1);
    expect_begin(&a, "data: {\"index\":1,");
    atomic_store(&h.workers[0].is_paused, true);
    atomic_store(&h.workers[0].step_us, 0);
    do { /* what was on the way comes first */
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof bytes - 1, 0);
        assert_true(n > 0);
        bytes[n] = '\0';
        if (strstr(bytes, "3\r\n:\n\n\r\n"))
            break;
    } while (true);
    atomic_store(&h.workers[0].is_paused, false);
    close(fd);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    answer_fini(&a);
}

static void invocations_and_vertex_answer(void **state)
{
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    client_request(h.port, "/invocations", "",
                   "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":2}}", &a);
    assert_int_equal(a.status, 200);
    expect_begin(&a, "[{\"generated_text\":\"One day");
    client_request(h.port, "/invocations", "", "{\"prompt\":\"One day\",\"max_tokens\":2}", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_body(&a), "\"text_completion\""));
    client_request(h.port, "/invocations", "",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":2,"
                   "\"stream\":true}",
                   &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_body(&a), "chat.completion.chunk"));
    assert_non_null(strstr(answer_body(&a), "data: [DONE]\n\n"));
    client_request(h.port, "/vertex", "",
                   "{\"instances\":[{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":2}},"
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":3}]}",
                   &a);
    assert_int_equal(a.status, 200);
    root = answer_json(&a);
    assert_int_equal(json_array_size(json_object_get(root, "predictions")), 2);
    json_decref(root);
    answer_fini(&a);
}

static void tgis_paths_refuse_without_a_body(void **state)
{
    static const char *const paths[] = { "/generate", "/generate_stream", "/invocations",
                                         "/vertex",   "/tokenize",        "/chat_tokenize" };
    struct answer a = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        client_get(h.port, paths[i], &a);
        assert_int_equal(a.status, 405);
        assert_int_equal(a.body.n, 0);
        assert_string_equal(answer_header(&a, "Allow"), "POST");
    }
    client_request(h.port, "/info", "", "{}", &a);
    assert_int_equal(a.status, 405);
    assert_int_equal(a.body.n, 0);
    assert_string_equal(answer_header(&a, "Allow"), "GET,HEAD");
    answer_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_has_its_text),
        cmocka_unit_test(in_a_stream_each_is_an_event),
        cmocka_unit_test(errors_carry_no_times),
        cmocka_unit_test(one_too_many_is_overloaded),
        cmocka_unit_test(best_of_takes_as_many_permits),
        cmocka_unit_test(tokenize_tells_tokens_and_places),
        cmocka_unit_test(chat_tokenize_tells_the_prompt_too),
        cmocka_unit_test(best_of_is_the_likelier_of_two),
        cmocka_unit_test(prefill_comes_from_the_worker),
        cmocka_unit_test(a_seed_of_64_bits_is_answered_whole),
        cmocka_unit_test(invocations_and_vertex_answer),
        cmocka_unit_test(a_quiet_stream_is_kept_open),
        cmocka_unit_test(tgis_paths_refuse_without_a_body),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
