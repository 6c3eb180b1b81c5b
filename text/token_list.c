/* token_list.c - growable token ids.  Spans are stored only once somebody asks for them. */
#include "text/token_list.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void token_list_fini(struct token_list *l)
{
    free(l->ids);
    free(l->spans);
    *l = (struct token_list){ 0 };
}

void token_list_clear(struct token_list *l)
{
    l->n = 0;
}

static void grow(struct token_list *l)
{
    l->cap = l->cap ? l->cap * 2 : 64;
    l->ids = mem_realloc(l->ids, l->cap * sizeof *l->ids);
    if (l->spans)
        l->spans = mem_realloc(l->spans, l->cap * sizeof *l->spans);
}

void token_list_add(struct token_list *l, int32_t id)
{
    if (l->n == l->cap)
        grow(l);
    if (l->spans)
        l->spans[l->n] = (struct token_span){ 0 };
    l->ids[l->n++] = id;
}

void token_list_add_span(struct token_list *l, int32_t id, struct token_span span)
{
    if (l->n == l->cap)
        grow(l);
    if (!l->spans)
        l->spans = mem_zalloc(l->cap, sizeof *l->spans);
    l->spans[l->n] = span;
    l->ids[l->n++] = id;
}
