/* immintrin.h - instead of the compiler's: instructions that this machine may lack, in plain C.
 *
 * The tests compile the units of newer instruction sets a second time with this folder first in the search
 * path and flags for AVX2 only (emulated.cmake).  So the very same source is proven on any machine with
 * AVX2; natively it is tested where the machine has the instructions.  Types are the compiler's own, which
 * it cuts in halves.  What is missing here is a compile error of the unit; write it as the instruction's
 * description in the Intel 64 manual says, lane by lane. */
#ifndef LLMD_TESTS_OPS_EMULATED_IMMINTRIN_H
#define LLMD_TESTS_OPS_EMULATED_IMMINTRIN_H

#include_next <immintrin.h>

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* nothing of this is passed between units */

#define EMULATED static inline __attribute__((always_inline, unused))

/* The same bytes as lanes of one type. */
union emulated512 {
    __m512i v;
    __m512 ps;
    __m256i half[2];
    __m256 half_ps[2];
    int8_t i8[64];
    uint8_t u8[64];
    int16_t i16[32];
    uint16_t u16[32];
    int32_t i32[16];
    uint32_t u32[16];
    float f32[16];
};

#define OF(x)    ((union emulated512){ .v = (x) })
#define OF_PS(x) ((union emulated512){ .ps = (x) })

/* ---- moving ---- */

#define _mm512_loadu_si512 emulated_loadu_si512
EMULATED __m512i emulated_loadu_si512(const void *p)
{
    union emulated512 r;

    memcpy(&r, p, sizeof r);
    return r.v;
}
#define _mm512_load_si512 emulated_loadu_si512

#define _mm512_storeu_si512 emulated_storeu_si512
EMULATED void emulated_storeu_si512(void *p, __m512i v)
{
    memcpy(p, &v, sizeof v);
}
#define _mm512_store_si512 emulated_storeu_si512

#define _mm512_loadu_ps emulated_loadu_ps
EMULATED __m512 emulated_loadu_ps(const void *p)
{
    union emulated512 r;

    memcpy(&r, p, sizeof r);
    return r.ps;
}
#define _mm512_load_ps emulated_loadu_ps

#define _mm512_storeu_ps emulated_storeu_ps
EMULATED void emulated_storeu_ps(void *p, __m512 v)
{
    memcpy(p, &v, sizeof v);
}
#define _mm512_store_ps emulated_storeu_ps

#define _mm512_setzero_si512 emulated_setzero_si512
EMULATED __m512i emulated_setzero_si512(void)
{
    return (union emulated512){ .u32 = { 0 } }.v;
}

#define _mm512_setzero_ps emulated_setzero_ps
EMULATED __m512 emulated_setzero_ps(void)
{
    return (union emulated512){ .u32 = { 0 } }.ps;
}

#define _mm512_set1_epi32 emulated_set1_epi32
EMULATED __m512i emulated_set1_epi32(int32_t i)
{
    __m256i h = _mm256_set1_epi32(i);

    return (union emulated512){ .half = { h, h } }.v;
}

#define _mm512_set1_epi8 emulated_set1_epi8
EMULATED __m512i emulated_set1_epi8(char i)
{
    __m256i h = _mm256_set1_epi8(i);

    return (union emulated512){ .half = { h, h } }.v;
}

#define _mm512_set1_epi16 emulated_set1_epi16
EMULATED __m512i emulated_set1_epi16(short i)
{
    __m256i h = _mm256_set1_epi16(i);

    return (union emulated512){ .half = { h, h } }.v;
}

#define _mm512_set1_ps emulated_set1_ps
EMULATED __m512 emulated_set1_ps(float f)
{
    __m256 h = _mm256_set1_ps(f);

    return (union emulated512){ .half_ps = { h, h } }.ps;
}

#define _mm512_castps512_ps256 emulated_castps512_ps256
EMULATED __m256 emulated_castps512_ps256(__m512 v)
{
    return OF_PS(v).half_ps[0];
}

#define _mm512_extractf32x8_ps(v, i) (OF_PS(v).half_ps[i])

#define _mm512_castsi512_ps emulated_castsi512_ps
EMULATED __m512 emulated_castsi512_ps(__m512i v)
{
    return OF(v).ps;
}

#define _mm512_castps_si512 emulated_castps_si512
EMULATED __m512i emulated_castps_si512(__m512 v)
{
    return OF_PS(v).v;
}

/* ---- halves do it ---- */

