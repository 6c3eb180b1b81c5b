/* gemm_w4.cu - up to 64 rows of f16 times a matrix of 4-bit weights on the tensor cores (gemm.h: K4).
 *
 * The scheme of Marlin (Frantar et al. 2024, arXiv:2408.11743): weights come through a ring of cp.async stages
 * straight in the order of mma fragments, become f16 in registers, and the work is cut into equal stripes, so
 * that all multiprocessors read at full speed to the end.  Here the weights are the operand of 16 rows and x
 * that of 8 columns, since there are always many output rows and sometimes few rows of x; and the columns of a
 * superblock are permuted so that a lane's share of x for four steps is 32 bytes in a row, read without ldmatrix.
 *
 * A warp has 32 output rows (two panels), a block 128; all of its warps read the same rows of x.
 *
 *   grid           gemm_w4_grid(), blocks of 128 threads
 *   shared         gemm_w4_shared_bytes(): 29 KiB at 16 rows of x, 56 at 64
 *   bytes moved    the weights once; x from L2 once a unit; 2 partial tiles a block at most
 *   bound          memory to about 32 rows of x, then the tensor cores */
#include "gpu-worker/cuda/kernels/gemm.h"

#include "gpu-worker/cuda/kernels/fragments.h"
#include "gpu-worker/cuda/kernels/port.h"

enum { PANELS = 2 }; /* of a warp */

/* ---- the ring ---- */

struct stage {
    uint8_t *codes;   /* [8 panels][32 lanes][16] */
    uint8_t *numbers; /* [8 panels][64 or 128] */
    uint8_t *x;       /* [slots][GEMM_X_BYTES] */
};

template <int SLOTS> KDEV stage stage_at(uint8_t *shared, uint32_t i)
{
    uint8_t *at = shared + i % GEMM_W4_STAGES *
                               (GEMM_W4_STAGE_CODES + GEMM_W4_STAGE_NUMBERS + SLOTS * GEMM_X_BYTES);

    return { at, at + GEMM_W4_STAGE_CODES, at + GEMM_W4_STAGE_CODES + GEMM_W4_STAGE_NUMBERS };
}

/* The warp's panels of superblock `at`; panels that the matrix lacks are the last one again. */
template <int FORMAT>
KDEV void load_weights(const stage &s, const gemm_w4_args &a, uint32_t tile, uint32_t at)
{
    typedef packed<FORMAT> f;
    uint32_t n = packed_superblocks(a.cols), last = (a.rows - 1) / 16;

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        uint32_t mine = k_warp() * PANELS + p, panel = tile * (GEMM_W4_ROWS / 16) + mine;
        const uint8_t *from = (const uint8_t *)a.w +
                              (panel < last ? panel : last) * packed_panel_bytes<FORMAT>(a.cols);
        k_cp_async16_stream(s.codes + mine * f::CODES + k_lane() * 16,
                            from + at * f::CODES + k_lane() * 16);
        if (k_lane() < f::NUMBERS / 16)
            k_cp_async16_stream(s.numbers + mine * f::NUMBERS + k_lane() * 16,
                                from + n * f::CODES + at * f::NUMBERS + k_lane() * 16);
    }
}

/* 64 columns of all rows of x, zeroes where there are none. */
template <int SLOTS> KDEV void load_x(const stage &s, const gemm_w4_args &a, uint32_t at)
{
    KUNROLL
    for (uint32_t i = 0; i < SLOTS * 8 / GEMM_W4_THREADS; i++) {
        uint32_t piece = i * GEMM_W4_THREADS + threadIdx.x, row = piece / 8;
        uint32_t col = at * 64 + piece % 8 * 8;
        bool there = row < a.n_rows && col < a.cols;
        k_cp_async16_if(s.x + row * GEMM_X_BYTES + piece % 8 * 16,
                        a.x + (there ? row * a.x_stride + col : 0), there);
    }
}

/* ---- one unit: 128 output rows, 64 columns ---- */

