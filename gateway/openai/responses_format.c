/* responses_format.c - answers of /v1/responses: the response object, and the events of a stream.
 *
 * Events of one item, each with its sequence number:
 *
 *   message         output_item.added, content_part.added, output_text.delta ..., output_text.done,
 *                   content_part.done, output_item.done
 *   reasoning       the same with reasoning_text
 *   function_call   output_item.added, function_call_arguments.delta ..., function_call_arguments.done,
 *                   output_item.done
 *
 * before them response.created and response.in_progress, behind them response.completed or .incomplete with
 * the whole response.  Log probabilities are in the deltas and in that.  An event of token i is a function of
 * the tokens up to i: what has come beyond it must not be looked at. */
#include <inttypes.h>
#include <string.h>

#include "gateway/openai/responses.h"

enum { ITEM_ID_BYTES = 32 };

/* ---- ids ---- */

static void item_id(const struct request *rq, const struct response_item *item,
                    char out[ITEM_ID_BYTES])
{
    static const char *const prefixes[] = {
        [PART_CONTENT] = "msg", [PART_REASONING] = "rs", [PART_CALL] = "fc"
    };

    snprintf(out, ITEM_ID_BYTES, "%s_%016" PRIx64, prefixes[item->kind],
             chat_derive_id(rq, 1ull << 63 | item->index));
}

static void call_id(const struct request *rq, uint32_t call, char out[CHAT_CALL_ID_BYTES])
{
    const struct tool_format *format = chat_extra(rq)->rules.tools;

    if (format && format->has_short_ids)
        chat_call_id(request_choice(rq, 0), call, out);
    else
        snprintf(out, CHAT_CALL_ID_BYTES, "call_%016" PRIx64, chat_derive_id(rq, call));
}

/* ---- small values ---- */

static void put_raw(struct json_writer *w, const char *key, const char *json, const char *otherwise)
{
    jw_key(w, key);
    buf_add_str(w->out, json ? json : otherwise);
    w->need_comma = true;
}

static void put_text(struct json_writer *w, const char *key, const char *s, size_t n)
{
    jw_key(w, key);
    jw_strn(w, s ? s : "", n);
}

static void put_word(struct json_writer *w, const char *key, const char *word)
{
    jw_key(w, key);
    jw_str(w, word);
}

/* ---- log probabilities ---- */

/* Of tokens [from, to). */
static void put_logprobs(struct json_writer *w, const struct choice *c, uint32_t from, uint32_t to)
{
    jw_key(w, "logprobs");
    openai_put_token_logprobs(w, c, from, openai_extra(c->rq)->want_logprobs ? to : from);
}

/* Tokens of which all text is thought; the answer begins behind them. */
static uint32_t thought_tokens(const struct choice *c)
{
    const struct chat_rules *rules = &chat_extra(c->rq)->rules;
    struct text_parts ignored = { .arena = &c->rq->arena };
    struct reasoning r;
    uint32_t n = 0;
    bool is_over;

    if (!rules->thoughts)
        return 0;
    reasoning_init(&r, rules->thoughts, c->prompt->is_thinking);
    is_over = reasoning_take(&r, c->text.data ? c->text.data : "", c->text.n, true, &ignored);
    while (n < c->n_done && (!is_over || c->token_text[n].end <= r.at) && r.at > 0)
        n++;
    return n;
}

/* ---- items ---- */

/* A part of the content: {"type":"output_text", ...} */
static void put_part(struct json_writer *w, const struct choice *c,
                     const struct response_item *item, bool is_begun)
{
    jw_object(w);
    put_word(w, "type", item->kind == PART_REASONING ? "reasoning_text" : "output_text");
    put_text(w, "text", item->s, is_begun ? 0 : item->n);
    if (item->kind == PART_CONTENT) {
        jw_key(w, "annotations");
        jw_array(w);
        jw_array_end(w);
        put_logprobs(w, c, item->token_from, item->token_to);
    }
    jw_object_end(w);
}