#define EMULATED_2(name, type, member, half)                                                       \
    EMULATED type emulated_##name(type a, type b)                                                  \
    {                                                                                              \
        union emulated512 x, y;                                                                    \
        memcpy(&x, &a, sizeof x);                                                                  \
        memcpy(&y, &b, sizeof y);                                                                  \
        x.member[0] = half(x.member[0], y.member[0]);                                              \
        x.member[1] = half(x.member[1], y.member[1]);                                              \
        memcpy(&a, &x, sizeof a);                                                                  \
        return a;                                                                                  \
    }

#define _mm512_add_epi32 emulated_add_epi32
EMULATED_2(add_epi32, __m512i, half, _mm256_add_epi32)
#define _mm512_add_epi16 emulated_add_epi16
EMULATED_2(add_epi16, __m512i, half, _mm256_add_epi16)
#define _mm512_sub_epi8 emulated_sub_epi8
EMULATED_2(sub_epi8, __m512i, half, _mm256_sub_epi8)
#define _mm512_and_si512 emulated_and_si512
EMULATED_2(and_si512, __m512i, half, _mm256_and_si256)
#define _mm512_or_si512 emulated_or_si512
EMULATED_2(or_si512, __m512i, half, _mm256_or_si256)
#define _mm512_xor_si512 emulated_xor_si512
EMULATED_2(xor_si512, __m512i, half, _mm256_xor_si256)
#define _mm512_maddubs_epi16 emulated_maddubs_epi16
EMULATED_2(maddubs_epi16, __m512i, half, _mm256_maddubs_epi16)
#define _mm512_madd_epi16 emulated_madd_epi16
EMULATED_2(madd_epi16, __m512i, half, _mm256_madd_epi16)
#define _mm512_add_ps emulated_add_ps
EMULATED_2(add_ps, __m512, half_ps, _mm256_add_ps)
#define _mm512_sub_ps emulated_sub_ps
EMULATED_2(sub_ps, __m512, half_ps, _mm256_sub_ps)
#define _mm512_mul_ps emulated_mul_ps
EMULATED_2(mul_ps, __m512, half_ps, _mm256_mul_ps)
#define _mm512_div_ps emulated_div_ps
EMULATED_2(div_ps, __m512, half_ps, _mm256_div_ps)
#define _mm512_max_ps emulated_max_ps
EMULATED_2(max_ps, __m512, half_ps, _mm256_max_ps)
#define _mm512_min_ps emulated_min_ps
EMULATED_2(min_ps, __m512, half_ps, _mm256_min_ps)

#define _mm512_fmadd_ps emulated_fmadd_ps
EMULATED __m512 emulated_fmadd_ps(__m512 a, __m512 b, __m512 c)
{
    union emulated512 x = OF_PS(a), y = OF_PS(b), z = OF_PS(c);

    for (int h = 0; h < 2; h++)
        x.half_ps[h] = _mm256_fmadd_ps(x.half_ps[h], y.half_ps[h], z.half_ps[h]);
    return x.ps;
}

#define _mm512_abs_ps emulated_abs_ps
EMULATED __m512 emulated_abs_ps(__m512 a)
{
    union emulated512 x = OF_PS(a);

    for (int i = 0; i < 16; i++)
        x.u32[i] &= 0x7fffffff;
    return x.ps;
}

#define _mm512_abs_epi8 emulated_abs_epi8
EMULATED __m512i emulated_abs_epi8(__m512i a)
{
    union emulated512 x = OF(a);

    for (int h = 0; h < 2; h++)
        x.half[h] = _mm256_abs_epi8(x.half[h]);
    return x.v;
}

#undef _mm512_srli_epi16
#define _mm512_srli_epi16 emulated_srli_epi16
EMULATED __m512i emulated_srli_epi16(__m512i a, unsigned n)
{
    union emulated512 x = OF(a);

    for (int h = 0; h < 2; h++)
        x.half[h] = _mm256_srli_epi16(x.half[h], (int)n);
    return x.v;
}

#undef _mm512_slli_epi16
#define _mm512_slli_epi16 emulated_slli_epi16
EMULATED __m512i emulated_slli_epi16(__m512i a, unsigned n)
{
    union emulated512 x = OF(a);

    for (int h = 0; h < 2; h++)
        x.half[h] = _mm256_slli_epi16(x.half[h], (int)n);
    return x.v;
}

