/* attention_kernels.h - attention of some query rows over one split of positions, once over a vector `vf`.
 *
 * Included by the units of the vector tiers as vector_kernels.h is.
 *
 * Positions are worked through in spans of SPAN, counted from 0, each by all tiles of rows, so that K and V come from memory
 * once.  A span is: scores, a vector of positions at a time, K lying in the page as [head_dim][tokens];
 * the online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867); weighted values, a vector of a
 * head's elements at a time.  Both products are an outer product of some numbers of each row with some
 * vectors, held in registers.
 *
 * Bits.  The score of a row and a position is one chain of FMAs along head_dim, in one lane.  Largest and
 * sum are taken over vectors that begin at the span's start, what a row does not see counting as
 * exp(-infinity) = 0; a lane's sum goes through all spans of the split, then the lanes' are added.  An element
 * of the values is one chain along the positions the row sees.  So nothing depends on which rows share a
 * tile. */
#ifndef VF_LANES
#error "define the vector first"
#endif

#include "gpu-worker/ops/attention_fetch.h"
#include "gpu-worker/ops/vector_kernels.h"

static_assert(ATTENTION_SPLIT % ATTENTION_SPAN == 0, "a split begins with a span");

enum {
    SPAN = ATTENTION_SPAN,
    SPAN_VECTORS = SPAN, /* at most: pages of one token */
    SCORES = SPAN + VF_LANES,
    ROWS_MAX = 6,                           /* of a tile */
    Q_STRIDE = ATTENTION_HEAD_DIM_MAX + 16, /* at a power of two rows would share a cache's set */
    SHRINKS = (ROWS_MAX + VF_LANES - 1) / VF_LANES * VF_LANES,
    VECTORS_MAX = 8,
};

/* ---- where K and V of a span lie ---- */

struct span_vector {
    const char *k; /* its first token's element 0 */
    uint32_t i, n; /* positions begin + i .. begin + i + n - 1; n < VF_LANES: no more may be read */
};

struct span {
    uint32_t begin, end; /* positions */
    uint32_t n_vectors;
    struct span_vector vectors[SPAN_VECTORS];
    const char *v[SPAN];                      /* element 0 of each position's V */
    float k_scales[SCORES], v_scales[SCORES]; /* int8 */
};

INLINE size_t kv_size(const enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 4 : dtype == DTYPE_F16 ? 2 : 1;
}

/* Tokens t .. end - 1 of a page, which are positions begin + i and on. */
INLINE void add_page(struct span *s, const struct attention_job *j, const enum dtype dtype,
                     const char *page, uint32_t t, uint32_t end, uint32_t i)
{
    const char *k = page + j->k_offset, *v = page + j->v_offset;
    size_t codes = dtype == DTYPE_I8 ? j->page_tokens * sizeof(float) : 0;

    for (uint32_t at = t; at < end; at++) {
        s->v[i + at - t] = v + codes + (size_t)at * j->head_dim * kv_size(dtype);
        if (dtype == DTYPE_I8) {
            s->k_scales[i + at - t] = ((const float *)k)[at];
            s->v_scales[i + at - t] = ((const float *)v)[at];
        }
    }
    for (; t < end; t += VF_LANES, i += VF_LANES) {
        uint32_t left = j->page_tokens - t;
        s->vectors[s->n_vectors++] = (struct span_vector){ k + codes + t * kv_size(dtype), i,
                                                           left < VF_LANES ? left : VF_LANES };
    }
}

INLINE void span_find(struct span *s, const struct attention_job *j, const enum dtype dtype,
                      uint32_t begin, uint32_t end)
{
    s->begin = begin;
    s->end = end;
    s->n_vectors = 0;
    for (uint32_t at = begin; at < end;) {
        uint32_t t = at % j->page_tokens, left = end - at;
        uint32_t page_end = left < j->page_tokens - t ? t + left : j->page_tokens;
        add_page(s, j, dtype, j->pages + j->page_table[at / j->page_tokens] * j->page_bytes, t,
                 page_end, at - begin);
        at += page_end - t;
    }
}

