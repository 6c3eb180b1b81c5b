/* watermark.c - the generator and the permutation of watermark.h. */
#include "gpu-worker/watermark.h"

#include <assert.h>
#include <math.h>

enum { STATE = 624, SHIFT = 397 };

#define HASH_KEY    15485863u
#define UPPER_BIT   0x80000000u
#define LOWER_BITS  0x7FFFFFFFu
#define TWIST       0x9908B0DFu
#define SEED_FACTOR 1812433253u

struct mt19937 {
    uint32_t state[STATE];
    uint32_t next; /* of state; STATE = all used up */
};

static void mt19937_seed(struct mt19937 *g, uint32_t seed)
{
    g->state[0] = seed;
    for (uint32_t i = 1; i < STATE; i++)
        g->state[i] = SEED_FACTOR * (g->state[i - 1] ^ g->state[i - 1] >> 30) + i;
    g->next = STATE;
}

static void mt19937_renew(struct mt19937 *g)
{
    for (uint32_t i = 0; i < STATE; i++) {
        uint32_t y = (g->state[i] & UPPER_BIT) | (g->state[(i + 1) % STATE] & LOWER_BITS);
        g->state[i] = g->state[(i + SHIFT) % STATE] ^ y >> 1 ^ (y & 1 ? TWIST : 0);
    }
    g->next = 0;
}

static uint32_t mt19937_draw(struct mt19937 *g)
{
    uint32_t y;

    if (g->next == STATE)
        mt19937_renew(g);
    y = g->state[g->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680u;
    y ^= y << 15 & 0xEFC60000u;
    return y ^ y >> 18;
}

uint32_t watermark_n_green(uint32_t vocab_size, float gamma)
{
    double share = round((double)gamma * 1e6) / 1e6;

    assert(share >= 0 && share <= 1);
    return (uint32_t)(vocab_size * share);
}

/* A place once swapped is final, so it is enough to go as far as the green ones do. */
void watermark_green(uint32_t *ids, uint32_t vocab_size, uint32_t n_green, int32_t previous)
{
    struct mt19937 g;

    assert(n_green <= vocab_size);
    mt19937_seed(&g, HASH_KEY * (uint32_t)previous);
    for (uint32_t i = 0; i < vocab_size; i++)
        ids[i] = i;
    for (uint32_t i = 0; i < n_green && i + 1 < vocab_size; i++) {
        uint32_t at = i + mt19937_draw(&g) % (vocab_size - i), id = ids[i];
        ids[i] = ids[at];
        ids[at] = id;
    }
}
