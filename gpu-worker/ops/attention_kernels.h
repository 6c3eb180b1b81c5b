/* attention_kernels.h - attention of some query rows over one split of positions, once over a vector `vf`.
 *
 * Included by the units of the vector tiers as vector_kernels.h is.
 *
 * Positions are worked through in spans of SPAN, counted from 0, each by all tiles of rows, so that K and V come from memory
 * once.  A span is: scores, a vector of positions at a time; the online softmax (Milakov & Gimelshein 2018,
 * arXiv:1805.02867), with codes in attention_weights.h; weighted values, a vector of a head's elements at a time.  The
 * products are in attention_float.h and attention_codes.h, by what pages hold.
 *
 * Powers are of 2: whoever makes the job has put log2(e) into .scale and .softcap.  Each pass over scores is over all
 * rows of a tile, so that the chains of one (the largest of a vector, a power) do not wait for another's.
 *
 * Bits.  Largest and sum are taken over vectors that begin at the span's start, what a row does not see counting as
 * 2^-infinity = 0; a lane's sum goes through all spans of the split, then the lanes' are added.  The products say
 * themselves why nothing depends on which rows share a tile. */
#ifndef VF_LANES
#error "define the vector first"
#endif

#include <float.h>

#include "gpu-worker/ops/attention_fetch.h"
#include "gpu-worker/ops/vector_kernels.h"

/* What a row sees of a span, counted from the span's beginning; begin >= end: nothing. */
struct seen {
    uint32_t begin, end;
};

#include "gpu-worker/ops/attention_span.h"

#include "gpu-worker/ops/attention_codes.h"
#include "gpu-worker/ops/attention_float.h"

/* ---- a tile of rows ---- */

/* Rows `first` .. first + n - 1 of the job. */
struct row_tile {
    const struct attention_job *j;
    const struct attention_functions *functions; /* by rows */
    uint32_t first, n;
    const float *q;        /* [n][Q_STRIDE], scaled; or pairs of codes */
    const float *q_scales; /* [n] */
    float *largest;        /* of each row of the job */
    float *totals;         /* sums of each row's exponentials, [row][VF_LANES] */
    float *out;
};

