/* text_parts.c - the list, and the search for marks. */
#include "gateway/answer/text_parts.h"

#include <string.h>

static void grow(struct text_parts *parts)
{
    size_t cap = parts->cap ? parts->cap * 2 : 8;
    struct text_part *list = arena_alloc(parts->arena, cap * sizeof *list);

    if (parts->n)
        memcpy(list, parts->list, parts->n * sizeof *list);
    parts->list = list;
    parts->cap = cap;
}

void text_parts_add(struct text_parts *parts, struct text_part part)
{
    struct text_part *last = parts->n ? &parts->list[parts->n - 1] : NULL;

    if (part.n == 0 && part.kind != PART_CALL)
        return;
    if (last && part.kind != PART_CALL && last->kind == part.kind && last->call == part.call &&
        last->s + last->n == part.s) {
        last->n += part.n;
        return;
    }
    if (parts->n == parts->cap)
        grow(parts);
    parts->list[parts->n++] = part;
}

enum mark_match mark_at(const char *text, size_t n, size_t at, const char *mark)
{
    size_t mark_bytes = strlen(mark), have = n - at;

    if (at >= n || memcmp(text + at, mark, have < mark_bytes ? have : mark_bytes) != 0)
        return MARK_NO;
    return have < mark_bytes ? MARK_PART : MARK_YES;
}

size_t mark_find(const char *text, size_t n, size_t at, const char *mark, enum mark_match *match)
{
    *match = MARK_NO;
    while (at < n) {
        const char *first = memchr(text + at, mark[0], n - at);
        if (!first)
            break;
        at = (size_t)(first - text);
        *match = mark_at(text, n, at, mark);
        if (*match != MARK_NO)
            return at;
        at++;
    }
    return n;
}
