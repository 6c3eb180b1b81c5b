/* test_gateway_routes.c - the real gateway on every route: what a client of each dialect reads, and what it
 * reads when it asks for nonsense.  A wrong byte here is a client that no longer works. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"
#include "text/detokenizer.h"
#include "text/token_list.h"

static struct harness h;
static struct tokenizer *tokenizer;

enum { SEED = 7 };

static const struct harness_setting settings[] = {
    { "tool_call_parser", "hermes" },
    { "reasoning_parser", "qwen3" },
    { NULL, NULL },
};

static int start(void **state)
{
    struct err e;

    (void)state;
    tokenizer = tokenizer_open(TEST_SOURCE_DIR "/models/stories-demo", &e);
    assert_non_null(tokenizer);
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    tokenizer_close(tokenizer);
    return 0;
}

/* The text that the fake worker's first n tokens make behind a prompt. */
static void expected_text(const char *prompt, unsigned flags, uint32_t n, struct buf *out)
{
    struct token_list ids = { 0 };
    struct detokenizer d;
    struct err e;
    uint64_t key;

    assert_true(tokenizer_encode(tokenizer, prompt, strlen(prompt), flags, &ids, &e));
    key = fake_key(ids.ids, ids.n, SEED);
    detokenizer_init(&d, tokenizer, DETOKENIZER_SKIP_SPECIAL);
    detokenizer_continue(&d, ids.ids, ids.n);
    buf_clear(out);
    for (uint32_t i = 0; i < n; i++)
        detokenizer_push(&d, fake_token(key, i), out);
    detokenizer_flush(&d, out);
    token_list_fini(&ids);
}

static json_t *parse(const struct answer *a)
{
    struct err e;
    json_t *v = json_parse(answer_body(a), a->body.n, &e);

    if (!v)
        fail_msg("not JSON: %s: %s", e.msg, answer_body(a));
    return v;
}

static const char *get_text(json_t *root, const char *list, const char *object, const char *key)
{
    json_t *v = json_array_get(json_object_get(root, list), 0);

    if (object)
        v = json_object_get(v, object);
    return json_string_value(json_object_get(v, key));
}

/* ---- plain answers ---- */

static void generate_answers_the_workers_text(void **state)
{
    struct buf want = { 0 };
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    expected_text("Once upon a time", TOKENIZER_ADD_SPECIAL, 12, &want);
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"Once upon a time\",\"stream\":true,"
                   "\"parameters\":{\"max_new_tokens\":12,\"do_sample\":true,\"seed\":7}}",
                   &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    assert_string_equal(json_string_value(json_object_get(root, "generated_text")), want.data);
    assert_int_equal(json_object_size(root), 1);
    assert_string_equal(answer_header(&a, "x-prompt-tokens"), "5");
    assert_string_equal(answer_header(&a, "x-generated-tokens"), "12");
    assert_string_equal(answer_header(&a, "x-compute-characters"), "16");
    assert_non_null(answer_header(&a, "x-time-per-token"));
    json_decref(root);
    buf_fini(&want);
    answer_fini(&a);
}

static void root_answers_an_array_with_the_prompt(void **state)
{
    struct buf want = { 0 };
    struct answer a = { 0 };
    char text[256];
    json_t *root;

    (void)state;
    expected_text("One day", TOKENIZER_ADD_SPECIAL, 3, &want);
    snprintf(text, sizeof text, "One day%s", want.data);
    client_request(h.port, "/", "",
                   "{\"inputs\":\"One day\","
                   "\"parameters\":{\"max_new_tokens\":3,\"do_sample\":true,\"seed\":7}}",
                   &a);
    root = parse(&a);
    assert_true(json_is_array(root));
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(root, 0), "generated_text")), text);
    json_decref(root);
    buf_fini(&want);
    answer_fini(&a);
}

