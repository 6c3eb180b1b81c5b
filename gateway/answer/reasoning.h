/* reasoning.h - where a model's thinking ends and its answer begins.
 *
 *            opening mark                  closing mark
 *   START ----------------> THINKING ------------------> ANSWER
 *     |  anything else                                     ^
 *     +---------------------------------------------------+
 *
 * Some templates end the prompt with the opening mark: then the text begins in THINKING, and an opening
 * mark that the model writes nevertheless is none of its thoughts.  Pure functions of the text so far: cut
 * into whatever pieces, the parts are the same. */
#ifndef LLMD_GATEWAY_ANSWER_REASONING_H
#define LLMD_GATEWAY_ANSWER_REASONING_H

#include <stdbool.h>

#include "gateway/answer/text_parts.h"
#include "text/chat_template.h"

struct reasoning_format {
    const char *name; /* setting reasoning_parser */
    const char *open, *close;
    bool is_open_at_start; /* without the opening mark, too: all up to the closing one is thought */
};

/* The format for a setting; "auto": the one whose marks the template has.  NULL: none. */
const struct reasoning_format *reasoning_find(const char *setting, const struct chat_template *t);

/* Does the answer to this prompt begin within thoughts? */
bool reasoning_is_open(const struct reasoning_format *f, const char *prompt, size_t n);

enum reasoning_state { REASONING_START, REASONING_OPENED, REASONING_THINKING, REASONING_ANSWER };

struct reasoning {
    const struct reasoning_format *format;
    enum reasoning_state state;
    size_t at; /* looked at, and given out; in REASONING_ANSWER: where the answer begins */
};

/* format NULL: all is answer. */
void reasoning_init(struct reasoning *r, const struct reasoning_format *format, bool is_open);

/* The text has grown to n bytes, and is_final if it will grow no more.  Adds what is thought to *out.
 * True: the rest, from r->at on, is the answer. */
bool reasoning_take(struct reasoning *r, const char *text, size_t n, bool is_final,
                    struct text_parts *out);

#endif
