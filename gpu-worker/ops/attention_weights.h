/* attention_weights.h - over pages of codes: scores of a tile become weights, whole numbers of a unit.
 *
 * Part of attention_kernels.h.  Scores are taken relative to a base of the row's own, which is not the largest of them
 * but near it: the largest of the first vector of positions that it sees in the split.  So a span needs no pass for its
 * largest, and nothing that was summed up shrinks.  Only where a score is so far above that its power would get large
 * (never, in models we know) the base is raised.  What happens to a row depends on its own scores only. */

#define POWERS_MAX 0x1p60f /* of a lane's sum in a span */

/* Of a row's positions in a span, by lanes: sums of powers and of weights. */
struct row_lanes {
    vf powers, weights;
};

/* The same of all rows of a tile. */
struct tile_lanes {
    vf powers[REDUCED], weights[REDUCED];
};

/* Row r's scores of a vector of positions above -minus_base. */
static __attribute__((noinline)) vf scores_above(const struct row_tile *t,
                                                 const struct scores_job *j, uint32_t r, uint32_t i,
                                                 vf q_scale, vf minus_base)
{
    vf x = vf_mul(vf_of_int(vi_load(j->scores + r * SCORES + i)), vf_load(j->span->k_scales + i));

    if (t->j->softcap == 0)
        return vf_fma(x, q_scale, minus_base);
    return vf_add(capped(vf_mul(x, q_scale), t->j->softcap), minus_base);
}

/* By lanes, the largest scores of the first vector with positions that row r sees, or of all. */
static __attribute__((noinline)) vf largest_scores(const struct row_tile *t,
                                                   const struct scores_job *j, uint32_t r,
                                                   struct seen seen, bool of_all)
{
    vf q_scale = vf_set1(j->q_scales[r]), largest = vf_set1(-INFINITY);
    uint32_t i = seen.begin / VF_LANES * VF_LANES;

    do {
        vf x = scores_above(t, j, r, i, q_scale, vf_set1(0));
        if (i < seen.begin || i + VF_LANES > seen.end) {
            _Alignas(64) float line[VF_LANES];
            vf_store(line, x);
            hide(line, i, seen, -INFINITY);
            x = vf_load(line);
        }
        largest = vf_max(largest, x);
        i += VF_LANES;
    } while (of_all && i < seen.end);
    return largest;
}

/* Rows that have none get a base. */
static __attribute__((noinline)) void
find_bases(const struct row_tile *t, const struct scores_job *j, const struct seen *seen)
{
    float *base = t->largest + t->first, largest[REDUCED];
    vf lanes[REDUCED];

    for (uint32_t r = 0; r < REDUCED; r++)
        lanes[r] = vf_set1(0);
    for (uint32_t r = 0; r < t->n; r++)
        if (seen[r].begin < seen[r].end)
            lanes[r] = largest_scores(t, j, r, seen[r], false);
    largest_lanes(lanes, t->n, largest);
    for (uint32_t r = 0; r < t->n; r++)
        if (seen[r].begin < seen[r].end && base[r] == -INFINITY)
            base[r] = largest[r];
}

/* Sums so far shrink as the base rises. */
static __attribute__((noinline)) void
raise_base(const struct row_tile *t, const struct scores_job *j, uint32_t r, struct seen seen)
{
    float *base = &t->largest[t->first + r], old = *base;
    float *total = t->totals + (size_t)(t->first + r) * VF_LANES;
    float *out = t->out + (size_t)(t->first + r) * t->j->head_dim;
    vf largest[4] = { largest_scores(t, j, r, seen, true), vf_set1(0), vf_set1(0), vf_set1(0) };
    float shrink;

    *base = _mm_cvtss_f32(vf_hmax4(largest));
    shrink = exp2f(old - *base);
    for (uint32_t i = 0; i < VF_LANES; i++)
        total[i] *= shrink;
    for (uint32_t d = 0; d < t->j->head_dim; d++)
        out[d] *= shrink;
}

/* A vector of positions more: their powers, and V's scales. */
INLINE void add_powers(struct row_lanes *to, float *p, vf powers, const float *v_scales)
{
    vf weights = vf_mul(powers, vf_load(v_scales));

    vf_store(p, weights);
    to->powers = vf_add(to->powers, powers);
    to->weights = vf_add(to->weights, weights);
}

/* A row's scores become weights: powers times V's scales. */
INLINE struct row_lanes weigh_row(const struct row_tile *t, const struct scores_job *j,
                                  const struct span *s, uint32_t r, struct seen seen)
{
    float *p = j->scores + r * SCORES;
    vf q_scale = vf_set1(j->q_scales[r]), minus_base = vf_set1(-t->largest[t->first + r]);
    struct row_lanes lanes = { vf_set1(0), vf_set1(0) };
    uint32_t i = 0;

    if (t->j->softcap == 0 && seen.begin == 0) /* nearly always */
        for (; i + VF_LANES <= seen.end; i += VF_LANES) {
            vf x = vf_mul(vf_of_int(vi_load(p + i)), vf_load(s->k_scales + i));
            add_powers(&lanes, p + i, vf_exp2_coarse(vf_fma(x, q_scale, minus_base)),
                       s->v_scales + i);
        }
    for (; i < seen.end; i += VF_LANES) {
        vf_store(p + i, vf_exp2_coarse(scores_above(t, j, r, i, q_scale, minus_base)));
        hide(p + i, i, seen, 0);
        add_powers(&lanes, p + i, vf_load(p + i), s->v_scales + i);
    }
    return lanes;
}

