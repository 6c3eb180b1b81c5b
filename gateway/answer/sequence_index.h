/* sequence_index.h - sequences by id, through their own hash_next: a sequence is in one at most. */
#ifndef LLMD_GATEWAY_ANSWER_SEQUENCE_INDEX_H
#define LLMD_GATEWAY_ANSWER_SEQUENCE_INDEX_H

#include "gateway/answer/sequence.h"

enum { SEQUENCE_INDEX_BUCKETS = 1024 };

struct sequence_index {
    struct sequence *buckets[SEQUENCE_INDEX_BUCKETS];
};

static inline struct sequence **sequence_index_bucket(struct sequence_index *x, uint64_t id)
{
    return &x->buckets[id % SEQUENCE_INDEX_BUCKETS];
}

/* NULL: it is not there. */
static inline struct sequence *sequence_index_find(struct sequence_index *x, uint64_t id)
{
    struct sequence *s = *sequence_index_bucket(x, id);

    while (s && s->id != id)
        s = s->hash_next;
    return s;
}

static inline void sequence_index_add(struct sequence_index *x, struct sequence *s)
{
    struct sequence **at = sequence_index_bucket(x, s->id);

    s->hash_next = *at;
    *at = s;
}

/* It is there. */
static inline void sequence_index_remove(struct sequence_index *x, struct sequence *s)
{
    struct sequence **at = sequence_index_bucket(x, s->id);

    while (*at != s)
        at = &(*at)->hash_next;
    *at = s->hash_next;
    s->hash_next = NULL;
}

#endif