static void put_content(struct json_writer *w, const struct choice *c,
                        const struct response_item *item, bool is_begun)
{
    jw_key(w, "content");
    jw_array(w);
    if (!is_begun)
        put_part(w, c, item, false);
    jw_array_end(w);
}

static void put_call(struct json_writer *w, const struct request *rq,
                     const struct response_item *item, bool is_begun)
{
    char id[CHAT_CALL_ID_BYTES];

    call_id(rq, item->call, id);
    put_word(w, "call_id", id);
    put_text(w, "name", item->name, item->name_bytes);
    put_text(w, "arguments", item->s, is_begun ? 0 : item->n);
}

static void put_item(struct json_writer *w, const struct choice *c,
                     const struct response_item *item, const char *status)
{
    static const char *const types[] = {
        [PART_CONTENT] = "message", [PART_REASONING] = "reasoning", [PART_CALL] = "function_call"
    };
    bool is_begun = strcmp(status, "in_progress") == 0;
    char id[ITEM_ID_BYTES];

    item_id(c->rq, item, id);
    jw_object(w);
    put_word(w, "id", id);
    put_word(w, "type", types[item->kind]);
    put_word(w, "status", status);
    if (item->kind == PART_CALL) {
        put_call(w, c->rq, item, is_begun);
    } else if (item->kind == PART_REASONING) {
        jw_key(w, "summary");
        jw_array(w);
        jw_array_end(w);
        put_content(w, c, item, is_begun);
    } else {
        put_word(w, "role", "assistant");
        put_content(w, c, item, is_begun);
    }
    jw_object_end(w);
}

static bool is_cut(const struct choice *c)
{
    return c->end == CHOICE_LENGTH || c->end == CHOICE_ABORTED || c->end == CHOICE_FAILED;
}

/* The item that begins at part i. */
static struct response_item item_at(const struct text_parts *parts, size_t i, uint32_t index)
{
    const struct text_part *part = &parts->list[i];
    struct text_part arguments = text_parts_arguments(parts, i);

    if (part->kind == PART_CALL)
        return (struct response_item){ .kind = PART_CALL,
                                       .index = index,
                                       .call = part->call,
                                       .name = part->s,
                                       .name_bytes = part->n,
                                       .s = arguments.s,
                                       .n = arguments.n };
    return (struct response_item){ .kind = part->kind, .index = index, .s = part->s, .n = part->n };
}

static uint32_t count_items(const struct text_parts *parts)
{
    uint32_t n = 0;

    for (size_t i = 0; i < parts->n; i++)
        n += parts->list[i].kind != PART_ARGUMENTS;
    return n;
}

/* All that the choice has; an answer without any text is one message without text.  The first message lists the
 * log probabilities of all tokens behind the thoughts. */
static void put_output(struct json_writer *w, const struct choice *c)
{
    static const struct response_item empty = { .kind = PART_CONTENT };
    const char *last = is_cut(c) ? "incomplete" : "completed";
    struct text_parts parts = chat_split(c);
    uint32_t index = 0, n = count_items(&parts);
    bool has_message = false;

    for (size_t i = 0; i < parts.n; i++) {
        struct response_item item;
        if (parts.list[i].kind == PART_ARGUMENTS)
            continue;
        item = item_at(&parts, i, index++);
        if (item.kind == PART_CONTENT && !has_message) {
            has_message = true;
            item.token_from = thought_tokens(c);
            item.token_to = c->n_done;
        }
        put_item(w, c, &item, index == n ? last : "completed");
    }
    if (n == 0)
        put_item(w, c, &empty, last);
}

/* ---- the response ---- */

static const char *status_of(const struct choice *c)
{
    return c->end == CHOICE_FAILED ? "failed" : is_cut(c) ? "incomplete" : "completed";
}

