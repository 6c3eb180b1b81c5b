/* token_decoder.h - how the tokens of a model become text again: the "decoder" of tokenizer.json.
 *
 * All decoders we know are, with a little state at the beginning of a text, a function of the single
 * token.  So what each token adds is worked out once, at open (vocab_token.bytes), and detokenizer.c
 * only joins bytes. */
#ifndef LLMD_TEXT_TOKEN_DECODER_H
#define LLMD_TEXT_TOKEN_DECODER_H

#include "common/json.h"
#include "text/tokenizer/vocab.h"

enum { TOKEN_DECODER_REPLACEMENTS_MAX = 4 };

struct token_decoder {
    bool byte_level;    /* pieces are written in GPT-2's alphabet */
    bool byte_fallback; /* "<0x0A>" is a byte; each that makes no character is one U+FFFD */
    unsigned n_replacements;
    struct {
        char *from, *to; /* in the piece, n_from > 0 */
        size_t n_from, n_to;
    } replacements[TOKEN_DECODER_REPLACEMENTS_MAX];
    unsigned strip_start; /* so many strip_char are dropped from the beginning of the text */
    char strip_char;
    char first_drops[8]; /* Metaspace: the character the first token is rid of; "" for none */
};

bool token_decoder_load(struct token_decoder *d, const json_t *json, struct err *e);
void token_decoder_init_sentencepiece(struct token_decoder *d, unsigned strip_start);
void token_decoder_fini(struct token_decoder *d);

/* Work out vocab->tokens[].bytes. */
void token_decoder_apply(const struct token_decoder *d, struct vocab *vocab);

#endif
