/* attention_span.h - where K and V of a span of positions lie, and the jobs of the two products over them.
 *
 * Part of attention_kernels.h. */
#ifndef VF_LANES
#error "define the vector first"
#endif

static_assert(ATTENTION_SPLIT % ATTENTION_SPAN == 0, "a split begins with a span");

enum {
    SPAN = ATTENTION_SPAN,
    SPAN_VECTORS = SPAN, /* at most: pages of one token */
    SCORES = SPAN + VF_LANES,
    ROWS_MAX = ATTENTION_TILE_ROWS,
    Q_STRIDE = ATTENTION_Q_STRIDE,
    SHRINKS = (ROWS_MAX + VF_LANES - 1) / VF_LANES * VF_LANES,
    VECTORS_MAX = 8,
    REDUCED = 8, /* rows of a tile, in fours */
};

/* Lanes of four vectors at once: of each the sum, and the largest (vector_kernels.h has the order, which is the row's own). */
INLINE void sum_lanes(const vf *v, uint32_t n, float *out)
{
    for (uint32_t r = 0; r < n; r += 4)
        _mm_storeu_ps(out + r, vf_hsum4(v + r));
}

INLINE void largest_lanes(const vf *v, uint32_t n, float *out)
{
    for (uint32_t r = 0; r < n; r += 4)
        _mm_storeu_ps(out + r, vf_hmax4(v + r));
}

struct span_vector {
    const char *k; /* its first token's element, or pair of elements, 0 */
    uint32_t i, n; /* positions begin + i .. begin + i + n - 1; n < VF_LANES: no more may be read */
};

enum { NO_TOKEN = -1 };

/* Two neighbours in a page, counted from the span's beginning; NO_TOKEN: outside of the span, or of the page. */
struct span_pair {
    int16_t first, second;
};

struct span {
    uint32_t begin, end; /* positions */
    bool is_whole;       /* all rows see all of it */
    uint32_t n_vectors, n_v;
    struct span_vector vectors[SPAN_VECTORS];
    const char *v[SPAN];          /* float32: of each position; codes: of each pair of tokens */
    struct span_pair pairs[SPAN]; /* codes */
    _Alignas(64) float k_scales[SCORES], v_scales[SCORES]; /* codes */
};

/* Bytes from a token to the next in a row of K: a float, or two codes. */
INLINE size_t k_step(const enum dtype dtype)
{
    return dtype == DTYPE_I8 ? 2 : 4;
}

/* Whole vectors are written. */
INLINE void copy_scales(float *to, const float *from, uint32_t n)
{
    for (; n >= VF_LANES; n -= VF_LANES, to += VF_LANES, from += VF_LANES)
        vf_store(to, vf_load(from));
    if (n > 0)
        vf_store(to, vf_load_part(from, n));
}

INLINE void add_v_pairs(struct span *s, const struct attention_job *j, const char *v, size_t size,
                        uint32_t t, uint32_t end, uint32_t i)
{
    for (uint32_t at = t & ~1u; at < end; at += 2) {
        if (j->page_tokens % 2 != 0)
            s->pairs[s->n_v] =
                (struct span_pair){ at < t ? NO_TOKEN : (int16_t)(i + at - t),
                                    at + 1 < end ? (int16_t)(i + at + 1 - t) : NO_TOKEN };
        s->v[s->n_v++] = v + (size_t)at * j->head_dim * size;
    }
}