#undef _mm512_slli_epi32
#define _mm512_slli_epi32 emulated_slli_epi32
EMULATED __m512i emulated_slli_epi32(__m512i a, unsigned n)
{
    union emulated512 x = OF(a);

    for (int h = 0; h < 2; h++)
        x.half[h] = _mm256_slli_epi32(x.half[h], (int)n);
    return x.v;
}

#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(v, mode) emulated_round_ps(v)
EMULATED __m512 emulated_round_ps(__m512 a) /* to nearest even, all we use */
{
    union emulated512 x = OF_PS(a);

    for (int h = 0; h < 2; h++)
        x.half_ps[h] = _mm256_round_ps(x.half_ps[h], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return x.ps;
}

/* a - floor(a), all we use */
#undef _mm512_reduce_ps
#define _mm512_reduce_ps(v, mode) emulated_reduce_ps(v)
EMULATED __m512 emulated_reduce_ps(__m512 a)
{
    union emulated512 x = OF_PS(a);

    for (int h = 0; h < 2; h++)
        x.half_ps[h] = _mm256_sub_ps(x.half_ps[h], _mm256_floor_ps(x.half_ps[h]));
    return x.ps;
}

/* ---- conversions ---- */

#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
EMULATED __m512 emulated_cvtepi32_ps(__m512i a)
{
    union emulated512 x = OF(a);

    for (int h = 0; h < 2; h++)
        x.half_ps[h] = _mm256_cvtepi32_ps(x.half[h]);
    return x.ps;
}

#define _mm512_cvtps_epi32 emulated_cvtps_epi32
EMULATED __m512i emulated_cvtps_epi32(__m512 a)
{
    union emulated512 x = OF_PS(a);

    for (int h = 0; h < 2; h++)
        x.half[h] = _mm256_cvtps_epi32(x.half_ps[h]);
    return x.v;
}

#define _mm512_cvtph_ps emulated_cvtph_ps
EMULATED __m512 emulated_cvtph_ps(__m256i a)
{
    union emulated512 x;

    x.half_ps[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
    x.half_ps[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
    return x.ps;
}

#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
EMULATED __m512i emulated_cvtepu16_epi32(__m256i a)
{
    union emulated512 x;

    x.half[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
    x.half[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1));
    return x.v;
}

#define _mm512_cvtepi8_epi16 emulated_cvtepi8_epi16
EMULATED __m512i emulated_cvtepi8_epi16(__m256i a)
{
    union emulated512 x;

    x.half[0] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(a));
    x.half[1] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(a, 1));
    return x.v;
}

#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
EMULATED __m256i emulated_cvtepi32_epi16(__m512i a)
{
    union emulated512 x = OF(a);
    int16_t words[16];

    for (int i = 0; i < 16; i++)
        words[i] = (int16_t)(x.u32[i] & 0xffff);
    return _mm256_loadu_si256((const __m256i *)words);
}

#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
EMULATED __m128i emulated_cvtepi32_epi8(__m512i a)
{
    union emulated512 x = OF(a);
    int8_t bytes[16];

    for (int i = 0; i < 16; i++)
        bytes[i] = (int8_t)(x.u32[i] & 0xff);
    return _mm_loadu_si128((const __m128i *)bytes);
}

/* a * 2^floor(b); all b here are whole */
#define _mm512_scalef_ps emulated_scalef_ps
EMULATED __m512 emulated_scalef_ps(__m512 a, __m512 b)
{
    union emulated512 x = OF_PS(a), y = OF_PS(b);

    for (int i = 0; i < 16; i++)
        x.f32[i] = isnan(y.f32[i]) ? y.f32[i] : ldexpf(x.f32[i], (int)floorf(y.f32[i]));
    return x.ps;
}

#define _mm512_unpacklo_ps emulated_unpacklo_ps
EMULATED_2(unpacklo_ps, __m512, half_ps, _mm256_unpacklo_ps)
#define _mm512_unpackhi_ps emulated_unpackhi_ps
EMULATED_2(unpackhi_ps, __m512, half_ps, _mm256_unpackhi_ps)

#undef _mm512_shuffle_ps
#define _mm512_shuffle_ps(a, b, lanes)                                                             \
    emulated_join_ps(_mm256_shuffle_ps(OF_PS(a).half_ps[0], OF_PS(b).half_ps[0], lanes),           \
                     _mm256_shuffle_ps(OF_PS(a).half_ps[1], OF_PS(b).half_ps[1], lanes))
EMULATED __m512 emulated_join_ps(__m256 low, __m256 high)
{
    union emulated512 x = { .half_ps = { low, high } };

    return x.ps;
}

#define _mm512_reduce_max_ps emulated_reduce_max_ps
EMULATED float emulated_reduce_max_ps(__m512 a)
{
    union emulated512 x = OF_PS(a);

    for (int apart = 8; apart > 0; apart /= 2)
        for (int i = 0; i < apart; i++)
            x.f32[i] = x.f32[i] > x.f32[i + apart] ? x.f32[i] : x.f32[i + apart];
    return x.f32[0];
}

/* ---- masks ---- */

#define _mm512_movepi8_mask emulated_movepi8_mask
EMULATED __mmask64 emulated_movepi8_mask(__m512i a)
{
    union emulated512 x = OF(a);

    return (uint32_t)_mm256_movemask_epi8(x.half[0]) |
           (__mmask64)(uint32_t)_mm256_movemask_epi8(x.half[1]) << 32;
}

#define _mm512_mask_sub_epi8 emulated_mask_sub_epi8
EMULATED __m512i emulated_mask_sub_epi8(__m512i from, __mmask64 m, __m512i a, __m512i b)
{
    union emulated512 r = OF(from), x = OF(a), y = OF(b);

    for (int i = 0; i < 64; i++)
        if (m >> i & 1)
            r.u8[i] = (uint8_t)(x.u8[i] - y.u8[i]);
    return r.v;
}

#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, how) emulated_cmp_nlt_mask(a, b, how)
EMULATED __mmask16 emulated_cmp_nlt_mask(__m512 a, __m512 b, int how)
{
    union emulated512 x = OF_PS(a), y = OF_PS(b);
    unsigned m = 0;

    if (how != _CMP_NLT_UQ) /* all we use */
        __builtin_trap();
    for (int i = 0; i < 16; i++)
        m |= (unsigned)!(x.f32[i] < y.f32[i]) << i;
    return (__mmask16)m;
}

#define _mm512_maskz_mov_ps emulated_maskz_mov_ps
EMULATED __m512 emulated_maskz_mov_ps(__mmask16 m, __m512 a)
{
    union emulated512 x = OF_PS(a);

    for (int i = 0; i < 16; i++)
        if (!(m >> i & 1))
            x.u32[i] = 0;
    return x.ps;
}

#define _mm512_maskz_loadu_epi32 emulated_maskz_loadu_epi32
EMULATED __m512i emulated_maskz_loadu_epi32(__mmask16 m, const void *p)
{
    union emulated512 x = { .u32 = { 0 } };

    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            memcpy(&x.u32[i], (const char *)p + 4 * i, 4);
    return x.v;
}

#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
EMULATED __m512 emulated_maskz_loadu_ps(__mmask16 m, const float *p)
{
    union emulated512 x = { .u32 = { 0 } };

    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            x.f32[i] = p[i];
    return x.ps;
}

#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
EMULATED void emulated_mask_storeu_ps(float *p, __mmask16 m, __m512 v)
{
    union emulated512 x = OF_PS(v);

    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            p[i] = x.f32[i];
}

#define _mm256_maskz_loadu_epi16 emulated_maskz_loadu_epi16
EMULATED __m256i emulated_maskz_loadu_epi16(__mmask16 m, const void *p)
{
    uint16_t h[16] = { 0 };

    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            memcpy(&h[i], (const char *)p + 2 * i, 2);
    return _mm256_loadu_si256((const __m256i *)h);
}

#define _mm_mask_storeu_epi8 emulated_mask_storeu_epi8
EMULATED void emulated_mask_storeu_epi8(void *p, __mmask16 m, __m128i v)
{
    char b[16];

    _mm_storeu_si128((__m128i *)b, v);
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            ((char *)p)[i] = b[i];
}

/* ---- VNNI ---- */

/* sum + u0 s0 + u1 s1 + u2 s2 + u3 s3 in each lane, without saturation */
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd_256
EMULATED __m256i emulated_dpbusd_256(__m256i sum, __m256i u, __m256i s)
{
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));

    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

