/* ops_avx512.c - the CPU ops for AVX-512 F, BW, VL and DQ: 16 floats a vector.
 *
 * Thirty-two registers: tiles of 32 rows by 12 tokens use 24 sums, 2 weights and 1 activation. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define VF_LANES    16
#define TILE_TOKENS 12
#define PAIR_TOKENS 12
#define FETCH_COLS  8
#define FETCH_AHEAD 64
#define VF          static inline __attribute__((always_inline))

typedef __m512 vf;
typedef __m512i vi;

VF vf vf_set1(float f)
{
    return _mm512_set1_ps(f);
}
VF vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
VF vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
VF vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
VF vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
VF vf vf_max(vf a, vf b) /* b when one is NaN, as the instruction */
{
    return _mm512_max_ps(a, b);
}
VF vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
VF vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
VF void vf_fma_into(vf *c, vf a, vf b)
{
    *c = _mm512_fmadd_ps(a, b, *c);
}
VF vf vf_abs(vf a)
{
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)));
}
VF vf vf_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
VF vf vf_scale_by_power(vf x, vf n)
{
    return _mm512_scalef_ps(x, n);
}
VF vf vf_fraction(vf x)
{
    return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
VF vf vf_scale_by_floor(vf p, vf x, vf r)
{
    (void)r;
    return _mm512_scalef_ps(p, x);
}
VF vf vf_clamp_power(vf x, float lowest)
{
    return _mm512_max_ps(vf_set1(lowest), x);
}
VF vf vf_scale_clamped(vf p, vf x, vf r)
{
    (void)r;
    return _mm512_scalef_ps(p, x);
}
VF vf vf_zero_below(vf x, vf y, float limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, vf_set1(limit), _CMP_NLT_UQ), y);
}

VF bool vf_any_above(vf x, float limit)
{
    return _mm512_cmp_ps_mask(vf_set1(limit), x, _CMP_NLT_UQ) != 0xffff;
}
VF __m128 vf_fold(vf v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));

    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

VF __m128 vf_fold_max(vf v)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));

    return _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}
VF vf vf_mix_low(vf a, vf b)
{
    return _mm512_unpacklo_ps(a, b);
}
VF vf vf_mix_high(vf a, vf b)
{
    return _mm512_unpackhi_ps(a, b);
}
VF vf vf_pair_low(vf a, vf b)
{
    return _mm512_shuffle_ps(a, b, 0x44);
}
VF vf vf_pair_high(vf a, vf b)
{
    return _mm512_shuffle_ps(a, b, 0xee);
}
VF float vf_hmax(vf v)
{
    return _mm512_reduce_max_ps(v);
}

VF vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
VF void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
VF vf vf_widen_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
VF vf vf_load_bf16(const uint16_t *p)
{
    return vf_widen_bf16(_mm256_loadu_si256((const __m256i *)p));
}
VF vf vf_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
VF vf vf_load_low(const uint32_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
VF vf vf_load_high(const uint32_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}
VF void vf_store_codes(int8_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
VF void vf_store_i16(int16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}

VF vi vi_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}
VF vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
VF void vi_store(void *p, vi v)
{
    _mm512_storeu_si512(p, v);
}
VF vi vi_load_i8(const void *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
VF void vi_dot_into(vi *sum, vi a, vi b, const bool has_dot)
{
#ifdef __AVX512F__
    if (has_dot) { /* written out: the unit is also for processors without it */
        __asm__("vpdpwssd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
        return;
    }
#else /* emulated, by the tests: no such register */
    (void)has_dot;
#endif
    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(a, b));
}
VF vf vf_of_int(vi v)
{
    return _mm512_cvtepi32_ps(v);
}

/* ---- the first n elements, 0 < n < 16 ---- */

VF __mmask16 lanes_below(uint32_t n)
{
    return (__mmask16)((1u << n) - 1);
}
VF vf vf_load_part(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps(lanes_below(n), p);
}
VF void vf_store_part(float *p, vf v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, lanes_below(n), v);
}
VF vf vf_load_bf16_part(const uint16_t *p, uint32_t n)
{
    return vf_widen_bf16(_mm256_maskz_loadu_epi16(lanes_below(n), p));
}
VF vf vf_load_f16_part(const uint16_t *p, uint32_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_below(n), p));
}
VF vi vi_load_part(const void *p, uint32_t n)
{
    return _mm512_maskz_loadu_epi32(lanes_below(n), p);
}
VF vi vi_load_i8_part(const void *p, uint32_t n)
{
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi16(lanes_below(n), p));
}

#include "gpu-worker/ops/attention_kernels.h"
#include "gpu-worker/ops/panel_kernels.h"
#include "gpu-worker/ops/vector_kernels.h"

const struct cpu_kernels cpu_kernels_avx512 = CPU_KERNELS_TABLE(vector_attention);
const struct cpu_kernels cpu_kernels_avx512vnni = CPU_KERNELS_TABLE(vector_attention_dot);
const struct linear_kernel linear_f32_avx512 = { INPUT_TILES, prepare_tiles, panels_f32 };
const struct linear_kernel linear_f16_avx512 = { INPUT_TILES, prepare_tiles, panels_f16 };
const struct linear_kernel linear_bf16_avx512 = { INPUT_TILES, prepare_tiles, panels_bf16 };
