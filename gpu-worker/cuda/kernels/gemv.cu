/* gemv.cu - products of up to eight rows of float x with weights of any format (gemv.h).
 *
 * Decoding reads every weight once a step, so all that counts is that the memory bus never idles: each thread has
 * four to eight 16-byte pieces of weights on their way while it multiplies those before, and a block goes on
 * to its next tile without another launch.  x', the rows of x normalised, is made once a block, in shared memory,
 * in such an order that the lanes of a load meet no bank twice.  Where it does not fit, it is read through L1
 * instead and normalised on the way, with the same bits.
 *
 * Float weights: a warp takes two rows, or four with several rows of x, its lanes every 32nd piece of 16 bytes, and
 * the lanes' sums are added as a butterfly.  (Of E4M3 always two: four have no room in registers.)  Packed weights: a block takes a panel of 16 rows, its warps an
 * eighth of the columns each, and the four lanes of a row, then the warps, are added in order.
 *
 *   bytes moved    weights once; x once a block, from L2 (at most 2 blocks a multiprocessor)
 *   bound          memory; from 5 rows of packed weights on, the float units of sm_80
 *
 * There is one kernel for one row and one for up to eight, which leaves out the rows that are not there: more
 * would double the time of compiling and save registers only.  No product is summed but by k_fma(), so that both
 * round alike. */
#include "gpu-worker/cuda/kernels/gemv.h"

#include "gpu-worker/cuda/kernels/packed.h"
#include "gpu-worker/cuda/kernels/port.h"

/* ---- the rows of x that a block takes ---- */

struct gemv_rows {
    const uint32_t *of_x; /* [n], in shared memory */
    uint32_t first, n;    /* of y */
    uint32_t expert;
};

template <int M> KDEV gemv_rows rows_of_block(const gemv_args &a, uint32_t *of_x)
{
    gemv_rows r = { of_x, blockIdx.y * M, 0, 0 };

    if (a.groups) {
        moe_group group = a.groups[blockIdx.y];
        r.first = group.first;
        r.n = group.n;
        r.expert = group.expert;
    } else
        r.n = a.n_rows - r.first < M ? a.n_rows - r.first : M;
    if (threadIdx.x < r.n)
        of_x[threadIdx.x] = a.rows ? a.rows[r.first + threadIdx.x] : r.first + threadIdx.x;
    k_sync();
    return r;
}

KDEV const float *row_of_x(const gemv_args &a, const gemv_rows &r, uint32_t m)
{
    return a.x + r.of_x[m] * a.x_stride;
}

/* ---- x' ---- */

/* Where the columns 4q .. 4q+3 of a staged row are, in fours: so that lanes which read together read eight of
 * them side by side.  Float weights: a lane reads four.  Of 16 bits: eight, in halves.  Of 8: sixteen, in quarters.
 * Packed: the same, but only four lanes read different ones. */
template <int FORMAT> KDEV uint32_t staged_place(uint32_t q)
{
    if (FORMAT >= GEMV_I8)
        return (q & ~15u) | (q & 3) << 2 | (q >> 2 & 3);
    if (FORMAT == GEMV_E4M3)
        return (q & ~31u) | (q & 3) << 3 | (q >> 2 & 7);
    if (FORMAT != GEMV_F32)
        return (q & ~15u) | (q & 1) << 3 | (q >> 1 & 7);
    return q;
}

struct gemv_input {
    const gemv_args &a;
    const gemv_rows &rows;
    const float *staged; /* [n][stride] in shared memory, when a.staged */
    const float *scale;  /* [n] of the norm, otherwise */
    uint32_t stride;     /* of a staged row */
};

/* Four columns of a row that is not staged, with zeroes behind the last. */
KDEV k_f32x4 fetch_four(const gemv_input &in, uint32_t m, uint32_t q)
{
    k_f32x4 v = { { 0, 0, 0, 0 } };

    if (4 * q >= in.a.cols)
        return v;
    v = k_ldg4f(row_of_x(in.a, in.rows, m) + 4 * q);
    if (in.a.norm) {
        k_f32x4 w = k_ldg4f(in.a.norm + 4 * q);
        KUNROLL
        for (uint32_t i = 0; i < 4; i++)
            v.v[i] = w.v[i] * (v.v[i] * in.scale[m]);
    }
    return v;
}