static void put_detail(struct json_writer *w, const char *key, const char *detail, uint64_t n)
{
    jw_key(w, key);
    jw_object(w);
    jw_key(w, detail);
    jw_uint(w, n);
    jw_object_end(w);
}

static void put_usage(struct json_writer *w, const struct choice *c)
{
    uint64_t n_prompt = request_prompt_tokens(c->rq);

    jw_key(w, "usage");
    jw_object(w);
    jw_key(w, "input_tokens");
    jw_uint(w, n_prompt);
    put_detail(w, "input_tokens_details", "cached_tokens",
               openai_tells_cached(c->rq) ? c->rq->cached_tokens : 0);
    jw_key(w, "output_tokens");
    jw_uint(w, c->n_done);
    put_detail(w, "output_tokens_details", "reasoning_tokens", thought_tokens(c));
    jw_key(w, "total_tokens");
    jw_uint(w, n_prompt + c->n_done);
    jw_object_end(w);
}

static void put_end(struct json_writer *w, const struct choice *c, const struct fault *f)
{
    jw_key(w, "error");
    if (f) {
        jw_object(w);
        put_word(w, "code", "server_error");
        put_word(w, "message", f->text);
        jw_object_end(w);
    } else {
        jw_null(w);
    }
    jw_key(w, "incomplete_details");
    if (c && !f && is_cut(c)) {
        jw_object(w);
        put_word(w, "reason", c->end == CHOICE_LENGTH ? "max_output_tokens" : "abort");
        jw_object_end(w);
    } else {
        jw_null(w);
    }
}

/* What the request said, or what was taken for it. */
static void put_asked(struct json_writer *w, const struct request *rq)
{
    const struct responses_extra *extra = responses_extra(rq);
    bool is_greedy = rq->sampling.temperature == 0;

    jw_key(w, "parallel_tool_calls");
    jw_bool(w, !extra->has_one_call);
    put_raw(w, "previous_response_id", NULL, "null");
    jw_key(w, "reasoning");
    jw_object(w);
    put_raw(w, "effort", extra->effort, "null");
    put_raw(w, "summary", NULL, "null");
    jw_object_end(w);
    put_raw(w, "service_tier", NULL, "null");
    put_raw(w, "store", NULL, "false");
    jw_key(w, "temperature");
    jw_float(w, rq->sampling.temperature);
    put_raw(w, "text", NULL, "{\"format\":{\"type\":\"text\"}}");
    put_raw(w, "tool_choice", extra->tool_choice, "\"auto\"");
    put_raw(w, "tools", extra->tools, "[]");
    jw_key(w, "top_logprobs");
    jw_uint(w, openai_extra(rq)->top_logprobs);
    jw_key(w, "top_p");
    jw_float(w, is_greedy ? 1 : rq->sampling.top_p);
    put_word(w, "truncation", extra->truncation);
}

/* c NULL: it has only begun; f: it failed. */
static void put_response(struct json_writer *w, const struct request *rq, const struct choice *c,
                         const struct fault *f)
{
    const struct responses_extra *extra = responses_extra(rq);

    jw_object(w);
    openai_put_id(w, rq, "id");
    put_word(w, "object", "response");
    jw_key(w, "created_at");
    jw_int(w, rq->created_s);
    put_word(w, "status", f ? "failed" : c ? status_of(c) : "in_progress");
    put_raw(w, "background", NULL, "false");
    put_end(w, c, f);
    put_raw(w, "instructions", extra->instructions, "null");
    jw_key(w, "max_output_tokens");
    if (extra->max_output_tokens > 0)
        jw_int(w, extra->max_output_tokens);
    else
        jw_null(w);
    put_word(w, "model", rq->service->model_name);
    jw_key(w, "output");
    jw_array(w);
    if (c && !f)
        put_output(w, c);
    jw_array_end(w);
    put_asked(w, rq);
    if (c && !f)
        put_usage(w, c);
    else
        put_raw(w, "usage", NULL, "null");
    put_raw(w, "user", extra->user, "null");
    put_raw(w, "metadata", extra->metadata, "{}");
    jw_object_end(w);
}

