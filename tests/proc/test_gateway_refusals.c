/* test_gateway_refusals.c - the real gateway asked for nonsense: the status and the words of the dialect that was
 * asked, and each request is counted once.  A wrong byte here is a client that no longer works. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

struct refusal {
    const char *path, *headers, *body;
    int status;
    const char *text; /* part of the body; all of it when it begins with '=' */
};

#define VALIDATION(text)                                                                           \
    "={\"error\":\"Input validation error: " text "\",\"error_type\":\"validation\"}"

static const struct refusal refusals[] = {
    { "/generate", "Content-Type: text/plain\r\n", "{}", 415,
      "=Expected request with `Content-Type: application/json`" },
    { "/generate", "", "{\"inputs\":", 400, "Failed to parse the request body as JSON: " },
    { "/generate", "", "", 400, "Failed to parse the request body as JSON: " },
    { "/generate", "", "[]", 422, "Failed to deserialize the JSON body into the target type: " },
    { "/generate", "", "{}", 422, "missing field `inputs`" },
    { "/generate", "", "{\"inputs\":5}", 422, "inputs: invalid type: integer `5`" },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":null}", 422, "parameters: invalid type" },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"stop\":\"x\"}}", 422,
      "expected a sequence" },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"stop\":[1]}}", 422,
      "parameters.stop[0]" },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"top_k\":1.5}}", 422,
      "parameters.top_k" },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"seed\":-1}}", 422, "parameters.seed" },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"temperature\":1e999}}", 400, "JSON" },
    { "/generate", "", "{\"inputs\":\"\"}", 422, VALIDATION("`inputs` cannot be empty") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"temperature\":0}}", 422,
      VALIDATION("`temperature` must be strictly positive") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"repetition_penalty\":0}}", 422,
      VALIDATION("`repetition_penalty` must be strictly positive") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"frequency_penalty\":2.5}}", 422,
      VALIDATION("`frequency_penalty` must be >= -2.0 and <= 2.0") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"top_p\":1.0}}", 422,
      VALIDATION("`top_p` must be > 0.0 and < 1.0") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"typical_p\":0}}", 422,
      VALIDATION("`typical_p` must be > 0.0 and < 1.0") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"top_k\":0}}", 422,
      VALIDATION("`top_k` must be strictly positive") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":0}}", 422,
      VALIDATION("`max_new_tokens` must be strictly positive") },
    { "/generate", "",
      "{\"inputs\":\"a\",\"parameters\":{\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]}}", 422,
      VALIDATION("`stop` supports up to 4 stop sequences. Given: 5") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"best_of\":3,\"do_sample\":true}}", 422,
      VALIDATION("`best_of` must be > 0 and <= 2. Given: 3") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"best_of\":2}}", 422,
      VALIDATION("you must use sampling when `best_of` is > 1") },
    { "/generate", "",
      "{\"inputs\":\"a\",\"parameters\":{\"best_of\":2,\"do_sample\":true,\"seed\":1}}", 422,
      VALIDATION("`seed` must not be set when `best_of` > 1") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"top_n_tokens\":6}}", 422,
      VALIDATION("`top_n_tokens` must be >= 0 and <= 5. Given: 6") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"truncate\":0}}", 422,
      VALIDATION("`truncate` must be strictly positive and less than 511. Given: 0") },
    { "/generate", "", "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":511}}", 422,
      VALIDATION("`inputs` tokens + `max_new_tokens` must be <= 512. Given: 3 `inputs` tokens and "
                 "511 `max_new_tokens`") },
    { "/generate", "", "{\"inputs\":\"a\",\"parameters\":{\"grammar\":{\"type\":\"json\"}}}", 422,
      VALIDATION("grammar is not supported") },
    { "/generate_stream", "", "{\"inputs\":\"a\",\"parameters\":{\"best_of\":2}}", 200,
      "=data: {\"error\":\"Input validation error: `best_of` != 1 is not supported when streaming "
      "tokens\",\"error_type\":\"validation\"}\n\n" },
    { "/generate_stream", "", "{}", 422, "missing field `inputs`" },
    { "/v1/completions", "Content-Type: text/plain\r\n", "{}", 400,
      "={\"error\":{\"message\":\"Unsupported Media Type: Only 'application/json' is allowed\","
      "\"type\":\"Bad Request\",\"param\":null,\"code\":400}}" },
    { "/v1/completions", "", "{\"prompt\"", 400, "\"type\":\"Bad Request\"" },
    { "/v1/completions", "", "[1]", 400, "\"type\":\"Bad Request\"" },
    { "/v1/completions", "", "{}", 400,
      "={\"error\":{\"message\":\"Either prompt or prompt_embeds must be provided and non-empty.\","
      "\"type\":\"BadRequestError\",\"param\":\"prompt\",\"code\":400}}" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"model\":\"foo\"}", 404,
      "={\"error\":{\"message\":\"The model `foo` does not exist.\",\"type\":\"NotFoundError\","
      "\"param\":\"model\",\"code\":404}}" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"top_p\":2}", 400,
      "top_p must be in (0, 1], got 2. (parameter=top_p, value=2)" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"temperature\":0,\"n\":2}", 400,
      "n must be 1 when using greedy sampling, got 2." },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"n\":0}", 400, "\"param\":\"body.n\"" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"n\":3000}", 400, "\"param\":\"n\"" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"stop\":[\"\"]}", 400,
      "stop cannot contain an empty string." },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]}", 400,
      "Bad Request" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"suffix\":\"x\"}", 400,
      "suffix is not currently supported" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":true}}", 400,
      "Stream options can only be defined when `stream=True`." },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"max_tokens\":0}", 400,
      "max_tokens must be at least 1, got 0." },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"seed\":99999999999999999999}", 400,
      "Bad Request" },
    { "/v1/completions", "", "{\"prompt\":[1,2,-3]}", 400, "out of vocabulary" },
    { "/v1/completions", "", "{\"prompt\":[1,\"x\"]}", 400, "body.prompt" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"logprobs\":-1}", 400,
      "`logprobs` must be a positive value." },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"logprobs\":21}", 400, "max allowed: 20" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"logit_bias\":{\"99999\":1}}", 400,
      "out-of-vocab" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"use_beam_search\":true,\"stream\":true}", 400,
      "Streaming is not currently supported with beam search" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"guided_json\":{}}", 400,
      "guided_json is not supported by this server" },
    { "/v1/completions", "", "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}",
      400, "response_format is not supported by this server" },
    { "/v1/chat/completions", "", "{}", 400, "body.messages" },
    { "/v1/chat/completions", "", "{\"messages\":[]}", 400, "messages" },
    { "/v1/chat/completions", "", "{\"messages\":[5]}", 400, "body.messages.0" },
    { "/v1/chat/completions", "", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}",
      400, "Conversation roles must alternate user/assistant/user/assistant/..." },
    { "/v1/chat/completions", "",
      "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400,
      "Unsupported chat content part type: 'image_url'" },
    { "/v1/chat/completions", "",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":2}", 400,
      "when using `top_logprobs`, `logprobs` must be set to true." },
    { "/v1/chat/completions", "",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}]}", 400,
      "body.tools.0" },
    { "/v1/chat/completions", "",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"chat_template\":\"{{1}}\"}", 400,
      "Refused request with untrusted chat template." },
    { "/v1/responses", "Content-Type: text/plain\r\n", "{}", 400,
      "Unsupported Media Type: Only 'application/json' is allowed" },
    { "/v1/responses", "", "{}", 400, "body.input" },
    { "/v1/responses", "", "{\"input\":\"a\",\"previous_response_id\":\"resp_1\"}", 400,
      "responses are not stored" },
    { "/predict", "", "not json", 400, "\"error_type\":\"validation\"" },
    { "/predict", "", "{}", 422, "`inputs` is missing" },
    { "/predict", "", "{\"inputs\":\"a\",\"parameters\":{\"temperature\":-1}}", 422,
      "`temperature` must be non-negative" },
    { "/predict", "", "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":0}}", 422,
      "`max_new_tokens` must be an integer from 1" },
    { "/nowhere", "", "{}", 404, "={\"detail\":\"Not Found\"}" },
    { "/v1/models", "", "{}", 405, "={\"detail\":\"Method Not Allowed\"}" },
    { "/info", "", "{}", 405, "=" },
};

