/* fair_queue.c - the virtual token counter. */
#include "gateway/admission/fair_queue.h"

#include <assert.h>
#include <stddef.h>

/* A count's unit is so small that a token's share is a whole number for every weight, nearly. */
enum { SCALE = 1 << 16, PROMPT_FACTOR = 1, GENERATED_FACTOR = 2 };

void fair_queue_init(struct fair_queue *q, struct key_record *records, uint32_t room)
{
    *q = (struct fair_queue){ .records = records, .room = room };
    for (int k = 0; k < KEYS_MAX; k++)
        TAILQ_INIT(&q->lists[k]);
}

void fair_charge(struct key_record *record, uint64_t prompt_tokens, uint64_t generated_tokens)
{
    uint64_t weight = atomic_load_explicit(&record->weight, memory_order_relaxed);
    uint64_t tokens = PROMPT_FACTOR * prompt_tokens + GENERATED_FACTOR * generated_tokens;

    atomic_fetch_add_explicit(&record->service, tokens * SCALE / (weight ? weight : 1),
                              memory_order_relaxed);
}

static uint64_t service_of(const struct fair_queue *q, uint32_t key)
{
    return atomic_load_explicit(&q->records[key].service, memory_order_relaxed);
}

static int32_t class_of(const struct fair_queue *q, uint32_t key)
{
    return atomic_load_explicit(&q->records[key].priority, memory_order_relaxed);
}

/* The least count among the waiting keys of a class; when none waits, that of the last to go. */
static uint64_t level_of(const struct fair_queue *q, int32_t class)
{
    uint64_t level = UINT64_MAX;

    for (uint32_t i = 0; i < q->n_keys; i++)
        if (class_of(q, q->keys[i]) == class && service_of(q, q->keys[i]) < level)
            level = service_of(q, q->keys[i]);
    return level == UINT64_MAX ? q->level : level;
}

static void lift(struct fair_queue *q, uint32_t key)
{
    uint64_t level = level_of(q, class_of(q, key));
    uint64_t now = service_of(q, key);

    while (now < level &&
           !atomic_compare_exchange_weak_explicit(&q->records[key].service, &now, level,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* Behind all of its own and smaller priorities. */
static void insert(struct fair_list *list, struct fair_waiter *w)
{
    struct fair_waiter *before;

    TAILQ_FOREACH_REVERSE(before, list, fair_list, link) if (before->priority <= w->priority) break;
    if (before)
        TAILQ_INSERT_AFTER(list, before, w, link);
    else
        TAILQ_INSERT_HEAD(list, w, link);
}

void fair_queue_push(struct fair_queue *q, struct fair_waiter *w)
{
    assert(w->key < KEYS_MAX && w->n_sequences > 0);
    if (TAILQ_EMPTY(&q->lists[w->key])) {
        lift(q, w->key);
        q->keys[q->n_keys++] = w->key;
    }
    w->order = q->n_ever++;
    insert(&q->lists[w->key], w);
    q->n_waiting++;
}

static void forget_key(struct fair_queue *q, uint32_t key)
{
    for (uint32_t i = 0; i < q->n_keys; i++)
        if (q->keys[i] == key) {
            q->keys[i] = q->keys[--q->n_keys];
            return;
        }
}

void fair_queue_remove(struct fair_queue *q, struct fair_waiter *w)
{
    TAILQ_REMOVE(&q->lists[w->key], w, link);
    q->n_waiting--;
    if (TAILQ_EMPTY(&q->lists[w->key]))
        forget_key(q, w->key);
}

static bool goes_before(const struct fair_queue *q, uint32_t a, uint32_t b)
{
    if (class_of(q, a) != class_of(q, b))
        return class_of(q, a) < class_of(q, b);
    if (service_of(q, a) != service_of(q, b))
        return service_of(q, a) < service_of(q, b);
    return TAILQ_FIRST(&q->lists[a])->order < TAILQ_FIRST(&q->lists[b])->order;
}

struct fair_waiter *fair_queue_next(struct fair_queue *q, bool has_room_for_all)
{
    struct fair_waiter *w;
    uint32_t best;

    if (q->n_keys == 0 || (q->n_going >= q->room && !has_room_for_all))
        return NULL;
    best = q->keys[0];
    for (uint32_t i = 1; i < q->n_keys; i++)
        if (goes_before(q, q->keys[i], best))
            best = q->keys[i];
    w = TAILQ_FIRST(&q->lists[best]);
    fair_queue_remove(q, w);
    q->level = service_of(q, best);
    q->n_going += w->n_sequences;
    fair_charge(&q->records[best], w->prompt_tokens, 0);
    return w;
}

void fair_queue_go(struct fair_queue *q, uint32_t n_sequences)
{
    q->n_going += n_sequences;
}

void fair_queue_done(struct fair_queue *q, uint32_t n_sequences)
{
    assert(q->n_going >= n_sequences);
    q->n_going -= n_sequences;
}
