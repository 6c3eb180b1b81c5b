/* w8a8.cu - around products of 8-bit numbers by cuBLASLt: rows of x to int8 or E4M3 by row, weights of I8 to int8 by row,
 * and sums to floats (gemm.h).
 *
 * Per-token scales of x, per-channel scales of the weights: Xiao et al. 2023, arXiv:2211.10438.
 *
 *   bytes moved    quantise: x twice (the second time from L1 or L2), a quarter out; requantise: the packed matrix, its
 *                  numbers twice, a byte a weight out; finish: 4 in, 4 or 8 out; scales: a sector of 32 bytes for each
 *   bound          memory */
#include "gpu-worker/cuda/kernels/gemm.h"

#include "gpu-worker/cuda/kernels/packed.h"
#include "gpu-worker/cuda/kernels/port.h"

KDEV float magnitude(float v)
{
    return k_bits_f32(k_f32_bits(v) & 0x7fffffff);
}

/* v to nearest, ties to even, as |v| <= 128: in the lowest bits of 1.5 * 2^23. */
KDEV int32_t nearest(float v)
{
    return (int32_t)(k_f32_bits(v + 12582912.0f) - 0x4b400000u);
}

/* ---- rows of x ---- */

/* Of |v| <= 127 or 448, and what rounding has added. */
template <bool E4M3> KDEV uint32_t code_of(float v)
{
    return E4M3 ? k_f32_to_e4m3(v) : (uint32_t)nearest(v) & 0xff;
}

/* What the norm multiplies all of a row by cancels between an element and the largest: one pass finds both.  k_max() does
 * not see a NaN, the sum does. */
template <bool E4M3> KDEV void quantise_row(const row_quantise_args &a)
{
    KSHARED(float, sums, [32]);
    KSHARED(float, most, [32]);
    const float LARGEST_CODE = E4M3 ? 448 : 127;
    uint32_t t = blockIdx.x;
    const float *x = a.x + (uint64_t)(a.rows ? a.rows[t] : t) * a.cols;
    uint8_t *q = a.q + (uint64_t)t * a.cols;
    float sum = 0, largest = 0;

    for (uint32_t i = 4 * threadIdx.x; i < a.cols; i += 4 * W8A8_THREADS) {
        k_f32x4 v = k_ldg4f(x + i), w = { { 1, 1, 1, 1 } };
        if (a.norm)
            w = k_ldg4f(a.norm + i);
        KUNROLL
        for (uint32_t j = 0; j < 4; j++) {
            sum = k_fma(v.v[j], v.v[j], sum);
            largest = k_max(largest, magnitude(w.v[j] * v.v[j]));
        }
    }
    sum = k_block_sum<W8A8_THREADS / 32>(sum, sums);
    largest = k_block_max<W8A8_THREADS / 32>(largest, most);
    float factor = a.norm ? k_rsqrt(sum / (float)a.cols + a.eps) : sum == sum ? 1 : sum;
    float inverse = largest > 0 ? LARGEST_CODE / largest : 0;
    if (threadIdx.x == 0)
        a.scale[t] = largest * factor / LARGEST_CODE;
    for (uint32_t i = 4 * threadIdx.x; i < a.cols; i += 4 * W8A8_THREADS) {
        k_f32x4 v = k_ldg4f(x + i), w = { { 1, 1, 1, 1 } };
        uint32_t bytes = 0;
        if (a.norm)
            w = k_ldg4f(a.norm + i);
        KUNROLL
        for (uint32_t j = 0; j < 4; j++)
            bytes |= code_of<E4M3>(w.v[j] * v.v[j] * inverse) << 8 * j;
        *(uint32_t *)(q + i) = bytes;
    }
}

KERNEL(w8a8_quantise, struct row_quantise_args, W8A8_THREADS)
{
    quantise_row<false>(a);
}

KERNEL(fp8_quantise, struct row_quantise_args, W8A8_THREADS)
{
    quantise_row<true>(a);
}

/* ---- weights ---- */

enum { REQUANTISE_WARPS = DEQUANTISE_THREADS / 32 };

