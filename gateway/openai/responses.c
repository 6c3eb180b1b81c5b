/* responses.c - POST /v1/responses: OpenAI's Responses API for text and functions, nothing stored. */
#include "gateway/openai/responses.h"

#include <string.h>

#include "text/tokenizer.h"

#define RESPONSES_OWN(X)                                                                           \
    X(input, FIELD_ANY, FIELD_REQUIRED, 0, 0)                                                      \
    X(instructions, FIELD_STRING, FIELD_NULL, 0, 0)                                                \
    X(max_output_tokens, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                              \
    X(previous_response_id, FIELD_STRING, FIELD_NULL, 0, 0)                                        \
    X(conversation, FIELD_ANY, FIELD_NULL, 0, 0)                                                   \
    X(prompt, FIELD_ANY, FIELD_NULL, 0, 0)                                                         \
    X(background, FIELD_BOOL, FIELD_NULL, 0, 0)                                                    \
    X(store, FIELD_BOOL, FIELD_NULL, 0, 0)                                                         \
    X(tools, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                        \
    X(tool_choice, FIELD_ANY, FIELD_NULL, 0, 0)                                                    \
    X(parallel_tool_calls, FIELD_BOOL, FIELD_NULL, 0, 0)                                           \
    X(max_tool_calls, FIELD_INT, FIELD_NULL, 0, INT64_MAX)                                         \
    X(reasoning, FIELD_OBJECT, FIELD_NULL, 0, 0)                                                   \
    X(text, FIELD_OBJECT, FIELD_NULL, 0, 0)                                                        \
    X(truncation, FIELD_STRING, FIELD_NULL, 0, 0)                                                  \
    X(include, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                      \
    X(top_logprobs, FIELD_INT, FIELD_NULL, -1, INT32_MAX)                                          \
    X(metadata, FIELD_OBJECT, FIELD_NULL, 0, 0)                                                    \
    X(user, FIELD_STRING, FIELD_NULL, 0, 0)

struct responses_own {
    RESPONSES_OWN(FIELD_MEMBER)
};

#define FIELD_OWNER struct responses_own
static const struct field own_fields[] = { RESPONSES_OWN(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_response_fields, "", own_fields);

/* ---- what is refused ---- */

static bool check_stored(const struct responses_own *own, struct fault *f)
{
    if (own->previous_response_id.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "previous_response_id",
                         "previous_response_id is not supported by this server: responses are not "
                         "stored, send the earlier items as input");
    if (own->conversation.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "conversation",
                         "conversation is not supported by this server: responses are not stored");
    if (own->prompt.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "prompt",
                         "prompt is not supported by this server: prompts are not stored");
    if (own->background.b)
        return fault_set(f, FAULT_UNSUPPORTED, "background",
                         "background is not supported by this server: responses are not stored");
    return true;
}

static bool check_format(const struct responses_own *own, struct fault *f)
{
    const json_t *format = json_object_get(own->text.json, "format");
    const char *type = json_string_value(json_object_get(format, "type"));

    if (!format || json_is_null(format) || (type && strcmp(type, "text") == 0))
        return true;
    return fault_set(f, FAULT_UNSUPPORTED, "text.format",
                     "text.format '%.40s' is not supported by this server: it needs constrained "
                     "output",
                     type ? type : "");
}

static bool check_own(const struct request *rq, const struct responses_own *own, struct fault *f)
{
    if (own->truncation.is_set && strcmp(own->truncation.s, "disabled") != 0 &&
        strcmp(own->truncation.s, "auto") != 0)
        return fault_set(f, FAULT_INVALID, "truncation",
                         "truncation must be 'auto' or 'disabled', got '%.40s'", own->truncation.s);
    if (own->max_output_tokens.is_set && own->max_output_tokens.i < 1)
        return openai_invalid(f, "max_output_tokens", own->max_output_tokens.d,
                              "max_output_tokens must be at least 1, got %lld.",
                              (long long)own->max_output_tokens.i);
    if (rq->n > 1)
        return fault_set(f, FAULT_UNSUPPORTED, "n", "a response has one answer, not %u", rq->n);
    return check_stored(own, f) && check_format(own, f);
}

/* ---- what the answer repeats ---- */

/* NULL for what is not there. */
static const char *keep_json(struct request *rq, const json_t *v)
{
    struct buf text = { 0 };
    struct json_writer w = { .out = &text };
    const char *kept;

    if (!v || json_is_null(v))
        return NULL;
    jw_json(&w, v);
    kept = arena_strndup(&rq->arena, text.data, text.n);
    buf_fini(&text);
    return kept;
}

static void keep_members(struct request *rq, const struct responses_own *own)
{
    struct responses_extra *extra = responses_extra(rq);

    extra->instructions = keep_json(rq, own->instructions.json);
    extra->metadata = keep_json(rq, own->metadata.json);
    extra->tools = keep_json(rq, own->tools.json);
    extra->tool_choice = keep_json(rq, own->tool_choice.json);
    extra->user = keep_json(rq, own->user.json);
    extra->effort = keep_json(rq, json_object_get(own->reasoning.json, "effort"));
    extra->truncation =
        own->truncation.is_set && strcmp(own->truncation.s, "auto") == 0 ? "auto" : "disabled";
    extra->max_output_tokens = own->max_output_tokens.i;
    extra->has_one_call = own->parallel_tool_calls.is_set && !own->parallel_tool_calls.b;
}

/* ---- tools and prompt ---- */

static bool render(struct request *rq, const json_t *messages, const json_t *tools,
                   const struct responses_own *own, struct fault *f)
{
    struct openai_chat_options options = {
        .add_generation_prompt = true,
        .tools = tools,
        .reasoning_effort = json_string_value(json_object_get(own->reasoning.json, "effort")),
    };
    bool ok = request_set_prompts(rq, 1, f) &&
              openai_set_chat_prompt(rq, 0, messages, &options, TOKENIZER_PARSE_SPECIAL, f);

    if (!ok && strcmp(f->param, "messages") == 0) /* the chat's name for it */
        snprintf(f->param, sizeof f->param, "input");
    return ok;
}

static bool apply_tools(struct request *rq, const json_t *tools, const struct responses_own *own,
                        struct fault *f)
{
    json_t *choice = responses_tool_choice(own->tool_choice.json);
    bool ok;

    if (!tools && json_is_string(choice)) { /* "auto" of no tools is what SDKs send */
        json_decref(choice);
        choice = NULL;
    }
    chat_extra(rq)->rules.has_one_call = responses_extra(rq)->has_one_call;
    ok = chat_set_tools(rq, tools, choice, f);
    json_decref(choice);
    return ok;
}

static bool make_prompt(struct request *rq, const struct responses_own *own, struct fault *f)
{
    bool has_tools = json_array_size(own->tools.json) > 0;
    json_t *tools = has_tools ? responses_tools(own->tools.json, f) : NULL;
    json_t *messages = NULL;
    bool ok = !has_tools || tools;

    if (ok) {
        messages = responses_messages(own->input.json, own->instructions.s, f);
        ok = messages && apply_tools(rq, tools, own, f) && render(rq, messages, tools, own, f);
    }
    if (ok)
        chat_set_thoughts(rq);
    json_decref(messages);
    json_decref(tools);
    return ok;
}

static bool wants_logprobs(const json_t *include)
{
    for (size_t i = 0; i < json_array_size(include); i++) {
        const char *what = json_string_value(json_array_get(include, i));
        if (what && strcmp(what, "message.output_text.logprobs") == 0)
            return true;
    }
    return false;
}

static bool apply_lengths(struct request *rq, const struct openai_params *p,
                          const struct responses_own *own, struct fault *f)
{
    const struct model_default *model_max = &rq->service->model.max_new_tokens;
    struct openai_params lengths = *p;
    int64_t max = model_max->is_set ? (int64_t)model_max->value : -1;

    if (strcmp(responses_extra(rq)->truncation, "auto") == 0)
        lengths.truncate_prompt_tokens = (struct field_value){ .is_set = true, .i = -1 };
    lengths.max_tokens.is_set = false; /* a chat's name for it */
    if (own->max_output_tokens.is_set)
        max = own->max_output_tokens.i;
    return openai_apply_lengths(rq, &lengths, max, f);
}

static bool fill(struct request *rq, const struct http_request *http, const json_t *root,
                 struct openai_params *p, struct fault *f)
{
    struct responses_own own;

    if (!openai_read_own(root, own_fields, sizeof own_fields / sizeof *own_fields, &own, sizeof own,
                         f) ||
        !openai_apply(rq, http, p, f) || !check_own(rq, &own, f))
        return false;
    if (!openai_apply_logprobs(rq, p, wants_logprobs(own.include.json), own.top_logprobs.i, f))
        return false;
    keep_members(rq, &own);
    return make_prompt(rq, &own, f) && apply_lengths(rq, p, &own, f);
}

static bool responses_parse(struct request *rq, const struct http_request *http, const char *body,
                            size_t n, struct fault *f)
{
    struct responses_extra *extra = arena_alloc(&rq->arena, sizeof *extra);

    extra->chat.common = (struct openai_extra){ .id_prefix = "resp_", .object = "response" };
    extra->truncation = "disabled";
    rq->extra = extra;
    return openai_read(rq, http, body, n, fill, f);
}

static void responses_count_calls(const struct request *rq, struct stats *stats)
{
    static const enum stat_id had[2][2] = {
        { STAT_response_texts_plain, STAT_response_texts_called },
        { STAT_response_streams_plain, STAT_response_streams_called },
    };

    chat_count(rq, had, stats);
}

const struct dialect dialect_openai_responses = {
    .id = DIALECT_OPENAI_RESPONSES,
    .name = "responses",
    .takes = openai_takes,
    .parse = responses_parse,
    .whole = responses_whole,
    .begin = openai_begin,
    .token = responses_token,
    .end = responses_end,
    .count = responses_count_calls,
    .fault = openai_fault,
    .stream_fault = responses_stream_fault,
    .layer_error = openai_layer_error,
    .can_abort = true,
};
