/* attention_group.cu - decode attention by tensor cores, for queries that share a KV head: grouped-query attention
 * (Ainslie et al. 2023, arXiv:2305.13245) and drafts.
 *
 * A block has up to 16 queries, the rows of an m16n8k16 product, and reads K and V once for all of them; with the
 * scalar products of attention_decode.cu the arithmetic of eight queries would take longer than memory.  Operands
 * come from global memory as they lie, without shared memory, because both products may have their sums in any
 * order as long as both sides agree:
 *
 *   scores   lane (g, t) loads chunk t + 4 j of token g.  Its eight elements are the right operand of two products,
 *            2 j and 2 j + 1, whose 16 dimensions are then the halves of four chunks; Q lies in shared memory in this
 *            order.
 *   values   lane (g, t) loads chunk g + 8 j of tokens 2t, 2t + 1, 2t + 8, 2t + 9.  Element e of these is the right
 *            operand of product (j, e), whose 8 columns are then every eighth dimension.
 *
 * Q and the weights are given as two f16 each, the number and what it lacks, so rounding is about that of float.
 * A warp takes every fourth 16 positions of a split; warps, then splits are folded in order, as there.
 *
 * Grid: (items, KV heads).  Block: 128.  Bytes: K and V of an item's positions. */
#include "gpu-worker/cuda/kernels/attention_device.h"

enum {
    ROWS = ATTENTION_GROUP_QUERIES,
    TOKENS = 16, /* of a warp at once */
    WARPS = ATTENTION_DECODE_THREADS / 32,
    STEP = WARPS * TOKENS,
    LANES_OF_ROW = ATTENTION_DECODE_THREADS / ROWS, /* when results are put together */
};
static_assert(ATTENTION_SPLIT_TOKENS % STEP == 0, "a split is whole steps");

/* An integer's scale would leave f16 little of a weight: they are this much larger until the end. */
static constexpr float WEIGHT_SCALE = 256;

template <int KV> struct job {
    kv_head head;
    attention_item item;
    score_factors factors;
    uint32_t span;
    uint32_t last[2];    /* positions of the lane's two rows */
    uint32_t begin, end; /* positions that any row sees, of the split that is worked on */
};

/* The rows' elements as f16 and what is left of them: left operands, by product and lane. */
template <int D> struct queries {
    k_u32x4 number[D / 16][32], rest[D / 16][32];
};

/* What the warps give each other. */
template <int D> struct warp_sums {
    float largest[WARPS][ROWS], sum[WARPS][ROWS];
    float values[WARPS][ROWS][D + 8]; /* rows lie in different banks */
};

/* ---- Q ---- */

template <int KV>
KDEV float query_element(const attention_args &a, const job<KV> &j, uint32_t query, uint32_t dim)
{
    if (query >= j.item.n_queries || dim >= a.head_dim)
        return 0;
    return a.q[(j.item.first_row + row_of(a, j.item, query)) * a.q_stride +
               column_of(a, j.item, query) + dim];
}

/* x and y as f16, and what they lack. */
struct split_pair {
    uint32_t number, rest;
};

KDEV split_pair split_pair_of(float x, float y)
{
    uint32_t number = k_f32x2_to_f16x2(x, y);

    return { number, k_f32x2_to_f16x2(x - k_f16_low(number), y - k_f16_high(number)) };
}

template <int D, int KV>
KDEV void queries_load(queries<D> &q, const attention_args &a, const job<KV> &j)
{
    for (uint32_t at = threadIdx.x; at < D / 16 * 32; at += ATTENTION_DECODE_THREADS) {
        uint32_t product = at / 32, lane = at % 32;
        uint32_t dim = (lane % 4 + product / 2 * 4) * 8 + product % 2 * 4;
        KUNROLL
        for (uint32_t r = 0; r < 4; r++) {
            uint32_t query = lane / 4 + r % 2 * 8, d = dim + r / 2 * 2;
            split_pair pair =
                split_pair_of(query_element(a, j, query, d), query_element(a, j, query, d + 1));
            q.number[product][lane].v[r] = pair.number;
            q.rest[product][lane].v[r] = pair.rest;
        }
    }
}

/* ---- K and V of 16 positions ---- */

