/* attention_float.h - scores and weighted values over K and V in float32, by FMA.
 *
 * Part of attention_kernels.h.  K lies in the page as [head_dim][tokens], so a vector of K is one element of many
 * tokens; a vector of V is many elements of one token.  Both products are an outer product of some numbers of each row
 * with some vectors, held in registers.  Bits: the score of a row and a position is one chain of FMAs along head_dim;
 * an element of the values is one chain along the positions the row sees. */

/* acc[r][v] += x[r * stride] * vector v at p[v] + offset */
INLINE void add_outer(const int R, const int V, vf acc[ROWS_MAX][VECTORS_MAX], const float *x,
                      size_t stride, const char *const *p, size_t offset)
{
    vf held[VECTORS_MAX];

    if (R <= 3 && VF_LANES == 8) { /* what is fewer stays in registers */
#pragma GCC unroll 3
        for (int r = 0; r < R; r++)
            held[r] = vf_set1(x[r * stride]);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            vf kv = vf_load((const float *)(p[v] + offset));
#pragma GCC unroll 3
            for (int r = 0; r < R; r++)
                vf_fma_into(&acc[r][v], kv, held[r]);
        }
        return;
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        held[v] = vf_load((const float *)(p[v] + offset));
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        vf xs = vf_set1(x[r * stride]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vf_fma_into(&acc[r][v], held[v], xs);
    }
}

/* One vector that ends with its page. */
INLINE void score_part(const struct scores_job *j, const int R, const struct span_vector *v)
{
    const float *q = j->q;

    for (int r = 0; r < R; r++) {
        vf acc = vf_set1(0);
        for (uint32_t d = 0; d < j->head_dim; d++)
            acc = vf_fma(vf_load_part((const float *)v->k + (size_t)d * j->page_tokens, v->n),
                         vf_set1(q[r * Q_STRIDE + d]), acc);
        vf_store(j->scores + r * SCORES + v->i, acc);
    }
}

INLINE void score_group(const struct scores_job *j, const int R, const int V,
                        const struct span_vector *const *vectors)
{
    const size_t step = j->page_tokens * sizeof(float);
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
        add_outer(R, V, acc, (const float *)j->q + d, Q_STRIDE, p, d * step);
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
            vf_store(j->scores + r * SCORES + vectors[v]->i, acc[r][v]);
}

INLINE void float_scores(const struct scores_job *j, const int R)
{
    const int V = vectors_beside(R);
    const struct span_vector *group[VECTORS_MAX];

    for (uint32_t i = 0; i < j->n_vectors;) {
        const struct span_vector *v = &j->span->vectors[i];
        if (v->n < VF_LANES) {
            score_part(j, R, v);
            i++;
        } else {
            i = whole_vectors(j, i, V, group);
            score_group(j, R, V, group);
        }
    }
}

INLINE void values_vectors(const struct values_job *j, const int R, const int V, uint32_t d)
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
            p[v] = j->v[i] + (d + v * VF_LANES) * sizeof(float);
        add_outer(R, V, acc, (const float *)j->weights + i, SCORES, p, 0);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++)
            vf_store(j->out + (size_t)r * j->head_dim + d + v * VF_LANES, acc[r][v]);
}

INLINE void values_rest(const struct values_job *j, const int R, uint32_t d)
{
    uint32_t n = j->head_dim - d;

    for (int r = 0; r < R; r++) {
        float *out = j->out + (size_t)r * j->head_dim + d;
        vf acc = vf_mul(vf_load_part(out, n), vf_set1(j->shrink[r]));
        for (uint32_t i = j->begin; i < j->end; i++)
            acc = vf_fma(vf_load_part((const float *)j->v[i] + d, n),
                         vf_set1(((const float *)j->weights)[r * SCORES + i]), acc);
        vf_store_part(out, acc, n);
    }
}

INLINE void float_values(const struct values_job *j, const int R)
{
    const int V = vectors_beside(R);
    uint32_t d = 0;

    for (; d + V * VF_LANES <= j->head_dim; d += V * VF_LANES)
        values_vectors(j, R, V, d);
    for (; d + VF_LANES <= j->head_dim; d += VF_LANES)
        values_vectors(j, R, 1, d);
    if (d < j->head_dim)
        values_rest(j, R, d);
}

#define FLOAT_FUNCTIONS(R)                                                                         \
    static __attribute__((noinline)) void attention_f32_scores_##R(const struct scores_job *j)     \
    {                                                                                              \
        float_scores(j, R);                                                                        \
    }                                                                                              \
    static __attribute__((noinline)) void attention_f32_values_##R(const struct values_job *j)     \
    {                                                                                              \
        float_values(j, R);                                                                        \
    }

FLOAT_FUNCTIONS(1)
FLOAT_FUNCTIONS(2)
FLOAT_FUNCTIONS(3)
FLOAT_FUNCTIONS(4)
FLOAT_FUNCTIONS(5)
FLOAT_FUNCTIONS(6)

static const struct attention_functions attention_f32[ROWS_MAX + 1] = {
    [1] = ATTENTION_ENTRY(attention_f32, 1), [2] = ATTENTION_ENTRY(attention_f32, 2),
    [3] = ATTENTION_ENTRY(attention_f32, 3), [4] = ATTENTION_ENTRY(attention_f32, 4),
    [5] = ATTENTION_ENTRY(attention_f32, 5), [6] = ATTENTION_ENTRY(attention_f32, 6),
};

/* All queries, scaled, where vectors and broadcasts read them. */
static void gather_queries(const struct attention_job *j, float *q)
{
    for (uint32_t r = 0; r < j->n_rows; r++, q += Q_STRIDE) {
        const float *from = j->rows[r].q;
        uint32_t d = 0;
        for (; d + VF_LANES <= j->head_dim; d += VF_LANES)
            vf_store(q + d, vf_mul(vf_load(from + d), vf_set1(j->scale)));
        for (; d < j->head_dim; d++)
            q[d] = from[d] * j->scale;
    }
}

/* One row alone: positions that its neighbours do not all see. */
static void add_values_of_row(const struct attention_functions *functions, struct values_job *v,
                              uint32_t r, uint32_t begin, uint32_t end)
{
    struct values_job one = *v;

    if (begin >= end)
        return;
    one.out += (size_t)r * v->head_dim;
    one.weights = (const float *)v->weights + r * SCORES;
    one.shrink[0] = v->shrink[r];
    one.begin = begin;
    one.end = end;
    functions[1].values(&one);
    v->shrink[r] = 1; /* only once */
}

/* Of n rows, each over the positions it sees: a chain takes no steps of others. */
static void add_values(const struct attention_functions *functions, struct values_job *v,
                       const struct seen *seen, uint32_t n)
{
    struct seen all = seen[0];

    for (uint32_t r = 1; r < n; r++) {
        all.begin = seen[r].begin > all.begin ? seen[r].begin : all.begin;
        all.end = seen[r].end < all.end ? seen[r].end : all.end;
    }
    if (all.begin >= all.end) {
        for (uint32_t r = 0; r < n; r++)
            add_values_of_row(functions, v, r, seen[r].begin, seen[r].end);
        return;
    }
    for (uint32_t r = 0; r < n; r++)
        add_values_of_row(functions, v, r, seen[r].begin, all.begin);
    v->begin = all.begin;
    v->end = all.end;
    functions[n].values(v);
    for (uint32_t r = 0; r < n; r++)
        v->shrink[r] = 1;
    for (uint32_t r = 0; r < n; r++)
        add_values_of_row(functions, v, r, all.end, seen[r].end);
}
