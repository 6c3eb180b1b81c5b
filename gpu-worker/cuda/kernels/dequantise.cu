/* dequantise.cu - packed weights as plain f16 rows, and rows of a packed embedding table (gemm.h).
 *
 * A warp takes a superblock of 16 rows by 64 columns in one load of 16 bytes a lane (two of I8); a lane writes
 * its 16 columns of two rows, so that four lanes write a line.
 *
 *   bytes moved    the packed matrix once, twice as many bytes or four times as many out
 *   bound          memory */
#include "gpu-worker/cuda/kernels/gemm.h"

#include "gpu-worker/cuda/kernels/packed.h"
#include "gpu-worker/cuda/kernels/port.h"

/* The lane's 16 elements of row g + 8 * half, in columns that end at `cols`: 0 behind it. */
template <int FORMAT>
KDEV void elements_of(float w[16], const k_u32x4 *pieces, packed_numbers numbers, uint32_t half,
                      uint32_t cols_left)
{
    float scale = half ? k_f16_high(numbers.scale) : k_f16_low(numbers.scale);
    float min = half ? k_f16_high(numbers.min) : k_f16_low(numbers.min);

    packed_widen<FORMAT>(w, pieces, half);
    KUNROLL
    for (uint32_t k = 0; k < 16; k++) {
        w[k] = FORMAT == GEMV_I4M ? k_fma(scale, w[k], min) : scale * w[k];
        w[k] = k < cols_left ? w[k] : 0;
    }
}

template <int FORMAT>
KDEV packed_numbers load_superblock(k_u32x4 *pieces, const uint8_t *panel, uint32_t at, uint32_t n)
{
    typedef packed<FORMAT> f;

    KUNROLL
    for (uint32_t i = 0; i < f::PIECES; i++)
        pieces[i] = k_stream16(panel + at * f::CODES + i * 512 + k_lane() * 16);
    return packed_numbers_of<FORMAT>(panel + n * f::CODES, at);
}

/* Eight columns at a time, as far as the padded row goes. */
KDEV void store_halves(uint16_t *to, const float w[16], uint32_t cols_left)
{
    KUNROLL
    for (uint32_t i = 0; i < 2; i++) {
        k_u32x4 eight;
        KUNROLL
        for (uint32_t k = 0; k < 4; k++)
            eight.v[k] = k_f32x2_to_f16x2(w[8 * i + 2 * k], w[8 * i + 2 * k + 1]);
        if (8 * i < cols_left)
            k_store16(to + 8 * i, eight);
    }
}

template <int FORMAT> KDEV void dequantise(const dequantise_args &a)
{
    uint32_t n = packed_superblocks(a.cols), at = blockIdx.x * DEQUANTISE_WARPS + k_warp();
    uint32_t col = at * 64 + k_lane() % 4 * 16, row = blockIdx.y * 16 + k_lane() / 4;
    uint32_t left = col < a.cols ? a.cols - col : 0;
    const uint8_t *panel =
        (const uint8_t *)a.data + blockIdx.y * packed_panel_bytes<FORMAT>(a.cols);
    k_u32x4 pieces[packed<FORMAT>::PIECES];

    if (at >= n)
        return;
    packed_numbers numbers = load_superblock<FORMAT>(pieces, panel, at, n);
    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        float w[16];
        elements_of<FORMAT>(w, pieces, numbers, half, left);
        if (row + 8 * half < a.rows)
            store_halves(a.out + (row + 8 * half) * a.out_stride + col, w, left);
    }
}

/* The lanes of the row's g, of each superblock, write it; the others have read it beside. */
template <int FORMAT> KDEV void embed(const embed_packed_args &a)
{
    uint32_t row = (uint32_t)(a.tokens[blockIdx.x] - (int32_t)a.first);
    uint32_t n = packed_superblocks(a.cols), half = row % 16 / 8;
    const uint8_t *panel = (const uint8_t *)a.table + row / 16 * packed_panel_bytes<FORMAT>(a.cols);
    float *x = a.x + blockIdx.x * a.x_stride;

    if (a.tokens[blockIdx.x] < (int32_t)a.first || row >= a.rows)
        return;
    for (uint32_t at = k_warp(); at < n; at += EMBED_PACKED_THREADS / 32) {
        uint32_t col = at * 64 + k_lane() % 4 * 16;
        k_u32x4 pieces[packed<FORMAT>::PIECES];
        packed_numbers numbers = load_superblock<FORMAT>(pieces, panel, at, n);
        float w[16];
        elements_of<FORMAT>(w, pieces, numbers, half, 16);
        KUNROLL
        for (uint32_t k = 0; k < 16; k++)
            if (k_lane() / 4 == row % 8 && col + k < a.cols)
                x[col + k] = a.scale * w[k];
    }
}

KERNEL(dequantise_i8, struct dequantise_args, DEQUANTISE_THREADS)
{
    dequantise<GEMV_I8>(a);
}

KERNEL(dequantise_i4, struct dequantise_args, DEQUANTISE_THREADS)
{
    dequantise<GEMV_I4>(a);
}

KERNEL(dequantise_i4m, struct dequantise_args, DEQUANTISE_THREADS)
{
    dequantise<GEMV_I4M>(a);
}

/* A thread has 16 columns of a row. */
KERNEL(dequantise_e4m3, struct dequantise_args, DEQUANTISE_THREADS)
{
    uint32_t codes = e4m3_codes_bytes(a.cols), n = codes / 16;
    uint32_t at = blockIdx.x * DEQUANTISE_THREADS + threadIdx.x, row = at / n, col = at % n * 16;
    const uint8_t *from = (const uint8_t *)a.data + (uint64_t)row * e4m3_row_bytes(a.cols);
    float w[16];

    if (row >= a.rows)
        return;
    k_u32x4 piece = k_stream16(from + col);
    float scale = k_ldg_f32((const float *)(from + codes));
    KUNROLL
    for (uint32_t i = 0; i < 4; i++)
        e4m3_widen(w + 4 * i, piece.v[i]);
    KUNROLL
    for (uint32_t k = 0; k < 16; k++)
        w[k] *= scale;
    store_halves(a.out + row * a.out_stride + col, w, a.cols - col);
}

KERNEL(embed_i8, struct embed_packed_args, EMBED_PACKED_THREADS)
{
    embed<GEMV_I8>(a);
}

KERNEL(embed_i4, struct embed_packed_args, EMBED_PACKED_THREADS)
{
    embed<GEMV_I4>(a);
}

KERNEL(embed_i4m, struct embed_packed_args, EMBED_PACKED_THREADS)
{
    embed<GEMV_I4M>(a);
}
