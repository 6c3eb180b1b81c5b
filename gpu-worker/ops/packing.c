/* packing.c - see packing.h. */
#include "gpu-worker/ops/packing.h"

#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/packing_float.h"
#include "gpu-worker/ops/rounding.h"

uint32_t packing_panel_rows(enum dtype t)
{
    return packing_is_int(t) ? PACKING_INT_ROWS : packing_float_rows(t);
}

size_t packing_panel_bytes(enum dtype t, uint32_t cols)
{
    return packing_is_int(t) ? packing_superblocks(cols) * packing_superblock_bytes(t)
                             : packing_float_bytes(t, cols);
}

/* Where block b of a row lies in its panel, bytes from the panel's start. */
struct place {
    size_t first;  /* number */
    size_t second; /* number, of types that have it */
    size_t codes;  /* of column 0; a line is 64 bytes further */
};

static struct place place_of(enum dtype t, uint32_t row, uint32_t b)
{
    size_t start = b / 2 * packing_superblock_bytes(t), number = start + b % 2 * 32 + row * 2;
    size_t line = packing_numbers(t) + b % 2 * packing_lines(t);

    return (struct place){ number, number + PACKING_LINE_BYTES,
                           start + line * PACKING_LINE_BYTES + row * 4 };
}

static void put_line(uint8_t *codes, uint32_t line, uint32_t four)
{
    memcpy(codes + (size_t)line * PACKING_LINE_BYTES, &four, sizeof four);
}

/* fours[c]: four codes side by side, as line c has them, offset. */
static void put_lines(enum dtype t, uint8_t *to, const uint32_t fours[8])
{
    uint32_t fifth = 0, upper[2] = { 0, 0 };

    for (uint32_t c = 0; t == DTYPE_I8 && c < 8; c++)
        put_line(to, c, fours[c]);
    if (t == DTYPE_I8)
        return;
    for (uint32_t c = 0; c < 4; c++)
        put_line(to, c, (fours[c] & 0x0f0f0f0f) | (fours[c + 4] & 0x0f0f0f0f) << 4);
    for (uint32_t c = 0; c < 8; c++) {
        fifth |= (fours[c] >> 4 & 0x01010101) << c;
        upper[c / 4] |= (fours[c] >> 4 & 0x03030303) << c % 4 * 2;
    }
    if (t == DTYPE_I5M)
        put_line(to, 4, fifth);
    for (uint32_t i = 0; t == DTYPE_I6 && i < 2; i++)
        put_line(to, 4 + i, upper[i]);
}

static void put_block(enum dtype t, uint8_t *panel, uint32_t row, uint32_t b, const int8_t *codes,
                      const uint16_t *numbers)
{
    struct place p = place_of(t, row, b);
    uint32_t fours[8];
    uint8_t bytes[PACKING_BLOCK];

    for (uint32_t k = 0; k < PACKING_BLOCK; k++)
        bytes[k] = (uint8_t)(codes[k] + packing_offset(t));
    memcpy(fours, bytes, sizeof fours);
    put_lines(t, panel + p.codes, fours);
    memcpy(panel + p.first, &numbers[0], sizeof *numbers);
    if (packing_numbers(t) == 2)
        memcpy(panel + p.second, &numbers[1], sizeof *numbers);
}

static int get_code(enum dtype t, const uint8_t *codes, uint32_t k)
{
    uint32_t line = k / 4, at = k % 4;
    int code;

    if (t == DTYPE_I8)
        return codes[line * PACKING_LINE_BYTES + at] - 128;
    code = codes[line % 4 * PACKING_LINE_BYTES + at] >> line / 4 * 4 & 15;
    if (t == DTYPE_I5M)
        code |= (codes[4 * PACKING_LINE_BYTES + at] >> line & 1) << 4;
    if (t == DTYPE_I6)
        code |= (codes[(4 + line / 4) * PACKING_LINE_BYTES + at] >> line % 4 * 2 & 3) << 4;
    return code - packing_offset(t);
}

static void round_row(enum dtype t, uint8_t *panel, uint32_t row, const float *x, uint32_t cols)
{
    for (uint32_t b = 0; b < packing_blocks(cols); b++) {
        float block[PACKING_BLOCK] = { 0 };
        int8_t codes[PACKING_BLOCK];
        uint16_t scale;
        memcpy(block, x + (size_t)b * PACKING_BLOCK, packing_block_cols(b, cols) * sizeof *x);
        scale = t == DTYPE_I8 ? rounding_i8(codes, block) : rounding_i4(codes, block);
        put_block(t, panel, row, b, codes, &scale);
    }
}

