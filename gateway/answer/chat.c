/* chat.c - tools and thoughts of a request, and its answers in parts. */
#include "gateway/answer/chat.h"

#include <inttypes.h>
#include <string.h>

#include "text/tokenizer.h"

/* ---- tools ---- */

static bool check_tool(const json_t *tool, size_t i, struct fault *f)
{
    const char *type = json_string_value(json_object_get(tool, "type"));
    const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
    char param[FAULT_PARAM_BYTES];

    if (json_is_object(tool) && (!type || strcmp(type, "function") == 0) &&
        json_string_length(name) > 0)
        return true;
    snprintf(param, sizeof param, "body.tools.%zu", i);
    return fault_set(f, FAULT_SCHEMA, param,
                     "1 validation error:\n  {'loc': ('body', 'tools', %zu), 'msg': 'a tool is "
                     "{\"type\": \"function\", \"function\": {\"name\": ...}}'}",
                     i);
}

static bool check_tools(const json_t *tools, struct fault *f)
{
    if (json_array_size(tools) == 0)
        return fault_set(f, FAULT_INVALID, "tools",
                         "`tools` must not be an empty array. Either provide at least one tool or "
                         "omit the field entirely.");
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!check_tool(json_array_get(tools, i), i, f))
            return false;
    return true;
}

static bool has_tool(const json_t *tools, const char *name)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        if (strcmp(json_string_value(json_object_get(function, "name")), name) == 0)
            return true;
    }
    return false;
}

static bool needs_constraint(struct fault *f, const char *what)
{
    return fault_set(f, FAULT_UNSUPPORTED, "tool_choice",
                     "%s is not supported by this server: it needs constrained output", what);
}

static bool check_named(const json_t *tools, const json_t *choice, struct fault *f)
{
    const json_t *function = json_object_get(choice, "function");
    const char *name = json_string_value(json_object_get(function, "name"));

    if (!name)
        return fault_set(f, FAULT_INVALID, "tool_choice",
                         "Correct usage: `{\"type\": \"function\", \"function\": {\"name\": "
                         "\"my_function\"}}`");
    if (!has_tool(tools, name))
        return fault_set(f, FAULT_INVALID, "tool_choice",
                         "The tool specified in `tool_choice` does not match any of the specified "
                         "`tools`");
    return needs_constraint(f, "a named `tool_choice`");
}

static bool bad_choice(const json_t *choice, struct fault *f)
{
    char found[96];

    field_describe(choice, found, sizeof found);
    return fault_set(f, FAULT_INVALID, "tool_choice",
                     "Invalid value for `tool_choice`: %s! Only named tools, \"none\", \"auto\" or "
                     "\"required\" are supported.",
                     json_is_string(choice) ? json_string_value(choice) : found);
}

/* The model's text may hold calls. */
static bool allow_calls(struct request *rq, struct fault *f)
{
    const struct service *s = rq->service;
    const struct chat_template *t = chat_templates_pick(&s->chat, true);

    chat_extra(rq)->rules.tools = tool_format_find(s->config.tool_call_parser, t);
    return chat_extra(rq)->rules.tools ||
           fault_set(f, FAULT_INVALID, "tool_choice",
                     "\"auto\" tool choice requires --enable-auto-tool-choice and "
                     "--tool-call-parser to be set");
}

/* A token that never shows is one that no parser sees. */
static void show_mark(struct request *rq, const char *mark)
{
    int32_t id = mark ? tokenizer_token_id(rq->service->tokenizer, mark, strlen(mark)) : -1;

    if (id >= 0 && tokenizer_is_special(rq->service->tokenizer, id) &&
        rq->n_shown_tokens < REQUEST_SHOWN_TOKENS_MAX)
        rq->shown_tokens[rq->n_shown_tokens++] = id;
}

static void show_tool_marks(struct request *rq)
{
    const struct tool_format *format = chat_extra(rq)->rules.tools;

    if (!format || format->is_whole_text) /* begins with {, the mark or not */
        return;
    show_mark(rq, format->open);
    show_mark(rq, format->close);
    if (format->has_lists) {
        show_mark(rq, "[ARGS]");
        show_mark(rq, "[CALL_ID]");
    }
}

bool chat_set_tools(struct request *rq, const json_t *tools, const json_t *tool_choice,
                    struct fault *f)
{
    const char *word = json_string_value(tool_choice);

