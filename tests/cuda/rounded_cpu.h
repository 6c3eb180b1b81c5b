/* rounded_cpu.h - a model on the CPU whose numbers are rounded where the CUDA backend's are in its default mode.
 *
 * Sums in another order differ in their last bits.  Where such a sum lies near the middle of two 16-bit numbers that decides
 * which it is rounded to, and a few such choices are soon in all the numbers behind them: a bfloat16 model that rounds in the
 * same places, but by itself, is nearly as far from the GPU as one that does not round.  So the CPU follows the GPU, which gets
 * each step first: as the input of a product it takes the numbers that the GPU has rounded, and fails the test where one
 * is not what its own, or one next to that, would be rounded to. */
#ifndef LLMD_TESTS_CUDA_ROUNDED_CPU_H
#define LLMD_TESTS_CUDA_ROUNDED_CPU_H

#include <stdint.h>

/* A number that the GPU has rounded may be farther from the CPU's than the nearest 16-bit one by this share of its row's root
 * mean square. */
#define ROUNDED_CPU_TOLERANCE 1e-3

/* The next model that opens on the CPU is such a one, and the only one until it is closed: one rank, KV pages in float16
 * (half_pages.h), no
 * mixture of experts, no window and no cap of scores.  The GPU's is open already, in the default mode, and no other computes. */
void rounded_cpu_next(void);

struct rounded_cpu_counts {
    uint64_t inputs;    /* numbers that were rounded for a product */
    uint64_t otherwise; /* not to the one nearest to the CPU's own */
    double worst;       /* of these, in terms of ROUNDED_CPU_TOLERANCE */
};

/* Of the last such model. */
struct rounded_cpu_counts rounded_cpu_counts(void);

#endif
