/* chat.c - POST /v1/chat/completions, and .../batch with several conversations, as vLLM reads them. */
#include <string.h>

#include "gateway/openai/chat_dialect.h"
#include "text/tokenizer.h"

#define CHAT_OWN(X)                                                                                \
    X(messages, FIELD_ARRAY, FIELD_REQUIRED, 0, 0)                                                 \
    X(max_completion_tokens, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                          \
    X(logprobs, FIELD_BOOL, FIELD_NULL, 0, 0)                                                      \
    X(top_logprobs, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                                   \
    X(documents, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                    \
    X(tools, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                        \
    X(tool_choice, FIELD_ANY, FIELD_NULL, 0, 0)                                                    \
    X(parallel_tool_calls, FIELD_BOOL, FIELD_NULL, 0, 0)                                           \
    X(include_reasoning, FIELD_BOOL, FIELD_NULL, 0, 0)                                             \
    X(reasoning_effort, FIELD_STRING, FIELD_NULL, 0, 0)                                            \
    X(return_prompt_text, FIELD_BOOL, FIELD_NULL, 0, 0)

struct chat_own {
    CHAT_OWN(FIELD_MEMBER)
};

#define FIELD_OWNER struct chat_own
static const struct field own_fields[] = { CHAT_OWN(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_chat_fields, "", own_fields);

/* ---- parse ---- */

static bool check_documents(const json_t *documents, struct fault *f)
{
    for (size_t i = 0; i < json_array_size(documents); i++) {
        json_t *document = json_array_get(documents, i), *v;
        bool ok = json_is_object(document);
        const char *key;
        json_object_foreach (document, key, v)
            ok = ok && json_is_string(v);
        if (!ok)
            return fault_set(f, FAULT_SCHEMA, "body.documents",
                             "1 validation error:\n  {'loc': ('body', 'documents', %zu), 'msg': "
                             "'Input should be an object of strings'}",
                             i);
    }
    return true;
}

static bool check_effort(const char *effort, struct fault *f)
{
    static const char *const efforts[] = { "none", "minimal", "low", "medium",
                                           "high", "xhigh",   "max" };

    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
        if (strcmp(effort, efforts[i]) == 0)
            return true;
    return fault_set(f, FAULT_SCHEMA, "body.reasoning_effort",
                     "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', "
                     "'reasoning_effort'), 'msg': \"Input should be 'none', 'minimal', 'low', "
                     "'medium', 'high', 'xhigh' or 'max'\"}");
}

static bool check_own(const struct chat_own *own, struct fault *f)
{
    if (own->top_logprobs.is_set && own->top_logprobs.i != 0 && !own->logprobs.b)
        return fault_set(f, FAULT_INVALID, "top_logprobs",
                         "when using `top_logprobs`, `logprobs` must be set to true.");
    if (own->top_logprobs.i < -1)
        return fault_set(f, FAULT_INVALID, "top_logprobs",
                         "`top_logprobs` must be a positive value or -1.");
    return check_documents(own->documents.json, f) &&
           (!own->reasoning_effort.is_set || check_effort(own->reasoning_effort.s, f));
}

/* ---- several conversations ---- */

/* One answer to each, and nothing that is for one alone. */
static bool check_batch(const struct request *rq, const struct openai_params *p,
                        const struct chat_own *own, struct fault *f)
{
    const struct {
        const char *name;
        bool is_asked;
    } parameters[] = {
        { "stream", rq->is_stream },
        { "tools", own->tools.is_set },
        { "use_beam_search", p->use_beam_search.b },
        { "n", p->n.i > 1 },
        { "best_of", p->best_of.i > 1 },
    };

    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (parameters[i].is_asked)
            return fault_set(f, FAULT_INVALID, parameters[i].name,
                             "Batch chat completions do not support `%s`.", parameters[i].name);
    return true;
}

static bool check_conversations(const json_t *list, struct fault *f)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_array(json_array_get(list, i)))
            return fault_set(f, FAULT_SCHEMA, "body.messages",
                             "1 validation error:\n  {'type': 'list_type', 'loc': ('body', "
                             "'messages', %zu), 'msg': 'Input should be a valid list'}",
                             i);
    return json_array_size(list) > 0 ||
           fault_set(f, FAULT_INVALID, "messages", "messages must have at least 1 conversation");
}

/* ---- the prompts ---- */

static bool render(struct request *rq, const struct openai_params *p, const struct chat_own *own,
                   struct openai_chat_options *options, struct fault *f)
{
    unsigned flags =
        TOKENIZER_PARSE_SPECIAL | (p->add_special_tokens.b ? TOKENIZER_ADD_SPECIAL : 0);
    bool is_batch = rq->variant == OPENAI_CHAT_BATCH;
    size_t n = is_batch ? json_array_size(own->messages.json) : 1;

    if ((is_batch && !check_conversations(own->messages.json, f)) || !request_set_prompts(rq, n, f))
        return false;
    options->documents = own->documents.json;
    options->tools = own->tools.json;
    options->reasoning_effort = own->reasoning_effort.s;
    for (size_t i = 0; i < n; i++) {
        const json_t *messages =
            is_batch ? json_array_get(own->messages.json, i) : own->messages.json;
        if (!openai_set_chat_prompt(rq, i, messages, options, flags, f))
            return false;
    }
    return true;
}

/* What the text of the answer is searched for. */
static bool apply_rules(struct request *rq, const struct chat_own *own, struct fault *f)
{
    struct chat_extra *extra = chat_extra(rq);

    extra->shows_prompt = own->return_prompt_text.b;
    extra->rules.hides_thoughts = own->include_reasoning.is_set && !own->include_reasoning.b;
    extra->rules.has_one_call = own->parallel_tool_calls.is_set && !own->parallel_tool_calls.b;
    return chat_set_tools(rq, own->tools.json, own->tool_choice.json, f);
}

static bool apply_max_tokens(struct request *rq, const struct openai_params *p,
                             const struct chat_own *own, struct fault *f)
{
    const struct model_default *model_max = &rq->service->model.max_new_tokens;
    const struct field_value *given =
        own->max_completion_tokens.is_set ? &own->max_completion_tokens : &p->max_tokens;

    if (given->is_set && given->i <= 0)
        return openai_invalid(f, "max_tokens", given->d, "max_tokens must be at least 1, got %lld.",
                              (long long)given->i);
    return openai_apply_lengths(rq, p,
                                given->is_set       ? given->i
                                : model_max->is_set ? (int64_t)model_max->value
                                                    : -1,
                                f);
}

static bool fill(struct request *rq, const struct http_request *http, const json_t *root,
                 struct openai_params *p, struct fault *f)
{
    struct openai_chat_options options;
    struct chat_own own;

    if (!openai_read_own(root, own_fields, sizeof own_fields / sizeof *own_fields, &own, sizeof own,
                         f) ||
        !openai_read_template(rq, root, true, &options, f) || !check_own(&own, f) ||
        (rq->variant == OPENAI_CHAT_BATCH && !check_batch(rq, p, &own, f)) ||
        !openai_apply(rq, http, p, f) || !apply_rules(rq, &own, f) ||
        !openai_apply_logprobs(rq, p, own.logprobs.b, own.top_logprobs.i, f) ||
        !render(rq, p, &own, &options, f))
        return false;
    chat_set_thoughts(rq);
    return apply_max_tokens(rq, p, &own, f);
}

static bool chat_parse(struct request *rq, const struct http_request *http, const char *body,
                       size_t n, struct fault *f)
{
    struct chat_extra *extra = arena_alloc(&rq->arena, sizeof *extra);

    extra->common = (struct openai_extra){ .id_prefix = "chatcmpl-",
                                           .object = "chat.completion",
                                           .chunk_object = "chat.completion.chunk" };
    rq->extra = extra;
    return openai_read(rq, http, body, n, fill, f);
}

static void chat_count_calls(const struct request *rq, struct stats *stats)
{
    static const enum stat_id had[2][2] = {
        { STAT_chat_texts_plain, STAT_chat_texts_called },
        { STAT_chat_streams_plain, STAT_chat_streams_called },
    };

    chat_count(rq, had, stats);
}

const struct dialect dialect_openai_chat = {
    .id = DIALECT_OPENAI_CHAT,
    .name = "chat",
    .takes = openai_takes,
    .parse = chat_parse,
    .whole = chat_whole,
    .begin = openai_begin,
    .token = chat_token,
    .end = openai_end,
    .count = chat_count_calls,
    .fault = openai_fault,
    .stream_fault = openai_stream_fault,
    .layer_error = openai_layer_error,
    .can_abort = true,
};
