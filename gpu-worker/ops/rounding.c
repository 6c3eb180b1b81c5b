/* rounding.c - see rounding.h.
 *
 * Sums run in eight lanes, so that the compiler may use vectors and every machine gets the same codes. */
#include "gpu-worker/ops/rounding.h"

#include <math.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

enum { N = 32, LANES = 8 };

static float largest(const float *x)
{
    float m[LANES] = { 0 }, all = 0;

    for (int k = 0; k < N; k++)
        if (!isfinite(x[k]))
            return x[k] * x[k];
    for (int k = 0; k < N; k += LANES)
        for (int l = 0; l < LANES; l++)
            m[l] = fabsf(x[k + l]) > m[l] ? fabsf(x[k + l]) : m[l];
    for (int l = 0; l < LANES; l++)
        all = m[l] > all ? m[l] : all;
    return all;
}

/* To the nearest whole number, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves it in the low bits. */
static inline float nearest(float x)
{
    const float big = 12582912;

    return (x + big) - big;
}

/* codes[k] = the nearest to x[k] / scale within low..high */
static void choose(float *codes, const float *x, float inverse, float low, float high)
{
    for (int k = 0; k < N; k++) {
        float c = x[k] * inverse;
        c = c < low ? low : c > high ? high : c;
        codes[k] = nearest(c);
    }
}

static void store(int8_t *codes, const float *from)
{
    for (int k = 0; k < N; k++)
        codes[k] = (int8_t)from[k];
}

/* A scale that f16 holds, or 0 and no codes; infinity and NaN stay. */
static uint16_t no_codes(int8_t *codes, float scale)
{
    memset(codes, 0, N);
    return isfinite(scale) ? 0 : float_to_f16(scale);
}

uint16_t rounding_i8(int8_t codes[N], const float x[N])
{
    float m = largest(x), rounded[N];
    uint16_t half = float_to_f16(m / 127);
    float scale = f16_to_float(half);

    if (!(scale > 0) || !isfinite(scale))
        return no_codes(codes, isfinite(m) ? 0 : m);
    choose(rounded, x, 1 / scale, -127, 127);
    store(codes, rounded);
    return half;
}

/* ---- four bits ---- */

static float sum_lanes(const float *s)
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* sum x^2 (x - scale c)^2 */
static float loss(const float *x, const float *codes, float scale)
{
    float s[LANES] = { 0 };

    for (int k = 0; k < N; k += LANES)
        for (int l = 0; l < LANES; l++) {
            float e = x[k + l] * (x[k + l] - scale * codes[k + l]);
            s[l] += e * e;
        }
    return sum_lanes(s);
}

/* The scale with the least loss for these codes: sum x^2 x c / sum x^2 c^2. */
static float fit(const float *x, const float *codes)
{
    float xc[LANES] = { 0 }, cc[LANES] = { 0 }, below;

    for (int k = 0; k < N; k += LANES)
        for (int l = 0; l < LANES; l++) {
            float w = x[k + l] * x[k + l], c = codes[k + l];
            xc[l] += w * x[k + l] * c;
            cc[l] += w * c * c;
        }
    below = sum_lanes(cc);
    return below > 0 ? sum_lanes(xc) / below : 0;
}

static float as_f16(float x)
{
    return f16_to_float(float_to_f16(x));
}

struct choice {
    float scale, loss, codes[N];
};

static void try_scale(struct choice *best, const float *x, float scale)
{
    struct choice c = { .scale = as_f16(scale) };

    if (c.scale == 0 || !isfinite(c.scale))
        return;
    choose(c.codes, x, 1 / c.scale, -8, 7);
    c.loss = loss(x, c.codes, c.scale);
    if (c.loss < best->loss)
        *best = c;
}

uint16_t rounding_i4(int8_t codes[N], const float x[N])
{
    float m = largest(x), end = 0;
    struct choice best = { .loss = INFINITY };

    if (!(as_f16(m / 8) > 0) || !isfinite(as_f16(m / 8)))
        return no_codes(codes, isfinite(m) ? 0 : m);
    for (int k = 0; k < N; k++)
        if (fabsf(x[k]) == m)
            end = x[k];
    /* the largest value at code -8 - i/4, both signs of the scale: at -8 it is exact, beyond it is cut */
    for (int i = -6; i <= 4; i++) {
        float scale = end / (-8 + (float)i * 0.25f);
        try_scale(&best, x, scale);
        try_scale(&best, x, -scale);
    }
    try_scale(&best, x, fit(x, best.codes));
    store(codes, best.codes);
    return float_to_f16(best.scale);
}
