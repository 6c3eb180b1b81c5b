/* test_completions.c - /v1/completions: what its parameters become, and its answers letter by letter.
 * Clients parse these with code we never see. */
#include "tests/unit/gateway_rig.h"

#include "gateway/openai/openai.h"

enum { THE = 264, DOG = 533, RAN = 607, DOT = 1985, BYTE_C3 = 198, BYTE_A9 = 172, EOS = 2 };

static const int32_t dog_ran[] = { DOG, RAN, DOT };

/* ---- completions ---- */

static void completions_answer(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"the\",\"logprobs\":0,\"max_tokens\":2}"));
    assert_true(r->rq.sampling.temperature == 0.6f); /* generation_config.json */
    rig_tokens(r, 0, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(
        r, "{\"id\":\"cmpl-0000000000000abc\",\"object\":\"text_completion\",\"created\":"
           "1760000000,\"model\":\"stories-demo\",\"choices\":[{\"index\":0,\"text\":\" dog ran\","
           "\"logprobs\":{\"text_offset\":[0,4],\"token_logprobs\":[-0.5,-1.0],\"tokens\":"
           "[\" dog\",\" ran\"],\"top_logprobs\":[{\" dog\":-0.5},{\" ran\":-1.0}]},"
           "\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null,"
           "\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"routed_experts\":null}],"
           "\"service_tier\":null,\"system_fingerprint\":\"fp\",\"usage\":{\"prompt_tokens\":2,"
           "\"total_tokens\":4,\"completion_tokens\":2,\"prompt_tokens_details\":null,"
           "\"completion_tokens_details\":null},\"kv_transfer_params\":null,"
           "\"ec_transfer_params\":null,\"metrics\":null}");
}

#define CHUNK                                                                                      \
    "data: {\"id\":\"cmpl-0000000000000abc\",\"object\":\"text_completion\",\"created\":"          \
    "1760000000,\"model\":\"stories-demo\",\"choices\":["

/* Two choices take turns, whatever came first. */
static void completions_stream_in_turns(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"the\",\"n\":2,\"stream\":true,\"max_tokens\":2,"
                          "\"stream_options\":{\"include_usage\":true}}"));
    rig_tokens(r, 1, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH);
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_EOS);
    expect_stream(r, CHUNK
                  "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\","
                  "\"stop_reason\":533,\"prompt_token_ids\":null,\"token_ids\":null}]}\n\n|" CHUNK
                  "{\"index\":1,\"text\":\" dog\",\"logprobs\":null,\"finish_reason\":null,"
                  "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}]}\n\n|" CHUNK
                  "{\"index\":1,\"text\":\" ran\",\"logprobs\":null,\"finish_reason\":\"length\","
                  "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}]}\n\n|" CHUNK
                  "],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":5,\"completion_tokens\":3},"
                  "\"system_fingerprint\":\"fp\"}\n\ndata: [DONE]\n\n");
}

/* Text is held back while it may be the beginning of a stop string, and cut where that begins. */
static void completions_cut_a_stop_string_over_two_tokens(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"the\",\"stream\":true,\"stop\":\"g r\"}"));
    rig_tokens(r, 0, dog_ran, 3, LLMD__FINISH__FINISH_NONE);
    assert_int_equal(r->rq.choices[0].n_done, 2);
    expect_stream(r, CHUNK
                  "{\"index\":0,\"text\":\" d\",\"logprobs\":null,\"finish_reason\":null,"
                  "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}]}\n\n|" CHUNK
                  "{\"index\":0,\"text\":\"o\",\"logprobs\":null,\"finish_reason\":\"stop\","
                  "\"stop_reason\":\"g r\",\"prompt_token_ids\":null,\"token_ids\":null}],"
                  "\"system_fingerprint\":\"fp\"}\n\n|data: [DONE]\n\n");
}

static void completions_echo_the_prompt_alone(void **state)
{
    struct rig *r = *state;
    struct reply reply;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[264,533],\"echo\":true,\"max_tokens\":0}"));
    assert_true(r->rq.needs_no_generation);
    r->rq.choices[0].end = CHOICE_LENGTH;
    reply_init(&reply);
    r->rq.dialect->whole(&r->rq, &reply);
    assert_non_null(strstr(reply.body.data, "\"text\":\"the dog\""));
    reply_fini(&reply);
    rig_done(r);
}

