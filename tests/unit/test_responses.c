/* test_responses.c - /v1/responses, byte for byte: SDKs build their objects from these events, and wait for ever
 * for one that is missing. */
#include "tests/unit/chat_rig.h"

#include "gateway/openai/responses.h"

static int set_up(void **state)
{
    struct rig *r = rig_new();

    rig_set(r, "tool_call_parser", "hermes");
    rig_set(r, "reasoning_parser", "qwen3");
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

#define RESPONSES &dialect_openai_responses
#define LENGTH    LLMD__FINISH__FINISH_LENGTH
#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}]"
#define CALL_F "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>"
/* of the request 0xabc, as chat_derive_id() makes them: changing them breaks the takeover of running answers */
#define ITEM_0 "e7dba605c5ca4bbc"
#define ITEM_1 "5eef0ee8842d3894"
#define CALL_0 "call_61d8332ec22b1a28"

static void expect_taken(struct rig *r, const char *body)
{
    if (!rig_parse(r, RESPONSES, 0, body))
        fail_msg("%s: %s", body, r->fault.text);
}

/* Tokens that spell a text, and one that ends it without text. */
static void says_all(struct rig *r, const char *text)
{
    static const int32_t end[] = { 2 };

    rig_says(r, 0, text, LLMD__FINISH__FINISH_NONE);
    rig_tokens(r, 0, end, 1, LLMD__FINISH__FINISH_EOS);
}

#define HEAD(status)                                                                               \
    "{\"id\":\"resp_0000000000000abc\",\"object\":\"response\",\"created_at\":1760000000,"         \
    "\"status\":\"" status "\",\"background\":false,\"error\":null,\"incomplete_details\":"
#define ASKED                                                                                      \
    "\"parallel_tool_calls\":true,\"previous_response_id\":null,\"reasoning\":{\"effort\":null,"   \
    "\"summary\":null},\"service_tier\":null,\"store\":false,\"temperature\":0.6,\"text\":{"       \
    "\"format\":{\"type\":\"text\"}},\"tool_choice\":\"auto\",\"tools\":[],\"top_logprobs\":0,"    \
    "\"top_p\":0.9,\"truncation\":\"disabled\",\"usage\":"
#define MESSAGE(status, text)                                                                      \
    "{\"id\":\"msg_" ITEM_0 "\",\"type\":\"message\",\"status\":\"" status                         \
    "\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"" text            \
    "\",\"annotations\":[],\"logprobs\":[]}]}"
#define USAGE(in, out, total)                                                                      \
    "{\"input_tokens\":" in                                                                        \
    ",\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":" out                       \
    ",\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":" total "}"

#define ENDED                                                                                      \
    HEAD("completed")                                                                              \
    "null,\"instructions\":null,\"max_output_tokens\":null,\"model\":\"stories-demo\",\"output\":" \
    "[" MESSAGE("completed", "Yo") "]," ASKED USAGE("8", "3", "11") ",\"user\":null,"              \
                                                                    "\"metadata\":{}}"

static void a_text_is_one_message(void **state)
{
    struct rig *r = *state;

    expect_taken(r, "{\"input\":\"Hi\",\"store\":true}");
    assert_string_equal(r->rq.prompts[0].text, "<s>[INST] Hi [/INST]");
    says_all(r, "Yo");
    expect_whole(r, ENDED);
}

static void an_answer_that_is_too_long_is_incomplete(void **state)
{
    struct rig *r = *state;

    expect_taken(r, "{\"input\":\"Hi\",\"max_output_tokens\":2,\"instructions\":\"Be \\\"brief\\\""
                    "\",\"metadata\":{\"a\":\"b\"},\"user\":\"me\",\"truncation\":\"auto\"}");
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 2);
    assert_non_null(strstr(r->rq.prompts[0].text, "Be \"brief\""));
    rig_says(r, 0, "Yo", LENGTH);
    expect_in_whole(r, "\"status\":\"incomplete\",\"background\":false,\"error\":null,"
                       "\"incomplete_details\":{\"reason\":\"max_output_tokens\"},"
                       "\"instructions\":\"Be \\\"brief\\\"\",\"max_output_tokens\":2,");
    expect_taken(r, "{\"input\":\"Hi\",\"metadata\":{\"a\":\"b\"},\"user\":\"me\",\"truncation\":"
                    "\"auto\",\"reasoning\":{\"effort\":\"low\"},\"temperature\":0}");
    rig_says(r, 0, "Yo", LENGTH);
    expect_in_whole(r, "\"truncation\":\"auto\",\"usage\":" USAGE(
                           "8", "2", "10") ",\"user\":\"me\",\"metadata\":{\"a\":\"b\"}}");
}

