/* attention_prefill.cu - attention of prompts, by tensor cores.
 *
 * FlashAttention-2 (Dao 2023, arXiv:2307.08691) over KV pages: a block has a tile of 64 rows of one query head, a warp
 * 16 of them.  It goes through the positions they see in steps of STEP; K and V of the next step come into one half
 * of shared memory (cp.async) while the tensor cores work on the other.  Scores stay in registers: a warp's
 * accumulators of Q K^T are, packed to f16, the left operand of P V.  Steps that are after a warp's last
 * row, or before the window of its first, are skipped; only those that a row sees in part are masked.
 *
 * KV of other types than f16 is converted on its way into shared memory, scales included, without cp.async.
 *
 * Bits.  Steps begin at multiples of STEP, a row of a tile has sums of its own, and a step that a row does not see
 * adds zeros to them.  So a row's result depends on its position alone.
 *
 * Grid: (query heads, tiles).  Block: 128.  Math: 4 * head_dim operations for each pair of a row and a position that it
 * sees, at the tensor cores' rate; bound by it from a few hundred positions on. */
#include "gpu-worker/cuda/kernels/attention_device.h"

/* ---- shared memory: rows of D f16, in chunks of 8 ---- */

template <int D> struct plane {
    static constexpr int STEP = ATTENTION_STEP(D);
    static constexpr int CHUNKS = D / 8;
    static constexpr int ROW = ATTENTION_ROW_BYTES(D) / 16; /* chunks from a row to the next */
    static constexpr int SIZE = STEP * ROW;                 /* K, or V, of a step */
    static constexpr bool Q_IN_REGISTERS = D <= 128;
};

/* ldmatrix reads eight rows of one column of chunks: they must lie in different banks. */
template <int D> KDEV uint32_t chunk_at(uint32_t row, uint32_t chunk)
{
    return row * plane<D>::ROW + (D % 64 == 0 ? chunk ^ (row & 7) : chunk);
}

/* ---- what a block, and a warp of it, works on ---- */

struct block {
    attention_tile tile;
    kv_head head;
    score_factors factors;
    uint32_t span, end; /* positions the tile sees: .. end - 1 */
};

struct warp_rows {
    uint32_t n;           /* rows there are of its 16 */
    uint32_t first, last; /* their positions */
};

KDEV warp_rows warp_rows_of(const attention_tile &tile)
{
    uint32_t row = k_warp() * 16;
    warp_rows w = {};

    if (row < tile.n_rows) {
        w.n = tile.n_rows - row < 16 ? tile.n_rows - row : 16;
        w.first = tile.position + row;
        w.last = w.first + w.n - 1;
    }
    return w;
}

/* ---- K and V of a step ---- */

/* Chunk i of a thread: of which token, and which of its row. */
template <int D> struct chunk_place {
    static constexpr int N = plane<D>::STEP * plane<D>::CHUNKS / ATTENTION_PREFILL_THREADS;
    uint32_t token, chunk;
};

template <int D> KDEV chunk_place<D> chunk_place_of(uint32_t i)
{
    uint32_t at = threadIdx.x + i * ATTENTION_PREFILL_THREADS;

    return { at / plane<D>::CHUNKS, at % plane<D>::CHUNKS };
}

template <int D>
KDEV void copy_step(k_u32x4 *k, k_u32x4 *v, const attention_args &a, const block &b, uint32_t begin)
{
    KUNROLL
    for (uint32_t i = 0; i < chunk_place<D>::N; i++) {
        chunk_place<D> at = chunk_place_of<D>(i);
        bool is_there = begin + at.token < b.end;
        uint32_t to = chunk_at<D>(at.token, at.chunk);
        const char *from =
            kv_find<KV_F16>(a, b.head, is_there ? begin + at.token : begin).k + at.chunk * 16;
        k_cp_async16_if(k + to, from, is_there);
        k_cp_async16_if(v + to, from + b.head.k_to_v, is_there);
    }
    k_cp_async_commit();
}

