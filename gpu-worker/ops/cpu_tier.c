/* cpu_tier.c - which vector instructions this machine has and this operating system saves. */
#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/ops.h"

static const char *const names[N_CPU_TIERS] = { "plain", "avx2", "avx512" };

#if defined(__x86_64__)
#include <cpuid.h>

/* Register states that the system saves at a context switch (XCR0): without them the instructions fault
 * or, worse, lose their upper halves. */
static uint64_t saved_states(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static enum cpu_tier best_tier(void)
{
    const uint32_t avx2_leaf1 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    const uint32_t avx512_leaf7 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    const uint64_t ymm = 0x6, zmm = 0xe0; /* SSE and AVX; masks, upper halves, upper registers */
    uint32_t a, b, c, d, b7, c7, d7;

    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & avx2_leaf1) != avx2_leaf1)
        return CPU_PLAIN;
    if ((saved_states() & ymm) != ymm || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) ||
        !(b7 & bit_AVX2))
        return CPU_PLAIN;
    if ((saved_states() & zmm) != zmm || (b7 & avx512_leaf7) != avx512_leaf7)
        return CPU_AVX2;
    return CPU_AVX512;
}
#else
static enum cpu_tier best_tier(void)
{
    return CPU_PLAIN;
}
#endif

const char *cpu_tier_name(enum cpu_tier tier)
{
    assert((unsigned)tier < N_CPU_TIERS);
    return names[tier];
}

enum cpu_tier cpu_tier_choose(const char *cap)
{
    enum cpu_tier best = best_tier();

    for (unsigned t = 0; t < N_CPU_TIERS; t++)
        if (strcmp(cap, names[t]) == 0 && t < (unsigned)best)
            return (enum cpu_tier)t;
    return best;
}
