/* packing.c - see packing.h. */
#include "gpu-worker/ops/packing.h"

#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/packing_float.h"
#include "gpu-worker/ops/rounding.h"

static bool is_int(enum dtype t)
{
    return t == DTYPE_I8 || t == DTYPE_I4;
}

static size_t superblock_bytes(enum dtype t)
{
    return t == DTYPE_I8 ? PACKING_I8_BYTES : PACKING_I4_BYTES;
}

uint32_t packing_panel_rows(enum dtype t)
{
    return is_int(t) ? PACKING_INT_ROWS : packing_float_rows(t);
}

size_t packing_panel_bytes(enum dtype t, uint32_t cols)
{
    return is_int(t) ? packing_superblocks(cols) * superblock_bytes(t)
                     : packing_float_bytes(t, cols);
}

/* Where block b of a row lies in its panel. */
struct place {
    size_t scale; /* bytes from the panel's start */
    size_t codes; /* of column 0; column k is in line k / 4, 64 bytes further each */
};

static struct place place_of(enum dtype t, uint32_t row, uint32_t b)
{
    size_t lines = t == DTYPE_I8 ? 8 : 4, start = b / 2 * superblock_bytes(t);

    return (struct place){ start + b % 2 * 32 + row * 2,
                           start + PACKING_SCALE_BYTES + b % 2 * lines * 64 + row * 4 };
}

static void put_block(enum dtype t, uint8_t *panel, uint32_t row, uint32_t b, const int8_t *codes,
                      uint16_t scale)
{
    struct place p = place_of(t, row, b);

    memcpy(panel + p.scale, &scale, sizeof scale);
    for (uint32_t line = 0; line < (t == DTYPE_I8 ? 8 : 4); line++) {
        uint32_t low, high; /* four codes side by side, as their row has them */
        memcpy(&low, codes + line * 4, 4);
        memcpy(&high, codes + PACKING_BLOCK / 2 + line % 4 * 4, 4);
        if (t == DTYPE_I8)
            low ^= 0x80808080; /* + 128 */
        else                   /* + 8 */
            low = ((low ^ 0x08080808) & 0x0f0f0f0f) | ((high ^ 0x08080808) & 0x0f0f0f0f) << 4;
        memcpy(panel + p.codes + line * 64, &low, 4);
    }
}

static int get_code(enum dtype t, const uint8_t *panel, struct place p, uint32_t k)
{
    uint32_t line = k % PACKING_BLOCK / 4;
    uint8_t byte = panel[p.codes + (t == DTYPE_I8 ? line : line % 4) * 64 + k % 4];

    if (t == DTYPE_I8)
        return byte - 128;
    return (line < 4 ? byte & 15 : byte >> 4) - 8;
}

static uint32_t n_blocks(uint32_t cols)
{
    return packing_superblocks(cols) * (PACKING_SUPERBLOCK / PACKING_BLOCK);
}

/* Columns of block b that the matrix has; 0 for one that is all padding. */
static uint32_t block_cols(uint32_t b, uint32_t cols)
{
    uint32_t first = b * PACKING_BLOCK, left = first < cols ? cols - first : 0;

    return left < PACKING_BLOCK ? left : PACKING_BLOCK;
}

static void round_row(enum dtype t, uint8_t *panel, uint32_t row, const float *x, uint32_t cols)
{
    for (uint32_t b = 0; b < n_blocks(cols); b++) {
        float block[PACKING_BLOCK] = { 0 };
        int8_t codes[PACKING_BLOCK];
        uint16_t scale;
        memcpy(block, x + (size_t)b * PACKING_BLOCK, block_cols(b, cols) * sizeof *x);
        scale = t == DTYPE_I8 ? rounding_i8(codes, block) : rounding_i4(codes, block);
        put_block(t, panel, row, b, codes, scale);
    }
}

static void copy_row(enum dtype t, uint8_t *panel, uint32_t row, const int8_t *codes,
                     const uint16_t *scales, uint32_t cols)
{
    for (uint32_t b = 0; b < n_blocks(cols); b++) {
        uint32_t n = block_cols(b, cols);
        int8_t block[PACKING_BLOCK] = { 0 };
        memcpy(block, codes + (size_t)b * PACKING_BLOCK, n);
        put_block(t, panel, row, b, block, n ? scales[b] : 0);
    }
}

/* Code 0 and scale 0 everywhere. */
static void clear_panel(enum dtype t, uint8_t *panel, uint32_t cols)
{
    size_t bytes = superblock_bytes(t);

    memset(panel, t == DTYPE_I8 ? 0x80 : 0x88, packing_panel_bytes(t, cols));
    for (uint32_t s = 0; s < packing_superblocks(cols); s++)
        memset(panel + s * bytes, 0, PACKING_SCALE_BYTES);
}

void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols)
{
    assert(n_rows >= 1 && n_rows <= packing_panel_rows(t));
    if (!is_int(t)) {
        packing_float_round(t, panel, rows, n_rows, cols);
        return;
    }
    if (n_rows < PACKING_INT_ROWS)
        clear_panel(t, panel, cols);
    for (uint32_t r = 0; r < n_rows; r++)
        round_row(t, panel, r, rows + (size_t)r * cols, cols);
}

void packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                  uint32_t cols)
{
    assert(!is_int(t) && n_rows >= 1 && n_rows <= packing_panel_rows(t));
    packing_float_interleave(t, panel, rows, n_rows, cols);
}

void packing_pack_codes(enum dtype t, void *panel, const int8_t *codes, const uint16_t *scales,
                        uint32_t n_rows, uint32_t cols)
{
    uint32_t blocks = (cols + PACKING_BLOCK - 1) / PACKING_BLOCK;

    assert(is_int(t) && n_rows >= 1 && n_rows <= PACKING_INT_ROWS);
    if (n_rows < PACKING_INT_ROWS)
        clear_panel(t, panel, cols);
    for (uint32_t r = 0; r < n_rows; r++)
        copy_row(t, panel, r, codes + (size_t)r * cols, scales + (size_t)r * blocks, cols);
}

static void unpack_int(enum dtype t, float *y, const uint8_t *panel, uint32_t row, uint32_t cols)
{
    for (uint32_t b = 0; b * PACKING_BLOCK < cols; b++) {
        struct place p = place_of(t, row, b);
        uint16_t half;
        float scale;
        memcpy(&half, panel + p.scale, sizeof half);
        scale = f16_to_float(half);
        for (uint32_t k = 0; k < block_cols(b, cols); k++)
            y[b * PACKING_BLOCK + k] = scale * (float)get_code(t, panel, p, k);
    }
}

void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols)
{
    uint32_t height = packing_panel_rows(t);
    const uint8_t *panel = (const uint8_t *)matrix + row / height * packing_panel_bytes(t, cols);

    if (is_int(t))
        unpack_int(t, y, panel, row % height, cols);
    else
        packing_float_row(t, y, panel, row % height, cols);
}
