/* sequence_table.c - a free list and a chained hash over a fixed array. */
#include "gpu-worker/sequence_table.h"

#include <assert.h>
#include <stdlib.h>

#include "common/mem.h"

enum { NONE = -1 };

void sequence_table_init(struct sequence_table *t, uint32_t cap)
{
    *t = (struct sequence_table){ .cap = cap, .n_buckets = 1 };
    while (t->n_buckets < 2 * (uint64_t)cap)
        t->n_buckets *= 2;
    t->sequences = mem_zalloc(cap, sizeof *t->sequences);
    t->free_list = mem_zalloc(cap, sizeof *t->free_list);
    t->buckets = mem_zalloc(t->n_buckets, sizeof *t->buckets);
    for (uint32_t i = 0; i < t->n_buckets; i++)
        t->buckets[i] = (uint32_t)NONE;
    for (uint32_t i = 0; i < cap; i++) {
        t->sequences[i].index = i;
        t->free_list[i] = cap - 1 - i; /* entry 0 first */
    }
}

void sequence_table_fini(struct sequence_table *t)
{
    for (uint32_t i = 0; i < t->cap; i++)
        if (t->sequences[i].state != SEQUENCE_FREE)
            sequence_unload(&t->sequences[i]);
    free(t->sequences);
    free(t->free_list);
    free(t->buckets);
    *t = (struct sequence_table){ 0 };
}

/* Ids are drawn by counting: multiply to spread them (Fibonacci hashing). */
static uint32_t *bucket_of(const struct sequence_table *t, uint64_t id)
{
    return &t->buckets[(id * 0x9E3779B97F4A7C15ull >> 32) & (t->n_buckets - 1)];
}

struct sequence *sequence_table_find(const struct sequence_table *t, uint64_t id)
{
    uint32_t i = *bucket_of(t, id);

    while (i != (uint32_t)NONE && t->sequences[i].id != id)
        i = t->sequences[i].next_hash;
    return i == (uint32_t)NONE ? NULL : &t->sequences[i];
}

struct sequence *sequence_table_peek_free(const struct sequence_table *t)
{
    return t->n_used == t->cap ? NULL : &t->sequences[t->free_list[t->cap - t->n_used - 1]];
}

static void leave_free_list(struct sequence_table *t, uint32_t index)
{
    uint32_t last = t->cap - t->n_used - 1, i = last;

    while (t->free_list[i] != index) /* the last one, except when a ledger is recovered */
        i--;
    t->free_list[i] = t->free_list[last];
    t->n_used++;
}

void sequence_table_add(struct sequence_table *t, struct sequence *q)
{
    uint32_t *head = bucket_of(t, q->id);

    assert(q->state != SEQUENCE_FREE && !sequence_table_find(t, q->id));
    leave_free_list(t, q->index);
    q->next_hash = *head;
    *head = q->index;
}

void sequence_table_remove(struct sequence_table *t, struct sequence *q)
{
    uint32_t *link = bucket_of(t, q->id);

    while (*link != q->index)
        link = &t->sequences[*link].next_hash;
    *link = q->next_hash;
    sequence_unload(q);
    t->n_used--;
    t->free_list[t->cap - t->n_used - 1] = q->index;
}