/* ---- outer products ---- */

/* Vectors beside R rows that registers hold. */
INLINE int vectors_beside(const int R)
{
    return VF_LANES == 16 ? 4 : R == 1 ? 8 : R <= 3 ? 4 : 2;
}

INLINE vf kv_load(const enum dtype dtype, const char *p)
{
    if (dtype == DTYPE_F32)
        return vf_load((const float *)p);
    if (dtype == DTYPE_F16)
        return vf_load_f16((const uint16_t *)p);
    return vf_load_i8((const int8_t *)p);
}

INLINE vf kv_load_part(const enum dtype dtype, const char *p, uint32_t n)
{
    if (dtype == DTYPE_F32)
        return vf_load_part((const float *)p, n);
    if (dtype == DTYPE_F16)
        return vf_load_f16_part((const uint16_t *)p, n);
    return vf_load_i8_part((const int8_t *)p, n);
}

/* acc[r][v] += x[r * stride] * vector v at p[v] + offset */
INLINE void add_outer(const enum dtype dtype, const int R, const int V,
                      vf acc[ROWS_MAX][VECTORS_MAX], const float *x, size_t stride,
                      const char *const *p, size_t offset)
{
    vf held[VECTORS_MAX];

    if (R <= 3 && VF_LANES == 8) { /* what is fewer stays in registers */
#pragma GCC unroll 3
        for (int r = 0; r < R; r++)
            held[r] = vf_set1(x[r * stride]);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            vf kv = kv_load(dtype, p[v] + offset);
#pragma GCC unroll 3
            for (int r = 0; r < R; r++)
                vf_fma_into(&acc[r][v], kv, held[r]);
        }
        return;
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        held[v] = kv_load(dtype, p[v] + offset);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        vf xs = vf_set1(x[r * stride]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vf_fma_into(&acc[r][v], held[v], xs);
    }
}

struct scores_job {
    const float *q; /* [R][Q_STRIDE], scaled */
    const struct span *span;
    uint32_t n_vectors; /* the first ones of the span */
    uint32_t head_dim, page_tokens;
    float *scores; /* [R][SCORES] */
};

/* One vector that ends with its page. */
INLINE void score_part(const struct scores_job *j, const enum dtype dtype, const int R,
                       const struct span_vector *v)
{
    for (int r = 0; r < R; r++) {
        vf acc = vf_set1(0);
        for (uint32_t d = 0; d < j->head_dim; d++)
            acc = vf_fma(
                kv_load_part(dtype, v->k + (size_t)d * j->page_tokens * kv_size(dtype), v->n),
                vf_set1(j->q[r * Q_STRIDE + d]), acc);
        vf_store(j->scores + r * SCORES + v->i, acc);
    }
}

/* V whole vectors; the last one of the list again where it has fewer. */
INLINE void score_group(const struct scores_job *j, const enum dtype dtype, const int R,
                        const int V, const struct span_vector *const *vectors)
{
    const size_t step = j->page_tokens * kv_size(dtype);
    const char *p[VECTORS_MAX];
    vf acc[ROWS_MAX][VECTORS_MAX];

#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
        p[v] = vectors[v]->k;
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            acc[r][v] = vf_set1(0);
    for (uint32_t d = 0; d < j->head_dim; d++)
        add_outer(dtype, R, V, acc, j->q + d, Q_STRIDE, p, d * step);
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
            vf_store(j->scores + r * SCORES + vectors[v]->i, acc[r][v]);
}

INLINE void score_span(const struct scores_job *j, const enum dtype dtype, const int R)
{
    const int V = vectors_beside(R);
    const struct span_vector *group[VECTORS_MAX];
    int n = 0;

    for (uint32_t i = 0; i < j->n_vectors; i++) {
        const struct span_vector *v = &j->span->vectors[i];
        if (v->n == VF_LANES)
            group[n++] = v;
        if (n > 0 && (n == V || v->n < VF_LANES || i + 1 == j->n_vectors)) {
            for (; n < V; n++)
                group[n] = group[n - 1];
            score_group(j, dtype, R, V, group);
            n = 0;
        }
        if (v->n < VF_LANES)
            score_part(j, dtype, R, v);
    }
}

