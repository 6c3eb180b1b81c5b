/* cuda_packing.c - see cuda_packing.h. */
#include "gpu-worker/cuda/cuda_packing.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "gpu-worker/cuda/kernels/gemv.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/packing.h"
#include "gpu-worker/ops/rounding.h"

enum { SUPERBLOCK = PACKING_SUPERBLOCK, BLOCK = PACKING_BLOCK, PANEL_ROWS = 16, LANE_COLS = 16 };

static bool has_layout(enum dtype t)
{
    return (t >= DTYPE_F32 && t <= DTYPE_I4M) || t == DTYPE_E4M3;
}

static size_t codes_bytes(enum dtype t) /* of a superblock */
{
    return t == DTYPE_I8 ? 1024 : 512;
}

static size_t numbers_bytes(enum dtype t) /* of a superblock */
{
    return packing_has_min(t) ? 128 : 64;
}

uint32_t cuda_packing_panel_rows(enum dtype t)
{
    assert(has_layout(t));
    return packing_is_int(t) ? PANEL_ROWS : 1;
}

size_t cuda_packing_panel_bytes(enum dtype t, uint32_t cols)
{
    assert(has_layout(t));
    if (t == DTYPE_E4M3)
        return e4m3_row_bytes(cols);
    if (packing_is_int(t))
        return packing_superblocks(cols) * (codes_bytes(t) + numbers_bytes(t));
    return dtype_bytes(t, cuda_packing_stride(cols));
}

/* ---- where things are in a panel of integers ---- */

/* Bytes of the lane that has columns 16t .. 16t+15 of superblock s of a row; those of I4 are its row's half. */
static size_t lane_place(enum dtype t, uint32_t row, uint32_t s, uint32_t lane_t)
{
    uint32_t g = row % 8, half = row / 8, lane = 4 * g + lane_t;

    if (t == DTYPE_I8)
        return s * codes_bytes(t) + (size_t)half * 512 + (size_t)lane * 16;
    return s * codes_bytes(t) + (size_t)lane * 16 + (size_t)half * 8;
}

/* Bytes of the scale of block b of a row; its minimum is 4 further. */
static size_t number_place(enum dtype t, uint32_t cols, uint32_t row, uint32_t b)
{
    size_t start = packing_superblocks(cols) * codes_bytes(t);
    uint32_t g = row % 8, half = row / 8, pair = packing_has_min(t) ? 8 : 4;

    return start + b / 2 * numbers_bytes(t) + b % 2 * 8 * pair + (size_t)g * pair +
           (size_t)half * 2;
}

/* ---- one block ---- */

/* Eight codes as the half bytes of a word. */
static uint32_t word_of(const int8_t *codes, int offset)
{
    uint32_t word = 0;

    for (uint32_t c = 0; c < 8; c++)
        word |= (uint32_t)((codes[c] + offset) & 15) << 4 * (c / 2 + 4 * (c % 2));
    return word;
}

static void put_codes(enum dtype t, uint8_t *to, const int8_t codes[LANE_COLS])
{
    uint32_t words[2];

    if (t == DTYPE_I8)
        for (uint32_t c = 0; c < LANE_COLS; c++)
            to[c] = (uint8_t)(codes[c] + packing_offset(t));
    else {
        for (uint32_t i = 0; i < 2; i++)
            words[i] = word_of(codes + (size_t)i * 8, packing_offset(t));
        memcpy(to, words, sizeof words);
    }
}

static int get_code(enum dtype t, const uint8_t *from, uint32_t c)
{
    uint32_t word;

    if (t == DTYPE_I8)
        return from[c] - packing_offset(t);
    memcpy(&word, from + c / 8 * sizeof word, sizeof word);
    return (int)(word >> 4 * (c % 8 / 2 + 4 * (c % 2)) & 15) - packing_offset(t);
}