static void thoughts_and_calls_are_items(void **state)
{
    struct rig *r = *state;

    expect_taken(r, "{\"input\":\"Hi\"," TOOLS ",\"parallel_tool_calls\":false}");
    says_all(r, "<think>hm</think>" CALL_F CALL_F);
    expect_in_whole(
        r, "\"output\":[{\"id\":\"rs_" ITEM_0 "\",\"type\":\"reasoning\",\"status\":\"completed\","
           "\"summary\":[],\"content\":[{\"type\":\"reasoning_text\",\"text\":\"hm\"}]},"
           "{\"id\":\"fc_" ITEM_1 "\",\"type\":\"function_call\",\"status\":\"completed\","
           "\"call_id\":\"" CALL_0 "\",\"name\":\"f\",\"arguments\":\"{}\"}],"
           "\"parallel_tool_calls\":false,");
    expect_taken(r, "{\"input\":\"Hi\"," TOOLS "}");
    says_all(r, "<think>hm</think>" CALL_F);
    expect_in_whole(r, "\"output_tokens_details\":{\"reasoning_tokens\":17},");
}

static void calls_nobody_asked_for_are_text(void **state)
{
    struct rig *r = *state;

    expect_taken(r, "{\"input\":\"Hi\"," TOOLS ",\"tool_choice\":\"none\"}");
    says_all(r, CALL_F);
    expect_in_whole(r, "\"text\":\"<tool_call>{\\\"name\\\":\\\"f\\\",");
}

#define EVENT(type, n)                                                                             \
    "event: response." type "\ndata: {\"type\":\"response." type "\",\"sequence_number\":" n ","
#define AT_0 "\"item_id\":\"msg_" ITEM_0 "\",\"output_index\":0,\"content_index\":0,"
#define PART(text)                                                                                 \
    "\"part\":{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[],\"logprobs\":[]}" \
    "}"
#define BEGUN                                                                                      \
    HEAD("in_progress")                                                                            \
    "null,\"instructions\":null,\"max_output_tokens\":null,\"model\":\"stories-demo\",\"output\":" \
    "[]," ASKED "null,\"user\":null,\"metadata\":{}}}\n\n"

static void a_message_is_streamed_in_events(void **state)
{
    static const char *const events[] = {
        EVENT("created", "0"),
        "\"response\":" BEGUN,
        EVENT("in_progress", "1"),
        "\"response\":" BEGUN,
        EVENT("output_item.added", "2"),
        "\"output_index\":0,\"item\":{\"id\":\"msg_" ITEM_0 "\",\"type\":\"message\",\"status\":"
        "\"in_progress\",\"role\":\"assistant\",\"content\":[]}}\n\n",
        EVENT("content_part.added", "3"),
        AT_0 PART("") "\n\n",
        EVENT("output_text.delta", "4"),
        AT_0 "\"delta\":\"Y\",\"logprobs\":[]}\n\n|",
        EVENT("output_text.delta", "5"),
        AT_0 "\"delta\":\"o\",\"logprobs\":[]}\n\n|",
        EVENT("output_text.done", "6"),
        AT_0 "\"text\":\"Yo\",\"logprobs\":[]}\n\n",
        EVENT("content_part.done", "7"),
        AT_0 PART("Yo") "\n\n",
        EVENT("output_item.done", "8"),
        "\"output_index\":0,\"item\":" MESSAGE("completed", "Yo") "}\n\n|",
        EVENT("completed", "9"),
        "\"response\":" ENDED "}\n\n",
    };
    struct rig *r = *state;
    struct buf want = { 0 };

    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        buf_add_str(&want, events[i]);
    expect_taken(r, "{\"input\":\"Hi\",\"stream\":true}");
    says_all(r, "Yo");
    expect_stream(r, want.data);
    buf_fini(&want);
}

