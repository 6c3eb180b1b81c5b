/* test_token_params.c - would break in production: log probabilities of other tokens than a client named, a limit that
 * does not hold, an answer that goes round in circles or thinks for ever although the client forbade it. */
#include "tests/unit/chat_rig.h"

#define COMPLETIONS (&dialect_openai_completions)
#define CHAT        (&dialect_openai_chat)

static const Llmd__Sampling *parse(struct rig *r, const struct dialect *d, const char *body)
{
    if (!rig_parse(r, d, 0, body))
        fail_msg("%s: %s", body, r->fault.text);
    return &r->rq.choices[0].seq.sampling;
}

/* ---- log probabilities ---- */

static void all_the_vocabulary_is_within_the_limit_or_not(void **state)
{
    struct rig *r = *state;

    expect_fault(r, CHAT,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":true,"
                 "\"top_logprobs\":-1}",
                 400,
                 "Requested sample logprobs of 2048, which is greater than max allowed: 20 "
                 "(parameter=logprobs, value=2048)");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"prompt_logprobs\":-1}", 400,
                 "Requested prompt logprobs of 2048, which is greater than max allowed: 20");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":-1}", 400,
                 "`logprobs` must be a positive value.");
    atomic_store(&r->service.logprobs_max, 262144);
    assert_int_equal(parse(r, CHAT,
                           "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":"
                           "true,\"top_logprobs\":-1}")
                         ->top_logprobs,
                     2048);
    rig_done(r);
    parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"prompt_logprobs\":-1}");
    assert_int_equal(r->rq.choices[0].seq.submit.prompt_top_logprobs, 2048);
    rig_done(r);
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":2049}", 400,
                 "which is greater than max allowed: 2048");
}

static void named_tokens_stand_for_the_likeliest(void **state)
{
    struct rig *r = *state;
    const Llmd__Sampling *s;

    s = parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":5,\"logprob_token_ids\":[7,3]}");
    assert_true(s->want_logprobs);
    assert_int_equal(s->top_logprobs, 2);
    assert_int_equal(s->n_logprob_tokens, 2);
    assert_int_equal(s->logprob_tokens[0], 7);
    assert_int_equal(s->logprob_tokens[1], 3);
    rig_done(r);
    s = parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":5,\"logprob_token_ids\":[]}");
    assert_int_equal(s->top_logprobs, 5);
    assert_int_equal(s->n_logprob_tokens, 0);
    rig_done(r);
}

static void named_tokens_have_their_rules(void **state)
{
    struct rig *r = *state;
    char body[2048];
    size_t n;

    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprob_token_ids\":[7]}", 400,
                 "when using `logprob_token_ids`, `logprobs` must be set.");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":1,\"logprob_token_ids\":[7,2048]}",
                 400, "logprob_token_ids contains out-of-vocab token id!");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":1,\"logprob_token_ids\":[\"x\"]}",
                 400, "logprob_token_ids contains out-of-vocab token id!");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"logprobs\":1,\"logprob_token_ids\":3}", 400,
                 "logprob_token_ids");
    expect_fault(r, COMPLETIONS,
                 "{\"prompt\":\"a\",\"logprobs\":1,\"logprob_token_ids\":[7],"
                 "\"use_beam_search\":true}",
                 400, "logprob_token_ids is not supported with beam search");
    n = (size_t)snprintf(body, sizeof body,
                         "{\"prompt\":\"a\",\"logprobs\":1,\"logprob_token_ids\":[0");
    for (int i = 1; i < 129; i++)
        n += (size_t)snprintf(body + n, sizeof body - n, ",%d", i);
    snprintf(body + n, sizeof body - n, "]}");
    expect_fault(r, COMPLETIONS, body, 400,
                 "Requested logprob_token_ids of length 129, which is greater than max allowed: "
                 "128 (parameter=logprob_token_ids, value=129)");
}

/* The prompt of several answers is one: its log probabilities are computed once, and each answer shows them. */
static void a_prompt_of_several_answers_is_measured_once(void **state)
{
    static const int32_t dog[] = { 533 };
    struct rig *r = *state;
    struct reply reply;
    const char *first;

    parse(r, COMPLETIONS,
          "{\"prompt\":[264,533],\"n\":2,\"prompt_logprobs\":0,\"max_tokens\":1,\"logprobs\":0,"
          "\"echo\":true}");
    assert_true(r->rq.choices[0].seq.submit.want_prompt_logprobs);
    assert_false(r->rq.choices[1].seq.submit.want_prompt_logprobs);
    rig_prompt(r, 0);
    for (uint32_t i = 0; i < 2; i++)
        rig_tokens(r, i, dog, 1, LLMD__FINISH__FINISH_LENGTH);
    reply_init(&reply);
    r->rq.dialect->whole(&r->rq, &reply);
    first = strstr(reply.body.data, "\"prompt_logprobs\":[null,{\"533\":");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "\"prompt_logprobs\":[null,{\"533\":"));
    first = strstr(reply.body.data, "\"token_logprobs\":[null,-0.25,-0.5]");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "\"token_logprobs\":[null,-0.25,-0.5]"));
    reply_fini(&reply);
    rig_done(r);
}