/* out[r] = out[r] * shrink[r] + sum of weights[r][i] * v[i], i in begin .. end - 1 */
struct values_job {
    float *out; /* [R][head_dim] */
    float shrink[SHRINKS];
    const float *weights; /* [R][SCORES] */
    const char *const *v;
    uint32_t begin, end;
    uint32_t head_dim;
};

INLINE void values_vectors(const struct values_job *j, const enum dtype dtype, const int R,
                           const int V, uint32_t d)
{
    vf acc[ROWS_MAX][VECTORS_MAX];

#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            acc[r][v] = vf_mul(vf_load(j->out + (size_t)r * j->head_dim + d + v * VF_LANES),
                               vf_set1(j->shrink[r]));
    for (uint32_t i = j->begin; i < j->end; i++) {
        const char *p[VECTORS_MAX];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            p[v] = j->v[i] + (d + v * VF_LANES) * kv_size(dtype);
        add_outer(dtype, R, V, acc, j->weights + i, SCORES, p, 0);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            vf_store(j->out + (size_t)r * j->head_dim + d + v * VF_LANES, acc[r][v]);
}

INLINE void values_rest(const struct values_job *j, const enum dtype dtype, const int R, uint32_t d)
{
    uint32_t n = j->head_dim - d;

    for (int r = 0; r < R; r++) {
        float *out = j->out + (size_t)r * j->head_dim + d;
        vf acc = vf_mul(vf_load_part(out, n), vf_set1(j->shrink[r]));
        for (uint32_t i = j->begin; i < j->end; i++)
            acc = vf_fma(kv_load_part(dtype, j->v[i] + d * kv_size(dtype), n),
                         vf_set1(j->weights[r * SCORES + i]), acc);
        vf_store_part(out, acc, n);
    }
}

INLINE void values_span(const struct values_job *j, const enum dtype dtype, const int R)
{
    const int V = vectors_beside(R);
    uint32_t d = 0;

    for (; d + V * VF_LANES <= j->head_dim; d += V * VF_LANES)
        values_vectors(j, dtype, R, V, d);
    for (; d + 2 * VF_LANES <= j->head_dim; d += 2 * VF_LANES)
        values_vectors(j, dtype, R, 2, d);
    for (; d + VF_LANES <= j->head_dim; d += VF_LANES)
        values_vectors(j, dtype, R, 1, d);
    if (d < j->head_dim)
        values_rest(j, dtype, R, d);
}

/* As in panel_kernels.h, a function for each number of rows. */
struct attention_functions {
    void (*scores)(const struct scores_job *j);
    void (*values)(const struct values_job *j);
};

#define ATTENTION_FUNCTIONS(name, dtype, R)                                                        \
    static __attribute__((noinline)) void name##_scores_##R(const struct scores_job *j)            \
    {                                                                                              \
        score_span(j, dtype, R);                                                                   \
    }                                                                                              \
    static __attribute__((noinline)) void name##_values_##R(const struct values_job *j)            \
    {                                                                                              \
        values_span(j, dtype, R);                                                                  \
    }

#define ATTENTION_ENTRY(name, R) [R] = { name##_scores_##R, name##_values_##R }

#define ATTENTION_TABLE(name, dtype)                                                               \
    ATTENTION_FUNCTIONS(name, dtype, 1)                                                            \
    ATTENTION_FUNCTIONS(name, dtype, 2)                                                            \
    ATTENTION_FUNCTIONS(name, dtype, 3)                                                            \
    ATTENTION_FUNCTIONS(name, dtype, 4)                                                            \
    ATTENTION_FUNCTIONS(name, dtype, 5)                                                            \
    ATTENTION_FUNCTIONS(name, dtype, 6)                                                            \
    static const struct attention_functions name[ROWS_MAX + 1] = {                                 \
        ATTENTION_ENTRY(name, 1), ATTENTION_ENTRY(name, 2), ATTENTION_ENTRY(name, 3),              \
        ATTENTION_ENTRY(name, 4), ATTENTION_ENTRY(name, 5), ATTENTION_ENTRY(name, 6),              \
    };