static void completions_read_every_form_of_prompt(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[\"the\",\"the dog\"],\"n\":2,\"seed\":5,"
                          "\"stop_token_ids\":[7],\"logit_bias\":{\"5\":200},\"min_tokens\":1,"
                          "\"truncate_prompt_tokens\":1,\"temperature\":\"0.5\",\"user\":\"u\"}"));
    assert_int_equal(r->rq.n_choices, 4);
    assert_int_equal(r->rq.choices[2].prompt->n_ids, 1);
    assert_int_equal(r->rq.choices[2].prompt->ids[0], DOG);
    assert_true(r->rq.choices[0].seq.sampling.seed == 5);
    assert_true(r->rq.choices[2].seq.sampling.seed == 5);
    assert_true(r->rq.choices[1].seq.sampling.seed != 5);
    assert_true(r->rq.sampling.logit_bias[0]->bias == 100);
    assert_true(r->rq.sampling.temperature == 0.5f);
    rig_done(r);
    assert_true(rig_parse(r, &dialect_openai_completions, 0, "{\"prompt\":[[1,264],[1,533,607]]}"));
    assert_int_equal(r->rq.n_prompts, 2);
    assert_int_equal(r->rq.prompts[1].n_ids, 3);
    rig_done(r);
    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"the\",\"add_special_tokens\":false}"));
    assert_int_equal(r->rq.prompts[0].n_ids, 1);
    rig_done(r);
}

/* Four run for each prompt, two are shown, the likelier first; what the others cost is not counted. */
static void completions_show_the_best_of_each_prompt(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { DOG, RAN, DOT, THE };
    static const uint32_t n_tokens[] = { 3, 1, 4, 2, 2, 3, 4, 1 };
    struct reply reply;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[\"the\",\"dog\"],\"n\":2,\"best_of\":4}"));
    assert_int_equal(r->rq.n_candidates, 8);
    assert_int_equal(r->rq.n_choices, 4);
    assert_true(r->rq.sampling.want_logprobs);
    for (uint32_t i = 0; i < 8; i++) /* the sum falls with every token */
        rig_tokens(r, i, ids, n_tokens[i], LLMD__FINISH__FINISH_LENGTH);
    request_choose(&r->rq);
    request_choose(&r->rq); /* a pure function */
    assert_ptr_equal(request_choice(&r->rq, 0), &r->rq.choices[1]);
    assert_ptr_equal(request_choice(&r->rq, 1), &r->rq.choices[3]);
    assert_ptr_equal(request_choice(&r->rq, 2), &r->rq.choices[7]);
    assert_ptr_equal(request_choice(&r->rq, 3), &r->rq.choices[4]);
    reply_init(&reply);
    r->rq.dialect->whole(&r->rq, &reply);
    assert_non_null(strstr(reply.body.data, "[{\"index\":0,\"text\":\" dog\","));
    assert_non_null(strstr(reply.body.data, ",{\"index\":3,\"text\":\" dog ran\","));
    assert_non_null(strstr(reply.body.data, "\"completion_tokens\":6,"));
    assert_null(strstr(reply.body.data, "token_logprobs")); /* nobody asked for them */
    reply_fini(&reply);
    rig_done(r);
}

/* Mean and sum differ about long answers; of equals the first is taken. */
static void the_best_is_chosen_by_the_dialects_rule(void **state)
{
    struct rig *r = *state;

    assert_true(
        rig_parse(r, &dialect_openai_completions, 0, "{\"prompt\":\"the\",\"n\":1,\"best_of\":3}"));
    for (uint32_t i = 0; i < 3; i++)
        rig_tokens(r, i, dog_ran, i == 0 ? 1 : 3, LLMD__FINISH__FINISH_LENGTH);
    for (uint32_t k = 0; k < 3; k++)
        r->rq.choices[2].seq.logprobs[k].logprob = r->rq.choices[1].seq.logprobs[k].logprob =
            -0.25f;
    request_choose(&r->rq);
    assert_ptr_equal(request_choice(&r->rq, 0), &r->rq.choices[0]); /* -0.5 against -0.75 */
    r->rq.best_rule = BEST_BY_MEAN;
    request_choose(&r->rq);
    assert_ptr_equal(request_choice(&r->rq, 0), &r->rq.choices[1]);
    rig_done(r);
}

