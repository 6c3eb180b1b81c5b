/* test_chat.c - tools, thoughts and templates of /v1/chat/completions: what applications act upon, byte for
 * byte. */
#include "tests/unit/chat_rig.h"

#include "gateway/answer/chat.h"

static int set_up(void **state)
{
    struct rig *r = rig_new();

    rig_set(r, "tool_call_parser", "hermes");
    rig_set(r, "reasoning_parser", "qwen3");
    rig_set(r, "trust_request_chat_template", "on");
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

#define CHAT &dialect_openai_chat
#define ASK  "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define TOOLS                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"    \
    "\"object\"}}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define CALL_F "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>"
#define CALL_G "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>"
/* of the request 0xabc, as chat_derive_id() makes them: changing them breaks the takeover of running answers */
#define ID_0 "chatcmpl-tool-61d8332ec22b1a28"
#define ID_1 "chatcmpl-tool-cf345c487968b797"

static void expect_taken(struct rig *r, const char *body)
{
    if (!rig_parse(r, CHAT, 0, body))
        fail_msg("%s: %s", body, r->fault.text);
}

static void calls_are_answered_in_place_of_content(void **state)
{
    struct rig *r = *state;

    expect_taken(r, ASK TOOLS "}");
    rig_says(r, 0, CALL_F CALL_G, LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(
        r, "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,"
           "\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
           "\"tool_calls\":[{\"id\":\"" ID_0 "\",\"type\":\"function\",\"function\":{\"name\":"
           "\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"" ID_1 "\",\"type\":\"function\","
           "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}],\"reasoning\":null},"
           "\"logprobs\":null,\"finish_reason\":\"tool_calls\",\"stop_reason\":null,");
}

#define CHUNK                                                                                      \
    "data: {\"id\":\"chatcmpl-0000000000000abc\",\"object\":\"chat.completion.chunk\","            \
    "\"created\":1760000000,\"model\":\"stories-demo\",\"choices\":[{\"index\":0,\"delta\":"
#define GOES_ON ",\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n"
#define ROLE                                                                                       \
    CHUNK "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],"  \
          "\"prompt_token_ids\":null,\"prompt_text\":null}\n\n"
#define ENDS(reason)                                                                               \
    ",\"logprobs\":null,\"finish_reason\":\"" reason "\",\"stop_reason\":null,\"token_ids\":"      \
    "null}],\"system_fingerprint\":\"fp\"}\n\n|data: [DONE]\n\n"

static void calls_are_streamed_name_first(void **state)
{
    struct rig *r = *state;

    expect_taken(r, ASK TOOLS ",\"stream\":true}");
    rig_says(r, 0, "I" CALL_G, LLMD__FINISH__FINISH_LENGTH);
    expect_stream(r, ROLE CHUNK
                  "{\"content\":\"I\"}" GOES_ON "|" CHUNK "{\"tool_calls\":[{\"id\":\"" ID_0
                  "\",\"type\":\"function\",\"index\":0,"
                  "\"function\":{\"name\":\"g\"}}]}" GOES_ON CHUNK
                  "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\"}}]}" GOES_ON
                  "|" CHUNK
                  "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}" GOES_ON
                  "|" CHUNK "{\"content\":\"\"}" ENDS("tool_calls"));
}

static void only_the_first_call_where_one_is_wanted(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, ASK TOOLS ",\"parallel_tool_calls\":false}");
    rig_says(r, 0, CALL_G CALL_F, LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}],\"reasoning\":null}");
    expect_taken(r, ASK TOOLS ",\"parallel_tool_calls\":false,\"stream\":true}");
    rig_says(r, 0, CALL_G CALL_F, LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, "\"name\":\"g\""));
    assert_null(strstr(out.data, "\"name\":\"f\""));
    assert_null(strstr(out.data, "\"index\":1"));
    buf_fini(&out);
    rig_done(r);
}

/* With tools that may not be called, and without tools, a call is text. */
static void calls_nobody_asked_for_are_text(void **state)
{
    struct rig *r = *state;

    expect_taken(r, ASK TOOLS ",\"tool_choice\":\"none\"}");
    rig_says(r, 0, CALL_G, LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":\"<tool_call>{\\\"name\\\":\\\"g\\\",");
    expect_taken(r, ASK ",\"tools\":null,\"tool_choice\":null}");
    rig_says(r, 0, CALL_G, LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"finish_reason\":\"length\"");
}

