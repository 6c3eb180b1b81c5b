/* tool_calls.c - the machine that reads calls.
 *
 *   START --{--> OPENED <---------------- mark ---------------- TEXT      PLAIN
 *     |            | {           | f                              ^         ^
 *     |            v             v                                |         |
 *     |   +----> KEY          NAMED --[ARGS]{--> IN_VALUE         |         |
 *     |   |        |                                |             |         |
 *     | , |     IN_KEY, COLON, VALUE                | }           |         |
 *     |   |        v                                v             |         |
 *     |   +--- IN_VALUE, NEXT ---------- } ------> CLOSE ---------+         |
 *     |                                             |  , or ; : OPENED      |
 *     +---------- anything else --------------------+-- whole text ---------+
 *
 * An unfit byte within a call leads to TEXT (or PLAIN), and that byte is looked at again there. */
#include "gateway/answer/tool_calls.h"

#include <assert.h>
#include <string.h>

#include "common/json.h"

enum { NAME_BYTES_MAX = 256 };

static const struct tool_format formats[] = {
    { .name = "hermes",
      .open = "<tool_call>",
      .close = "</tool_call>",
      .in_template = "<tool_call>",
      .not_in_template = "<arg_key>" },
    { .name = "mistral",
      .open = "[TOOL_CALLS]",
      .has_lists = true,
      .has_short_ids = true,
      .in_template = "[TOOL_CALLS]" },
    { .name = "llama3_json",
      .open = "<|python_tag|>",
      .is_whole_text = true,
      .needs_arguments = true,
      .in_template = "<|python_tag|>" },
};

static bool speaks(const struct chat_template *t, const struct tool_format *f)
{
    return chat_template_mentions(t, f->in_template) &&
           !(f->not_in_template && chat_template_mentions(t, f->not_in_template));
}

const struct tool_format *tool_format_find(const char *setting, const struct chat_template *t)
{
    bool is_auto = strcmp(setting, "auto") == 0;

    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (is_auto ? t && speaks(t, &formats[i]) : strcmp(setting, formats[i].name) == 0)
            return &formats[i];
    return NULL;
}

void tool_parser_init(struct tool_parser *p, const struct tool_format *format)
{
    *p = (struct tool_parser){ .format = format };
    p->has_text = !format; /* nothing to wait for */
    p->state = !format ? TOOL_PLAIN : format->is_whole_text ? TOOL_START : TOOL_TEXT;
}

struct view {
    const char *text;
    size_t n;
    bool is_final;
    struct text_parts *out;
};

/* ---- giving out ---- */

static void show(struct tool_parser *p, const struct view *v, enum part_kind kind, size_t to)
{
    text_parts_add(v->out, (struct text_part){ .kind = kind,
                                               .call = kind == PART_CONTENT ? 0 : p->n_calls - 1,
                                               .s = v->text + p->shown,
                                               .n = to - p->shown });
    p->shown = to;
}

/* Text up to `to` is content, unless there is nothing but white space: that waits for what follows. */
static void show_content(struct tool_parser *p, const struct view *v, size_t to)
{
    for (size_t i = p->at; i < to && !p->has_text; i++)
        p->has_text = !text_is_space(v->text[i]);
    p->at = to;
    if (p->has_text)
        show(p, v, PART_CONTENT, to);
}

static void begin_call(struct tool_parser *p, const struct view *v, const char *name)
{
    p->n_calls++;
    p->is_begun = true;
    p->has_text = false;
    text_parts_add(v->out,
                   (struct text_part){
                       .kind = PART_CALL, .call = p->n_calls - 1, .s = name, .n = strlen(name) });
}

static void end_call(struct tool_parser *p)
{
    p->name = NULL;
    p->has_arguments = p->is_begun = p->is_bare = false;
    p->shown = p->at;
    p->state = TOOL_CLOSE;
}

