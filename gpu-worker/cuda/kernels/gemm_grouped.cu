/* gemm_grouped.cu - the products of a mixture of experts for many rows, on the tensor cores (gemm.h).
 *
 * A block takes 128 output rows of one expert for up to 64 pairs, over all columns: there are enough blocks
 * (output rows / 128 times groups) that none need share its columns.  Rows of x are gathered on their way into
 * shared memory.  Weights and x come through a ring of cp.async stages of 64 columns; a warp has 32 output rows
 * and all the pairs.
 *
 *   grid           (gemm_grouped_tiles(), groups), blocks of 128 threads; empty groups exit at once
 *   shared         gemm_grouped_shared_bytes(): 42 KiB of 4-bit weights, 51 of E4M3, 54 of int8, 81 of 16-bit floats
 *   bytes moved    an expert's weights once for 64 pairs; x once for 128 output rows, from L2
 *   bound          the tensor cores from about 32 pairs an expert */
#include "gpu-worker/cuda/kernels/gemm.h"

#include "gpu-worker/cuda/kernels/fragments.h"
#include "gpu-worker/cuda/kernels/port.h"

enum {
    PANELS = 2, /* of a warp */
    TILE_PANELS = GEMM_GROUPED_ROWS / 16,
    X_PIECES = GEMM_GROUPED_PAIRS * 8 / GEMM_GROUPED_THREADS, /* of 16 bytes, a thread and stage */
    W_PIECES = GEMM_GROUPED_ROWS * 8 / GEMM_GROUPED_THREADS,  /* of plain rows */
    E4M3_PIECES = GEMM_GROUPED_ROWS * 4 / GEMM_GROUPED_THREADS,
};

/* ---- the ring ---- */

struct stage {
    uint8_t *w, *numbers, *x;
};

template <int FORMAT> KDEV stage stage_at(uint8_t *shared, uint32_t i)
{
    uint8_t *at = shared + i % GEMM_GROUPED_STAGES * gemm_grouped_stage_bytes(FORMAT);

    return { at + GEMM_GROUPED_PAIRS * GEMM_X_BYTES,
             at + GEMM_GROUPED_PAIRS * GEMM_X_BYTES + TILE_PANELS * packed<FORMAT>::CODES, at };
}

/* A thread's pieces of x are the same eight columns of every 16th pair. */
struct rows_of_x {
    uint32_t row[X_PIECES]; /* UINT32_MAX: there is no such pair */
};

KDEV uint32_t pair_of_piece(uint32_t i)
{
    return i * (GEMM_GROUPED_THREADS / 8) + threadIdx.x / 8;
}

KDEV rows_of_x find_rows(const gemm_grouped_args &a, const moe_group &group)
{
    rows_of_x r;

    KUNROLL
    for (uint32_t i = 0; i < X_PIECES; i++) {
        uint32_t pair = group.first + pair_of_piece(i);
        bool there = pair_of_piece(i) < group.n;
        r.row[i] = !there ? UINT32_MAX : a.pair_row ? a.pair_row[pair] : pair;
    }
    return r;
}

KDEV void load_x(uint8_t *to, const gemm_grouped_args &a, const rows_of_x &r, uint32_t at)
{
    uint32_t col = at * 64 + threadIdx.x % 8 * 8;

    KUNROLL
    for (uint32_t i = 0; i < X_PIECES; i++) {
        bool there = r.row[i] != UINT32_MAX && col < a.cols;
        k_cp_async16_if(to + pair_of_piece(i) * GEMM_X_BYTES + threadIdx.x % 8 * 16,
                        there ? a.x + r.row[i] * a.x_stride + col : a.x, there);
    }
}

/* Rows and panels that the matrix lacks are its last one again: their sums are not written. */
template <int FORMAT>
KDEV void load_packed(const stage &s, const gemm_grouped_args &a, const uint8_t *w, uint32_t tile,
                      uint32_t at)
{
    typedef packed<FORMAT> f;
    uint32_t n = packed_superblocks(a.cols), last = (a.rows - 1) / 16;

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        uint32_t mine = k_warp() * PANELS + p, panel = tile * TILE_PANELS + mine;
        const uint8_t *from =
            w + (panel < last ? panel : last) * packed_panel_bytes<FORMAT>(a.cols);
        KUNROLL
        for (uint32_t i = 0; i < f::PIECES; i++)
            k_cp_async16_stream(s.w + mine * f::CODES + i * 512 + k_lane() * 16,
                                from + at * f::CODES + i * 512 + k_lane() * 16);
        if (k_lane() < f::NUMBERS / 16)
            k_cp_async16_stream(s.numbers + mine * f::NUMBERS + k_lane() * 16,
                                from + n * f::CODES + at * f::NUMBERS + k_lane() * 16);
    }
}

