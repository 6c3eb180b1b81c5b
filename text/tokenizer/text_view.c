/* text_view.c - rewriting text without forgetting where it came from. */
#include "text/tokenizer/text_view.h"

#include <stdlib.h>

#include "common/mem.h"

void text_view_add_token(const struct text_view *v, size_t from, size_t to, int32_t id,
                         struct token_list *out, bool with_span)
{
    struct token_span span = { 0 };

    if (!with_span) {
        token_list_add(out, id);
        return;
    }
    span.start = text_view_origin(v, from);
    while (to < v->n && text_view_origin(v, to) == span.start)
        to++;
    span.end = text_view_origin(v, to);
    token_list_add_span(out, id, span);
}

void text_rewrite_fini(struct text_rewrite *w)
{
    buf_fini(&w->bytes);
    free(w->map);
    *w = (struct text_rewrite){ 0 };
}

void text_rewrite_reset(struct text_rewrite *w, bool tracks)
{
    buf_clear(&w->bytes);
    w->tracks = tracks;
}

static void reserve_map(struct text_rewrite *w, size_t extra)
{
    size_t need = w->bytes.n + extra + 1;

    if (need <= w->cap)
        return;
    w->cap = need * 2;
    w->map = mem_realloc(w->map, w->cap * sizeof *w->map);
}

void text_rewrite_copy(struct text_rewrite *w, const struct text_view *v, size_t from, size_t to)
{
    if (w->tracks) {
        reserve_map(w, to - from);
        for (size_t i = from; i < to; i++)
            w->map[w->bytes.n + i - from] = text_view_origin(v, i);
    }
    buf_add(&w->bytes, v->s + from, to - from);
}

void text_rewrite_put(struct text_rewrite *w, const char *bytes, size_t n, uint32_t origin)
{
    if (w->tracks) {
        reserve_map(w, n);
        for (size_t i = 0; i < n; i++)
            w->map[w->bytes.n + i] = origin;
    }
    buf_add(&w->bytes, bytes, n);
}

struct text_view text_rewrite_view(struct text_rewrite *w, const struct text_view *was)
{
    buf_reserve(&w->bytes, 0);
    if (w->tracks) {
        reserve_map(w, 0);
        w->map[w->bytes.n] = text_view_origin(was, was->n);
    }
    return (struct text_view){ .s = w->bytes.data,
                               .n = w->bytes.n,
                               .map = w->tracks ? w->map : NULL,
                               .base = was->base,
                               .at_start = was->at_start };
}
