/* int_panels.h - integer products by panels, written once over a vector of LANES rows.
 *
 * Included by one unit per instruction set after it has defined:
 *   LANES, VECTOR_BYTES     rows (32-bit lanes) of a vector: 8 or 16; a panel is PARTS = 16 / LANES wide
 *   vi: vi_load vi_store vi_broadcast(p), of the 4 bytes at p, vi_zero vi_and vi_or vi_shift_left(v, n)
 *       vi_shift_right(v, n), within 16 bits
 *   vi_keep(v)              nothing, but the compiler must have v in a register here
 *   vf: vf_load vf_store vf_set1 vf_add vf_mul vf_fma(a, b, c) = a * b + c, vf_of_int, vf_load_f16(p)
 *   HAS_DOT  1 where one instruction adds four products to each lane:  vi_dot(sum, unsigned, signed)
 *            0 where two have to:  vi_madd8(unsigned, signed), pairs into 16 bits, saturating;
 *              vi_madd16(a, b), pairs of 16 bits into 32;  vi_add16 vi_add32;
 *              vi_signed_dot(sum, w, x): sum + four products of signed bytes, x not -128
 *   HAS_AMX  1 where the unit multiplies many tokens alone, by tiles (the few are another unit's): vi_sub8
 *   TILE_TOKENS  the most of a register tile
 *
 * Two shapes of work (shared/reference: decode is bound by memory, prefill by instructions):
 *
 *   few tokens    panel after panel, one forward stream; the input's bytes are broadcast from their tile
 *   many tokens   int_tiles.h: a group of panels side by side, each weight unpacked once for many tokens; a group
 *                 is as many streams, too many for the hardware's prefetching, so each fetches ahead.
 *                 int_tiles_dot.h, where HAS_DOT and 32 registers are: two panels a tile, sums in registers;
 *                 int_tiles_amx.h where HAS_AMX: by the matrix unit
 *
 * Without HAS_DOT, int4 adds up eight products of (0..15) * (-127..127) in 16 bits: at most 8 * 2 * 15 *
 * 127 = 30480, five bits four (31496), six bits two (32004).  int8 cannot do that (255 * 127 * 2 saturates at
 * once): for few tokens it moves the sign of the weight to the input, for many both are widened to 16 bits.
 * The sums are exact either way. */
#include <assert.h>

#include "gpu-worker/ops/int_prepare.h"

enum {
    PARTS = PACKING_INT_ROWS / LANES,
    LINES = PACKING_BLOCK / 4,
    LINE_BYTES = PACKING_LINE_BYTES,
};

/* ---- where things are in a superblock ---- */

INLINE size_t superblock_bytes(const enum dtype dtype)
{
    return packing_superblock_bytes(dtype);
}

INLINE const uint8_t *lines_of(const enum dtype dtype, const uint8_t *superblock, uint32_t b,
                               int part)
{
    size_t line = packing_numbers(dtype) + b * packing_lines(dtype);

    return superblock + line * LINE_BYTES + part * VECTOR_BYTES;
}

INLINE vf scales_of(const uint8_t *superblock, uint32_t b, int part)
{
    return vf_load_f16(superblock + b * 2 * PACKING_INT_ROWS + part * 2 * LANES);
}

