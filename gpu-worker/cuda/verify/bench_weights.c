/* bench_weights.c - matrices of random numbers as they lie on the device, and products with them on the host. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/ops/half.h"

enum { BLOCK_COLS = 32, MATRIX_SEED = 100 };

/* Minima are no rounding's: codes and numbers at random. */
static void pack_i4m(struct bench *b, void *panel, uint32_t rows, uint32_t cols, uint64_t seed)
{
    uint64_t n = (uint64_t)rows * cols, blocks = (cols + BLOCK_COLS - 1) / BLOCK_COLS * rows;
    float *x = bench_numbers(b, n, seed), *y = bench_numbers(b, blocks * 2, seed + 1);
    int8_t *codes = bench_host(b, n);
    uint16_t *numbers = bench_host(b, blocks * 2 * sizeof *numbers);

    for (uint64_t i = 0; i < n; i++)
        codes[i] = (int8_t)(8 * (x[i] + 1)); /* 0 .. 15 */
    for (uint64_t i = 0; i < blocks; i++) {
        numbers[2 * i] = float_to_f16(0.1f * (y[2 * i] + 1.5f));
        numbers[2 * i + 1] = float_to_f16(0.8f * (y[2 * i + 1] - 1));
    }
    cuda_packing_pack_codes(DTYPE_I4M, panel, codes, numbers, rows, cols);
    free(x);
    free(y);
    free(codes);
    free(numbers);
}

static void pack(struct bench *b, enum dtype dtype, void *panel, uint32_t rows, uint32_t cols,
                 uint64_t seed)
{
    float *w;

    if (dtype == DTYPE_I4M) {
        pack_i4m(b, panel, rows, cols, seed);
        return;
    }
    w = bench_numbers(b, (uint64_t)rows * cols, seed);
    cuda_packing_pack(dtype, panel, w, rows, cols);
    free(w);
}

/* Panel by panel: the floats of the whole matrix would be large. */
struct bench_matrix bench_matrix(struct bench *b, enum dtype dtype, uint32_t rows, uint32_t cols)
{
    struct bench_matrix m = { .dtype = dtype, .rows = rows, .cols = cols };
    uint32_t height = cuda_packing_panel_rows(dtype), n_panels = (rows + height - 1) / height;
    size_t panel_bytes = cuda_packing_panel_bytes(dtype, cols);

    m.bytes = n_panels * panel_bytes;
    m.packed = bench_host(b, m.bytes);
    for (uint32_t i = 0; i < n_panels; i++) {
        uint32_t left = rows - i * height;

        pack(b, dtype, (char *)m.packed + i * panel_bytes, left < height ? left : height, cols,
             MATRIX_SEED + 2 * (uint64_t)i);
    }
    return m;
}

uint16_t *bench_halves(struct bench *b, uint64_t n, uint64_t seed, bool is_bf16)
{
    uint16_t *out = bench_host(b, n * sizeof *out);
    float *x = bench_numbers(b, n, seed);

    for (uint64_t i = 0; i < n; i++)
        out[i] = is_bf16 ? float_to_bf16(x[i]) : float_to_f16(x[i]);
    free(x);
    return out;
}

void bench_note_product(struct bench *b, double got, const struct bench_matrix *m, uint32_t row,
                        const float *x)
{
    float *w = bench_host(b, m->cols * sizeof *w);
    double sum = 0, size = 0;

    cuda_packing_unpack_row(m->dtype, w, m->packed, row, m->cols);
    for (uint32_t c = 0; c < m->cols; c++) {
        double product = (double)w[c] * (double)x[c];

        sum += product;
        size += fabs(product);
    }
    bench_note(b, got, sum, size);
    free(w);
}

void bench_note_product_halves(struct bench *b, double got, const struct bench_matrix *m,
                               uint32_t row, const uint16_t *x)
{
    float *as_floats = bench_host(b, m->cols * sizeof *as_floats);

    for (uint32_t c = 0; c < m->cols; c++)
        as_floats[c] = m->dtype == DTYPE_BF16 ? bf16_to_float(x[c]) : f16_to_float(x[c]);
    bench_note_product(b, got, m, row, as_floats);
    free(as_floats);
}
