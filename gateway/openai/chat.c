/* chat.c - POST /v1/chat/completions, as vLLM answers it. */
#include <string.h>

#include "gateway/answer/chat.h"
#include "text/tokenizer.h"

#define CHAT_OWN(X)                                                                                \
    X(messages, FIELD_ARRAY, FIELD_REQUIRED, 0, 0)                                                 \
    X(max_completion_tokens, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                          \
    X(logprobs, FIELD_BOOL, FIELD_NULL, 0, 0)                                                      \
    X(top_logprobs, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                                   \
    X(add_generation_prompt, FIELD_BOOL, 0, 0, 0)                                                  \
    X(continue_final_message, FIELD_BOOL, 0, 0, 0)                                                 \
    X(documents, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                    \
    X(tools, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                        \
    X(tool_choice, FIELD_ANY, FIELD_NULL, 0, 0)                                                    \
    X(parallel_tool_calls, FIELD_BOOL, FIELD_NULL, 0, 0)                                           \
    X(include_reasoning, FIELD_BOOL, FIELD_NULL, 0, 0)                                             \
    X(reasoning_effort, FIELD_STRING, FIELD_NULL, 0, 0)                                            \
    X(chat_template, FIELD_STRING, FIELD_NULL, 0, 0)                                               \
    X(chat_template_kwargs, FIELD_OBJECT, FIELD_NULL, 0, 0)                                        \
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

static bool is_trusted(const struct request *rq)
{
    return strcmp(rq->service->config.trust_request_chat_template, "on") == 0;
}

static bool check_own(const struct request *rq, const struct chat_own *own, struct fault *f)
{
    if (own->chat_template.is_set && !is_trusted(rq))
        return fault_set(f, FAULT_INVALID, "chat_template",
                         "Chat template is passed with request, but --trust-request-chat-template "
                         "is not set. Refused request with untrusted chat template.");
    if (own->add_generation_prompt.b && own->continue_final_message.b)
        return fault_set(f, FAULT_INVALID, "continue_final_message",
                         "Cannot set both `continue_final_message` and `add_generation_prompt` to "
                         "True.");
    if (own->top_logprobs.is_set && own->top_logprobs.i != 0 && !own->logprobs.b)
        return fault_set(f, FAULT_INVALID, "top_logprobs",
                         "when using `top_logprobs`, `logprobs` must be set to true.");
    if (own->top_logprobs.is_set && own->top_logprobs.i < 0)
        return fault_set(f, own->top_logprobs.i == -1 ? FAULT_UNSUPPORTED : FAULT_INVALID,
                         "top_logprobs", "`top_logprobs` must be a positive value.");
    return check_documents(own->documents.json, f) &&
           (!own->reasoning_effort.is_set || check_effort(own->reasoning_effort.s, f));
}

static bool render(struct request *rq, const struct openai_params *p, const struct chat_own *own,
                   struct fault *f)
{
    struct openai_chat_options options = {
        .add_generation_prompt = own->add_generation_prompt.is_set ? own->add_generation_prompt.b
                                                                   : !own->continue_final_message.b,
        .continue_final_message = own->continue_final_message.b,
        .documents = own->documents.json,
        .tools = own->tools.json,
        .kwargs = own->chat_template_kwargs.json,
        .reasoning_effort = own->reasoning_effort.s,
        .chat_template = own->chat_template.s,
    };
    unsigned flags =
        TOKENIZER_PARSE_SPECIAL | (p->add_special_tokens.b ? TOKENIZER_ADD_SPECIAL : 0);
    struct openai_extra *extra = openai_extra(rq);
    struct buf text = { 0 };
    bool ok;

    ok = request_set_prompts(rq, 1, f) &&
         openai_render_chat(rq, own->messages.json, &options, &text, &extra->echo_text, f) &&
         openai_tokenize(rq, 0, text.data ? text.data : "", text.n, flags, f);
    extra->echo_bytes = extra->echo_text ? strlen(extra->echo_text) : 0;
    buf_fini(&text);
    if (ok && rq->prompts[0].n_ids == 0)
        return fault_set(f, FAULT_INVALID, "messages", "the rendered prompt is empty");
    return ok;
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
                 const struct openai_params *p, struct fault *f)
{
    struct chat_own own;

    if (!openai_read_own(root, own_fields, sizeof own_fields / sizeof *own_fields, &own, sizeof own,
                         f) ||
        !check_own(rq, &own, f) || !openai_apply(rq, http, p, f) || !apply_rules(rq, &own, f))
        return false;
    if (own.logprobs.b && !openai_apply_logprobs(rq, own.top_logprobs.i, f))
        return false;
    if (!render(rq, p, &own, f))
        return false;
    chat_set_thoughts(rq);
    return apply_max_tokens(rq, p, &own, f);
}

static bool chat_parse(struct request *rq, const struct http_request *http, const char *body,
                       size_t n, struct fault *f)
{
    struct chat_extra *extra = arena_alloc(&rq->arena, sizeof *extra);
    struct openai_params p;
    json_t *root = NULL;
    bool ok;

    extra->common = (struct openai_extra){ .id_prefix = "chatcmpl-",
                                           .object = "chat.completion",
                                           .chunk_object = "chat.completion.chunk" };
    rq->extra = extra;
    ok = openai_read(rq, body, n, &root, &p, f) && fill(rq, http, root, &p, f);
    json_decref(root);
    return ok;
}

/* ---- logprobs ---- */

static void put_token_members(struct json_writer *w, const struct request *rq, int32_t token,
                              float logprob)
{
    struct buf name = { 0 };

    openai_token_name(rq, token, &name);
    jw_key(w, "token");
    jw_strn(w, name.data ? name.data : "", name.n);
    jw_key(w, "logprob");
    jw_float(w, openai_clamp(logprob));
    jw_key(w, "bytes");
    jw_array(w);
    for (size_t i = 0; i < name.n; i++)
        jw_uint(w, (unsigned char)name.data[i]);
    jw_array_end(w);
    buf_fini(&name);
}

static void put_logprobs(struct json_writer *w, const struct choice *c, uint32_t from, uint32_t to)
{
    jw_key(w, "logprobs");
    if (!openai_extra(c->rq)->want_logprobs || from == to) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "content");
    jw_array(w);
    for (uint32_t i = from; i < to; i++) {
        const struct token_top *top = sequence_top(&c->seq, i);
        jw_object(w);
        put_token_members(w, c->rq, c->seq.tokens[i], c->seq.logprobs[i].logprob);
        jw_key(w, "top_logprobs");
        jw_array(w);
        for (uint32_t k = 0; k < c->seq.logprobs[i].n_top; k++) {
            jw_object(w);
            put_token_members(w, c->rq, top[k].token, top[k].logprob);
            jw_object_end(w);
        }
        jw_array_end(w);
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_object_end(w);
}

/* ---- the plain answer ---- */

/* Content, or null beside calls or thoughts that came without any. */
static void put_content(struct json_writer *w, const struct choice *c,
                        const struct text_parts *parts)
{
    const struct openai_extra *extra = openai_extra(c->rq);
    struct buf content = { 0 };

    if (extra->echo && extra->echo_text)
        buf_add(&content, extra->echo_text, extra->echo_bytes);
    text_parts_join(parts, PART_CONTENT, 0, &content);
    jw_key(w, "content");
    if (content.n == 0 && parts->n > 0)
        jw_null(w);
    else
        jw_strn(w, content.data ? content.data : "", content.n);
    buf_fini(&content);
}

static void put_calls(struct json_writer *w, const struct choice *c, const struct text_parts *parts)
{
    char id[CHAT_CALL_ID_BYTES];

    if (text_parts_calls(parts) == 0)
        return;
    jw_key(w, "tool_calls");
    jw_array(w);
    for (size_t i = 0; i < parts->n; i++) {
        const struct text_part *part = &parts->list[i];
        struct text_part arguments = text_parts_arguments(parts, i);
        if (part->kind != PART_CALL)
            continue;
        chat_call_id(c, part->call, id);
        jw_object(w);
        jw_key(w, "id");
        jw_str(w, id);
        jw_key(w, "type");
        jw_str(w, "function");
        jw_key(w, "function");
        jw_object(w);
        jw_key(w, "name");
        jw_strn(w, part->s, part->n);
        jw_key(w, "arguments");
        jw_strn(w, arguments.s, arguments.n);
        jw_object_end(w);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void put_reasoning(struct json_writer *w, const struct text_parts *parts)
{
    struct buf reasoning = { 0 };

    text_parts_join(parts, PART_REASONING, 0, &reasoning);
    jw_key(w, "reasoning");
    if (reasoning.n)
        jw_strn(w, reasoning.data, reasoning.n);
    else
        jw_null(w);
    buf_fini(&reasoning);
}

static void put_message(struct json_writer *w, const struct choice *c,
                        const struct text_parts *parts)
{
    static const char *const empty[] = { "refusal", "annotations", "audio", "function_call" };

    jw_key(w, "message");
    jw_object(w);
    jw_key(w, "role");
    jw_str(w, "assistant");
    put_content(w, c, parts);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        jw_key(w, empty[i]);
        jw_null(w);
    }
    put_calls(w, c, parts);
    put_reasoning(w, parts);
    jw_object_end(w);
}

/* A choice with calls ends for them, however it ended. */
static void put_finish(struct json_writer *w, const struct choice *c, bool has_calls)
{
    jw_key(w, "finish_reason");
    if (has_calls && c->end != CHOICE_ABORTED && c->end != CHOICE_FAILED)
        jw_str(w, "tool_calls");
    else
        openai_put_finish(w, c);
    jw_key(w, "stop_reason");
    openai_put_stop_reason(w, c);
}

static void put_choice(struct json_writer *w, const struct choice *c)
{
    struct text_parts parts = chat_split(c);

    jw_object(w);
    jw_key(w, "index");
    jw_uint(w, c->index);
    put_message(w, c, &parts);
    put_logprobs(w, c, 0, c->n_done);
    put_finish(w, c, text_parts_calls(&parts) > 0);
    jw_key(w, "token_ids");
    if (openai_extra(c->rq)->token_ids)
        openai_put_ids(w, c->seq.tokens, c->n_done);
    else
        jw_null(w);
    jw_key(w, "routed_experts");
    jw_null(w);
    jw_object_end(w);
}

static void put_prompt_text(struct json_writer *w, const struct request *rq)
{
    const struct prompt *p = &rq->prompts[0];

    jw_key(w, "prompt_text");
    if (chat_extra(rq)->shows_prompt)
        jw_strn(w, p->text, p->text_bytes);
    else
        jw_null(w);
}

static void chat_whole(struct request *rq, struct reply *r)
{
    struct json_writer w;

    openai_whole_begin(&w, rq, r, put_choice);
    openai_put_prompt_logprobs(&w, &rq->choices[0]);
    openai_put_prompt_ids(&w, rq, &rq->prompts[0]);
    put_prompt_text(&w, rq);
    openai_whole_end(&w);
}

/* ---- the stream ---- */

/* {"index":N,"delta":{ ... up to the delta's members. */
static void delta_begin(struct json_writer *w, struct buf *out, const struct choice *c)
{
    openai_chunk_begin(w, out, c->rq);
    jw_key(w, "choices");
    jw_array(w);
    jw_object(w);
    jw_key(w, "index");
    jw_uint(w, c->index);
    jw_key(w, "delta");
    jw_object(w);
}

/* ... from the delta's end to the choice's, where nothing is to be said of tokens. */
static void delta_end_bare(struct json_writer *w)
{
    jw_object_end(w);
    jw_key(w, "logprobs");
    jw_null(w);
    jw_key(w, "finish_reason");
    jw_null(w);
    jw_object_end(w);
    jw_array_end(w);
}

static void put_role_chunk(struct buf *out, const struct choice *c)
{
    struct json_writer w;

    delta_begin(&w, out, c);
    jw_key(&w, "role");
    jw_str(&w, "assistant");
    jw_key(&w, "content");
    jw_str(&w, "");
    delta_end_bare(&w);
    if (openai_extra(c->rq)->continuous_usage)
        openai_put_usage(&w, c->rq, true);
    openai_put_prompt_ids(&w, c->rq, &c->rq->prompts[0]);
    put_prompt_text(&w, c->rq);
    openai_chunk_end(&w, out);
}

static void put_echo_chunk(struct buf *out, const struct choice *c)
{
    const struct openai_extra *extra = openai_extra(c->rq);
    struct json_writer w;

    delta_begin(&w, out, c);
    jw_key(&w, "content");
    jw_strn(&w, extra->echo_text, extra->echo_bytes);
    delta_end_bare(&w);
    openai_chunk_end(&w, out);
}

/* A call's id and name, or a piece of its arguments. */
static void put_call_delta(struct json_writer *w, const struct choice *c,
                           const struct text_part *part)
{
    char id[CHAT_CALL_ID_BYTES];

    jw_key(w, "tool_calls");
    jw_array(w);
    jw_object(w);
    if (part->kind == PART_CALL) {
        chat_call_id(c, part->call, id);
        jw_key(w, "id");
        jw_str(w, id);
        jw_key(w, "type");
        jw_str(w, "function");
    }
    jw_key(w, "index");
    jw_uint(w, part->call);
    jw_key(w, "function");
    jw_object(w);
    jw_key(w, part->kind == PART_CALL ? "name" : "arguments");
    jw_strn(w, part->s, part->n);
    jw_object_end(w);
    jw_object_end(w);
    jw_array_end(w);
}

static void put_delta(struct json_writer *w, const struct choice *c, const struct text_part *part)
{
    if (part->kind == PART_CALL || part->kind == PART_ARGUMENTS) {
        put_call_delta(w, c, part);
        return;
    }
    jw_key(w, part->kind == PART_REASONING ? "reasoning" : "content");
    jw_strn(w, part->s, part->n);
}

/* One part of what token i brought.  The last of them tells of the token itself, and of the end. */
static void put_part_chunk(struct buf *out, const struct choice *c, uint32_t i,
                           const struct text_part *part, bool is_last)
{
    const struct openai_extra *extra = openai_extra(c->rq);
    bool has_token = is_last && i < c->n_done;
    bool is_end = is_last && choice_ends_at(c, i);
    struct json_writer w;

    delta_begin(&w, out, c);
    put_delta(&w, c, part);
    jw_object_end(&w);
    put_logprobs(&w, c, i, has_token ? i + 1 : i);
    if (is_end) {
        put_finish(&w, c, chat_extra(c->rq)->texts[c->index].tools.n_calls > 0);
    } else {
        jw_key(&w, "finish_reason");
        jw_null(&w);
    }
    jw_key(&w, "token_ids");
    if (extra->token_ids)
        openai_put_ids(&w, has_token ? &c->seq.tokens[i] : NULL, has_token);
    else
        jw_null(&w);
    jw_object_end(&w);
    jw_array_end(&w);
    if (extra->continuous_usage)
        openai_put_usage(&w, c->rq, true);
    if (is_end && !extra->include_usage) {
        jw_key(&w, "system_fingerprint");
        jw_str(&w, c->rq->service->fingerprint);
    }
    openai_chunk_end(&w, out);
}

static void chat_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    static const struct text_part nothing = { .kind = PART_CONTENT, .s = "" };
    const struct openai_extra *extra = openai_extra(rq);
    const struct text_parts *parts = chat_take(c, i);

    if (i == 0) {
        put_role_chunk(out, c);
        if (extra->echo && extra->echo_text)
            put_echo_chunk(out, c);
    }
    for (size_t k = 0; k < parts->n; k++)
        put_part_chunk(out, c, i, &parts->list[k], k + 1 == parts->n);
    if (parts->n == 0 && (choice_ends_at(c, i) || extra->want_logprobs || extra->token_ids))
        put_part_chunk(out, c, i, &nothing, true);
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
    .fault = openai_fault,
    .stream_fault = openai_stream_fault,
    .layer_error = openai_layer_error,
    .can_abort = true,
};
