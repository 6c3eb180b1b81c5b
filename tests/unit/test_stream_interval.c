/* test_stream_interval.c - would break in production: text or log probabilities that are lost, or told twice, when a
 * stream's event has more tokens than one. */
#include "tests/unit/chat_rig.h"

#define TEXT "one two three"

/* The stream of TEXT, a byte a token; its pieces are counted. */
static size_t stream(struct rig *r, const struct dialect *d, const char *body, struct buf *out)
{
    size_t n = 0;

    if (!rig_parse(r, d, 0, body))
        fail_msg("%s: %s", body, r->fault.text);
    rig_says(r, 0, TEXT, LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, out);
    for (const char *at = out->data; (at = strstr(at, "\n|")); at++)
        n++;
    rig_done(r);
    return n;
}

/* All values of `key`, a string, one behind the other. */
static void join(const char *stream, const char *key, char *text, size_t size)
{
    size_t n = 0;

    for (const char *at = stream; (at = strstr(at, key)); at++)
        for (const char *c = at + strlen(key); *c != '"' && n + 1 < size; c++)
            text[n++] = *c;
    text[n] = '\0';
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

/* Thirteen tokens: the first, three times four; and the last is never waited for. */
static void completions_have_events_of_so_many_tokens(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };
    char text[64];

    assert_int_equal(
        stream(r, &dialect_openai_completions,
               "{\"prompt\":\"a\",\"stream\":true,\"stream_interval\":4,\"logprobs\":0,"
               "\"return_token_ids\":true}",
               &out),
        4);
    join(out.data, "\"text\":\"", text, sizeof text);
    assert_string_equal(text, TEXT);
    assert_non_null(strstr(out.data, "\"token_logprobs\":[-1.0,-1.5,-2.0,-2.5]"));
    assert_non_null(strstr(out.data, "\"text_offset\":[9,10,11,12]"));
    assert_int_equal(stream(r, &dialect_openai_completions,
                            "{\"prompt\":\"a\",\"stream\":true,\"stream_interval\":5}", &out),
                     4); /* 1, 5, 5, 2 */
    join(out.data, "\"text\":\"", text, sizeof text);
    assert_string_equal(text, TEXT);
    assert_int_equal(stream(r, &dialect_openai_completions,
                            "{\"prompt\":\"a\",\"stream\":true,\"stream_interval\":1000}", &out),
                     2);
    buf_fini(&out);
}

static void chats_have_events_of_so_many_tokens(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };
    char text[64];

    rig_set(r, "trust_request_chat_template", "on");
    stream(r, &dialect_openai_chat,
           "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"chat_template\":\"x\","
           "\"stream\":true,\"stream_interval\":4,\"logprobs\":true}",
           &out);
    join(out.data, "\"delta\":{\"content\":\"", text, sizeof text);
    assert_string_equal(text, TEXT);
    assert_int_equal(count(out.data, "\"delta\":{\"content\":"), 4);
    assert_int_equal(count(out.data, "\"token\":"), strlen(TEXT));
    buf_fini(&out);
}

static void responses_have_events_of_so_many_tokens(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };
    char text[64];

    stream(r, &dialect_openai_responses,
           "{\"input\":\"a\",\"stream\":true,\"stream_interval\":4,\"include\":["
           "\"message.output_text.logprobs\"]}",
           &out);
    join(out.data, "\"delta\":\"", text, sizeof text);
    assert_string_equal(text, TEXT);
    assert_int_equal(count(out.data, "\"type\":\"response.output_text.delta\""), 4);
    buf_fini(&out);
}

/* The server's, where the request has none. */
static void the_setting_is_the_servers(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    rig_set(r, "stream_interval", "6");
    assert_int_equal(
        stream(r, &dialect_openai_completions, "{\"prompt\":\"a\",\"stream\":true}", &out), 3);
    assert_int_equal(stream(r, &dialect_openai_completions,
                            "{\"prompt\":\"a\",\"stream\":true,\"stream_interval\":1}", &out),
                     13);
    expect_fault(r, &dialect_openai_completions, "{\"prompt\":\"a\",\"stream_interval\":0}", 400,
                 "body.stream_interval");
    buf_fini(&out);
}

/* Text behind the last event comes with the end that the worker tells without a token. */
static void the_end_without_a_token_brings_the_rest(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };
    char text[64];

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"a\",\"stream\":true,\"stream_interval\":8}"));
    rig_says(r, 0, TEXT, LLMD__FINISH__FINISH_NONE);
    choice_abort(&r->rq.choices[0]);
    rig_stream(r, &out);
    join(out.data, "\"text\":\"", text, sizeof text);
    assert_string_equal(text, TEXT);
    rig_done(r);
    buf_fini(&out);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(completions_have_events_of_so_many_tokens), TEST(chats_have_events_of_so_many_tokens),
        TEST(responses_have_events_of_so_many_tokens),   TEST(the_setting_is_the_servers),
        TEST(the_end_without_a_token_brings_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
