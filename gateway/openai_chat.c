/* openai_chat.c - POST /v1/chat/completions, as vLLM answers it. */
#include <string.h>

#include "gateway/openai.h"
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

static bool check_own(const struct chat_own *own, struct fault *f)
{
    if (own->chat_template.is_set)
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
    return true;
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

static bool fill(struct request *rq, const struct http_request *http, const json_t *root,
                 const struct openai_params *p, struct fault *f)
{
    const struct model_default *model_max = &rq->service->model.max_new_tokens;
    int64_t max_tokens = model_max->is_set ? (int64_t)model_max->value : -1;
    struct chat_own own;

    if (!openai_read_own(root, own_fields, sizeof own_fields / sizeof *own_fields, &own, sizeof own,
                         f) ||
        !check_own(&own, f) || !openai_apply(rq, http, p, f))
        return false;
    if (own.logprobs.b && !openai_apply_logprobs(rq, own.top_logprobs.i, f))
        return false;
    if (!render(rq, p, &own, f))
        return false;
    if (own.max_completion_tokens.is_set)
        max_tokens = own.max_completion_tokens.i;
    else if (p->max_tokens.is_set)
        max_tokens = p->max_tokens.i;
    if (max_tokens <= 0 && (own.max_completion_tokens.is_set || p->max_tokens.is_set))
        return openai_invalid(f, "max_tokens", (double)max_tokens,
                              "max_tokens must be at least 1, got %lld.", (long long)max_tokens);
    return openai_apply_lengths(rq, p, max_tokens, f);
}

static bool chat_parse(struct request *rq, const struct http_request *http, const char *body,
                       size_t n, struct fault *f)
{
    struct openai_extra *extra = arena_alloc(&rq->arena, sizeof *extra);
    struct openai_params p;
    json_t *root = NULL;
    bool ok;

    *extra = (struct openai_extra){ .id_prefix = "chatcmpl-",
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

static void put_message(struct json_writer *w, const struct choice *c)
{
    static const char *const empty[] = { "refusal", "annotations", "audio", "function_call",
                                         "reasoning" };
    const struct openai_extra *extra = openai_extra(c->rq);
    struct buf content = { 0 };

    if (extra->echo && extra->echo_text)
        buf_add(&content, extra->echo_text, extra->echo_bytes);
    buf_add(&content, c->text.data ? c->text.data : "", c->text.n);
    jw_key(w, "message");
    jw_object(w);
    jw_key(w, "role");
    jw_str(w, "assistant");
    jw_key(w, "content");
    jw_strn(w, content.data ? content.data : "", content.n);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        jw_key(w, empty[i]);
        jw_null(w);
    }
    jw_object_end(w);
    buf_fini(&content);
}

static void put_choice(struct json_writer *w, const struct choice *c)
{
    jw_object(w);
    jw_key(w, "index");
    jw_uint(w, c->index);
    put_message(w, c);
    put_logprobs(w, c, 0, c->n_done);
    jw_key(w, "finish_reason");
    openai_put_finish(w, c);
    jw_key(w, "stop_reason");
    openai_put_stop_reason(w, c);
    jw_key(w, "token_ids");
    if (openai_extra(c->rq)->token_ids)
        openai_put_ids(w, c->seq.tokens, c->n_done);
    else
        jw_null(w);
    jw_key(w, "routed_experts");
    jw_null(w);
    jw_object_end(w);
}

static void chat_whole(struct request *rq, struct reply *r)
{
    struct json_writer w;

    openai_whole_begin(&w, rq, r, put_choice);
    openai_put_prompt_logprobs(&w, &rq->choices[0]);
    openai_put_prompt_ids(&w, rq, &rq->prompts[0]);
    jw_key(&w, "prompt_text");
    jw_null(&w);
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

static void put_role_chunk(struct buf *out, const struct choice *c)
{
    struct json_writer w;

    delta_begin(&w, out, c);
    jw_key(&w, "role");
    jw_str(&w, "assistant");
    jw_key(&w, "content");
    jw_str(&w, "");
    jw_object_end(&w);
    jw_key(&w, "logprobs");
    jw_null(&w);
    jw_key(&w, "finish_reason");
    jw_null(&w);
    jw_object_end(&w);
    jw_array_end(&w);
    if (openai_extra(c->rq)->continuous_usage)
        openai_put_usage(&w, c->rq, true);
    openai_put_prompt_ids(&w, c->rq, &c->rq->prompts[0]);
    jw_key(&w, "prompt_text");
    jw_null(&w);
    openai_chunk_end(&w, out);
}

static void put_echo_chunk(struct buf *out, const struct choice *c)
{
    const struct openai_extra *extra = openai_extra(c->rq);
    struct json_writer w;

    delta_begin(&w, out, c);
    jw_key(&w, "content");
    jw_strn(&w, extra->echo_text, extra->echo_bytes);
    jw_object_end(&w);
    jw_key(&w, "logprobs");
    jw_null(&w);
    jw_key(&w, "finish_reason");
    jw_null(&w);
    jw_object_end(&w);
    jw_array_end(&w);
    openai_chunk_end(&w, out);
}

static void put_content_chunk(struct buf *out, const struct choice *c, uint32_t i, bool is_end)
{
    const struct openai_extra *extra = openai_extra(c->rq);
    bool is_bare = i >= c->n_done;
    struct json_writer w;
    const char *delta;
    size_t n;

    delta = choice_delta(c, i, &n);
    delta_begin(&w, out, c);
    jw_key(&w, "content");
    jw_strn(&w, delta, n);
    jw_object_end(&w);
    put_logprobs(&w, c, i, is_bare ? i : i + 1);
    jw_key(&w, "finish_reason");
    if (is_end) {
        openai_put_finish(&w, c);
        jw_key(&w, "stop_reason");
        openai_put_stop_reason(&w, c);
    } else {
        jw_null(&w);
    }
    jw_key(&w, "token_ids");
    if (extra->token_ids)
        openai_put_ids(&w, is_bare ? NULL : &c->seq.tokens[i], !is_bare);
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
    const struct openai_extra *extra = openai_extra(rq);
    bool is_end = choice_ends_at(c, i);
    size_t n;

    if (i == 0) {
        put_role_chunk(out, c);
        if (extra->echo && extra->echo_text)
            put_echo_chunk(out, c);
    }
    choice_delta(c, i, &n);
    if (n > 0 || is_end || extra->want_logprobs || extra->token_ids)
        put_content_chunk(out, c, i, is_end);
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
