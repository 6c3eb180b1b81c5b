/* chat_template.h - the text a model wants to see for a conversation.
 *
 * Model repositories ship a template in a small language (Jinja); this compiles one once and renders
 * it per request.  A compiled template never changes, so any number of threads may use it at once;
 * everything a rendering needs is its own and is freed before it returns.
 *
 * The language is the part of Jinja that chat templates use, see jinja/jinja.h; what lies outside is
 * refused when the template is compiled, with the construct and its line. */
#ifndef LLMD_TEXT_CHAT_TEMPLATE_H
#define LLMD_TEXT_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"

struct chat_template;
struct gguf;

/* Compile n bytes of template text, which are copied.  NULL and ERR_MODEL when it is malformed or uses
 * what is not supported.  Returned, caller frees. */
struct chat_template *chat_template_new(const char *source, size_t n, struct err *e);
void chat_template_free(struct chat_template *t);

/* What one rendering may take. */
struct chat_cost {
    uint64_t steps_max; /* nodes of the template visited, plus a share of the bytes looked at */
    size_t memory_bytes_max; /* text included */
};

/* Append the rendered conversation to *out, which is left as it was on failure.
 *   vars  an object: messages, tools, documents, add_generation_prompt, bos_token, eos_token and
 *         whatever else the template may ask for; borrowed, only read
 *   now   what strftime_now() shows, in local time as the operator wants it
 * ERR_INPUT: the template raised an exception (then e->msg is its message, unchanged), it cannot work
 * with these variables, or the work passes a limit (16 MiB of text, 20 million steps, 256 MiB of
 * memory, calls nested too deep).  Any thread. */
bool chat_template_render(const struct chat_template *t, const json_t *vars, const struct tm *now,
                          struct buf *out, struct err *e);
/* The same for a template that one need not trust: it may take no more than `cost`. */
bool chat_template_render_within(const struct chat_template *t, const struct chat_cost *cost,
                                 const json_t *vars, const struct tm *now, struct buf *out,
                                 struct err *e);

/* Does the template read a variable of this name?  Others need not be given. */
bool chat_template_uses(const struct chat_template *t, const char *name);

/* Does the text of the template contain `word` anywhere?  Tells whether it knows a role. */
bool chat_template_mentions(const struct chat_template *t, const char *word);

/* Does it loop over the content of a message, and so want a list of parts instead of one text? */
bool chat_template_wants_parts(const struct chat_template *t);

/* ---- the templates of a model ---------------------------------------------------------- */

struct chat_templates {
    struct chat_template *plain;    /* NULL: the model has none */
    struct chat_template *tool_use; /* NULL: `plain` serves requests with tools too */
    json_t *tokens; /* an object: bos_token, eos_token, ... as strings, for the variables */
};

/* Read chat_template.jinja or else tokenizer_config.json's "chat_template" (one text, or a list of
 * named ones), and the special tokens of tokenizer_config.json; or tokenizer.chat_template of a GGUF file.  A
 * model without templates is no error.  ERR_SYS, ERR_MODEL, ERR_CONFIG (gguf_locate()); *ts is filled only
 * on success, and then wants chat_templates_fini(). */
bool chat_templates_load(struct chat_templates *ts, const char *model, struct err *e);
bool chat_templates_load_gguf(struct chat_templates *ts, const struct gguf *g, struct err *e);
void chat_templates_fini(struct chat_templates *ts);

/* The template for a request with or without tools; NULL when the model has none. */
const struct chat_template *chat_templates_pick(const struct chat_templates *ts, bool has_tools);

#endif
