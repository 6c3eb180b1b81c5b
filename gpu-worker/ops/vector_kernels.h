/* vector_kernels.h - the fast copy of ops_cpu.c, written once over a vector `vf` of VF_LANES floats.
 *
 * Included by exactly one unit per instruction set (ops_avx2.c, ops_avx512.c) after it has defined:
 *   VF_LANES, TILE_TOKENS                  floats in a vector; tokens of a tile of linear()
 *   vf_set1 vf_add vf_sub vf_mul vf_div vf_max vf_fma(a, b, c) = a * b + c
 *   vf_load vf_store (float), vf_load_bf16, vf_load_f16, vf_store_f16 and each with _part(.., n):
 *     the first n < VF_LANES elements only; a load fills the rest with 0
 *   vf_fold   the vector's halves added until four floats are left, a __m128
 *   vf_hmax   the largest lane
 *   vf_scale_by_power(x, n) = x * 2^n for whole n in -126..127;  vf_round;  vf_zero_below(x, y, limit) =
 *     x >= limit or NaN ? y : 0
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

/* Four sums at once, each added in the order of vf_hsum(). */
INLINE __m128 vf_hsum4(const vf v[4])
{
    __m128 a = vf_fold(v[0]), b = vf_fold(v[1]), c = vf_fold(v[2]), d = vf_fold(v[3]);
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));

    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
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

/* ---- attention ---- */

/* p[t - begin] = scale * q . k[t] for t in begin .. end-1. */
INLINE void score_page(const enum dtype dtype, float *p, const float *q, const char *k,
                       uint32_t begin, uint32_t end, uint32_t head_dim, float scale)
{
    uint32_t whole = head_dim / VF_LANES * VF_LANES, rest = head_dim - whole;
    uint32_t t = begin;

    for (; t + 4 <= end; t += 4) {
        vf acc[4] = { vf_set1(0), vf_set1(0), vf_set1(0), vf_set1(0) };
        for (uint32_t d = 0; d < whole; d += VF_LANES) {
            vf qs = vf_load(q + d);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                acc[i] = vf_fma(load_as(dtype, k, (size_t)(t + i) * head_dim + d), qs, acc[i]);
        }
        if (rest)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                acc[i] = vf_fma(load_part_as(dtype, k, (size_t)(t + i) * head_dim + whole, rest),
                                vf_load_part(q + whole, rest), acc[i]);
        _mm_storeu_ps(p + t - begin, _mm_mul_ps(vf_hsum4(acc), _mm_set1_ps(scale)));
    }
    for (; t < end; t++) {
        vf acc = vf_set1(0);
        for (uint32_t d = 0; d < whole; d += VF_LANES)
            acc = vf_fma(load_as(dtype, k, (size_t)t * head_dim + d), vf_load(q + d), acc);
        if (rest)
            acc = vf_fma(load_part_as(dtype, k, (size_t)t * head_dim + whole, rest),
                         vf_load_part(q + whole, rest), acc);
        p[t - begin] = vf_hsum(acc) * scale;
    }
}

/* p[i] = exp(p[i] - m_new) for n scores; returns their sum.  *m becomes m_new, *shrink = exp(m - m_new).
 * p has room for a whole last vector. */
INLINE float soften(float *p, uint32_t n, float *m, float *shrink)
{
    vf largest = vf_set1(*m), sum = vf_set1(0);
    float m_new;

    for (uint32_t i = n; i % VF_LANES != 0; i++)
        p[i] = -INFINITY;
    for (uint32_t i = 0; i < n; i += VF_LANES)
        largest = vf_max(largest, vf_load(p + i));
    m_new = vf_hmax(largest);
    for (uint32_t i = 0; i < n; i += VF_LANES) {
        vf w = vf_exp(vf_sub(vf_load(p + i), vf_set1(m_new)));
        vf_store(p + i, w);
        sum = vf_add(sum, w);
    }
    *shrink = expf(*m - m_new);
    *m = m_new;
    return vf_hsum(sum);
}