static void completions_and_chat_answer_the_workers_text(void **state)
{
    struct buf want = { 0 };
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    expected_text("One day", TOKENIZER_ADD_SPECIAL, 16, &want);
    client_request(h.port, "/v1/completions", "", "{\"prompt\":\"One day\",\"seed\":7}", &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    assert_string_equal(get_text(root, "choices", NULL, "text"), want.data);
    assert_string_equal(get_text(root, "choices", NULL, "finish_reason"), "length");
    json_decref(root);

    expected_text("<s>[INST] Hi [/INST]", TOKENIZER_PARSE_SPECIAL, 5, &want);
    client_request(h.port, "/v1/chat/completions", "",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                   "\"max_completion_tokens\":5,\"seed\":7}",
                   &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    assert_string_equal(get_text(root, "choices", "message", "content"), want.data);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "usage"), "completion_tokens")),
        5);
    json_decref(root);
    buf_fini(&want);
    answer_fini(&a);
}

static void eos_ends_the_text_and_is_not_in_it(void **state)
{
    struct buf want = { 0 };
    struct answer a = { 0 };
    json_t *root, *details;

    (void)state;
    atomic_store(&h.workers[0].eos_at, 4);
    expected_text("One day", TOKENIZER_ADD_SPECIAL, 3, &want);
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":9,"
                   "\"do_sample\":true,\"seed\":7,\"details\":true}}",
                   &a);
    root = parse(&a);
    details = json_object_get(root, "details");
    assert_string_equal(json_string_value(json_object_get(root, "generated_text")), want.data);
    assert_string_equal(json_string_value(json_object_get(details, "finish_reason")), "eos_token");
    assert_int_equal(json_array_size(json_object_get(details, "tokens")), 4);
    assert_true(json_is_true(
        json_object_get(json_array_get(json_object_get(details, "tokens"), 3), "special")));
    assert_string_equal(json_string_value(json_object_get(
                            json_array_get(json_object_get(details, "tokens"), 3), "text")),
                        "</s>");
    json_decref(root);
    client_request(h.port, "/v1/completions", "",
                   "{\"prompt\":\"One day\",\"seed\":7,\"max_tokens\":9}", &a);
    root = parse(&a);
    assert_string_equal(get_text(root, "choices", NULL, "text"), want.data);
    assert_string_equal(get_text(root, "choices", NULL, "finish_reason"), "stop");
    json_decref(root);
    atomic_store(&h.workers[0].eos_at, 0);
    buf_fini(&want);
    answer_fini(&a);
}

/* ---- streams ---- */

/* Join what a stream's events carry under `path` ("token.text"), and count its events. */
static int join_events(const char *body, const char *const path[], struct buf *out)
{
    int n = 0;

    buf_clear(out);
    for (const char *at = body; (at = strstr(at, "data: ")); n++) {
        const char *end = strstr(at, "\n\n");
        json_t *event, *v;
        struct err e;
        assert_non_null(end);
        if (strncmp(at, "data: [DONE]", 12) == 0)
            break;
        event = json_parse(at + 6, (size_t)(end - at - 6), &e);
        assert_non_null(event);
        v = event;
        for (int i = 0; path[i]; i++)
            v = json_is_array(v) ? json_array_get(v, (size_t)atoi(path[i]))
                                 : json_object_get(v, path[i]);
        if (json_is_string(v))
            buf_add_str(out, json_string_value(v));
        json_decref(event);
        at = end;
    }
    return n;
}

static void streams_join_to_the_plain_text(void **state)
{
    static const struct {
        const char *path, *body, *prompt;
        unsigned flags;
        const char *text[6];
    } cases[] = {
        { "/generate_stream",
          "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":40,\"do_sample\":true,"
          "\"seed\":7}}",
          "One day",
          TOKENIZER_ADD_SPECIAL,
          { "token", "text" } },
        { "/",
          "{\"inputs\":\"One day\",\"stream\":true,\"parameters\":{\"max_new_tokens\":40,"
          "\"do_sample\":true,\"seed\":7}}",
          "One day",
          TOKENIZER_ADD_SPECIAL,
          { "token", "text" } },
        { "/v1/completions",
          "{\"prompt\":\"One day\",\"max_tokens\":40,\"seed\":7,\"stream\":true}",
          "One day",
          TOKENIZER_ADD_SPECIAL,
          { "choices", "0", "text" } },
        { "/v1/chat/completions",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":40,\"seed\":7,"
          "\"stream\":true,\"stop\":[\"never to be seen\"]}",
          "<s>[INST] Hi [/INST]",
          TOKENIZER_PARSE_SPECIAL,
          { "choices", "0", "delta", "content" } },
    };
    struct buf want = { 0 }, got = { 0 };
    struct answer a = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expected_text(cases[i].prompt, cases[i].flags, 40, &want);
        client_request(h.port, cases[i].path, "", cases[i].body, &a);
        assert_int_equal(a.status, 200);
        assert_true(a.is_whole);
        assert_true(join_events(answer_body(&a), cases[i].text, &got) > 1);
        assert_string_equal(got.data, want.data);
    }
    buf_fini(&want);
    buf_fini(&got);
    answer_fini(&a);
}