/* Columns 4q .. 4q + 4N - 1 of x' of row m. */
template <int FORMAT, int N>
KDEV void fours_of(k_f32x4 x[N], const gemv_input &in, uint32_t m, uint32_t q)
{
    if (in.a.staged) {
        const float *row = in.staged + m * in.stride;
        KUNROLL
        for (uint32_t i = 0; i < N; i++)
            x[i] = k_load4f(row + 4 * staged_place<FORMAT>(q + i));
    } else {
        KUNROLL
        for (uint32_t i = 0; i < N; i++)
            x[i] = fetch_four(in, m, q + i);
    }
}

/* The thread's columns of all rows: staged as they are, and their squares summed. */
template <int FORMAT, int M>
KDEV void stage_rows(const gemv_args &a, const gemv_rows &r, float *staged, float sums[M])
{
    uint32_t stride = gemv_staged_cols(a.cols);

    KUNROLL
    for (uint32_t m = 0; m < M; m++) {
        sums[m] = 0;
        if (m >= r.n || !(a.staged || a.norm))
            continue;
        const float *x = row_of_x(a, r, m);
        for (uint32_t i = threadIdx.x; i < stride; i += GEMV_THREADS) {
            float v = i < a.cols ? x[i] : 0;
            if (a.staged)
                staged[m * stride + 4 * staged_place<FORMAT>(i / 4) + i % 4] = v;
            sums[m] = k_fma(v, v, sums[m]);
        }
    }
}

template <int M>
KDEV void find_scales(const gemv_args &a, const float sums[M], float *part /* [M][GEMV_WARPS] */,
                      float *scale)
{
    KUNROLL
    for (uint32_t m = 0; m < M; m++) {
        float sum = k_warp_sum(sums[m]);
        if (k_lane() == 0)
            part[m * GEMV_WARPS + k_warp()] = sum;
    }
    k_sync();
    if (threadIdx.x < M) {
        float sum = 0;
        KUNROLL
        for (uint32_t w = 0; w < GEMV_WARPS; w++)
            sum += part[threadIdx.x * GEMV_WARPS + w];
        scale[threadIdx.x] = k_rsqrt(sum / (float)a.cols + a.eps);
    }
    k_sync();
}

/* Each thread what it staged. */
template <int FORMAT, int M>
KDEV void normalise_staged(const gemv_args &a, uint32_t n, float *staged, const float *scale)
{
    uint32_t stride = gemv_staged_cols(a.cols);

    for (uint32_t i = threadIdx.x; i < a.cols; i += GEMV_THREADS) {
        float w = k_ldg_f32(a.norm + i), *at = staged + 4 * staged_place<FORMAT>(i / 4) + i % 4;
        KUNROLL
        for (uint32_t m = 0; m < M; m++)
            if (m < n)
                at[m * stride] = w * (at[m * stride] * scale[m]);
    }
}

template <int FORMAT, int M>
KDEV void prepare_input(const gemv_args &a, const gemv_rows &r, float *staged, float *part,
                        float *scale)
{
    float sums[M];

    stage_rows<FORMAT, M>(a, r, staged, sums);
    if (a.norm)
        find_scales<M>(a, sums, part, scale);
    if (a.staged && a.norm)
        normalise_staged<FORMAT, M>(a, r.n, staged, scale);
    k_sync();
}

/* ---- the matrices ---- */

/* A tile is of one matrix. */
struct gemv_tile {
    uint32_t matrix, row; /* first output row */
};

KDEV gemv_tile tile_at(const gemv_args &a, uint32_t tile, uint32_t tile_rows)
{
    uint32_t m = 0;

    while (m + 1 < a.n_w && tile >= gemv_matrix_tiles(a.w[m].rows, tile_rows))
        tile -= gemv_matrix_tiles(a.w[m++].rows, tile_rows);
    return { m, tile * tile_rows };
}

KDEV uint32_t tiles_of(const gemv_args &a, uint32_t tile_rows)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < (gemv_is_gated(a.mode) ? 1 : a.n_w); m++)
        n += gemv_matrix_tiles(a.w[m].rows, tile_rows);
    return n;
}

