/* messages.c - a conversation as clients send it, to the text the model wants to see.
 *
 * The template gets plain JSON: each message with its content as one text, or as a list of text parts
 * where the template loops over it.  What a text model cannot take is refused by name. */
#include <string.h>
#include <time.h>

#include "gateway/openai/openai.h"
#include "text/chat_template.h"

enum { MESSAGES_MAX = 4096, CLIENT_TEMPLATE_BYTES_MAX = 64 << 10 };

/* Of a template that a client brings: at most some 100 ms of the thread that serves others too. */
static const struct chat_cost client_cost = { .steps_max = 1000000, .memory_bytes_max = 32u << 20 };

static bool message_fault(struct fault *f, size_t i, const char *what)
{
    char param[FAULT_PARAM_BYTES];

    snprintf(param, sizeof param, "body.messages.%zu", i);
    return fault_set(f, FAULT_SCHEMA, param,
                     "1 validation error:\n  {'loc': ('body', 'messages', %zu), 'msg': '%s'}", i,
                     what);
}

/* Parts whose text a text model can read, and the member that holds it. */
static const struct {
    const char *type, *member;
} part_types[] = {
    { "text", "text" },
    { "refusal", "refusal" },
    { "thinking", "thinking" },
};

static const char *member_of(const char *type)
{
    for (size_t i = 0; i < sizeof part_types / sizeof *part_types; i++)
        if (strcmp(type, part_types[i].type) == 0)
            return part_types[i].member;
    return NULL;
}

/* The text of one part; NULL when it is none (f says why). */
static const char *part_text(const json_t *part, size_t i, struct fault *f)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const char *member = type ? member_of(type) : NULL;
    const char *text = member ? json_string_value(json_object_get(part, member)) : NULL;

    if (json_is_string(part))
        return json_string_value(part);
    if (!json_is_object(part) || !type)
        message_fault(f, i, "a content part is a string or an object with a type");
    else if (!member)
        fault_set(f, FAULT_INVALID, "messages",
                  "Unsupported chat content part type: '%.40s'. Supported types: text, refusal, "
                  "thinking.",
                  type);
    else if (!text)
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

/* arguments of a call are JSON in a string; templates want the object.  What is no JSON, for the model did not
 * finish it, stays a string. */
static void parse_arguments(json_t *function)
{
    const json_t *arguments = json_object_get(function, "arguments");
    const char *text = json_string_value(arguments);
    json_t *parsed = text ? json_parse(text, strlen(text), NULL) : NULL;

    if (!parsed && (!arguments || json_is_null(arguments) || (text && !*text)))
        parsed = json_object();
    if (parsed)
        json_object_set_new(function, "arguments", parsed);
}

/* NULL: f says why. */
static json_t *convert_calls(const json_t *calls, size_t i, struct fault *f)
{
    json_t *copy = json_deep_copy(calls);

    for (size_t k = 0; k < json_array_size(copy); k++) {
        json_t *function = json_object_get(json_array_get(copy, k), "function");
        if (!json_is_string(json_object_get(function, "name"))) {
            message_fault(f, i, "a tool call has a function with a name");
            json_decref(copy);
            return NULL;
        }
        parse_arguments(function);
    }
    return copy;
}

/* Add the calls of an assistant to its message. */
static bool add_calls(json_t *out, const json_t *calls, size_t i, struct fault *f)
{
    json_t *converted;

    if (!calls || json_is_null(calls) || (json_is_array(calls) && json_array_size(calls) == 0))
        return true;
    if (!json_is_array(calls))
        return message_fault(f, i, "tool_calls is a list");
    converted = convert_calls(calls, i, f);
    return converted && json_object_set_new(out, "tool_calls", converted) == 0;
}

/* Members that templates read by name.  Thoughts have two names, and templates know one or the other. */
static void add_members(json_t *out, const json_t *m)
{
    static const char *const kept[] = { "name", "tool_call_id" };
    json_t *thoughts = json_object_get(m, "reasoning");

    for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
        if (json_is_string(json_object_get(m, kept[k])))
            json_object_set(out, kept[k], json_object_get(m, kept[k]));
    if (!json_is_string(thoughts))
        thoughts = json_object_get(m, "reasoning_content");
    if (!json_is_string(thoughts))
        return;
    json_object_set(out, "reasoning", thoughts);
    json_object_set(out, "reasoning_content", thoughts);
}

