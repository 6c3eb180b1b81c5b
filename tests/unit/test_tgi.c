/* test_tgi.c - TGI's parameters and answers in both versions, letter by letter.
 *
 * What would break in production: a client made for 3.x or 0.9.3 meets a field, a default or a text that its
 * server did not have. */
#include "tests/unit/gateway_rig.h"

#include "gateway/pages.h"
#include "gateway/tgi/tgi.h"

enum { THE = 264, DOG = 533, RAN = 607, DOT = 1985, EOS = 2 };

static const int32_t dog_ran[] = { DOG, RAN, DOT };

static void set(struct rig *r, const char *name, const char *value)
{
    struct err e;

    assert_ok(config_set(&r->service.config, name, value, "test", &e), e);
}

static void take(struct rig *r, int variant, const char *body)
{
    if (!rig_parse(r, &dialect_tgi, variant, body))
        fail_msg("%s: %s", body, r->fault.text);
}

#define SCHEMA(text) "Failed to deserialize the JSON body into the target type: " text
#define VALIDATION(text)                                                                           \
    "{\"error\":\"Input validation error: " text "\",\"error_type\":\"validation\"}"
#define WITH(parameters) "{\"inputs\":\"the\",\"parameters\":{" parameters "}}"

/* ---- parameters ---- */

static void seeds_have_64_bits(void **state)
{
    struct rig *r = *state;

    take(r, TGI_GENERATE,
         WITH("\"seed\":18446744073709551615,\"do_sample\":true,\"details\":true"));
    assert_true(r->rq.choices[0].seq.sampling.seed == UINT64_MAX);
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"generated_text\":\" dog\",\"details\":{\"finish_reason\":\"length\","
                    "\"generated_tokens\":1,\"seed\":18446744073709551615,\"prefill\":[],"
                    "\"tokens\":[{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,\"special\":false}"
                    "]}}");
    take(r, TGI_GENERATE, WITH("\"seed\":9223372036854775808"));
    assert_true(r->rq.choices[0].seq.sampling.seed == 1ull << 63);
    rig_done(r);
    take(r, TGI_GENERATE, WITH("\"seed\":0"));
    assert_true(r->rq.choices[0].seq.sampling.seed == 0);
    rig_done(r);
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"seed\":18446744073709551616"), 422,
                   SCHEMA("parameters.seed: invalid type: floating point `1.84467e+19`, expected "
                          "u64"));
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"seed\":-1"), 422,
                   SCHEMA("parameters.seed: invalid value: integer `-1`, expected u64"));
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"seed\":\"1\""), 422,
                   SCHEMA("parameters.seed: invalid type: string \"1\", expected u64"));
    take(r, TGI_GENERATE, WITH("\"unknown\":18446744073709551616,\"seed\":null"));
    rig_done(r);
}

