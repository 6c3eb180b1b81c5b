/* cpu_tier.c - the tiers by name, and the best one under a cap. */
#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/cpu_features.h"

static const char *const names[N_CPU_TIERS] = {
    [CPU_PLAIN] = "plain",           [CPU_AVX2] = "avx2",
    [CPU_AVXVNNI] = "avxvnni",       [CPU_AVX512] = "avx512",
    [CPU_AVX512VNNI] = "avx512vnni", [CPU_AMXINT8] = "amxint8",
    [CPU_AVX512BF16] = "avx512bf16",
};

const char *cpu_tier_name(enum cpu_tier tier)
{
    assert((unsigned)tier < N_CPU_TIERS);
    return names[tier];
}

/* An unknown word ("auto") caps nothing, but what rounds the input of a product has to be asked for. */
static unsigned cap_of(const char *word)
{
    unsigned t = 0;

    while (t < N_CPU_TIERS && strcmp(word, names[t]) != 0)
        t++;
    return t < N_CPU_TIERS ? t : CPU_AMXINT8;
}

enum cpu_tier cpu_tier_choose(const char *cap)
{
    unsigned t = cap_of(cap);

    while (!cpu_enable_tier((enum cpu_tier)t))
        t--;
    return (enum cpu_tier)t;
}