/* ---- tools, thoughts, /v1/responses ---- */

#define SCRIPTED "\"seed\":20240726,\"max_tokens\":300,"
#define TOOLS    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\"}}],"

static const json_t *at_path(const json_t *v, const char *const *path)
{
    for (; *path; path++)
        v = json_is_array(v) ? json_array_get(v, (size_t)atoi(*path)) : json_object_get(v, *path);
    return v;
}

static void expect_text(const json_t *root, const char *const *path, const char *want)
{
    const char *got = json_string_value(at_path(root, path));

    assert_non_null(got);
    assert_string_equal(got, want);
}

#define PATH(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void chat_answers_with_thoughts_and_calls(void **state)
{
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    client_request(h.port, "/v1/chat/completions", "",
                   "{" SCRIPTED TOOLS "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}", &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    expect_text(root, PATH("choices", "0", "finish_reason"), "tool_calls");
    expect_text(root, PATH("choices", "0", "message", "reasoning"), "\nI need to look.\n");
    expect_text(root, PATH("choices", "0", "message", "content"), "Let me see.\n");
    expect_text(root, PATH("choices", "0", "message", "tool_calls", "0", "function", "arguments"),
                "{\"city\": \"Z\u00fcrich\", \"days\": [1, 2]}");
    expect_text(root, PATH("choices", "0", "message", "tool_calls", "1", "function", "name"),
                "clock");
    json_decref(root);
    answer_fini(&a);
}

static void chat_streams_thoughts_and_calls(void **state)
{
    static const struct {
        const char *const path[8], *want;
    } joined[] = {
        { { "choices", "0", "delta", "reasoning" }, "\nI need to look.\n" },
        { { "choices", "0", "delta", "content" }, "Let me see.\n" },
        { { "choices", "0", "delta", "tool_calls", "0", "function", "name" }, "weatherclock" },
        { { "choices", "0", "delta", "tool_calls", "0", "function", "arguments" },
          "{\"city\": \"Z\u00fcrich\", \"days\": [1, 2]}{}" },
        { { "choices", "0", "finish_reason" }, "tool_calls" },
    };
    struct answer a = { 0 };
    struct buf got = { 0 };

    (void)state;
    client_request(h.port, "/v1/chat/completions", "",
                   "{" SCRIPTED TOOLS "\"stream\":true,"
                   "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}",
                   &a);
    assert_int_equal(a.status, 200);
    for (size_t i = 0; i < sizeof joined / sizeof *joined; i++) {
        join_events(answer_body(&a), joined[i].path, &got);
        assert_string_equal(got.data, joined[i].want);
    }
    buf_fini(&got);
    answer_fini(&a);
}

static void responses_answer_with_items(void **state)
{
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    client_request(h.port, "/v1/responses", "",
                   "{\"seed\":20240726,\"input\":\"Hi\",\"tools\":[{\"type\":\"function\","
                   "\"name\":\"weather\"}]}",
                   &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    expect_text(root, PATH("status"), "completed");
    expect_text(root, PATH("output", "0", "content", "0", "text"), "\nI need to look.\n");
    expect_text(root, PATH("output", "1", "content", "0", "text"), "Let me see.\n");
    expect_text(root, PATH("output", "2", "arguments"),
                "{\"city\": \"Z\u00fcrich\", \"days\": [1, 2]}");
    expect_text(root, PATH("output", "3", "name"), "clock");
    json_decref(root);
    answer_fini(&a);
}

static void responses_stream_the_workers_text(void **state)
{
    struct buf want = { 0 }, got = { 0 };
    struct answer a = { 0 };

    (void)state;
    expected_text("<s>[INST] Hi [/INST]", TOKENIZER_PARSE_SPECIAL, 40, &want);
    client_request(h.port, "/v1/responses", "",
                   "{\"input\":\"Hi\",\"seed\":7,\"max_output_tokens\":40,\"stream\":true}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream; charset=utf-8");
    join_events(answer_body(&a), PATH("delta"), &got);
    assert_string_equal(got.data, want.data);
    join_events(answer_body(&a), PATH("response", "output", "0", "content", "0", "text"), &got);
    assert_string_equal(got.data, want.data);
    assert_non_null(strstr(answer_body(&a), "event: response.incomplete\n"));
    client_get(h.port, "/v1/responses/resp_1", &a);
    assert_int_equal(a.status, 404);
    buf_fini(&want);
    buf_fini(&got);
    answer_fini(&a);
}

static void predict_streams_nul_delimited_and_as_events(void **state)
{
    const char *body = "{\"inputs\":\"One day\",\"stream\":true,\"n\":4,\"use_beam_search\":true,"
                       "\"parameters\":{\"max_new_tokens\":3,\"watermark\":true,\"seed\":42,"
                       "\"return_full_text\":false}}";
    struct answer a = { 0 };
    size_t at = 0;
    int n = 0;

    (void)state;
    client_request(h.port, "/predict", "Content-Type: text/plain\r\n", body, &a);
    assert_int_equal(a.status, 200);
    assert_null(answer_header(&a, "Content-Type"));
    for (; at < a.body.n; n++) {
        json_t *record;
        size_t len = strlen(a.body.data + at);
        assert_memory_equal(a.body.data + at, "{\"text\": [\"One day", 18);
        record = json_parse(a.body.data + at, len, NULL);
        assert_non_null(record);
        json_decref(record);
        at += len + 1;
    }
    assert_int_equal(at, a.body.n);
    assert_int_equal(n, 3);
    client_request(h.port, "/predict", "enable-streaming: true\r\n", body, &a);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream");
    assert_memory_equal(answer_body(&a), "data: {\"text\": [\"One day", 24);
    client_request(h.port, "/predict", "", "{\"inputs\":\"One day\"}", &a);
    assert_int_equal(a.status, 200);
    assert_memory_equal(answer_body(&a), "{\"generated_text\":\"", 19);
    client_request(h.port, "/predict", "route: /v1/completions\r\n",
                   "{\"prompt\":\"One day\",\"max_tokens\":1}", &a);
    assert_non_null(strstr(answer_body(&a), "\"text_completion\""));
    answer_fini(&a);
}

/* A stop string over the seam of two tokens: OpenAI cuts it, TGI keeps it. */
static void stop_strings_end_the_answer_and_cancel(void **state)
{
    uint32_t cancels = atomic_load(&h.workers[0].n_cancels);
    struct buf five = { 0 }, body = { 0 }, got = { 0 };
    const char *const path[] = { "choices", "0", "text", NULL };
    struct answer a = { 0 };
    char stop_string[8];
    json_t *root;
    size_t cut;

    (void)state;
    expected_text("One day", TOKENIZER_ADD_SPECIAL, 5, &five);
    cut = five.n - 4;
    memcpy(stop_string, five.data + cut, 5);
    assert_ptr_equal(strstr(five.data, stop_string), five.data + cut); /* its first place */
    buf_printf(
        &body,
        "{\"prompt\":\"One day\",\"max_tokens\":100,\"seed\":7,\"stop\":[\"zzzz\",\"%s\"]%%s}",
        stop_string);
    for (int stream = 0; stream < 2; stream++) {
        char text[512];
        snprintf(text, sizeof text, body.data, stream ? ",\"stream\":true" : "");
        client_request(h.port, "/v1/completions", "", text, &a);
        if (stream) {
            join_events(answer_body(&a), path, &got);
            assert_int_equal(got.n, cut);
            assert_memory_equal(got.data, five.data, cut);
            assert_non_null(strstr(answer_body(&a), "\"finish_reason\":\"stop\""));
            continue;
        }
        root = parse(&a);
        assert_int_equal(strlen(get_text(root, "choices", NULL, "text")), cut);
        assert_string_equal(get_text(root, "choices", NULL, "stop_reason"), stop_string);
        json_decref(root);
    }
    buf_clear(&body);
    buf_printf(&body,
               "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":100,\"do_sample\":true,"
               "\"seed\":7,\"details\":true,\"stop\":[\"%s\"]}}",
               stop_string);
    client_request(h.port, "/generate", "", body.data, &a);
    root = parse(&a);
    assert_string_equal(json_string_value(json_object_get(root, "generated_text")), five.data);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(root, "details"), "finish_reason")),
        "stop_sequence");
    json_decref(root);
    assert_true(harness_wait_for(&h.workers[0].n_cancels, cancels + 3));
    buf_fini(&five);
    buf_fini(&body);
    buf_fini(&got);
    answer_fini(&a);
}