static void a_call_cut_off_is_content_when_whole_and_a_call_in_a_stream(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, ASK TOOLS "}");
    rig_says(r, 0, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":\"<tool_call>{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{\\\"a"
                       "\",\"refusal\"");
    expect_taken(r, ASK TOOLS ",\"stream\":true}");
    rig_says(r, 0, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a", LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, "{\"arguments\":\"a\"}}]},\"logprobs\":null,"
                                     "\"finish_reason\":\"tool_calls\""));
    buf_fini(&out);
    rig_done(r);
}

static void an_aborted_answer_with_calls_says_abort(void **state)
{
    struct rig *r = *state;

    expect_taken(r, ASK TOOLS "}");
    rig_says(r, 0, CALL_G, LLMD__FINISH__FINISH_NONE);
    choice_abort(&r->rq.choices[0]);
    r->rq.choices[0].seq.state = SEQUENCE_ENDED;
    expect_in_whole(r, "\"finish_reason\":\"abort\"");
}

/* Choices are read apart, and their calls have ids of their own. */
static void every_choice_has_its_own_calls(void **state)
{
    struct rig *r = *state;
    char first[CHAT_CALL_ID_BYTES], second[CHAT_CALL_ID_BYTES];
    struct buf out = { 0 };

    expect_taken(r, ASK TOOLS ",\"n\":2,\"stream\":true}");
    rig_says(r, 0, CALL_G, LLMD__FINISH__FINISH_LENGTH);
    rig_says(r, 1, "plain", LLMD__FINISH__FINISH_LENGTH);
    chat_call_id(&r->rq.choices[0], 0, first);
    chat_call_id(&r->rq.choices[1], 0, second);
    assert_string_not_equal(first, second);
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, "\"index\":1,\"delta\":{\"content\":\"p\"}"));
    assert_non_null(strstr(out.data, "\"finish_reason\":\"tool_calls\""));
    assert_non_null(strstr(out.data, "\"finish_reason\":\"length\""));
    buf_fini(&out);
    rig_done(r);
}

/* Mistral's template accepts no other ids. */
static void mistral_calls_have_ids_of_nine_letters(void **state)
{
    struct rig *r = *state;
    char id[CHAT_CALL_ID_BYTES];

    rig_set(r, "tool_call_parser", "mistral");
    expect_taken(r, ASK TOOLS "}");
    chat_call_id(&r->rq.choices[0], 0, id);
    assert_int_equal(strlen(id), 9);
    assert_int_equal(strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
                     9);
    rig_says(r, 0, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}]", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}");
}

/* A mark that is a special token is text for the parser, and other special tokens are not. */
static void marks_are_seen_though_special(void **state)
{
    static const int32_t ids[] = { 1, 'a' + FIRST_BYTE_TOKEN, 0 };
    struct rig *r = *state;

    expect_taken(r, ASK "}");
    r->rq.shown_tokens[r->rq.n_shown_tokens++] = 1;
    rig_tokens(r, 0, ids, 3, LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":\"<s>a\"");
}

static void thoughts_are_answered_apart(void **state)
{
    struct rig *r = *state;

    expect_taken(r, ASK "}");
    rig_says(r, 0, "<think>hm</think>Hi", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":\"Hi\",\"refusal\":null,\"annotations\":null,\"audio\":null,"
                       "\"function_call\":null,\"reasoning\":\"hm\"}");
    expect_taken(r, ASK "}");
    rig_says(r, 0, "<think>hm", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":null,\"refusal\":null,\"annotations\":null,\"audio\":null,"
                       "\"function_call\":null,\"reasoning\":\"hm\"}");
    expect_taken(r, ASK ",\"include_reasoning\":false}");
    rig_says(r, 0, "<think>hm</think>Hi", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"function_call\":null,\"reasoning\":null}");
    expect_taken(r, ASK ",\"stream\":true}");
    rig_says(r, 0, "<think>h</think>H", LLMD__FINISH__FINISH_LENGTH);
    expect_stream(r, ROLE "|" CHUNK "{\"reasoning\":\"h\"}" GOES_ON "|" CHUNK
                          "{\"content\":\"H\"}" ENDS("length"));
}

