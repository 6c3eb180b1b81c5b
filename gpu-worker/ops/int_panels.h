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
 * How panels and tokens meet:
 *
 *   int_tiles.h      many tokens, where registers are few: panels side by side, each weight unpacked once for many tokens
 *   int_few.h        few tokens there: panel after panel
 *   int_tiles_dot.h  any number, where HAS_DOT and 32 registers are: two panels a tile, sums in registers
 *   int_tiles_amx.h  many, where HAS_AMX: by the matrix unit
 *
 * Few tokens are bound by memory, many by instructions (shared/reference).
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

/* ---- products ---- */

#if HAS_AMX
#include "gpu-worker/ops/int_tiles_amx.h"
#elif HAS_DOT && LANES == 16
#include "gpu-worker/ops/int_tiles_dot.h"
#else
#include "gpu-worker/ops/int_tiles.h"
#endif

INLINE void run(const struct linear_job *j, const enum dtype dtype, uint32_t row_begin,
                uint32_t row_end)
{
    const uint8_t *panels =
        (const uint8_t *)j->w +
        row_begin / PACKING_INT_ROWS * (packing_superblocks(j->cols) * superblock_bytes(dtype));

    run_panels(j, dtype, panels, row_begin, row_end);
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
