/* int_panels.h - integer products by panels, written once over a vector of LANES rows.
 *
 * Included by one unit per instruction set after it has defined:
 *   LANES, VECTOR_BYTES     rows (32-bit lanes) of a vector: 8 or 16; a panel is PARTS = 16 / LANES wide
 *   vi: vi_load vi_store vi_broadcast(p), of the 4 bytes at p, vi_and vi_shift_right(v, n), within 16 bits
 *   vi_keep(v)              nothing, but the compiler must have v in a register here
 *   vf: vf_load vf_store vf_set1 vf_add vf_mul vf_fma(a, b, c) = a * b + c, vf_of_int, vf_load_f16(p)
 *   HAS_DOT  1 where one instruction adds four products to each lane:  vi_dot(sum, unsigned, signed)
 *            0 where two have to:  vi_madd8(unsigned, signed), pairs into 16 bits, saturating;
 *              vi_madd16(a, b), pairs of 16 bits into 32;  vi_add16 vi_add32;
 *              vi_signed_dot(sum, w, x): sum + four products of signed bytes, x not -128
 *
 * Two shapes of work (shared/reference: decode is bound by memory, prefill by instructions):
 *
 *   few tokens    panel after panel, one forward stream; the input's bytes are broadcast from their tile
 *   many tokens   int_tiles.h: a group of panels side by side, each weight unpacked once for many tokens; a group
 *                 is as many streams, too many for the hardware's prefetching, so each fetches ahead
 *
 * Without HAS_DOT, int4 adds up eight products of (0..15) * (-127..127) in 16 bits: at most 8 * 2 * 15 *
 * 127 = 30480.  int8 cannot do that (255 * 127 * 2 saturates at once): for few tokens it moves the sign of
 * the weight to the input, for many both are widened to 16 bits.  The sums are exact either way. */
#include <assert.h>

#include "gpu-worker/ops/int_prepare.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    PARTS = PACKING_INT_ROWS / LANES,
    LINES = PACKING_BLOCK / 4,
    LINE_BYTES = 64,
};

/* ---- where things are in a superblock ---- */

INLINE size_t superblock_bytes(const enum dtype dtype)
{
    return dtype == DTYPE_I8 ? PACKING_I8_BYTES : PACKING_I4_BYTES;
}

INLINE const uint8_t *lines_of(const enum dtype dtype, const uint8_t *superblock, uint32_t b,
                               int part)
{
    size_t half = (superblock_bytes(dtype) - PACKING_SCALE_BYTES) / 2;

    return superblock + PACKING_SCALE_BYTES + b * half + part * VECTOR_BYTES;
}

INLINE vf scales_of(const uint8_t *superblock, uint32_t b, int part)
{
    return vf_load_f16(superblock + b * 2 * PACKING_INT_ROWS + part * 2 * LANES);
}

INLINE void load_nibbles(vi q[LINES], const uint8_t *lines)
{
    const vi low = vi_broadcast(&(uint32_t){ 0x0f0f0f0f });
#pragma GCC unroll 16
    for (int c = 0; c < LINES / 2; c++) {
        vi v = vi_load(lines + c * LINE_BYTES);
        q[c] = vi_and(v, low);
        q[c + LINES / 2] = vi_and(vi_shift_right(v, 4), low);
    }
}

/* ---- dot products of a block ---- */

#if HAS_DOT
/* offset + sum(q x); two chains, since one product waits for the last */
INLINE vi dot_block(const vi q[LINES], const uint8_t *x, vi offset)
{
    vi a = offset, b = vi_zero();
#pragma GCC unroll 16
    for (int c = 0; c < LINES; c += 2) {
        a = vi_dot(a, q[c], vi_broadcast(x + 4 * c));
        b = vi_dot(b, q[c + 1], vi_broadcast(x + 4 * c + 4));
    }
    return vi_add32(a, b);
}
#else
/* q in 0..15 */
INLINE vi dot_block(const vi q[LINES], const uint8_t *x, vi offset)
{
    vi sum = vi_madd8(q[0], vi_broadcast(x));
#pragma GCC unroll 16
    for (int c = 1; c < LINES; c++) {
        sum = vi_add16(sum, vi_madd8(q[c], vi_broadcast(x + 4 * c)));
        vi_keep(sum);
    }
    return vi_add32(vi_madd16(sum, vi_broadcast(&(uint32_t){ 0x00010001 })), offset);
}
#endif

/* ---- the output ---- */

/* As int_put(), a vector at a time where the matrix has all rows of the panel. */
INLINE void put_rows(const struct linear_job *j, uint32_t row, uint32_t token,
                     const float sums[PACKING_INT_ROWS])
{
    float *y = j->y + token * j->y_stride + row;

    if (j->rows - row < PACKING_INT_ROWS) {
        int_put(j, row, token, sums);
        return;
    }
#pragma GCC unroll 2
    for (int i = 0; i < PACKING_INT_ROWS; i += LANES) {
        vf sum = vf_load(sums + i);
        if (j->bias)
            sum = vf_add(sum, vf_load(j->bias + row + i));
        vf_store(y + i, j->add ? vf_add(vf_load(y + i), sum) : sum);
    }
}