ATTENTION_TABLE(attention_f32, DTYPE_F32)
ATTENTION_TABLE(attention_f16, DTYPE_F16)
ATTENTION_TABLE(attention_i8, DTYPE_I8)

/* ---- a tile of rows ---- */

/* Rows `first` .. first + n - 1 of the job. */
struct row_tile {
    const struct attention_job *j;
    const struct attention_functions *functions; /* by rows */
    uint32_t first, n;
    const float *q; /* [n][Q_STRIDE], scaled */
    float *largest; /* of each row of the job */
    float *totals;  /* sums of each row's exponentials, [row][VF_LANES] */
    float *out;
};

/* What row r of the tile sees of a span, counted from the span's beginning; begin >= end: nothing. */
struct seen {
    uint32_t begin, end;
};

INLINE struct seen row_sees(const struct row_tile *t, const struct span *s, uint32_t r)
{
    uint32_t first = attention_first(t->j, t->first + r);
    uint32_t end = attention_last(t->j, t->first + r) + 1;

    if (first >= s->end || end <= s->begin)
        return (struct seen){ 0, 0 };
    return (struct seen){ first > s->begin ? first - s->begin : 0,
                          end < s->end ? end - s->begin : s->end - s->begin };
}

/* softcap * tanh(x / softcap), tanh(z) = 1 - 2 / (exp(2 z) + 1) */
INLINE vf capped(vf x, float softcap)
{
    vf e = vf_exp(vf_mul(x, vf_set1(2 / softcap)));
    vf t = vf_sub(vf_set1(1), vf_div(vf_set1(2), vf_add(e, vf_set1(1))));

    return vf_mul(t, vf_set1(softcap));
}

/* The largest score of a row so far.  What the row does not see becomes -INFINITY, up to the next whole vector. */
INLINE float largest_seen(float *p, struct seen seen, float before)
{
    uint32_t end = (seen.end + VF_LANES - 1) / VF_LANES * VF_LANES;
    vf largest = vf_set1(before);

    for (uint32_t i = 0; i < seen.begin; i++)
        p[i] = -INFINITY;
    for (uint32_t i = seen.end; i < end; i++)
        p[i] = -INFINITY;
    for (uint32_t i = 0; i < end; i += VF_LANES)
        largest = vf_max(largest, vf_load(p + i));
    return vf_hmax(largest);
}

/* p[i] = exp(p[i] - largest); total[lane] = total[lane] * shrink + the sum of these. */
INLINE void exponentials(float *p, uint32_t end, float largest, float *total, float shrink)
{
    vf sum = vf_mul(vf_load(total), vf_set1(shrink));

    for (uint32_t i = 0; i < end; i += VF_LANES) {
        vf w = vf_exp(vf_sub(vf_load(p + i), vf_set1(largest)));
        vf_store(p + i, w);
        sum = vf_add(sum, w);
    }
    vf_store(total, sum);
}

/* A tile's scores become exponentials, 0 where a row does not see; shrink[r] is what older ones shrink by.  Each
 * pass is over all rows, so that the chains of one (the largest of a vector, exp) do not wait for another's. */
INLINE void soften(const struct row_tile *t, const struct seen *seen, float scores[][SCORES],
                   float *shrink)
{
    for (uint32_t r = 0; r < SHRINKS; r++)
        shrink[r] = 0;
    for (uint32_t r = 0; r < t->n; r++) {
        float *largest = &t->largest[t->first + r], before = *largest;
        if (seen[r].begin >= seen[r].end)
            continue;
        *largest = largest_seen(scores[r], seen[r], before);
        shrink[r] = before - *largest;
    }
    for (uint32_t r = 0; r < SHRINKS; r += VF_LANES)
        vf_store(shrink + r, vf_exp(vf_load(shrink + r)));
    for (uint32_t r = 0; r < t->n; r++)
        if (seen[r].begin < seen[r].end)
            exponentials(scores[r], seen[r].end, t->largest[t->first + r],
                         t->totals + (size_t)(t->first + r) * VF_LANES, shrink[r]);
}

