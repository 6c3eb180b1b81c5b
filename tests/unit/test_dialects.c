/* test_dialects.c - the bytes each dialect answers with, compared with the contracts letter by letter.
 * Clients parse these with code we never see.  Completions: test_completions.c; chats have further tests in test_chat.c, TGI
 * in test_tgi.c. */
#include "tests/unit/gateway_rig.h"

#include "gateway/openai/openai.h"
#include "gateway/tgi/tgi.h"

enum { THE = 264, DOG = 533, RAN = 607, DOT = 1985, BYTE_C3 = 198, BYTE_A9 = 172, EOS = 2 };

static const int32_t dog_ran[] = { DOG, RAN, DOT };

static void expect_header(struct rig *r, const char *name, const char *want)
{
    struct reply reply;

    reply_init(&reply);
    r->rq.dialect->whole(&r->rq, &reply);
    assert_non_null(header_of(&reply, name));
    assert_string_equal(header_of(&reply, name), want);
    reply_fini(&reply);
}

/* ---- TGI ---- */

static void tgi_answers_with_details(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE,
                          "{\"inputs\":\"the\",\"parameters\":{\"details\":true,"
                          "\"max_new_tokens\":3}}"));
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 3);
    assert_true(r->rq.sampling.temperature == 0); /* parameters without do_sample: greedy */
    rig_tokens(r, 0, dog_ran, 3, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"generated_text\":\" dog ran.\",\"details\":{\"finish_reason\":\"length\","
                    "\"generated_tokens\":3,\"seed\":null,\"prefill\":[],\"tokens\":["
                    "{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,\"special\":false},"
                    "{\"id\":607,\"text\":\" ran\",\"logprob\":-1.0,\"special\":false},"
                    "{\"id\":1985,\"text\":\".\",\"logprob\":-1.5,\"special\":false}]}}");
}

static void tgi_samples_when_parameters_are_absent(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_tgi, TGI_ROOT, "{\"inputs\":\"the\"}"));
    assert_true(r->rq.sampling.temperature == 1);
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 512 - 2);
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "[{\"generated_text\":\"the dog\"}]");
}

static void tgi_streams_one_event_for_each_token(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { DOG, EOS };

    assert_true(rig_parse(r, &dialect_tgi, TGI_ROOT,
                          "{\"inputs\":\"the\",\"stream\":true,\"parameters\":{\"details\":true,"
                          "\"return_full_text\":false,\"do_sample\":true,\"seed\":42,"
                          "\"top_n_tokens\":1}}"));
    rig_tokens(r, 0, ids, 2, LLMD__FINISH__FINISH_EOS);
    expect_stream(
        r, "data: {\"index\":1,\"token\":{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,"
           "\"special\":false},\"top_tokens\":[{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,"
           "\"special\":false}],\"generated_text\":null,\"details\":null}\n\n|"
           "data: {\"index\":2,\"token\":{\"id\":2,\"text\":\"</s>\",\"logprob\":-1.0,"
           "\"special\":true},\"top_tokens\":[{\"id\":2,\"text\":\"</s>\",\"logprob\":-1.0,"
           "\"special\":true}],\"generated_text\":\" dog\",\"details\":{\"finish_reason\":"
           "\"eos_token\",\"generated_tokens\":2,\"seed\":42,\"input_length\":2}}\n\n|");
}

/* Half a character is no text; the next token brings it. */
static void tgi_token_text_waits_for_whole_characters(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { BYTE_C3, BYTE_A9, DOT };

    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE,
                          "{\"inputs\":\"the\",\"parameters\":{\"details\":true}}"));
    rig_tokens(r, 0, ids, 3, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"generated_text\":\"\u00e9.\",\"details\":{\"finish_reason\":\"length\","
                    "\"generated_tokens\":3,\"seed\":null,\"prefill\":[],\"tokens\":["
                    "{\"id\":198,\"text\":\"\",\"logprob\":-0.5,\"special\":false},"
                    "{\"id\":172,\"text\":\"\u00e9\",\"logprob\":-1.0,\"special\":false},"
                    "{\"id\":1985,\"text\":\".\",\"logprob\":-1.5,\"special\":false}]}}");
}

static void tgi_keeps_the_stop_string(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE,
                          "{\"inputs\":\"the\",\"parameters\":{\"stop\":[\"ran\"]}}"));
    rig_tokens(r, 0, dog_ran, 3, LLMD__FINISH__FINISH_NONE);
    assert_int_equal(r->rq.choices[0].end, CHOICE_STOP_STRING);
    expect_whole(r, "{\"generated_text\":\" dog ran\"}");
}

static void tgi_says_length_when_the_last_token_is_eos(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { DOG, EOS };

    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE,
                          "{\"inputs\":\"the\",\"parameters\":{\"max_new_tokens\":2}}"));
    rig_tokens(r, 0, ids, 2, LLMD__FINISH__FINISH_EOS);
    assert_int_equal(r->rq.choices[0].end, CHOICE_LENGTH);
    expect_whole(r, "{\"generated_text\":\" dog\"}");
}