static void a_prompt_that_opens_the_thoughts_needs_no_mark(void **state)
{
    struct rig *r = *state;

    expect_taken(r, ASK ",\"chat_template\":\"Q<think>\\n\"}");
    rig_says(r, 0, "hm</think>Hi", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":\"Hi\",\"refusal\":null,\"annotations\":null,\"audio\":null,"
                       "\"function_call\":null,\"reasoning\":\"hm\"}");
}

/* Every token has its log probability, whether its text could be shown or not. */
static void tokens_held_back_have_their_logprobs(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };
    int n = 0;

    expect_taken(r, ASK TOOLS ",\"logprobs\":true,\"top_logprobs\":1,\"stream\":true}");
    rig_says(r, 0, CALL_G, LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    for (const char *at = out.data; (at = strstr(at, "\"top_logprobs\":[{\"token\"")); at++)
        n++;
    assert_int_equal(n, strlen(CALL_G));
    buf_fini(&out);
    rig_done(r);
}

/* White space waits only where a call may follow. */
static void white_space_is_streamed_at_once(void **state)
{
    struct rig *r = *state;

    rig_set(r, "reasoning_parser", "none");
    expect_taken(r, ASK ",\"stream\":true}");
    rig_says(r, 0, "\n", LLMD__FINISH__FINISH_LENGTH);
    expect_stream(r, ROLE CHUNK "{\"content\":\"\\n\"}" ENDS("length"));
}

static void the_last_message_is_echoed(void **state)
{
    static const char members[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":"
        "\"Once\"}],\"echo\":true,\"continue_final_message\":true,\"add_generation_prompt\":false";
    struct rig *r = *state;
    char body[256];

    snprintf(body, sizeof body, "%s}", members);
    expect_taken(r, body);
    rig_says(r, 0, "!", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"content\":\"Once!\"");
    snprintf(body, sizeof body, "%s,\"stream\":true}", members);
    expect_taken(r, body);
    rig_says(r, 0, "!", LLMD__FINISH__FINISH_LENGTH);
    expect_stream(r, ROLE CHUNK
                  "{\"content\":\"Once\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n" CHUNK
                  "{\"content\":\"!\"}" ENDS("length"));
}

static void usage_is_streamed_where_wanted(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, ASK ",\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                        "\"continuous_usage_stats\":true}}");
    rig_says(r, 0, "a", LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, "\"token_ids\":null}],\"usage\":{\"prompt_tokens\":8,"
                                     "\"total_tokens\":9,\"completion_tokens\":1}}"));
    assert_non_null(strstr(out.data, "\"choices\":[],\"usage\":{\"prompt_tokens\":8,"
                                     "\"total_tokens\":9,\"completion_tokens\":1},"
                                     "\"system_fingerprint\":\"fp\"}\n\ndata: [DONE]\n\n"));
    buf_fini(&out);
    rig_done(r);
}

/* What chat has in common with completions is read by the same code; here it is seen to arrive. */
static void shared_parameters_arrive(void **state)
{
    struct rig *r = *state;
    const Llmd__Sampling *s;

    expect_taken(r,
                 ASK ",\"n\":2,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":7,\"min_p\":0.125,"
                     "\"presence_penalty\":1,\"frequency_penalty\":-1,\"repetition_penalty\":1.5,"
                     "\"seed\":5,\"stop\":\"x\",\"stop_token_ids\":[7],\"ignore_eos\":true,"
                     "\"max_tokens\":9,\"max_completion_tokens\":8,\"min_tokens\":2,"
                     "\"logit_bias\":{\"5\":1},\"include_stop_str_in_output\":true,"
                     "\"skip_special_tokens\":false,\"add_special_tokens\":true,\"priority\":3,"
                     "\"request_id\":\"mine\",\"return_token_ids\":true,\"user\":\"u\","
                     "\"return_tokens_as_token_ids\":true,\"metadata\":{},\"store\":true}");
    s = &r->rq.choices[0].seq.sampling;
    assert_int_equal(r->rq.n_choices, 2);
    assert_true(s->temperature == 0.5f && s->top_p == 0.25f && s->top_k == 7 && s->min_p == 0.125f);
    assert_true(s->presence_penalty == 1 && s->frequency_penalty == -1 &&
                s->repetition_penalty == 1.5f);
    assert_true(s->seed == 5 && s->n_logit_bias == 1);
    assert_int_equal(r->rq.choices[0].seq.submit.max_tokens, 8);
    assert_int_equal(r->rq.min_tokens, 2);
    assert_true(r->rq.stops.n == 1 && r->rq.n_stop_tokens == 1 && r->rq.ignore_eos);
    assert_true(r->rq.keeps_stop && r->rq.shows_special_tokens);
    assert_int_equal(r->rq.priority, 3);
    assert_string_equal(r->rq.custom_id, "mine");
    assert_int_equal(r->rq.prompts[0].ids[0], 1); /* the template's bos, */
    assert_int_equal(r->rq.prompts[0].ids[1], 1); /* and the tokenizer's */
    rig_done(r);
}

