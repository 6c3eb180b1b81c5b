/* random.h - the only source of chance in the chaos suite: SplitMix64, so that a seed repeats a run.
 *
 * Each client and the killer draw from streams of their own: what one of them chooses does not depend on
 * how fast the others were. */
#ifndef LLMD_TESTS_CHAOS_RANDOM_H
#define LLMD_TESTS_CHAOS_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The stream of chance number `stream` of a run. */
static inline struct random random_stream(uint64_t seed, uint64_t stream)
{
    struct random r = { seed ^ (stream * 0xd1342543de82ef95u) };

    random_next(&r);
    return r;
}

/* 0 .. n - 1 */
static inline uint32_t random_below(struct random *r, uint32_t n)
{
    return (uint32_t)(random_next(r) % n);
}

/* from .. to, both included */
static inline uint32_t random_from(struct random *r, uint32_t from, uint32_t to)
{
    return from + random_below(r, to - from + 1);
}

#endif