KDEV const uint8_t *data_of(const gemv_matrix &w, uint32_t expert)
{
    return (const uint8_t *)w.data + expert * w.expert_bytes;
}

KDEV float bias_of(const gemv_matrix &w, uint32_t expert, uint32_t row)
{
    return w.bias ? w.bias[expert * w.expert_biases + row] : 0;
}

/* ---- results ---- */

/* z / (1 + exp(-e)): silu has e = z; gelu by tanh e = 2 sqrt(2 / pi) (z + 0.044715 z^3). */
KDEV float activate(uint32_t mode, float z)
{
    float cube = z * z * z;
    float e = mode == GEMV_GATED_SILU ? z : 1.5957691216f * k_fma(0.044715f, cube, z);

    return z / (1 + k_exp(-e));
}

/* sum, and up of a gated launch, without their biases. */
KDEV void finish(const gemv_args &a, const gemv_tile &tile, uint32_t expert, uint32_t y_row,
                 uint32_t row, float sum, float up)
{
    const gemv_matrix &w = a.w[tile.matrix];
    float *y = a.y + y_row * a.y_stride + w.column + row;

    sum += bias_of(w, expert, row);
    if (a.mode == GEMV_SET)
        *y = sum;
    else if (a.mode == GEMV_ADD)
        *y += sum;
    else if (a.mode == GEMV_SOFTCAP)
        *y = a.softcap * k_tanh(sum / a.softcap);
    else
        *y = activate(a.mode, sum) * (up + bias_of(a.w[1], expert, row));
}

/* ---- float weights ---- */

/* COLS are in 16 bytes of a row, PART of them are multiplied at a time. */
template <int FORMAT> struct plain {
    static const uint32_t BYTES = FORMAT == GEMV_F32 ? 4 : FORMAT == GEMV_E4M3 ? 1 : 2;
    static const uint32_t COLS = 16 / BYTES, PART = COLS < 8 ? COLS : 8;
};

/* What part `part` of 16 bytes of a row is; of E4M3 without the scale. */
template <int FORMAT> KDEV void widen(float *w, const k_u32x4 &piece, uint32_t part)
{
    KUNROLL
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t word = piece.v[i];
        if (FORMAT == GEMV_F32)
            w[i] = k_bits_f32(word);
        else if (FORMAT == GEMV_E4M3) {
            if (i < 2)
                e4m3_widen(w + 4 * i, piece.v[2 * part + i]);
        } else {
            w[2 * i] = FORMAT == GEMV_F16 ? k_f16_low(word) : k_bf16_low(word);
            w[2 * i + 1] = FORMAT == GEMV_F16 ? k_f16_high(word) : k_bf16_high(word);
        }
    }
}

/* The lane's next pieces of R rows. */
template <int R> struct plain_pieces {
    static const uint32_t AHEAD = 4 / R;
    k_u32x4 of[AHEAD][R];
};

template <int R>
KDEV void load_pieces(plain_pieces<R> &p, const uint8_t *const row[R], uint32_t at, uint32_t n)
{
    KUNROLL
    for (uint32_t i = 0; i < p.AHEAD; i++) {
        KUNROLL
        for (uint32_t r = 0; r < R; r++)
            if (at + 32 * i < n)
                p.of[i][r] = k_stream16(row[r] + (at + 32 * i) * 16);
    }
}

/* sums[r][m] += the products of piece number `at` of each row. */
template <int FORMAT, int M, int R>
KDEV void add_piece(float sums[R][M], const gemv_input &in, const k_u32x4 piece[R], uint32_t at)
{
    const uint32_t PART = plain<FORMAT>::PART, FOURS = PART / 4, PARTS = plain<FORMAT>::COLS / PART;

    KUNROLL
    for (uint32_t part = 0; part < PARTS; part++) {
        float w[R][PART];
        KUNROLL
        for (uint32_t r = 0; r < R; r++)
            widen<FORMAT>(w[r], piece[r], part);
        KUNROLL
        for (uint32_t m = 0; m < M; m++) {
            if (m >= in.rows.n)
                continue;
            k_f32x4 x[FOURS];
            fours_of<FORMAT, FOURS>(x, in, m, (at * PARTS + part) * FOURS);
            KUNROLL
            for (uint32_t r = 0; r < R; r++) {
                float even = 0, odd = 0; /* two chains, so that one need not wait for itself */
                KUNROLL
                for (uint32_t k = 0; k < PART; k += 2) {
                    even = k_fma(w[r][k], x[k / 4].v[k % 4], even);
                    odd = k_fma(w[r][k + 1], x[k / 4].v[k % 4 + 1], odd);
                }
                sums[r][m] += even + odd;
            }
        }
    }
}