static json_t *convert_message(const struct chat_template *t, const json_t *m, size_t i,
                               struct fault *f)
{
    const char *role = json_string_value(json_object_get(m, "role"));
    json_t *out, *content;

    if (!json_is_object(m) || !role) {
        message_fault(f, i, "a message is an object with a role");
        return NULL;
    }
    content = convert_content(json_object_get(m, "content"),
                              chat_template_wants_parts(t) && strcmp(role, "tool") != 0, i, f);
    if (!content)
        return NULL;
    out = json_pack("{s:s,s:o}", "role", role, "content", content);
    add_members(out, m);
    if (!add_calls(out, json_object_get(m, "tool_calls"), i, f)) {
        json_decref(out);
        return NULL;
    }
    return out;
}

/* NULL: f says why. */
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

static bool has_role(const json_t *m, const char *role)
{
    return strcmp(json_string_value(json_object_get(m, "role")), role) == 0;
}

/* The text of a converted content. */
static void add_text_of(const json_t *content, struct buf *out)
{
    if (json_is_string(content))
        buf_add(out, json_string_value(content), json_string_length(content));
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        buf_add_str(out, i > 0 ? "\n" : "");
        buf_add(out, json_string_value(text), json_string_length(text));
    }
}

/* Take the instructions out of the list, and put all their text in front of it, as one system message. */
static void merge_instructions(json_t *list, bool as_parts)
{
    struct buf text = { 0 };
    json_t *content, *string;

    for (size_t i = 0; i < json_array_size(list);) {
        const json_t *m = json_array_get(list, i);
        if (!has_role(m, "developer") && !has_role(m, "system")) {
            i++;
            continue;
        }
        buf_add_str(&text, text.n > 0 ? "\n\n" : "");
        add_text_of(json_object_get(m, "content"), &text);
        json_array_remove(list, i);
    }
    string = json_stringn(text.data ? text.data : "", text.n);
    content = as_parts ? json_pack("[{s:s,s:o}]", "type", "text", "text", string) : string;
    json_array_insert_new(list, 0, json_pack("{s:s,s:o}", "role", "system", "content", content));
    buf_fini(&text);
}

