/* test_conversations.c - conversations on other routes than the chat's own: several at once, embedded, tokenized, and
 * rendered without an answer.
 *
 * Would break in production: the answer to one conversation in the place of another, a prompt that is not the one a chat
 * would have. */
#include "tests/unit/chat_rig.h"

#include "gateway/openai/openai.h"

#define CHAT (&dialect_openai_chat)
#define HI   "[{\"role\":\"user\",\"content\":\"hi\"}]"
#define YO   "[{\"role\":\"user\",\"content\":\"yo\"}]"
#define MINE                                                                                       \
    ",\"chat_template\":\"{{ messages[0].content }}{% if add_generation_prompt %}!{% endif %}\""

static int set_up(void **state)
{
    *state = rig_new();
    rig_set(*state, "trust_request_chat_template", "on");
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

/* ---- several at once ---- */

static void each_conversation_has_its_answer(void **state)
{
    struct rig *r = *state;
    const char *at;
    struct reply reply;

    if (!rig_parse(r, CHAT, OPENAI_CHAT_BATCH,
                   "{\"messages\":[" HI "," YO "]" MINE ",\"max_tokens\":2}"))
        fail_msg("%s", r->fault.text);
    assert_int_equal(r->rq.n_choices, 2);
    assert_string_equal(r->rq.prompts[0].text, "hi!");
    assert_string_equal(r->rq.prompts[1].text, "yo!");
    rig_says(r, 0, "ab", LLMD__FINISH__FINISH_LENGTH);
    rig_says(r, 1, "cd", LLMD__FINISH__FINISH_LENGTH);
    reply_init(&reply);
    CHAT->whole(&r->rq, &reply);
    at = strstr(reply.body.data,
                "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ab\"");
    assert_non_null(at);
    assert_non_null(
        strstr(at, "{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"cd\""));
    assert_non_null(strstr(at, "\"prompt_logprobs\":null,\"prompt_token_ids\":null"));
    reply_fini(&reply);
    rig_done(r);
}

/* A prompt ends within a thought, or does not, for itself. */
static void each_conversation_thinks_for_itself(void **state)
{
    struct rig *r = *state;
    struct reply reply;

    rig_set(r, "reasoning_parser", "qwen3");
    if (!rig_parse(r, CHAT, OPENAI_CHAT_BATCH,
                   "{\"messages\":[[{\"role\":\"user\",\"content\":\"<think>\"}]," HI "],"
                   "\"chat_template\":\"{{ messages[0].content }}\"}"))
        fail_msg("%s", r->fault.text);
    rig_says(r, 0, "a</think>b", LLMD__FINISH__FINISH_LENGTH);
    rig_says(r, 1, "c", LLMD__FINISH__FINISH_LENGTH);
    reply_init(&reply);
    CHAT->whole(&r->rq, &reply);
    assert_non_null(strstr(reply.body.data, "\"content\":\"b\""));
    assert_non_null(strstr(reply.body.data, "\"reasoning\":\"a\""));
    assert_non_null(strstr(reply.body.data, "\"content\":\"c\""));
    reply_fini(&reply);
    rig_done(r);
}

static void a_batch_has_its_rules(void **state)
{
    static const char *const cases[][2] = {
        { "{\"messages\":[" HI "],\"stream\":true}", "do not support `stream`" },
        { "{\"messages\":[" HI "],\"n\":2}", "do not support `n`" },
        { "{\"messages\":[" HI "],\"best_of\":2}", "do not support `best_of`" },
        { "{\"messages\":[" HI "],\"use_beam_search\":true}", "do not support `use_beam_search`" },
        { "{\"messages\":[" HI
          "],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}",
          "do not support `tools`" },
        { "{\"messages\":[]}", "at least 1 conversation" },
        { "{\"messages\":" HI "}", "'msg': 'Input should be a valid list'" },
        { "{\"messages\":[[]]" MINE "}", "messages must have 1 to" },
        { "{}", "messages" },
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (rig_parse(r, CHAT, OPENAI_CHAT_BATCH, cases[i][0]))
            fail_msg("taken: %s", cases[i][0]);
        if (!strstr(r->fault.text, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], r->fault.text);
        rig_done(r);
    }
}

/* ---- embedded ---- */

static void a_conversation_is_embedded_as_the_template_has_it(void **state)
{
    struct rig *r = *state;

    expect_prompt(r, &dialect_openai_embeddings, "{\"messages\":" HI MINE "}", "hi");
    expect_prompt(r, &dialect_openai_embeddings,
                  "{\"messages\":" HI MINE ",\"add_generation_prompt\":true}", "hi!");
    expect_fault(r, &dialect_openai_embeddings, "{\"model\":\"\"}", 400,
                 "'loc': ('body', 'input'), 'msg': 'Field required'");
    expect_fault(r, &dialect_openai_embeddings, "{\"input\":null}", 400, "body.input");
    expect_fault(r, &dialect_openai_embeddings,
                 "{\"messages\":" HI MINE ",\"add_generation_prompt\":true,"
                 "\"continue_final_message\":true}",
                 400, "Cannot set both");
}

/* ---- tokenized ---- */

static void a_trusted_template_is_tokenized(void **state)
{
    static const char body[] = "{\"messages\":" HI MINE ",\"return_token_strs\":true}";
    struct rig *r = *state;
    struct reply reply;

    reply_init(&reply);
    openai_tokenize_page(&r->service, "application/json", body, sizeof body - 1, &reply);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body.data, "\"!\"]"));
    reply_fini(&reply);
    rig_set(r, "trust_request_chat_template", "off");
    reply_init(&reply);
    openai_tokenize_page(&r->service, "application/json", body, sizeof body - 1, &reply);
    assert_int_equal(reply.status, 400);
    reply_fini(&reply);
}