KDEV void load_plain(const stage &s, const gemm_grouped_args &a, const uint8_t *w, uint32_t tile,
                     uint32_t at)
{
    uint32_t col = at * 64 + threadIdx.x % 8 * 8, stride = (a.cols + 7) / 8 * 8;

    KUNROLL
    for (uint32_t i = 0; i < W_PIECES; i++) {
        uint32_t mine = i * (GEMM_GROUPED_THREADS / 8) + threadIdx.x / 8;
        uint32_t row = tile * GEMM_GROUPED_ROWS + mine, last = a.rows - 1;
        const uint8_t *from = w + ((row < last ? row : last) * (uint64_t)stride + col) * 2;
        k_cp_async16_if(s.w + mine * GEMM_X_BYTES + threadIdx.x % 8 * 16, col < a.cols ? from : w,
                        col < a.cols);
    }
}

/* 64 codes of each row: what lies behind them in the file's row, its scale, is not taken for one. */
KDEV void load_e4m3(const stage &s, const gemm_grouped_args &a, const uint8_t *w, uint32_t tile,
                    uint32_t at)
{
    uint32_t col = at * 64 + threadIdx.x % 4 * 16, last = a.rows - 1;
    bool there = col < e4m3_codes_bytes(a.cols);

    KUNROLL
    for (uint32_t i = 0; i < E4M3_PIECES; i++) {
        uint32_t mine = i * (GEMM_GROUPED_THREADS / 4) + threadIdx.x / 4;
        uint32_t row = tile * GEMM_GROUPED_ROWS + mine;
        const uint8_t *from =
            w + (row < last ? row : last) * (uint64_t)e4m3_row_bytes(a.cols) + col;
        k_cp_async16_if(s.w + mine * 64 + threadIdx.x % 4 * 16, there ? from : w, there);
    }
}

template <int FORMAT>
KDEV void load_stage(const gemm_grouped_args &a, const rows_of_x &r, const uint8_t *w,
                     uint8_t *shared, uint32_t at)
{
    stage s = stage_at<FORMAT>(shared, at);

    if (at < packed_superblocks(a.cols)) {
        if constexpr (FORMAT >= GEMV_I8)
            load_packed<FORMAT>(s, a, w, blockIdx.x, at);
        else if constexpr (FORMAT == GEMV_E4M3)
            load_e4m3(s, a, w, blockIdx.x, at);
        else
            load_plain(s, a, w, blockIdx.x, at);
        load_x(s.x, a, r, at);
    }
    k_cp_async_commit();
}

/* ---- products ---- */

typedef float tile_sums[PANELS][GEMM_GROUPED_PAIRS / 8][4];

template <int FORMAT> KDEV fragments load_fragments(const stage &s, uint32_t panel)
{
    typedef packed<FORMAT> f;

    if constexpr (FORMAT >= GEMV_I8)
        return packed_fragments<FORMAT>(s.w + panel * f::CODES, s.numbers + panel * f::NUMBERS);
    else if constexpr (FORMAT == GEMV_E4M3)
        return e4m3_fragments(s.w + panel * 16 * 64);
    else
        return plain_fragments(s.w + panel * 16 * GEMM_X_BYTES);
}