/* Templates that do not know developers take them for the system. */
static void replace_developers(const struct chat_template *t, json_t *list)
{
    bool has_developer = false;

    for (size_t i = 0; i < json_array_size(list); i++)
        has_developer |= has_role(json_array_get(list, i), "developer");
    if (has_developer && !chat_template_mentions(t, "developer"))
        merge_instructions(list, chat_template_wants_parts(t));
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
    if (o->reasoning_effort)
        json_object_set_new(vars, "reasoning_effort", json_string(o->reasoning_effort));
    json_object_foreach ((json_t *)(uintptr_t)o->kwargs, key, v)
        if (!json_object_get(vars, key))
            json_object_set(vars, key, v);
    if (o->reasoning_effort && !json_object_get(vars, "enable_thinking"))
        json_object_set_new(vars, "enable_thinking",
                            json_boolean(strcmp(o->reasoning_effort, "none") != 0));
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

/* ---- what the client says of the template ---- */

struct template_params {
    OPENAI_TEMPLATE(FIELD_MEMBER)
};

#define FIELD_OWNER struct template_params
static const struct field template_fields[] = { OPENAI_TEMPLATE(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_template_fields, "", template_fields);

bool openai_read_template(const struct request *rq, const json_t *root, bool generates_by_default,
                          struct openai_chat_options *options, struct fault *f)
{
    bool is_trusted = strcmp(rq->service->config.trust_request_chat_template, "on") == 0;
    struct template_params p;

    if (!openai_read_own(root, template_fields, sizeof template_fields / sizeof *template_fields,
                         &p, sizeof p, f))
        return false;
    if (p.chat_template.is_set && !is_trusted)
        return fault_set(f, FAULT_INVALID, "chat_template",
                         "Chat template is passed with request, but --trust-request-chat-template "
                         "is not set. Refused request with untrusted chat template.");
    if (p.add_generation_prompt.b && p.continue_final_message.b)
        return fault_set(f, FAULT_INVALID, "continue_final_message",
                         "Cannot set both `continue_final_message` and `add_generation_prompt` to "
                         "True.");
    *options = (struct openai_chat_options){
        .add_generation_prompt = p.add_generation_prompt.is_set
                                     ? p.add_generation_prompt.b
                                     : generates_by_default && !p.continue_final_message.b,
        .continue_final_message = p.continue_final_message.b,
        .kwargs = p.chat_template_kwargs.json,
        .chat_template = p.chat_template.s,
    };
    return true;
}

/* ---- the template ---- */

/* The one that the client brings, which is the caller's to free, or the model's.  NULL: f says why. */
static const struct chat_template *choose_template(const struct request *rq,
                                                   const struct openai_chat_options *o,
                                                   struct chat_template **own, struct fault *f)
{
    const struct chat_template *t = chat_templates_pick(&rq->service->chat, o->tools);
    struct err e;

    if (!o->chat_template) {
        if (!t)
            fault_set(f, FAULT_TEMPLATE, "", "%s",
                      "As of transformers v4.44, default chat template is no longer allowed, so "
                      "you must provide a chat template if the tokenizer does not define one.");
        return t;
    }
    if (strlen(o->chat_template) > CLIENT_TEMPLATE_BYTES_MAX) {
        fault_set(f, FAULT_INVALID, "chat_template", "chat_template has more than %d bytes",
                  CLIENT_TEMPLATE_BYTES_MAX);
        return NULL;
    }
    *own = chat_template_new(o->chat_template, strlen(o->chat_template), &e);
    if (!*own)
        fault_set(f, FAULT_TEMPLATE, "chat_template", "%s", e.msg);
    return *own;
}

static bool render(const struct request *rq, const struct chat_template *t, const json_t *vars,
                   bool is_clients, struct buf *text, struct fault *f)
{
    time_t now = (time_t)rq->created_s; /* the same when the prompt is rendered again */
    struct tm tm;
    struct err e;
    bool ok;

    localtime_r(&now, &tm);
    ok = is_clients ? chat_template_render_within(t, &client_cost, vars, &tm, text, &e)
                    : chat_template_render(t, vars, &tm, text, &e);
    return ok || fault_set(f, FAULT_TEMPLATE, "", "%s", e.msg);
}

/* Messages that are converted, and t, to text. */
static bool render_list(struct request *rq, const struct chat_template *t, json_t *list,
                        const struct openai_chat_options *options, struct buf *text,
                        const char **last, struct fault *f)
{
    const json_t *final = json_array_get(list, json_array_size(list) - 1);
    struct buf content = { 0 };
    json_t *vars;
    bool ok;

    add_text_of(json_object_get(final, "content"), &content);
    *last = content.n && has_role(final, "assistant")
                ? arena_strndup(&rq->arena, content.data, content.n)
                : NULL;
    replace_developers(t, list);
    vars = make_variables(rq, list, options);
    ok = render(rq, t, vars, options->chat_template != NULL, text, f);
    if (ok && options->continue_final_message)
        ok = cut_after(text, content.data ? content.data : "", f);
    json_decref(vars);
    buf_fini(&content);
    return ok;
}

bool openai_render_chat(struct request *rq, const json_t *messages,
                        const struct openai_chat_options *options, struct buf *text,
                        const char **last, struct fault *f)
{
    size_t n = json_array_size(messages);
    struct chat_template *own = NULL;
    const struct chat_template *t;
    json_t *list;
    bool ok = false;

    if (n == 0 || n > MESSAGES_MAX)
        return fault_set(f, FAULT_INVALID, "messages",
                         "messages must have 1 to %d entries, got %zu", MESSAGES_MAX, n);
    if (options->kwargs && !check_kwargs(options->kwargs, f))
        return false;
    t = choose_template(rq, options, &own, f);
    list = t ? convert_messages(t, messages, f) : NULL;
    if (list)
        ok = render_list(rq, t, list, options, text, last, f);
    chat_template_free(own);
    return ok;
}

bool openai_set_chat_prompt(struct request *rq, size_t i, const json_t *messages,
                            const struct openai_chat_options *options, unsigned flags,
                            struct fault *f)
{
    struct buf text = { 0 };
    struct prompt *p = &rq->prompts[i];
    bool ok;

    ok = openai_render_chat(rq, messages, options, &text, &p->last, f) &&
         openai_tokenize(rq, i, text.data ? text.data : "", text.n, flags, f);
    buf_fini(&text);
    if (!ok)
        return false;
    p->last_bytes = p->last ? strlen(p->last) : 0;
    return p->n_ids > 0 || fault_set(f, FAULT_INVALID, "messages", "the rendered prompt is empty");
}