static void put_block(enum dtype t, uint8_t *panel, uint32_t cols, uint32_t row, uint32_t b,
                      const int8_t codes[BLOCK], const uint16_t *numbers)
{
    uint8_t *number = panel + number_place(t, cols, row, b);

    for (uint32_t i = 0; i < BLOCK / LANE_COLS; i++)
        put_codes(t, panel + lane_place(t, row, b / 2, b % 2 * 2 + i),
                  codes + (size_t)i * LANE_COLS);
    memcpy(number, &numbers[0], sizeof *numbers);
    if (packing_has_min(t))
        memcpy(number + 4, &numbers[1], sizeof *numbers);
}

/* ---- rows ---- */

static void round_row(enum dtype t, uint8_t *panel, uint32_t row, const float *x, uint32_t cols)
{
    for (uint32_t b = 0; b < packing_blocks(cols); b++) {
        float block[BLOCK] = { 0 };
        int8_t codes[BLOCK];
        uint16_t scale;
        memcpy(block, x + (size_t)b * BLOCK, packing_block_cols(b, cols) * sizeof *x);
        scale = t == DTYPE_I8 ? rounding_i8(codes, block) : rounding_i4(codes, block);
        put_block(t, panel, cols, row, b, codes, &scale);
    }
}

/* codes and numbers NULL: a row of zeroes, that the matrix lacks. */
static void copy_row(enum dtype t, uint8_t *panel, uint32_t row, const int8_t *codes,
                     const uint16_t *numbers, uint32_t cols)
{
    static const uint16_t none[PACKING_NUMBERS_MAX];

    for (uint32_t b = 0; b < packing_blocks(cols); b++) {
        uint32_t n = codes ? packing_block_cols(b, cols) : 0;
        int8_t block[BLOCK] = { 0 };
        if (n > 0)
            memcpy(block, codes + (size_t)b * BLOCK, n);
        put_block(t, panel, cols, row, b, block, n > 0 ? numbers + b * packing_numbers(t) : none);
    }
}

static void float_row(enum dtype t, uint8_t *to, const float *x, uint32_t cols)
{
    size_t bytes = dtype_bytes(t, cols), all = cuda_packing_panel_bytes(t, cols);

    if (t == DTYPE_F32)
        memcpy(to, x, bytes);
    for (uint32_t k = 0; t != DTYPE_F32 && k < cols; k++) {
        uint16_t h = t == DTYPE_F16 ? float_to_f16(x[k]) : float_to_bf16(x[k]);
        memcpy(to + (size_t)k * sizeof h, &h, sizeof h);
    }
    memset(to + bytes, 0, all - bytes);
}

/* codes: as they will lie, or NULL: they are there. */
static void finish_e4m3(uint8_t *row, const uint8_t *codes, float scale, uint32_t cols)
{
    size_t at = e4m3_codes_bytes(cols), all = e4m3_row_bytes(cols);

    if (codes)
        memcpy(row, codes, cols);
    memset(row + cols, 0, all - cols);
    memcpy(row + at, &scale, sizeof scale);
}

static void e4m3_row(uint8_t *row, const float *x, uint32_t cols)
{
    float largest = 0, inverse;

    for (uint32_t k = 0; k < cols; k++)
        largest = fmaxf(largest, fabsf(x[k]));
    inverse = largest > 0 ? E4M3_LARGEST / largest : 0;
    for (uint32_t k = 0; k < cols; k++)
        row[k] = float_to_e4m3(x[k] * inverse);
    finish_e4m3(row, NULL, largest / E4M3_LARGEST, cols);
}

void cuda_packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols)
{
    assert(n_rows >= 1 && n_rows <= cuda_packing_panel_rows(t));
    if (t == DTYPE_E4M3) {
        e4m3_row(panel, rows, cols);
        return;
    }
    if (!packing_is_int(t)) {
        float_row(t, panel, rows, cols);
        return;
    }
    assert(packing_numbers(t) == 1);
    for (uint32_t r = 0; r < n_rows; r++)
        round_row(t, panel, r, rows + (size_t)r * cols, cols);
    for (uint32_t r = n_rows; r < PANEL_ROWS; r++)
        copy_row(t, panel, r, NULL, NULL, cols);
}

