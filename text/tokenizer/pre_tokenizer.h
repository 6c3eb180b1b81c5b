/* pre_tokenizer.h - cutting a text into words, across which no token reaches.
 *
 * The "pre_tokenizer" of tokenizer.json: stages, each of which takes one piece and gives several. */
#ifndef LLMD_TEXT_PRE_TOKENIZER_H
#define LLMD_TEXT_PRE_TOKENIZER_H

#include "common/json.h"
#include "text/tokenizer/pattern.h"
#include "text/tokenizer/text_view.h"

enum { PRE_TOKENIZER_STAGES_MAX = 8 };

struct pre_tokenizer {
    struct pre_stage *stages; /* [n_stages] */
    size_t n_stages;
    bool byte_level; /* words are for a vocabulary of bytes, not characters */
};

struct pre_tokenizer_scratch {
    struct text_rewrite text[PRE_TOKENIZER_STAGES_MAX]; /* of the stages that add to the text */
    struct regex_scratch *regex;
    bool tracks;
};

typedef void pre_tokenizer_word_fn(void *arg, const struct text_view *word);

/* NULL and null mean none: the whole text is one word. */
bool pre_tokenizer_load(struct pre_tokenizer *p, const json_t *json, struct err *e);
void pre_tokenizer_fini(struct pre_tokenizer *p);
void pre_tokenizer_scratch_fini(struct pre_tokenizer_scratch *s);

/* Call word() for each word, in order; none is empty.  ERR_INPUT when a regular expression gives up. */
bool pre_tokenizer_run(const struct pre_tokenizer *p, struct pre_tokenizer_scratch *scratch,
                       const struct text_view *text, pre_tokenizer_word_fn *word, void *arg,
                       struct err *e);

#endif
