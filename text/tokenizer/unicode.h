/* unicode.h - the one door to utf8proc: character classes, case and normal forms. */
#ifndef LLMD_TEXT_UNICODE_H
#define LLMD_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer/text_view.h"

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* The White_Space property. */
bool unicode_is_space(uint32_t c);

/* A letter, mark, decimal digit, connector or joiner: \w of Unicode's UTS #18. */
bool unicode_is_word(uint32_t c);

/* \p{N}: any kind of number. */
bool unicode_is_number(uint32_t c);

/* Full lower-case mapping, which is one character but for U+0130; returns how many (1 or 2). */
size_t unicode_lower(uint32_t c, uint32_t out[2]);

/* Append v in the given normal form.  Takes time linear in v->n, whatever it holds. */
void unicode_normalize(enum unicode_form form, const struct text_view *v, struct text_rewrite *out);

#endif
