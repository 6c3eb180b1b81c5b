/* attention_decode.cu - attention of few rows over long KV: decode steps, drafts, and whatever the tensor cores of
 * attention_prefill.cu are not for.
 *
 * Each byte of KV is used for a handful of products, so memory bounds it, and all the kernel does is keep loads in
 * flight.  A block has an item: up to QUERIES queries of a KV head and some splits.  LANES lanes read a
 * token's row together, 8 elements each (16 bytes of f16), so a warp reads 32 / LANES tokens at once; UNROLL of
 * these make a step, K and V of it being asked for before the first is used.  Lanes of one token are a
 * *stream*: it has an online softmax of its own (Milakov & Gimelshein 2018, arXiv:1805.02867) over every so
 * many tokens of the split.  The streams of a warp, then the warps, then the splits are folded in order.
 * attention_decode_any does the same with single elements, for head sizes and pages that loads of eight do not
 * fit; it goes through an item's queries one by one.
 *
 * Bits.  Which stream a position belongs to depends on its distance from the split's begin only.  What a query does
 * not see counts as exp2(-infinity) = 0 and changes no bit.  Products that are added are FMAs by name, so that
 * all variants round alike.
 *
 * Grid: (items, KV heads).  Bytes: K and V of an item's positions.
 *
 * attention_combine: grid (combines, KV heads); a thread folds the splits of one element. */
#include "gpu-worker/cuda/kernels/attention_device.h"

/* ---- where things are ---- */

/* How a warp lies over tokens.  ANY: elements lane, lane + 32, ... of one token. */
template <int LANES_, bool ANY_> struct layout {
    static constexpr bool ANY = ANY_;
    static constexpr int LANES = LANES_;
    static constexpr int ELEMENTS = ANY ? ATTENTION_DECODE_DIM_MAX / 32 : 8;
    static constexpr int DIMS = LANES * ELEMENTS; /* of a head, at most */
    static constexpr int TOKENS = 32 / LANES;     /* of a warp at once */
    static constexpr int UNROLL = ANY ? 1 : 4;
    static constexpr int WARPS = ATTENTION_DECODE_THREADS / 32;
    static constexpr int STEP = WARPS * UNROLL * TOKENS; /* positions of a block */
    static_assert(ATTENTION_SPLIT_TOKENS % STEP == 0, "a split is whole steps");
};

/* Where element e of a lane is in its head. */
template <class L> KDEV uint32_t dim_of(uint32_t e)
{
    return L::ANY ? k_lane() + 32 * e : k_lane() % L::LANES * L::ELEMENTS + e;
}

/* Some queries of an item. */
template <int KV, int QUERIES> struct job {
    kv_head head;
    attention_item item;
    score_factors factors;
    uint32_t span;
    uint32_t n_queries, first_query; /* of the item */
    uint32_t last[QUERIES];          /* position of each query */
    uint32_t begin, end; /* positions that any of them sees, of the split that is worked on */
};

template <int KV, int QUERIES>
KDEV void job_begin(job<KV, QUERIES> &j, const attention_args &a, uint32_t first_query)
{
    uint32_t left = j.item.n_queries - first_query;

    j.first_query = first_query;
    j.n_queries = left < QUERIES ? left : QUERIES;
    KUNROLL
    for (uint32_t i = 0; i < QUERIES; i++)
        j.last[i] = j.item.position + row_of(a, j.item, first_query + (i < j.n_queries ? i : 0));
}

/* Its queries, zeros up to DIMS and for those that are not. */
template <class L, int KV, int QUERIES>
KDEV void load_queries(float q[QUERIES][L::DIMS], const attention_args &a,
                       const job<KV, QUERIES> &j)
{
    for (uint32_t at = threadIdx.x; at < QUERIES * L::DIMS; at += ATTENTION_DECODE_THREADS) {
        uint32_t i = at / L::DIMS, d = at % L::DIMS, query = j.first_query + i;
        bool is_there = i < j.n_queries && d < a.head_dim;
        q[i][d] = is_there ? a.q[(j.item.first_row + row_of(a, j.item, query)) * a.q_stride +
                                 column_of(a, j.item, query) + d]
                           : 0;
    }
}

