/* bucket.c - take from buckets. */
#include "gateway/admission/bucket.h"

#include <assert.h>

#include "common/clock.h"

#define MINUTE_NS (60 * NS_PER_S)

/* Debts past a day are forgiven: no number may wrap. */
enum { DEBT_MINUTES_MAX = 24 * 60 };
#define DEBT_NS_MAX (DEBT_MINUTES_MAX * MINUTE_NS)

static uint64_t time_of(uint64_t n, uint64_t per_minute)
{
    assert(per_minute > 0);
    if (n / DEBT_MINUTES_MAX >= per_minute)
        return DEBT_NS_MAX;
    return (uint64_t)((unsigned __int128)n * MINUTE_NS / per_minute);
}

/* How long it will take to be full. */
static uint64_t missing_ns(uint64_t full_at_ns, uint64_t now_ns)
{
    return full_at_ns > now_ns ? full_at_ns - now_ns : 0;
}

static bool fits(uint64_t missing, uint64_t *wait_ns)
{
    if (missing <= MINUTE_NS)
        return true;
    *wait_ns = missing - MINUTE_NS;
    return false;
}

bool bucket_take(_Atomic uint64_t *full_at_ns, uint64_t per_minute, uint64_t now_ns,
                 uint64_t *wait_ns)
{
    uint64_t full_ns = atomic_load_explicit(full_at_ns, memory_order_relaxed);
    uint64_t after_ns;

    do {
        after_ns = missing_ns(full_ns, now_ns) + time_of(1, per_minute);
        if (!fits(after_ns, wait_ns))
            return false;
    } while (!atomic_compare_exchange_weak(full_at_ns, &full_ns, now_ns + after_ns));
    return true;
}

bool bucket_is_open(const _Atomic uint64_t *full_at_ns, uint64_t per_minute, uint64_t now_ns,
                    uint64_t *wait_ns)
{
    uint64_t full_ns = atomic_load_explicit(full_at_ns, memory_order_relaxed);

    return fits(missing_ns(full_ns, now_ns) + time_of(1, per_minute), wait_ns);
}

void bucket_charge(_Atomic uint64_t *full_at_ns, uint64_t per_minute, uint64_t n, uint64_t now_ns)
{
    uint64_t full_ns = atomic_load_explicit(full_at_ns, memory_order_relaxed);
    uint64_t after_ns;

    do {
        after_ns = missing_ns(full_ns, now_ns) + time_of(n, per_minute);
        if (after_ns > DEBT_NS_MAX)
            after_ns = DEBT_NS_MAX;
    } while (!atomic_compare_exchange_weak(full_at_ns, &full_ns, now_ns + after_ns));
}