static void best_of_has_its_rules(void **state)
{
    struct rig *r = *state;

    expect_refused(
        r, &dialect_openai_completions, 0, "{\"prompt\":\"the\",\"n\":3,\"best_of\":2}", 400,
        "{\"error\":{\"message\":\"best_of must be greater than or equal to n, got n=3 and "
        "best_of=2. (parameter=best_of, value=2)\",\"type\":\"BadRequestError\",\"param\":"
        "\"best_of\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0,
                   "{\"prompt\":\"the\",\"best_of\":2,\"temperature\":0}", 400,
                   "{\"error\":{\"message\":\"best_of must be 1 when using greedy sampling, got 2. "
                   "(parameter=best_of, value=2)\",\"type\":\"BadRequestError\",\"param\":"
                   "\"best_of\",\"code\":400}}");
    expect_refused(
        r, &dialect_openai_completions, 0, "{\"prompt\":\"the\",\"best_of\":2,\"stream\":true}",
        400,
        "{\"error\":{\"message\":\"best_of must be equal to n when streaming, got n=1 and "
        "best_of=2. (parameter=best_of, value=2)\",\"type\":\"BadRequestError\",\"param\":"
        "\"best_of\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0, "{\"prompt\":\"the\",\"best_of\":2049}", 400,
                   "{\"error\":{\"message\":\"prompts times n must be at most 2048, got 2049\","
                   "\"type\":\"BadRequestError\",\"param\":\"n\",\"code\":400}}");
}

static void expect_run(const struct rig *r, size_t at, const int32_t *ids, size_t n)
{
    const Llmd__BadWord *run = r->rq.sampling.bad_words[at];

    assert_int_equal(run->n_tokens, n);
    assert_memory_equal(run->tokens, ids, n * sizeof *ids);
}

static void completions_restrict_tokens(void **state)
{
    struct rig *r = *state;
    const int32_t the[] = { THE }, dog_runs[] = { DOG, RAN };

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"a\",\"allowed_token_ids\":[5,533],\"bad_words\":"
                          "[\"the\",\"  dog ran\"],\"stop_token_ids\":[7,99999,8]}"));
    assert_int_equal(r->rq.sampling.n_allowed_tokens, 2);
    assert_int_equal(r->rq.sampling.allowed_tokens[1], 533);
    assert_int_equal(r->rq.n_stop_tokens, 2); /* an id that is none can never come */
    assert_int_equal(r->rq.stop_tokens[1], 8);
    assert_int_equal(r->rq.sampling.n_bad_words, 2);
    expect_run(r, 0, the, 1);
    expect_run(r, 1, dog_runs, 2);
    rig_done(r);
    expect_refused(r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"allowed_token_ids\":[]}",
                   400,
                   "{\"error\":{\"message\":\"allowed_token_ids is not None and empty!\",\"type\":"
                   "\"BadRequestError\",\"param\":\"allowed_token_ids\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0,
                   "{\"prompt\":\"a\",\"allowed_token_ids\":[99999]}", 400,
                   "{\"error\":{\"message\":\"allowed_token_ids contains out-of-vocab token id!\","
                   "\"type\":\"BadRequestError\",\"param\":\"allowed_token_ids\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"bad_words\":[\"\"]}",
                   400,
                   "{\"error\":{\"message\":\"bad_words cannot contain an empty string.\",\"type\":"
                   "\"BadRequestError\",\"param\":\"bad_words\",\"code\":400}}");
}

static void beam_search_has_its_rules(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"use_beam_search\":true,"
                          "\"temperature\":0,\"length_penalty\":2,\"early_stopping\":true}"));
    assert_int_equal(r->rq.beam.width, 3);
    assert_int_equal(r->rq.n_candidates, 2);
    assert_true(r->rq.beam.length_penalty == 2 && r->rq.beam.stops_early);
    rig_done(r);
    expect_refused(
        r, &dialect_openai_completions, 0,
        "{\"prompt\":\"a\",\"use_beam_search\":true,\"stream\":true}", 400,
        "{\"error\":{\"message\":\"Streaming is not currently supported with beam search\","
        "\"type\":\"BadRequestError\",\"param\":\"stream\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0,
                   "{\"prompt\":\"a\",\"use_beam_search\":true,\"early_stopping\":\"soon\"}", 400,
                   "{\"error\":{\"message\":\"early_stopping must be True, False, or 'never'.\","
                   "\"type\":\"BadRequestError\",\"param\":\"early_stopping\",\"code\":400}}");
    expect_refused(
        r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"use_beam_search\":true,\"n\":11}",
        400,
        "{\"error\":{\"message\":\"Requested sample logprobs of 22, which is greater than "
        "max allowed: 20 (parameter=n, value=11)\",\"type\":\"BadRequestError\",\"param\":"
        "\"n\",\"code\":400}}");
}