/* The largest scales of rows g and g + 8 of the panel.  part: [REQUANTISE_WARPS * 16]. */
KDEV void largest_scales(float most[2], const uint8_t *numbers, uint32_t n, float *part)
{
    uint32_t g = k_lane() / 4;

    most[0] = most[1] = 0;
    for (uint32_t at = k_warp(); at < n; at += REQUANTISE_WARPS) {
        packed_numbers here = packed_numbers_of<GEMV_I8>(numbers, at);
        most[0] = k_max(most[0], magnitude(k_f16_low(here.scale)));
        most[1] = k_max(most[1], magnitude(k_f16_high(here.scale)));
    }
    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        most[half] = k_max(most[half], k_shfl_xor(most[half], 2)); /* of the other blocks */
        if (k_lane() % 4 == 0)
            part[k_warp() * 16 + half * 8 + g] = most[half];
    }
    k_sync();
    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        KUNROLL
        for (uint32_t w = 0; w < REQUANTISE_WARPS; w++)
            most[half] = k_max(most[half], part[w * 16 + half * 8 + g]);
    }
}

/* The lane's 16 codes of a row, times a ratio of -1 to 1. */
KDEV k_u32x4 codes_by(const k_u32x4 *pieces, uint32_t half, float ratio)
{
    k_u32x4 out = { { 0, 0, 0, 0 } };
    float w[16];

    packed_widen<GEMV_I8>(w, pieces, half);
    KUNROLL
    for (uint32_t k = 0; k < 16; k++) {
        uint32_t code =
            (uint32_t)nearest(k_min(w[k] * ratio, 127)) & 0xff; /* -128 may be negated */
        out.v[k / 4] |= code << 8 * (k % 4);
    }
    return out;
}

/* A block has a panel, a warp every eighth superblock of it. */
KERNEL(requantise_i8, struct requantise_args, DEQUANTISE_THREADS)
{
    typedef packed<GEMV_I8> f;
    KSHARED(float, part, [REQUANTISE_WARPS * 16]);
    uint32_t n = packed_superblocks(a.cols), row = blockIdx.x * 16 + k_lane() / 4;
    const uint8_t *panel =
        (const uint8_t *)a.data + blockIdx.x * packed_panel_bytes<GEMV_I8>(a.cols);
    float most[2];

    largest_scales(most, panel + n * f::CODES, n, part);
    KUNROLL
    for (uint32_t half = 0; half < 2; half++)
        if (k_warp() == 0 && k_lane() % 4 == 0 && row + 8 * half < a.rows)
            a.scale[row + 8 * half] = most[half];
    for (uint32_t at = k_warp(); at < n; at += REQUANTISE_WARPS) {
        uint32_t col = at * 64 + k_lane() % 4 * 16;
        packed_numbers here = packed_numbers_of<GEMV_I8>(panel + n * f::CODES, at);
        float scale[2] = { k_f16_low(here.scale), k_f16_high(here.scale) };
        k_u32x4 pieces[f::PIECES];
        KUNROLL
        for (uint32_t i = 0; i < f::PIECES; i++)
            pieces[i] = k_stream16(panel + at * f::CODES + i * 512 + k_lane() * 16);
        KUNROLL
        for (uint32_t half = 0; half < 2; half++)
            if (row + 8 * half < a.rows && col < a.cols)
                k_store16(a.out + (row + 8 * half) * a.out_stride + col,
                          codes_by(pieces, half, most[half] > 0 ? scale[half] / most[half] : 0));
    }
}

/* ---- sums ---- */

KERNEL(w8a8_finish, struct w8a8_finish_args, W8A8_THREADS)
{
    uint32_t i = blockIdx.x * W8A8_THREADS + threadIdx.x, t = blockIdx.y;
    float *y = a.y + t * a.y_stride + i;

    if (i >= a.rows)
        return;
    float sum = (float)a.sums[t * a.sums_stride + i] * a.w_scale[i] * a.x_scale[t];
    sum += a.bias ? a.bias[i] : 0;
    *y = a.add ? *y + sum : sum;
}

KERNEL(fp8_scales, struct fp8_scales_args, W8A8_THREADS)
{
    uint32_t i = blockIdx.x * W8A8_THREADS + threadIdx.x;
    const uint8_t *row = (const uint8_t *)a.data + (uint64_t)i * e4m3_row_bytes(a.cols);

    if (i < a.rows)
        a.scale[i] = k_ldg_f32((const float *)(row + e4m3_codes_bytes(a.cols)));
}

KERNEL(fp8_finish, struct fp8_finish_args, W8A8_THREADS)
{
    uint32_t i = blockIdx.x * W8A8_THREADS + threadIdx.x, t = blockIdx.y;
    float *y = a.y + t * a.y_stride + i;

    if (i >= a.rows)
        return;
    float sum = a.sums[t * a.sums_stride + i] * a.w_scale[i] * a.x_scale[t];
    sum += a.bias ? a.bias[i] : 0;
    *y = a.add ? *y + sum : sum;
}
