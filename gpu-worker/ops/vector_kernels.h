/* vector_kernels.h - the fast copy of ops_cpu.c, written once over a vector `vf` of VF_LANES floats.
 *
 * Included by exactly one unit per instruction set (ops_avx2.c, ops_avx512.c) after it has defined:
 *   VF_LANES                               floats in a vector
 *   vf_set1 vf_add vf_sub vf_mul vf_div vf_max vf_fma(a, b, c) = a * b + c
 *   vf_load vf_store (float), vf_load_bf16, vf_load_f16, and each with _part(.., n):
 *     the first n < VF_LANES elements only; a load fills the rest with 0
 *   vf_fold   the vector's halves added until four floats are left, a __m128;  vf_fold_max  the larger ones
 *   vf_mix_low(a, b) = a0 b0 a1 b1 of each four, vf_mix_high = a2 b2 a3 b3;  vf_pair_low = a0 a1 b0 b1,
 *     vf_pair_high = a2 a3 b2 b3
 *   vf_hmax   the largest lane;  vf_abs;  vf_store_codes(int8_t *p, v)  v in -127 .. 127, to nearest even;
 *     vf_store_i16(int16_t *p, v)  the same, v in -32767 .. 32767
 *   vf_scale_by_power(x, n) = x * 2^n for whole n in -126..127;  vf_round;
 *   vf_fraction(x) = x - floor(x);  vf_scale_by_floor(p, x, r) = p * 2^floor(x), given r = vf_fraction(x); of x below -126
 *     anything;  vf_zero_below(x, y, limit) =
 *     x >= limit or NaN ? y : 0
 *   vi  VF_LANES int32, or pairs of int16: vi_set1, vi_load, vi_load_i8 (of pairs of int8) and both with _part(.., n pairs);
 *     vi_dot_into(vi *sum, a, b, has_dot)  to each int32 the two products of its pair; has_dot: by VNNI;  vf_of_int
 *
 * Bits.  A sum over n elements always is: lane l adds elements l, l + VF_LANES, ... in this order by FMA
 * from 0 (a short last vector adds 0 * 0), then vf_fold, then (0 + 2) + (1 + 3).  Tiles only decide how
 * many such sums run side by side.  Elementwise ops treat a short tail as a vector filled up with 0, so
 * an element's result does not depend on where it stands. */
#ifndef LLMD_GPU_WORKER_OPS_VECTOR_KERNELS_H
#define LLMD_GPU_WORKER_OPS_VECTOR_KERNELS_H

#ifndef VF_LANES
#error "define the vector first"
#endif

#include <assert.h>
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/cpu_kernels.h"

#define INLINE static inline __attribute__((always_inline))

INLINE vf load_as(const enum dtype dtype, const char *p, size_t i)
{
    if (dtype == DTYPE_F32)
        return vf_load((const float *)p + i);
    if (dtype == DTYPE_F16)
        return vf_load_f16((const uint16_t *)p + i);
    return vf_load_bf16((const uint16_t *)p + i);
}

INLINE vf load_part_as(const enum dtype dtype, const char *p, size_t i, uint32_t n)
{
    if (dtype == DTYPE_F32)
        return vf_load_part((const float *)p + i, n);
    if (dtype == DTYPE_F16)
        return vf_load_f16_part((const uint16_t *)p + i, n);
    return vf_load_bf16_part((const uint16_t *)p + i, n);
}

INLINE size_t size_of(const enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 4 : 2;
}

INLINE float sum4(__m128 v)
{
    __m128 pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));

    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
}

INLINE float vf_hsum(vf v)
{
    return sum4(vf_fold(v));
}

/* The sums of four vectors' lanes. */
INLINE __m128 vf_hsum4(const vf *v)
{
    vf a = vf_add(vf_mix_low(v[0], v[1]), vf_mix_high(v[0], v[1]));
    vf b = vf_add(vf_mix_low(v[2], v[3]), vf_mix_high(v[2], v[3]));

    return vf_fold(vf_add(vf_pair_low(a, b), vf_pair_high(a, b)));
}

/* The largest lanes of four vectors. */
INLINE __m128 vf_hmax4(const vf *v)
{
    vf a = vf_max(vf_mix_low(v[0], v[1]), vf_mix_high(v[0], v[1]));
    vf b = vf_max(vf_mix_low(v[2], v[3]), vf_mix_high(v[2], v[3]));

    return vf_fold_max(vf_max(vf_pair_low(a, b), vf_pair_high(a, b)));
}

/* e^x to about 1 ulp for x in -87.3 .. 88.7; 0 below, 3.4e38 above, NaN of NaN.
 * x = n ln 2 + r, |r| <= ln(2) / 2, ln 2 in two parts; a polynomial for e^r. */