#define _mm512_dpbusd_epi32 emulated_dpbusd_512
EMULATED __m512i emulated_dpbusd_512(__m512i sum, __m512i u, __m512i s)
{
    union emulated512 x = OF(sum), y = OF(u), z = OF(s);

    for (int h = 0; h < 2; h++)
        x.half[h] = emulated_dpbusd_256(x.half[h], y.half[h], z.half[h]);
    return x.v;
}

/* ---- BF16 ---- */

/* sum + high a high b, then + low a low b in each lane, each rounded to nearest even as one FMA, subnormals being
 * zero, as the manual's pseudo code of VDPBF16PS has it */
EMULATED float emulated_flush(float f)
{
    return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
}

EMULATED float emulated_half(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return emulated_flush(f);
}

#define _mm512_dpbf16_ps(sum, a, b) emulated_dpbf16(sum, (__m512i)(a), (__m512i)(b))
EMULATED __m512 emulated_dpbf16(__m512 sum, __m512i a, __m512i b)
{
    union emulated512 r = OF_PS(sum), x = OF(a), y = OF(b);

    for (int i = 0; i < 16; i++) {
        float x1 = emulated_half(x.u32[i] & 0xffff0000), y1 = emulated_half(y.u32[i] & 0xffff0000);
        float x0 = emulated_half(x.u32[i] << 16), y0 = emulated_half(y.u32[i] << 16);
        float once = emulated_flush(fmaf(x1, y1, emulated_flush(r.f32[i])));
        r.f32[i] = emulated_flush(fmaf(x0, y0, once));
    }
    return r.ps;
}

