/* normalizer.h - what happens to a text before it is cut into words.
 *
 * A chain of steps, each from text to text: the "normalizer" of tokenizer.json, or the one inside a
 * SentencePiece model. */
#ifndef LLMD_TEXT_NORMALIZER_H
#define LLMD_TEXT_NORMALIZER_H

#include "common/json.h"
#include "text/tokenizer/pattern.h"
#include "text/tokenizer/text_view.h"

struct normalizer {
    struct normalizer_step *steps; /* [n_steps] */
    size_t n_steps;
    struct sp_normalizer *sentencepiece; /* or NULL; runs after the steps */
};

struct normalizer_scratch {
    struct text_rewrite text[2]; /* steps read from one and write to the other */
    struct regex_scratch *regex;
};

/* From the "normalizer" of tokenizer.json; NULL and null mean none. */
bool normalizer_load(struct normalizer *nz, const json_t *json, struct err *e);
void normalizer_fini(struct normalizer *nz);
void normalizer_scratch_fini(struct normalizer_scratch *s);

/* Replace *text by its normal form, borrowed until the next run with this scratch.  ERR_INPUT when a
 * regular expression gives up on it. */
bool normalizer_run(const struct normalizer *nz, struct normalizer_scratch *scratch, bool tracks,
                    struct text_view *text, struct err *e);

#endif
