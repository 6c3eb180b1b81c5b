/* tokenizer.h - text to token ids, and what each id stands for.
 *
 * Opened from a model directory as published on the Hugging Face hub: tokenizer.json when there is
 * one, else a SentencePiece tokenizer.model; tokenizer_config.json, special_tokens_map.json and
 * added_tokens.json add the names of the special tokens and whether the model wants them.  Or from the
 * metadata of a GGUF file.
 *
 * Always true: a struct tokenizer never changes after tokenizer_open(), so any number of threads may
 * use one at the same time; what a call needs beyond it, it allocates and frees itself.  A field of the
 * model's files that this build does not know is an error at open, never a guess: two ids in a
 * thousand wrong would be an answer slightly worse, which nobody would trace back to here.
 *
 * The ids are those of the Hugging Face `tokenizers` library (tokenizer.json) and of the
 * SentencePiece library (tokenizer.model).  tests/vectors/tokenizer holds the proof.
 *
 * Ids to text: detokenizer.h. */
#ifndef LLMD_TEXT_TOKENIZER_H
#define LLMD_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "text/token_list.h"

struct gguf;
struct tokenizer;

/* Longest text tokenizer_encode() takes, in bytes. */
#define TOKENIZER_TEXT_BYTES_MAX (1u << 30)

enum tokenizer_flags {
    /* Put before and after the text what the model was trained to see there (usually bos). */
    TOKENIZER_ADD_SPECIAL = 1u << 0,
    /* The spelling of a special token in the text ("</s>", "<|eot_id|>") means that token.  For what a
     * chat template made.  Without it such text is text, letter by letter, and no special id
     * can come out of a client's words. */
    TOKENIZER_PARSE_SPECIAL = 1u << 1,
    /* Also fill token_list.spans. */
    TOKENIZER_SPANS = 1u << 2,
};

/* Returns a tokenizer, caller closes it.  NULL: ERR_SYS when a file cannot be read, ERR_MODEL when the
 * model has no tokenizer or one that this build does not understand, ERR_CONFIG (gguf_locate()). */
struct tokenizer *tokenizer_open(const char *model, struct err *e);

/* The same from the bytes of the files themselves, which are not kept.  `config` (of
 * tokenizer_config.json) may be NULL. */
struct tokenizer *tokenizer_open_json(const char *json, size_t n, const char *config,
                                      size_t config_n, struct err *e);
struct tokenizer *tokenizer_open_sentencepiece(const char *model, size_t n, const char *config,
                                               size_t config_n, struct err *e);

struct tokenizer *tokenizer_open_gguf(const struct gguf *g, struct err *e);

void tokenizer_close(struct tokenizer *t); /* NULL is fine */

/* Append the ids of text[0..n) to *out, which the caller may reuse from call to call.  On failure
 * *out is as it was.  ERR_INPUT: text is not UTF-8 (the message says at which byte) or longer than
 * TOKENIZER_TEXT_BYTES_MAX. */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                      struct token_list *out, struct err *e);

/* Ids are 0 .. tokenizer_vocab_size() - 1; a few in between may stand for nothing.  The model's
 * logits may be wider (padding). */
int32_t tokenizer_vocab_size(const struct tokenizer *t);

/* -1 where the model has none. */
int32_t tokenizer_bos_id(const struct tokenizer *t);
int32_t tokenizer_eos_id(const struct tokenizer *t);
int32_t tokenizer_unk_id(const struct tokenizer *t);
int32_t tokenizer_pad_id(const struct tokenizer *t);

/* For the bos_token, eos_token, ... variables of a chat template; NULL where the model has none. */
const char *tokenizer_bos_str(const struct tokenizer *t);
const char *tokenizer_eos_str(const struct tokenizer *t);
const char *tokenizer_unk_str(const struct tokenizer *t);
const char *tokenizer_pad_str(const struct tokenizer *t);

/* Does TOKENIZER_ADD_SPECIAL put bos first?  (A chat template that writes bos itself must then be
 * encoded without that flag.) */
bool tokenizer_adds_bos(const struct tokenizer *t);

/* The bytes a token adds to a text: a space for U+2581, the byte itself for a byte token.  Often not
 * UTF-8 on its own.  NULL and *n = 0 for an id that stands for nothing.  NUL-terminated past its
 * end; borrowed until tokenizer_close(). */
const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id, size_t *n);

/* The token as the vocabulary spells it (UTF-8).  As above otherwise; `n` may be NULL. */
const char *tokenizer_token_str(const struct tokenizer *t, int32_t id, size_t *n);

/* The id of a vocabulary spelling, special and added tokens included; -1 when there is none. */
int32_t tokenizer_token_id(const struct tokenizer *t, const char *piece, size_t n);

/* A control token (bos, end of turn, ...), which has no place in a text shown to a person. */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

#endif