INLINE vf second_numbers_of(const uint8_t *superblock, uint32_t b, int part)
{
    return scales_of(superblock + LINE_BYTES, b, part);
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

INLINE void add_fifth_bits(vi q[LINES], const uint8_t *lines)
{
    const vi bit = vi_broadcast(&(uint32_t){ 0x10101010 }), v = vi_load(lines + 4 * LINE_BYTES);
#pragma GCC unroll 16
    for (int c = 0; c < LINES / 2; c++) {
        q[c] = vi_or(q[c], vi_and(vi_shift_left(v, 4 - c), bit));
        q[c + LINES / 2] = vi_or(q[c + LINES / 2], vi_and(vi_shift_right(v, c), bit));
    }
}

INLINE void add_upper_bits(vi q[LINES], const uint8_t *lines)
{
    const vi bits = vi_broadcast(&(uint32_t){ 0x30303030 });
#pragma GCC unroll 16
    for (int i = 0; i < 2; i++) {
        vi v = vi_load(lines + (4 + i) * LINE_BYTES);
        q[4 * i] = vi_or(q[4 * i], vi_and(vi_shift_left(v, 4), bits));
        q[4 * i + 1] = vi_or(q[4 * i + 1], vi_and(vi_shift_left(v, 2), bits));
        q[4 * i + 2] = vi_or(q[4 * i + 2], vi_and(v, bits));
        q[4 * i + 3] = vi_or(q[4 * i + 3], vi_and(vi_shift_right(v, 2), bits));
    }
}

/* Of all types but I8. */
INLINE void load_codes(const enum dtype dtype, vi q[LINES], const uint8_t *lines)
{
    load_nibbles(q, lines);
    if (dtype == DTYPE_I5M)
        add_fifth_bits(q, lines);
    if (dtype == DTYPE_I6)
        add_upper_bits(q, lines);
}

/* ---- dot products of a block ---- */

/* offset + sum(q x) of n lines from `first` on; two chains, since one product waits for the last */
#if HAS_DOT
INLINE vi dot_lines(const enum dtype dtype, const vi q[LINES], const uint8_t *x, const int first,
                    const int n, vi offset)
{
    vi a = offset, b = vi_zero();
#pragma GCC unroll 16
    for (int c = first; c < first + n; c += 2) {
        a = vi_dot(a, q[c], vi_broadcast(x + 4 * c));
        b = vi_dot(b, q[c + 1], vi_broadcast(x + 4 * c + 4));
    }
    (void)dtype;
    return vi_add32(a, b);
}
#else
INLINE vi dot_lines(const enum dtype dtype, const vi q[LINES], const uint8_t *x, const int first,
                    const int n, vi offset)
{
    const int fit = dtype == DTYPE_I6 ? 2 : dtype == DTYPE_I5M ? 4 : 8; /* into 16 bits */
    vi all = offset;
#pragma GCC unroll 16
    for (int c = first; c < first + n; c += fit) {
        vi sum = vi_madd8(q[c], vi_broadcast(x + 4 * c));
#pragma GCC unroll 16
        for (int i = c + 1; i < c + fit; i++) {
            sum = vi_add16(sum, vi_madd8(q[i], vi_broadcast(x + 4 * i)));
            vi_keep(sum);
        }
        all = vi_add32(all, vi_madd16(sum, vi_broadcast(&(uint32_t){ 0x00010001 })));
    }
    return all;
}
#endif

/* y with a block added, of the types with two numbers; x: the tile's block. */
INLINE vf add_block_of_two(const enum dtype dtype, vf y, const vi q[LINES], vf first, vf second,
                           const uint8_t *x, uint32_t n, uint32_t token)
{
    const uint8_t *codes = x + token * PACKING_BLOCK;
    const int32_t *offset = int_tile_offsets(x, n, dtype) + token;
    vf scale = vf_set1(int_tile_scales(x, n)[token]), factor = vf_mul(first, scale);

    if (dtype == DTYPE_I6) {
        vi low = dot_lines(dtype, q, codes, 0, LINES / 2, vi_broadcast(offset));
        vi high = dot_lines(dtype, q, codes, LINES / 2, LINES / 2, vi_broadcast(offset + n));
        return vf_fma(vf_mul(second, scale), vf_of_int(high), vf_fma(factor, vf_of_int(low), y));
    }
    y = vf_fma(factor, vf_of_int(dot_lines(dtype, q, codes, 0, LINES, vi_zero())), y);
    return vf_fma(second, vf_set1(int_tile_sums(x, n)[token]), y);
}

/* ---- the output ---- */

/* y[row ..] (+)= sum + bias, y being where that is. */
INLINE void put_vector(const struct linear_job *j, float *y, uint32_t row, vf sum)
{
    if (j->bias)
        sum = vf_add(sum, vf_load(j->bias + row));
    vf_store(y, j->add ? vf_add(vf_load(y), sum) : sum);
}

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
    for (int i = 0; i < PACKING_INT_ROWS; i += LANES)
        put_vector(j, y + i, row + (uint32_t)i, vf_load(sums + i));
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
        sums[t] = dot_lines(DTYPE_I4, q, x + t * PACKING_BLOCK, 0, LINES, vi_broadcast(off4 + t));
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

/* One block of one part of a panel by n tokens. */
INLINE void few_of_two(const enum dtype dtype, vf (*acc)[PARTS], const int n,
                       const uint8_t *superblock, uint32_t b, const int part, const uint8_t *x)
{
    vf first = scales_of(superblock, b, part), second = second_numbers_of(superblock, b, part);
    vi q[LINES];

    load_codes(dtype, q, lines_of(dtype, superblock, b, part));
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        acc[t][part] =
            add_block_of_two(dtype, acc[t][part], q, first, second, x, (uint32_t)n, (uint32_t)t);
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
                if (packing_numbers(dtype) == 2) {
                    few_of_two(dtype, acc, n, panel, b, part, x);
                    continue;
                }
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

#if HAS_AMX
#include "gpu-worker/ops/int_tiles_amx.h"
#elif HAS_DOT && LANES == 16
#include "gpu-worker/ops/int_tiles_dot.h"
#else
#include "gpu-worker/ops/int_tiles.h"
#endif

/* ---- any number ---- */

INLINE void run(const struct linear_job *j, const enum dtype dtype, uint32_t row_begin,
                uint32_t row_end)
{
    const uint8_t *panels =
        (const uint8_t *)j->w +
        row_begin / PACKING_INT_ROWS * (packing_superblocks(j->cols) * superblock_bytes(dtype));

    if (!HAS_AMX && j->n_tokens == 1)
        few_tokens(j, dtype, 1, panels, row_begin, row_end);
    else if (!HAS_AMX && j->n_tokens == 2)
        few_tokens(j, dtype, 2, panels, row_begin, row_end);
    else if (!HAS_AMX && j->n_tokens == 3)
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

static void run_i4m(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run(j, DTYPE_I4M, row_begin, row_end);
}

static void run_i5m(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run(j, DTYPE_I5M, row_begin, row_end);
}

static void run_i6(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run(j, DTYPE_I6, row_begin, row_end);
}