void responses_whole(struct request *rq, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    reply_set(r, 200, REPLY_JSON);
    put_response(&w, rq, request_choice(rq, 0), NULL);
}

/* ---- events ---- */

/* event: ..., data: {"type":...,"sequence_number":N up to the event's members. */
static void event_begin(struct json_writer *w, struct buf *out, struct request *rq,
                        const char *type)
{
    *w = (struct json_writer){ .out = out };
    buf_printf(out, "event: %s\ndata: ", type);
    jw_object(w);
    put_word(w, "type", type);
    jw_key(w, "sequence_number");
    jw_uint(w, responses_extra(rq)->n_events++);
}

static void event_end(struct json_writer *w)
{
    jw_object_end(w);
    buf_add_str(w->out, "\n\n");
}

static void put_response_event(struct buf *out, struct request *rq, const char *type,
                               const struct choice *c, const struct fault *f)
{
    struct json_writer w;

    event_begin(&w, out, rq, type);
    jw_key(&w, "response");
    put_response(&w, rq, c, f);
    event_end(&w);
}

static void put_item_event(struct buf *out, struct choice *c, const char *type,
                           const struct response_item *item, const char *status)
{
    struct json_writer w;

    event_begin(&w, out, c->rq, type);
    jw_key(&w, "output_index");
    jw_uint(&w, item->index);
    jw_key(&w, "item");
    put_item(&w, c, item, status);
    event_end(&w);
}

/* Up to where in the output it belongs. */
static void place_begin(struct json_writer *w, struct buf *out, struct choice *c,
                        const struct response_item *item, const char *type)
{
    char id[ITEM_ID_BYTES];

    event_begin(w, out, c->rq, type);
    item_id(c->rq, item, id);
    put_word(w, "item_id", id);
    jw_key(w, "output_index");
    jw_uint(w, item->index);
    if (item->kind == PART_CALL)
        return;
    jw_key(w, "content_index");
    jw_uint(w, 0);
}

static void put_part_event(struct buf *out, struct choice *c, const char *type,
                           const struct response_item *item, bool is_begun)
{
    struct json_writer w;

    place_begin(&w, out, c, item, type);
    jw_key(&w, "part");
    put_part(&w, c, item, is_begun);
    event_end(&w);
}

static const char *const delta_events[] = {
    [PART_CONTENT] = "response.output_text.delta",
    [PART_REASONING] = "response.reasoning_text.delta",
    [PART_CALL] = "response.function_call_arguments.delta",
};
static const char *const done_events[] = {
    [PART_CONTENT] = "response.output_text.done",
    [PART_REASONING] = "response.reasoning_text.done",
    [PART_CALL] = "response.function_call_arguments.done",
};

/* ---- the item that goes on ---- */

static void open_item(struct buf *out, struct choice *c, const struct text_part *part)
{
    struct responses_extra *extra = responses_extra(c->rq);
    struct response_item *item = &extra->item;

    *item = (struct response_item){ .kind = part->kind, .index = extra->n_items++ };
    if (part->kind == PART_CALL) {
        item->call = part->call;
        item->name = part->s;
        item->name_bytes = part->n;
    }
    extra->is_open = true;
    put_item_event(out, c, "response.output_item.added", item, "in_progress");
    if (part->kind != PART_CALL)
        put_part_event(out, c, "response.content_part.added", item, true);
}

static void put_done_event(struct buf *out, struct choice *c, const struct response_item *item)
{
    struct json_writer w;

    place_begin(&w, out, c, item, done_events[item->kind]);
    if (item->kind == PART_CALL)
        put_text(&w, "name", item->name, item->name_bytes);
    put_text(&w, item->kind == PART_CALL ? "arguments" : "text", item->s, item->n);
    if (item->kind == PART_CONTENT)
        put_logprobs(&w, c, 0, 0);
    event_end(&w);
}

