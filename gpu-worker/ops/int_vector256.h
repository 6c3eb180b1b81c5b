/* int_vector256.h - a vector of 8 rows for int_panels.h: what AVX2 and AVX-VNNI share. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES        8
#define VECTOR_BYTES 32
#define V            static inline __attribute__((always_inline))
#define vi_keep(v)   __asm__("" : "+x"(v))

typedef __m256i vi;
typedef __m256 vf;

V vi vi_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
V void vi_store(void *p, vi v)
{
    _mm256_storeu_si256((__m256i *)p, v);
}
V vi vi_broadcast(const void *p)
{
    int32_t four;

    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
V vi vi_zero(void)
{
    return _mm256_setzero_si256();
}
V vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}
V vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}
V vi vi_shift_left(vi v, const int n)
{
    return _mm256_slli_epi16(v, n);
}
V vi vi_shift_right(vi v, const int n)
{
    return _mm256_srli_epi16(v, n);
}
V vi vi_add16(vi a, vi b)
{
    return _mm256_add_epi16(a, b);
}
V vi vi_add32(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
V vi vi_madd8(vi a, vi b)
{
    return _mm256_maddubs_epi16(a, b);
}
V vi vi_madd16(vi a, vi b)
{
    return _mm256_madd_epi16(a, b);
}
V vi vi_flip_signs(vi v)
{
    return _mm256_xor_si256(v, _mm256_set1_epi8(-128));
}
/* |w| up to 128 is right as an unsigned byte; 2 * 128 * 127 is right in 16 bits */
V vi vi_signed_dot(vi sum, vi w, vi x)
{
    vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));

    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

V vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
V void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
V vf vf_set1(float f)
{
    return _mm256_set1_ps(f);
}
V vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
V vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
V vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
V vf vf_of_int(vi v)
{
    return _mm256_cvtepi32_ps(v);
}
V vf vf_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