/* out = out * shrink + sum_t p[t - begin] v[t], t in begin .. end-1; four vectors of a head at a time. */
INLINE void add_values(const enum dtype dtype, float *out, const float *p, const char *v,
                       uint32_t begin, uint32_t end, uint32_t head_dim, float shrink)
{
    uint32_t d = 0;

    for (; d + 4 * VF_LANES <= head_dim; d += 4 * VF_LANES) {
        vf acc[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            acc[i] = vf_mul(vf_load(out + d + i * VF_LANES), vf_set1(shrink));
        for (uint32_t t = begin; t < end; t++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                acc[i] = vf_fma(vf_set1(p[t - begin]),
                                load_as(dtype, v, (size_t)t * head_dim + d + i * VF_LANES), acc[i]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            vf_store(out + d + i * VF_LANES, acc[i]);
    }
    for (; d + VF_LANES <= head_dim; d += VF_LANES) {
        vf acc = vf_mul(vf_load(out + d), vf_set1(shrink));
        for (uint32_t t = begin; t < end; t++)
            acc = vf_fma(vf_set1(p[t - begin]), load_as(dtype, v, (size_t)t * head_dim + d), acc);
        vf_store(out + d, acc);
    }
    if (d < head_dim) {
        uint32_t n = head_dim - d;
        vf acc = vf_mul(vf_load_part(out + d, n), vf_set1(shrink));
        for (uint32_t t = begin; t < end; t++)
            acc = vf_fma(vf_set1(p[t - begin]), load_part_as(dtype, v, (size_t)t * head_dim + d, n),
                         acc);
        vf_store_part(out + d, acc, n);
    }
}

INLINE void attend_as(const struct attention_job *j, const enum dtype dtype)
{
    float scores[ATTENTION_PAGE_TOKENS_MAX + VF_LANES];

    for (uint32_t h = 0; h < j->group; h++) {
        float *out = j->out + h * j->head_dim;
        float m = -INFINITY, l = 0, shrink;
        memset(out, 0, j->head_dim * sizeof *out);
        for (uint32_t at = j->first; at <= j->last;) {
            const char *page = j->pages + j->page_table[at / j->page_tokens] * j->page_bytes;
            uint32_t begin = at % j->page_tokens, left = j->last - at + 1;
            uint32_t end = begin + left < j->page_tokens ? begin + left : j->page_tokens;
            float sum;
            score_page(dtype, scores, j->q + h * j->head_dim, page + j->k_offset, begin, end,
                       j->head_dim, j->scale);
            for (uint32_t t = 0; t < end - begin && j->softcap != 0; t++)
                scores[t] = j->softcap * tanhf(scores[t] / j->softcap);
            sum = soften(scores, end - begin, &m, &shrink);
            l = l * shrink + sum;
            add_values(dtype, out, scores, page + j->v_offset, begin, end, j->head_dim, shrink);
            at += end - begin;
        }
        for (uint32_t d = 0; d < j->head_dim; d++)
            out[d] /= l;
    }
}

static void vector_attention(const struct attention_job *j)
{
    assert(j->page_tokens <= ATTENTION_PAGE_TOKENS_MAX && j->first <= j->last);
    if (j->dtype == DTYPE_F32)
        attend_as(j, DTYPE_F32);
    else
        attend_as(j, DTYPE_F16);
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

static void vector_narrow(void *y, const float *x, enum dtype dtype, uint32_t n)
{
    uint16_t *half = y;
    uint32_t i = 0;

    if (dtype == DTYPE_F32) {
        memcpy(y, x, n * sizeof *x);
        return;
    }
    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store_f16(half + i, vf_load(x + i));
    if (i < n)
        vf_store_f16_part(half + i, vf_load_part(x + i, n - i), n - i);
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

#define CPU_KERNELS_TABLE                                                                          \
    {                                                                                              \
        .widen = vector_widen, .narrow = vector_narrow, .rmsnorm = vector_rmsnorm,                 \
        .rope = vector_rope, .attention = vector_attention, .gate = vector_gate,                   \
    }

#endif