static void expect_in_order(const char *text, const char *const *wanted)
{
    for (; *wanted; wanted++) {
        const char *at = strstr(text, *wanted);
        if (!at)
            fail_msg("no %s in\n%s", *wanted, text);
        text = at + strlen(*wanted);
    }
}

static void calls_and_thoughts_are_streamed_in_events(void **state)
{
    static const char *const wanted[] = {
        EVENT("output_item.added", "2") "\"output_index\":0,\"item\":{\"id\":\"rs_" ITEM_0
                                        "\",\"type\":\"reasoning\",\"status\":\"in_progress\","
                                        "\"summary\":[],\"content\":[]}}",
        EVENT("content_part.added", "3"),
        "\"part\":{\"type\":\"reasoning_text\",\"text\":\"\"}}",
        EVENT("reasoning_text.delta", "4"),
        "\"content_index\":0,\"delta\":\"h\"}",
        EVENT("reasoning_text.done", "6"),
        "\"text\":\"hm\"}",
        EVENT("content_part.done", "7"),
        EVENT("output_item.done", "8"),
        EVENT("output_item.added", "9") "\"output_index\":1,\"item\":{\"id\":\"fc_" ITEM_1
                                        "\",\"type\":\"function_call\",\"status\":\"in_progress\","
                                        "\"call_id\":\"" CALL_0
                                        "\",\"name\":\"f\",\"arguments\":\"\"}}",
        EVENT("function_call_arguments.delta", "10") "\"item_id\":\"fc_" ITEM_1
                                                     "\",\"output_index\":1,\"delta\":\"{\"}",
        EVENT("function_call_arguments.delta", "11"),
        "\"delta\":\"}\"}",
        EVENT("function_call_arguments.done", "12") "\"item_id\":\"fc_" ITEM_1
                                                    "\",\"output_index\":1,\"name\":\"f\","
                                                    "\"arguments\":\"{}\"}",
        EVENT("output_item.done", "13"),
        "\"arguments\":\"{}\"}}",
        EVENT("completed", "14"),
        "\"output\":[{\"id\":\"rs_" ITEM_0,
        "\"id\":\"fc_" ITEM_1,
        NULL,
    };
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, "{\"input\":\"Hi\",\"stream\":true," TOOLS "}");
    says_all(r, "<think>hm</think>" CALL_F);
    rig_stream(r, &out);
    expect_in_order(out.data, wanted);
    buf_fini(&out);
    rig_done(r);
}

/* What a stream says in its deltas, its last event says again. */
static void text_around_calls_is_messages_of_its_own(void **state)
{
    static const char *const wanted[] = {
        "\"output_index\":0,\"item\":{\"id\":\"msg_",
        "\"output_index\":1,\"item\":{\"id\":\"fc_",
        "\"output_index\":2,\"item\":{\"id\":\"msg_",
        "event: response.completed",
        "\"output_text\",\"text\":\"a\",\"annotations\"",
        "\"arguments\":\"{}\"",
        "\"output_text\",\"text\":\" b\",\"annotations\"",
        NULL,
    };
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, "{\"input\":\"Hi\",\"stream\":true," TOOLS "}");
    says_all(r, "a" CALL_F " b");
    rig_stream(r, &out);
    expect_in_order(out.data, wanted);
    buf_fini(&out);
    rig_done(r);
}

