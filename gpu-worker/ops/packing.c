/* packing.c - see packing.h. */
#include "gpu-worker/ops/packing.h"

#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

uint32_t packing_panel_rows(enum dtype t)
{
    (void)t;
    return 1;
}

size_t packing_panel_bytes(enum dtype t, uint32_t cols)
{
    return dtype_bytes(t, cols);
}

void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols)
{
    uint16_t *half = panel;

    assert(n_rows == 1);
    if (t == DTYPE_F32)
        memcpy(panel, rows, cols * sizeof *rows);
    else if (t == DTYPE_F16)
        for (uint32_t k = 0; k < cols; k++)
            half[k] = float_to_f16(rows[k]);
    else
        for (uint32_t k = 0; k < cols; k++)
            half[k] = float_to_bf16(rows[k]);
}

void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols)
{
    const char *from = (const char *)matrix + row * packing_panel_bytes(t, cols);
    const uint16_t *half = (const uint16_t *)from;

    if (t == DTYPE_F32)
        memcpy(y, from, cols * sizeof *y);
    else if (t == DTYPE_F16)
        for (uint32_t k = 0; k < cols; k++)
            y[k] = f16_to_float(half[k]);
    else
        for (uint32_t k = 0; k < cols; k++)
            y[k] = bf16_to_float(half[k]);
}