/* ---- a step of a warp ---- */

/* Elements of a row that a lane holds, before they are unpacked. */
template <class L, int KV> struct part {
    kv8<KV> eight;
};
template <int KV> struct part<layout<32, true>, KV> {
    float x[layout<32, true>::ELEMENTS];
};

template <class L, int KV>
KDEV part<L, KV> part_load(const kv_head &head, const char *row, uint32_t head_dim, bool take)
{
    part<L, KV> r = {};

    if constexpr (L::ANY) {
        KUNROLL
        for (uint32_t e = 0; e < L::ELEMENTS; e++)
            if (take && dim_of<L>(e) < head_dim)
                r.x[e] = kv_element(head.format, row, dim_of<L>(e));
    } else if (take && dim_of<L>(0) < head_dim) {
        constexpr uint32_t ELEMENT = 4 * kv8<KV>::WORDS / 8;
        r.eight = kv8_load<KV>(row + dim_of<L>(0) * ELEMENT);
    }
    return r;
}

template <class L, int KV> KDEV void part_floats(float x[L::ELEMENTS], const part<L, KV> &r)
{
    if constexpr (L::ANY) {
        KUNROLL
        for (int e = 0; e < L::ELEMENTS; e++)
            x[e] = r.x[e];
    } else {
        kv8_floats<KV>(x, r.eight);
    }
}

/* K and V of the tokens that a lane has in a step, and what they are multiplied by. */
template <class L, int KV> struct step {
    part<L, KV> k[L::UNROLL], v[L::UNROLL];
    float k_scale[L::UNROLL], v_scale[L::UNROLL];
};

template <class L, int KV, int QUERIES>
KDEV void step_load(step<L, KV> &s, const attention_args &a, const job<KV, QUERIES> &j,
                    uint32_t position)
{
    KUNROLL
    for (uint32_t u = 0; u < L::UNROLL; u++) {
        uint32_t at = position + u * L::TOKENS;
        bool take = at >= j.begin && at < j.end;
        kv_row row = kv_find<KV>(a, j.head, take ? at : j.begin);
        s.k_scale[u] = kv_scale<KV>(j.head, row.k_scale, a.k_scale);
        s.v_scale[u] = kv_scale<KV>(j.head, row.k_scale + j.head.k_to_v, a.v_scale);
        s.k[u] = part_load<L, KV>(j.head, row.k, a.head_dim, take);
        s.v[u] = part_load<L, KV>(j.head, row.k + j.head.k_to_v, a.head_dim, take);
    }
}

/* Scores of all queries and the lane's tokens, the same in all lanes of a token. */
template <class L, int KV, int QUERIES>
KDEV void step_scores(float scores[QUERIES][L::UNROLL], const float q[QUERIES][L::DIMS],
                      const step<L, KV> &s, const job<KV, QUERIES> &j, uint32_t position)
{
    KUNROLL
    for (uint32_t u = 0; u < L::UNROLL; u++) {
        float k[L::ELEMENTS];
        part_floats<L, KV>(k, s.k[u]);
        KUNROLL
        for (uint32_t i = 0; i < QUERIES; i++) {
            float dot = 0;
            KUNROLL
            for (uint32_t e = 0; e < L::ELEMENTS; e++)
                dot = k_fma(q[i][dim_of<L>(e)], k[e], dot);
            KUNROLL
            for (uint32_t lanes = L::LANES / 2; lanes; lanes >>= 1)
                dot += k_shfl_xor(dot, lanes);
            bool is_seen = j.last[i] - (position + u * L::TOKENS) < j.span;
            scores[i][u] = is_seen ? score_of(j.factors, dot * s.k_scale[u]) : -INFINITY;
        }
    }
}

/* ---- a stream ---- */

template <class L, int QUERIES> struct stream {
    float largest[QUERIES], sum[QUERIES];
    float values[QUERIES][L::ELEMENTS];
};

