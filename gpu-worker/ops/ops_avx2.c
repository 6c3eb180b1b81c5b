/* ops_avx2.c - the CPU ops for AVX2, FMA and F16C: 8 floats a vector.
 *
 * Sixteen registers: tiles of 16 rows by 6 tokens use 12 sums, 2 weights and 1 activation. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define VF_LANES    8
#define TILE_TOKENS 6
#define PAIR_TOKENS 2
#define FETCH_COLS  16
#define FETCH_AHEAD 16
#define VF          static inline __attribute__((always_inline))

typedef __m256 vf;
typedef __m256i vi;

VF vf vf_set1(float f)
{
    return _mm256_set1_ps(f);
}
VF vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
VF vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
VF vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
VF vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
VF vf vf_max(vf a, vf b) /* b when one is NaN, as the instruction */
{
    return _mm256_max_ps(a, b);
}
VF vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
VF vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
/* In place and in this order: gcc 12 else puts some of twelve sums in the register of a factor, begins columns
 * early, and half of the loop becomes spills. */
VF void vf_fma_into(vf *c, vf a, vf b)
{
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(*c) : "x"(a), "x"(b));
}
VF vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
VF vf vf_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 2^n in two steps, so that n may be 128 and -126. */
VF vf vf_scale_by_power(vf x, vf n)
{
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i bias = _mm256_set1_epi32(127), rest = _mm256_sub_epi32(whole, half);
    vf a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vf b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));

    return vf_mul(vf_mul(x, a), b);
}

VF vf vf_fraction(vf x)
{
    return vf_sub(x, _mm256_floor_ps(x));
}
VF vf vf_scale_by_floor(vf p, vf x, vf r)
{
    return vf_scale_by_power(p, vf_max(vf_set1(-126), vf_sub(x, r))); /* denormals are slow */
}

/* At most what an exponent holds. */
VF vf vf_clamp_power(vf x, float lowest)
{
    return _mm256_max_ps(vf_set1(lowest), _mm256_min_ps(vf_set1(127), x));
}
/* 1 <= p <= 2 */
VF vf vf_scale_clamped(vf p, vf x, vf r)
{
    __m256i n = _mm256_cvtps_epi32(vf_sub(x, r));

    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(n, 23)));
}

VF vf vf_zero_below(vf x, vf y, float limit)
{
    return _mm256_and_ps(_mm256_cmp_ps(x, vf_set1(limit), _CMP_NLT_UQ), y);
}

VF bool vf_any_above(vf x, float limit)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(x, vf_set1(limit), _CMP_GT_OQ)) != 0;
}
VF __m128 vf_fold(vf v)
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

VF __m128 vf_fold_max(vf v)
{
    return _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
VF vf vf_mix_low(vf a, vf b)
{
    return _mm256_unpacklo_ps(a, b);
}
VF vf vf_mix_high(vf a, vf b)
{
    return _mm256_unpackhi_ps(a, b);
}
VF vf vf_pair_low(vf a, vf b)
{
    return _mm256_shuffle_ps(a, b, 0x44);
}
VF vf vf_pair_high(vf a, vf b)
{
    return _mm256_shuffle_ps(a, b, 0xee);
}

VF float vf_hmax(vf v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

VF vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
VF void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
VF vf vf_widen_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
VF vf vf_load_bf16(const uint16_t *p)
{
    return vf_widen_bf16(_mm_loadu_si128((const __m128i *)p));
}
VF vf vf_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
VF vf vf_load_low(const uint32_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)p), 16));
}
VF vf vf_load_high(const uint32_t *p)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256((const __m256i *)p),
                                                _mm256_set1_epi32((int)0xffff0000)));
}
VF void vf_store_codes(int8_t *p, vf v)
{
    __m256i whole = _mm256_cvtps_epi32(v);
    __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));

    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}
VF void vf_store_i16(int16_t *p, vf v)
{
    __m256i whole = _mm256_cvtps_epi32(v);

    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(whole),
                                                   _mm256_extracti128_si256(whole, 1)));
}

VF vi vi_set1(int32_t x)
{
    return _mm256_set1_epi32(x);
}
VF vi vi_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
VF void vi_store(void *p, vi v)
{
    _mm256_storeu_si256((__m256i *)p, v);
}
VF vi vi_load_i8(const void *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}
/* In this order, as vf_fma_into().  VNNI is written out: the unit is also for processors without it. */
VF void vi_dot_into(vi *sum, vi a, vi b, const bool has_dot)
{
    vi products;

#ifndef EMULATED_VNNI /* by the tests */
    if (has_dot) {
        __asm__ volatile("%{vex%} vpdpwssd %2, %1, %0" : "+x"(*sum) : "x"(a), "x"(b));
        return;
    }
#else
    (void)has_dot;
#endif
    __asm__ volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
                     : "+x"(*sum), "=&x"(products)
                     : "x"(a), "x"(b));
}
VF vf vf_of_int(vi v)
{
    return _mm256_cvtepi32_ps(v);
}

/* ---- the first n elements, 0 < n < 8 ---- */

VF __m256i lanes_below(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VF vf vf_load_part(const float *p, uint32_t n)
{
    return _mm256_maskload_ps(p, lanes_below(n));
}
VF void vf_store_part(float *p, vf v, uint32_t n)
{
    _mm256_maskstore_ps(p, lanes_below(n), v);
}
VF __m128i load_halves_part(const uint16_t *p, uint32_t n)
{
    uint16_t h[8] = { 0 };

    memcpy(h, p, n * sizeof *p);
    return _mm_loadu_si128((const __m128i *)h);
}
VF vf vf_load_bf16_part(const uint16_t *p, uint32_t n)
{
    return vf_widen_bf16(load_halves_part(p, n));
}
VF vf vf_load_f16_part(const uint16_t *p, uint32_t n)
{
    return _mm256_cvtph_ps(load_halves_part(p, n));
}
VF vi vi_load_part(const void *p, uint32_t n)
{
    return _mm256_maskload_epi32(p, lanes_below(n));
}
VF vi vi_load_i8_part(const void *p, uint32_t n)
{
    int8_t codes[16] = { 0 };

    memcpy(codes, p, (size_t)n * 2);
    return vi_load_i8(codes);
}

#include "gpu-worker/ops/attention_kernels.h"
#include "gpu-worker/ops/panel_kernels.h"
#include "gpu-worker/ops/vector_kernels.h"

const struct cpu_kernels cpu_kernels_avx2 = CPU_KERNELS_TABLE(vector_attention);
const struct cpu_kernels cpu_kernels_avxvnni = CPU_KERNELS_TABLE(vector_attention_dot);
const struct linear_kernel linear_f32_avx2 = { INPUT_TILES, prepare_tiles, panels_f32 };
const struct linear_kernel linear_f16_avx2 = { INPUT_TILES, prepare_tiles, panels_f16 };
const struct linear_kernel linear_bf16_avx2 = { INPUT_TILES, prepare_tiles, panels_bf16 };
