/* reasoning.c - thoughts apart from the answer. */
#include "gateway/answer/reasoning.h"

#include <string.h>

static const struct reasoning_format formats[] = {
    { "deepseek_r1", "<think>", "</think>", true },
    { "qwen3", "<think>", "</think>", false },
    { "mistral", "[THINK]", "[/THINK]", false },
};

static const struct reasoning_format *find_by_template(const struct chat_template *t)
{
    for (size_t i = 0; t && i < sizeof formats / sizeof *formats; i++)
        if (!formats[i].is_open_at_start && chat_template_mentions(t, formats[i].close))
            return &formats[i];
    return NULL;
}

const struct reasoning_format *reasoning_find(const char *setting, const struct chat_template *t)
{
    if (strcmp(setting, "auto") == 0)
        return find_by_template(t);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(setting, formats[i].name) == 0)
            return &formats[i];
    return NULL;
}

static bool ends_with(const char *text, size_t n, const char *mark)
{
    size_t mark_bytes = strlen(mark);

    return n >= mark_bytes && memcmp(text + n - mark_bytes, mark, mark_bytes) == 0;
}

bool reasoning_is_open(const struct reasoning_format *f, const char *prompt, size_t n)
{
    while (n > 0 && text_is_space(prompt[n - 1]))
        n--;
    return ends_with(prompt, n, f->open) ||
           (f->is_open_at_start && !ends_with(prompt, n, f->close));
}

void reasoning_init(struct reasoning *r, const struct reasoning_format *format, bool is_open)
{
    *r = (struct reasoning){ .format = format };
    if (!format)
        r->state = REASONING_ANSWER;
    else if (is_open)
        r->state = REASONING_OPENED;
}

/* White space, then the opening mark or something else. */
static bool take_start(struct reasoning *r, const char *text, size_t n, bool is_final)
{
    size_t at = r->at;
    enum mark_match match;

    while (at < n && text_is_space(text[at]))
        at++;
    match = mark_at(text, n, at, r->format->open);
    if (!is_final && (at == n || match == MARK_PART))
        return false;
    if (match == MARK_YES) {
        r->at = at + strlen(r->format->open);
        r->state = REASONING_THINKING;
        return true;
    }
    r->state = r->state == REASONING_OPENED ? REASONING_THINKING : REASONING_ANSWER;
    return true;
}

static void take_thought(struct reasoning *r, const char *text, size_t n, bool is_final,
                         struct text_parts *out)
{
    enum mark_match match;
    size_t end = mark_find(text, n, r->at, r->format->close, &match);

    if (is_final && match == MARK_PART)
        end = n;
    text_parts_add(
        out, (struct text_part){ .kind = PART_REASONING, .s = text + r->at, .n = end - r->at });
    r->at = end;
    if (match != MARK_YES)
        return;
    r->at += strlen(r->format->close);
    r->state = REASONING_ANSWER;
}

bool reasoning_take(struct reasoning *r, const char *text, size_t n, bool is_final,
                    struct text_parts *out)
{
    if ((r->state == REASONING_START || r->state == REASONING_OPENED) &&
        !take_start(r, text, n, is_final))
        return false;
    if (r->state == REASONING_THINKING)
        take_thought(r, text, n, is_final, out);
    return r->state == REASONING_ANSWER;
}