template <class L, int QUERIES> KDEV void stream_begin(stream<L, QUERIES> &t)
{
    KUNROLL
    for (int i = 0; i < QUERIES; i++) {
        t.largest[i] = -INFINITY;
        t.sum[i] = 0;
        KUNROLL
        for (int e = 0; e < L::ELEMENTS; e++)
            t.values[i][e] = 0;
    }
}

/* The scores become weights, and what the stream has shrinks to the new largest score. */
template <class L, int QUERIES>
KDEV void stream_soften(stream<L, QUERIES> &t, float scores[QUERIES][L::UNROLL])
{
    KUNROLL
    for (int i = 0; i < QUERIES; i++) {
        float largest = t.largest[i], base, shrink, total = 0;
        KUNROLL
        for (int u = 0; u < L::UNROLL; u++)
            largest = k_max(largest, scores[i][u]);
        base = largest == -INFINITY ? 0 : largest;
        shrink = k_exp2(t.largest[i] - base);
        KUNROLL
        for (int u = 0; u < L::UNROLL; u++) {
            scores[i][u] = k_exp2(scores[i][u] - base);
            total += scores[i][u];
        }
        t.largest[i] = largest;
        t.sum[i] = k_fma(t.sum[i], shrink, total);
        KUNROLL
        for (int e = 0; e < L::ELEMENTS; e++)
            t.values[i][e] *= shrink;
    }
}

template <class L, int KV, int QUERIES>
KDEV void stream_add(stream<L, QUERIES> &t, const float weights[QUERIES][L::UNROLL],
                     const step<L, KV> &s)
{
    KUNROLL
    for (int u = 0; u < L::UNROLL; u++) {
        float v[L::ELEMENTS];
        part_floats<L, KV>(v, s.v[u]);
        KUNROLL
        for (int i = 0; i < QUERIES; i++) {
            float weight = weights[i][u] * s.v_scale[u];
            KUNROLL
            for (int e = 0; e < L::ELEMENTS; e++)
                t.values[i][e] = k_fma(weight, v[e], t.values[i][e]);
        }
    }
}

/* The streams of a warp; the first one has the result. */
template <class L, int QUERIES> KDEV void stream_fold_warp(stream<L, QUERIES> &t)
{
    KUNROLL
    for (uint32_t lanes = L::LANES; lanes < 32; lanes <<= 1)
        KUNROLL
    for (int i = 0; i < QUERIES; i++) {
        float largest = k_shfl_xor(t.largest[i], lanes), sum = k_shfl_xor(t.sum[i], lanes);
        float both = k_max(t.largest[i], largest), base = both == -INFINITY ? 0 : both;
        float old = k_exp2(t.largest[i] - base), more = k_exp2(largest - base);
        t.largest[i] = both;
        t.sum[i] = k_fma(t.sum[i], old, sum * more);
        KUNROLL
        for (int e = 0; e < L::ELEMENTS; e++) {
            float value = k_shfl_xor(t.values[i][e], lanes);
            t.values[i][e] = k_fma(t.values[i][e], old, value * more);
        }
    }
}

/* ---- a split ---- */

/* What the warps give each other. */
template <class L, int QUERIES> struct warp_sums {
    float largest[L::WARPS][QUERIES], sum[L::WARPS][QUERIES];
    float values[L::WARPS][QUERIES][L::DIMS];
};

template <class L, int KV, int QUERIES>
KDEV void attend_split(warp_sums<L, QUERIES> &sums, const float q[QUERIES][L::DIMS],
                       const attention_args &a, const job<KV, QUERIES> &j)
{
    uint32_t begin = j.begin / L::STEP * L::STEP; /* a split is whole steps */
    stream<L, QUERIES> t;

    stream_begin(t);
    begin += k_warp() * (L::UNROLL * L::TOKENS);
    for (; begin < j.end; begin += L::STEP) {
        uint32_t position = begin + k_lane() / L::LANES;
        float scores[QUERIES][L::UNROLL];
        step<L, KV> s;
        step_load(s, a, j, position);
        step_scores<L, KV, QUERIES>(scores, q, s, j, position);
        stream_soften(t, scores);
        stream_add(t, scores, s);
    }
    stream_fold_warp(t);
    if (k_lane() >= L::LANES)
        return;
    KUNROLL
    for (uint32_t i = 0; i < QUERIES; i++) {
        if (k_lane() == 0) {
            sums.largest[k_warp()][i] = t.largest[i];
            sums.sum[k_warp()][i] = t.sum[i];
        }
        KUNROLL
        for (uint32_t e = 0; e < L::ELEMENTS; e++)
            sums.values[k_warp()][i][dim_of<L>(e)] = t.values[i][e];
    }
}