template <int FORMAT, int SLOTS>
KDEV void multiply(float sums[PANELS][SLOTS / 8][4], const stage &s)
{
    typedef packed<FORMAT> f;
    fragments w[PANELS];

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        uint32_t panel = k_warp() * PANELS + p;
        w[p] = packed_fragments<FORMAT>(s.codes + panel * f::CODES, s.numbers + panel * f::NUMBERS);
    }
    KUNROLL
    for (uint32_t n = 0; n < SLOTS / 8; n++) {
        fragments_x x = x_fragments(s.x + n * 8 * GEMM_X_BYTES);
        KUNROLL
        for (uint32_t step = 0; step < FRAGMENT_STEPS; step++) {
            KUNROLL
            for (uint32_t p = 0; p < PANELS; p++)
                k_mma_m16n8k16_f16(sums[p][n], w[p].a[step], x.b[step]);
        }
    }
}

/* ---- stripes ---- */

/* Units in one line, tile by tile; a block's are begin .. end - 1. */
struct stripe {
    uint32_t units, per_tile; /* all; superblocks */
    uint32_t begin, end;
};

KDEV uint32_t stripe_begin(uint32_t units, uint32_t block)
{
    return (uint32_t)((uint64_t)block * units / gridDim.x);
}

KDEV uint32_t block_of_unit(uint32_t units, uint32_t unit)
{
    return (uint32_t)((((uint64_t)unit + 1) * gridDim.x - 1) / units);
}

KDEV stripe stripe_of_block(const gemm_w4_args &a)
{
    uint32_t units = gemm_w4_units(a.rows, a.cols);

    return { units, packed_superblocks(a.cols), stripe_begin(units, blockIdx.x),
             stripe_begin(units, blockIdx.x + 1) };
}

/* Where a block leaves its piece of a tile: its first place for that of the tile it begins in. */
template <int SLOTS>
KDEV float *piece_of(const gemm_w4_args &a, const stripe &s, uint32_t block, uint32_t tile)
{
    bool begins = stripe_begin(s.units, block) / s.per_tile == tile;

    return a.partial + ((uint64_t)block * 2 + (begins ? 0 : 1)) * GEMM_W4_ROWS * SLOTS +
           threadIdx.x * 4;
}

/* ---- what becomes of the sums ---- */

/* All of a tile's columns are in: lane (g, t) has rows g, g + 8 of each panel, x rows 2t, 2t + 1 of each eight. */
template <int SLOTS>
KDEV void write_sums(const gemm_w4_args &a, uint32_t tile, const float sums[PANELS][SLOTS / 8][4])
{
    uint32_t first = tile * GEMM_W4_ROWS + k_warp() * (16 * PANELS) + k_lane() / 4;

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        KUNROLL
        for (uint32_t n = 0; n < SLOTS / 8; n++) {
            KUNROLL
            for (uint32_t i = 0; i < 4; i++) {
                uint32_t row = first + p * 16 + i / 2 * 8, t = n * 8 + k_lane() % 4 * 2 + i % 2;
                if (row >= a.rows || t >= a.n_rows)
                    continue;
                float *y = a.y + t * a.y_stride + row;
                float sum = sums[p][n][i] + (a.bias ? a.bias[row] : 0);
                *y = a.add ? *y + sum : sum;
            }
        }
    }
}

/* Leave the block's piece; true in the block that is the last to. */
template <int SLOTS>
KDEV bool leave_piece(const gemm_w4_args &a, const stripe &s, uint32_t tile, uint32_t n_pieces,
                      const float sums[PANELS][SLOTS / 8][4], uint32_t *arrived)
{
    float *piece = piece_of<SLOTS>(a, s, blockIdx.x, tile);

    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        KUNROLL
        for (uint32_t n = 0; n < SLOTS / 8; n++) {
            const float *v = sums[p][n];
            k_store4f(piece + (p * (SLOTS / 8) + n) * GEMM_W4_THREADS * 4,
                      { { v[0], v[1], v[2], v[3] } });
        }
    }
    k_fence();
    k_sync();
    if (threadIdx.x == 0)
        *arrived = k_atomic_add(a.arrived + tile, 1u);
    k_sync();
    k_fence();
    return *arrived == n_pieces - 1;
}

