/* rounding_blocks.h - the arithmetic of rounding.h, compiled once for any x86 and once for AVX2.
 *
 * Everything runs in eight lanes, so that the compiler may use vectors, and in one order without FMA, so
 * that both give the same codes. */
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

enum { N = 32, LANES = 8 };

/* The largest magnitude; a NaN counts as more than infinity. */
static float largest(const float *x)
{
    int32_t lanes[LANES] = { 0 }, all = 0, bits[N];

    memcpy(bits, x, sizeof bits);
    for (int k = 0; k < N; k += LANES)
        for (int l = 0; l < LANES; l++) {
            int32_t b = bits[k + l] & 0x7fffffff;
            lanes[l] = b > lanes[l] ? b : lanes[l];
        }
    for (int l = 0; l < LANES; l++)
        all = lanes[l] > all ? lanes[l] : all;
    return float_of_bits((uint32_t)all);
}

/* codes[k] = the nearest to x[k] * inverse within low..high, ties to even.  Adding 1.5 * 2^23 leaves a
 * whole number in the low bits. */
static void choose(float *codes, const float *x, float inverse, float low, float high)
{
    const float big = 12582912;

    for (int k = 0; k < N; k++) {
        float c = (x[k] * inverse + big) - big;
        c = c > low ? c : low;
        codes[k] = c < high ? c : high;
    }
}

static void store(int8_t *codes, const float *from)
{
    for (int k = 0; k < N; k++)
        codes[k] = (int8_t)from[k];
}

/* A block that no f16 scale can say: zero, or what is no number. */
static uint16_t no_codes(int8_t *codes, float m)
{
    memset(codes, 0, N);
    return isfinite(m) ? 0 : float_to_f16(m);
}

static uint16_t round_i8(int8_t *codes, const float *x)
{
    float m = largest(x), rounded[N];
    uint16_t half = float_to_f16(m / 127);
    float scale = f16_to_float(half);

    if (!(scale > 0) || !isfinite(scale))
        return no_codes(codes, m);
    choose(rounded, x, 1 / scale, -127, 127);
    store(codes, rounded);
    return half;
}

/* ---- four bits ---- */

static float sum_lanes(const float *s)
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* The scale with the least loss for some codes; the loss is sum x^2 - gain. */
struct choice {
    float scale, gain;
};

static struct choice try_scale(const float *x, float scale)
{
    float codes[N], above[LANES] = { 0 }, below[LANES] = { 0 }, a, b;

    choose(codes, x, 1 / scale, -8, 7);
    for (int k = 0; k < N; k += LANES)
        for (int l = 0; l < LANES; l++) {
            above[l] += x[k + l] * codes[k + l];
            below[l] += codes[k + l] * codes[k + l];
        }
    a = sum_lanes(above);
    b = sum_lanes(below);
    return b > 0 ? (struct choice){ a / b, a * a / b } : (struct choice){ 0, 0 };
}

/* What the largest value is taken for: at -8 and 7 it is kept, beyond it is cut. */
static const float ends[] = { -8.5F, -8, 7, 7.5F };

enum { N_ENDS = sizeof ends / sizeof *ends };

static float find_end(const float *x, float m)
{
    float end = m;

    for (int k = 0; k < N; k++)
        end = x[k] == -m ? -m : end;
    return end;
}

static uint16_t round_i4(int8_t *codes, const float *x)
{
    float m = largest(x), unit[N], end, rounded[N];
    float smallest = f16_to_float(float_to_f16(m / 8)), scale;
    struct choice best = { 0, -1 };
    uint16_t half;

    if (!(smallest > 0) || !isfinite(smallest))
        return no_codes(codes, m);
    for (int k = 0; k < N; k++)
        unit[k] = x[k] / m; /* so that no square overflows or vanishes */
    end = find_end(x, m) / m;
    for (int i = 0; i < N_ENDS; i++) {
        struct choice c = try_scale(unit, end / ends[i]);
        best = c.gain > best.gain ? c : best;
    }
    half = float_to_f16(best.scale * m);
    scale = f16_to_float(half);
    if (scale == 0 || !isfinite(scale))
        return no_codes(codes, scale == 0 ? 0 : scale);
    choose(rounded, x, 1 / scale, -8, 7);
    store(codes, rounded);
    return half;
}