INLINE vf vf_exp(vf x)
{
    const float lowest = -87.336544f;
    vf c = vf_max(vf_set1(lowest), vf_min(vf_set1(88.722839f), x));
    vf n = vf_round(vf_mul(c, vf_set1(1.44269504f)));
    vf r = vf_fma(n, vf_set1(-0.693359375f), c);
    vf p = vf_set1(1.9875691500e-4f);

    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    p = vf_fma(p, vf_mul(r, r), vf_add(r, vf_set1(1)));
    return vf_zero_below(x, vf_scale_by_power(p, n), lowest);
}

/* 2^x for x <= 0, to about 2 ulp; 0 below -126 (no denormals: they are slow), NaN of NaN.  A polynomial of 2^r with the
 * least relative error (8.2e-8) in 0 <= r < 1 of those that are 1 at 0. */
INLINE vf vf_exp2_negative(vf x)
{
    vf r = vf_fraction(x), p = vf_set1(1.86713098e-3f);

    p = vf_fma(p, r, vf_set1(9.01702793e-3f));
    p = vf_fma(p, r, vf_set1(5.57999153e-2f));
    p = vf_fma(p, r, vf_set1(2.40164449e-1f));
    p = vf_fma(p, r, vf_set1(6.93151312e-1f));
    p = vf_fma(p, r, vf_set1(1));
    return vf_zero_below(x, vf_scale_by_floor(p, x, r), -126);
}

/* 2^x to 2.9e-6 of it (2^-18), for weights that become codes; 2^-100 at least, so that what it is multiplied with
 * makes no denormals, which are slow; 2^127 at most or infinite; NaN of NaN. */
INLINE vf vf_exp2_coarse(vf x)
{
    vf c = vf_clamp_power(x, -100), r = vf_fraction(c), p = vf_set1(1.3426684e-2f);

    p = vf_fma(p, r, vf_set1(5.2242474e-2f));
    p = vf_fma(p, r, vf_set1(2.4128020e-1f));
    p = vf_fma(p, r, vf_set1(6.9304484e-1f));
    p = vf_fma(p, r, vf_set1(1));
    return vf_scale_clamped(p, c, r);
}

/* ---- tiles of rows or tokens ---- */

/* Rows in tiles of at most so many, of nearly equal width. */
struct tiles {
    uint32_t n, width, n_wide; /* the first n_wide tiles have width tokens, the others one less */
};

INLINE struct tiles tiles_of(uint32_t n_rows, uint32_t width_max)
{
    uint32_t n = (n_rows + width_max - 1) / width_max;
    uint32_t width = (n_rows + n - 1) / n;

    return (struct tiles){ n, width, n - (n * width - n_rows) };
}

INLINE uint32_t tile_first(struct tiles t, uint32_t i)
{
    return i <= t.n_wide ? i * t.width : i * (t.width - 1) + t.n_wide;
}

INLINE uint32_t tile_width(struct tiles t, uint32_t i)
{
    return t.width - (i >= t.n_wide);
}

INLINE uint32_t tile_of(struct tiles t, uint32_t token)
{
    uint32_t wide = t.n_wide * t.width;

    return token < wide ? token / t.width : t.n_wide + (token - wide) / (t.width - 1);
}

/* ---- elementwise ---- */

static void vector_widen(float *y, const void *x, enum dtype dtype, uint32_t n)
{
    uint32_t i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store(y + i, load_as(dtype, x, i));
    if (i < n)
        vf_store_part(y + i, load_part_as(dtype, x, i, n - i), n - i);
}

INLINE float sum_of_squares(const float *x, uint32_t dim)
{
    vf sum = vf_set1(0);
    uint32_t i = 0;

    for (; i + VF_LANES <= dim; i += VF_LANES)
        sum = vf_fma(vf_load(x + i), vf_load(x + i), sum);
    if (i < dim) {
        vf tail = vf_load_part(x + i, dim - i);
        sum = vf_fma(tail, tail, sum);
    }
    return vf_hsum(sum);
}

INLINE float norm_scale(const float *x, uint32_t dim, float eps)
{
    return 1 / sqrtf(sum_of_squares(x, dim) / (float)dim + eps);
}

INLINE void vf_store_i8(int8_t *y, vf x, float inverse)
{
    vf_store_codes(y, vf_min(vf_max(vf_mul(x, vf_set1(inverse)), vf_set1(-127)), vf_set1(127)));
}

INLINE float largest_of(const float *x, uint32_t n)
{
    vf largest = vf_set1(0);
    uint32_t i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        largest = vf_max(vf_abs(vf_load(x + i)), largest);
    if (i < n)
        largest = vf_max(vf_abs(vf_load_part(x + i, n - i)), largest);
    return vf_hmax(largest);
}

