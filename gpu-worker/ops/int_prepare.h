/* int_prepare.h - the input of integer products brought into its form (int_input.h), with AVX2.
 *
 * Included by every unit of x86, whatever its vectors: this is a few per cent of a product's work.  The unit
 * has defined TILE_TOKENS, the largest tile that its kernels take. */
#ifndef LLMD_GPU_WORKER_OPS_INT_PREPARE_H
#define LLMD_GPU_WORKER_OPS_INT_PREPARE_H

#include <immintrin.h>
#include <math.h>

#include "gpu-worker/ops/int_input.h"

/* Arrays of vectors are registers only where loops over them are unrolled into their caller. */
#define INLINE static inline __attribute__((always_inline))

enum { FLOATS = 8, BLOCK_VECTORS = PACKING_BLOCK / FLOATS };

/* The first n floats, the rest 0. */
static inline __m256 load_floats(const float *x, uint32_t n)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

    if (n >= FLOATS)
        return _mm256_loadu_ps(x);
    return _mm256_maskload_ps(x, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes));
}

static inline uint32_t left_from(uint32_t k, uint32_t cols)
{
    return k < cols ? cols - k : 0;
}

static float norm_scale(const float *x, uint32_t cols, float eps)
{
    __m256 low = _mm256_setzero_ps(), high = low, v;
    __m128 s;

    for (uint32_t k = 0; k < cols; k += 2 * FLOATS) {
        v = load_floats(x + k, cols - k);
        low = _mm256_fmadd_ps(v, v, low);
        v = load_floats(x + k + FLOATS, left_from(k + FLOATS, cols));
        high = _mm256_fmadd_ps(v, v, high);
    }
    low = _mm256_add_ps(low, high);
    s = _mm_add_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps(low, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return 1 / sqrtf(_mm_cvtss_f32(s) / (float)cols + eps);
}

/* The largest magnitude; a NaN counts as more than infinity. */
INLINE float largest(const __m256 x[BLOCK_VECTORS])
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    __m128i h;

#pragma GCC unroll 4
    for (int v = 0; v < BLOCK_VECTORS; v++)
        m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(x[v]), magnitude));
    h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    h = _mm_max_epi32(h, _mm_unpackhi_epi64(h, h));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 1));
    return _mm_cvtss_f32(_mm_castsi128_ps(h));
}

/* Of the first and the last 16. */
INLINE void sum_codes(__m256i codes, int32_t sums[2])
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));

    fours = _mm256_add_epi32(fours, _mm256_unpackhi_epi64(fours, fours));
    fours = _mm256_add_epi32(fours, _mm256_shuffle_epi32(fours, 1));
    sums[0] = _mm256_extract_epi32(fours, 0);
    sums[1] = _mm256_extract_epi32(fours, 4);
}

INLINE void put_block(struct int_slot to, const __m256 x[BLOCK_VECTORS])
{
    float m = largest(x), inverse = m < INT_INPUT_SMALLEST ? 0 : 127 / m;
    __m256i i[BLOCK_VECTORS], codes;
    int32_t sums[2];

#pragma GCC unroll 4
    for (int v = 0; v < BLOCK_VECTORS; v++)
        i[v] = _mm256_cvtps_epi32(_mm256_mul_ps(x[v], _mm256_set1_ps(inverse)));
    codes = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    sum_codes(codes, sums);
    _mm256_storeu_si256((__m256i *)to.codes, codes);
    int_slot_finish(to, m < INT_INPUT_SMALLEST ? 0 : m / 127, sums);
}

/* Columns k .. k + 31 of a row, times its norm if w; what the row lacks is 0. */
INLINE void load_block(__m256 block[BLOCK_VECTORS], const float *x, const float *w, __m256 scale,
                       uint32_t n)
{
#pragma GCC unroll 4
    for (uint32_t v = 0; v < BLOCK_VECTORS; v++) {
        uint32_t left = left_from(v * FLOATS, n);
        block[v] = load_floats(x + v * FLOATS, left);
        if (w)
            block[v] =
                _mm256_mul_ps(load_floats(w + v * FLOATS, left), _mm256_mul_ps(block[v], scale));
    }
}

/* n columns of a row, times its norm if w, rounded; n: PACKING_BLOCK, or what is left of the row. */
INLINE void round_block(struct int_slot to, const float *x, const float *w, float scale, uint32_t n)
{
    __m256 block[BLOCK_VECTORS];

    if (n >= PACKING_BLOCK)
        load_block(block, x, w, _mm256_set1_ps(scale), PACKING_BLOCK);
    else
        load_block(block, x, w, _mm256_set1_ps(scale), n);
    put_block(to, block);
}

/* Tokens begin .. end - 1 of a tile, a block of all after the other: that is how the tile lies. */
static void prepare_tile(const struct input_job *j, struct int_tile tile, uint32_t begin,
                         uint32_t end)
{
    const float *x[TILE_TOKENS], *w = j->norm ? j->norm->w : NULL;
    float scales[TILE_TOKENS];
    uint8_t *block = int_tile_block(tile, 0);

    for (uint32_t t = begin; t < end; t++) {
        x[t - begin] = input_row(j, t);
        scales[t - begin] = w ? norm_scale(x[t - begin], j->cols, j->norm->eps) : 1;
    }
    for (uint32_t b = 0, k = 0; b < int_blocks(j->cols); b++, k += PACKING_BLOCK) {
        uint32_t left = left_from(k, j->cols);
        for (uint32_t t = begin; t < end; t++) {
            struct int_slot to = int_slot_of(block, tile.n, t - tile.first);
            if (w) /* here, so that no vector is in doubt */
                round_block(to, x[t - begin] + k, w + k, scales[t - begin], left);
            else
                round_block(to, x[t - begin] + k, NULL, 1, left);
        }
        block += tile.n * INT_INPUT_BYTES;
    }
}

static void prepare(const struct input_job *j, uint32_t begin, uint32_t end)
{
    while (begin < end) {
        struct int_tile tile = int_tile_of(j->out, j->cols, j->n_tokens, TILE_TOKENS, begin);
        uint32_t last = tile.first + tile.n < end ? tile.first + tile.n : end;

        prepare_tile(j, tile, begin, last);
        begin = last;
    }
}

#endif
