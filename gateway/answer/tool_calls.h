/* tool_calls.h - the calls of tools in a model's text, in the notations that models were taught.
 *
 *   hermes       <tool_call>{"name": "f", "arguments": {...}}</tool_call>, again and again; Hermes, Qwen
 *   llama3_json  the text is {"name": "f", "parameters": {...}}; several with "; " between; Llama 3.1, 3.2
 *   mistral      [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]   or   [TOOL_CALLS]f[ARGS]{...}
 *
 * A parser is a state machine over the text as it grows (drawn in tool_calls.c).  What it gives out
 * depends on the text alone and not on how it came in pieces.  Text that may still become a call is held
 * back; once the name is known and the arguments begin, the call is certain and its arguments are given out
 * as they come.  Until then whatever does not fit makes all that was held content, tags included: what a
 * model writes is never lost.  White space alone beside calls is no content; so are members of a call besides name
 * and arguments (both names of those are known everywhere). */
#ifndef LLMD_GATEWAY_ANSWER_TOOL_CALLS_H
#define LLMD_GATEWAY_ANSWER_TOOL_CALLS_H

#include <stdbool.h>

#include "gateway/answer/text_parts.h"
#include "text/chat_template.h"

struct tool_format {
    const char *name;     /* setting tool_call_parser */
    const char *open;     /* before a call; llama3_json may do without */
    const char *close;    /* behind it; NULL: none */
    bool is_whole_text;   /* calls stand at the beginning or not at all */
    bool needs_arguments; /* an object with a name alone is no call */
    bool has_lists;       /* [{...}, {...}] and f[ARGS]{...} */
    bool has_short_ids;   /* the template wants ids of nine letters and digits */
    const char *in_template, *not_in_template; /* how "auto" knows it; ... or NULL */
};

/* The format for a setting; "auto": the one the template speaks.  NULL: none. */
const struct tool_format *tool_format_find(const char *setting, const struct chat_template *t);

enum tool_state {
    TOOL_START,  /* of a whole text: nothing but white space so far */
    TOOL_TEXT,   /* content, and a mark may come */
    TOOL_PLAIN,  /* content to the end */
    TOOL_OPENED, /* a call is to begin */
    TOOL_NAMED,  /* f[ARGS] */
    TOOL_KEY,    /* within the object of a call: a key or its end */
    TOOL_IN_KEY,
    TOOL_COLON,
    TOOL_VALUE,
    TOOL_IN_VALUE,
    TOOL_NEXT,
    TOOL_CLOSE, /* behind a call */
    N_TOOL_STATES,
};

struct tool_parser {
    const struct tool_format *format;
    enum tool_state state;
    size_t at;     /* bytes looked at */
    size_t shown;  /* ... and given out, or known to be no content */
    bool has_text; /* from `shown` on, or before: not white space alone */
    bool is_in_list;
    uint32_t n_calls;

    /* the call that is being read; offsets into the text */
    const char *name; /* decoded; NULL: not yet */
    size_t key_at, key_end, value_at;
    size_t arguments_at, arguments_end; /* of a value that could not be given out at once */
    bool has_arguments;
    bool is_begun; /* PART_CALL is out */
    bool is_bare;  /* the value is the arguments of f[ARGS] */
    bool in_string, is_escaped;
    uint32_t depth;
};

void tool_parser_init(struct tool_parser *p, const struct tool_format *format);

/* The text has grown to n bytes, and is_final if it will grow no more.  Adds what is known now to *out. */
void tool_parser_take(struct tool_parser *p, const char *text, size_t n, bool is_final,
                      struct text_parts *out);

#endif