static void further_shared_parameters_arrive(void **state)
{
    struct rig *r = *state;
    struct choice *c;

    expect_taken(
        r,
        ASK ",\"allowed_token_ids\":[5,6],\"bad_words\":[\"dog\"],\"prompt_logprobs\":1,"
            "\"truncate_prompt_tokens\":3,\"truncation_side\":\"left\","
            "\"stream_interval\":4,\"cache_salt\":\"x\",\"session_id\":\"s\",\"best_of\":2,"
            "\"spaces_between_special_tokens\":false,\"structured_outputs\":{},"
            "\"response_format\":{\"type\":\"text\"},\"logits_processors\":[],"
            "\"mm_processor_kwargs\":{},\"media_io_kwargs\":null,\"kv_transfer_params\":{},"
            "\"ec_transfer_params\":{},\"vllm_xargs\":{\"a\":1},\"functions\":[{\"name\":\"f\"}],"
            "\"function_call\":\"auto\",\"never_heard_of\":1}");
    c = &r->rq.choices[0];
    assert_int_equal(c->seq.sampling.n_allowed_tokens, 2);
    assert_true(c->seq.sampling.n_bad_words > 0);
    assert_true(c->seq.submit.want_prompt_logprobs);
    assert_int_equal(r->rq.prompts[0].n_ids, 3);
    assert_int_equal(r->rq.n_candidates, 2);
    assert_true(c->seq.submit.cache_salt != 0);
    rig_done(r);
    expect_taken(r, ASK ",\"use_beam_search\":true,\"n\":2,\"length_penalty\":0.5,"
                        "\"early_stopping\":true,\"max_tokens\":4}");
    assert_int_equal(r->rq.beam.width, 2);
    rig_done(r);
}

/* Asked for by name and not done: refused by name, so that nobody believes that it was. */
static void what_is_not_done_is_refused_by_name(void **state)
{
    static const struct {
        const char *name, *value;
    } cases[] = {
        { "response_format", "{\"type\":\"json_object\"}" },
        { "response_format", "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"}}" },
        { "response_format", "{\"type\":\"structural_tag\"}" },
        { "structured_outputs", "{\"regex\":\"a\"}" },
        { "guided_json", "{}" },
        { "guided_regex", "\"a\"" },
        { "guided_choice", "[\"a\"]" },
        { "guided_grammar", "\"a\"" },
        { "logits_processors", "[\"a\"]" },
        { "mm_processor_kwargs", "{\"a\":1}" },
        { "media_io_kwargs", "{\"a\":1}" },
    };
    struct rig *r = *state;
    char body[256], want[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(body, sizeof body, "%s,\"%s\":%s}", ASK, cases[i].name, cases[i].value);
        snprintf(want, sizeof want, "\"type\":\"BadRequestError\",\"param\":\"%s\",\"code\":400}}",
                 cases[i].name);
        expect_fault(r, CHAT, body, 400, want);
    }
}

static void the_prompt_is_measured_where_wanted(void **state)
{
    struct rig *r = *state;
    char want[256];

    expect_taken(r, ASK ",\"prompt_logprobs\":1,\"truncate_prompt_tokens\":2}");
    rig_prompt(r, 0);
    rig_says(r, 0, "a", LLMD__FINISH__FINISH_LENGTH);
    snprintf(want, sizeof want,
             "null},\"prompt_logprobs\":[null,{\"%d\":{\"logprob\":-0.25,\"rank\":2,"
             "\"decoded_token\":\"]\"},\"101\":{\"logprob\":-0.125,\"rank\":1,\"decoded_token\":"
             "\"b\"}}],\"prompt_token_ids\":null,",
             r->rq.prompts[0].ids[1]);
    expect_in_whole(r, want);
}

