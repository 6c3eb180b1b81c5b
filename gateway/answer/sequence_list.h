/* sequence_list.h - a queue of sequences through their own prev and next: a sequence is in one at most. */
#ifndef LLMD_GATEWAY_ANSWER_SEQUENCE_LIST_H
#define LLMD_GATEWAY_ANSWER_SEQUENCE_LIST_H

#include "gateway/answer/sequence.h"

struct sequence_list {
    struct sequence *first, *last;
    uint32_t n;
};

static inline void sequence_list_remove(struct sequence_list *l, struct sequence *s)
{
    if (s->prev)
        s->prev->next = s->next;
    else
        l->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        l->last = s->prev;
    s->prev = s->next = NULL;
    l->n--;
}

static inline void sequence_list_append(struct sequence_list *l, struct sequence *s)
{
    s->prev = l->last;
    s->next = NULL;
    if (l->last)
        l->last->next = s;
    else
        l->first = s;
    l->last = s;
    l->n++;
}

static inline void sequence_list_prepend(struct sequence_list *l, struct sequence *s)
{
    s->next = l->first;
    s->prev = NULL;
    if (l->first)
        l->first->prev = s;
    else
        l->last = s;
    l->first = s;
    l->n++;
}

#endif