/* This is no call, or no longer one: what is held is text. */
static bool give_up(struct tool_parser *p, const struct view *v)
{
    for (size_t i = p->shown; i < p->at && !p->has_text; i++)
        p->has_text = !text_is_space(v->text[i]);
    p->name = NULL;
    p->has_arguments = p->is_begun = p->is_bare = p->is_in_list = false;
    p->state = p->format->is_whole_text ? TOOL_PLAIN : TOOL_TEXT;
    return true;
}

/* ---- steps: each moves on, or says that it needs more text ---- */

/* False: the text ends here. */
static bool skip_space(struct tool_parser *p, const struct view *v)
{
    while (p->at < v->n && text_is_space(v->text[p->at]))
        p->at++;
    return p->at < v->n;
}

static enum mark_match match(const struct tool_parser *p, const struct view *v, const char *mark)
{
    return mark_at(v->text, v->n, p->at, mark);
}

static bool step_start(struct tool_parser *p, const struct view *v)
{
    enum mark_match open;

    if (!skip_space(p, v))
        return false;
    open = match(p, v, p->format->open);
    if (open == MARK_PART && !v->is_final)
        return false;
    if (open == MARK_YES)
        p->at += strlen(p->format->open);
    p->state = TOOL_OPENED;
    return open == MARK_YES || v->text[p->at] == '{' || give_up(p, v);
}

static bool step_text(struct tool_parser *p, const struct view *v)
{
    enum mark_match open;
    size_t end = mark_find(v->text, v->n, p->at, p->format->open, &open);

    show_content(p, v, end);
    if (open != MARK_YES)
        return false;
    p->at += strlen(p->format->open);
    p->state = TOOL_OPENED;
    return true;
}

static bool step_plain(struct tool_parser *p, const struct view *v)
{
    show_content(p, v, v->n);
    return false;
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
}

static bool step_opened(struct tool_parser *p, const struct view *v)
{
    char c;

    if (!skip_space(p, v))
        return false;
    c = v->text[p->at];
    if (c == '{') {
        p->at++;
        p->state = TOOL_KEY;
    } else if (c == '[' && p->format->has_lists && !p->is_in_list) {
        p->at++;
        p->is_in_list = true;
    } else if (is_name(c) && p->format->has_lists && !p->is_in_list) {
        p->state = TOOL_NAMED;
    } else {
        return give_up(p, v);
    }
    return true;
}

static size_t name_end(const struct view *v, size_t at)
{
    size_t i = at;

    while (i < v->n && i - at <= NAME_BYTES_MAX && is_name(v->text[i]))
        i++;
    return i;
}

/* f[CALL_ID]id[ARGS]{ with both marks left out by some models.  Short, so it is looked at from its beginning
 * each time; p->at stays there until all of it has come. */
static bool step_named(struct tool_parser *p, const struct view *v)
{
    size_t end = name_end(v, p->at), at = end;
    enum mark_match mark = mark_at(v->text, v->n, at, "[CALL_ID]");

    if (mark == MARK_YES)
        at = name_end(v, at + strlen("[CALL_ID]"));
    if (mark != MARK_PART) {
        mark = mark_at(v->text, v->n, at, "[ARGS]");
        at += mark == MARK_YES ? strlen("[ARGS]") : 0;
    }
    if (end - p->at <= NAME_BYTES_MAX && (mark == MARK_PART || at == v->n))
        return false;
    if (end - p->at > NAME_BYTES_MAX || v->text[at] != '{') {
        p->at = end;
        return give_up(p, v);
    }
    begin_call(p, v, arena_strndup(v->out->arena, v->text + p->at, end - p->at));
    p->at = p->value_at = p->shown = at;
    p->is_bare = true;
    p->depth = 0;
    p->in_string = p->is_escaped = false;
    p->state = TOOL_IN_VALUE;
    return true;
}

/* ---- the object of a call ---- */

static bool key_is(const struct tool_parser *p, const struct view *v, const char *key)
{
    size_t n = p->key_end - p->key_at;

    return n == strlen(key) && memcmp(v->text + p->key_at, key, n) == 0;
}

static bool is_arguments(const struct tool_parser *p, const struct view *v)
{
    return !p->has_arguments && (key_is(p, v, "arguments") || key_is(p, v, "parameters"));
}