static void types_are_told_in_serdes_words(void **state)
{
    static const struct {
        const char *body, *want;
    } cases[] = {
        { "[]", SCHEMA("invalid type: sequence, expected struct GenerateRequest") },
        { "{}", SCHEMA("missing field `inputs`") },
        { "{\"inputs\":5}", SCHEMA("inputs: invalid type: integer `5`, expected a string") },
        { "{\"inputs\":\"a\",\"parameters\":null}",
          SCHEMA("parameters: invalid type: null, expected struct GenerateParameters") },
        { WITH("\"stop\":null"),
          SCHEMA("parameters.stop: invalid type: null, expected a sequence") },
        { WITH("\"stop\":\"x\""),
          SCHEMA("parameters.stop: invalid type: string \"x\", expected a sequence") },
        { WITH("\"stop\":[1]"),
          SCHEMA("parameters.stop[0]: invalid type: integer `1`, expected a string") },
        { WITH("\"do_sample\":null"),
          SCHEMA("parameters.do_sample: invalid type: null, expected a boolean") },
        { WITH("\"details\":null"),
          SCHEMA("parameters.details: invalid type: null, expected a boolean") },
        { WITH("\"watermark\":null"),
          SCHEMA("parameters.watermark: invalid type: null, expected a boolean") },
        { WITH("\"decoder_input_details\":null"),
          SCHEMA("parameters.decoder_input_details: invalid type: null, expected a boolean") },
        { WITH("\"top_k\":1.5"),
          SCHEMA("parameters.top_k: invalid type: floating point `1.5`, expected i32") },
        { WITH("\"top_k\":4294967296"),
          SCHEMA("parameters.top_k: invalid value: integer `4294967296`, expected i32") },
        { WITH("\"max_new_tokens\":-1"),
          SCHEMA("parameters.max_new_tokens: invalid value: integer `-1`, expected u32") },
        { WITH("\"best_of\":-1"),
          SCHEMA("parameters.best_of: invalid value: integer `-1`, expected usize") },
        { WITH("\"truncate\":-1"),
          SCHEMA("parameters.truncate: invalid value: integer `-1`, expected usize") },
        { WITH("\"top_n_tokens\":-1"),
          SCHEMA("parameters.top_n_tokens: invalid value: integer `-1`, expected u32") },
        { WITH("\"temperature\":\"1\""),
          SCHEMA("parameters.temperature: invalid type: string \"1\", expected f32") },
        { WITH("\"return_full_text\":1"),
          SCHEMA("parameters.return_full_text: invalid type: integer `1`, expected a boolean") },
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(r, &dialect_tgi, TGI_GENERATE, cases[i].body, 422, cases[i].want);
}

/* Null is as good as absent where the field is optional, and members that nobody knows are nothing. */
static void null_and_unknown_members_are_taken(void **state)
{
    struct rig *r = *state;

    take(r, TGI_GENERATE,
         "{\"inputs\":\"the\",\"x\":[1],\"parameters\":{\"best_of\":null,\"temperature\":null,"
         "\"repetition_penalty\":null,\"frequency_penalty\":null,\"top_k\":null,\"top_p\":null,"
         "\"typical_p\":null,\"max_new_tokens\":null,\"return_full_text\":null,\"truncate\":null,"
         "\"seed\":null,\"top_n_tokens\":null,\"grammar\":null,\"adapter_id\":null,\"y\":{}}}");
    assert_true(r->rq.sampling.temperature == 0);
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 510);
    rig_done(r);
    take(r, TGI_GENERATE, WITH("\"best_of\":0")); /* as 1 */
    assert_int_equal(r->rq.n_candidates, 1);
    rig_done(r);
}

static void what_selects_sampling(void **state)
{
    static const struct {
        const char *body;
        bool samples;
    } cases[] = {
        { "{\"inputs\":\"the\"}", true },
        { WITH(""), false },
        { WITH("\"do_sample\":true"), true },
        { WITH("\"temperature\":1.0"), false },
        { WITH("\"temperature\":0.5"), true },
        { WITH("\"top_k\":5"), true },
        { WITH("\"top_p\":0.5"), true },
        { WITH("\"typical_p\":0.5"), true },
        { WITH("\"repetition_penalty\":1.5"), false },
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        take(r, TGI_GENERATE, cases[i].body);
        if ((r->rq.sampling.temperature > 0) != cases[i].samples)
            fail_msg("%s", cases[i].body);
        rig_done(r);
    }
}

static void parameters_reach_the_sampler(void **state)
{
    struct rig *r = *state;
    const Llmd__Sampling *s = &r->rq.sampling;

    take(r, TGI_GENERATE,
         WITH("\"temperature\":0.5,\"top_k\":7,\"top_p\":0.25,\"typical_p\":0.75,"
              "\"repetition_penalty\":1.25,\"frequency_penalty\":-2.0,\"watermark\":true,"
              "\"top_n_tokens\":5,\"details\":true"));
    assert_true(s->temperature == 0.5f && s->top_k == 7 && s->top_p == 0.25f);
    assert_true(s->typical_p == 0.75f && s->repetition_penalty == 1.25f);
    assert_true(s->frequency_penalty == -2.0f && s->frequency_is_share);
    assert_true(s->watermark_gamma == 0.5f && s->watermark_delta == 2.0f);
    assert_true(s->want_logprobs && s->top_logprobs == 5);
    assert_int_equal(s->logprobs_mode, LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED);
    rig_done(r);
    set(r, "watermark_gamma", "0.25");
    set(r, "watermark_delta", "4");
    take(r, TGI_GENERATE, WITH("\"watermark\":true"));
    assert_true(s->watermark_gamma == 0.25f && s->watermark_delta == 4);
    rig_done(r);
    take(r, TGI_GENERATE, WITH("\"watermark\":false"));
    assert_true(s->watermark_gamma == 0);
    rig_done(r);
}