/* Ids without names are easier to read here: 1 is <s>. */
static void completions_echo_with_logprobs_of_the_prompt(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[264,533,607],\"echo\":true,\"logprobs\":1,\"max_tokens\":1,"
                          "\"return_tokens_as_token_ids\":true}"));
    assert_true(r->rq.choices[0].seq.submit.want_prompt_logprobs);
    assert_int_equal(r->rq.choices[0].seq.submit.prompt_top_logprobs, 1);
    rig_prompt(r, 0);
    rig_tokens(r, 0, &dog_ran[2], 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(
        r,
        "{\"id\":\"cmpl-0000000000000abc\",\"object\":\"text_completion\",\"created\":"
        "1760000000,\"model\":\"stories-demo\",\"choices\":[{\"index\":0,\"text\":\"the dog ran.\","
        "\"logprobs\":{\"text_offset\":[0,12,24,36],\"token_logprobs\":[null,-0.25,-0.5,-0.5],"
        "\"tokens\":[\"token_id:264\",\"token_id:533\",\"token_id:607\",\"token_id:1985\"],"
        "\"top_logprobs\":[null,{\"token_id:533\":-0.25,\"token_id:101\":-0.125},"
        "{\"token_id:607\":-0.5,\"token_id:102\":-0.125},{\"token_id:1985\":-0.5}]},"
        "\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null,"
        "\"prompt_logprobs\":[null,{\"533\":{\"logprob\":-0.25,\"rank\":2,\"decoded_token\":\" "
        "dog\"},"
        "\"101\":{\"logprob\":-0.125,\"rank\":1,\"decoded_token\":\"b\"}},"
        "{\"607\":{\"logprob\":-0.5,\"rank\":3,\"decoded_token\":\" ran\"},"
        "\"102\":{\"logprob\":-0.125,\"rank\":1,\"decoded_token\":\"c\"}}],"
        "\"prompt_token_ids\":null,\"routed_experts\":null}],"
        "\"service_tier\":null,\"system_fingerprint\":\"fp\",\"usage\":{\"prompt_tokens\":3,"
        "\"total_tokens\":4,\"completion_tokens\":1,\"prompt_tokens_details\":null,"
        "\"completion_tokens_details\":null},\"kv_transfer_params\":null,"
        "\"ec_transfer_params\":null,\"metrics\":null}");
}

/* The first event has the prompt's lists, the next goes on with the offsets. */
static void completions_stream_the_echoed_logprobs_once(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[264,533],\"echo\":true,\"logprobs\":0,\"stream\":true,"
                          "\"max_tokens\":2}"));
    rig_prompt(r, 0);
    rig_tokens(r, 0, &dog_ran[1], 2, LLMD__FINISH__FINISH_LENGTH);
    expect_stream(
        r, CHUNK
        "{\"index\":0,\"text\":\"the dog ran\",\"logprobs\":{\"text_offset\":[0,4,8],"
        "\"token_logprobs\":[null,-0.25,-0.5],\"tokens\":[\" the\",\" dog\",\" ran\"],"
        "\"top_logprobs\":[null,{\" dog\":-0.25},{\" ran\":-0.5}]},\"finish_reason\":null,"
        "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}]}\n\n|" CHUNK
        "{\"index\":0,\"text\":\".\",\"logprobs\":{\"text_offset\":[12],\"token_logprobs\":[-1.0],"
        "\"tokens\":[\".\"],\"top_logprobs\":[{\".\":-1.0}]},\"finish_reason\":\"length\","
        "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}],"
        "\"system_fingerprint\":\"fp\"}\n\n|data: [DONE]\n\n");
}

