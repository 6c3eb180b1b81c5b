/* e4m3.h - 8-bit floats of 4 bits of exponent, on the host: sign, exponent with a bias of 7, 3 bits of fraction.
 *
 * Micikevicius et al. 2022, arXiv:2209.05433.  No infinities: the largest number is 448, all ones is NaN.  The
 * smallest is 2^-9. */
#ifndef LLMD_GPU_WORKER_OPS_E4M3_H
#define LLMD_GPU_WORKER_OPS_E4M3_H

#include <math.h>
#include <stdint.h>

#include "gpu-worker/ops/half.h"

#define E4M3_LARGEST 448.0f

/* Exact.  The lower seven bits, four further up, are the bits of a float that is 2^120 too small. */
static inline float e4m3_to_float(uint8_t b)
{
    float magnitude = float_of_bits((uint32_t)(b & 0x7f) << 20) * 0x1p120f;

    if ((b & 0x7f) == 0x7f)
        return float_of_bits(0x7fc00000);
    return b & 0x80 ? -magnitude : magnitude;
}

/* To nearest, ties to even; beyond 448: 448; NaN: NaN. */
static inline uint8_t float_to_e4m3(float x)
{
    uint32_t bits = bits_of_float(x), sign = bits >> 24 & 0x80;
    float magnitude = float_of_bits(bits & 0x7fffffff);

    if (magnitude != magnitude)
        return 0x7f;
    if (magnitude > E4M3_LARGEST)
        magnitude = E4M3_LARGEST;
    if (magnitude < 0x1p-6f) /* in steps of 2^-9 */
        return (uint8_t)(sign | (uint32_t)lrintf(magnitude * 512));
    bits = bits_of_float(magnitude);
    bits += 0x7ffff + (bits >> 20 & 1);
    return (uint8_t)(sign | ((bits >> 20) - (120u << 3)));
}

#endif