/* ---- what is refused ---- */

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

/* ---- pages ---- */

static void pages_answer(void **state)
{
    static const struct {
        const char *path;
        int status;
        const char *text;
    } pages[] = {
        { "/health", 200, "" },
        { "/", 200, "" },
        { "/ping", 200, "" },
        { "/health/live", 200, "{\"status\":\"live\"}" },
        { "/health/ready", 200, "{\"status\":\"ready\",\"groups_ready\":1,\"groups\":1}" },
        { "/version", 200, "{\"version\":\"" LLMD_VERSION "\"}" },
        { "/load", 200, "{\"server_load\":0}" },
        { "/info", 200, "\"max_total_tokens\":512" },
        { "/v1/models", 200, "{\"object\":\"list\",\"data\":[{\"id\":\"stories-demo\"" },
        { "/v1/models/stories-demo", 200, "{\"id\":\"stories-demo\",\"object\":\"model\"" },
        { "/v1/models/meta-llama%2FLlama", 404,
          "{\"error\":{\"message\":\"The model `meta-llama/Llama` does not exist.\",\"type\":"
          "\"NotFoundError\",\"param\":\"model\",\"code\":404}}" },
        { "/v1/models/", 404, "{\"detail\":\"Not Found\"}" },
        { "/generate", 405, "" },
        { "/v1/completions", 405, "{\"detail\":\"Method Not Allowed\"}" },
    };
    struct answer a = { 0 };

    (void)state;
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        client_get(h.port, pages[i].path, &a);
        assert_int_equal(a.status, pages[i].status);
        if (pages[i].text[0])
            assert_non_null(strstr(answer_body(&a), pages[i].text));
        else
            assert_int_equal(a.body.n, 0);
        assert_string_equal(answer_header(&a, "Access-Control-Allow-Origin"), "*");
    }
    answer_fini(&a);
}