/* A JSON string as it stands in the text, quotes included; NULL: it is none, or empty. */
static const char *decode(const struct view *v, size_t from, size_t to)
{
    json_t *value = json_parse(v->text + from, to - from, NULL);
    const char *s = json_string_value(value);
    char *copy = s && *s ? arena_strdup(v->out->arena, s) : NULL;

    json_decref(value);
    return copy;
}

/* Arguments that were held back, for they came before the name or are no object: text with JSON in it is that
 * JSON, and none are an object without members. */
static void show_held_arguments(struct tool_parser *p, const struct view *v)
{
    struct text_part part = { .kind = PART_ARGUMENTS,
                              .call = p->n_calls - 1,
                              .s = v->text + p->arguments_at,
                              .n = p->arguments_end - p->arguments_at };
    const char *text = NULL;

    if (p->has_arguments && *part.s == '"')
        text = decode(v, p->arguments_at, p->arguments_end);
    if (!p->has_arguments || *part.s == 'n' || (*part.s == '"' && !text))
        text = "{}";
    if (text) {
        part.s = text;
        part.n = strlen(text);
    }
    text_parts_add(v->out, part);
}

static bool end_object(struct tool_parser *p, const struct view *v)
{
    if (!p->is_begun && (!p->name || (p->format->needs_arguments && !p->has_arguments)))
        return give_up(p, v);
    if (!p->is_begun) {
        begin_call(p, v, p->name);
        show_held_arguments(p, v);
    }
    end_call(p);
    return true;
}

static bool step_key(struct tool_parser *p, const struct view *v)
{
    if (!skip_space(p, v))
        return false;
    if (v->text[p->at] == '}') {
        p->at++;
        return end_object(p, v);
    }
    if (v->text[p->at] != '"')
        return give_up(p, v);
    p->key_at = ++p->at;
    p->is_escaped = false;
    p->state = TOOL_IN_KEY;
    return true;
}

/* Move to behind the closing quote; false: it has not come. */
static bool pass_string(struct tool_parser *p, const struct view *v)
{
    while (p->at < v->n) {
        char c = v->text[p->at++];
        if (p->is_escaped)
            p->is_escaped = false;
        else if (c == '\\')
            p->is_escaped = true;
        else if (c == '"')
            return true;
    }
    return false;
}

static bool step_in_key(struct tool_parser *p, const struct view *v)
{
    if (!pass_string(p, v))
        return false;
    p->key_end = p->at - 1;
    p->state = TOOL_COLON;
    return true;
}

static bool step_colon(struct tool_parser *p, const struct view *v)
{
    if (!skip_space(p, v))
        return false;
    if (v->text[p->at] != ':')
        return give_up(p, v);
    p->at++;
    p->state = TOOL_VALUE;
    return true;
}

static bool step_value(struct tool_parser *p, const struct view *v)
{
    char c;

    if (!skip_space(p, v))
        return false;
    c = v->text[p->at];
    if (!strchr("\"{[-0123456789tfn", c) || c == '\0')
        return give_up(p, v);
    p->value_at = p->at;
    p->depth = 0;
    p->in_string = p->is_escaped = false;
    p->state = TOOL_IN_VALUE;
    if (c == '{' && p->name && !p->is_begun && is_arguments(p, v)) {
        begin_call(p, v, p->name);
        p->shown = p->at;
    }
    return true;
}

/* Move to the end of the value: behind a string or the last bracket, before what ends a number or a word.
 * False: it has not come. */
static bool pass_value(struct tool_parser *p, const struct view *v)
{
    while (p->at < v->n) {
        char c = v->text[p->at];
        if (p->in_string) {
            p->in_string = !pass_string(p, v);
            if (!p->in_string && p->depth == 0)
                return true;
            continue;
        }
        if (p->depth == 0 && p->at > p->value_at && (strchr(",}]", c) || text_is_space(c)))
            return true;
        p->at++;
        p->in_string = c == '"';
        p->depth += c == '{' || c == '[';
        if ((c == '}' || c == ']') && --p->depth == 0)
            return true;
    }
    return false;
}