/* How rows of plain weights lie: whole pieces of 16 bytes. */
struct plain_rows {
    uint32_t stride; /* bytes */
    uint32_t n;      /* pieces */
};

template <int FORMAT> KDEV plain_rows plain_rows_of(uint32_t cols)
{
    uint32_t bytes = (cols + 7) / 8 * 8 * plain<FORMAT>::BYTES;

    if (FORMAT == GEMV_E4M3)
        return { e4m3_row_bytes(cols), e4m3_codes_bytes(cols) / 16 };
    return { bytes, bytes / 16 };
}

/* The warp's rows first .. first + R - 1 of a matrix: lane r * M + m gets the sum of row r and x' row m. */
template <int FORMAT, int M, int R>
KDEV float plain_sums(const gemv_args &a, const gemv_input &in, uint32_t matrix, uint32_t expert,
                      uint32_t first)
{
    plain_rows rows = plain_rows_of<FORMAT>(a.cols);
    uint32_t n = rows.n, last = a.w[matrix].rows - 1, own = first + k_lane() / M;
    const uint8_t *row[R], *data = data_of(a.w[matrix], expert);
    float sums[R][M] = {}, mine = 0, scale = 1;
    plain_pieces<R> now, next;

    KUNROLL
    for (uint32_t r = 0; r < R; r++)
        row[r] = data + (uint64_t)(first + r < last ? first + r : last) * rows.stride;
    if (FORMAT == GEMV_E4M3)
        scale = k_ldg_f32(
            (const float *)(data + (uint64_t)(own < last ? own : last) * rows.stride + n * 16));
    load_pieces<R>(now, row, k_lane(), n);
    for (uint32_t at = k_lane(); at < n; at += 32 * now.AHEAD) {
        load_pieces<R>(next, row, at + 32 * now.AHEAD, n);
        KUNROLL
        for (uint32_t i = 0; i < now.AHEAD; i++)
            if (at + 32 * i < n)
                add_piece<FORMAT, M, R>(sums, in, now.of[i], at + 32 * i);
        now = next;
    }
    KUNROLL
    for (uint32_t r = 0; r < R; r++) {
        KUNROLL
        for (uint32_t m = 0; m < M; m++) {
            float sum = k_warp_sum(sums[r][m]);
            mine = k_lane() == r * M + m ? sum : mine;
        }
    }
    return FORMAT == GEMV_E4M3 ? mine * scale : mine;
}

/* All tiles of the block, for a warp: R rows of each; of a gated launch, R of the gate and the same of up. */
template <int FORMAT, int M, int R>
KDEV void run_plain(const gemv_args &a, const gemv_rows &r, const gemv_input &in)
{
    const uint32_t TILE_ROWS = R * GEMV_WARPS;
    uint32_t n_tiles = tiles_of(a, TILE_ROWS), m = k_lane() % M;

    for (uint32_t i = blockIdx.x; i < n_tiles; i += gridDim.x) {
        gemv_tile tile = tile_at(a, i, TILE_ROWS);
        uint32_t first = tile.row + k_warp() * R, row = first + k_lane() / M;
        float sums[2] = { 0, 0 };
        if (first >= a.w[tile.matrix].rows)
            continue;
        KUNROLL_N(1)
        for (uint32_t h = 0; h < (gemv_is_gated(a.mode) ? 2 : 1); h++) {
            float sum = plain_sums<FORMAT, M, R>(a, in, tile.matrix + h, r.expert, first);
            sums[0] = h == 0 ? sum : sums[0];
            sums[1] = sum;
        }
        if (k_lane() < R * M && m < r.n && row < a.w[tile.matrix].rows)
            finish(a, tile, r.expert, r.first + m, row, sums[0], sums[1]);
    }
}

/* ---- packed weights ---- */

