/* responses_input.c - what a client of /v1/responses sends, as a chat: one assistant message holds what a model
 * said in one turn, thoughts, text and calls, though it was a list of items. */
#include <string.h>

#include "gateway/openai/responses.h"

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool item_fault(struct fault *f, size_t i, const char *what)
{
    char param[FAULT_PARAM_BYTES];

    snprintf(param, sizeof param, "body.input.%zu", i);
    return fault_set(f, FAULT_SCHEMA, param,
                     "1 validation error:\n  {'loc': ('body', 'input', %zu), 'msg': '%s'}", i,
                     what);
}

/* Text parts under the name that a chat has for them; others are left for the chat to refuse. */
static json_t *convert_content(const json_t *content)
{
    json_t *copy = json_deep_copy(content);

    for (size_t i = 0; i < json_array_size(copy); i++) {
        json_t *part = json_array_get(copy, i);
        const char *type = text_of(part, "type");
        if (type && (strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0))
            json_object_set_new(part, "type", json_string("text"));
    }
    return copy;
}

/* The assistant's message that the turn is in, or a new one. */
static json_t *assistant_turn(json_t *list)
{
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    const char *role = text_of(last, "role");

    if (role && strcmp(role, "assistant") == 0)
        return last;
    last = json_pack("{s:s,s:n}", "role", "assistant", "content");
    json_array_append_new(list, last);
    return last;
}

/* Thoughts before a call or a text: content of the item, or its summary. */
static bool add_reasoning(json_t *list, const json_t *item, size_t i, struct fault *f)
{
    const json_t *parts = json_object_get(item, "content");
    struct buf text = { 0 };

    (void)i;
    (void)f;
    if (json_array_size(parts) == 0)
        parts = json_object_get(item, "summary");
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const char *part = text_of(json_array_get(parts, k), "text");
        buf_add_str(&text, part ? part : "");
    }
    if (text.n > 0)
        json_array_append_new(list, json_pack("{s:s,s:n,s:s}", "role", "assistant", "content",
                                              "reasoning", text.data));
    buf_fini(&text);
    return true;
}

/* A turn that has neither text nor calls yet, whose text this is. */
static bool is_unspoken(const json_t *m)
{
    const char *role = text_of(m, "role");

    return role && strcmp(role, "assistant") == 0 && json_is_null(json_object_get(m, "content")) &&
           !json_object_get(m, "tool_calls");
}

static bool add_message(json_t *list, const json_t *item, size_t i, struct fault *f)
{
    const char *role = text_of(item, "role");
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    json_t *content = convert_content(json_object_get(item, "content"));

    if (!role || !content) {
        json_decref(content);
        return item_fault(f, i, "a message has a role and content");
    }
    if (strcmp(role, "assistant") == 0 && is_unspoken(last))
        json_object_set_new(last, "content", content);
    else
        json_array_append_new(list, json_pack("{s:s,s:o}", "role", role, "content", content));
    return true;
}

static bool add_call(json_t *list, const json_t *item, size_t i, struct fault *f)
{
    const char *id = text_of(item, "call_id"), *name = text_of(item, "name");
    const char *arguments = text_of(item, "arguments");
    json_t *turn, *calls;

    if (!id || !name || !arguments)
        return item_fault(f, i, "a function_call has call_id, name and arguments");
    turn = assistant_turn(list);
    if (!json_object_get(turn, "tool_calls"))
        json_object_set_new(turn, "tool_calls", json_array());
    calls = json_object_get(turn, "tool_calls");
    json_array_append_new(calls, json_pack("{s:s,s:s,s:{s:s,s:s}}", "id", id, "type", "function",
                                           "function", "name", name, "arguments", arguments));
    return true;
}

static bool add_call_output(json_t *list, const json_t *item, size_t i, struct fault *f)
{
    const char *id = text_of(item, "call_id");
    json_t *content = convert_content(json_object_get(item, "output"));

    if (!id || !content) {
        json_decref(content);
        return item_fault(f, i, "a function_call_output has call_id and output");
    }
    json_array_append_new(
        list, json_pack("{s:s,s:s,s:o}", "role", "tool", "tool_call_id", id, "content", content));
    return true;
}

static const struct {
    const char *type;
    bool (*add)(json_t *list, const json_t *item, size_t i, struct fault *f);
} item_types[] = {
    { "message", add_message },
    { "function_call", add_call },
    { "function_call_output", add_call_output },
    { "reasoning", add_reasoning },
};

static bool add_item(json_t *list, const json_t *item, size_t i, struct fault *f)
{
    const char *type = text_of(item, "type");

    if (!json_is_object(item))
        return item_fault(f, i, "an item is an object");
    if (!type)
        type = "message";
    for (size_t k = 0; k < sizeof item_types / sizeof *item_types; k++)
        if (strcmp(type, item_types[k].type) == 0)
            return item_types[k].add(list, item, i, f);
    return fault_set(f, FAULT_UNSUPPORTED, "input",
                     "input items of type '%.40s' are not supported by this server", type);
}

json_t *responses_messages(const json_t *input, const char *instructions, struct fault *f)
{
    json_t *list = json_array();
    bool ok = true;

    if (instructions)
        json_array_append_new(list,
                              json_pack("{s:s,s:s}", "role", "system", "content", instructions));
    if (json_is_string(input))
        json_array_append_new(list, json_pack("{s:s,s:O}", "role", "user", "content", input));
    else if (!json_is_array(input) || json_array_size(input) == 0)
        ok = fault_set(f, FAULT_SCHEMA, "body.input",
                       "1 validation error:\n  {'loc': ('body', 'input'), 'msg': 'Input should be "
                       "a string or a list of items'}");
    for (size_t i = 0; ok && i < json_array_size(input); i++)
        ok = add_item(list, json_array_get(input, i), i, f);
    if (ok)
        return list;
    json_decref(list);
    return NULL;
}

/* {"type":"function","name":...} to {"type":"function","function":{"name":...}} */
static json_t *nest_function(const json_t *flat)
{
    json_t *function = json_deep_copy(flat);

    json_object_del(function, "type");
    return json_pack("{s:s,s:o}", "type", "function", "function", function);
}

json_t *responses_tools(const json_t *tools, struct fault *f)
{
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        const char *type = text_of(tool, "type");
        if (!type || strcmp(type, "function") != 0) {
            fault_set(f, FAULT_UNSUPPORTED, "tools",
                      "tools of type '%.40s' are not supported by this server", type ? type : "");
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, nest_function(tool));
    }
    return list;
}

json_t *responses_tool_choice(const json_t *choice)
{
    const char *type = text_of(choice, "type");

    if (type && strcmp(type, "function") == 0)
        return nest_function(choice);
    return json_incref((json_t *)(uintptr_t)choice);
}