/* Tokens t .. end - 1 of a page, which are positions begin + i and on. */
INLINE void add_page(struct span *s, const struct attention_job *j, const enum dtype dtype,
                     const char *page, uint32_t t, uint32_t end, uint32_t i)
{
    const char *k = page + j->k_offset, *v = page + j->v_offset;
    size_t codes = kv_scales_bytes(dtype, j->page_tokens);

    if (kv_has_scales(dtype)) {
        copy_scales(s->k_scales + i, (const float *)k + t, end - t);
        copy_scales(s->v_scales + i, (const float *)v + t, end - t);
        add_v_pairs(s, j, v + codes, dtype_bytes(dtype, 1), t, end, i);
    } else {
        for (uint32_t at = t; at < end; at++)
            s->v[s->n_v++] = v + (size_t)at * j->head_dim * sizeof(float);
    }
    for (; t < end; t += VF_LANES, i += VF_LANES) {
        uint32_t left = j->page_tokens - t;
        s->vectors[s->n_vectors++] = (struct span_vector){ k + codes + t * k_step(dtype), i,
                                                           left < VF_LANES ? left : VF_LANES };
    }
}

/* V's scales of n positions, then 0.  One that is no number makes the score of K none; here it would touch rows that
 * do not see the token. */
INLINE void end_scales(struct span *s, uint32_t n)
{
    vf_store(s->v_scales + n, vf_set1(0));
    for (uint32_t i = 0; i < n; i += VF_LANES)
        vf_store(s->v_scales + i, vf_min(vf_load(s->v_scales + i), vf_set1(FLT_MAX)));
}

INLINE void span_find(struct span *s, const struct attention_job *j, const enum dtype dtype,
                      const struct attention_part *part, uint32_t begin)
{
    uint32_t end = part->end;

    s->begin = begin;
    s->end = end;
    s->is_whole = part->is_whole;
    s->n_vectors = s->n_v = 0;
    for (uint32_t at = begin; at < end;) {
        uint32_t t = at % j->page_tokens, left = end - at;
        uint32_t page_end = left < j->page_tokens - t ? t + left : j->page_tokens;
        add_page(s, j, dtype, j->pages + part->page_table[at / j->page_tokens] * j->page_bytes, t,
                 page_end, at - begin);
        at += page_end - t;
    }
    if (kv_has_scales(dtype))
        end_scales(s, end - begin);
}

/* ---- the products, each for a tile of R rows ---- */

/* Vectors beside R rows that registers hold. */
INLINE int vectors_beside(const int R)
{
    return VF_LANES == 16 ? 4 : R == 1 ? 8 : R <= 3 ? 4 : 2;
}

struct scores_job {
    const void *q;         /* [R][Q_STRIDE] floats, or pairs of codes; scaled */
    const float *q_scales; /* [R], of codes */
    const struct span *span;
    uint32_t n_vectors; /* the first ones of the span */
    uint32_t head_dim, page_tokens;
    float *scores; /* [R][SCORES] */
};

/* V whole vectors of the span from the i-th on, the last one again where a page's end or the list's leaves fewer; returns the
 * one behind them. */
INLINE uint32_t whole_vectors(const struct scores_job *j, uint32_t i, const int V,
                              const struct span_vector *group[VECTORS_MAX])
{
    int n = 0;

    for (; n < V && i < j->n_vectors && j->span->vectors[i].n == VF_LANES; i++)
        group[n++] = &j->span->vectors[i];
    for (; n < V; n++)
        group[n] = group[n - 1];
    return i;
}

/* i in begin .. end - 1:
 *   floats  out[r] = out[r] * shrink[r] + sum of weights[r][i] * v[i]
 *   codes   out[r] = (out[r], unless this is the first) + units[r] * sum of weights[r][i] * v[i] */
struct values_job {
    float *out; /* [R][head_dim] */
    float shrink[SHRINKS];
    float units[SHRINKS];
    bool is_first[ROWS_MAX];
    const void *weights; /* [R][SCORES] floats, or pairs of codes */
    const char *const *v;
    uint32_t begin, end;
    uint32_t n_rows, head_dim;
};

/* As in panel_kernels.h, a function for each number of rows. */
struct attention_functions {
    void (*scores)(const struct scores_job *j);
    void (*values)(const struct values_job *j);
};

#define ATTENTION_ENTRY(name, R)                                                                   \
    {                                                                                              \
        name##_scores_##R, name##_values_##R                                                       \
    }
