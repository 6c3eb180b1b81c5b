/* test_openai_pages.c - vLLM's smaller routes, letter by letter: embeddings, /tokenize, /detokenize, the /generate of its
 * first server. */
#include "tests/unit/gateway_rig.h"

#include "gateway/openai/generate.h"
#include "gateway/openai/openai.h"
#include "gateway/tgi/tgi.h"

enum { DOG = 533, RAN = 607, DOT = 1985 };

static const int32_t dog_ran[] = { DOG, RAN, DOT };

/* ---- embeddings ---- */

static void embed(struct rig *r, uint32_t choice, float x, float y)
{
    struct choice *c = &r->rq.choices[choice];

    assert_int_equal(c->seq.submit.max_tokens, 0);
    sequence_set_embedding(&c->seq, (const float[]){ x, y }, 2);
    c->seq.finish = LLMD__FINISH__FINISH_EMBEDDED;
    c->seq.state = SEQUENCE_ENDED;
    choice_take(c);
    assert_int_equal(c->end, CHOICE_EOS);
}

/* Of length 1, whatever the model's states are. */
static void embeddings_are_normalised(void **state)
{
    struct rig *r = *state;

    assert_true(
        rig_parse(r, &dialect_openai_embeddings, 0,
                  "{\"input\":[\"the\",\"the dog\"],\"model\":\"stories-demo\",\"stream\":true}"));
    assert_int_equal(r->rq.choices[1].seq.submit.pooling, LLMD__POOLING__POOL_LAST);
    embed(r, 0, 3, -4);
    embed(r, 1, 0, 0);
    expect_whole(r, "{\"id\":\"embd-0000000000000abc\",\"object\":\"list\",\"created\":1760000000,"
                    "\"model\":\"stories-demo\",\"data\":[{\"index\":0,\"object\":\"embedding\","
                    "\"embedding\":[0.6,-0.8]},{\"index\":1,\"object\":\"embedding\",\"embedding\":"
                    "[0.0,0.0]}],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5,"
                    "\"completion_tokens\":0,\"prompt_tokens_details\":null,"
                    "\"completion_tokens_details\":null}}");
}

/* Eight bytes: 1.0f and 0.0f, little-endian, in base64 with its padding. */
static void embeddings_come_as_base64(void **state)
{
    struct rig *r = *state;
    struct reply reply;

    assert_true(rig_parse(r, &dialect_openai_embeddings, 0,
                          "{\"input\":[1,264],\"encoding_format\":\"base64\"}"));
    assert_int_equal(r->rq.n_prompts, 1);
    embed(r, 0, 7, 0);
    reply_init(&reply);
    r->rq.dialect->whole(&r->rq, &reply);
    assert_non_null(strstr(reply.body.data, "\"embedding\":\"AACAPwAAAAA=\"}"));
    reply_fini(&reply);
    rig_done(r);
}

