/* step_history.c - see step_history.h. */
#include "gpu-worker/step_history.h"

#include <assert.h>

#include "common/clock.h"

enum { DECAY = 64, UNKNOWN_S = 30 };

uint64_t step_work(const struct plan *plan)
{
    uint64_t work = 0;

    for (uint32_t i = 0; i < plan->n_items; i++) {
        uint64_t rows = plan->items[i].n_rows, begin = plan->items[i].sequence->n_computed;
        work += rows * (STEP_ROW_WORK + begin) + rows * (rows + 1) / 2;
    }
    return work;
}

static uint32_t bucket_of(uint64_t work)
{
    uint32_t log = 63 - (uint32_t)__builtin_clzll(work);

    return log < LEDGER_STEP_SIZES ? log : LEDGER_STEP_SIZES - 1;
}

void step_history_learn(struct step_history *h, uint64_t work, uint64_t took_ns)
{
    _Atomic uint64_t *kept;
    uint64_t longest;

    assert(work > 0);
    kept = &h->took_ns[bucket_of(work)];
    longest = atomic_load_explicit(kept, memory_order_relaxed);
    if (took_ns < longest)
        took_ns = longest - (longest - took_ns) / DECAY;
    atomic_store_explicit(kept, took_ns > 0 ? took_ns : 1, memory_order_relaxed);
}

static uint64_t shifted(uint64_t ns, uint32_t by)
{
    return by < 64 && ns <= UINT64_MAX >> by ? ns << by : UINT64_MAX;
}

uint64_t step_history_expect_ns(const struct step_history *h, uint64_t work)
{
    uint32_t at = bucket_of(work);

    for (uint32_t far = 0; far < LEDGER_STEP_SIZES; far++) {
        uint64_t smaller = at >= far ? atomic_load(&h->took_ns[at - far]) : 0;
        uint64_t larger = at + far < LEDGER_STEP_SIZES ? atomic_load(&h->took_ns[at + far]) : 0;
        smaller = shifted(smaller, far);
        if (smaller > 0 || larger > 0)
            return smaller > larger ? smaller : larger;
    }
    return 0;
}

uint64_t step_history_limit_ns(const struct step_history *h, uint64_t work,
                               const struct config *config)
{
    uint64_t expected = step_history_expect_ns(h, work), least = config->hang_step_ms * NS_PER_MS;
    uint64_t limit;

    if (expected == 0)
        limit = UNKNOWN_S * NS_PER_S;
    else if (__builtin_mul_overflow(expected, config->hang_step_factor, &limit))
        limit = UINT64_MAX;
    return limit > least ? limit : least;
}
