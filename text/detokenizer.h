/* detokenizer.h - token ids to text, one id at a time.
 *
 * Always true: what has been given out is valid UTF-8 and never taken back; and all that was given
 * out, joined, is what detokenize() gives for the whole list at once.  A character whose bytes come in
 * several tokens is held back until it is complete (at most 3 bytes).  Bytes that make no character
 * become U+FFFD as in Python's bytes.decode(errors="replace") for byte-level models: one for each
 * maximal part; for models with byte fallback one for each byte, as SentencePiece does.
 *
 * A struct detokenizer is small, owns no memory and may be copied; the tokenizer must outlive it.
 *
 * Beginning of a text: Llama-2 models spell "hello" with a space in front and drop it again at the
 * beginning of a decoded text.  A generation is not the beginning of a text: it continues the
 * prompt, so its text is decode(prompt + generation) minus decode(prompt), and the space stays.
 * Call detokenizer_continue() with the prompt before the first push to have that; without it, the
 * first pushed id is the beginning of the text.
 *
 * Held against the Hugging Face library: with byte fallback that library replaces a whole run of byte
 * tokens when one of them is bad, valid characters included, which cannot be streamed. */
#ifndef LLMD_TEXT_DETOKENIZER_H
#define LLMD_TEXT_DETOKENIZER_H

#include "common/buf.h"
#include "text/tokenizer.h"

enum detokenizer_flags {
    DETOKENIZER_SKIP_SPECIAL = 1u << 0, /* special tokens leave no text */
};

struct detokenizer {
    const struct tokenizer *t; /* borrowed */
    unsigned flags;
    unsigned strip_left; /* characters that may still be dropped at the beginning of the text */
    bool first;          /* no token has been seen */
    unsigned char n_held;
    char held[4]; /* the beginning of a character */
};

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, unsigned flags);

/* Go on behind these ids, whose text is known and not given out again.  If they end within a
 * character, its bytes are held, and it comes out whole with the push that completes it. */
void detokenizer_continue(struct detokenizer *d, const int32_t *ids, size_t n);

/* Append to *out the text that `id` completes: often one word, sometimes nothing.  An id that stands
 * for nothing (past the vocabulary: padding of the logits) has no text. */
void detokenizer_push(struct detokenizer *d, int32_t id, struct buf *out);

/* The end: what is still held becomes U+FFFD.  Then d may go on with another push. */
void detokenizer_flush(struct detokenizer *d, struct buf *out);

/* All at once: append the text of ids[0..n), as the beginning of a text. */
void detokenize(const struct tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                struct buf *out);

#endif
