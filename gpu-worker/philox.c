/* philox.c - Philox4x32-10.  Pure functions; any thread. */
#include "gpu-worker/philox.h"

enum { ROUNDS = 10 };

/* The paper's multipliers and Weyl constants (golden ratio, sqrt(3) - 1). */
static const uint32_t multiplier[2] = { 0xD2511F53, 0xCD9E8D57 };
static const uint32_t weyl[2] = { 0x9E3779B9, 0xBB67AE85 };

struct philox_block philox4x32(struct philox_block c, const uint32_t key[2])
{
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a = (uint64_t)multiplier[0] * c.word[0];
        uint64_t b = (uint64_t)multiplier[1] * c.word[2];

        c = (struct philox_block){ { (uint32_t)(b >> 32) ^ c.word[1] ^ k0, (uint32_t)b,
                                     (uint32_t)(a >> 32) ^ c.word[3] ^ k1, (uint32_t)a } };
        k0 += weyl[0];
        k1 += weyl[1];
    }
    return c;
}

double philox_uniform(uint64_t seed, uint64_t position)
{
    struct philox_block counter = { { (uint32_t)position, (uint32_t)(position >> 32), 0, 0 } };
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    struct philox_block r = philox4x32(counter, key);
    uint64_t bits = ((uint64_t)r.word[1] << 32 | r.word[0]) >> 11;

    return (double)bits * 0x1p-53;
}
