/* openai_messages.c - a conversation as clients send it, to the text the model wants to see.
 *
 * The template gets plain JSON: each message with its content as one text, or as a list of text parts
 * where the template loops over it.  What a text model cannot take is refused by name. */
#include <string.h>
#include <time.h>

#include "gateway/openai.h"
#include "text/chat_template.h"

enum { MESSAGES_MAX = 4096 };

static bool message_fault(struct fault *f, size_t i, const char *what)
{
    char param[FAULT_PARAM_BYTES];

    snprintf(param, sizeof param, "body.messages.%zu", i);
    return fault_set(f, FAULT_SCHEMA, param,
                     "1 validation error:\n  {'loc': ('body', 'messages', %zu), 'msg': '%s'}", i,
                     what);
}

/* The text of one part; NULL when it is none (f says why). */
static const char *part_text(const json_t *part, size_t i, struct fault *f)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const char *text = json_string_value(json_object_get(part, "text"));

    if (json_is_string(part))
        return json_string_value(part);
    if (!json_is_object(part) || !type) {
        message_fault(f, i, "a content part is a string or an object with a type");
        return NULL;
    }
    if (strcmp(type, "refusal") == 0)
        text = json_string_value(json_object_get(part, "refusal"));
    else if (strcmp(type, "text") != 0) {
        fault_set(f, FAULT_INVALID, "messages",
                  "Unsupported chat content part type: '%.40s'. Supported types: text, refusal.",
                  type);
        return NULL;
    }
    if (!text)
        message_fault(f, i, "a text part needs its text");
    return text;
}

/* Parts joined by newlines, or kept as parts.  NULL: f says why. */
static json_t *convert_parts(const json_t *parts, bool as_parts, size_t i, struct fault *f)
{
    json_t *list = json_array();
    struct buf text = { 0 };
    json_t *result = NULL;

    for (size_t k = 0; k < json_array_size(parts); k++) {
        const char *part = part_text(json_array_get(parts, k), i, f);
        if (!part)
            goto out;
        if (k > 0)
            buf_add_char(&text, '\n');
        buf_add_str(&text, part);
        json_array_append_new(list, json_pack("{s:s,s:s}", "type", "text", "text", part));
    }
    result = as_parts ? json_incref(list) : json_string(text.data ? text.data : "");
out:
    buf_fini(&text);
    json_decref(list);
    return result;
}

static json_t *convert_content(const json_t *content, bool as_parts, size_t i, struct fault *f)
{
    if (!content || json_is_null(content))
        return json_null();
    if (json_is_array(content))
        return convert_parts(content, as_parts, i, f);
    if (!json_is_string(content)) {
        message_fault(f, i, "content is a string or a list of parts");
        return NULL;
    }
    if (as_parts)
        return json_pack("[{s:s,s:O}]", "type", "text", "text", content);
    return json_incref((json_t *)(uintptr_t)content);
}

/* arguments of a call are JSON in a string; templates want the object. */
static json_t *convert_calls(const json_t *calls)
{
    json_t *copy = json_deep_copy(calls);

    for (size_t i = 0; i < json_array_size(copy); i++) {
        json_t *function = json_object_get(json_array_get(copy, i), "function");
        const json_t *arguments = json_object_get(function, "arguments");
        const char *text = json_string_value(arguments);
        json_t *parsed = text ? json_parse(text, strlen(text), NULL) : NULL;
        if (parsed)
            json_object_set_new(function, "arguments", parsed);
        else if (function && (!arguments || json_is_null(arguments) || (text && !*text)))
            json_object_set_new(function, "arguments", json_object());
    }
    return copy;
}

static json_t *convert_message(const struct chat_template *t, const json_t *m, size_t i,
                               struct fault *f)
{
    static const char *const kept[] = { "name", "tool_call_id", "reasoning", "reasoning_content" };
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *calls = json_object_get(m, "tool_calls");
    json_t *out, *content;

    if (!json_is_object(m) || !role) {
        message_fault(f, i, "a message is an object with a role");
        return NULL;
    }
    content = convert_content(json_object_get(m, "content"),
                              chat_template_wants_parts(t) && strcmp(role, "tool") != 0, i, f);
    if (!content)
        return NULL;
    if (strcmp(role, "developer") == 0 && !chat_template_mentions(t, "developer"))
        role = "system";
    out = json_pack("{s:s,s:o}", "role", role, "content", content);
    for (size_t k = 0; k < sizeof kept / sizeof *kept; k++) {
        json_t *v = json_object_get(m, kept[k]);
        if (json_is_string(v))
            json_object_set(out, k == 3 ? "reasoning" : kept[k], v);
    }
    if (json_array_size(calls) > 0)
        json_object_set_new(out, "tool_calls", convert_calls(calls));
    return out;
}

