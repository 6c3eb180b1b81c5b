/* chat_text.h - a choice's text as the parts that a chat answer shows: reasoning first, then content and calls.
 *
 * Two machines in a row, reasoning.h and tool_calls.h, over the same text.  Thoughts are never looked
 * through for calls. */
#ifndef LLMD_GATEWAY_ANSWER_CHAT_TEXT_H
#define LLMD_GATEWAY_ANSWER_CHAT_TEXT_H

#include "gateway/answer/reasoning.h"
#include "gateway/answer/tool_calls.h"

/* What a request makes of its answers' text. */
struct chat_rules {
    const struct tool_format *tools;         /* NULL: no text is a call */
    const struct reasoning_format *thoughts; /* NULL: no text is a thought */
    bool is_thinking;                        /* from the first byte on, as its prompt ends */
    bool hides_thoughts;
    bool has_one_call; /* further ones are left out */
};

struct chat_text {
    struct chat_rules rules;
    struct reasoning reasoning;
    struct tool_parser tools;
};

void chat_text_init(struct chat_text *t, const struct chat_rules *rules);

/* The text has grown to n bytes: all of it is passed again, and is_final when it will grow no more.  Adds
 * the parts that are new to *out, which borrows from text. */
void chat_text_take(struct chat_text *t, const char *text, size_t n, bool is_final,
                    struct text_parts *out);

/* The parts of a whole text.  A call whose arguments are no JSON in the end makes all that is no thought
 * content, as vLLM has it: that is known here, and too late in a stream. */
void chat_text_split(const struct chat_rules *rules, const char *text, size_t n,
                     struct text_parts *out);

/* All slices of a kind (and call), joined behind what is in *out. */
void text_parts_join(const struct text_parts *parts, enum part_kind kind, uint32_t call,
                     struct buf *out);
/* The arguments of the call at place i of a whole text's parts: they stand behind it in one piece. */
struct text_part text_parts_arguments(const struct text_parts *parts, size_t i);
/* Calls among them. */
uint32_t text_parts_calls(const struct text_parts *parts);

#endif