static void limits_are_those_of_the_settings(void **state)
{
    struct rig *r = *state;

    set(r, "max_best_of", "1");
    set(r, "max_stop_sequences", "1");
    set(r, "max_top_n_tokens", "0");
    set(r, "max_input_tokens", "3");
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"best_of\":2,\"do_sample\":true"), 422,
                   VALIDATION("`best_of` != 1 is not allowed for this endpoint"));
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"stop\":[\"a\",\"b\"]"), 422,
                   VALIDATION("`stop` supports up to 1 stop sequences. Given: 2"));
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"top_n_tokens\":1"), 422,
                   VALIDATION("`top_n_tokens` must be >= 0 and <= 0. Given: 1"));
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"truncate\":4"), 422,
                   VALIDATION("`truncate` must be strictly positive and less than 3. Given: 4"));
    expect_refused(r, &dialect_tgi, TGI_GENERATE,
                   "{\"inputs\":\"the dog ran.\",\"parameters\":{\"max_new_tokens\":1}}", 422,
                   VALIDATION("`inputs` must have less than 3 tokens. Given: 5"));
    take(r, TGI_GENERATE, WITH("\"truncate\":3,\"max_new_tokens\":1")); /* equal is allowed */
    rig_done(r);
    take(r, TGI_GENERATE, "{\"inputs\":\"the dog\",\"parameters\":{\"max_new_tokens\":1}}");
    assert_int_equal(r->rq.prompts[0].n_ids, 3);
    rig_done(r);
}

/* ---- answers ---- */

static void prompt_logprobs(struct rig *r, uint32_t choice)
{
    struct sequence *s = &r->rq.choices[choice].seq;

    for (uint32_t i = 0; i < s->submit.n_prompt; i++) {
        Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;
        Llmd__TokenLogprob lp = LLMD__TOKEN_LOGPROB__INIT;
        Llmd__TokenLogprob *lps[1] = { &lp };
        lp.logprob = i ? -0.25f * (float)i : 0;
        lp.rank = i ? 1 : 0;
        m.prompt_index = i;
        m.prompt_logprobs = lps;
        m.n_prompt_logprobs = 1;
        sequence_append_prompt(s, &m);
    }
}

/* The first token is predicted by nothing; each is shown as decoded alone. */
static void prefill_shows_the_prompts_tokens(void **state)
{
    struct rig *r = *state;

    take(r, TGI_GENERATE,
         "{\"inputs\":\"the dog\",\"parameters\":{\"decoder_input_details\":true}}");
    assert_true(r->rq.choices[0].seq.submit.want_prompt_logprobs);
    prompt_logprobs(r, 0);
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"generated_text\":\" dog\",\"details\":{\"finish_reason\":\"length\","
                    "\"generated_tokens\":1,\"seed\":null,\"prefill\":["
                    "{\"id\":1,\"text\":\"<s>\",\"logprob\":null},"
                    "{\"id\":264,\"text\":\"the\",\"logprob\":-0.25},"
                    "{\"id\":533,\"text\":\"dog\",\"logprob\":-0.5}],"
                    "\"tokens\":[{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,\"special\":false}"
                    "]}}");
    take(r, TGI_GENERATE, WITH("\"details\":true"));
    assert_false(r->rq.choices[0].seq.submit.want_prompt_logprobs);
    rig_done(r);
}

#define DOG_TOKEN "{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,\"special\":false}"
#define RAN_TOKEN "{\"id\":607,\"text\":\" ran\",\"logprob\":-1.0,\"special\":false}"

