/* philox.h - random numbers without state: Philox4x32-10, a pure function of (key, counter).
 *
 * The sampler's draw for generated position p of a sequence is a function of (seed, p) and nothing else
 * (design rule 2): a successor of a dead worker, or another batch, draws the same number.
 *
 * Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef LLMD_GPU_WORKER_PHILOX_H
#define LLMD_GPU_WORKER_PHILOX_H

#include <stdint.h>

struct philox_block {
    uint32_t word[4];
};

/* Ten rounds over `counter` under `key`. */
struct philox_block philox4x32(struct philox_block counter, const uint32_t key[2]);

/* The number in [0, 1) that decides generated token `position` of a sequence: 53 random bits. */
double philox_uniform(uint64_t seed, uint64_t position);

#endif
