/* token_list.h - a growable list of token ids, and where in the text each came from.
 *
 * Owner: whoever holds the struct; a zeroed one is empty. */
#ifndef LLMD_TEXT_TOKEN_LIST_H
#define LLMD_TEXT_TOKEN_LIST_H

#include <stddef.h>
#include <stdint.h>

/* The bytes [start, end) of the input that a token stands for, whole characters.  Tokens that share
 * a character share its bytes; tokens put there by TOKENIZER_ADD_SPECIAL have [0, 0). */
struct token_span {
    uint32_t start, end;
};

struct token_list {
    int32_t *ids;             /* [n] */
    struct token_span *spans; /* [n], of the entries added with TOKENIZER_SPANS; may be NULL */
    size_t n;
    size_t cap;
};

void token_list_fini(struct token_list *l);
void token_list_clear(struct token_list *l); /* empty, memory kept */
void token_list_add(struct token_list *l, int32_t id);
void token_list_add_span(struct token_list *l, int32_t id, struct token_span span);

#endif