/* An event of a token may not depend on tokens that happened to be there already. */
static void events_are_the_same_however_tokens_arrive(void **state)
{
    static const char text[] = "<think>hm</think>a" CALL_F "b";
    static const char body[] = "{\"input\":\"Hi\",\"stream\":true," TOOLS
                               ",\"include\":[\"message.output_text.logprobs\"]}";
    struct rig *r = *state;
    struct buf at_once = { 0 }, one_by_one = { 0 };

    expect_taken(r, body);
    rig_says(r, 0, text, LENGTH);
    rig_stream(r, &at_once);
    rig_done(r);
    expect_taken(r, body);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        struct choice *c = &r->rq.choices[0];
        char letter[2] = { text[i] };
        size_t before = one_by_one.n;
        rig_says(r, 0, letter, text[i + 1] ? LLMD__FINISH__FINISH_NONE : LENGTH);
        c->n_shown++;
        c->end_shown = choice_ends_at(c, (uint32_t)i);
        r->rq.dialect->token(&r->rq, c, (uint32_t)i, &one_by_one);
        if (one_by_one.n > before)
            buf_add_char(&one_by_one, '|');
    }
    r->rq.dialect->end(&r->rq, &one_by_one);
    assert_string_equal(one_by_one.data, at_once.data);
    buf_fini(&at_once);
    buf_fini(&one_by_one);
    rig_done(r);
}

/* Chance, so told only where the operator wants it. */
static void cached_tokens_are_told_where_wanted(void **state)
{
    struct rig *r = *state;

    for (int wanted = 0; wanted < 2; wanted++) {
        rig_set(r, "prompt_tokens_details", wanted ? "on" : "off");
        expect_taken(r, "{\"input\":\"Hi\"}");
        r->rq.cached_tokens = 4;
        rig_says(r, 0, "a", LENGTH);
        expect_in_whole(r, wanted ? "{\"cached_tokens\":4}" : "{\"cached_tokens\":0}");
    }
}

static void logprobs_come_where_they_are_included(void **state)
{
    struct rig *r = *state;

    expect_taken(r, "{\"input\":\"Hi\",\"include\":[\"message.output_text.logprobs\"],"
                    "\"top_logprobs\":1}");
    rig_says(r, 0, "a", LENGTH);
    expect_in_whole(r, "\"text\":\"a\",\"annotations\":[],\"logprobs\":[{\"token\":\"a\","
                       "\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[{\"token\":\"a\","
                       "\"logprob\":-0.5,\"bytes\":[97]}]}]");
}

static void an_empty_answer_is_an_empty_message(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, "{\"input\":\"Hi\",\"stream\":true}");
    says_all(r, "");
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, EVENT("output_text.done", "4") AT_0 "\"text\":\"\","));
    assert_non_null(strstr(out.data, "\"output\":[" MESSAGE("completed", "") "]"));
    buf_fini(&out);
    rig_done(r);
}

static void a_failure_ends_the_stream_with_its_cause(void **state)
{
    static const char *const wanted[] = {
        EVENT("failed", "0") "\"response\":{\"id\":\"resp_0000000000000abc\"",
        "\"status\":\"failed\"",
        "\"error\":{\"code\":\"server_error\",\"message\":\"it broke\"}",
        "event: error\ndata: {\"type\":\"error\",\"sequence_number\":1,\"code\":\"server_error\","
        "\"message\":\"it broke\",\"param\":null}\n\n",
        NULL,
    };
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, "{\"input\":\"Hi\",\"stream\":true}");
    fault_set(&r->fault, FAULT_GENERATION, "", "it broke");
    r->rq.dialect->stream_fault(&r->rq, &r->fault, &out);
    expect_in_order(out.data, wanted);
    buf_fini(&out);
    rig_done(r);
}