/* ---- an item ---- */

/* Elements of results, element n of a thread being number threadIdx.x + n * threads of [QUERIES][DIMS]. */
template <class L, int QUERIES> struct results {
    static constexpr int N =
        (QUERIES * L::DIMS + ATTENTION_DECODE_THREADS - 1) / ATTENTION_DECODE_THREADS;
    float largest[N], sum[N], value[N];
};

template <class L, int QUERIES> KDEV void results_begin(results<L, QUERIES> &r)
{
    KUNROLL
    for (int n = 0; n < results<L, QUERIES>::N; n++) {
        r.largest[n] = -INFINITY;
        r.sum[n] = r.value[n] = 0;
    }
}

/* The warps of a split, in order; then that to what the splits before have given. */
template <class L, int QUERIES>
KDEV void results_add(results<L, QUERIES> &r, const warp_sums<L, QUERIES> &sums)
{
    KUNROLL
    for (int n = 0; n < results<L, QUERIES>::N; n++) {
        uint32_t at = threadIdx.x + n * ATTENTION_DECODE_THREADS, i = at / L::DIMS;
        if (i >= QUERIES)
            continue;
        float largest = sums.largest[0][i], sum = sums.sum[0][i];
        float value = sums.values[0][i][at % L::DIMS];
        KUNROLL
        for (int w = 1; w < L::WARPS; w++)
            fold(&largest, &sum, &value, sums.largest[w][i], sums.sum[w][i],
                 sums.values[w][i][at % L::DIMS]);
        fold(&r.largest[n], &r.sum[n], &r.value[n], largest, sum, value);
    }
}

template <class L, int KV, int QUERIES>
KDEV void results_write(const results<L, QUERIES> &r, const attention_args &a,
                        const job<KV, QUERIES> &j)
{
    KUNROLL
    for (int n = 0; n < results<L, QUERIES>::N; n++) {
        uint32_t at = threadIdx.x + n * ATTENTION_DECODE_THREADS;
        uint32_t i = at / L::DIMS, d = at % L::DIMS, query = j.first_query + i;
        if (i >= j.n_queries || d >= a.head_dim)
            continue;
        if (j.item.partial == ATTENTION_WHOLE) {
            uint32_t row = j.item.first_row + row_of(a, j.item, query);
            a.out[row * a.out_stride + column_of(a, j.item, query) + d] = r.value[n] / r.sum[n];
            continue;
        }
        float *partial = partial_at(a, j.item.partial + query);
        if (d == 0) {
            partial[0] = r.largest[n];
            partial[1] = r.sum[n];
        }
        partial[ATTENTION_SUMS + d] = r.value[n];
    }
}

/* The item's queries that j has. */
template <class L, int KV, int QUERIES>
KDEV void attend_queries(const attention_args &a, job<KV, QUERIES> &j, float q[QUERIES][L::DIMS],
                         warp_sums<L, QUERIES> &sums)
{
    uint32_t first = first_seen(j.last[0], j.span); /* of the first query, and of the last one: */
    uint32_t end = j.item.position + row_of(a, j.item, j.first_query + j.n_queries - 1) + 1;
    uint32_t split = first / ATTENTION_SPLIT_TOKENS;
    results<L, QUERIES> r;

    split = split < j.item.split_begin ? j.item.split_begin : split;
    if (split >= j.item.split_end || split * ATTENTION_SPLIT_TOKENS >= end)
        return; /* the window hides it: nobody reads the partial sums */
    results_begin(r);
    load_queries<L>(q, a, j);
    k_sync();
    for (; split < j.item.split_end && split * ATTENTION_SPLIT_TOKENS < end; split++) {
        uint32_t begin = split * ATTENTION_SPLIT_TOKENS, split_end = begin + ATTENTION_SPLIT_TOKENS;
        j.begin = first > begin ? first : begin;
        j.end = end < split_end ? end : split_end;
        attend_split<L>(sums, q, a, j);
        k_sync();
        results_add(r, sums);
        k_sync();
    }
    results_write<L>(r, a, j);
}

