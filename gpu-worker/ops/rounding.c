/* rounding.c - see rounding.h: the arithmetic for machines without AVX2, and the choice. */
#include "gpu-worker/ops/rounding.h"

#include "gpu-worker/ops/rounding_blocks.h"

uint16_t rounding_i8(int8_t codes[32], const float x[32])
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return rounding_i8_avx2(codes, x);
#endif
    return round_i8(codes, x);
}

uint16_t rounding_i4(int8_t codes[32], const float x[32])
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return rounding_i4_avx2(codes, x);
#endif
    return round_i4(codes, x);
}