/* ---- AMX: a thread's eight tiles, each of so many rows of so many bytes as the configuration says ---- */

struct emulated_tiles {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c;
    union {
        int8_t i8[16][64];
        uint32_t u32[16][16];
    } t[8];
};

static _Thread_local struct emulated_tiles emulated_tiles;

#define _tile_loadconfig emulated_tile_loadconfig
EMULATED void emulated_tile_loadconfig(const void *p)
{
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
    memcpy(&emulated_tiles.c, p, sizeof emulated_tiles.c);
    assert(emulated_tiles.c.palette == 1 && emulated_tiles.c.start_row == 0);
    for (int i = 0; i < 16; i++) /* else the instruction faults */
        assert(emulated_tiles.c.rows[i] <= (i < 8 ? 16 : 0) &&
               emulated_tiles.c.row_bytes[i] <= (i < 8 ? 64 : 0));
}

#define _tile_release emulated_tile_release
EMULATED void emulated_tile_release(void)
{
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
}

#undef _tile_zero
#define _tile_zero emulated_tile_zero
EMULATED void emulated_tile_zero(int tile)
{
    assert(emulated_tiles.c.palette == 1); /* else the instruction is undefined */
    memset(&emulated_tiles.t[tile], 0, sizeof emulated_tiles.t[tile]);
}

#undef _tile_loadd
#define _tile_loadd emulated_tile_loadd
EMULATED void emulated_tile_loadd(int tile, const void *p, size_t stride)
{
    emulated_tile_zero(tile);
    for (int r = 0; r < emulated_tiles.c.rows[tile]; r++)
        memcpy(emulated_tiles.t[tile].i8[r], (const char *)p + (size_t)r * stride,
               emulated_tiles.c.row_bytes[tile]);
}

#undef _tile_stored
#define _tile_stored emulated_tile_stored
EMULATED void emulated_tile_stored(int tile, void *p, size_t stride)
{
    assert(emulated_tiles.c.palette == 1);
    for (int r = 0; r < emulated_tiles.c.rows[tile]; r++)
        memcpy((char *)p + (size_t)r * stride, emulated_tiles.t[tile].i8[r],
               emulated_tiles.c.row_bytes[tile]);
}

/* Row m, lane n of `to`: + the four products of each lane k of row m of a with lane n of row k of b. */
#undef _tile_dpbssd
#define _tile_dpbssd emulated_tile_dpbssd
EMULATED void emulated_tile_dpbssd(int to, int a, int b)
{
    struct emulated_tiles *t = &emulated_tiles;

    assert(to != a && to != b && a != b);
    assert(t->c.rows[to] == t->c.rows[a] && t->c.row_bytes[to] == t->c.row_bytes[b] &&
           t->c.row_bytes[a] == 4 * t->c.rows[b]);
    for (int m = 0; m < t->c.rows[to]; m++)
        for (int k = 0; k < t->c.row_bytes[a]; k++)
            for (int n = 0; n < t->c.row_bytes[to] / 4; n++)
                t->t[to].u32[m][n] +=
                    (uint32_t)(t->t[a].i8[m][k] * t->t[b].i8[k / 4][4 * n + k % 4]);
}

#endif
