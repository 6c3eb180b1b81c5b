/* unknown.c - byte fallback and the unknown token. */
#include "text/tokenizer/unknown.h"

bool unknown_has_bytes(const struct unknown *u, const char *s, size_t n)
{
    if (!u->byte_fallback)
        return false;
    for (size_t i = 0; i < n; i++)
        if (u->byte_ids[(unsigned char)s[i]] < 0)
            return false;
    return true;
}

void unknown_add(const struct unknown *u, const struct text_view *v, size_t from, size_t to,
                 struct token_list *out, bool with_span)
{
    if (unknown_has_bytes(u, v->s + from, to - from)) {
        for (size_t i = from; i < to; i++)
            text_view_add_token(v, i, i + 1, u->byte_ids[(unsigned char)v->s[i]], out, with_span);
        return;
    }
    if (u->unk_id >= 0)
        text_view_add_token(v, from, to, u->unk_id, out, with_span);
}