template <int KV, int D> struct step {
    kv8<KV> k[2][D / 32];         /* of positions g and g + 8 */
    kv8<KV> v[4][D / 64];         /* of positions 2t, 2t + 1, 2t + 8, 2t + 9 */
    float k_scale[4], v_scale[4]; /* of these */
};

/* Chunk `chunk` of a row; zeros where there is none. */
template <int KV>
KDEV kv8<KV> load_chunk(const attention_args &a, const char *row, uint32_t chunk, bool take)
{
    kv8<KV> zeros = {};

    return take && chunk * 8 < a.head_dim ? kv8_load<KV>(row + chunk * (4 * kv8<KV>::WORDS))
                                          : zeros;
}

/* At positions position .. position + 15; none of the loads waits for another. */
template <int KV, int D>
KDEV void step_load(step<KV, D> &s, const attention_args &a, const job<KV> &j, uint32_t position)
{
    uint32_t g = k_lane() / 4, t = k_lane() % 4;

    KUNROLL
    for (uint32_t n = 0; n < 2; n++) {
        uint32_t at = position + g + 8 * n;
        bool take = at >= j.begin && at < j.end;
        kv_row row = kv_find<KV>(a, j.head, take ? at : j.begin);
        KUNROLL
        for (uint32_t i = 0; i < D / 32; i++)
            s.k[n][i] = load_chunk<KV>(a, row.k, t + 4 * i, take);
    }
    KUNROLL
    for (uint32_t n = 0; n < 4; n++) {
        uint32_t at = position + 2 * t + n % 2 + n / 2 * 8;
        bool take = at >= j.begin && at < j.end;
        kv_row row = kv_find<KV>(a, j.head, take ? at : j.begin);
        s.k_scale[n] = kv_scale<KV>(j.head, row.k_scale, a.k_scale);
        s.v_scale[n] = kv_scale<KV>(j.head, row.k_scale + j.head.k_to_v, a.v_scale);
        KUNROLL
        for (uint32_t i = 0; i < D / 64; i++)
            s.v[n][i] = load_chunk<KV>(a, row.k + j.head.k_to_v, g + 8 * i, take);
    }
}

/* ---- products ---- */

/* The right operand is exact, the left one is two numbers. */
KDEV void multiply(float sums[4], const uint32_t number[4], const uint32_t rest[4],
                   const uint32_t right[2])
{
    k_mma_m16n8k16_f16(sums, rest, right);
    k_mma_m16n8k16_f16(sums, number, right);
}

template <int KV, int D>
KDEV void multiply_keys(float scores[2][4], const queries<D> &q, const step<KV, D> &s)
{
    KUNROLL
    for (int n = 0; n < 2; n++)
        KUNROLL
    for (int r = 0; r < 4; r++)
        scores[n][r] = 0;
    KUNROLL
    for (int i = 0; i < D / 32; i++) {
        uint32_t k[2][4];
        kv8_halves<KV>(k[0], s.k[0][i]);
        kv8_halves<KV>(k[1], s.k[1][i]);
        KUNROLL
        for (int half = 0; half < 2; half++) {
            k_u32x4 number = q.number[2 * i + half][k_lane()];
            k_u32x4 rest = q.rest[2 * i + half][k_lane()];
            multiply(scores[0], number.v, rest.v, k[0] + 2 * half);
            multiply(scores[1], number.v, rest.v, k[1] + 2 * half);
        }
    }
}

template <int KV, int D>
KDEV void finish_scores(float scores[2][4], const step<KV, D> &s, const job<KV> &j,
                        uint32_t position)
{
    KUNROLL
    for (uint32_t n = 0; n < 2; n++)
        KUNROLL
    for (uint32_t r = 0; r < 4; r++) {
        uint32_t at = position + n * 8 + k_lane() % 4 * 2 + r % 2;
        float score = score_of(j.factors, scores[n][r] * s.k_scale[2 * n + r % 2]);
        scores[n][r] = j.last[r / 2] - at < j.span ? score : -INFINITY;
    }
}

/* A weight as V is to be multiplied by it. */
template <int KV, int D>
KDEV float weight_of(const float weights[2][4], const step<KV, D> &s, uint32_t n, uint32_t r)
{
    if constexpr (KV == KV_I8)
        return weights[n][r] * (s.v_scale[2 * n + r % 2] * WEIGHT_SCALE);
    else
        return weights[n][r];
}