static void best_of_shows_the_others_too(void **state)
{
    static const char winner[] =
        "{\"generated_text\":\" dog\",\"details\":{\"finish_reason\":\"length\","
        "\"generated_tokens\":1,\"seed\":%llu,\"prefill\":[],\"tokens\":[" DOG_TOKEN "],";
    static const char loser[] =
        "\"best_of_sequences\":[{\"generated_text\":\" dog ran\",\"finish_reason\":\"length\","
        "\"generated_tokens\":2,\"seed\":%llu,\"prefill\":[],\"tokens\":[" DOG_TOKEN "," RAN_TOKEN
        "],\"top_tokens\":[[" DOG_TOKEN "],[" RAN_TOKEN "]]}],";
    struct rig *r = *state;
    struct buf want = { 0 };

    take(r, TGI_GENERATE,
         WITH("\"best_of\":2,\"do_sample\":true,\"details\":true,\"top_n_tokens\":1"));
    assert_int_equal(r->rq.n_candidates, 2);
    rig_tokens(r, 0, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH); /* mean -0.75 */
    rig_tokens(r, 1, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH); /* -0.5 */
    buf_printf(&want, winner, (unsigned long long)r->rq.choices[1].seq.sampling.seed);
    buf_printf(&want, loser, (unsigned long long)r->rq.choices[0].seq.sampling.seed);
    buf_add_str(&want, "\"top_tokens\":[[" DOG_TOKEN "]]}}");
    expect_whole(r, want.data);
    buf_fini(&want);
}

/* "</s>" in `stop` of a model for which it is no end: it is special, so it leaves no text to find it in. */
static void a_special_token_can_be_a_stop_string(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { DOG, EOS };

    take(r, TGI_GENERATE, WITH("\"stop\":[\"dog</s>\"]"));
    rig_tokens(r, 0, ids, 2, LLMD__FINISH__FINISH_NONE);
    assert_int_equal(r->rq.choices[0].end, CHOICE_STOP_STRING);
    expect_whole(r, "{\"generated_text\":\" dog\"}");
}

static void a_stream_that_ends_without_a_token_says_so(void **state)
{
    struct rig *r = *state;

    for (int is_old = 0; is_old < 2; is_old++) {
        set(r, "tgi_compat", is_old ? "0.9.3" : "3");
        take(r, TGI_GENERATE, "{\"inputs\":\"the\"}");
        r->rq.choices[0].end = CHOICE_ABORTED;
        expect_stream(r, is_old ? "data:{\"error\":\"Incomplete generation\",\"error_type\":"
                                  "\"incomplete_generation\"}\n\n|"
                                : "data: {\"error\":\"Incomplete generation stream\","
                                  "\"error_type\":\"incomplete_generation_stream\"}\n\n|");
    }
}

static void errors_have_their_kind(void **state)
{
    static const struct {
        enum fault_kind kind;
        int status;
        const char *body;
    } cases[] = {
        { FAULT_OVERLOADED, 429,
          "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}" },
        { FAULT_GENERATION, 424,
          "{\"error\":\"Request failed during generation: x\",\"error_type\":\"generation\"}" },
        { FAULT_TIMEOUT, 424,
          "{\"error\":\"Request failed during generation: x\",\"error_type\":\"generation\"}" },
        { FAULT_TEMPLATE, 422,
          "{\"error\":\"Template error: x\",\"error_type\":\"template_error\"}" },
        { FAULT_MEDIA_TYPE, 415, "x" },
        { FAULT_SYNTAX, 400, "Failed to parse the request body as JSON: x" },
    };
    struct rig *r = *state;
    struct reply reply;
    struct fault f;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fault_set(&f, cases[i].kind, "", "x");
        reply_init(&reply);
        dialect_tgi.fault(&f, &reply);
        assert_int_equal(reply.status, cases[i].status);
        assert_string_equal(reply.body.data, cases[i].body);
        assert_null(header_of(&reply, "x-compute-type")); /* none of those on errors */
        reply_fini(&reply);
    }
    request_init(&r->rq, &r->service, &dialect_tgi, TGI_GENERATE_STREAM);
    fault_set(&f, FAULT_OVERLOADED, "", "x");
    reply_init(&reply);
    dialect_tgi.stream_fault(&r->rq, &f, &reply.body);
    assert_string_equal(reply.body.data, "data: {\"error\":\"Model is overloaded\",\"error_type\":"
                                         "\"overloaded\"}\n\n");
    reply_fini(&reply);
    request_fini(&r->rq);
}