static void tgi_best_of_returns_the_likelier(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE,
                          "{\"inputs\":\"the\",\"parameters\":{\"best_of\":2,\"do_sample\":true,"
                          "\"max_new_tokens\":3}}"));
    assert_int_equal(r->rq.n_candidates, 2);
    assert_true(r->rq.choices[0].seq.sampling.seed != r->rq.choices[1].seq.sampling.seed);
    rig_tokens(r, 0, dog_ran, 3, LLMD__FINISH__FINISH_LENGTH); /* mean -1.0 */
    rig_tokens(r, 1, dog_ran, 1, LLMD__FINISH__FINISH_EOS);    /* -0.5 */
    request_choose(&r->rq);
    expect_header(r, "x-generated-tokens", "1");
    expect_whole(r, "{\"generated_text\":\"\"}");
}

/* A refused stream has the head of any other. */
static void tgi_counts_the_characters_of_what_it_refuses(void **state)
{
    struct rig *r = *state;
    struct reply reply;

    assert_false(rig_parse(r, &dialect_tgi, TGI_GENERATE_STREAM,
                           "{\"inputs\":\"the\",\"parameters\":{\"top_p\":1.0}}"));
    reply_init(&reply);
    dialect_tgi.begin(&r->rq, &reply);
    assert_string_equal(header_of(&reply, "x-compute-characters"), "3");
    reply_fini(&reply);
    rig_done(r);
}

static void tgi_truncates_on_the_left(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE,
                          "{\"inputs\":\"the dog ran.\",\"parameters\":{\"truncate\":2}}"));
    assert_int_equal(r->rq.prompts[0].n_ids, 2);
    assert_int_equal(r->rq.prompts[0].ids[0], RAN);
    assert_int_equal(r->rq.prompts[0].ids[1], DOT);
    rig_done(r);
}

/* ---- chat ---- */

#define CHAT                                                                                       \
    "data: {\"id\":\"chatcmpl-0000000000000abc\",\"object\":\"chat.completion.chunk\","            \
    "\"created\":1760000000,\"model\":\"stories-demo\",\"choices\":[{\"index\":0,\"delta\":"

static void chat_streams_role_content_and_finish(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { DOG, EOS };

    assert_true(rig_parse(r, &dialect_openai_chat, 0,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                          "\"stream\":true}"));
    rig_tokens(r, 0, ids, 2, LLMD__FINISH__FINISH_EOS);
    expect_stream(
        r,
        CHAT "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],"
             "\"prompt_token_ids\":null,\"prompt_text\":null}\n\n" CHAT
             "{\"content\":\" dog\"},\"logprobs\":null,\"finish_reason\":null,"
             "\"token_ids\":null}]}\n\n|" CHAT
             "{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null,"
             "\"token_ids\":null}],\"system_fingerprint\":\"fp\"}\n\n|data: [DONE]\n\n");
}

static void chat_answers(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_chat, 0,
                          "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
                          "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                          "{\"type\":\"text\",\"text\":\"b\"}]}],\"logprobs\":true}"));
    assert_string_equal(r->rq.prompts[0].text,
                        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\na\nb [/INST]");
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(
        r,
        "{\"id\":\"chatcmpl-0000000000000abc\",\"object\":\"chat.completion\",\"created\":"
        "1760000000,\"model\":\"stories-demo\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
        "\"assistant\",\"content\":\" dog\",\"refusal\":null,\"annotations\":null,\"audio\":null,"
        "\"function_call\":null,\"reasoning\":null},\"logprobs\":{\"content\":[{\"token\":"
        "\" dog\",\"logprob\":-0.5,\"bytes\":[32,100,111,103],\"top_logprobs\":[]}]},"
        "\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null,"
        "\"routed_experts\":null}],\"service_tier\":null,\"system_fingerprint\":\"fp\",\"usage\":"
        "{\"prompt_tokens\":27,\"total_tokens\":28,\"completion_tokens\":1,"
        "\"prompt_tokens_details\":null,\"completion_tokens_details\":null},"
        "\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null,"
        "\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
}

static void chat_continues_the_final_message(void **state)
{
    struct rig *r = *state;
    const char *text;

    assert_true(rig_parse(r, &dialect_openai_chat, 0,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":"
                          "\"assistant\",\"content\":\"Once upon \"}],\"echo\":true,"
                          "\"continue_final_message\":true}"));
    text = r->rq.prompts[0].text;
    assert_string_equal(text, "<s>[INST] Hi [/INST] Once upon");
    rig_done(r);
}

/* A parameter that changes nothing is no reason to refuse. */
static void harmless_parameters_are_taken(void **state)
{
    struct rig *r = *state;

    assert_true(
        rig_parse(r, &dialect_openai_completions, 0, "{\"prompt\":\"the\",\"n\":2,\"best_of\":2}"));
    rig_done(r);
    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"the\",\"kv_transfer_params\":{\"a\":1},"
                          "\"ec_transfer_params\":{},\"vllm_xargs\":{\"a\":1}}"));
    rig_done(r);
    assert_true(rig_parse(r, &dialect_openai_chat, 0,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"tools\":"
                          "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
                          "\"tool_choice\":\"none\"}"));
    rig_done(r);
}