    if (tools && !check_tools(tools, f))
        return false;
    if (word && strcmp(word, "none") == 0)
        return true;
    if (!tools && tool_choice)
        return fault_set(f, FAULT_INVALID, "tool_choice",
                         "When using `tool_choice`, `tools` must be set.");
    if (json_is_object(tool_choice))
        return check_named(tools, tool_choice, f);
    if (word && strcmp(word, "required") == 0)
        return needs_constraint(f, "`tool_choice` \"required\"");
    if (tool_choice && !(word && strcmp(word, "auto") == 0))
        return bad_choice(tool_choice, f);
    if (tools && !allow_calls(rq, f))
        return false;
    show_tool_marks(rq);
    return true;
}

/* ---- thoughts ---- */

void chat_set_thoughts(struct request *rq)
{
    const struct service *s = rq->service;
    struct chat_rules *rules = &chat_extra(rq)->rules;

    rules->thoughts = reasoning_find(s->config.reasoning_parser, s->chat.plain);
    if (!rules->thoughts)
        return;
    for (uint32_t i = 0; i < rq->n_prompts; i++)
        rq->prompts[i].is_thinking =
            reasoning_is_open(rules->thoughts, rq->prompts[i].text, rq->prompts[i].text_bytes);
    show_mark(rq, rules->thoughts->open);
    show_mark(rq, rules->thoughts->close);
}

/* ---- parts ---- */

/* The rules of one choice. */
static struct chat_rules rules_of(const struct choice *c)
{
    struct chat_rules rules = chat_extra(c->rq)->rules;

    rules.is_thinking = c->prompt->is_thinking;
    return rules;
}

static void begin_texts(struct request *rq)
{
    struct chat_extra *extra = chat_extra(rq);

    extra->parts.arena = &rq->arena;
    extra->texts = arena_alloc(&rq->arena, rq->n_choices * sizeof *extra->texts);
    for (uint32_t i = 0; i < rq->n_choices; i++) {
        struct chat_rules rules = rules_of(request_choice(rq, i));
        chat_text_init(&extra->texts[i], &rules);
    }
}

const struct text_parts *chat_take(struct choice *c, uint32_t i)
{
    struct chat_extra *extra = chat_extra(c->rq);
    size_t n = i < c->n_done ? c->token_text[i].shown : c->text.n;

    if (!extra->texts)
        begin_texts(c->rq);
    extra->parts.n = 0;
    chat_text_take(&extra->texts[c->index], c->text.data ? c->text.data : "", n,
                   choice_ends_at(c, i), &extra->parts);
    return &extra->parts;
}

struct text_parts chat_split(const struct choice *c)
{
    struct chat_rules rules = rules_of(c);
    const char *text = c->text.data ? c->text.data : "";
    struct text_parts parts = { .arena = &c->rq->arena };
    struct chat_text t;

    if (c->rq->is_stream) {
        chat_text_init(&t, &rules);
        chat_text_take(&t, text, c->text.n, true, &parts);
    } else {
        chat_text_split(&rules, text, c->text.n, &parts);
    }
    return parts;
}

void chat_count(const struct request *rq, const enum stat_id had[2][2], struct stats *stats)
{
    if (!chat_extra(rq)->rules.tools)
        return;
    for (uint32_t i = 0; i < rq->n_choices; i++) {
        struct text_parts parts = chat_split(request_choice(rq, i));
        stat_add(stats, had[rq->is_stream][text_parts_calls(&parts) > 0], 1);
    }
}

/* ---- ids ---- */

/* SplitMix64 (Steele, Lea, Flood 2014) of the step `number` from the request's own random id. */
uint64_t chat_derive_id(const struct request *rq, uint64_t number)
{
    uint64_t z = rq->answer_id + (number + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void short_id(uint64_t bits, char out[CHAT_CALL_ID_BYTES])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

    for (int i = 0; i < 9; i++) {
        out[i] = letters[bits % 62];
        bits /= 62;
    }
    out[9] = '\0';
}

void chat_call_id(const struct choice *c, uint32_t call, char out[CHAT_CALL_ID_BYTES])
{
    const struct tool_format *format = chat_extra(c->rq)->rules.tools;
    uint64_t bits = chat_derive_id(c->rq, (uint64_t)c->index << 32 | call);

    if (format && format->has_short_ids)
        short_id(bits, out);
    else
        snprintf(out, CHAT_CALL_ID_BYTES, "chatcmpl-tool-%016" PRIx64, bits);
}
