/* bf16_avx512.c - products with panels of BF16 by vdpbf16ps: 32 multiply-adds an instruction, twice what FMA
 * does.
 *
 * The input is rounded to BF16, to nearest even; a 32-bit word holds a token's columns 2k and 2k + 1, as the
 * panels hold a row's (packing_float.h).  It lies as in panel_kernels.h: blocks of PAIR_COLS columns, in a
 * block tiles of tokens, [pairs][tokens of the tile]; an odd last column has a partner of zero.
 *
 * Bits.  The sum of a row and a token is one chain of vdpbf16ps along the pairs, in one lane, from 0; then
 * the bias; then what y held.  So neither the number of tokens nor that of threads changes one.  The
 * instruction takes subnormal numbers for zero and rounds in its own way (Intel 64 manual, VDPBF16PS), so
 * its sums are not those of FMA. */
#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/packing_float.h"

#define INLINE static inline __attribute__((always_inline))

/* 24 sums, 2 weights and 1 input in 32 registers. */
enum { TOKENS = 12, PAIR_COLS = 512, GROUP = 4, SUPERTILE = 10, PANEL = 32 };

/* ---- the input ---- */

/* Tokens in tiles of nearly equal width: the first n_wide have `width` tokens, the others one less. */
struct tiles {
    uint32_t n, width, n_wide;
};

static struct tiles tiles_of(uint32_t n_tokens)
{
    uint32_t n = (n_tokens + TOKENS - 1) / TOKENS, width = (n_tokens + n - 1) / n;

    return (struct tiles){ n, width, n - (n * width - n_tokens) };
}

static uint32_t tile_first(struct tiles t, uint32_t i)
{
    return i <= t.n_wide ? i * t.width : i * (t.width - 1) + t.n_wide;
}

static uint32_t tile_width(struct tiles t, uint32_t i)
{
    return t.width - (i >= t.n_wide);
}

static uint32_t tile_of(struct tiles t, uint32_t token)
{
    uint32_t wide = t.n_wide * t.width;

    return token < wide ? token / t.width : t.n_wide + (token - wide) / (t.width - 1);
}

static uint32_t pairs_of(uint32_t cols)
{
    return (cols + 1) / 2;
}

/* The pairs from column k on, of the block that begins there, for a tile whose first token is `first`. */
static size_t tile_at(uint32_t n_tokens, uint32_t cols, uint32_t first, uint32_t k)
{
    uint32_t left = pairs_of(cols) - k / 2;

    return (size_t)(k / 2) * n_tokens +
           (size_t)first * (left < PAIR_COLS / 2 ? left : PAIR_COLS / 2);
}

/* As vector_kernels.h adds, so that a norm here and there has the same scale. */
static float norm_scale(const float *x, uint32_t dim, float eps)
{
    __m512 sum = _mm512_setzero_ps();
    __m256 h;
    __m128 v;
    uint32_t i = 0;

    for (; i + 16 <= dim; i += 16)
        sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(x + i), sum);
    if (i < dim) {
        __m512 tail = _mm512_maskz_loadu_ps((__mmask16)((1u << (dim - i)) - 1), x + i);
        sum = _mm512_fmadd_ps(tail, tail, sum);
    }
    h = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
    v = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return 1 / sqrtf(_mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v))) / (float)dim + eps);
}

static uint32_t pair_of(const struct input_job *j, const float *x, float scale, uint32_t k)
{
    float low = x[k], high = k + 1 < j->cols ? x[k + 1] : 0;

    if (j->norm) {
        low = j->norm->w[k] * (low * scale);
        high = k + 1 < j->cols ? j->norm->w[k + 1] * (high * scale) : 0;
    }
    return (uint32_t)float_to_bf16(low) | (uint32_t)float_to_bf16(high) << 16;
}

static void prepare_pairs(const struct input_job *j, uint32_t begin, uint32_t end)
{
    struct tiles tiles = tiles_of(j->n_tokens);

    for (uint32_t t = begin; t < end; t++) {
        uint32_t tile = tile_of(tiles, t), first = tile_first(tiles, tile);
        uint32_t width = tile_width(tiles, tile);
        const float *x = input_row(j, t);
        float scale = j->norm ? norm_scale(x, j->cols, j->norm->eps) : 1;
        for (uint32_t k = 0; k < j->cols; k += PAIR_COLS) {
            uint32_t *out =
                (uint32_t *)j->out + tile_at(j->n_tokens, j->cols, first, k) + (t - first);
            for (uint32_t i = k; i < j->cols && i < k + PAIR_COLS; i += 2, out += width)
                *out = pair_of(j, x, scale, i);
        }
    }
}

/* ---- a tile ---- */