static void malformed_requests_get_their_dialects_error(void **state)
{
    uint64_t before = harness_stat(&h, STAT_requests_finished_error);
    struct answer a = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *r = &refusals[i];
        bool whole = r->text[0] == '=';
        client_request(h.port, r->path, r->headers, r->body, &a);
        if (a.status != r->status || (whole && strcmp(answer_body(&a), r->text + 1) != 0) ||
            (!whole && !strstr(answer_body(&a), r->text)))
            fail_msg("%s %s\n  got  %d %s\n  want %d %s", r->path, r->body, a.status,
                     answer_body(&a), r->status, r->text);
    }
    assert_int_equal(harness_stat(&h, STAT_requests_finished_error), before);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    answer_fini(&a);
}

static void long_prompts_and_bodies_are_refused(void **state)
{
    size_t n = 11u << 20;
    char *words = malloc(n + 64);
    struct answer a = { 0 };
    struct buf body = { 0 };

    (void)state;
    for (size_t i = 0; i < n; i++)
        words[i] = "cat "[i % 4];
    words[4 * 600] = '\0';
    buf_printf(&body, "{\"prompt\":\"%s\",\"max_tokens\":5}", words);
    client_request(h.port, "/v1/completions", "", body.data, &a);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(answer_body(&a), "This model's maximum context length is 512 tokens. "
                                            "However, you requested 5 output tokens and your "
                                            "prompt contains "));
    assert_non_null(strstr(answer_body(&a), "\"param\":\"input_tokens\""));
    buf_clear(&body);
    buf_printf(&body, "{\"inputs\":\"%s\"}", words);
    client_request(h.port, "/generate", "", body.data, &a);
    assert_int_equal(a.status, 422);
    assert_non_null(
        strstr(answer_body(&a), "`inputs` tokens + `max_new_tokens` must be <= 512. Given: "));
    words[4 * 600] = 'c';
    words[n] = '\0';
    client_request(h.port, "/generate", "", words, &a);
    assert_int_equal(a.status, 413);
    assert_string_equal(answer_body(&a),
                        "Failed to buffer the request body: length limit exceeded");
    buf_fini(&body);
    answer_fini(&a);
    free(words);
}

static void every_request_is_counted_once(void **state)
{
    uint64_t ended;

    (void)state;
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    ended = harness_stat(&h, STAT_requests_finished_stop) +
            harness_stat(&h, STAT_requests_finished_length) +
            harness_stat(&h, STAT_requests_finished_error) +
            harness_stat(&h, STAT_requests_cancelled) +
            harness_stat(&h, STAT_requests_refused_invalid) +
            harness_stat(&h, STAT_requests_refused_template) +
            harness_stat(&h, STAT_requests_refused_overload) +
            harness_stat(&h, STAT_requests_refused_limited) +
            harness_stat(&h, STAT_requests_refused_unavailable);
    assert_int_equal(ended, harness_stat(&h, STAT_requests_generate));
    assert_true(ended > 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_requests_get_their_dialects_error),
        cmocka_unit_test(long_prompts_and_bodies_are_refused),
        cmocka_unit_test(every_request_is_counted_once),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