static float vector_narrow_i8(int8_t *y, const float *x, uint32_t n)
{
    float scale = largest_of(x, n) / 127, inverse = scale > 0 ? 1 / scale : 0;
    uint32_t i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store_i8(y + i, vf_load(x + i), inverse);
    if (i < n) {
        int8_t codes[VF_LANES];
        vf_store_i8(codes, vf_load_part(x + i, n - i), inverse);
        memcpy(y + i, codes, n - i);
    }
    return scale;
}

/* x / scale, whose size is at most INT16_MAX; of a scale too small for a reciprocal 0. */
INLINE void store_codes16(int16_t *y, const float *x, uint32_t n, float scale)
{
    vf inverse = vf_set1(scale >= FLT_MIN ? 1 / scale : 0);
    uint32_t i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store_i16(y + i, vf_mul(vf_load(x + i), inverse));
    if (i < n) {
        int16_t codes[VF_LANES];
        vf_store_i16(codes, vf_mul(vf_load_part(x + i, n - i), inverse));
        memcpy(y + i, codes, (n - i) * sizeof *y);
    }
}

static float vector_narrow_k16(int16_t *y, const float *x, uint32_t n)
{
    float scale = sqrtf(sum_of_squares(x, n)) / KV_K16_LENGTH;

    store_codes16(y, x, n, scale);
    return scale;
}

static float vector_narrow_v16(int16_t *y, const float *x, uint32_t n)
{
    float scale = largest_of(x, n) / KV_V16_MAX;

    store_codes16(y, x, n, scale);
    return scale;
}

static void vector_rmsnorm(float *y, const float *x, const float *w, uint32_t dim, float eps)
{
    vf scale = vf_set1(norm_scale(x, dim, eps));
    uint32_t i = 0;

    for (; i + VF_LANES <= dim; i += VF_LANES)
        vf_store(y + i, vf_mul(vf_load(w + i), vf_mul(vf_load(x + i), scale)));
    if (i < dim)
        vf_store_part(
            y + i,
            vf_mul(vf_load_part(w + i, dim - i), vf_mul(vf_load_part(x + i, dim - i), scale)),
            dim - i);
}

static void vector_rope(float *x, const float *cos, const float *sin, uint32_t half)
{
    uint32_t i = 0;

    for (; i + VF_LANES <= half; i += VF_LANES) {
        vf a = vf_load(x + i), b = vf_load(x + half + i);
        vf c = vf_load(cos + i), s = vf_load(sin + i);
        vf_store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(x + half + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
    for (; i < half; i++) { /* no FMA above, so this rounds the same */
        float a = x[i], b = x[half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = b * cos[i] + a * sin[i];
    }
}

/* 2 sqrt(2 / pi) (a + 0.044715 a^3): gelu(a) = a / (1 + exp(-this)) */
INLINE vf gelu_exponent(vf a)
{
    vf cubic = vf_fma(vf_mul(vf_mul(a, a), vf_set1(0.044715f)), a, a);

    return vf_mul(vf_set1(1.5957691216f), cubic);
}

INLINE vf gate_mul(vf gate, vf up, const enum activation act)
{
    vf one = vf_set1(1), z = act == ACT_SILU ? gate : gelu_exponent(gate);

    return vf_mul(vf_div(gate, vf_add(one, vf_exp(vf_sub(vf_set1(0), z)))), up);
}

INLINE void gate_as(float *y, const float *gate, const float *up, uint32_t n,
                    const enum activation act)
{
    uint32_t i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store(y + i, gate_mul(vf_load(gate + i), vf_load(up + i), act));
    if (i < n)
        vf_store_part(y + i,
                      gate_mul(vf_load_part(gate + i, n - i), vf_load_part(up + i, n - i), act),
                      n - i);
}

static void vector_gate(float *y, const float *gate, const float *up, uint32_t n,
                        enum activation act)
{
    if (act == ACT_SILU)
        gate_as(y, gate, up, n, ACT_SILU);
    else
        gate_as(y, gate, up, n, ACT_GELU_TANH);
}

#define CPU_KERNELS_TABLE(attend)                                                                  \
    {                                                                                              \
        .widen = vector_widen, .narrow_i8 = vector_narrow_i8, .narrow_k16 = vector_narrow_k16,     \
        .narrow_v16 = vector_narrow_v16, .rmsnorm = vector_rmsnorm, .rope = vector_rope,           \
        .attention_queries = vector_attention_queries, .attention = (attend),                      \
        .attention_merge = vector_attention_merge, .attention_finish = vector_attention_finish,    \
        .gate = vector_gate,                                                                       \
    }

#endif