/* n pairs of columns of a panel by the tokens of a tile. */
struct tile_job {
    const char *w;
    const uint32_t *x;
    uint32_t n;
    float *sums;   /* [tokens][32] so far */
    bool is_first; /* they begin at 0 */
};

typedef void tile_function(const struct tile_job *j);

INLINE void run_tile(const struct tile_job *j, const int T)
{
    __m512 acc[TOKENS][2];
    const char *w = j->w;
    const uint32_t *x = j->x;

#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
        for (int v = 0; v < 2; v++)
            acc[t][v] =
                j->is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(j->sums + t * PANEL + v * 16);
    for (uint32_t k = 0; k < j->n; k++, w += 128, x += T) {
        __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 64);
#pragma GCC unroll 12
        for (int t = 0; t < T; t++) {
            __m512i pair = _mm512_set1_epi32((int)x[t]);
            acc[t][0] = _mm512_dpbf16_ps(acc[t][0], (__m512bh)low, (__m512bh)pair);
            acc[t][1] = _mm512_dpbf16_ps(acc[t][1], (__m512bh)high, (__m512bh)pair);
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
        for (int v = 0; v < 2; v++)
            _mm512_storeu_ps(j->sums + t * PANEL + v * 16, acc[t][v]);
}

#define TILE(T)                                                                                    \
    static __attribute__((noinline)) void tile_##T(const struct tile_job *j)                       \
    {                                                                                              \
        run_tile(j, T);                                                                            \
    }

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)

static tile_function *const tile_functions[TOKENS + 1] = {
    NULL,   tile_1, tile_2, tile_3,  tile_4,  tile_5,  tile_6,
    tile_7, tile_8, tile_9, tile_10, tile_11, tile_12,
};

/* ---- panels ---- */

struct panel_sums {
    _Alignas(64) float of[SUPERTILE * TOKENS][PANEL];
};

/* The block of columns from k on of one panel, for tiles begin .. end - 1. */
static void add_block(const struct linear_job *j, struct tiles tiles, uint32_t begin, uint32_t end,
                      const char *panel, uint32_t k, struct panel_sums *sums)
{
    uint32_t origin = tile_first(tiles, begin), left = pairs_of(j->cols) - k / 2;
    struct tile_job t = { .w = panel + (size_t)k * 64,
                          .n = left < PAIR_COLS / 2 ? left : PAIR_COLS / 2,
                          .is_first = k == 0 };

    for (uint32_t i = begin; i < end; i++) {
        uint32_t first = tile_first(tiles, i);
        t.x = (const uint32_t *)j->x + tile_at(j->n_tokens, j->cols, first, k);
        t.sums = sums->of[first - origin];
        tile_functions[tile_width(tiles, i)](&t);
    }
}

static void finish_row(const struct linear_job *j, uint32_t token, uint32_t row, uint32_t n,
                       const float *sums)
{
    float *y = j->y + token * j->y_stride + row;

    for (uint32_t i = 0; i < n; i++) {
        float sum = sums[i] + (j->bias ? j->bias[row + i] : 0);
        y[i] = j->add ? y[i] + sum : sum;
    }
}

/* A supertile with the panels of rows row .. row_end - 1, at most GROUP. */
static void run_group(const struct linear_job *j, struct tiles tiles, uint32_t begin, uint32_t end,
                      uint32_t row, uint32_t row_end)
{
    struct panel_sums sums[GROUP];
    const size_t bytes = packing_float_bytes(DTYPE_BF16, j->cols);
    const char *panel = (const char *)j->w + row / PANEL * bytes;
    uint32_t n = (row_end - row + PANEL - 1) / PANEL, origin = tile_first(tiles, begin);

    for (uint32_t k = 0; k < j->cols; k += PAIR_COLS)
        for (uint32_t i = 0; i < n; i++)
            add_block(j, tiles, begin, end, panel + i * bytes, k, &sums[i]);
    for (uint32_t i = 0; i < n; i++, row += PANEL)
        for (uint32_t t = origin; t < tile_first(tiles, end); t++)
            finish_row(j, t, row, row_end - row < PANEL ? row_end - row : PANEL,
                       sums[i].of[t - origin]);
}

static void run_panels(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    struct tiles tiles = tiles_of(j->n_tokens);
    uint32_t group = tiles.n == 1 ? PANEL : GROUP * PANEL;

    assert(j->dtype == DTYPE_BF16 && row_begin % PANEL == 0);
    for (uint32_t begin = 0; begin < tiles.n; begin += SUPERTILE) {
        uint32_t end = tiles.n - begin < SUPERTILE ? tiles.n : begin + SUPERTILE;
        for (uint32_t row = row_begin; row < row_end; row += group)
            run_group(j, tiles, begin, end, row, row_end - row < group ? row_end : row + group);
    }
}

const struct linear_kernel linear_bf16_avx512bf16 = { INPUT_PAIRS, prepare_pairs, run_panels };