/* ---- headers ---- */

static void whole(struct rig *r, struct reply *reply)
{
    take(r, TGI_GENERATE, WITH("\"max_new_tokens\":2"));
    rig_tokens(r, 0, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH);
    r->rq.started_ns = 1000000000;
    r->rq.validated_ns = 1002000000;
    r->rq.answered_ns = 1250000000;
    r->rq.queue_ns = 40000000;
    reply_init(reply);
    dialect_tgi.whole(&r->rq, reply);
}

static void answers_tell_their_times(void **state)
{
    static const char *const headers[][3] = {
        { "x-compute-type", "1-cpu", "gpu+optimized" },
        { "x-compute-time", "0.25", "250" },
        { "x-compute-characters", "3", "3" },
        { "x-total-time", "250", "250" },
        { "x-validation-time", "2", "2" },
        { "x-queue-time", "40", "40" },
        { "x-inference-time", "208", "208" },
        { "x-time-per-token", "104", "104" },
        { "x-prompt-tokens", "2", NULL },
        { "x-generated-tokens", "2", NULL },
    };
    struct rig *r = *state;
    struct reply reply;

    set(r, "compute_type", "1-cpu");
    for (int is_old = 0; is_old < 2; is_old++) {
        set(r, "tgi_compat", is_old ? "0.9.3" : "3");
        whole(r, &reply);
        for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
            const char *value = header_of(&reply, headers[i][0]);
            const char *want = headers[i][1 + is_old];
            if (want ? !value || strcmp(value, want) != 0 : value != NULL)
                fail_msg("%s: %s, not %s", headers[i][0], value ? value : "none", want);
        }
        reply_fini(&reply);
        rig_done(r);
    }
}

/* ---- 0.9.3 ---- */

static void old_defaults(void **state)
{
    struct rig *r = *state;

    set(r, "tgi_compat", "0.9.3");
    take(r, TGI_ROOT, "{\"inputs\":\"the\"}");
    assert_true(r->rq.sampling.temperature == 0);
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 20);
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_EOS);
    expect_whole(r, "[{\"generated_text\":\"\"}]"); /* without the prompt */
    expect_refused(r, &dialect_tgi, TGI_GENERATE, WITH("\"max_new_tokens\":null"), 422,
                   SCHEMA("parameters.max_new_tokens: invalid type: null, expected u32"));
    take(r, TGI_GENERATE,
         WITH("\"frequency_penalty\":9,\"top_n_tokens\":\"x\",\"grammar\":5,\"adapter_id\":{}"));
    assert_true(r->rq.sampling.frequency_penalty == 0);
    rig_done(r);
}

/* The sum is told as asked, not as 3.x's scheduler cuts it. */
static void old_lengths_are_not_cut(void **state)
{
    struct rig *r = *state;

    expect_refused(
        r, &dialect_tgi, TGI_GENERATE, WITH("\"max_new_tokens\":2000"), 422,
        VALIDATION("`inputs` tokens + `max_new_tokens` must be <= 512. Given: 2 `inputs` "
                   "tokens and 1024 `max_new_tokens`"));
    set(r, "tgi_compat", "0.9.3");
    expect_refused(
        r, &dialect_tgi, TGI_GENERATE, WITH("\"max_new_tokens\":2000"), 422,
        VALIDATION("`inputs` tokens + `max_new_tokens` must be <= 512. Given: 2 `inputs` "
                   "tokens and 2000 `max_new_tokens`"));
}