void cuda_packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                       uint32_t cols)
{
    size_t bytes = dtype_bytes(t, cols);

    assert(!packing_is_int(t) && t != DTYPE_E4M3 && n_rows == 1);
    memcpy(panel, rows[0], bytes);
    memset((char *)panel + bytes, 0, cuda_packing_panel_bytes(t, cols) - bytes);
}

void cuda_packing_pack_codes(enum dtype t, void *panel, const int8_t *codes,
                             const uint16_t *numbers, uint32_t n_rows, uint32_t cols)
{
    size_t blocks = (cols + BLOCK - 1) / BLOCK;
    float scale;

    if (t == DTYPE_E4M3) {
        assert(n_rows == 1);
        memcpy(&scale, numbers, sizeof scale);
        finish_e4m3(panel, (const uint8_t *)codes, scale, cols);
        return;
    }
    assert(packing_is_int(t) && n_rows >= 1 && n_rows <= cuda_packing_panel_rows(t));
    for (uint32_t r = 0; r < n_rows; r++)
        copy_row(t, panel, r, codes + (size_t)r * cols, numbers + r * blocks * packing_numbers(t),
                 cols);
    for (uint32_t r = n_rows; r < PANEL_ROWS; r++)
        copy_row(t, panel, r, NULL, NULL, cols);
}

/* ---- back ---- */

static void unpack_block(enum dtype t, float *y, const uint8_t *panel, uint32_t cols, uint32_t row,
                         uint32_t b)
{
    const uint8_t *number = panel + number_place(t, cols, row, b);
    uint16_t scale, min = 0;

    memcpy(&scale, number, sizeof scale);
    if (packing_has_min(t))
        memcpy(&min, number + 4, sizeof min);
    for (uint32_t k = 0; k < packing_block_cols(b, cols); k++) {
        const uint8_t *lane = panel + lane_place(t, row, b / 2, b % 2 * 2 + k / LANE_COLS);
        y[k] = f16_to_float(scale) * (float)get_code(t, lane, k % LANE_COLS);
        if (packing_has_min(t))
            y[k] += f16_to_float(min);
    }
}

static void unpack_float_row(enum dtype t, float *y, const uint8_t *row, uint32_t cols)
{
    if (t == DTYPE_F32)
        memcpy(y, row, cols * sizeof *y);
    for (uint32_t k = 0; t != DTYPE_F32 && k < cols; k++) {
        uint16_t h;
        memcpy(&h, row + (size_t)k * sizeof h, sizeof h);
        y[k] = t == DTYPE_F16 ? f16_to_float(h) : bf16_to_float(h);
    }
}

static void unpack_e4m3_row(float *y, const uint8_t *row, uint32_t cols)
{
    float scale;

    memcpy(&scale, row + e4m3_codes_bytes(cols), sizeof scale);
    for (uint32_t k = 0; k < cols; k++)
        y[k] = scale * e4m3_to_float(row[k]);
}

void cuda_packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row,
                             uint32_t cols)
{
    uint32_t height = cuda_packing_panel_rows(t);
    const uint8_t *panel =
        (const uint8_t *)matrix + row / height * cuda_packing_panel_bytes(t, cols);

    if (t == DTYPE_E4M3) {
        unpack_e4m3_row(y, panel, cols);
        return;
    }
    if (!packing_is_int(t)) {
        unpack_float_row(t, y, panel, cols);
        return;
    }
    for (uint32_t b = 0; b * BLOCK < cols; b++)
        unpack_block(t, y + (size_t)b * BLOCK, panel, cols, row % height, b);
}