/* ---- the web pages ---- */

static void get_page(const char *method, const char *path, const char *headers, struct answer *a)
{
    char head[512];
    int fd = client_connect(h.port);
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
                     method, path, headers);

    client_send(fd, head, (size_t)n);
    client_read(fd, a);
    close(fd);
}

/* TGI's probes and a browser ask on one path. */
static void a_browser_gets_pages_and_a_probe_none(void **state)
{
    static const char browser[] = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    char headers[256], asset[128], etag[64];
    struct answer a = { 0 };
    const char *at;

    (void)state;
    get_page("GET", "/", "Accept: */*\r\n", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    get_page("GET", "/", browser, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/html; charset=utf-8");
    assert_non_null(strstr(answer_body(&a), "<title>llmd"));
    snprintf(etag, sizeof etag, "%s", answer_header(&a, "ETag"));
    snprintf(headers, sizeof headers, "%sIf-None-Match: %s\r\n", browser, etag);
    get_page("GET", "/", headers, &a);
    assert_int_equal(a.status, 304);
    assert_int_equal(a.body.n, 0);
    get_page("HEAD", "/", browser, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    assert_string_equal(answer_header(&a, "ETag"), etag);

    get_page("GET", "/docs", "", &a);
    assert_non_null(at = strstr(answer_body(&a), "ui/assets/"));
    snprintf(asset, sizeof asset, "/%.*s", (int)strcspn(at, "\""), at);
    get_page("GET", asset, "Accept-Encoding: gzip\r\n", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_header(&a, "Cache-Control"), "immutable"));
    get_page("GET", "/ui/assets/..%2Fdocs.html", "", &a);
    assert_int_equal(a.status, 404);
    answer_fini(&a);
}

/* The header's word counts more than the body's, unless it is no integer. */
static void priorities_come_in_the_body_or_the_header(void **state)
{
    static const struct {
        const char *headers, *body;
        int priority;
    } rows[] = {
        { "", "{\"prompt\":\"a\",\"max_tokens\":1}", 0 },
        { "", "{\"prompt\":\"a\",\"max_tokens\":1,\"priority\":7}", 7 },
        { "X-Vllm-Priority: -3\r\n", "{\"prompt\":\"a\",\"max_tokens\":1,\"priority\":7}", -3 },
        { "X-Vllm-Priority: 3x\r\n", "{\"prompt\":\"a\",\"max_tokens\":1,\"priority\":7}", 7 },
        { "X-Vllm-Priority: 99999999999\r\n", "{\"prompt\":\"a\",\"max_tokens\":1}", 0 },
    };
    struct answer a = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        client_request(h.port, "/v1/completions", rows[i].headers, rows[i].body, &a);
        assert_int_equal(a.status, 200);
        assert_int_equal(atomic_load(&h.workers[0].last_priority), rows[i].priority);
    }
    answer_fini(&a);
}

/* TGI and vLLM have a route of the same name: the body says whose is meant. */
static void both_dialects_tokenize_on_one_path(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_request(h.port, "/tokenize", "", "{\"prompt\":\"the dog\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_body(&a), "{\"count\":3,\"max_model_len\":512,\"tokens\":"
                                         "[1,264,533],\"token_strs\":null}");
    client_request(h.port, "/tokenize", "", "{\"inputs\":\"the\"}", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_body(&a), "[{\"id\":1,\"text\":"));
    client_request(h.port, "/tokenize", "", "{}", &a);
    assert_int_equal(a.status, 422);
    client_request(h.port, "/detokenize", "", "{\"tokens\":[264,533]}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_body(&a), "{\"prompt\":\"the dog\"}");
    client_request(h.port, "/detokenize", "Content-Type: text/plain\r\n", "{\"tokens\":[264]}", &a);
    assert_int_equal(a.status, 400);
    answer_fini(&a);
}

static json_t *embedding_of(json_t *root, size_t i)
{
    return json_object_get(json_array_get(json_object_get(root, "data"), i), "embedding");
}

/* More inputs than run at once, and each gets its own. */
static void embeddings_answer_in_the_order_of_their_inputs(void **state)
{
    enum { N_INPUTS = 300 };
    struct buf body = { 0 };
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    buf_add_str(&body, "{\"input\":[");
    for (int i = 0; i < N_INPUTS; i++)
        buf_printf(&body, "%s[1,%d]", i ? "," : "", 300 + i);
    buf_add_str(&body, "]}");
    client_request(h.port, "/v1/embeddings", "", body.data, &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    assert_int_equal(json_array_size(json_object_get(root, "data")), N_INPUTS);
    for (int i = 0; i < N_INPUTS; i++) {
        uint64_t key = fake_key((int32_t[]){ 1, 300 + i }, 2, 0);
        const json_t *v = embedding_of(root, (size_t)i);
        double x = (double)fake_embedding(key, LLMD__POOLING__POOL_LAST, 0), sum = 0;
        assert_int_equal(json_array_size(v), FAKE_EMBEDDING);
        for (uint32_t k = 0; k < FAKE_EMBEDDING; k++) {
            double f = (double)fake_embedding(key, LLMD__POOLING__POOL_LAST, k);
            sum += f * f;
        }
        assert_true(fabs(json_number_value(json_array_get(v, 0)) - x / sqrt(sum)) < 1e-6);
    }
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "usage"), "prompt_tokens")),
        2 * N_INPUTS);
    json_decref(root);
    buf_fini(&body);
    answer_fini(&a);
}