static void the_prompt_is_shown_where_wanted(void **state)
{
    struct rig *r = *state;
    struct buf out = { 0 };

    expect_taken(r, ASK ",\"return_prompt_text\":true,\"return_token_ids\":true}");
    rig_says(r, 0, "a", LLMD__FINISH__FINISH_LENGTH);
    expect_in_whole(r, "\"prompt_text\":\"<s>[INST] Hi [/INST]\"");
    expect_taken(r, ASK ",\"return_prompt_text\":true,\"stream\":true}");
    rig_says(r, 0, "a", LLMD__FINISH__FINISH_LENGTH);
    rig_stream(r, &out);
    assert_non_null(strstr(out.data, "\"prompt_text\":\"<s>[INST] Hi [/INST]\""));
    buf_fini(&out);
    rig_done(r);
}

/* ---- the way in ---- */

#define TEMPLATE(text) ",\"chat_template\":\"" text "\"}"

static void messages_reach_the_template(void **state)
{
    struct rig *r = *state;

    expect_prompt(r, CHAT,
                  "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":"
                  "\"hm\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{"
                  "\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}},{\"function\":{\"name\":"
                  "\"g\",\"arguments\":\"{\\\"a\"}},{\"function\":{\"name\":\"h\"}}]}]" TEMPLATE(
                      "{% for c in messages[0].tool_calls %}{{ c.function | tojson }}"
                      "{% endfor %}{{ messages[0].reasoning }}{{ messages[0].reasoning_content "
                      "}}"),
                  "{\"name\": \"f\", \"arguments\": {\"a\": 1}}{\"name\": \"g\", \"arguments\": "
                  "\"{\\\"a\"}{\"name\": \"h\", \"arguments\": {}}hmhm");
    expect_prompt(r, CHAT,
                  "{\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"1\",\"name\":\"f\","
                  "\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":"
                  "\"b\"}]},{\"role\":\"user\",\"name\":\"Ann\",\"content\":\"c\"}]" TEMPLATE(
                      "{% for m in messages %}{{ m.role }} {{ m.name }} {{ m.tool_call_id }} {{ "
                      "m.content }};{% endfor %}"),
                  "tool f 1 a\nb;user Ann  c;");
    expect_prompt(r, CHAT,
                  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
                  "\"a\"},{\"type\":\"refusal\",\"refusal\":\"b\"},{\"type\":\"thinking\","
                  "\"thinking\":\"c\"}]}]" TEMPLATE(
                      "{% for m in messages %}{% for p in m.content %}{{ p.type }}={{ p.text }} "
                      "{% endfor %}{% endfor %}"),
                  "text=a text=b text=c ");
}