template <int KV, int D>
KDEV void multiply_values(tile_sums<D> &sums, const float weights[2][4], const step<KV, D> &s)
{
    uint32_t number[4], rest[4];

    KUNROLL
    for (uint32_t i = 0; i < 4; i++) {
        split_pair pair = split_pair_of(weight_of(weights, s, i / 2, i % 2 * 2),
                                        weight_of(weights, s, i / 2, i % 2 * 2 + 1));
        number[i] = pair.number;
        rest[i] = pair.rest;
    }
    KUNROLL
    for (int i = 0; i < D / 64; i++) {
        uint32_t v[4][4];
        KUNROLL
        for (int n = 0; n < 4; n++)
            kv8_halves<KV>(v[n], s.v[n][i]);
        KUNROLL
        for (int e = 0; e < 8; e++) {
            const uint32_t select = e % 2 ? 0x7632 : 0x5410; /* that half of both */
            uint32_t right[2] = { k_byte_permute(v[0][e / 2], v[1][e / 2], select),
                                  k_byte_permute(v[2][e / 2], v[3][e / 2], select) };
            multiply(sums.values[i * 8 + e], number, rest, right);
        }
    }
}

/* ---- a split ---- */

/* What the values of all positions were multiplied by too little or too much. */
template <int KV> KDEV float value_factor(const attention_args &a)
{
    return KV == KV_I8 ? 1 / WEIGHT_SCALE : KV == KV_E4M3 ? a.v_scale : 1;
}

template <int KV, int D>
KDEV void give_sums(warp_sums<D> &to, const tile_sums<D> &s, const attention_args &a)
{
    uint32_t warp = k_warp(), t = k_lane() % 4;

    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t row = k_lane() / 4 + half * 8;
        float sum = s.sum[half];
        sum += k_shfl_xor(sum, 1);
        sum += k_shfl_xor(sum, 2);
        if (t == 0) {
            to.largest[warp][row] = s.largest[half];
            to.sum[warp][row] = sum;
        }
        KUNROLL
        for (uint32_t n = 0; n < D / 8; n++)
            KUNROLL
        for (uint32_t r = 0; r < 2; r++)
            to.values[warp][row][(2 * t + r + n / 8 * 8) * 8 + n % 8] =
                s.values[n][2 * half + r] * value_factor<KV>(a);
    }
}

template <int KV, int D>
KDEV void attend_split(warp_sums<D> &to, const queries<D> &q, const attention_args &a,
                       const job<KV> &j)
{
    tile_sums<D> sums;

    tile_sums_begin(sums);
    for (uint32_t position = j.begin / STEP * STEP + k_warp() * TOKENS; position < j.end;
         position += STEP) {
        float scores[2][4];
        step<KV, D> s;
        step_load(s, a, j, position);
        multiply_keys(scores, q, s);
        finish_scores(scores, s, j, position);
        tile_soften<2>(sums, scores);
        multiply_values(sums, scores, s);
    }
    give_sums<KV>(to, sums, a);
}

/* ---- an item ---- */

/* Of row threadIdx.x / LANES_OF_ROW the elements threadIdx.x % LANES_OF_ROW + LANES_OF_ROW * n. */
template <int D> struct results {
    float largest, sum;
    float values[D / LANES_OF_ROW];
};

template <int D> KDEV void results_begin(results<D> &r)
{
    r.largest = -INFINITY;
    r.sum = 0;
    KUNROLL
    for (int n = 0; n < D / LANES_OF_ROW; n++)
        r.values[n] = 0;
}

/* The warps of a split, in order; then that to what the splits before have given. */
template <int D> KDEV void results_add(results<D> &r, const warp_sums<D> &sums)
{
    uint32_t row = threadIdx.x / LANES_OF_ROW, lane = threadIdx.x % LANES_OF_ROW;
    float all_largest = r.largest, all_sum = r.sum;

    KUNROLL
    for (int n = 0; n < D / LANES_OF_ROW; n++) {
        uint32_t d = lane + LANES_OF_ROW * n;
        float largest = sums.largest[0][row], sum = sums.sum[0][row];
        float value = sums.values[0][row][d];
        KUNROLL
        for (int w = 1; w < WARPS; w++)
            fold(&largest, &sum, &value, sums.largest[w][row], sums.sum[w][row],
                 sums.values[w][row][d]);
        all_largest = r.largest;
        all_sum = r.sum;
        fold(&all_largest, &all_sum, &r.values[n], largest, sum, value);
    }
    r.largest = all_largest;
    r.sum = all_sum;
}

