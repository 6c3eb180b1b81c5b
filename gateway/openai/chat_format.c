/* chat_format.c - the answer to a chat, whole or streamed. */
#include "gateway/openai/chat_dialect.h"

static void put_logprobs(struct json_writer *w, const struct choice *c, uint32_t from, uint32_t to)
{
    jw_key(w, "logprobs");
    if (!openai_extra(c->rq)->want_logprobs || from == to) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "content");
    openai_put_token_logprobs(w, c, from, to);
    jw_object_end(w);
}

/* ---- the plain answer ---- */

/* Content, or null beside calls or thoughts that came without any. */
static void put_content(struct json_writer *w, const struct choice *c,
                        const struct text_parts *parts)
{
    struct buf content = { 0 };

    if (openai_extra(c->rq)->echo && c->prompt->last)
        buf_add(&content, c->prompt->last, c->prompt->last_bytes);
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

/* Several conversations have no place for what there is of each. */
static void put_no_prompt(struct json_writer *w)
{
    static const char *const members[] = { "prompt_logprobs", "prompt_token_ids", "prompt_text" };

    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        jw_key(w, members[i]);
        jw_null(w);
    }
}

void chat_whole(struct request *rq, struct reply *r)
{
    struct json_writer w;

    openai_whole_begin(&w, rq, r, put_choice);
    if (rq->n_prompts == 1) {
        openai_put_prompt_logprobs(&w, &rq->choices[0]);
        openai_put_prompt_ids(&w, rq, &rq->prompts[0]);
        put_prompt_text(&w, rq);
    } else {
        put_no_prompt(&w);
    }
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
    struct json_writer w;

    delta_begin(&w, out, c);
    jw_key(&w, "content");
    jw_strn(&w, c->prompt->last, c->prompt->last_bytes);
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

/* One part of what the tokens of an event, up to i, brought.  The last of them tells of the tokens themselves, and of
 * the end. */
static void put_part_chunk(struct buf *out, const struct choice *c, uint32_t i,
                           const struct text_part *part, bool is_last)
{
    const struct openai_extra *extra = openai_extra(c->rq);
    uint32_t to = i < c->n_done ? i + 1 : i, from = is_last ? openai_event_first(c, i) : to;
    bool is_end = is_last && choice_ends_at(c, i);
    struct json_writer w;

    delta_begin(&w, out, c);
    put_delta(&w, c, part);
    jw_object_end(&w);
    put_logprobs(&w, c, from, to);
    if (is_end) {
        put_finish(&w, c, chat_extra(c->rq)->texts[c->index].tools.n_calls > 0);
    } else {
        jw_key(&w, "finish_reason");
        jw_null(&w);
    }
    jw_key(&w, "token_ids");
    if (extra->token_ids)
        openai_put_ids(&w, c->seq.tokens + from, to - from);
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

void chat_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    static const struct text_part nothing = { .kind = PART_CONTENT, .s = "" };
    const struct openai_extra *extra = openai_extra(rq);
    const struct text_parts *parts;

    if (!openai_completes_event(c, i))
        return;
    parts = chat_take(c, i);
    if (i == 0) {
        put_role_chunk(out, c);
        if (extra->echo && c->prompt->last)
            put_echo_chunk(out, c);
    }
    for (size_t k = 0; k < parts->n; k++)
        put_part_chunk(out, c, i, &parts->list[k], k + 1 == parts->n);
    if (parts->n == 0 && (choice_ends_at(c, i) || extra->want_logprobs || extra->token_ids))
        put_part_chunk(out, c, i, &nothing, true);
}