static void more_prompts_than_run_at_once_are_answered(void **state)
{
    struct buf body = { 0 }, want = { 0 };
    struct answer a = { 0 };
    json_t *root, *last;

    (void)state;
    expected_text("One day", TOKENIZER_ADD_SPECIAL, 4, &want);
    buf_add_str(&body, "{\"max_tokens\":4,\"seed\":7,\"prompt\":[");
    for (int i = 0; i < 199; i++)
        buf_add_str(&body, "\"dog\",");
    buf_add_str(&body, "\"One day\"]}");
    client_request(h.port, "/v1/completions", "", body.data, &a);
    assert_int_equal(a.status, 200);
    root = parse(&a);
    last = json_array_get(json_object_get(root, "choices"), 199);
    assert_string_equal(json_string_value(json_object_get(last, "text")), want.data);
    json_decref(root);
    buf_fini(&want);
    buf_fini(&body);
    answer_fini(&a);
}

static void a_browser_may_send_its_key(void **state)
{
    static const char ask[] =
        "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: t\r\nOrigin: http://page.example\r\n"
        "Access-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: authorization,content-type\r\n\r\n";
    int fd = client_connect(h.port);
    struct answer a = { 0 };

    (void)state;
    client_send(fd, ask, strlen(ask));
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Headers"), "*, Authorization");
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Methods"), "GET,POST");
    close(fd);
    answer_fini(&a);
}

