/* int_vector512.h - a vector of 16 rows, a whole panel, for int_panels.h: what AVX-512 without VNNI, with it, and AMX share. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES        16
#define VECTOR_BYTES 64
#define V            static inline __attribute__((always_inline))
#ifdef __AVX512F__
#define vi_keep(v) __asm__("" : "+v"(v))
#else /* emulated, by the tests: such a register does not exist */
#define vi_keep(v) (void)(v)
#endif

typedef __m512i vi;
typedef __m512 vf;

V vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
V void vi_store(void *p, vi v)
{
    _mm512_storeu_si512(p, v);
}
V vi vi_broadcast(const void *p)
{
    int32_t four;

    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
V vi vi_zero(void)
{
    return _mm512_setzero_si512();
}
V vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
V vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}
V vi vi_shift_left(vi v, const int n)
{
    return _mm512_slli_epi16(v, (unsigned)n);
}
V vi vi_shift_right(vi v, const int n)
{
    return _mm512_srli_epi16(v, n);
}
V vi vi_add16(vi a, vi b)
{
    return _mm512_add_epi16(a, b);
}
V vi vi_sub8(vi a, vi b)
{
    return _mm512_sub_epi8(a, b);
}
V vi vi_add32(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
V vi vi_madd8(vi a, vi b)
{
    return _mm512_maddubs_epi16(a, b);
}
V vi vi_madd16(vi a, vi b)
{
    return _mm512_madd_epi16(a, b);
}
V vi vi_flip_signs(vi v)
{
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}
/* |w| up to 128 is right as an unsigned byte; 2 * 128 * 127 is right in 16 bits */
V vi vi_signed_dot(vi sum, vi w, vi x)
{
    __mmask64 negative = _mm512_movepi8_mask(w);
    vi signed_x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
    vi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x);

    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

V vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
V void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
V vf vf_set1(float f)
{
    return _mm512_set1_ps(f);
}
V vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
V vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
V vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
V vf vf_of_int(vi v)
{
    return _mm512_cvtepi32_ps(v);
}
V vf vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