/* The pieces of a tile in the order of their columns. */
template <int SLOTS>
KDEV void add_pieces(const gemm_w4_args &a, const stripe &s, uint32_t tile, uint32_t first,
                     uint32_t last, float sums[PANELS][SLOTS / 8][4])
{
    for (uint32_t block = first; block <= last; block++) {
        const float *piece = piece_of<SLOTS>(a, s, block, tile);
        KUNROLL
        for (uint32_t p = 0; p < PANELS; p++) {
            KUNROLL
            for (uint32_t n = 0; n < SLOTS / 8; n++) {
                k_f32x4 v = k_load4f(piece + (p * (SLOTS / 8) + n) * GEMM_W4_THREADS * 4);
                KUNROLL
                for (uint32_t i = 0; i < 4; i++)
                    sums[p][n][i] = block == first ? v.v[i] : sums[p][n][i] + v.v[i];
            }
        }
    }
}

template <int SLOTS>
KDEV void finish_tile(const gemm_w4_args &a, const stripe &s, uint32_t tile,
                      float sums[PANELS][SLOTS / 8][4], uint32_t *arrived)
{
    uint32_t first = block_of_unit(s.units, tile * s.per_tile);
    uint32_t last = block_of_unit(s.units, (tile + 1) * s.per_tile - 1);

    if (first != last) {
        if (!leave_piece<SLOTS>(a, s, tile, last - first + 1, sums, arrived))
            return;
        add_pieces<SLOTS>(a, s, tile, first, last, sums);
        if (threadIdx.x == 0)
            a.arrived[tile] = 0;
    }
    write_sums<SLOTS>(a, tile, sums);
}

/* ---- kernels ---- */

template <int FORMAT, int SLOTS>
KDEV void load_unit(const gemm_w4_args &a, const stripe &s, uint8_t *shared, uint32_t unit)
{
    stage to = stage_at<SLOTS>(shared, unit - s.begin);

    if (unit < s.end) {
        load_weights<FORMAT>(to, a, unit / s.per_tile, unit % s.per_tile);
        load_x<SLOTS>(to, a, unit % s.per_tile);
    }
    k_cp_async_commit();
}

template <int SLOTS> KDEV void clear(float sums[PANELS][SLOTS / 8][4])
{
    KUNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        KUNROLL
        for (uint32_t n = 0; n < SLOTS / 8; n++) {
            KUNROLL
            for (uint32_t i = 0; i < 4; i++)
                sums[p][n][i] = 0;
        }
    }
}

template <int FORMAT, int SLOTS> KDEV void gemm_w4(const gemm_w4_args &a)
{
    KSHARED_DYN(uint8_t, shared);
    KSHARED(uint32_t, arrived, [1]);
    stripe s = stripe_of_block(a);
    float sums[PANELS][SLOTS / 8][4];

    clear<SLOTS>(sums);
    KUNROLL
    for (uint32_t i = 0; i < GEMM_W4_STAGES - 1; i++)
        load_unit<FORMAT, SLOTS>(a, s, shared, s.begin + i);
    for (uint32_t unit = s.begin; unit < s.end; unit++) {
        bool ends = (unit + 1) % s.per_tile == 0 || unit + 1 == s.end;
        k_cp_async_wait<GEMM_W4_STAGES - 2>();
        k_sync(); /* what all threads copied is here, and nobody reads the stage that is filled next */
        load_unit<FORMAT, SLOTS>(a, s, shared, unit + GEMM_W4_STAGES - 1);
        multiply<FORMAT, SLOTS>(sums, stage_at<SLOTS>(shared, unit - s.begin));
        if (ends) {
            finish_tile<SLOTS>(a, s, unit / s.per_tile, sums, arrived);
            clear<SLOTS>(sums);
        }
    }
}

#define GEMM_W4(name, format, slots)                                                               \
    KERNEL(name##_##slots, struct gemm_w4_args, GEMM_W4_THREADS)                                   \
    {                                                                                              \
        gemm_w4<format, slots>(a);                                                                 \
    }

GEMM_W4(gemm_w4_i4, GEMV_I4, 16)
GEMM_W4(gemm_w4_i4, GEMV_I4, 32)
GEMM_W4(gemm_w4_i4, GEMV_I4, 64)
GEMM_W4(gemm_w4_i4m, GEMV_I4M, 16)
GEMM_W4(gemm_w4_i4m, GEMV_I4M, 32)
GEMM_W4(gemm_w4_i4m, GEMV_I4M, 64)
