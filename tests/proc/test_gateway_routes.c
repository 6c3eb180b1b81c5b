/* test_gateway_routes.c - the real gateway on every route that generates: what a client of each dialect reads.  A
 * wrong byte here is a client that no longer works. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    root = answer_json(&a);
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
    root = answer_json(&a);
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
    root = answer_json(&a);
    assert_string_equal(get_text(root, "choices", NULL, "text"), want.data);
    assert_string_equal(get_text(root, "choices", NULL, "finish_reason"), "length");
    json_decref(root);

    expected_text("<s>[INST] Hi [/INST]", TOKENIZER_PARSE_SPECIAL, 5, &want);
    client_request(h.port, "/v1/chat/completions", "",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                   "\"max_completion_tokens\":5,\"seed\":7}",
                   &a);
    assert_int_equal(a.status, 200);
    root = answer_json(&a);
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
    root = answer_json(&a);
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
    root = answer_json(&a);
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
    root = answer_json(&a);
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
    root = answer_json(&a);
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
        root = answer_json(&a);
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
    root = answer_json(&a);
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
    root = answer_json(&a);
    last = json_array_get(json_object_get(root, "choices"), 199);
    assert_string_equal(json_string_value(json_object_get(last, "text")), want.data);
    json_decref(root);
    buf_fini(&want);
    buf_fini(&body);
    answer_fini(&a);
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
        cmocka_unit_test(more_prompts_than_run_at_once_are_answered),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
