/* int_plain.c - the definition of the integer products (int_input.h) in plain loops. */
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/int_input.h"

enum { TILE_TOKENS = 1, NORM_LANES = 16, HALF_BLOCK = PACKING_BLOCK / 2 };

/* ---- the input ---- */

static float norm_scale(const float *x, uint32_t cols, float eps)
{
    float lanes[NORM_LANES] = { 0 };

    for (uint32_t k = 0; k < cols; k++)
        lanes[k % NORM_LANES] = fmaf(x[k], x[k], lanes[k % NORM_LANES]);
    for (int apart = NORM_LANES / 2; apart > 0; apart /= 2)
        for (int l = 0; l < apart; l++)
            lanes[l] += lanes[l + apart];
    return 1 / sqrtf(lanes[0] / (float)cols + eps);
}

/* The largest magnitude; a NaN counts as more than infinity. */
static float largest(const float *x)
{
    uint32_t bits = 0;

    for (int k = 0; k < PACKING_BLOCK; k++) {
        uint32_t b = bits_of_float(x[k]) & 0x7fffffff;
        bits = b > bits ? b : bits;
    }
    return float_of_bits(bits);
}

static void put_block(struct int_slot to, const float *x)
{
    float m = largest(x), inverse = m < INT_INPUT_SMALLEST ? 0 : 127 / m;
    int32_t sums[2] = { 0, 0 };

    for (int k = 0; k < PACKING_BLOCK; k++) {
        to.codes[k] = isfinite(m) ? (int8_t)lrintf(x[k] * inverse) : 1;
        sums[k / HALF_BLOCK] += to.codes[k];
    }
    int_slot_finish(to, m < INT_INPUT_SMALLEST ? 0 : m / 127, sums);
}

static void prepare(const struct input_job *j, uint32_t begin, uint32_t end)
{
    for (uint32_t t = begin; t < end; t++) {
        const float *x = input_row(j, t);
        float scale = j->norm ? norm_scale(x, j->cols, j->norm->eps) : 1;
        struct int_tile tile = int_tile_of(j->out, j->cols, j->n_tokens, TILE_TOKENS, t);
        for (uint32_t b = 0; b < int_blocks(j->cols); b++) {
            float block[PACKING_BLOCK] = { 0 };
            for (uint32_t k = b * PACKING_BLOCK; k < (b + 1) * PACKING_BLOCK && k < j->cols; k++)
                block[k % PACKING_BLOCK] = j->norm ? j->norm->w[k] * (x[k] * scale) : x[k];
            put_block(int_slot_of(int_tile_block(tile, b), tile.n, t - tile.first), block);
        }
    }
}

/* ---- the product ---- */

/* Element k of one row and block; lines: the block's first line, at the row. */
static int32_t code_at(enum dtype t, const uint8_t *lines, int k)
{
    int c = k / 4, at = k % 4;
    int32_t code;

    if (t == DTYPE_I8)
        return lines[c * PACKING_LINE_BYTES + at] - 128;
    code = lines[c % 4 * PACKING_LINE_BYTES + at] >> c / 4 * 4 & 15;
    if (t == DTYPE_I5M)
        code += (lines[4 * PACKING_LINE_BYTES + at] >> c & 1) * 16;
    if (t == DTYPE_I6)
        code += (lines[(4 + c / 4) * PACKING_LINE_BYTES + at] >> c % 4 * 2 & 3) * 16;
    return code - packing_offset(t);
}

/* sum(w x) of elements k .. end - 1 */
static float dot(enum dtype t, const uint8_t *lines, const int8_t *x, int k, int end)
{
    int32_t sum = 0;

    for (; k < end; k++)
        sum += code_at(t, lines, k) * x[k];
    return (float)sum;
}

static float number_at(const uint8_t *at)
{
    uint16_t half;

    memcpy(&half, at, sizeof half);
    return f16_to_float(half);
}

/* y with one block of a row added; numbers, lines: at the row. */
static float add_block(enum dtype t, const uint8_t *numbers, const uint8_t *lines, const uint8_t *x,
                       float y)
{
    const int8_t *codes = (const int8_t *)x;
    float scale = *int_tile_scales(x, 1), first = number_at(numbers);
    float second = packing_numbers(t) == 2 ? number_at(numbers + PACKING_LINE_BYTES) : 0;

    if (t == DTYPE_I6) {
        y = fmaf(first * scale, dot(t, lines, codes, 0, HALF_BLOCK), y);
        return fmaf(second * scale, dot(t, lines, codes, HALF_BLOCK, PACKING_BLOCK), y);
    }
    y = fmaf(first * scale, dot(t, lines, codes, 0, PACKING_BLOCK), y);
    return packing_has_min(t) ? fmaf(second, *int_tile_sums(x, 1), y) : y;
}

static float row_sum(const struct linear_job *j, const uint8_t *panel, uint32_t r,
                     struct int_tile t)
{
    size_t bytes = packing_superblock_bytes(j->dtype);
    float y = 0;

    for (uint32_t b = 0; b < int_blocks(j->cols); b++, t.block += INT_INPUT_BYTES) {
        const uint8_t *s = panel + b / 2 * bytes;
        uint32_t line = packing_numbers(j->dtype) + b % 2 * packing_lines(j->dtype);
        y = add_block(j->dtype, s + b % 2 * 32 + r * 2, s + line * PACKING_LINE_BYTES + r * 4,
                      t.block, y);
    }
    return y;
}

static void run(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    size_t bytes = packing_panel_bytes(j->dtype, j->cols);

    for (uint32_t row = row_begin; row < row_end; row += PACKING_INT_ROWS)
        for (uint32_t t = 0; t < j->n_tokens; t++) {
            const uint8_t *panel = (const uint8_t *)j->w + row / PACKING_INT_ROWS * bytes;
            float sums[PACKING_INT_ROWS];
            for (uint32_t r = 0; r < PACKING_INT_ROWS; r++)
                sums[r] =
                    row_sum(j, panel, r, int_tile_at(j->x, j->cols, j->n_tokens, TILE_TOKENS, t));
            int_put(j, row, t, sums);
        }
}

const struct linear_kernel linear_i8_plain = { INPUT_I8, prepare, run };
const struct linear_kernel linear_i4_plain = { INPUT_I8, prepare, run };
const struct linear_kernel linear_i4m_plain = { INPUT_I8, prepare, run };
const struct linear_kernel linear_i5m_plain = { INPUT_I8, prepare, run };
const struct linear_kernel linear_i6_plain = { INPUT_I8, prepare, run };
