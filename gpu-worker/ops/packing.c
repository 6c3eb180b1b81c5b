/* packing.c - see packing.h. */
#include "gpu-worker/ops/packing.h"

#include <assert.h>

#include "gpu-worker/ops/packing_float.h"

uint32_t packing_panel_rows(enum dtype t)
{
    return packing_float_rows(t);
}

size_t packing_panel_bytes(enum dtype t, uint32_t cols)
{
    return packing_float_bytes(t, cols);
}

void packing_pack(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols)
{
    assert(n_rows >= 1 && n_rows <= packing_panel_rows(t));
    packing_float_round(t, panel, rows, n_rows, cols);
}

void packing_copy(enum dtype t, void *panel, const void *const *rows, uint32_t n_rows,
                  uint32_t cols)
{
    assert(n_rows >= 1 && n_rows <= packing_panel_rows(t));
    packing_float_interleave(t, panel, rows, n_rows, cols);
}

void packing_unpack_row(enum dtype t, float *y, const void *matrix, uint32_t row, uint32_t cols)
{
    uint32_t height = packing_panel_rows(t);
    const char *panel = (const char *)matrix + row / height * packing_panel_bytes(t, cols);

    packing_float_row(t, y, panel, row % height, cols);
}
