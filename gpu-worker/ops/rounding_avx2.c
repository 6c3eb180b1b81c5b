/* rounding_avx2.c - the arithmetic of rounding.h with AVX2. */
#include "gpu-worker/ops/rounding.h"

#include "gpu-worker/ops/rounding_blocks.h"

uint16_t rounding_i8_avx2(int8_t codes[32], const float x[32])
{
    return round_i8(codes, x);
}

uint16_t rounding_i4_avx2(int8_t codes[32], const float x[32])
{
    return round_i4(codes, x);
}