/* ---- repetition ---- */

static void an_answer_that_repeats_itself_ends(void **state)
{
    struct rig *r = *state;

    parse(r, COMPLETIONS,
          "{\"prompt\":\"a\",\"max_tokens\":50,\"repetition_detection\":{\"max_pattern_size\":2,"
          "\"min_pattern_size\":1,\"min_count\":3}}");
    rig_says(r, 0, "xababababab", LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(r->rq.choices[0].n_done, 7);
    expect_in_whole(r, "\"text\":\"xababab\",\"logprobs\":null,\"finish_reason\":\"repetition\","
                       "\"stop_reason\":\"repetition_detected\"");
    parse(r, COMPLETIONS,
          "{\"prompt\":\"a\",\"max_tokens\":50,\"min_tokens\":9,\"repetition_detection\":{"
          "\"max_pattern_size\":2,\"min_count\":3}}");
    rig_says(r, 0, "xababababab", LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(r->rq.choices[0].n_done, 9);
    rig_done(r);
}

static void repetition_has_its_rules(void **state)
{
    struct rig *r = *state;

    expect_fault(r, COMPLETIONS,
                 "{\"prompt\":\"a\",\"repetition_detection\":{\"max_pattern_size\":1,"
                 "\"min_pattern_size\":2,\"min_count\":2}}",
                 400,
                 "max_pattern_size, min_pattern_size must be >=0, with min_pattern_size <= "
                 "max_pattern_size. Set both to 0 to disable repetitive pattern detection.");
    expect_fault(r, COMPLETIONS,
                 "{\"prompt\":\"a\",\"repetition_detection\":{\"max_pattern_size\":3,"
                 "\"min_count\":1}}",
                 400, "min_count must be >= 2 to detect repetitive patterns in engine output.");
    expect_fault(r, COMPLETIONS,
                 "{\"prompt\":\"a\",\"repetition_detection\":{\"max_pattern_size\":-1}}", 400,
                 "max_pattern_size");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"repetition_detection\":true}", 400,
                 "repetition_detection");
    parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"repetition_detection\":{}}");
    assert_int_equal(r->rq.repetition.max_size, 0);
    rig_done(r);
}

/* ---- thoughts ---- */

static void a_budget_of_thoughts_reaches_the_worker(void **state)
{
    struct rig *r = *state;
    const Llmd__Thinking *t;

    rig_set(r, "reasoning_parser", "qwen3");
    t = parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"thinking_token_budget\":9}")->thinking;
    assert_non_null(t);
    assert_int_equal(t->budget, 9);
    assert_true(t->n_open > 0 && t->n_close > 0);
    assert_false(t->is_open);
    rig_done(r);
    t = parse(r, COMPLETIONS, "{\"prompt\":\"a <think>\\n\",\"thinking_token_budget\":0}")
            ->thinking;
    assert_true(t->is_open);
    assert_int_equal(t->budget, 0);
    rig_done(r);
    assert_null(parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"thinking_token_budget\":-1}")->thinking);
    rig_done(r);
    assert_null(parse(r, COMPLETIONS, "{\"prompt\":\"a\"}")->thinking);
    rig_done(r);
}

/* What stands open in a prompt of ids counts, token by token. */
static void the_prompts_thought_is_counted(void **state)
{
    struct rig *r = *state;
    const Llmd__Thinking *t;
    char body[512];
    size_t n;

    rig_set(r, "reasoning_parser", "qwen3");
    t = parse(r, COMPLETIONS, "{\"prompt\":\"a\",\"thinking_token_budget\":9}")->thinking;
    n = (size_t)snprintf(body, sizeof body, "{\"thinking_token_budget\":9,\"prompt\":[264");
    for (size_t i = 0; i < t->n_open; i++)
        n += (size_t)snprintf(body + n, sizeof body - n, ",%d", t->open[i]);
    snprintf(body + n, sizeof body - n, ",533,533,533]}");
    rig_done(r);
    t = parse(r, COMPLETIONS, body)->thinking;
    assert_true(t->is_open);
    assert_int_equal(t->n_before, 3);
    rig_done(r);
}

static void a_budget_needs_a_model_that_thinks(void **state)
{
    struct rig *r = *state;

    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"thinking_token_budget\":9}", 400,
                 "thinking_token_budget is set but reasoning_config is not configured. Please set "
                 "--reasoning-config to use thinking_token_budget.");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"thinking_token_budget\":-2}", 400,
                 "body.thinking_token_budget");
    expect_fault(r, COMPLETIONS, "{\"prompt\":\"a\",\"thinking_token_budget\":\"x\"}", 400,
                 "body.thinking_token_budget");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(all_the_vocabulary_is_within_the_limit_or_not),
        TEST(named_tokens_stand_for_the_likeliest),
        TEST(named_tokens_have_their_rules),
        TEST(a_prompt_of_several_answers_is_measured_once),
        TEST(an_answer_that_repeats_itself_ends),
        TEST(repetition_has_its_rules),
        TEST(a_budget_of_thoughts_reaches_the_worker),
        TEST(the_prompts_thought_is_counted),
        TEST(a_budget_needs_a_model_that_thinks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