static void cut_short(struct rig *r, const char *body)
{
    expect_taken(r, body);
    rig_says(r, 0, "Yo", LLMD__FINISH__FINISH_NONE);
    choice_abort(&r->rq.choices[0]);
    r->rq.choices[0].seq.state = SEQUENCE_ENDED;
}

/* The server ends before the answer does. */
static void an_aborted_answer_is_incomplete(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    cut_short(r, "{\"input\":\"Hi\"}");
    expect_in_whole(r, "\"incomplete_details\":{\"reason\":\"abort\"}");
    cut_short(r, "{\"input\":\"Hi\",\"stream\":true}");
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, "event: response.incomplete\n"));
    assert_non_null(strstr(out.data, MESSAGE("incomplete", "Yo")));
    buf_fini(&out);
    rig_done(r);
}

/* ---- the way in ---- */

static json_t *rendered(struct rig *r, const char *body)
{
    json_t *root = json_parse(body, strlen(body), NULL), *messages;

    assert_non_null(root);
    messages =
        responses_messages(json_object_get(root, "input"),
                           json_string_value(json_object_get(root, "instructions")), &r->fault);
    json_decref(root);
    return messages;
}

static void items_become_the_turns_of_a_chat(void **state)
{
    static const char body[] =
        "{\"instructions\":\"Be brief.\",\"input\":["
        "{\"role\":\"developer\",\"content\":\"d\"},"
        "{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":"
        "\"u\"}]},"
        "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[],\"content\":[{\"type\":"
        "\"reasoning_text\",\"text\":\"t\"}]},"
        "{\"type\":\"message\",\"id\":\"m\",\"status\":\"completed\",\"role\":\"assistant\","
        "\"content\":[{\"type\":\"output_text\",\"text\":\"a\",\"annotations\":[]}]},"
        "{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"f\",\"arguments\":\"{}\"},"
        "{\"type\":\"function_call\",\"call_id\":\"c2\",\"name\":\"g\",\"arguments\":\"{}\"},"
        "{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"o\"}]}";
    static const char want[] =
        "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"developer\",\"content\":"
        "\"d\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"u\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"annotations\":[]"
        "}],\"reasoning\":\"t\",\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"c2\",\"type\":\"function\",\"function\":"
        "{\"name\":\"g\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\","
        "\"content\":\"o\"}]";
    struct buf text = { 0 };
    struct json_writer w = { .out = &text };
    json_t *messages = rendered(*state, body);

    jw_json(&w, messages);
    assert_string_equal(text.data, want);
    json_decref(messages);
    buf_fini(&text);
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *body, *want;
    } cases[] = {
        { "{}", "\"param\":\"body.input\"" },
        { "{\"input\":5}", "\"param\":\"body.input\"" },
        { "{\"input\":[]}", "\"param\":\"body.input\"" },
        { "{\"input\":[5]}", "\"param\":\"body.input.0\"" },
        { "{\"input\":[{\"role\":\"user\"}]}", "a message has a role and content" },
        { "{\"input\":[{\"content\":\"x\"}]}", "a message has a role and content" },
        { "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}",
          "Unsupported chat content part type: 'input_image'" },
        { "{\"input\":[{\"type\":\"function_call\",\"name\":\"f\"}]}",
          "a function_call has call_id, name and arguments" },
        { "{\"input\":[{\"type\":\"function_call_output\"}]}",
          "a function_call_output has call_id and output" },
        { "{\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}",
          "input items of type 'item_reference' are not supported by this server" },
        { "{\"input\":\"x\",\"previous_response_id\":\"resp_1\"}",
          "previous_response_id is not supported by this server: responses are not stored, send "
          "the earlier items as input\",\"type\":\"BadRequestError\",\"param\":"
          "\"previous_response_id\",\"code\":400}}" },
        { "{\"input\":\"x\",\"conversation\":{\"id\":\"c\"}}", "conversation is not supported" },
        { "{\"input\":\"x\",\"prompt\":{\"id\":\"c\"}}", "prompt is not supported" },
        { "{\"input\":\"x\",\"background\":true}", "background is not supported" },
        { "{\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\"}}}",
          "text.format 'json_schema' is not supported by this server: it needs constrained "
          "output" },
        { "{\"input\":\"x\",\"max_output_tokens\":0}",
          "max_output_tokens must be at least 1, got 0. (parameter=max_output_tokens, value=0)" },
        { "{\"input\":\"x\",\"truncation\":\"some\"}", "truncation must be 'auto' or 'disabled'" },
        { "{\"input\":\"x\",\"n\":2}", "a response has one answer, not 2" },
        { "{\"input\":\"x\",\"top_logprobs\":21,\"include\":[\"message.output_text.logprobs\"]}",
          "Requested sample logprobs of 21, which is greater than max allowed: 20" },
        { "{\"input\":\"x\",\"tools\":[{\"type\":\"web_search\"}]}",
          "tools of type 'web_search' are not supported by this server" },
        { "{\"input\":\"x\",\"tools\":[{\"type\":\"function\"}]}", "body.tools.0" },
        { "{\"input\":\"x\"," TOOLS ",\"tool_choice\":\"required\"}",
          "`tool_choice` \\\"required\\\" is not supported by this server" },
        { "{\"input\":\"x\"," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"}}",
          "a named `tool_choice` is not supported by this server" },
        { "{\"input\":\"x\"," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"name\":\"z\"}}",
          "does not match any of the specified `tools`" },
        { "{\"input\":\"x\",\"temperature\":3}", "temperature" },
        { "{\"input\":\"x\",\"stream_options\":{\"include_obfuscation\":true}}",
          "Stream options can only be defined when `stream=True`." },
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_fault(r, RESPONSES, cases[i].body, 400, cases[i].want);
    expect_fault(r, RESPONSES, "{\"input\":\"x\",\"model\":\"other\"}", 404, "NotFoundError");
}