/* ---- few tokens ---- */

enum {
    FEW_TOKENS = 3,
    FETCH_AHEAD_BYTES = 2048, /* 10 to 20 % more on 4 KiB pages, where the hardware stops at each */
};

INLINE void few_i4(vi sums[FEW_TOKENS], const int n, const uint8_t *lines, const uint8_t *x,
                   const int32_t *off4)
{
    vi q[LINES];

    load_nibbles(q, lines);
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = dot_block(q, x + t * PACKING_BLOCK, vi_broadcast(off4 + t));
}

INLINE void few_i8(vi sums[FEW_TOKENS], const int n, const uint8_t *lines, const uint8_t *x,
                   const int32_t *off8)
{
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = HAS_DOT ? vi_broadcast(off8 + t) : vi_zero();
#pragma GCC unroll 16
    for (int c = 0; c < LINES; c++) {
        vi w = vi_load(lines + c * LINE_BYTES);
#if !HAS_DOT
        w = vi_flip_signs(w);
#endif
#pragma GCC unroll 16
        for (int t = 0; t < n; t++) {
            vi four = vi_broadcast(x + t * PACKING_BLOCK + 4 * c);
#if HAS_DOT
            sums[t] = vi_dot(sums[t], w, four);
#else
            sums[t] = vi_signed_dot(sums[t], w, four);
            vi_keep(sums[t]);
#endif
        }
    }
}

/* One panel by n tokens; n and dtype constant after inlining, so that sums live in registers. */
INLINE void few_panel(const struct linear_job *j, const enum dtype dtype, const int n,
                      const uint8_t *panel, uint32_t row)
{
    const uint8_t *x = j->x;
    vf acc[FEW_TOKENS][PARTS];
    _Alignas(64) float out[PACKING_INT_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < n * PARTS; i++)
        acc[i / PARTS][i % PARTS] = vf_set1(0);
    for (uint32_t s = packing_superblocks(j->cols); s > 0; s--, panel += superblock_bytes(dtype)) {
#pragma GCC unroll 20
        for (size_t at = 0; at < superblock_bytes(dtype); at += LINE_BYTES)
            _mm_prefetch((const char *)panel + FETCH_AHEAD_BYTES + at, _MM_HINT_T0);
#pragma GCC unroll 16
        for (uint32_t b = 0; b < 2; b++, x += n * INT_INPUT_BYTES)
#pragma GCC unroll 16
            for (int part = 0; part < PARTS; part++) {
                const float *xs = int_tile_scales(x, n);
                vf ws = scales_of(panel, b, part);
                vi sums[FEW_TOKENS];
                if (dtype == DTYPE_I4)
                    few_i4(sums, n, lines_of(dtype, panel, b, part), x,
                           int_tile_offsets(x, n, dtype));
                else
                    few_i8(sums, n, lines_of(dtype, panel, b, part), x,
                           int_tile_offsets(x, n, dtype));
#pragma GCC unroll 16
                for (int t = 0; t < n; t++)
                    acc[t][part] =
                        vf_fma(vf_mul(ws, vf_set1(xs[t])), vf_of_int(sums[t]), acc[t][part]);
            }
    }
#pragma GCC unroll 16
    for (int t = 0; t < n; t++) {
#pragma GCC unroll 16
        for (int part = 0; part < PARTS; part++)
            vf_store(out + part * LANES, acc[t][part]);
        put_rows(j, row, (uint32_t)t, out);
    }
}

INLINE void few_tokens(const struct linear_job *j, const enum dtype dtype, const int n,
                       const uint8_t *panel, uint32_t row_begin, uint32_t row_end)
{
    size_t bytes = packing_superblocks(j->cols) * superblock_bytes(dtype);

    for (uint32_t row = row_begin; row < row_end; row += PACKING_INT_ROWS, panel += bytes)
        few_panel(j, dtype, n, panel, row);
}

/* ---- many tokens ---- */

#include "gpu-worker/ops/int_tiles.h"

/* ---- any number ---- */

INLINE void run(const struct linear_job *j, const enum dtype dtype, uint32_t row_begin,
                uint32_t row_end)
{
    const uint8_t *panels =
        (const uint8_t *)j->w +
        row_begin / PACKING_INT_ROWS * (packing_superblocks(j->cols) * superblock_bytes(dtype));

    if (j->n_tokens == 1)
        few_tokens(j, dtype, 1, panels, row_begin, row_end);
    else if (j->n_tokens == 2)
        few_tokens(j, dtype, 2, panels, row_begin, row_end);
    else if (j->n_tokens == 3)
        few_tokens(j, dtype, 3, panels, row_begin, row_end);
    else
        many_tokens(j, dtype, panels, row_begin, row_end);
}

static void run_i8(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run(j, DTYPE_I8, row_begin, row_end);
}

static void run_i4(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run(j, DTYPE_I4, row_begin, row_end);
}
