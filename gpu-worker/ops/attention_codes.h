/* attention_codes.h - scores and weighted values over K and V in codes with a scale for each vector: int16 (the
 * CPU's 16-bit pages) or int8.
 *
 * Part of attention_kernels.h.  Sums are of int16 * int16 in int32: two products an instruction where FMA has one, or
 * four with VNNI's vpdpwssd.  Two elements of a K vector lie side by side for each token, and of V two tokens for each
 * element (proto/kvpool_layout.h), so that a pair of a row's numbers meets a vector of pairs.
 *
 * No sum overflows, and its error stays below that of the pages (n.b. a float16 errs by 2^-12 of each element):
 *   scores  |q . k| <= |q| |k| (Cauchy-Schwarz), of any part of the sum too, and codes of queries and of K are
 *           KV_K16_LENGTH long.  An element errs by half a code, so a score by about 1.3e-5 |q| |k|.
 *   values  the weights of a row in a span add up to WEIGHT_SUM at most, V's codes are KV_V16_MAX at most.  The unit of
 *           weights is the row's own in each span.
 * Integer sums are exact, in any order; the rest is done row by row.  So bits depend neither on tiles nor on the
 * instruction. */

enum {
    WEIGHT_SUM = 262000,
    CODE_MAX = INT16_MAX,
};

/* With what rounding adds: half a code for each element, half a unit for each weight. */
static_assert((KV_K16_LENGTH + 12ll) * (KV_K16_LENGTH + 12ll) <= INT32_MAX, "scores");
static_assert((WEIGHT_SUM + SPAN / 2ll) * KV_V16_MAX <= INT32_MAX, "values");
static_assert(ATTENTION_HEAD_DIM_MAX <= 24 * 24, "half a code each is 12 long at most");

INLINE vi codes_load(const enum dtype dtype, const char *p)
{
    return dtype == DTYPE_I16 ? vi_load(p) : vi_load_i8(p);
}

/* The first n pairs, then zeroes. */
INLINE vi codes_load_part(const enum dtype dtype, const char *p, uint32_t n)
{
    return dtype == DTYPE_I16 ? vi_load_part(p, n) : vi_load_i8_part(p, n);
}

/* How the products of a table are made. */
struct codes_kind {
    enum dtype dtype;
    bool has_dot; /* VNNI */
};

/* acc[r][v] += pair x[r * stride] * vector of pairs v at p[v] + offset */
INLINE void add_pairs(const struct codes_kind kind, const int R, const int V,
                      vi acc[ROWS_MAX][VECTORS_MAX], const int32_t *x, size_t stride,
                      const char *const *p, size_t offset)
{
    vi held[VECTORS_MAX];

    if (R <= 3 && VF_LANES == 8) { /* what is fewer stays in registers */
#pragma GCC unroll 3
        for (int r = 0; r < R; r++)
            held[r] = vi_set1(x[r * stride]);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            vi kv = codes_load(kind.dtype, p[v] + offset);
#pragma GCC unroll 3
            for (int r = 0; r < R; r++)
                vi_dot_into(&acc[r][v], kv, held[r], kind.has_dot);
        }
        return;
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        held[v] = codes_load(kind.dtype, p[v] + offset);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        vi xs = vi_set1(x[r * stride]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vi_dot_into(&acc[r][v], held[v], xs, kind.has_dot);
    }
}

INLINE void clear_sums(const int R, const int V, vi acc[ROWS_MAX][VECTORS_MAX])
{
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            acc[r][v] = vi_set1(0);
}

/* ---- scores: the sums of tiles stay integers, so that all kinds and tiles share what follows ---- */

INLINE void score_codes_group(const struct scores_job *j, const struct codes_kind kind, const int R,
                              const int V, const struct span_vector *const *vectors)
{
    const size_t step = j->page_tokens * k_step(kind.dtype);
    const char *p[VECTORS_MAX];
    vi acc[ROWS_MAX][VECTORS_MAX];

#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
        p[v] = vectors[v]->k;
    clear_sums(R, V, acc);
    for (uint32_t d = 0; d < j->head_dim / 2; d++)
        add_pairs(kind, R, V, acc, (const int32_t *)j->q + d, Q_STRIDE, p, d * step);
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
            vi_store(j->scores + r * SCORES + vectors[v]->i, acc[r][v]);
}

/* One vector that ends with its page, of all rows. */
static __attribute__((noinline)) void score_codes_part(const struct scores_job *j,
                                                       const enum dtype dtype, uint32_t n_rows,
                                                       const struct span_vector *v)
{
    const size_t step = j->page_tokens * k_step(dtype);

    for (uint32_t r = 0; r < n_rows; r++) {
        const int32_t *q = (const int32_t *)j->q + r * Q_STRIDE;
        vi acc = vi_set1(0);
        for (uint32_t d = 0; d < j->head_dim / 2; d++)
            vi_dot_into(&acc, codes_load_part(dtype, v->k + d * step, v->n), vi_set1(q[d]), false);
        vi_store(j->scores + r * SCORES + v->i, acc);
    }
}

INLINE void codes_scores(const struct scores_job *j, const struct codes_kind kind, const int R)
{
    const int V = vectors_beside(R);
    const struct span_vector *group[VECTORS_MAX];

    for (uint32_t i = 0; i < j->n_vectors;) {
        const struct span_vector *v = &j->span->vectors[i];
        if (v->n < VF_LANES) {
            score_codes_part(j, kind.dtype, (uint32_t)R, v);
            i++;
        } else {
            i = whole_vectors(j, i, V, group);
            score_codes_group(j, kind, R, V, group);
        }
    }
}