INLINE struct seen row_sees(const struct row_tile *t, const struct span *s, uint32_t r)
{
    const struct attention_row *row = &t->j->rows[t->first + r];
    uint32_t first = attention_first(row, t->j->window), end = row->last + 1;

    if (s->is_whole) /* nearly always */
        return (struct seen){ 0, s->end - s->begin };
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

/* p is of positions i .. i + VF_LANES - 1: `nothing` where the row does not see. */
static __attribute__((noinline)) void hide(float *p, uint32_t i, struct seen seen, float nothing)
{
    for (uint32_t k = 0; k < VF_LANES; k++)
        if (i + k < seen.begin || i + k >= seen.end)
            p[k] = nothing;
}

/* Row r's products become scores, -INFINITY where it does not see, up to the next whole vector; returns each lane's
 * largest, `before` among them. */
INLINE vf finish_scores(float *p, float softcap, struct seen seen, float before)
{
    vf largest = vf_set1(before);
    uint32_t i = 0;

    if (softcap == 0 && seen.begin == 0) /* nearly always */
#pragma GCC unroll 2
        for (; i + VF_LANES <= seen.end; i += VF_LANES)
            largest = vf_max(largest, vf_load(p + i));
    for (; i < seen.end; i += VF_LANES) {
        vf x = vf_load(p + i);
        vf_store(p + i, softcap == 0 ? x : capped(x, softcap));
        hide(p + i, i, seen, -INFINITY);
        largest = vf_max(largest, vf_load(p + i));
    }
    return largest;
}

/* Scores of a tile's rows, the largest ones, and what older exponentials shrink by. */
INLINE void finish_tile_scores(const struct row_tile *t, float scores[][SCORES],
                               const struct seen *seen, float *shrink)
{
    float *before = t->largest + t->first, largest[REDUCED];
    vf lanes[REDUCED];

    for (uint32_t r = 0; r < REDUCED; r++)
        lanes[r] = vf_set1(0);
    for (uint32_t r = 0; r < SHRINKS; r++)
        shrink[r] = 0;
    for (uint32_t r = 0; r < t->n; r++)
        if (seen[r].begin < seen[r].end)
            lanes[r] = finish_scores(scores[r], t->j->softcap, seen[r], before[r]);
    largest_lanes(lanes, t->n, largest);
    for (uint32_t r = 0; r < t->n; r++)
        if (seen[r].begin < seen[r].end) {
            shrink[r] = before[r] - largest[r];
            before[r] = largest[r];
        }
    for (uint32_t r = 0; r < SHRINKS; r += VF_LANES)
        vf_store(shrink + r, vf_exp2_negative(vf_load(shrink + r)));
}

/* p[i] = 2^(p[i] - largest); total[lane] = total[lane] * shrink + the sum of these. */
INLINE void exponentials(float *p, uint32_t end, float largest, float *total, float shrink)
{
    vf sum = vf_mul(vf_load(total), vf_set1(shrink));

    for (uint32_t i = 0; i < end; i += VF_LANES) {
        vf w = vf_exp2_negative(vf_sub(vf_load(p + i), vf_set1(largest)));
        vf_store(p + i, w);
        sum = vf_add(sum, w);
    }
    vf_store(total, sum);
}

static void add_float_values(const struct row_tile *t, struct values_job *v,
                             const struct seen *seen, float scores[][SCORES])
{
    for (uint32_t r = 0; r < t->n; r++)
        if (seen[r].begin < seen[r].end)
            exponentials(scores[r], seen[r].end, t->largest[t->first + r],
                         t->totals + (size_t)(t->first + r) * VF_LANES, v->shrink[r]);
    v->weights = scores[0];
    add_values(t->functions, v, seen, t->n);
}

#include "gpu-worker/ops/attention_weights.h"

static void attend_tile(const struct row_tile *t, const struct span *s)
{
    _Alignas(64) float scores[ROWS_MAX][SCORES];
    struct scores_job k = { t->q, t->q_scales, s, 0, t->j->head_dim, t->j->page_tokens, scores[0] };
    struct values_job v = { .out = t->out + (size_t)t->first * t->j->head_dim,
                            .v = s->v,
                            .n_rows = t->n,
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
    if (kv_has_scales(t->j->dtype)) {
        attend_codes(t, s, &k, &v, seen);
    } else {
        finish_tile_scores(t, scores, seen, v.shrink);
        add_float_values(t, &v, seen, scores);
    }
}

static void vector_attention_queries(const struct attention_job *j, float *q, float *scales)
{
    if (kv_has_scales(j->dtype))
        gather_query_codes(j, (int32_t *)q, scales);
    else
        gather_queries(j, q);
}

/* ---- a split ---- */

/* What the spans of a split add up to. */
struct running {
    _Alignas(64) float totals[ATTENTION_ROWS * VF_LANES];
    float largest[ATTENTION_ROWS];
    float *out;
};

/* Rows first .. first + n - 1, which read the same pages. */
INLINE void attend_part(const struct attention_job *j, struct running *sums,
                        const struct attention_functions *functions, const struct span *span,
                        uint32_t first, uint32_t n)
{
    struct tiles tiles = tiles_of(n, ROWS_MAX);

    for (uint32_t i = 0; i < tiles.n; i++) {
        uint32_t row = first + tile_first(tiles, i);
        attend_tile(&(struct row_tile){ .j = j,
                                        .functions = functions,
                                        .first = row,
                                        .n = tile_width(tiles, i),
                                        .q = j->q + (size_t)row * Q_STRIDE,
                                        .q_scales = j->q_scales + row,
                                        .largest = sums->largest,
                                        .totals = sums->totals,
                                        .out = sums->out },
                    span);
    }
}

INLINE void attend_split(const struct attention_job *j, const enum dtype dtype,
                         const struct attention_functions *functions, struct attention_sum *sums,
                         float *out)
{
    struct running running = { .out = out };
    struct span span;

    if (!kv_has_scales(dtype))
        memset(out, 0, (size_t)j->n_rows * j->head_dim * sizeof *out);
    memset(running.totals, 0, j->n_rows * VF_LANES * sizeof *running.totals);
    for (uint32_t i = 0; i < j->n_rows; i++)
        running.largest[i] = -INFINITY;
    for (uint32_t at = j->begin / SPAN * SPAN; at < j->end; at += SPAN)
        for (uint32_t i = 0, n; i < j->n_rows; i += n) {
            struct attention_part part = attention_part(j, i, at);
            n = part.n_rows;
            if (part.end <= at)
                continue;
            span_find(&span, j, dtype, &part, at);
            if (part.ahead > at + SPAN)
                attention_fetch_span(j, part.page_table, at + SPAN, part.ahead);
            attend_part(j, &running, functions, &span, i, n);
        }
    for (uint32_t i = 0; i < j->n_rows; i++) {
        sums[i] = (struct attention_sum){ running.largest[i],
                                          vf_hsum(vf_load(running.totals + (size_t)i * VF_LANES)) };
        if (running.largest[i] == -INFINITY) /* it saw nothing */
            memset(out + (size_t)i * j->head_dim, 0, j->head_dim * sizeof *out);
    }
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
    float inverse = 1 / sum;
    uint32_t d = 0;

    for (; d + VF_LANES <= head_dim; d += VF_LANES)
        vf_store(out + d, vf_mul(vf_load(values + d), vf_set1(inverse)));
    for (; d < head_dim; d++)
        out[d] = values[d] * inverse;
}

/* One for each kind of pages, whichever the products are made by. */
static __attribute__((noinline)) void attend_f32(const struct attention_job *j,
                                                 struct attention_sum *sums, float *out)
{
    attend_split(j, DTYPE_F32, attention_f32, sums, out);
}

static __attribute__((noinline)) void attend_i16(const struct attention_job *j,
                                                 const struct attention_functions *functions,
                                                 struct attention_sum *sums, float *out)
{
    attend_split(j, DTYPE_I16, functions, sums, out);
}

static __attribute__((noinline)) void attend_i8(const struct attention_job *j,
                                                const struct attention_functions *functions,
                                                struct attention_sum *sums, float *out)
{
    attend_split(j, DTYPE_I8, functions, sums, out);
}

INLINE void attend(const struct attention_job *j, const struct attention_functions *i16,
                   const struct attention_functions *i8, struct attention_sum *sums, float *out)
{
    assert(j->n_rows <= ATTENTION_ROWS && j->head_dim <= ATTENTION_HEAD_DIM_MAX);
    if (j->dtype == DTYPE_F32)
        attend_f32(j, sums, out);
    else if (j->dtype == DTYPE_I16)
        attend_i16(j, i16, sums, out);
    else
        attend_i8(j, i8, sums, out);
}

static void vector_attention(const struct attention_job *j, struct attention_sum *sums, float *out)
{
    attend(j, attention_i16, attention_i8, sums, out);
}

/* With VNNI: the same bits. */
static void vector_attention_dot(const struct attention_job *j, struct attention_sum *sums,
                                 float *out)
{
    attend(j, attention_i16_dot, attention_i8_dot, sums, out);
}
