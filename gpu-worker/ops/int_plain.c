/* int_plain.c - the definition of the integer products (int_input.h) in plain loops. */
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/int_input.h"

enum { TILE_TOKENS = 1, NORM_LANES = 16 };

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
    int32_t sum = 0;

    *to.scale = m < INT_INPUT_SMALLEST ? 0 : m / 127;
    for (int k = 0; k < PACKING_BLOCK; k++) {
        to.codes[k] = isfinite(m) ? (int8_t)lrintf(x[k] * inverse) : 1;
        sum += to.codes[k];
    }
    *to.off4 = -8 * sum;
    *to.off8 = -128 * sum;
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
            put_block(int_slot_of(tile, t, b), block);
        }
    }
}

/* ---- the product ---- */

/* sum(w x) of one row and block; lines: the block's first line, at the row. */
static int32_t dot_i8(const uint8_t *lines, const int8_t *x)
{
    int32_t sum = 0;

    for (int k = 0; k < PACKING_BLOCK; k++)
        sum += (lines[k / 4 * 64 + k % 4] - 128) * x[k];
    return sum;
}

static int32_t dot_i4(const uint8_t *lines, const int8_t *x)
{
    int32_t sum = 0;

    for (int k = 0; k < PACKING_BLOCK / 2; k++) {
        uint8_t byte = lines[k / 4 * 64 + k % 4];
        sum += ((byte & 15) - 8) * x[k] + ((byte >> 4) - 8) * x[k + PACKING_BLOCK / 2];
    }
    return sum;
}

static float row_sum(const struct linear_job *j, const uint8_t *panel, uint32_t r,
                     struct int_tile t)
{
    size_t bytes = j->dtype == DTYPE_I8 ? PACKING_I8_BYTES : PACKING_I4_BYTES;
    size_t half = (bytes - PACKING_SCALE_BYTES) / 2;
    float y = 0;

    for (uint32_t b = 0; b < int_blocks(j->cols); b++, t.block += INT_INPUT_BYTES) {
        const uint8_t *s = panel + b / 2 * bytes;
        const uint8_t *lines = s + PACKING_SCALE_BYTES + b % 2 * half + r * 4;
        const int8_t *x = (const int8_t *)t.block;
        int32_t sum = j->dtype == DTYPE_I8 ? dot_i8(lines, x) : dot_i4(lines, x);
        uint16_t scale;
        memcpy(&scale, s + b % 2 * 32 + r * 2, sizeof scale);
        y = fmaf(f16_to_float(scale) * *int_tile_scales(t.block, 1), (float)sum, y);
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