static json_t *convert_messages(const struct chat_template *t, const json_t *messages,
                                struct fault *f)
{
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = convert_message(t, json_array_get(messages, i), i, f);
        if (!m) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, m);
    }
    return list;
}

/* The template's variables.  Takes messages. */
static json_t *make_variables(const struct request *rq, json_t *messages,
                              const struct openai_chat_options *o)
{
    json_t *vars = json_deep_copy(rq->service->chat.tokens);
    const char *key;
    json_t *v;

    if (!vars)
        vars = json_object();
    json_object_set_new(vars, "messages", messages);
    json_object_set_new(vars, "add_generation_prompt", json_boolean(o->add_generation_prompt));
    json_object_set_new(vars, "continue_final_message", json_boolean(o->continue_final_message));
    if (o->documents)
        json_object_set(vars, "documents", (json_t *)(uintptr_t)o->documents);
    if (o->tools)
        json_object_set(vars, "tools", (json_t *)(uintptr_t)o->tools);
    json_object_foreach ((json_t *)(uintptr_t)o->kwargs, key, v)
        if (!json_object_get(vars, key))
            json_object_set(vars, key, v);
    return vars;
}

static bool check_kwargs(const json_t *kwargs, struct fault *f)
{
    static const char *const refused[] = { "chat_template", "tokenize", "messages" };

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (json_object_get(kwargs, refused[i]))
            return fault_set(f, FAULT_INVALID, "chat_template_kwargs",
                             "chat_template_kwargs may not contain '%s'", refused[i]);
    return true;
}

static size_t trim(const char **s, size_t n)
{
    static const char space[] = " \t\r\n";

    while (n > 0 && strchr(space, **s)) {
        (*s)++;
        n--;
    }
    while (n > 0 && strchr(space, (*s)[n - 1]))
        n--;
    return n;
}

/* Cut the text behind the last place where the final message stands. */
static bool cut_after(struct buf *text, const char *final, struct fault *f)
{
    size_t n = trim(&final, strlen(final));

    for (size_t at = text->n >= n ? text->n - n + 1 : 0; n > 0 && at-- > 0;) {
        if (memcmp(text->data + at, final, n) == 0) {
            text->n = at + n;
            return true;
        }
    }
    return fault_set(f, FAULT_INVALID, "continue_final_message",
                     "continue_final_message is set but the final message does not appear in the "
                     "chat after applying the chat template");
}

bool openai_render_chat(struct request *rq, const json_t *messages,
                        const struct openai_chat_options *options, struct buf *text,
                        const char **last, struct fault *f)
{
    const struct chat_template *t = chat_templates_pick(&rq->service->chat, options->tools);
    size_t n = json_array_size(messages);
    const json_t *final = n ? json_array_get(messages, n - 1) : NULL;
    const char *content = json_string_value(json_object_get(final, "content"));
    const char *role = json_string_value(json_object_get(final, "role"));
    json_t *converted, *vars;
    time_t now = (time_t)rq->created_s; /* the same when the prompt is rendered again */
    struct tm tm;
    struct err e;
    bool ok;

    if (n == 0 || n > MESSAGES_MAX)
        return fault_set(f, FAULT_INVALID, "messages",
                         "messages must have 1 to %d entries, got %zu", MESSAGES_MAX, n);
    if (!t)
        return fault_set(f, FAULT_TEMPLATE, "", "%s",
                         "As of transformers v4.44, default chat template is no longer allowed, so "
                         "you must provide a chat template if the tokenizer does not define one.");
    if (options->kwargs && !check_kwargs(options->kwargs, f))
        return false;
    converted = convert_messages(t, messages, f);
    if (!converted)
        return false;
    vars = make_variables(rq, converted, options);
    localtime_r(&now, &tm);
    ok = chat_template_render(t, vars, &tm, text, &e) ||
         fault_set(f, FAULT_TEMPLATE, "", "%s", e.msg);
    json_decref(vars);
    *last = content && role && strcmp(role, "assistant") == 0 ? arena_strdup(&rq->arena, content)
                                                              : NULL;
    if (ok && options->continue_final_message)
        ok = cut_after(text, content ? content : "", f);
    return ok;
}
