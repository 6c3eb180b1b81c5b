/* admission.c - a counting semaphore that never waits. */
#include "gateway/admission.h"

#include <assert.h>

void admission_init(struct admission *a, uint64_t permits_max, struct stats *stats)
{
    atomic_init(&a->permits_max, permits_max);
    atomic_init(&a->taken, 0);
    a->stats = stats;
}

void admission_set_max(struct admission *a, uint64_t permits_max)
{
    atomic_store_explicit(&a->permits_max, permits_max, memory_order_relaxed);
}

bool admission_take(struct admission *a)
{
    uint64_t taken = atomic_load_explicit(&a->taken, memory_order_relaxed);

    do
        if (taken >= atomic_load_explicit(&a->permits_max, memory_order_relaxed))
            return false;
    while (!atomic_compare_exchange_weak(&a->taken, &taken, taken + 1));
    stat_add(a->stats, STAT_requests_active, 1);
    return true;
}

void admission_take_over(struct admission *a)
{
    atomic_fetch_add(&a->taken, 1);
    stat_add(a->stats, STAT_requests_active, 1);
}

void admission_give(struct admission *a)
{
    uint64_t taken = atomic_fetch_sub(&a->taken, 1);

    assert(taken > 0);
    stat_sub(a->stats, STAT_requests_active, 1);
}

uint64_t admission_taken(const struct admission *a)
{
    return atomic_load(&a->taken);
}