static void old_streams(void **state)
{
    struct rig *r = *state;
    const int32_t ids[] = { DOG, EOS };

    set(r, "tgi_compat", "0.9.3");
    take(r, TGI_ROOT,
         "{\"inputs\":\"the\",\"stream\":true,\"parameters\":{\"details\":true,\"seed\":42,"
         "\"do_sample\":true,\"top_n_tokens\":1}}");
    rig_tokens(r, 0, ids, 2, LLMD__FINISH__FINISH_EOS);
    expect_stream(
        r, "data:{\"token\":{\"id\":533,\"text\":\" dog\",\"logprob\":-0.5,\"special\":false},"
           "\"generated_text\":null,\"details\":null}\n\n|"
           "data:{\"token\":{\"id\":2,\"text\":\"</s>\",\"logprob\":-1.0,\"special\":true},"
           "\"generated_text\":\" dog\",\"details\":{\"finish_reason\":\"eos_token\","
           "\"generated_tokens\":2,\"seed\":42}}\n\n|");
}

static void expect_info(struct rig *r, const char *want)
{
    struct reply reply;

    reply_init(&reply);
    page_info(&r->service, NULL, &reply);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body.data, want);
    reply_fini(&reply);
}

static void info_has_the_versions_keys(void **state)
{
    struct rig *r = *state;

    set(r, "model", "/models/m");
    atomic_store(&r->service.group_kv_pages[0], 100);
    expect_info(r, "{\"model_id\":\"/models/m\",\"model_sha\":null,\"model_pipeline_tag\":null,"
                   "\"max_concurrent_requests\":512,\"max_best_of\":2,\"max_stop_sequences\":4,"
                   "\"max_input_tokens\":511,\"max_total_tokens\":512,\"validation_workers\":1,"
                   "\"max_client_batch_size\":128,\"router\":\"text-generation-router\","
                   "\"version\":\"" LLMD_VERSION "\",\"sha\":null,\"docker_label\":null}");
    set(r, "tgi_compat", "0.9.3");
    set(r, "max_input_tokens", "256");
    expect_info(r, "{\"model_id\":\"/models/m\",\"model_sha\":null,\"model_dtype\":"
                   "\"torch.float32\",\"model_device_type\":\"cpu\",\"model_pipeline_tag\":null,"
                   "\"max_concurrent_requests\":512,\"max_best_of\":2,\"max_stop_sequences\":4,"
                   "\"max_input_length\":256,\"max_total_tokens\":512,\"waiting_served_ratio\":1.2,"
                   "\"max_batch_total_tokens\":1600,\"max_waiting_tokens\":1,"
                   "\"validation_workers\":1,\"version\":\"" LLMD_VERSION
                   "\",\"sha\":null,\"docker_label\":null}");
}

/* ---- /invocations, /vertex ---- */