template <int KV> KDEV k_u32x4 converted(const char *from, float scale, bool is_there)
{
    k_u32x4 r = {};
    float x[8];

    if (!is_there)
        return r;
    kv8_floats<KV>(x, kv8_load<KV>(from));
    KUNROLL
    for (int i = 0; i < 4; i++)
        r.v[i] = k_f32x2_to_f16x2(x[2 * i] * scale, x[2 * i + 1] * scale);
    return r;
}

template <int D, int KV>
KDEV void convert_step(k_u32x4 *k, k_u32x4 *v, const attention_args &a, const block &b,
                       uint32_t begin)
{
    KUNROLL_N(2)
    for (uint32_t i = 0; i < chunk_place<D>::N; i++) {
        constexpr uint32_t BYTES = 4 * kv8<KV>::WORDS;
        chunk_place<D> at = chunk_place_of<D>(i);
        bool is_there = begin + at.token < b.end;
        uint32_t to = chunk_at<D>(at.token, at.chunk);
        kv_row row = kv_find<KV>(a, b.head, is_there ? begin + at.token : begin);
        const char *from = row.k + at.chunk * BYTES;
        k_store16(k + to,
                  converted<KV>(from, kv_scale<KV>(b.head, row.k_scale, a.k_scale), is_there));
        k_store16(v + to,
                  converted<KV>(from + b.head.k_to_v,
                                kv_scale<KV>(b.head, row.k_scale + b.head.k_to_v, a.v_scale),
                                is_there));
    }
}

template <int D, bool IS_F16>
KDEV void load_step(k_u32x4 *planes, uint32_t stage, const attention_args &a, const block &b,
                    uint32_t begin)
{
    k_u32x4 *k = planes + stage * 2 * plane<D>::SIZE, *v = k + plane<D>::SIZE;

    if constexpr (IS_F16)
        copy_step<D>(k, v, a, b, begin);
    else if (b.head.format == KV_F32)
        convert_step<D, KV_F32>(k, v, a, b, begin);
    else if (b.head.format == KV_I8)
        convert_step<D, KV_I8>(k, v, a, b, begin);
    else
        convert_step<D, KV_E4M3>(k, v, a, b, begin);
}

/* ---- Q ---- */

/* Two neighbouring elements of a row of the tile; zeros where there is no row. */
KDEV uint32_t query_pair(const attention_args &a, const block &b, uint32_t row, uint32_t dim)
{
    if (row >= b.tile.n_rows)
        return 0;
    k_u32x2 x =
        k_load8(a.q + (b.tile.first_row + row) * a.q_stride + blockIdx.x * a.head_dim + dim);
    return k_f32x2_to_f16x2(k_bits_f32(x.v[0]), k_bits_f32(x.v[1]));
}

/* The left operand of each 16 dimensions, of the warp's 16 rows. */
template <int D> struct queries {
    uint32_t a[plane<D>::Q_IN_REGISTERS ? D / 16 : 1][4];
    const k_u32x4 *shared; /* [64 rows] otherwise */
};

template <int D>
KDEV void queries_load(queries<D> &q, k_u32x4 *shared, const attention_args &a, const block &b)
{
    uint32_t row = k_warp() * 16 + k_lane() / 4, dim = k_lane() % 4 * 2;

    q.shared = shared;
    KUNROLL
    for (uint32_t i = 0; i < D / 16; i++)
        KUNROLL
    for (uint32_t r = 0; r < 4; r++) {
        uint32_t at_row = row + r % 2 * 8, chunk = 2 * i + r / 2;
        uint32_t pair = query_pair(a, b, at_row, chunk * 8 + dim);
        if constexpr (plane<D>::Q_IN_REGISTERS)
            q.a[i][r] = pair;
        else
            shared[chunk_at<D>(at_row, chunk)].v[dim / 2] = pair;
    }
    k_syncwarp();
}

