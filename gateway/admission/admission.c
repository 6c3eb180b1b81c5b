/* admission.c - permits, limits, turns. */
#include "gateway/admission/admission.h"

#include <assert.h>
#include <stddef.h>

#include "gateway/admission/bucket.h"

void admission_init(struct admission *a, uint64_t permits_max, struct key_record *key_records,
                    struct stats *stats)
{
    key_table_init(&a->keys, key_records);
    atomic_init(&a->permits_max, permits_max);
    atomic_init(&a->taken, 0);
    atomic_init(&a->is_unserved, false);
    a->stats = stats;
    pthread_mutex_init(&a->lock, NULL);
    fair_queue_init(&a->queue, a->keys.records, UINT32_MAX);
}

void admission_fini(struct admission *a)
{
    if (!a->stats) /* never made */
        return;
    pthread_mutex_destroy(&a->lock);
    key_table_fini(&a->keys);
    a->stats = NULL;
}

void admission_set_max(struct admission *a, uint64_t permits_max)
{
    atomic_store_explicit(&a->permits_max, permits_max, memory_order_relaxed);
}

/* ---- permits ---- */

/* A key may have so many times what is free, times its weight: a busy one leaves room for others without a
 * fixed part being kept for anybody.  (The dynamic threshold of Choudhury and Hahne, IEEE/ACM Transactions on
 * Networking 6 (1998); there for packets.) */
enum { SHARE_FACTOR = 4 };

static bool has_its_part(const struct admission *a, uint32_t key, uint64_t n_key)
{
    uint64_t max = atomic_load_explicit(&a->permits_max, memory_order_relaxed);
    uint64_t taken = atomic_load_explicit(&a->taken, memory_order_relaxed);
    uint64_t weight =
        atomic_load_explicit(&key_table_record(&a->keys, key)->weight, memory_order_relaxed);

    return atomic_load(&a->keys.n_live) > 1 && taken < max &&
           n_key >= SHARE_FACTOR * weight * (max - taken);
}

static bool take_permit(struct admission *a)
{
    uint64_t taken = atomic_load_explicit(&a->taken, memory_order_relaxed);

    do
        if (taken >= atomic_load_explicit(&a->permits_max, memory_order_relaxed))
            return false;
    while (!atomic_compare_exchange_weak(&a->taken, &taken, taken + 1));
    return true;
}

static void give_permits(struct admission *a, uint32_t n)
{
    uint64_t taken = atomic_fetch_sub(&a->taken, n);

    assert(taken >= n);
}

/* The buckets come last: who is refused for something else has not used them. */
static bool take_rates(struct key_record *r, uint64_t now_ns, struct admission_answer *answer)
{
    uint64_t requests = atomic_load_explicit(&r->requests_per_minute, memory_order_relaxed);
    uint64_t tokens = atomic_load_explicit(&r->tokens_per_minute, memory_order_relaxed);

    if (tokens && !bucket_is_open(&r->tokens_until_ns, tokens, now_ns, &answer->wait_ns)) {
        answer->why = ADMISSION_TOKENS;
        answer->limit = tokens;
        return false;
    }
    if (requests && !bucket_take(&r->requests_until_ns, requests, now_ns, &answer->wait_ns)) {
        answer->why = ADMISSION_REQUESTS;
        answer->limit = requests;
        return false;
    }
    return true;
}

/* n_key: of this key in the house, this request not among them. */
static void judge(struct admission *a, uint32_t key, uint64_t n_key, uint64_t now_ns,
                  struct admission_answer *answer)
{
    struct key_record *r = key_table_record(&a->keys, key);
    uint32_t concurrency = atomic_load_explicit(&r->concurrency, memory_order_relaxed);

    if (concurrency && n_key >= concurrency) {
        answer->why = ADMISSION_CONCURRENCY;
        answer->limit = concurrency;
    } else if (has_its_part(a, key, n_key)) {
        answer->why = ADMISSION_SHARE;
    } else if (!take_permit(a)) {
        answer->why = ADMISSION_FULL;
    } else if (!take_rates(r, now_ns, answer)) {
        give_permits(a, 1);
    }
}

struct admission_answer admission_take(struct admission *a, uint32_t key, uint64_t now_ns)
{
    struct key_record *r = key_table_record(&a->keys, key);
    struct admission_answer answer = { ADMISSION_OK, 0, 0 };
    uint32_t n_key = atomic_fetch_add(&a->keys.n_requests[key], 1);

    judge(a, key, n_key, now_ns, &answer);
    if (answer.why != ADMISSION_OK) {
        atomic_fetch_sub(&a->keys.n_requests[key], 1);
        if (answer.why >= ADMISSION_CONCURRENCY)
            atomic_fetch_add_explicit(&r->n_limited, 1, memory_order_relaxed);
        return answer;
    }
    atomic_fetch_add_explicit(&r->n_requests, 1, memory_order_relaxed);
    stat_add(a->stats, STAT_requests_active, 1);
    return answer;
}

void admission_take_over(struct admission *a, uint32_t key)
{
    atomic_fetch_add(&a->keys.n_requests[key], 1);
    atomic_fetch_add(&a->taken, 1);
    stat_add(a->stats, STAT_requests_active, 1);
}