template <class L, int KV, int QUERIES> KDEV void attend(const attention_args &a)
{
    typedef warp_sums<L, QUERIES> sums_of_block;
    KSHARED(float, q, [QUERIES][L::DIMS]);
    KSHARED(sums_of_block, sums, [1]);
    job<KV, QUERIES> j;

    j.factors = score_factors_of(a);
    j.span = span_of(a);
    for (uint32_t n = blockIdx.x; n < a.plan->n_items; n += gridDim.x) {
        j.item = plan_list<attention_item>(a.plan, a.plan->items_offset)[n];
        j.head = kv_head_of(a, j.item.pages, blockIdx.y);
        for (uint32_t i = 0; i < j.item.n_queries; i += QUERIES) {
            job_begin(j, a, i);
            attend_queries<L>(a, j, q, sums[0]);
        }
    }
}

/* attention_decode_KV_dDIMS_qQUERIES: heads of at most DIMS elements, a multiple of 8. */
#define DECODE(name, KV, DIMS, QUERIES)                                                            \
    KERNEL_BLOCKS(attention_decode_##name##_d##DIMS##_q##QUERIES, struct attention_args,           \
                  ATTENTION_DECODE_THREADS, QUERIES == 1 ? 4 : 2)                                  \
    {                                                                                              \
        attend<layout<DIMS / 8, false>, KV, QUERIES>(a);                                           \
    }

#define DECODE_EACH(name, KV, QUERIES)                                                             \
    DECODE(name, KV, 32, QUERIES)                                                                  \
    DECODE(name, KV, 64, QUERIES)                                                                  \
    DECODE(name, KV, 128, QUERIES)                                                                 \
    DECODE(name, KV, 256, QUERIES)

DECODE_EACH(f16, KV_F16, 1)
DECODE_EACH(f16, KV_F16, 4)
DECODE_EACH(i8, KV_I8, 1)
DECODE_EACH(i8, KV_I8, 4)
DECODE_EACH(e4m3, KV_E4M3, 1)
DECODE_EACH(e4m3, KV_E4M3, 4)
DECODE_EACH(f32, KV_F32, 4)

KERNEL_BLOCKS(attention_decode_any, struct attention_args, ATTENTION_DECODE_THREADS, 3)
{
    attend<layout<32, true>, KV_ANY, 1>(a);
}

/* ---- splits put together ---- */

KDEV float combine_splits(const attention_args &a, const attention_item &item, uint32_t query,
                          uint32_t dim)
{
    uint32_t last = item.position + row_of(a, item, query);
    uint32_t split = first_seen(last, span_of(a)) / ATTENTION_SPLIT_TOKENS;
    float largest = -INFINITY, sum = 0, value = 0;

    for (; split <= last / ATTENTION_SPLIT_TOKENS; split++) {
        const float *p =
            partial_at(a, item.partial + (split - item.split_begin) * item.n_queries + query);
        fold(&largest, &sum, &value, p[0], p[1], p[ATTENTION_SUMS + dim]);
    }
    return value / sum;
}

KERNEL(attention_combine, struct attention_args, ATTENTION_COMBINE_THREADS)
{
    for (uint32_t n = blockIdx.x; n < a.plan->n_combines; n += gridDim.x) {
        const attention_item item = plan_list<attention_item>(a.plan, a.plan->combines_offset)[n];
        for (uint32_t at = threadIdx.x; at < item.n_queries * a.head_dim;
             at += ATTENTION_COMBINE_THREADS) {
            uint32_t query = at / a.head_dim, dim = at % a.head_dim;
            a.out[(item.first_row + row_of(a, item, query)) * a.out_stride +
                  column_of(a, item, query) + dim] = combine_splits(a, item, query, dim);
        }
    }
}