static void weigh_tile(const struct row_tile *t, const struct scores_job *j, const struct span *s,
                       const struct seen *seen, struct tile_lanes *lanes)
{
    for (uint32_t r = 0; r < t->n; r++) {
        struct row_lanes row = weigh_row(t, j, s, r, seen[r]);
        lanes->powers[r] = row.powers;
        lanes->weights[r] = row.weights;
    }
    for (uint32_t r = t->n; r < REDUCED; r++)
        lanes->weights[r] = vf_set1(0);
}

/* Weights of a tile's rows; scores are there. */
INLINE void weigh(const struct row_tile *t, const struct scores_job *j, const struct span *s,
                  const struct seen *seen, bool all_have_bases, struct tile_lanes *lanes)
{
    vf above = vf_set1(0);

    if (!all_have_bases)
        find_bases(t, j, seen);
    weigh_tile(t, j, s, seen, lanes);
    for (uint32_t r = 0; r < t->n; r++)
        above = vf_max(lanes->powers[r], above); /* in this order NaN of one row hides no other */
    if (!vf_any_above(above, POWERS_MAX))
        return;
    t->functions[t->n].scores(j); /* they have become weights */
    for (uint32_t r = 0; r < t->n; r++)
        if (vf_any_above(lanes->powers[r], POWERS_MAX))
            raise_base(t, j, r, seen[r]);
    weigh_tile(t, j, s, seen, lanes);
}

/* The units of weights that the rows' have room in, and their inverses: 0 where there is nothing to weigh.  No weight is
 * above its lane's sum, which is near it where one weight is large. */
INLINE void weight_units(const vf *sums, uint32_t n_rows, float *units, float *inverses)
{
    _Alignas(64) float by_sum[SHRINKS] = { 0 }, by_lane[SHRINKS] = { 0 };

    sum_lanes(sums, n_rows, by_sum);
    largest_lanes(sums, n_rows, by_lane);
    for (uint32_t r = 0; r < SHRINKS; r += VF_LANES) {
        vf unit = vf_max(vf_mul(vf_load(by_sum + r), vf_set1(1.0f / WEIGHT_SUM)),
                         vf_mul(vf_load(by_lane + r), vf_set1(1.0f / CODE_MAX)));
        vf_store(units + r, unit);
        vf_store(inverses + r, vf_zero_below(unit, vf_div(vf_set1(1), unit), FLT_MIN));
    }
}

/* Where pages have an odd number of tokens a token's pair is not that of its position. */
static void pair_up(int32_t *pairs, const int16_t *weights, const struct span *s)
{
    int16_t *halves = (int16_t *)pairs;

    for (uint32_t i = 0; i < s->n_v; i++) {
        const struct span_pair *p = &s->pairs[i];
        halves[2 * i] = p->first == NO_TOKEN ? 0 : weights[p->first];
        halves[2 * i + 1] = p->second == NO_TOKEN ? 0 : weights[p->second];
    }
}

/* Weights of one row, p[0 .. end - 1], as whole numbers of a unit, for all V of the span. */
static void store_weights(int32_t *pairs, const float *p, const struct span *s, bool is_odd,
                          uint32_t end, float inverse)
{
    int16_t line[SPAN], *weights = is_odd ? line : (int16_t *)pairs;
    uint32_t i = 0;

    for (; i < end; i += VF_LANES)
        vf_store_i16(weights + i, vf_mul(vf_load(p + i), vf_set1(inverse)));
    for (; i < SPAN; i += VF_LANES)
        vf_store_i16(weights + i, vf_set1(0));
    if (is_odd)
        pair_up(pairs, line, s);
}

/* Integer sums: a weight of 0 is as if the row did not see the position, so all rows run over what one of them sees. */
static void attend_codes(const struct row_tile *t, const struct span *s, const struct scores_job *k,
                         struct values_job *v, const struct seen *seen)
{
    _Alignas(64) int32_t pairs[ROWS_MAX][SCORES];
    bool is_odd = t->j->page_tokens % 2 != 0;
    uint32_t begin = SPAN, end = 0;
    _Alignas(64) float inverses[SHRINKS];
    struct tile_lanes lanes;
    bool all_have_bases = true;

    for (uint32_t r = 0; r < t->n; r++) {
        v->is_first[r] = t->largest[t->first + r] == -INFINITY;
        all_have_bases = all_have_bases && !v->is_first[r];
    }
    weigh(t, k, s, seen, all_have_bases, &lanes);
    weight_units(lanes.weights, t->n, v->units, inverses);
    for (uint32_t r = 0; r < t->n; r++) {
        bool sees = seen[r].begin < seen[r].end;
        float *total = t->totals + (size_t)(t->first + r) * VF_LANES;
        vf_store(total, vf_add(vf_load(total), lanes.powers[r]));
        store_weights(pairs[r], k->scores + r * SCORES, s, is_odd, sees ? seen[r].end : 0,
                      inverses[r]);
        if (!sees)
            continue;
        begin = seen[r].begin < begin ? seen[r].begin : begin;
        end = seen[r].end > end ? seen[r].end : end;
    }
    v->weights = pairs[0];
    v->begin = is_odd ? 0 : begin / 2;
    v->end = is_odd ? s->n_v : (end + 1) / 2;
    t->functions[t->n].values(v);
}