/* The lane's share of AHEAD superblocks: more of them ahead where there is less to do with them. */
template <int FORMAT, int M> struct packed_share {
    static const uint32_t AHEAD = (M == 1 ? 4 : 2) / packed<FORMAT>::PIECES;
    k_u32x4 codes[AHEAD * packed<FORMAT>::PIECES];
    packed_numbers numbers[AHEAD];
};

/* A panel's superblocks that are the warp's: nearly as many for each. */
struct packed_run {
    const uint8_t *codes, *numbers;
    uint32_t begin, end;
};

template <int FORMAT> KDEV packed_run run_of_warp(const uint8_t *panel, uint32_t cols)
{
    uint32_t n = packed_superblocks(cols);

    return { panel, panel + n * packed<FORMAT>::CODES, k_warp() * n / GEMV_WARPS,
             (k_warp() + 1) * n / GEMV_WARPS };
}

template <int FORMAT, int M>
KDEV void load_share(packed_share<FORMAT, M> &p, const packed_run &run, uint32_t at)
{
    typedef packed<FORMAT> f;

    KUNROLL
    for (uint32_t i = 0; i < p.AHEAD; i++) {
        if (at + i >= run.end)
            continue;
        KUNROLL
        for (uint32_t j = 0; j < f::PIECES; j++)
            p.codes[i * f::PIECES + j] =
                k_stream16(run.codes + (at + i) * f::CODES + j * 512 + k_lane() * 16);
        p.numbers[i] = packed_numbers_of<FORMAT>(run.numbers, at + i);
    }
}

/* sum over 16 columns of a x, in two chains; with a NULL, of x */
KDEV float dot16(const float *a, const k_f32x4 x[4])
{
    float first = 0, second = 0;

    KUNROLL
    for (uint32_t k = 0; k < 8; k++) {
        float one = x[k / 4].v[k % 4], two = x[2 + k / 4].v[k % 4];
        first = a ? k_fma(a[k], one, first) : first + one;
        second = a ? k_fma(a[8 + k], two, second) : second + two;
    }
    return first + second;
}

/* sums[h][m] += the lane's 16 columns of row g + 8h, superblock `at`, times x'. */
template <int FORMAT, int M>
KDEV void add_superblock(float sums[2][M], const gemv_input &in, const k_u32x4 *codes,
                         packed_numbers numbers, uint32_t at)
{
    float w[2][16], scale[2] = { k_f16_low(numbers.scale), k_f16_high(numbers.scale) };
    float min[2] = { k_f16_low(numbers.min), k_f16_high(numbers.min) };
    uint32_t q = at * 16 + k_lane() % 4 * 4;

    KUNROLL
    for (uint32_t h = 0; h < 2; h++)
        packed_widen<FORMAT>(w[h], codes, h);
    KUNROLL
    for (uint32_t m = 0; m < M; m++) {
        if (m >= in.rows.n)
            continue;
        k_f32x4 x[4];
        fours_of<FORMAT, 4>(x, in, m, q);
        float all = FORMAT == GEMV_I4M ? dot16(nullptr, x) : 0;
        KUNROLL
        for (uint32_t h = 0; h < 2; h++) {
            sums[h][m] = k_fma(scale[h], dot16(w[h], x), sums[h][m]);
            if (FORMAT == GEMV_I4M)
                sums[h][m] = k_fma(min[h], all, sums[h][m]);
        }
    }
}

/* The lane's columns of its two rows, of the superblocks that are this warp's. */
template <int FORMAT, int M>
KDEV void panel_sums(float sums[2][M], const gemv_input &in, const uint8_t *panel)
{
    packed_run run = run_of_warp<FORMAT>(panel, in.a.cols);
    packed_share<FORMAT, M> now, next;

    load_share<FORMAT, M>(now, run, run.begin);
    for (uint32_t at = run.begin; at < run.end; at += now.AHEAD) {
        load_share<FORMAT, M>(next, run, at + now.AHEAD);
        KUNROLL
        for (uint32_t i = 0; i < now.AHEAD; i++)
            if (at + i < run.end)
                add_superblock<FORMAT, M>(sums, in, now.codes + i * packed<FORMAT>::PIECES,
                                          now.numbers[i], at + i);
        now = next;
    }
}