static void copy_row(enum dtype t, uint8_t *panel, uint32_t row, const int8_t *codes,
                     const uint16_t *numbers, uint32_t cols)
{
    static const uint16_t none[PACKING_NUMBERS_MAX];

    for (uint32_t b = 0; b < packing_blocks(cols); b++) {
        uint32_t n = packing_block_cols(b, cols);
        int8_t block[PACKING_BLOCK] = { 0 };
        memcpy(block, codes + (size_t)b * PACKING_BLOCK, n);
        put_block(t, panel, row, b, block, n ? numbers + b * packing_numbers(t) : none);
    }
}

/* Code 0 and numbers 0 everywhere. */
static void clear_panel(enum dtype t, uint8_t *panel, uint32_t cols)
{
    static const int8_t codes[PACKING_BLOCK];
    static const uint16_t numbers[PACKING_NUMBERS_MAX];

    for (uint32_t r = 0; r < PACKING_INT_ROWS; r++)
        for (uint32_t b = 0; b < packing_blocks(cols); b++)
            put_block(t, panel, r, b, codes, numbers);
}

void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols)
{
    assert(n_rows >= 1 && n_rows <= packing_panel_rows(t));
    if (!packing_is_int(t)) {
        packing_float_round(t, panel, rows, n_rows, cols);
        return;
    }
    assert(packing_numbers(t) == 1);
    if (n_rows < PACKING_INT_ROWS)
        clear_panel(t, panel, cols);
    for (uint32_t r = 0; r < n_rows; r++)
        round_row(t, panel, r, rows + (size_t)r * cols, cols);
}

void packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                  uint32_t cols)
{
    assert(!packing_is_int(t) && n_rows >= 1 && n_rows <= packing_panel_rows(t));
    packing_float_interleave(t, panel, rows, n_rows, cols);
}

void packing_pack_codes(enum dtype t, void *panel, const int8_t *codes, const uint16_t *numbers,
                        uint32_t n_rows, uint32_t cols)
{
    size_t blocks = (cols + PACKING_BLOCK - 1) / PACKING_BLOCK;

    assert(packing_is_int(t) && n_rows >= 1 && n_rows <= PACKING_INT_ROWS);
    if (n_rows < PACKING_INT_ROWS)
        clear_panel(t, panel, cols);
    for (uint32_t r = 0; r < n_rows; r++)
        copy_row(t, panel, r, codes + (size_t)r * cols, numbers + r * blocks * packing_numbers(t),
                 cols);
}

/* One block of a row: n of its elements. */
static void unpack_block(enum dtype t, float *y, const uint8_t *panel, struct place p, uint32_t n)
{
    uint16_t first, second = 0;
    float scale, last;

    memcpy(&first, panel + p.first, sizeof first);
    if (packing_numbers(t) == 2)
        memcpy(&second, panel + p.second, sizeof second);
    scale = f16_to_float(first);
    last = t == DTYPE_I6 ? f16_to_float(second) : scale;
    for (uint32_t k = 0; k < n; k++)
        y[k] = (k < PACKING_BLOCK / 2 ? scale : last) * (float)get_code(t, panel + p.codes, k);
    for (uint32_t k = 0; packing_has_min(t) && k < n; k++)
        y[k] += f16_to_float(second);
}

void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols)
{
    uint32_t height = packing_panel_rows(t);
    const uint8_t *panel = (const uint8_t *)matrix + row / height * packing_panel_bytes(t, cols);

    if (!packing_is_int(t)) {
        packing_float_row(t, y, panel, row % height, cols);
        return;
    }
    for (uint32_t b = 0; b * PACKING_BLOCK < cols; b++)
        unpack_block(t, y + (size_t)b * PACKING_BLOCK, panel, place_of(t, row % height, b),
                     packing_block_cols(b, cols));
}

/* ---- the table ---- */

/* No kernel of the host multiplies fp8. */
static enum dtype stored_dtype(enum dtype t)
{
    return t == DTYPE_E4M3 ? DTYPE_I8 : t;
}

const struct packing packing_cpu = { .name = "cpu",
                                     .version = PACKING_VERSION,
                                     .dtype = stored_dtype,
                                     .panel_rows = packing_panel_rows,
                                     .panel_bytes = packing_panel_bytes,
                                     .pack = packing_pack,
                                     .copy = packing_copy,
                                     .pack_codes = packing_pack_codes };