template <int FORMAT> KDEV void multiply(tile_sums &sums, const stage &s, uint32_t n_pairs)
{
    fragments w[PANELS];

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++)
        w[p] = load_fragments<FORMAT>(s, k_warp() * PANELS + p);
    KUNROLL
    for (uint32_t n = 0; n < GEMM_GROUPED_PAIRS / 8; n++) {
        if (n * 8 >= n_pairs)
            continue;
        fragments_x x = x_fragments(s.x + n * 8 * GEMM_X_BYTES);
        KUNROLL
        for (uint32_t step = 0; step < FRAGMENT_STEPS; step++) {
            KUNROLL
            for (uint32_t p = 0; p < PANELS; p++)
                if constexpr (FORMAT == GEMV_BF16)
                    k_mma_m16n8k16_bf16(sums[p][n], w[p].a[step], x.b[step]);
                else
                    k_mma_m16n8k16_f16(sums[p][n], w[p].a[step], x.b[step]);
        }
    }
}

/* What the sums of a row, one that is there, are multiplied by. */
template <int FORMAT>
KDEV float row_scale(const gemm_grouped_args &a, const uint8_t *w, uint32_t row)
{
    if constexpr (FORMAT == GEMV_E4M3)
        return k_ldg_f32(
            (const float *)(w + row * (uint64_t)e4m3_row_bytes(a.cols) + e4m3_codes_bytes(a.cols)));
    else
        return 1;
}

/* Lane (g, t) has output rows g, g + 8 of each panel, pairs 2t, 2t + 1 of each eight. */
template <int FORMAT>
KDEV void write_sums(const gemm_grouped_args &a, const uint8_t *w, const moe_group &group,
                     const tile_sums &sums)
{
    uint32_t first = blockIdx.x * GEMM_GROUPED_ROWS + k_warp() * (16 * PANELS) + k_lane() / 4;

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        KUNROLL
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t row = first + p * 16 + half * 8;
            if (row >= a.rows)
                continue;
            float scale = row_scale<FORMAT>(a, w, row);
            KUNROLL
            for (uint32_t i = 0; i < GEMM_GROUPED_PAIRS / 4; i++) {
                uint32_t n = i / 2, t = n * 8 + k_lane() % 4 * 2 + i % 2;
                if (t < group.n)
                    a.y[(group.first + t) * a.y_stride + row] =
                        scale * sums[p][n][half * 2 + i % 2];
            }
        }
    }
}

/* ---- kernels ---- */

template <int FORMAT> KDEV void gemm_grouped(const gemm_grouped_args &a)
{
    KSHARED_DYN(uint8_t, shared);
    moe_group group = a.groups[blockIdx.y];
    const uint8_t *w = (const uint8_t *)a.w + group.expert * a.expert_bytes;
    uint32_t n = packed_superblocks(a.cols);
    tile_sums sums = {};

    if (group.n == 0)
        return;
    rows_of_x rows = find_rows(a, group);
    for (uint32_t i = 0; i < GEMM_GROUPED_STAGES - 1; i++)
        load_stage<FORMAT>(a, rows, w, shared, i);
    for (uint32_t at = 0; at < n; at++) {
        k_cp_async_wait<GEMM_GROUPED_STAGES - 2>();
        k_sync(); /* what all threads copied is here, and nobody reads the stage that is filled next */
        load_stage<FORMAT>(a, rows, w, shared, at + GEMM_GROUPED_STAGES - 1);
        multiply<FORMAT>(sums, stage_at<FORMAT>(shared, at), group.n);
    }
    write_sums<FORMAT>(a, w, group, sums);
}

KERNEL(gemm_grouped_f16, struct gemm_grouped_args, GEMM_GROUPED_THREADS)
{
    gemm_grouped<GEMV_F16>(a);
}

KERNEL(gemm_grouped_bf16, struct gemm_grouped_args, GEMM_GROUPED_THREADS)
{
    gemm_grouped<GEMV_BF16>(a);
}

KERNEL(gemm_grouped_e4m3, struct gemm_grouped_args, GEMM_GROUPED_THREADS)
{
    gemm_grouped<GEMV_E4M3>(a);
}

KERNEL(gemm_grouped_i8, struct gemm_grouped_args, GEMM_GROUPED_THREADS)
{
    gemm_grouped<GEMV_I8>(a);
}

KERNEL(gemm_grouped_i4, struct gemm_grouped_args, GEMM_GROUPED_THREADS)
{
    gemm_grouped<GEMV_I4>(a);
}

KERNEL(gemm_grouped_i4m, struct gemm_grouped_args, GEMM_GROUPED_THREADS)
{
    gemm_grouped<GEMV_I4M>(a);
}
