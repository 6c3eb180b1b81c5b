/* cpu_features.c - with emulated instructions every tier is here, on any machine with AVX2. */
#include "gpu-worker/ops/cpu_features.h"

bool cpu_enable_tier(enum cpu_tier tier)
{
    return tier == CPU_PLAIN || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                 __builtin_cpu_supports("f16c"));
}

/* The other way than most machines'. */
bool cpu_fetches_far(void)
{
    return true;
}