/* No token is generated for it, but the worker reads it. */
static void completions_measure_a_prompt_alone(void **state)
{
    struct rig *r = *state;
    struct reply reply;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[264,533],\"echo\":true,\"logprobs\":0,\"max_tokens\":0}"));
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 0);
    rig_prompt(r, 0);
    r->rq.choices[0].seq.finish = LLMD__FINISH__FINISH_LENGTH;
    r->rq.choices[0].seq.state = SEQUENCE_ENDED;
    choice_take(&r->rq.choices[0]);
    reply_init(&reply);
    r->rq.dialect->whole(&r->rq, &reply);
    assert_non_null(strstr(
        reply.body.data, "\"text\":\"the dog\",\"logprobs\":{\"text_offset\":[0,4],"
                         "\"token_logprobs\":[null,-0.25],\"tokens\":[\" the\",\" dog\"],"
                         "\"top_logprobs\":[null,{\" dog\":-0.25}]},\"finish_reason\":\"length\""));
    reply_fini(&reply);
    rig_done(r);
}

/* Known, and not done: the parameter is named. */
static void what_is_not_done_is_refused_by_name(void **state)
{
    static const char *const bodies[][2] = {
        { "response_format", "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}" },
        { "structured_outputs", "{\"prompt\":\"a\",\"structured_outputs\":{\"regex\":\"a\"}}" },
        { "guided_json", "{\"prompt\":\"a\",\"guided_json\":{}}" },
        { "guided_regex", "{\"prompt\":\"a\",\"guided_regex\":\"a\"}" },
        { "guided_choice", "{\"prompt\":\"a\",\"guided_choice\":[\"a\"]}" },
        { "guided_grammar", "{\"prompt\":\"a\",\"guided_grammar\":\"a\"}" },
        { "logits_processors", "{\"prompt\":\"a\",\"logits_processors\":[\"x\"]}" },
        { "prompt_embeds", "{\"prompt_embeds\":\"AA==\"}" },
    };
    struct rig *r = *state;
    char want[128];

    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        assert_false(rig_parse(r, &dialect_openai_completions, 0, bodies[i][1]));
        snprintf(want, sizeof want, "%s is not supported by this server", bodies[i][0]);
        assert_int_equal(r->fault.kind, FAULT_UNSUPPORTED);
        assert_string_equal(r->fault.text, want);
        assert_string_equal(r->fault.param, bodies[i][0]);
        rig_done(r);
    }
    expect_refused(r, &dialect_openai_completions, 0,
                   "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_schema\"}}", 400,
                   "{\"error\":{\"message\":\"When response_format type is 'json_schema', the "
                   "'json_schema' field must be provided.\",\"type\":\"BadRequestError\",\"param\":"
                   "\"response_format\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400,
                   "{\"error\":{\"message\":\"suffix is not currently supported\",\"type\":"
                   "\"BadRequestError\",\"param\":\"suffix\",\"code\":400}}");
    expect_refused(
        r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"cache_salt\":\"\"}", 400,
        "{\"error\":{\"message\":\"Parameter 'cache_salt' must be a non-empty string if "
        "provided.\",\"type\":\"BadRequestError\",\"param\":\"cache_salt\",\"code\":400}}");
}

/* Each value out of its range, in the words of vLLM's checks. */
static void sampling_parameters_have_their_ranges(void **state)
{
    static const char *const rows[][2] = {
        { "\"temperature\":-1", "temperature must be non-negative, got -1. (parameter=temperature, "
                                "value=-1)" },
        { "\"temperature\":2.5", "temperature must be in [0, 2], got 2.5. (parameter=temperature, "
                                 "value=2.5)" },
        { "\"top_p\":0", "top_p must be in (0, 1], got 0. (parameter=top_p, value=0)" },
        { "\"top_k\":-2",
          "top_k must be 0 (disable), or at least 1, got -2. (parameter=top_k, value=-2)" },
        { "\"min_p\":1.5", "min_p must be in [0, 1], got 1.5. (parameter=min_p, value=1.5)" },
        { "\"presence_penalty\":3", "presence_penalty must be in [-2, 2], got 3. "
                                    "(parameter=presence_penalty, value=3)" },
        { "\"frequency_penalty\":-3", "frequency_penalty must be in [-2, 2], got -3. "
                                      "(parameter=frequency_penalty, value=-3)" },
        { "\"repetition_penalty\":0", "repetition_penalty must be greater than zero, got 0. "
                                      "(parameter=repetition_penalty, value=0)" },
        { "\"min_tokens\":-1", "min_tokens must be greater than or equal to 0, got -1. "
                               "(parameter=min_tokens, value=-1)" },
        { "\"min_tokens\":17", "min_tokens must be less than or equal to max_tokens=16, got 17. "
                               "(parameter=min_tokens, value=17)" },
        { "\"truncate_prompt_tokens\":0", "truncate_prompt_tokens must be in [1, 496], got 0. "
                                          "(parameter=truncate_prompt_tokens, value=0)" },
    };
    struct rig *r = *state;
    char body[160];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(body, sizeof body, "{\"prompt\":\"a\",%s}", rows[i][0]);
        assert_false(rig_parse(r, &dialect_openai_completions, 0, body));
        assert_int_equal(r->fault.kind, FAULT_INVALID);
        assert_string_equal(r->fault.text, rows[i][1]);
        rig_done(r);
    }
}

