/* packing_float.c - see packing_float.h.
 *
 * Weights of 16 bits are most of what a large model loads, so rows of the same type are moved as words, in
 * blocks of columns that keep the lines of all 32 rows in the first cache. */
#include "gpu-worker/ops/packing_float.h"

#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

enum { BLOCK_COLS = 64 };

uint32_t packing_float_rows(enum dtype t)
{
    return t == DTYPE_F32 ? 16 : 32;
}

size_t packing_float_bytes(enum dtype t, uint32_t cols)
{
    return (size_t)(t == DTYPE_BF16 ? cols + cols % 2 : cols) * 64;
}

/* Where element (row, k) of a panel is, counted in elements. */
static size_t place(enum dtype t, uint32_t row, uint32_t k)
{
    if (t == DTYPE_BF16)
        return (size_t)(k / 2) * 64 + row * 2 + k % 2;
    return (size_t)k * packing_float_rows(t) + row;
}

static void put(enum dtype t, void *panel, uint32_t row, uint32_t k, float f)
{
    if (t == DTYPE_F32)
        ((float *)panel)[place(t, row, k)] = f;
    else
        ((uint16_t *)panel)[place(t, row, k)] = t == DTYPE_F16 ? float_to_f16(f) : float_to_bf16(f);
}

static void clear_unless_full(enum dtype t, void *panel, uint32_t n_rows, uint32_t cols)
{
    assert(n_rows <= packing_float_rows(t));
    if (n_rows < packing_float_rows(t) || (t == DTYPE_BF16 && cols % 2 == 1))
        memset(panel, 0, packing_float_bytes(t, cols));
}

void packing_float_round(enum dtype t, void *panel, const float *rows, uint32_t n_rows,
                         uint32_t cols)
{
    clear_unless_full(t, panel, n_rows, cols);
    for (uint32_t begin = 0; begin < cols; begin += BLOCK_COLS)
        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t k = begin; k < begin + BLOCK_COLS && k < cols; k++)
                put(t, panel, r, k, rows[(size_t)r * cols + k]);
}

/* Columns begin .. end-1 of row r: words of 4 bytes `stride` words apart (F32; pairs of BF16). */
static void move_words(uint32_t *to, const char *from, uint32_t n, uint32_t stride)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * stride, from + (size_t)i * 4, 4);
}

static void move_halves(uint16_t *to, const char *from, uint32_t n, uint32_t stride)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * stride, from + (size_t)i * 2, 2);
}

void packing_float_interleave(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                              uint32_t cols)
{
    clear_unless_full(t, panel, n_rows, cols);
    for (uint32_t begin = 0; begin < cols; begin += BLOCK_COLS) {
        uint32_t n = cols - begin < BLOCK_COLS ? cols - begin : BLOCK_COLS;
        for (uint32_t r = 0; r < n_rows; r++) {
            const char *from = (const char *)rows[r] + dtype_bytes(t, begin);
            size_t to = place(t, r, begin);
            if (t == DTYPE_F32)
                move_words((uint32_t *)panel + to, from, n, 16);
            else if (t == DTYPE_F16)
                move_halves((uint16_t *)panel + to, from, n, 32);
            else
                move_words((uint32_t *)panel + to / 2, from, n / 2, 32);
            if (t == DTYPE_BF16 && n % 2 == 1)
                move_halves((uint16_t *)panel + place(t, r, begin + n - 1),
                            from + (size_t)(n - 1) * 2, 1, 1);
        }
    }
}

void packing_float_row(enum dtype t, float *y, const void *panel, uint32_t row, uint32_t cols)
{
    const float *whole = (const float *)panel + row;
    const uint16_t *half = (const uint16_t *)panel + place(t, row, 0);

    if (t == DTYPE_F32)
        for (uint32_t k = 0; k < cols; k++)
            y[k] = whole[(size_t)k * 16];
    else if (t == DTYPE_F16)
        for (uint32_t k = 0; k < cols; k++)
            y[k] = f16_to_float(half[(size_t)k * 32]);
    else
        for (uint32_t k = 0; k < cols; k++)
            y[k] = bf16_to_float(half[(size_t)(k / 2) * 64 + k % 2]);
}