static void invocations_are_what_their_body_is(void **state)
{
    struct rig *r = *state;

    assert_true(rig_parse(r, &dialect_tgi_invocations, 0, "{\"inputs\":\"the\",\"prompt\":\"x\"}"));
    assert_ptr_equal(r->rq.dialect, &dialect_tgi);
    rig_tokens(r, 0, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "[{\"generated_text\":\"the dog\"}]");
    assert_true(rig_parse(r, &dialect_tgi_invocations, 0,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"));
    assert_ptr_equal(r->rq.dialect, &dialect_openai_chat);
    rig_done(r);
    assert_true(rig_parse(r, &dialect_tgi_invocations, 0, "{\"prompt\":\"the\",\"stream\":true}"));
    assert_ptr_equal(r->rq.dialect, &dialect_openai_completions);
    assert_true(r->rq.is_stream);
    rig_done(r);
    expect_refused(r, &dialect_tgi_invocations, 0, "{\"text\":\"the\"}", 422,
                   SCHEMA("data did not match any variant of untagged enum SagemakerRequest"));
    expect_refused(r, &dialect_tgi_invocations, 0, "{\"inputs\":\"\"}", 422,
                   VALIDATION("`inputs` cannot be empty"));
    set(r, "tgi_compat", "0.9.3");
    expect_refused(r, &dialect_tgi_invocations, 0, "{\"prompt\":\"the\"}", 422,
                   SCHEMA("missing field `inputs`"));
}

static void vertex_answers_each_instance(void **state)
{
    struct rig *r = *state;

    assert_true(
        rig_parse(r, &dialect_tgi_vertex, 0,
                  "{\"instances\":[{\"inputs\":\"the\",\"parameters\":{\"max_new_tokens\":2,"
                  "\"seed\":5,\"top_p\":7}},{\"messages\":[{\"role\":\"user\",\"content\":"
                  "\"Hi\"}],\"max_tokens\":1},{\"inputs\":\"the dog\"}]}"));
    assert_int_equal(r->rq.n_choices, 3);
    assert_true(r->rq.sampling.temperature == 1);
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 2);
    assert_true(r->rq.choices[0].seq.sampling.seed == 5);
    assert_int_equal(r->rq.choices[1].seq.submit.max_tokens, 1);
    assert_int_equal(r->rq.choices[2].seq.submit.max_tokens, 512 - 3);
    assert_true(r->rq.choices[1].seq.sampling.seed != r->rq.choices[2].seq.sampling.seed);
    rig_tokens(r, 2, dog_ran, 3, LLMD__FINISH__FINISH_LENGTH);
    rig_tokens(r, 0, dog_ran, 2, LLMD__FINISH__FINISH_LENGTH);
    rig_tokens(r, 1, dog_ran, 1, LLMD__FINISH__FINISH_LENGTH);
    expect_whole(r, "{\"predictions\":[\" dog ran\",\" dog\",\" dog ran.\"]}");
    expect_refused(
        r, &dialect_tgi_vertex, 0, "{\"instances\":[]}", 422,
        "{\"error\":\"Input validation error\",\"error_type\":\"Input validation error\"}");
    expect_refused(r, &dialect_tgi_vertex, 0, "{}", 422, SCHEMA("missing field `instances`"));
    expect_refused(r, &dialect_tgi_vertex, 0, "{\"instances\":5}", 422,
                   SCHEMA("instances: invalid type, expected a sequence"));
    expect_refused(r, &dialect_tgi_vertex, 0, "{\"instances\":[{\"inputs\":\"the\"},{}]}", 422,
                   SCHEMA("instances[1]: data did not match any variant of untagged enum "
                          "VertexInstance"));
    expect_refused(r, &dialect_tgi_vertex, 0, "{\"instances\":[{\"inputs\":\"\"}]}", 422,
                   VALIDATION("`inputs` cannot be empty"));
    expect_refused(
        r, &dialect_tgi_vertex, 0,
        "{\"instances\":[{\"inputs\":\"the\",\"parameters\":{\"max_new_tokens\":600}}]}", 422,
        VALIDATION("`inputs` tokens + `max_new_tokens` must be <= 512. Given: 2 `inputs` "
                   "tokens and 600 `max_new_tokens`"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(seeds_have_64_bits, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(types_are_told_in_serdes_words, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(null_and_unknown_members_are_taken, rig_set_up,
                                        rig_tear_down),
        cmocka_unit_test_setup_teardown(what_selects_sampling, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(parameters_reach_the_sampler, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(limits_are_those_of_the_settings, rig_set_up,
                                        rig_tear_down),
        cmocka_unit_test_setup_teardown(prefill_shows_the_prompts_tokens, rig_set_up,
                                        rig_tear_down),
        cmocka_unit_test_setup_teardown(best_of_shows_the_others_too, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(a_special_token_can_be_a_stop_string, rig_set_up,
                                        rig_tear_down),
        cmocka_unit_test_setup_teardown(a_stream_that_ends_without_a_token_says_so, rig_set_up,
                                        rig_tear_down),
        cmocka_unit_test_setup_teardown(errors_have_their_kind, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(answers_tell_their_times, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(old_defaults, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(old_lengths_are_not_cut, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(old_streams, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(info_has_the_versions_keys, rig_set_up, rig_tear_down),
        cmocka_unit_test_setup_teardown(invocations_are_what_their_body_is, rig_set_up,
                                        rig_tear_down),
        cmocka_unit_test_setup_teardown(vertex_answers_each_instance, rig_set_up, rig_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