static void sampling_parameters_reach_the_sampler(void **state)
{
    struct rig *r = *state;
    const Llmd__Sampling *s;

    assert_true(
        rig_parse(r, &dialect_openai_completions, 0,
                  "{\"prompt\":\"a\",\"temperature\":0.001,\"top_p\":0.5,\"top_k\":-1,"
                  "\"min_p\":0.25,\"presence_penalty\":1,\"frequency_penalty\":-1,"
                  "\"repetition_penalty\":1.5,\"seed\":-5,\"ignore_eos\":true,"
                  "\"min_tokens\":2,\"max_tokens\":9,\"priority\":4,"
                  "\"skip_special_tokens\":false,\"spaces_between_special_tokens\":false,"
                  "\"include_stop_str_in_output\":true,\"stream_interval\":8,\"user\":\"u\","
                  "\"session_id\":\"s\",\"cache_salt\":\"x\"}"));
    s = &r->rq.choices[0].seq.sampling;
    assert_true(s->temperature == 0.01f && s->top_p == 0.5f && s->top_k == 0 && s->min_p == 0.25f);
    assert_true(s->presence_penalty == 1 && s->frequency_penalty == -1);
    assert_true(s->repetition_penalty == 1.5f && s->seed == (uint64_t)-5);
    assert_true(r->rq.choices[0].seq.submit.ignore_eos);
    assert_int_equal(r->rq.choices[0].seq.submit.min_tokens, 2);
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 9);
    assert_int_equal(r->rq.choices[0].seq.submit.priority, 4);
    assert_true(r->rq.choices[0].seq.submit.cache_salt != 0);
    assert_true(r->rq.shows_special_tokens && r->rq.keeps_stop);
    rig_done(r);
}

static void prompt_logprobs_have_their_rules(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":\"a\",\"prompt_logprobs\":0,\"stream\":true}"));
    rig_done(r);
    assert_true(rig_parse(r, &dialect_openai_chat, 0,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                          "\"prompt_logprobs\":3}"));
    assert_int_equal(r->rq.choices[0].seq.submit.prompt_top_logprobs, 3);
    rig_done(r);
    expect_refused(
        r, &dialect_openai_completions, 0,
        "{\"prompt\":\"a\",\"prompt_logprobs\":1,\"stream\":true}", 400,
        "{\"error\":{\"message\":\"`prompt_logprobs` are not available when `stream=True`.\","
        "\"type\":\"BadRequestError\",\"param\":\"prompt_logprobs\",\"code\":400}}");
    expect_refused(r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"prompt_logprobs\":-2}",
                   400,
                   "{\"error\":{\"message\":\"`prompt_logprobs` must be a positive value or -1.\","
                   "\"type\":\"BadRequestError\",\"param\":\"prompt_logprobs\",\"code\":400}}");
    expect_refused(
        r, &dialect_openai_completions, 0, "{\"prompt\":\"a\",\"prompt_logprobs\":-1}", 400,
        "{\"error\":{\"message\":\"Requested prompt logprobs of 2048, which is greater than "
        "max allowed: 20 (parameter=prompt_logprobs, value=2048)\",\"type\":"
        "\"BadRequestError\",\"param\":\"prompt_logprobs\",\"code\":400}}");
    expect_refused(
        r, &dialect_openai_completions, 0,
        "{\"prompt\":\"a\",\"echo\":true,\"logprobs\":1,\"use_beam_search\":true}", 400,
        "{\"error\":{\"message\":\"logprobs of an echoed prompt are not supported with beam "
        "search\",\"type\":\"BadRequestError\",\"param\":\"logprobs\",\"code\":400}}");
}

