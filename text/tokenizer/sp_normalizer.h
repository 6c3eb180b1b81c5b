/* sp_normalizer.h - the normalizer inside a SentencePiece model.
 *
 * A table of replacements ("precompiled_charsmap": NFKC and the like, as its trainer chose), then
 * what becomes of spaces. */
#ifndef LLMD_TEXT_SP_NORMALIZER_H
#define LLMD_TEXT_SP_NORMALIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "text/tokenizer/text_view.h"
#include "text/tokenizer/trie.h"

struct sp_normalizer;

struct sp_normalizer_options {
    bool add_dummy_prefix;         /* "hello" is read as " hello" */
    bool remove_extra_whitespaces; /* at both ends, and of several in a row all but one */
    bool escape_whitespaces;       /* a space becomes U+2581 */
};

/* `charsmap` (n bytes, copied, may be empty) as in the model.  `verbatim` (borrowed) has the pieces
 * that are not normalized.  NULL and ERR_MODEL when the charsmap is malformed. */
struct sp_normalizer *sp_normalizer_new(struct sp_normalizer_options options, const char *charsmap,
                                        size_t n, const struct trie *verbatim, struct err *e);
void sp_normalizer_free(struct sp_normalizer *nz);

void sp_normalizer_run(const struct sp_normalizer *nz, const struct text_view *v,
                       struct text_rewrite *out);

#endif