/* ---- values ---- */

/* What a pair's codes of V take: two tokens of so many elements. */
INLINE size_t pair_bytes(const enum dtype dtype, uint32_t elements)
{
    return (size_t)elements * (dtype == DTYPE_I16 ? 4 : 2);
}

/* Sums of the rows, n elements from d on, join the values. */
static __attribute__((noinline)) void add_sums(const struct values_job *j, const int32_t *sums,
                                               uint32_t d, uint32_t n)
{
    for (uint32_t r = 0; r < j->n_rows; r++, sums += n) {
        float *out = j->out + (size_t)r * j->head_dim + d;
        vf unit = vf_set1(j->units[r]);
        if (j->is_first[r])
            for (uint32_t i = 0; i < n; i += VF_LANES)
                vf_store(out + i, vf_mul(vf_of_int(vi_load(sums + i)), unit));
        else
            for (uint32_t i = 0; i < n; i += VF_LANES)
                vf_store(out + i, vf_fma(vf_of_int(vi_load(sums + i)), unit, vf_load(out + i)));
    }
}

INLINE void values_codes_vectors(const struct values_job *j, const struct codes_kind kind,
                                 const int R, const int V, uint32_t d)
{
    vi acc[ROWS_MAX][VECTORS_MAX];
    _Alignas(64) int32_t sums[ROWS_MAX * VECTORS_MAX * VF_LANES];

    clear_sums(R, V, acc);
    for (uint32_t i = j->begin; i < j->end; i++) {
        const char *p[VECTORS_MAX];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            p[v] = j->v[i] + pair_bytes(kind.dtype, d + v * VF_LANES);
        add_pairs(kind, R, V, acc, (const int32_t *)j->weights + i, SCORES, p, 0);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            vi_store(sums + (r * V + v) * VF_LANES, acc[r][v]);
    add_sums(j, sums, d, (uint32_t)V * VF_LANES);
}

/* The last elements of a head, fewer than a vector. */
static __attribute__((noinline)) void values_codes_rest(const struct values_job *j,
                                                        const enum dtype dtype, uint32_t d)
{
    uint32_t n = j->head_dim - d;

    for (uint32_t r = 0; r < j->n_rows; r++) {
        const int32_t *weights = (const int32_t *)j->weights + r * SCORES;
        float *out = j->out + (size_t)r * j->head_dim + d;
        vi acc = vi_set1(0);
        for (uint32_t i = j->begin; i < j->end; i++)
            vi_dot_into(&acc, codes_load_part(dtype, j->v[i] + pair_bytes(dtype, d), n),
                        vi_set1(weights[i]), false);
        vf before = j->is_first[r] ? vf_set1(0) : vf_load_part(out, n);
        vf_store_part(out, vf_fma(vf_of_int(acc), vf_set1(j->units[r]), before), n);
    }
}

INLINE void codes_values(const struct values_job *j, const struct codes_kind kind, const int R)
{
    const int V = vectors_beside(R);
    uint32_t d = 0;

    for (; d + V * VF_LANES <= j->head_dim; d += V * VF_LANES)
        values_codes_vectors(j, kind, R, V, d);
    for (; d + VF_LANES <= j->head_dim; d += VF_LANES)
        values_codes_vectors(j, kind, R, 1, d);
    if (d < j->head_dim)
        values_codes_rest(j, kind.dtype, d);
}

/* Three rows as four and five as six, and with int8 or VNNI two as four, for the sake of the program's size: what is too many is
 * nobody's. */
#define CODES_FUNCTIONS(name, R, ...)                                                              \
    static __attribute__((noinline)) void name##_scores_##R(const struct scores_job *j)            \
    {                                                                                              \
        codes_scores(j, (struct codes_kind){ __VA_ARGS__ }, R);                                    \
    }                                                                                              \
    static __attribute__((noinline)) void name##_values_##R(const struct values_job *j)            \
    {                                                                                              \
        codes_values(j, (struct codes_kind){ __VA_ARGS__ }, R);                                    \
    }

#define CODES_TABLE(name, two, ...)                                                                \
    CODES_FUNCTIONS(name, 1, __VA_ARGS__)                                                          \
    CODES_FUNCTIONS(name, 4, __VA_ARGS__)                                                          \
    CODES_FUNCTIONS(name, 6, __VA_ARGS__)                                                          \
    static const struct attention_functions name[ROWS_MAX + 1] = {                                 \
        [1] = ATTENTION_ENTRY(name, 1), [2] = ATTENTION_ENTRY(name, two),                          \
        [3] = ATTENTION_ENTRY(name, 4), [4] = ATTENTION_ENTRY(name, 4),                            \
        [5] = ATTENTION_ENTRY(name, 6), [6] = ATTENTION_ENTRY(name, 6),                            \
    };

CODES_FUNCTIONS(attention_i16, 2, DTYPE_I16, false)
CODES_TABLE(attention_i16, 2, DTYPE_I16, false)
CODES_TABLE(attention_i16_dot, 4, DTYPE_I16, true)
CODES_TABLE(attention_i8, 4, DTYPE_I8, false)
CODES_TABLE(attention_i8_dot, 4, DTYPE_I8, true)

/* ---- what becomes codes on the way ---- */

static void gather_query_codes(const struct attention_job *j, int32_t *q, float *scales)
{
    for (uint32_t r = 0; r < j->n_rows; r++)
        scales[r] = j->scale * vector_narrow_k16((int16_t *)(q + (size_t)r * Q_STRIDE),
                                                 j->rows[r].q, j->head_dim);
}