static void developers_are_the_system_where_the_template_knows_none(void **state)
{
    static const char messages[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":"
        "\"u\"},{\"role\":\"developer\",\"content\":\"b\"}]";
    struct rig *r = *state;
    char body[512];

    snprintf(body, sizeof body, "%s%s", messages,
             TEMPLATE("{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"));
    expect_prompt(r, CHAT, body, "system=a\n\nb;user=u;");
    snprintf(body, sizeof body, "%s%s", messages,
             TEMPLATE("{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
                      "{# developer #}"));
    expect_prompt(r, CHAT, body, "system=a;user=u;developer=b;");
}

static void variables_reach_the_template(void **state)
{
    struct rig *r = *state;

    expect_prompt(r, CHAT,
                  ASK TOOLS ",\"documents\":[{\"title\":\"t\",\"text\":\"x\"}],"
                            "\"chat_template_kwargs\":{\"k\":[1]},\"reasoning_effort\":\"low\","
                            "\"add_generation_prompt\":false" TEMPLATE(
                                "{{ tools[0].function.name }} {{ documents[0].title }} {{ k[0] }} "
                                "{{ reasoning_effort }} {{ enable_thinking }} {{ "
                                "add_generation_prompt }} {{ bos_token }}"),
                  "f t 1 low True False <s>");
    expect_prompt(r, CHAT, ASK ",\"reasoning_effort\":\"none\"" TEMPLATE("{{ enable_thinking }}"),
                  "False");
    expect_prompt(r, CHAT,
                  ASK ",\"reasoning_effort\":\"none\",\"chat_template_kwargs\":{"
                      "\"enable_thinking\":true}" TEMPLATE("{{ enable_thinking }}"),
                  "True");
}

static void a_final_message_of_parts_is_continued(void **state)
{
    struct rig *r = *state;

    expect_prompt(r, CHAT,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\","
                  "\"content\":[{\"type\":\"text\",\"text\":\"Once\"},{\"type\":\"text\",\"text\":"
                  "\"upon\"}]}],\"continue_final_message\":true,\"add_generation_prompt\":false}",
                  "<s>[INST] Hi [/INST] Once\nupon");
}

/* A client's template may not hold up the thread that serves everybody. */
static void costly_templates_are_refused(void **state)
{
    struct rig *r = *state;
    struct buf body = { 0 };

    expect_fault(r, CHAT,
                 ASK TEMPLATE("{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}"
                              "{% endfor %}{% endfor %}"),
                 400, "rendering takes too many steps");
    expect_fault(r, CHAT,
                 ASK TEMPLATE("{% set ns = namespace(s='x') %}{% for a in range(60) %}"
                              "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"),
                 400, "\"type\":\"BadRequestError\"");
    expect_fault(r, CHAT, ASK TEMPLATE("{% for %}"), 400, "line 1");
    expect_fault(r, CHAT, ASK TEMPLATE("{{ raise_exception('not so') }}"), 400,
                 "{\"error\":{\"message\":\"not so\",\"type\":\"BadRequestError\",");
    buf_printf(&body, "%s,\"chat_template\":\"", ASK);
    for (int i = 0; i < 70000; i++)
        buf_add_char(&body, 'x');
    buf_add_str(&body, "\"}");
    expect_fault(r, CHAT, body.data, 400, "chat_template has more than 65536 bytes");
    buf_fini(&body);
    rig_set(r, "trust_request_chat_template", "off");
    expect_fault(r, CHAT, ASK TEMPLATE("x"), 400,
                 "{\"error\":{\"message\":\"Chat template is passed with request, but "
                 "--trust-request-chat-template is not set. Refused request with untrusted chat "
                 "template.\",\"type\":\"BadRequestError\",\"param\":\"chat_template\","
                 "\"code\":400}}");
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *members, *want;
    } cases[] = {
        { ",\"tools\":[]}", "`tools` must not be an empty array. Either provide at least one tool "
                            "or omit the field entirely." },
        { ",\"tools\":[{}]}", "\"param\":\"body.tools.0\"" },
        { ",\"tools\":[{\"type\":\"web\",\"function\":{\"name\":\"f\"}}]}", "body.tools.0" },
        { ",\"tools\":[{\"function\":{\"name\":5}}]}", "body.tools.0" },
        { ",\"tools\":{}}", "body.tools" },
        { ",\"tool_choice\":\"auto\"}", "When using `tool_choice`, `tools` must be set." },
        { TOOLS ",\"tool_choice\":\"maybe\"}",
          "Invalid value for `tool_choice`: maybe! Only named tools, \\\"none\\\", \\\"auto\\\" or "
          "\\\"required\\\" are supported." },
        { TOOLS ",\"tool_choice\":7}", "Invalid value for `tool_choice`" },
        { TOOLS ",\"tool_choice\":\"required\"}",
          "`tool_choice` \\\"required\\\" is not supported by this server: it needs constrained "
          "output" },
        { TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}}",
          "a named `tool_choice` is not supported by this server: it needs constrained output" },
        { TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"z\"}}}",
          "The tool specified in `tool_choice` does not match any of the specified `tools`" },
        { TOOLS ",\"tool_choice\":{}}", "Correct usage: " },
        { ",\"parallel_tool_calls\":\"x\"}", "body.parallel_tool_calls" },
        { ",\"reasoning_effort\":\"huge\"}", "body.reasoning_effort" },
        { ",\"include_reasoning\":[]}", "body.include_reasoning" },
        { ",\"documents\":[{\"a\":1}]}", "body.documents" },
        { ",\"documents\":[\"a\"]}", "body.documents" },
        { ",\"chat_template_kwargs\":{\"tokenize\":true}}", "chat_template_kwargs" },
        { ",\"chat_template_kwargs\":[]}", "body.chat_template_kwargs" },
        { ",\"add_generation_prompt\":true,\"continue_final_message\":true}",
          "Cannot set both `continue_final_message` and `add_generation_prompt` to True." },
        { ",\"response_format\":{\"type\":\"json_object\"}}", "response_format" },
        { ",\"logprobs\":true,\"top_logprobs\":-2}", "must be a positive value or -1" },
        { ",\"logprobs\":true,\"top_logprobs\":-1}",
          "logprobs of 2048, which is greater than max allowed: 20" },
        { ",\"logprobs\":true,\"top_logprobs\":21}", "max allowed: 20" },
        { ",\"top_logprobs\":1}", "when using `top_logprobs`, `logprobs` must be set to true." },
        { ",\"max_completion_tokens\":0}", "max_tokens must be at least 1, got 0." },
        { ",\"stream_options\":{\"include_usage\":true}}",
          "Stream options can only be defined when `stream=True`." },
    };
    struct rig *r = *state;
    char body[1024];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(body, sizeof body, "%s%s", ASK, cases[i].members);
        expect_fault(r, CHAT, body, 400, cases[i].want);
    }
    rig_set(r, "tool_call_parser", "auto");
    expect_fault(r, CHAT, ASK TOOLS "}", 400,
                 "\\\"auto\\\" tool choice requires --enable-auto-tool-choice and "
                 "--tool-call-parser to be set");
}