/* The scales of int8, and the cap. */
INLINE void finish_scores(const struct row_tile *t, const struct span *s, uint32_t n,
                          float scores[][SCORES])
{
    if (t->j->dtype != DTYPE_I8 && t->j->softcap == 0)
        return;
    for (uint32_t r = 0; r < t->n; r++)
        for (uint32_t i = 0; i < n; i += VF_LANES) {
            vf p = vf_load(scores[r] + i);
            if (t->j->dtype == DTYPE_I8)
                p = vf_mul(p, vf_load(s->k_scales + i));
            if (t->j->softcap != 0)
                p = capped(p, t->j->softcap);
            vf_store(scores[r] + i, p);
        }
}

/* One row alone: positions that its neighbours do not all see. */
static void add_values_of_row(const struct row_tile *t, struct values_job *v, uint32_t r,
                              uint32_t begin, uint32_t end)
{
    struct values_job one = *v;

    if (begin >= end)
        return;
    one.out += (size_t)r * v->head_dim;
    one.weights += r * SCORES;
    one.shrink[0] = v->shrink[r];
    one.begin = begin;
    one.end = end;
    t->functions[1].values(&one);
    v->shrink[r] = 1; /* only once */
}

static void add_values(const struct row_tile *t, struct values_job *v, const struct seen *seen)
{
    struct seen all = seen[0];

    for (uint32_t r = 1; r < t->n; r++) {
        all.begin = seen[r].begin > all.begin ? seen[r].begin : all.begin;
        all.end = seen[r].end < all.end ? seen[r].end : all.end;
    }
    if (all.begin >= all.end) {
        for (uint32_t r = 0; r < t->n; r++)
            add_values_of_row(t, v, r, seen[r].begin, seen[r].end);
        return;
    }
    for (uint32_t r = 0; r < t->n; r++)
        add_values_of_row(t, v, r, seen[r].begin, all.begin);
    v->begin = all.begin;
    v->end = all.end;
    t->functions[t->n].values(v);
    for (uint32_t r = 0; r < t->n; r++)
        v->shrink[r] = 1;
    for (uint32_t r = 0; r < t->n; r++)
        add_values_of_row(t, v, r, all.end, seen[r].end);
}

static void attend_tile(const struct row_tile *t, const struct span *s)
{
    float scores[ROWS_MAX][SCORES];
    struct scores_job k = { t->q, s, 0, t->j->head_dim, t->j->page_tokens, scores[0] };
    struct values_job v = { .out = t->out + (size_t)t->first * t->j->head_dim,
                            .weights = scores[0],
                            .v = s->v,
                            .head_dim = t->j->head_dim };
    struct seen seen[ROWS_MAX];
    uint32_t end = 0;

    for (uint32_t r = 0; r < t->n; r++) {
        seen[r] = row_sees(t, s, r);
        end = seen[r].end > end ? seen[r].end : end;
    }
    while (k.n_vectors < s->n_vectors && s->vectors[k.n_vectors].i < end)
        k.n_vectors++;
    if (k.n_vectors == 0)
        return;
    t->functions[t->n].scores(&k);
    finish_scores(t, s, end, scores);
    soften(t, seen, scores, v.shrink);
    for (uint32_t r = 0; r < t->n && t->j->dtype == DTYPE_I8; r++)
        for (uint32_t i = 0; i < end; i += VF_LANES)
            vf_store(scores[r] + i, vf_mul(vf_load(scores[r] + i), vf_load(s->v_scales + i)));
    add_values(t, &v, seen);
}