void admission_answered(struct admission *a, uint32_t key)
{
    uint32_t n_key = atomic_fetch_sub(&a->keys.n_requests[key], 1);

    assert(n_key > 0);
}

bool admission_take_more(struct admission *a, uint32_t n, bool was_let_in)
{
    if (was_let_in) {
        atomic_fetch_add(&a->taken, n);
        return true;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (take_permit(a))
            continue;
        give_permits(a, i);
        return false;
    }
    return true;
}

void admission_give(struct admission *a, uint32_t n)
{
    give_permits(a, n);
    stat_sub(a->stats, STAT_requests_active, 1);
}

uint64_t admission_taken(const struct admission *a)
{
    return atomic_load(&a->taken);
}

/* ---- what it costs ---- */

static void charge_minute(struct key_record *r, uint64_t n, uint64_t now_ns)
{
    uint64_t per_minute = atomic_load_explicit(&r->tokens_per_minute, memory_order_relaxed);

    if (per_minute)
        bucket_charge(&r->tokens_until_ns, per_minute, n, now_ns);
}

void admission_charge_prompt(struct admission *a, uint32_t key, uint64_t n, uint64_t now_ns)
{
    struct key_record *r = key_table_record(&a->keys, key);

    charge_minute(r, n, now_ns);
    atomic_fetch_add_explicit(&r->n_prompt_tokens, n, memory_order_relaxed);
}

void admission_charge_generated(struct admission *a, uint32_t key, uint64_t n, uint64_t now_ns)
{
    struct key_record *r = key_table_record(&a->keys, key);

    charge_minute(r, n, now_ns);
    fair_charge(r, 0, n);
    atomic_fetch_add_explicit(&r->n_generated_tokens, n, memory_order_relaxed);
}

/* ---- turns ---- */

void turn_gate_init(struct turn_gate *gate, void (*wake)(void *ctx), void *ctx)
{
    TAILQ_INIT(&gate->called);
    gate->wake = wake;
    gate->ctx = ctx;
}

static struct turn *turn_of(struct fair_waiter *w)
{
    return (struct turn *)((char *)w - offsetof(struct turn, waiter));
}

/* Everybody whose turn it is now is told, but the one who asks: it sees its state. */
static void call_next(struct admission *a, struct turn *asking)
{
    struct fair_waiter *w;

    while ((w = fair_queue_next(&a->queue, atomic_load(&a->is_unserved)))) {
        struct turn *t = turn_of(w);
        bool was_empty = TAILQ_EMPTY(&t->gate->called);
        stat_sub(a->stats, STAT_requests_queued, 1);
        t->state = t == asking ? TURN_GOING : TURN_CALLED;
        if (t == asking)
            continue;
        TAILQ_INSERT_TAIL(&t->gate->called, t, link);
        if (was_empty)
            t->gate->wake(t->gate->ctx);
    }
}

void admission_set_room(struct admission *a, uint32_t n_sequences)
{
    pthread_mutex_lock(&a->lock);
    a->queue.room = n_sequences;
    call_next(a, NULL);
    pthread_mutex_unlock(&a->lock);
}

void admission_set_served(struct admission *a, bool is_served)
{
    if (atomic_exchange(&a->is_unserved, !is_served) == !is_served || is_served)
        return;
    pthread_mutex_lock(&a->lock);
    call_next(a, NULL);
    pthread_mutex_unlock(&a->lock);
}

bool admission_wait(struct admission *a, struct turn *t, uint64_t now_ns)
{
    bool goes;

    pthread_mutex_lock(&a->lock);
    assert(t->state == TURN_NONE);
    t->since_ns = now_ns;
    t->state = TURN_WAITING;
    fair_queue_push(&a->queue, &t->waiter);
    stat_add(a->stats, STAT_requests_queued, 1);
    call_next(a, t);
    goes = t->state == TURN_GOING;
    pthread_mutex_unlock(&a->lock);
    return goes;
}

void admission_go_on(struct admission *a, struct turn *t)
{
    pthread_mutex_lock(&a->lock);
    assert(t->state == TURN_NONE);
    fair_queue_go(&a->queue, t->waiter.n_sequences);
    t->state = TURN_GOING;
    pthread_mutex_unlock(&a->lock);
}

struct turn *admission_called(struct admission *a, struct turn_gate *gate)
{
    struct turn *t;

    pthread_mutex_lock(&a->lock);
    t = TAILQ_FIRST(&gate->called);
    if (t) {
        TAILQ_REMOVE(&gate->called, t, link);
        t->state = TURN_GOING;
    }
    pthread_mutex_unlock(&a->lock);
    return t;
}

void admission_leave(struct admission *a, struct turn *t)
{
    pthread_mutex_lock(&a->lock);
    switch (t->state) {
    case TURN_NONE:
        break;
    case TURN_WAITING:
        fair_queue_remove(&a->queue, &t->waiter);
        stat_sub(a->stats, STAT_requests_queued, 1);
        break;
    case TURN_CALLED:
        TAILQ_REMOVE(&t->gate->called, t, link);
        fair_queue_done(&a->queue, t->waiter.n_sequences);
        break;
    case TURN_GOING:
        fair_queue_done(&a->queue, t->waiter.n_sequences);
        break;
    }
    t->state = TURN_NONE;
    call_next(a, NULL);
    pthread_mutex_unlock(&a->lock);
}