static void embeddings_have_their_rules(void **state)
{
    struct rig *r = *state;

    expect_refused(
        r, &dialect_openai_embeddings, 0, "{\"input\":\"a\",\"dimensions\":64}", 400,
        "{\"error\":{\"message\":\"Model \\\"stories-demo\\\" does not support matryoshka "
        "representation, changing output dimensions will lead to poor results.\",\"type\":"
        "\"BadRequestError\",\"param\":\"dimensions\",\"code\":400}}");
    expect_refused(
        r, &dialect_openai_embeddings, 0, "{\"input\":\"\"}", 400,
        "{\"error\":{\"message\":\"input cannot be empty.\",\"type\":\"BadRequestError\","
        "\"param\":\"input\",\"code\":400}}");
    expect_refused(r, &dialect_openai_embeddings, 0, "{\"input\":\"a\",\"model\":\"gpt\"}", 404,
                   "{\"error\":{\"message\":\"The model `gpt` does not exist.\",\"type\":"
                   "\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
    assert_false(rig_parse(r, &dialect_openai_embeddings, 0, "{}"));
    assert_string_equal(r->fault.param, "body.input");
    rig_done(r);
    assert_false(rig_parse(r, &dialect_openai_embeddings, 0,
                           "{\"input\":\"a\",\"encoding_format\":\"hex\"}"));
    assert_string_equal(r->fault.param, "body.encoding_format");
    rig_done(r);
}

/* ---- /tokenize, /detokenize ---- */

typedef void page(struct service *s, const char *type, const char *bytes, size_t n,
                  struct reply *r);

static void expect_page(struct rig *r, page *act, const char *body, int status, const char *want)
{
    struct reply reply;

    reply_init(&reply);
    act(&r->service, "application/json; charset=utf-8", body, strlen(body), &reply);
    assert_int_equal(reply.status, status);
    assert_string_equal(reply.body.data, want);
    reply_fini(&reply);
}

static void texts_are_tokenized_as_completions_read_them(void **state)
{
    struct rig *r = *state;

    expect_page(r, openai_tokenize_page, "{\"prompt\":\"the dog\"}", 200,
                "{\"count\":3,\"max_model_len\":512,\"tokens\":[1,264,533],\"token_strs\":null}");
    expect_page(r, openai_tokenize_page,
                "{\"prompt\":\"the\",\"add_special_tokens\":false,\"return_token_strs\":true,"
                "\"model\":\"stories-demo\"}",
                200,
                "{\"count\":1,\"max_model_len\":512,\"tokens\":[264],\"token_strs\":[\"▁the\"]}");
    expect_page(r, openai_tokenize_page, "{\"prompt\":\"\",\"add_special_tokens\":false}", 200,
                "{\"count\":0,\"max_model_len\":512,\"tokens\":[],\"token_strs\":null}");
    expect_page(r, openai_tokenize_page, "{\"prompt\":\"a\",\"model\":\"gpt\"}", 404,
                "{\"error\":{\"message\":\"The model `gpt` does not exist.\",\"type\":"
                "\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
}

static void a_template_of_the_client_is_not_trusted(void **state)
{
    expect_page(
        *state, openai_tokenize_page,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"chat_template\":\"{{1}}\"}", 400,
        "{\"error\":{\"message\":\"Chat template is passed with request, but "
        "--trust-request-chat-template is not set. Refused request with untrusted chat "
        "template.\",\"type\":\"BadRequestError\",\"param\":\"chat_template\",\"code\":400}}");
}

/* As many as the chat route has for them, whose template writes <s>. */
static void chats_are_tokenized_as_the_template_renders_them(void **state)
{
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    struct rig *r = *state;
    struct reply reply;
    char want[64];

    assert_true(rig_parse(r, &dialect_openai_chat, 0, body));
    snprintf(want, sizeof want, "{\"count\":%u,\"max_model_len\":512,\"tokens\":[1,%d,",
             r->rq.prompts[0].n_ids, r->rq.prompts[0].ids[1]);
    rig_done(r);
    reply_init(&reply);
    openai_tokenize_page(&r->service, "application/json", body, strlen(body), &reply);
    assert_int_equal(reply.status, 200);
    assert_memory_equal(reply.body.data, want, strlen(want));
    reply_fini(&reply);
}

static void ids_are_spelled_with_their_special_tokens(void **state)
{
    struct rig *r = *state;

    expect_page(r, openai_detokenize_page, "{\"tokens\":[1,264,533]}", 200,
                "{\"prompt\":\"<s> the dog\"}");
    expect_page(r, openai_detokenize_page, "{\"tokens\":[]}", 200, "{\"prompt\":\"\"}");
    expect_page(r, openai_detokenize_page, "{\"tokens\":[264,999999]}", 200,
                "{\"prompt\":\"the\"}"); /* no token: no text */
    expect_page(r, openai_detokenize_page, "{\"tokens\":[264,-1]}", 400,
                "{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'greater_than_equal', "
                "'loc': ('body', 'tokens', 1), 'msg': 'Input should be a token id'}\",\"type\":"
                "\"Bad Request\",\"param\":\"body.tokens\",\"code\":400}}");
    expect_page(r, openai_detokenize_page, "{}", 400,
                "{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'missing', 'loc': "
                "('body', 'tokens'), 'msg': 'Field required'}\",\"type\":\"Bad Request\",\"param\":"
                "\"body.tokens\",\"code\":400}}");
}

/* ---- vLLM's first server ---- */

static void the_first_server_answers_with_the_prompt(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    assert_true(
        rig_parse(r, &dialect_tgi, TGI_GENERATE, "{\"prompt\":\"the\",\"n\":2,\"max_tokens\":3}"));
    assert_ptr_equal(r->rq.dialect, &dialect_openai_generate);
    assert_true(r->rq.sampling.temperature == 1); /* whatever the model recommends */
    rig_tokens(r, 0, dog_ran, 3, LLMD__FINISH__FINISH_LENGTH);
    rig_tokens(r, 1, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"text\":[\"the dog ran.\",\"the dog\"]}");

    assert_true(
        rig_parse(r, &dialect_tgi, TGI_GENERATE, "{\"prompt\":\"the\",\"n\":2,\"stream\":true}"));
    rig_tokens(r, 0, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH);
    rig_tokens(r, 1, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_string_equal(out.data, "{\"text\": [\"the dog\", \"the\"]}\n|"
                                  "{\"text\": [\"the dog\", \"the dog\"]}\n|"
                                  "{\"text\": [\"the dog ran\", \"the dog\"]}\n|");
    rig_done(r);
    strcpy(r->service.config.generate_delimiter, "nul");
    assert_true(rig_parse(r, &dialect_tgi, TGI_GENERATE, "{\"prompt\":\"the\",\"stream\":true}"));
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_memory_equal(out.data, "{\"text\": [\"the dog\"]}\0|", out.n);
    strcpy(r->service.config.generate_delimiter, "newline");
    buf_fini(&out);
    rig_done(r);
}

static void the_first_server_knows_no_other_words(void **state)
{
    struct rig *r = *state;

    expect_refused(
        r, &dialect_openai_generate, 0, "{\"prompt\":\"the\",\"max_new_tokens\":3}", 400,
        "{\"error\":{\"message\":\"Unexpected keyword argument 'max_new_tokens'\",\"type\":"
        "\"BadRequestError\",\"param\":\"max_new_tokens\",\"code\":400}}");
    assert_false(rig_parse(r, &dialect_tgi, TGI_GENERATE, "{\"prompt\":\"the\",\"inputs\":7}"));
    assert_ptr_equal(r->rq.dialect, &dialect_tgi);
    rig_done(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings_are_normalised),
        cmocka_unit_test(embeddings_come_as_base64),
        cmocka_unit_test(embeddings_have_their_rules),
        cmocka_unit_test(texts_are_tokenized_as_completions_read_them),
        cmocka_unit_test(a_template_of_the_client_is_not_trusted),
        cmocka_unit_test(chats_are_tokenized_as_the_template_renders_them),
        cmocka_unit_test(ids_are_spelled_with_their_special_tokens),
        cmocka_unit_test(the_first_server_answers_with_the_prompt),
        cmocka_unit_test(the_first_server_knows_no_other_words),
    };

    return cmocka_run_group_tests(tests, rig_set_up, rig_tear_down);
}