template <int D> KDEV void queries_at(uint32_t r[4], const queries<D> &q, uint32_t i)
{
    if constexpr (plane<D>::Q_IN_REGISTERS) {
        KUNROLL
        for (int n = 0; n < 4; n++)
            r[n] = q.a[i][n];
    } else {
        uint32_t matrix = k_lane() / 8, row = k_warp() * 16 + matrix % 2 * 8 + k_lane() % 8;
        k_ldmatrix_x4(r, q.shared + chunk_at<D>(row, 2 * i + matrix / 2));
    }
}

/* ---- a step of a warp ---- */

/* scores = Q K^T, raw. */
template <int D>
KDEV void multiply_keys(float scores[plane<D>::STEP / 8][4], const queries<D> &q, const k_u32x4 *k)
{
    uint32_t matrix = k_lane() / 8, token = matrix / 2 * 8 + k_lane() % 8;

    KUNROLL
    for (int n = 0; n < plane<D>::STEP / 8; n++)
        KUNROLL
    for (int r = 0; r < 4; r++)
        scores[n][r] = 0;
    KUNROLL
    for (uint32_t i = 0; i < D / 16; i++) {
        uint32_t left[4];
        queries_at(left, q, i);
        KUNROLL
        for (uint32_t n = 0; n < plane<D>::STEP / 16; n++) {
            uint32_t right[4];
            k_ldmatrix_x4(right, k + chunk_at<D>(n * 16 + token, 2 * i + matrix % 2));
            k_mma_m16n8k16_f16(scores[2 * n], left, right);
            k_mma_m16n8k16_f16(scores[2 * n + 1], left, right + 2);
        }
    }
}

/* To base 2, and -infinity where a row does not see the position. */
template <int D>
KDEV void mask_scores(float scores[plane<D>::STEP / 8][4], const score_factors &factors,
                      const warp_rows &rows, uint32_t span, uint32_t begin)
{
    bool all_seen =
        begin + plane<D>::STEP - 1 <= rows.first && begin >= first_seen(rows.last, span);

    KUNROLL
    for (uint32_t n = 0; n < plane<D>::STEP / 8; n++)
        KUNROLL
    for (uint32_t r = 0; r < 4; r++) {
        uint32_t last = rows.first + k_lane() / 4 + r / 2 * 8;
        uint32_t position = begin + n * 8 + k_lane() % 4 * 2 + r % 2;
        float score = score_of(factors, scores[n][r]);
        scores[n][r] = all_seen || last - position < span ? score : -INFINITY;
    }
}

/* values += weights V; the weights are the left operand as they lie. */
template <int D>
KDEV void multiply_values(tile_sums<D> &s, const float weights[plane<D>::STEP / 8][4],
                          const k_u32x4 *v)
{
    uint32_t matrix = k_lane() / 8, token = matrix % 2 * 8 + k_lane() % 8;

    KUNROLL
    for (uint32_t i = 0; i < plane<D>::STEP / 16; i++) {
        const float(*w)[4] = weights + 2 * i;
        uint32_t left[4] = { k_f32x2_to_f16x2(w[0][0], w[0][1]), k_f32x2_to_f16x2(w[0][2], w[0][3]),
                             k_f32x2_to_f16x2(w[1][0], w[1][1]),
                             k_f32x2_to_f16x2(w[1][2], w[1][3]) };
        KUNROLL
        for (uint32_t n = 0; n < D / 16; n++) {
            uint32_t right[4];
            k_ldmatrix_x4_trans(right, v + chunk_at<D>(i * 16 + token, 2 * n + matrix / 2));
            k_mma_m16n8k16_f16(s.values[2 * n], left, right);
            k_mma_m16n8k16_f16(s.values[2 * n + 1], left, right + 2);
        }
    }
}