template <int KV, int D>
KDEV void results_write(const results<D> &r, const attention_args &a, const job<KV> &j)
{
    uint32_t query = threadIdx.x / LANES_OF_ROW, lane = threadIdx.x % LANES_OF_ROW;
    bool is_whole = j.item.partial == ATTENTION_WHOLE;
    float *to;

    if (query >= j.item.n_queries)
        return;
    if (is_whole)
        to = a.out + (j.item.first_row + row_of(a, j.item, query)) * a.out_stride +
             column_of(a, j.item, query);
    else
        to = partial_at(a, j.item.partial + query) + ATTENTION_SUMS;
    if (!is_whole && lane == 0) {
        to[-ATTENTION_SUMS] = r.largest;
        to[1 - ATTENTION_SUMS] = r.sum;
    }
    KUNROLL
    for (int n = 0; n < D / LANES_OF_ROW; n++)
        if (lane + LANES_OF_ROW * n < a.head_dim)
            to[lane + LANES_OF_ROW * n] = is_whole ? r.values[n] / r.sum : r.values[n];
}

template <int KV> KDEV void job_begin(job<KV> &j, const attention_args &a, uint32_t n)
{
    j.item = plan_list<attention_item>(a.plan, a.plan->items_offset)[n];
    j.head = kv_head_of(a, j.item.pages, blockIdx.y);
    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t query = k_lane() / 4 + half * 8;
        j.last[half] = j.item.position + row_of(a, j.item, query < j.item.n_queries ? query : 0);
    }
}

template <int KV, int D>
KDEV void attend_item(const attention_args &a, job<KV> &j, queries<D> &q, warp_sums<D> &sums)
{
    uint32_t end = j.item.position + row_of(a, j.item, j.item.n_queries - 1) + 1;
    uint32_t first = first_seen(j.item.position + row_of(a, j.item, 0), j.span);
    uint32_t split = first / ATTENTION_SPLIT_TOKENS;
    results<D> r;

    split = split < j.item.split_begin ? j.item.split_begin : split;
    if (split >= j.item.split_end || split * ATTENTION_SPLIT_TOKENS >= end)
        return; /* the window hides it: nobody reads the partial sums */
    results_begin(r);
    queries_load(q, a, j);
    k_sync();
    for (; split < j.item.split_end && split * ATTENTION_SPLIT_TOKENS < end; split++) {
        uint32_t begin = split * ATTENTION_SPLIT_TOKENS, split_end = begin + ATTENTION_SPLIT_TOKENS;
        j.begin = first > begin ? first : begin;
        j.end = end < split_end ? end : split_end;
        attend_split(sums, q, a, j);
        k_sync();
        results_add(r, sums);
        k_sync();
    }
    results_write(r, a, j);
}

template <int KV, int D> KDEV void attend(const attention_args &a)
{
    KSHARED(queries<D>, q, [1]);
    KSHARED(warp_sums<D>, sums, [1]);
    job<KV> j;

    j.factors = score_factors_of(a);
    j.span = span_of(a);
    for (uint32_t n = blockIdx.x; n < a.plan->n_items; n += gridDim.x) {
        job_begin(j, a, n);
        attend_item(a, j, q[0], sums[0]);
    }
}

/* attention_group_KV_dD: heads of at most D elements, a multiple of 8. */
#define GROUP(name, KV, D)                                                                         \
    KERNEL_BLOCKS(attention_group_##name##_d##D, struct attention_args, ATTENTION_DECODE_THREADS,  \
                  D == 64 ? 3 : 2)                                                                 \
    {                                                                                              \
        attend<KV, D>(a);                                                                          \
    }

GROUP(f16, KV_F16, 64)
GROUP(f16, KV_F16, 128)
GROUP(i8, KV_I8, 64)
GROUP(i8, KV_I8, 128)
GROUP(e4m3, KV_E4M3, 64)
GROUP(e4m3, KV_E4M3, 128)