static void nonsense_in_messages_is_refused(void **state)
{
    static const struct {
        const char *message, *want;
    } cases[] = {
        { "5", "body.messages.0" },
        { "{\"content\":\"x\"}", "body.messages.0" },
        { "{\"role\":5}", "body.messages.0" },
        { "{\"role\":\"user\",\"content\":5}", "body.messages.0" },
        { "{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}", "body.messages.0" },
        { "{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}", "body.messages.0" },
        { "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
          "\"data:\"}}]}",
          "Unsupported chat content part type: 'image_url'. Supported types: text, refusal, "
          "thinking." },
        { "{\"role\":\"assistant\",\"tool_calls\":5}", "tool_calls is a list" },
        { "{\"role\":\"assistant\",\"tool_calls\":{}}", "tool_calls is a list" },
        { "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}",
          "a tool call has a function with a name" },
        { "{\"role\":\"assistant\",\"tool_calls\":[3]}", "a tool call has a function with a name" },
    };
    struct rig *r = *state;
    char body[512];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(body, sizeof body, "{\"messages\":[%s]}", cases[i].message);
        expect_fault(r, CHAT, body, 400, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(calls_are_answered_in_place_of_content),
        TEST(calls_are_streamed_name_first),
        TEST(only_the_first_call_where_one_is_wanted),
        TEST(calls_nobody_asked_for_are_text),
        TEST(a_call_cut_off_is_content_when_whole_and_a_call_in_a_stream),
        TEST(an_aborted_answer_with_calls_says_abort),
        TEST(every_choice_has_its_own_calls),
        TEST(mistral_calls_have_ids_of_nine_letters),
        TEST(marks_are_seen_though_special),
        TEST(thoughts_are_answered_apart),
        TEST(a_prompt_that_opens_the_thoughts_needs_no_mark),
        TEST(tokens_held_back_have_their_logprobs),
        TEST(white_space_is_streamed_at_once),
        TEST(the_last_message_is_echoed),
        TEST(usage_is_streamed_where_wanted),
        TEST(shared_parameters_arrive),
        TEST(further_shared_parameters_arrive),
        TEST(what_is_not_done_is_refused_by_name),
        TEST(the_prompt_is_measured_where_wanted),
        TEST(the_prompt_is_shown_where_wanted),
        TEST(messages_reach_the_template),
        TEST(developers_are_the_system_where_the_template_knows_none),
        TEST(variables_reach_the_template),
        TEST(a_final_message_of_parts_is_continued),
        TEST(costly_templates_are_refused),
        TEST(nonsense_is_refused),
        TEST(nonsense_in_messages_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