/* Byte-level models spell a word behind a space with another token: both are forbidden, but not a
 * spelling that is the bare space and then the word. */
static void bad_words_are_spelled_with_and_without_a_space(void **state)
{
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"b\",\"vocab\":{\"a\":0,\"b\":1,\"\u0120\":2,"
        "\"\u0120a\":3},"
        "\"merges\":[\"\u0120 a\"]},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
        "false,\"trim_offsets\":true,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"}}";
    const int32_t plain[] = { 0, 1 }, spaced[] = { 3, 1 }, b[] = { 1 };
    struct rig *r = *state;
    struct tokenizer *demo = r->service.tokenizer;
    struct err e;

    r->service.tokenizer = tokenizer_open_json(json, sizeof json - 1, NULL, 0, &e);
    if (!r->service.tokenizer)
        fail_msg("%s", e.msg);
    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[1],\"bad_words\":[\"ab\",\"b\"]}"));
    assert_int_equal(r->rq.sampling.n_bad_words, 3);
    expect_run(r, 0, plain, 2);
    expect_run(r, 1, spaced, 2);
    expect_run(r, 2, b, 1);
    rig_done(r);
    tokenizer_close(r->service.tokenizer);
    r->service.tokenizer = demo;
}

static void prompts_are_cut_on_the_side_that_is_named(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[264,533,607],\"truncate_prompt_tokens\":2,"
                          "\"truncation_side\":\"right\"}"));
    assert_int_equal(r->rq.prompts[0].n_ids, 2);
    assert_int_equal(r->rq.prompts[0].ids[0], THE);
    rig_done(r);
    assert_true(rig_parse(r, &dialect_openai_completions, 0,
                          "{\"prompt\":[264,533,607],\"truncate_prompt_tokens\":2,"
                          "\"truncation_side\":\"left\"}"));
    assert_int_equal(r->rq.prompts[0].ids[0], DOG);
    rig_done(r);
    expect_refused(
        r, &dialect_openai_completions, 0,
        "{\"prompt\":[264],\"truncate_prompt_tokens\":1,\"truncation_side\":\"up\"}", 400,
        "{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'literal_error', 'loc': "
        "('body', 'truncation_side'), 'msg': \\\"Input should be 'left' or 'right'\\\"}\","
        "\"type\":\"Bad Request\",\"param\":\"body.truncation_side\",\"code\":400}}");
}

/* Clients made for one endpoint have no model to name, and send its address. */
static void completions_take_an_address_for_the_model(void **state)
{
    static const char *const names[] = { "", "stories-demo", "tgi", "http://127.0.0.1:8080/",
                                         "https://llm.example/v1" };
    struct rig *r = *state;
    char body[128];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(body, sizeof body, "{\"prompt\":\"the\",\"model\":\"%s\"}", names[i]);
        assert_true(rig_parse(r, &dialect_openai_completions, 0, body));
        rig_done(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completions_answer),
        cmocka_unit_test(completions_stream_in_turns),
        cmocka_unit_test(completions_cut_a_stop_string_over_two_tokens),
        cmocka_unit_test(completions_echo_the_prompt_alone),
        cmocka_unit_test(completions_read_every_form_of_prompt),
        cmocka_unit_test(completions_show_the_best_of_each_prompt),
        cmocka_unit_test(the_best_is_chosen_by_the_dialects_rule),
        cmocka_unit_test(best_of_has_its_rules),
        cmocka_unit_test(completions_restrict_tokens),
        cmocka_unit_test(beam_search_has_its_rules),
        cmocka_unit_test(completions_echo_with_logprobs_of_the_prompt),
        cmocka_unit_test(completions_stream_the_echoed_logprobs_once),
        cmocka_unit_test(completions_measure_a_prompt_alone),
        cmocka_unit_test(what_is_not_done_is_refused_by_name),
        cmocka_unit_test(sampling_parameters_have_their_ranges),
        cmocka_unit_test(sampling_parameters_reach_the_sampler),
        cmocka_unit_test(prompt_logprobs_have_their_rules),
        cmocka_unit_test(bad_words_are_spelled_with_and_without_a_space),
        cmocka_unit_test(prompts_are_cut_on_the_side_that_is_named),
        cmocka_unit_test(completions_take_an_address_for_the_model),
    };

    return cmocka_run_group_tests(tests, rig_set_up, rig_tear_down);
}