static void close_item(struct buf *out, struct choice *c, const char *status)
{
    struct responses_extra *extra = responses_extra(c->rq);
    struct response_item item = extra->item;

    if (!extra->is_open)
        return;
    if (!item.s)
        item.s = c->text.data ? c->text.data + extra->from : "";
    put_done_event(out, c, &item);
    if (item.kind != PART_CALL)
        put_part_event(out, c, "response.content_part.done", &item, false);
    put_item_event(out, c, "response.output_item.done", &item, status);
    extra->is_open = false;
}

/* The text may move when it grows: where a slice lies in it counts. */
static bool lies_in_text(const struct choice *c, const char *s)
{
    return c->text.data && s >= c->text.data && s < c->text.data + c->text.n;
}

static bool goes_on(const struct choice *c, const struct text_part *part)
{
    const struct responses_extra *extra = responses_extra(c->rq);

    if (!extra->is_open || extra->item.kind != part->kind)
        return false;
    return lies_in_text(c, part->s) &&
           (size_t)(part->s - c->text.data) == extra->from + extra->item.n;
}

static void lengthen_item(struct choice *c, const struct text_part *part)
{
    struct responses_extra *extra = responses_extra(c->rq);

    if (extra->item.n == 0 && lies_in_text(c, part->s))
        extra->from = (size_t)(part->s - c->text.data);
    else if (extra->item.n == 0)
        extra->item.s = part->s;
    extra->item.n += part->n;
}

/* A part of what the tokens of an event, up to i, brought. */
static void put_delta(struct buf *out, struct choice *c, uint32_t i, const struct text_part *part)
{
    const struct response_item *item = &responses_extra(c->rq)->item;
    struct json_writer w;

    place_begin(&w, out, c, item, delta_events[item->kind]);
    put_text(&w, "delta", part->s, part->n);
    if (item->kind == PART_CONTENT)
        put_logprobs(&w, c, openai_event_first(c, i), i < c->n_done ? i + 1 : i);
    event_end(&w);
}

static void put_text_part(struct buf *out, struct choice *c, uint32_t i,
                          const struct text_part *part)
{
    if (part->kind == PART_CALL || (part->kind != PART_ARGUMENTS && !goes_on(c, part))) {
        close_item(out, c, "completed");
        open_item(out, c, part);
    }
    if (part->kind == PART_CALL)
        return;
    lengthen_item(c, part);
    put_delta(out, c, i, part);
}

void responses_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    static const struct text_part nothing = { .kind = PART_CONTENT, .s = "" };
    const struct text_parts *parts;

    if (!openai_completes_event(c, i))
        return;
    parts = chat_take(c, i);
    if (i == 0) {
        put_response_event(out, rq, "response.created", NULL, NULL);
        put_response_event(out, rq, "response.in_progress", NULL, NULL);
    }
    for (size_t k = 0; k < parts->n; k++)
        put_text_part(out, c, i, &parts->list[k]);
    if (!choice_ends_at(c, i))
        return;
    if (responses_extra(rq)->n_items == 0)
        open_item(out, c, &nothing);
    close_item(out, c, is_cut(c) ? "incomplete" : "completed");
}

void responses_end(struct request *rq, struct buf *out)
{
    const struct choice *c = request_choice(rq, 0);

    put_response_event(out, rq, is_cut(c) ? "response.incomplete" : "response.completed", c, NULL);
}

void responses_stream_fault(struct request *rq, const struct fault *f, struct buf *out)
{
    struct json_writer w;

    put_response_event(out, rq, "response.failed", NULL, f);
    event_begin(&w, out, rq, "error");
    put_word(&w, "code", "server_error");
    put_word(&w, "message", f->text);
    put_raw(&w, "param", NULL, "null");
    event_end(&w);
}
