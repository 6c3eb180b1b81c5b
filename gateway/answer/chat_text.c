/* chat_text.c - reasoning, then content and calls. */
#include "gateway/answer/chat_text.h"

#include "common/json.h"

void chat_text_init(struct chat_text *t, const struct chat_rules *rules)
{
    t->rules = *rules;
    reasoning_init(&t->reasoning, rules->thoughts, rules->is_thinking);
    tool_parser_init(&t->tools, rules->tools);
}

static bool is_shown(const struct chat_rules *rules, const struct text_part *part)
{
    if (part->kind == PART_REASONING)
        return !rules->hides_thoughts;
    return part->kind == PART_CONTENT || part->call == 0 || !rules->has_one_call;
}

static void drop_hidden(const struct chat_rules *rules, struct text_parts *parts, size_t from)
{
    size_t n = from;

    for (size_t i = from; i < parts->n; i++)
        if (is_shown(rules, &parts->list[i]))
            parts->list[n++] = parts->list[i];
    parts->n = n;
}

void chat_text_take(struct chat_text *t, const char *text, size_t n, bool is_final,
                    struct text_parts *out)
{
    size_t before = out->n;

    if (reasoning_take(&t->reasoning, text, n, is_final, out))
        tool_parser_take(&t->tools, text + t->reasoning.at, n - t->reasoning.at, is_final, out);
    drop_hidden(&t->rules, out, before);
}

static bool has_broken_call(const struct text_parts *parts)
{
    for (size_t i = 0; i < parts->n; i++) {
        struct text_part arguments = text_parts_arguments(parts, i);
        json_t *value;
        if (parts->list[i].kind != PART_CALL)
            continue;
        value = json_parse(arguments.s, arguments.n, NULL);
        json_decref(value);
        if (!value)
            return true;
    }
    return false;
}

static void split(const struct chat_rules *rules, const char *text, size_t n,
                  struct text_parts *out)
{
    struct chat_text t;

    out->n = 0;
    chat_text_init(&t, rules);
    chat_text_take(&t, text, n, true, out);
}

void chat_text_split(const struct chat_rules *rules, const char *text, size_t n,
                     struct text_parts *out)
{
    struct chat_rules without = *rules;

    split(rules, text, n, out);
    if (!has_broken_call(out))
        return;
    without.tools = NULL;
    split(&without, text, n, out);
}

void text_parts_join(const struct text_parts *parts, enum part_kind kind, uint32_t call,
                     struct buf *out)
{
    for (size_t i = 0; i < parts->n; i++)
        if (parts->list[i].kind == kind && parts->list[i].call == call)
            buf_add(out, parts->list[i].s, parts->list[i].n);
}

struct text_part text_parts_arguments(const struct text_parts *parts, size_t i)
{
    if (i + 1 < parts->n && parts->list[i + 1].kind == PART_ARGUMENTS)
        return parts->list[i + 1];
    return (struct text_part){ .kind = PART_ARGUMENTS, .s = "" };
}

uint32_t text_parts_calls(const struct text_parts *parts)
{
    uint32_t n = 0;

    for (size_t i = 0; i < parts->n; i++)
        n += parts->list[i].kind == PART_CALL;
    return n;
}