#define CHUNK                                                                                      \
    "data: {\"id\":\"cmpl-0000000000000abc\",\"object\":\"text_completion\",\"created\":"          \
    "1760000000,\"model\":\"stories-demo\",\"choices\":["

static void an_aborted_answer_says_so(void **state)
{
    struct rig *r = *state;

    assert_true(
        rig_parse(r, &dialect_openai_completions, 0, "{\"prompt\":\"the\",\"stream\":true}"));
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_NONE);
    choice_abort(&r->rq.choices[0]);
    r->rq.choices[0].seq.state = SEQUENCE_ENDED;
    expect_stream(r, CHUNK
                  "{\"index\":0,\"text\":\" dog\",\"logprobs\":null,\"finish_reason\":\"abort\","
                  "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}],"
                  "\"system_fingerprint\":\"fp\"}\n\n|data: [DONE]\n\n");
}

/* ---- OCI ---- */

static void oci_answers_plain_and_cumulative(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };
    static const char want[] = "{\"text\": [\"the dog\"]}\0|{\"text\": [\"the dog ran\"]}\0|";

    assert_true(rig_parse(r, &dialect_oci, 0,
                          "{\"inputs\":\"the\",\"n\":4,\"temperature\":0,\"parameters\":"
                          "{\"temperature\":0,\"stop\":5,\"top_k\":\"x\"}}"));
    assert_int_equal(r->rq.n_choices, 1);
    assert_int_equal(r->rq.max_tokens, 16);
    assert_true(r->rq.sampling.temperature == 0);
    rig_tokens(r, 0, dog_ran, 3, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"generated_text\":\" dog ran.\"}");

    assert_true(rig_parse(r, &dialect_oci, 0, "{\"inputs\":\"the\",\"stream\":true}"));
    rig_tokens(r, 0, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_int_equal(out.n, sizeof want - 1);
    assert_memory_equal(out.data, want, out.n);
    buf_fini(&out);
    rig_done(r);
}

/* ---- errors ---- */

static void faults_have_their_dialects_shape(void **state)
{
    struct rig *r = *state;

    expect_refused(r, &dialect_tgi, TGI_GENERATE, "{\"inputs\":\"\"}", 422,
                   "{\"error\":\"Input validation error: `inputs` cannot be empty\","
                   "\"error_type\":\"validation\"}");
    expect_refused(
        r, &dialect_tgi, TGI_GENERATE, "{\"inputs\":1}", 422,
        "Failed to deserialize the JSON body into the target type: inputs: invalid type: "
        "integer `1`, expected a string");
    expect_refused(r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"model\":\"gpt\"}", 404,
                   "{\"error\":{\"message\":\"The model `gpt` does not exist.\",\"type\":"
                   "\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
    expect_refused(
        r, &dialect_openai_chat, 0, "{\"messages\":[]}", 400,
        "{\"error\":{\"message\":\"messages must have 1 to 4096 entries, got 0\",\"type\":"
        "\"BadRequestError\",\"param\":\"messages\",\"code\":400}}");
    expect_refused(r, &dialect_oci, 0, "{}", 422,
                   "{\"error\":\"`inputs` is missing\",\"error_type\":\"validation\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tgi_answers_with_details),
        cmocka_unit_test(tgi_samples_when_parameters_are_absent),
        cmocka_unit_test(tgi_streams_one_event_for_each_token),
        cmocka_unit_test(tgi_token_text_waits_for_whole_characters),
        cmocka_unit_test(tgi_keeps_the_stop_string),
        cmocka_unit_test(tgi_says_length_when_the_last_token_is_eos),
        cmocka_unit_test(tgi_best_of_returns_the_likelier),
        cmocka_unit_test(tgi_counts_the_characters_of_what_it_refuses),
        cmocka_unit_test(tgi_truncates_on_the_left),
        cmocka_unit_test(chat_streams_role_content_and_finish),
        cmocka_unit_test(chat_answers),
        cmocka_unit_test(chat_continues_the_final_message),
        cmocka_unit_test(harmless_parameters_are_taken),
        cmocka_unit_test(an_aborted_answer_says_so),
        cmocka_unit_test(oci_answers_plain_and_cumulative),
        cmocka_unit_test(faults_have_their_dialects_shape),
    };

    return cmocka_run_group_tests(tests, rig_set_up, rig_tear_down);
}