static void metrics_count_what_happened(void **state)
{
    struct answer a = { 0 };
    char line[160];

    (void)state;
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":2}}", &a);
    client_get(h.port, "/metrics", &a);
    assert_int_equal(a.status, 200);
    snprintf(line, sizeof line, "\nllmd_requests_generate_total %llu\n",
             (unsigned long long)harness_stat(&h, STAT_requests_generate));
    assert_non_null(strstr(answer_body(&a), line));
    snprintf(line, sizeof line, "\ntgi_request_count %llu\n",
             (unsigned long long)harness_stat(&h, STAT_requests_generate));
    assert_non_null(strstr(answer_body(&a), line));
    assert_non_null(strstr(answer_body(&a),
                           "vllm:time_to_first_token_seconds_bucket{model_name=\"stories-demo\","
                           "engine=\"0\",le=\"0.001\"} "));
    answer_fini(&a);
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
        cmocka_unit_test(generate_answers_the_workers_text),
        cmocka_unit_test(root_answers_an_array_with_the_prompt),
        cmocka_unit_test(completions_and_chat_answer_the_workers_text),
        cmocka_unit_test(eos_ends_the_text_and_is_not_in_it),
        cmocka_unit_test(streams_join_to_the_plain_text),
        cmocka_unit_test(chat_answers_with_thoughts_and_calls),
        cmocka_unit_test(chat_streams_thoughts_and_calls),
        cmocka_unit_test(responses_answer_with_items),
        cmocka_unit_test(responses_stream_the_workers_text),
        cmocka_unit_test(predict_streams_nul_delimited_and_as_events),
        cmocka_unit_test(stop_strings_end_the_answer_and_cancel),
        cmocka_unit_test(malformed_requests_get_their_dialects_error),
        cmocka_unit_test(long_prompts_and_bodies_are_refused),
        cmocka_unit_test(pages_answer),
        cmocka_unit_test(a_browser_gets_pages_and_a_probe_none),
        cmocka_unit_test(both_dialects_tokenize_on_one_path),
        cmocka_unit_test(priorities_come_in_the_body_or_the_header),
        cmocka_unit_test(embeddings_answer_in_the_order_of_their_inputs),
        cmocka_unit_test(more_prompts_than_run_at_once_are_answered),
        cmocka_unit_test(a_browser_may_send_its_key),
        cmocka_unit_test(metrics_count_what_happened),
        cmocka_unit_test(every_request_is_counted_once),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
