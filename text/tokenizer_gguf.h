/* tokenizer_gguf.h - a tokenizer as keys of a GGUF file. */
#ifndef LLMD_TEXT_TOKENIZER_GGUF_H
#define LLMD_TEXT_TOKENIZER_GGUF_H

#include "common/gguf_write.h"
#include "text/tokenizer.h"

/* Add tokenizer.ggml.*.  GGUF names how a text is cut into words instead of saying it, so each way it can name is
 * tried, opened again as the gateway would, and compared with *t over texts of many kinds and the text of
 * every token: what is written gives the same ids.  ERR_MODEL when no way does, or for kinds that GGUF has no
 * keys for (Unigram).  architecture: of general.architecture, which the keys' reader looks at. */
bool tokenizer_put_gguf(const struct tokenizer *t, const char *architecture, struct gguf_out *out,
                        struct err *e);

/* Both give the same ids for all those texts; *e says for which they do not. */
bool tokenizer_is_same(const struct tokenizer *a, const struct tokenizer *b, struct err *e);

#endif