template <int D>
KDEV void attend_step(tile_sums<D> &s, const queries<D> &q, const k_u32x4 *k, const block &b,
                      const warp_rows &rows, uint32_t begin)
{
    float scores[plane<D>::STEP / 8][4];

    if (rows.n == 0 || begin > rows.last ||
        begin + plane<D>::STEP <= first_seen(rows.first, b.span))
        return;
    multiply_keys<D>(scores, q, k);
    mask_scores<D>(scores, b.factors, rows, b.span, begin);
    tile_soften<plane<D>::STEP / 8>(s, scores);
    multiply_values<D>(s, scores, k + plane<D>::SIZE);
}

/* ---- a tile ---- */

template <int D>
KDEV void write_rows(const tile_sums<D> &s, const attention_args &a, const block &b)
{
    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t row = k_warp() * 16 + k_lane() / 4 + half * 8;
        float sum = s.sum[half];
        sum += k_shfl_xor(sum, 1);
        sum += k_shfl_xor(sum, 2);
        if (row >= b.tile.n_rows)
            continue;
        float *out = a.out + (b.tile.first_row + row) * a.out_stride + blockIdx.x * a.head_dim +
                     k_lane() % 4 * 2;
        KUNROLL
        for (int n = 0; n < D / 8; n++) {
            k_u32x2 pair = { { k_f32_bits(s.values[n][2 * half] / sum),
                               k_f32_bits(s.values[n][2 * half + 1] / sum) } };
            k_store8(out + 8 * n, pair);
        }
    }
}

template <int D, bool IS_F16> KDEV void attend_tile(const attention_args &a)
{
    KSHARED_DYN(k_u32x4, planes);
    uint32_t stage = 0;
    queries<D> q;
    block b;
    tile_sums<D> s;

    if (blockIdx.y >= a.plan->n_tiles)
        return;
    b.tile = plan_list<attention_tile>(a.plan, a.plan->tiles_offset)[blockIdx.y];
    b.head = kv_head_of(a, b.tile.pages, blockIdx.x / (a.n_heads / a.n_kv_heads));
    b.factors = score_factors_of(a);
    b.span = span_of(a);
    b.end = b.tile.position + b.tile.n_rows;
    warp_rows rows = warp_rows_of(b.tile);
    uint32_t begin = first_seen(b.tile.position, b.span) / plane<D>::STEP * plane<D>::STEP;

    load_step<D, IS_F16>(planes, stage, a, b, begin);
    queries_load<D>(q, planes + 4 * plane<D>::SIZE, a, b);
    tile_sums_begin(s);
    for (; begin < b.end; begin += plane<D>::STEP, stage ^= 1) {
        k_cp_async_wait<0>();
        k_sync(); /* this step is there, and nobody reads the one before any more */
        if (begin + plane<D>::STEP < b.end)
            load_step<D, IS_F16>(planes, stage ^ 1, a, b, begin + plane<D>::STEP);
        attend_step<D>(s, q, planes + stage * 2 * plane<D>::SIZE, b, rows, begin);
    }
    write_rows<D>(s, a, b);
}

/* attention_prefill_f16_dD and, for the other formats, attention_prefill_converted_dD. */
#define PREFILL(D, BLOCKS)                                                                         \
    KERNEL_BLOCKS(attention_prefill_f16_d##D, struct attention_args, ATTENTION_PREFILL_THREADS,    \
                  BLOCKS)                                                                          \
    {                                                                                              \
        attend_tile<D, true>(a);                                                                   \
    }                                                                                              \
    KERNEL_BLOCKS(attention_prefill_converted_d##D, struct attention_args,                         \
                  ATTENTION_PREFILL_THREADS, BLOCKS)                                               \
    {                                                                                              \
        attend_tile<D, false>(a);                                                                  \
    }

PREFILL(32, 4)
PREFILL(64, 3)
PREFILL(80, 2)
PREFILL(96, 2)
PREFILL(128, 2)
PREFILL(256, 2)