/* What SDKs send along and what changes nothing. */
static void harmless_members_are_taken(void **state)
{
    struct rig *r = *state;

    expect_taken(r, "{\"input\":\"Hi\",\"model\":\"stories-demo\",\"store\":true,\"tools\":[],"
                    "\"tool_choice\":\"auto\",\"parallel_tool_calls\":true,\"max_tool_calls\":3,"
                    "\"service_tier\":\"auto\",\"text\":{\"format\":{\"type\":\"text\"},"
                    "\"verbosity\":\"low\"},\"reasoning\":{\"summary\":\"auto\"},\"include\":"
                    "[\"reasoning.encrypted_content\"],\"background\":false,"
                    "\"previous_response_id\":null,\"safety_identifier\":\"x\",\"echo\":true,"
                    "\"return_token_ids\":true,"
                    "\"return_prompt_text\":true,\"prompt_logprobs\":0,\"logprobs\":true}");
    rig_done(r);
    expect_taken(r, "{\"input\":\"Hi\",\"stream\":true,\"stream_options\":{"
                    "\"include_obfuscation\":false}}");
    rig_done(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_text_is_one_message),
        TEST(an_answer_that_is_too_long_is_incomplete),
        TEST(thoughts_and_calls_are_items),
        TEST(calls_nobody_asked_for_are_text),
        TEST(a_message_is_streamed_in_events),
        TEST(calls_and_thoughts_are_streamed_in_events),
        TEST(text_around_calls_is_messages_of_its_own),
        TEST(events_are_the_same_however_tokens_arrive),
        TEST(cached_tokens_are_told_where_wanted),
        TEST(logprobs_come_where_they_are_included),
        TEST(an_empty_answer_is_an_empty_message),
        TEST(a_failure_ends_the_stream_with_its_cause),
        TEST(an_aborted_answer_is_incomplete),
        TEST(items_become_the_turns_of_a_chat),
        TEST(nonsense_is_refused),
        TEST(harmless_members_are_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