/* All lanes of a row, then all warps: thread 16 m + i gets the sum of row i of the panel and x' row m.
 *   part  [GEMV_WARPS][M][16], free before, and after the next barrier */
template <int M> KDEV float gather_sums(const float sums[2][M], float *part)
{
    uint32_t lane = k_lane();
    float sum = 0;

    KUNROLL
    for (uint32_t h = 0; h < 2; h++) {
        KUNROLL
        for (uint32_t m = 0; m < M; m++) {
            float v = sums[h][m];
            v += k_shfl_xor(v, 1);
            v += k_shfl_xor(v, 2);
            if (lane % 4 == 0)
                part[(k_warp() * M + m) * 16 + 8 * h + lane / 4] = v;
        }
    }
    k_sync();
    if (threadIdx.x < 16 * M) {
        KUNROLL
        for (uint32_t w = 0; w < GEMV_WARPS; w++)
            sum += part[w * M * 16 + threadIdx.x];
    }
    return sum;
}

template <int FORMAT, int M>
KDEV float packed_sums(const gemv_args &a, const gemv_input &in, uint32_t matrix, uint32_t expert,
                       uint32_t row, float *part)
{
    const uint8_t *data = data_of(a.w[matrix], expert);
    float sums[2][M] = {}, sum;

    panel_sums<FORMAT, M>(sums, in, data + row / 16 * packed_panel_bytes<FORMAT>(a.cols));
    sum = gather_sums<M>(sums, part);
    k_sync();
    return sum;
}

template <int FORMAT, int M>
KDEV void run_packed(const gemv_args &a, const gemv_rows &r, const gemv_input &in, float *part)
{
    uint32_t n_tiles = tiles_of(a, 16), m = threadIdx.x / 16;

    for (uint32_t i = blockIdx.x; i < n_tiles; i += gridDim.x) {
        gemv_tile tile = tile_at(a, i, 16);
        uint32_t row = tile.row + threadIdx.x % 16;
        float sums[2] = { 0, 0 };
        KUNROLL_N(1)
        for (uint32_t h = 0; h < (gemv_is_gated(a.mode) ? 2 : 1); h++) {
            float sum = packed_sums<FORMAT, M>(a, in, tile.matrix + h, r.expert, tile.row, part);
            sums[0] = h == 0 ? sum : sums[0];
            sums[1] = sum;
        }
        if (m < r.n && row < a.w[tile.matrix].rows)
            finish(a, tile, r.expert, r.first + m, row, sums[0], sums[1]);
    }
}

/* ---- kernels: gemv_FORMAT_SLOTS ---- */

template <int FORMAT, int M> KDEV void gemv(const gemv_args &a)
{
    KSHARED(float, part, [GEMV_WARPS * M * 16]);
    KSHARED(float, scale, [M]);
    KSHARED(uint32_t, of_x, [M]);
    KSHARED_DYN(float, staged);
    gemv_rows r = rows_of_block<M>(a, of_x);
    gemv_input in = { a, r, staged, scale, gemv_staged_cols(a.cols) };

    if (r.n == 0)
        return;
    prepare_input<FORMAT, M>(a, r, staged, part, scale);
    if constexpr (FORMAT >= GEMV_I8)
        run_packed<FORMAT, M>(a, r, in, part);
    else
        run_plain<FORMAT, M, M == 1 || FORMAT == GEMV_E4M3 ? 2 : 4>(a, r, in);
}

#define GEMV(name, format)                                                                         \
    KERNEL(name##_1, struct gemv_args, GEMV_THREADS)                                               \
    {                                                                                              \
        gemv<format, 1>(a);                                                                        \
    }                                                                                              \
    KERNEL_BLOCKS(name##_8, struct gemv_args, GEMV_THREADS, 2)                                     \
    {                                                                                              \
        gemv<format, 8>(a);                                                                        \
    }

GEMV(gemv_f32, GEMV_F32)
GEMV(gemv_f16, GEMV_F16)
GEMV(gemv_bf16, GEMV_BF16)
GEMV(gemv_e4m3, GEMV_E4M3)
GEMV(gemv_i8, GEMV_I8)
GEMV(gemv_i4, GEMV_I4)
GEMV(gemv_i4m, GEMV_I4M)