static void take_value(struct tool_parser *p, const struct view *v)
{
    if (key_is(p, v, "name") && !p->name) {
        p->name = v->text[p->value_at] == '"' ? decode(v, p->value_at, p->at) : NULL;
    } else if (is_arguments(p, v)) {
        p->has_arguments = true;
        p->arguments_at = p->value_at;
        p->arguments_end = p->at;
    }
}

static bool step_in_value(struct tool_parser *p, const struct view *v)
{
    bool is_shown = p->is_begun && !p->has_arguments;
    bool is_whole = pass_value(p, v);

    if (is_shown)
        show(p, v, PART_ARGUMENTS, p->at);
    if (!is_whole)
        return false;
    if (p->is_bare) {
        end_call(p);
        return true;
    }
    take_value(p, v);
    p->state = TOOL_NEXT;
    return true;
}

static bool step_next(struct tool_parser *p, const struct view *v)
{
    if (!skip_space(p, v))
        return false;
    if (v->text[p->at] == ',') {
        p->at++;
        p->state = TOOL_KEY;
        return true;
    }
    if (v->text[p->at] != '}')
        return give_up(p, v);
    p->at++;
    return end_object(p, v);
}

/* ---- behind a call ---- */

static bool go_on(struct tool_parser *p, enum tool_state state)
{
    p->state = state;
    return true;
}

static bool close_list(struct tool_parser *p, const struct view *v)
{
    char c = v->text[p->at];

    if (c == ',') {
        p->at++;
        return go_on(p, TOOL_OPENED);
    }
    p->is_in_list = false;
    if (c == ']')
        p->shown = ++p->at;
    return go_on(p, TOOL_TEXT);
}

static bool close_whole_text(struct tool_parser *p, const struct view *v)
{
    if (v->text[p->at] == ';') {
        p->at++;
        return go_on(p, TOOL_START);
    }
    return go_on(p, v->text[p->at] == '{' ? TOOL_START : TOOL_PLAIN);
}

static bool step_close(struct tool_parser *p, const struct view *v)
{
    enum mark_match close;

    if (!skip_space(p, v))
        return false;
    if (p->format->is_whole_text)
        return close_whole_text(p, v);
    if (p->is_in_list)
        return close_list(p, v);
    if (!p->format->close)
        return go_on(p, TOOL_TEXT);
    close = match(p, v, p->format->close);
    if (close == MARK_PART)
        return false;
    if (close == MARK_YES)
        p->shown = p->at += strlen(p->format->close);
    return go_on(p, TOOL_TEXT);
}

static bool (*const steps[N_TOOL_STATES])(struct tool_parser *p, const struct view *v) = {
    [TOOL_START] = step_start,       [TOOL_TEXT] = step_text,   [TOOL_PLAIN] = step_plain,
    [TOOL_OPENED] = step_opened,     [TOOL_NAMED] = step_named, [TOOL_KEY] = step_key,
    [TOOL_IN_KEY] = step_in_key,     [TOOL_COLON] = step_colon, [TOOL_VALUE] = step_value,
    [TOOL_IN_VALUE] = step_in_value, [TOOL_NEXT] = step_next,   [TOOL_CLOSE] = step_close,
};

/* The text ends.  A call that has begun ends with it, and half a closing mark behind one is no text; all else
 * that was held is, but for white space beside calls. */
static void finish(struct tool_parser *p, const struct view *v)
{
    bool is_blank = true;

    if (p->state == TOOL_CLOSE)
        p->shown = v->n;
    for (size_t i = p->shown; i < v->n; i++)
        is_blank &= text_is_space(v->text[i]) != 0;
    if (!is_blank || p->n_calls == 0)
        show(p, v, PART_CONTENT, v->n);
}

void tool_parser_take(struct tool_parser *p, const char *text, size_t n, bool is_final,
                      struct text_parts *out)
{
    struct view v = { .text = text, .n = n, .is_final = is_final, .out = out };

    assert(p->at <= n && p->shown <= n);
    while (p->at < n && steps[p->state](p, &v)) {
    }
    if (is_final)
        finish(p, &v);
}