/* ---- rendered ---- */

static void expect_rendered(struct rig *r, const struct dialect *d, const char *body, int status,
                            const char *want)
{
    struct reply reply;

    reply_init(&reply);
    openai_render_page(&r->service, d, "application/json", body, strlen(body), &reply);
    if (reply.status != status || !strstr(reply.body.data, want))
        fail_msg("%s\n  got  %d %s\n  want %d %s", body, reply.status, reply.body.data, status,
                 want);
    reply_fini(&reply);
}

static void what_would_be_computed_is_told(void **state)
{
    struct rig *r = *state;

    expect_rendered(r, &dialect_openai_completions,
                    "{\"prompt\":[[264,533],[607]],\"request_id\":\"x\"}", 200,
                    "[{\"request_id\":\"cmpl-x\",\"token_ids\":[264,533],\"features\":null,"
                    "\"sampling_params\":{\"n\":1,\"temperature\":0.");
    expect_rendered(r, &dialect_openai_completions, "{\"prompt\":[[264,533],[607]]}", 200,
                    "\"token_ids\":[607],");
    expect_rendered(
        r, &dialect_openai_completions,
        "{\"prompt\":[264],\"temperature\":0,\"max_tokens\":7,\"seed\":5,\"stop\":\"s\"}", 200,
        "\"temperature\":0.0,\"top_p\":1.0,\"top_k\":0,\"min_p\":0.0,"
        "\"presence_penalty\":0.0,\"frequency_penalty\":0.0,\"repetition_penalty\":1.0,"
        "\"seed\":5,\"stop\":[\"s\"],\"stop_token_ids\":[],"
        "\"include_stop_str_in_output\":false,\"ignore_eos\":false,\"max_tokens\":7,"
        "\"min_tokens\":0,\"logprobs\":null,\"prompt_logprobs\":null,"
        "\"skip_special_tokens\":true},\"model\":\"stories-demo\",\"stream\":false,"
        "\"priority\":0,\"kv_transfer_params\":null}]");
    expect_rendered(r, CHAT, "{\"messages\":" HI MINE ",\"request_id\":\"x\"}", 200,
                    "{\"request_id\":\"chatcmpl-x\",\"token_ids\":[");
    expect_rendered(r, CHAT, "{\"messages\":[]}", 400, "messages must have 1 to");
    expect_rendered(r, CHAT, "{\"messages\":", 400, "json_invalid");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_conversation_has_its_answer),
        TEST(each_conversation_thinks_for_itself),
        TEST(a_batch_has_its_rules),
        TEST(a_conversation_is_embedded_as_the_template_has_it),
        TEST(a_trusted_template_is_tokenized),
        TEST(what_would_be_computed_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