/* ---- a split ---- */

/* All queries, scaled, where vectors and broadcasts read them. */
static void gather_queries(const struct attention_job *j, float *q)
{
    for (uint32_t r = 0; r < j->n_rows; r++, q += Q_STRIDE) {
        uint32_t row = j->row_begin + r, d = 0;
        const float *from =
            j->q + row / j->group * j->q_stride + row % j->group * (size_t)j->head_dim;
        for (; d + VF_LANES <= j->head_dim; d += VF_LANES)
            vf_store(q + d, vf_mul(vf_load(from + d), vf_set1(j->scale)));
        for (; d < j->head_dim; d++)
            q[d] = from[d] * j->scale;
    }
}

INLINE void attend_split(const struct attention_job *j, const enum dtype dtype,
                         const struct attention_functions *functions, struct attention_sum *sums,
                         float *out)
{
    float q[ATTENTION_ROWS * Q_STRIDE], totals[ATTENTION_ROWS * VF_LANES];
    float largest[ATTENTION_ROWS];
    struct tiles tiles = tiles_of(j->n_rows, ROWS_MAX);
    struct span span;

    memset(out, 0, (size_t)j->n_rows * j->head_dim * sizeof *out);
    memset(totals, 0, (size_t)j->n_rows * VF_LANES * sizeof *totals);
    for (uint32_t i = 0; i < j->n_rows; i++)
        largest[i] = -INFINITY;
    gather_queries(j, q);
    for (uint32_t at = j->begin / SPAN * SPAN; at < j->end; at = span.end) {
        span_find(&span, j, dtype, at, at + SPAN < j->end ? at + SPAN : j->end);
        if (span.end < j->end)
            attention_fetch_span(j, span.end);
        for (uint32_t i = 0; i < tiles.n; i++)
            attend_tile(&(struct row_tile){ .j = j,
                                            .functions = functions,
                                            .first = tile_first(tiles, i),
                                            .n = tile_width(tiles, i),
                                            .q = q + (size_t)tile_first(tiles, i) * Q_STRIDE,
                                            .largest = largest,
                                            .totals = totals,
                                            .out = out },
                        &span);
    }
    for (uint32_t i = 0; i < j->n_rows; i++)
        sums[i] =
            (struct attention_sum){ largest[i], vf_hsum(vf_load(totals + (size_t)i * VF_LANES)) };
}

/* ---- splits put together ---- */

static void vector_attention_merge(struct attention_sum *sum, float *out,
                                   const struct attention_sum *more, const float *more_out,
                                   uint32_t head_dim)
{
    struct attention_factors f = attention_merge_sums(sum, more);
    uint32_t d = 0;

    if (f.more == 0)
        return;
    for (; d + VF_LANES <= head_dim; d += VF_LANES)
        vf_store(out + d, vf_add(vf_mul(vf_load(out + d), vf_set1(f.old)),
                                 vf_mul(vf_load(more_out + d), vf_set1(f.more))));
    for (; d < head_dim; d++)
        out[d] = out[d] * f.old + more_out[d] * f.more;
}

static void vector_attention_finish(float *out, const float *values, float sum, uint32_t head_dim)
{
    uint32_t d = 0;

    for (; d + VF_LANES <= head_dim; d += VF_LANES)
        vf_store(out + d, vf_div(vf_load(values + d), vf_set1(sum)));
    for (; d < head_dim; d++)
        out[d] = values[d] / sum;
}

static void vector_attention(const struct attention_job *j, struct attention_sum *sums, float *out)
{
    assert(j->n_rows <= ATTENTION_ROWS && j->head_dim <= ATTENTION_HEAD_DIM_MAX);
    if (j->dtype == DTYPE_F32)
        attend_split(j, DTYPE_F32, attention_f32, sums, out);
    else if (j->dtype == DTYPE_F16)
        attend_split(j, DTYPE_F16, attention_f16, sums, out);
    else
        attend_split(j, DTYPE_I8, attention_i8, sums, out);
}
