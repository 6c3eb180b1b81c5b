/* rounded_products.h - a product whose numbers a GPU may round to 8 bits on the way, for tests of where it does.
 *
 * Two matrices side by side in one call, their input random.  What comes out is compared with the product of the numbers
 * as they are, and with that of the rounded ones: it is near one of the two, and the test knows which. */
#ifndef LLMD_TESTS_CUDA_ROUNDED_PRODUCTS_H
#define LLMD_TESTS_CUDA_ROUNDED_PRODUCTS_H

#include "tests/cuda/ops_twins.h"

enum { PRODUCT_COLS = 128, PRODUCT_ROWS_MAX = 72, PRODUCT_HEIGHT = 112 };
/* Of a row of the output; what is behind the two matrices' rows is nobody's. */
enum { PRODUCT_STRIDE = 2 * PRODUCT_HEIGHT + 4 };

/* Write what 8 bits leave of a row. */
typedef void round_row_fn(double to[PRODUCT_COLS], const double x[PRODUCT_COLS]);

struct product_type {
    enum dtype dtype;         /* of the matrices */
    round_row_fn *round_row;  /* of the input */
    bool rounds_matrices_too; /* their rows, by the same */
};

struct product_case {
    uint32_t n_rows;
    bool has_norm, has_bias, add;
};

/* Root mean square of what results are off. */
struct product_off {
    double exact, rounded; /* from the numbers as they are, from the rounded ones */
    uint32_t n;
};

/* cols_max: PRODUCT_COLS, or more: of a larger matrix, and then there is room for sums. */
static inline struct ops_setup product_setup(uint32_t cols_max)
{
    static double freq[16];

    return (struct ops_setup){
        .rows_max = PRODUCT_ROWS_MAX,
        .seqs_max = 4,
        .pages_max = 8,
        .logits_max = PRODUCT_ROWS_MAX,
        .logits_cols = PRODUCT_HEIGHT,
        .cols_max = cols_max,
        .column_unit = 16,
        .gated_max = PRODUCT_HEIGHT,
        .n_heads = 2,
        .n_kv_heads = 2,
        .head_dim = 32,
        .positions_max = 128,
        .rope_freq = freq,
        .kv = { .n_pages = 8, .page_tokens = 16, .dtype = DTYPE_F16 },
    };
}

/* ---- the CPU's two products ---- */

static inline void product_input(const struct product_type *type, const float *x, const float *norm,
                                 double exact[PRODUCT_COLS], double rounded[PRODUCT_COLS])
{
    double sum = 0;

    for (int k = 0; k < PRODUCT_COLS; k++)
        sum += (double)x[k] * (double)x[k];
    for (int k = 0; k < PRODUCT_COLS; k++)
        exact[k] = (double)x[k] * (norm ? (double)norm[k] / sqrt(sum / PRODUCT_COLS + 1e-5) : 1);
    type->round_row(rounded, exact);
}

/* w: a row of a matrix; rest: what is added to both products. */
static inline void product_off_add(struct product_off *off, const struct product_type *type,
                                   double got, const float *w, const double *exact,
                                   const double *rounded, double rest)
{
    double as_is[PRODUCT_COLS], in_8_bits[PRODUCT_COLS], a = rest, b = rest;

    for (int k = 0; k < PRODUCT_COLS; k++)
        as_is[k] = in_8_bits[k] = (double)w[k];
    if (type->rounds_matrices_too)
        type->round_row(in_8_bits, as_is);
    for (int k = 0; k < PRODUCT_COLS; k++) {
        a += as_is[k] * exact[k];
        b += in_8_bits[k] * rounded[k];
    }
    off->exact += (got - a) * (got - a);
    off->rounded += (got - b) * (got - b);
    off->n++;
}

static inline void product_off_finish(struct product_off *off)
{
    off->exact = sqrt(off->exact / off->n);
    off->rounded = sqrt(off->rounded / off->n);
}

/* Whoever is rounded is off as far as that goes, and no further: from the other product `factor` times that. */
static inline void product_off_check(const struct product_off *off, bool is_rounded, double factor,
                                     const char *what)
{
    if (is_rounded ? off->rounded > 2e-3 || off->exact < factor * off->rounded
                   : off->exact > 2e-3 || off->rounded < factor * off->exact)
        fail_msg("%s: off the exact product by %g, off that of rounded rows by %g", what,
                 off->exact, off->rounded);
}

static inline void product_compare(struct product_off *off, const struct product_type *type,
                                   const struct product_case *c, const struct twin_matrix *m,
                                   const struct twin_rows *x, const struct twin_rows *norm,
                                   const float *before, const float *after)
{
    for (uint32_t t = 0; t < c->n_rows; t++) {
        double exact[PRODUCT_COLS], rounded[PRODUCT_COLS];
        product_input(type, x->host + (size_t)t * PRODUCT_COLS, c->has_norm ? norm->host : NULL,
                      exact, rounded);
        for (uint32_t i = 0; i < 2 * PRODUCT_HEIGHT; i++) {
            const struct twin_matrix *of = &m[i / PRODUCT_HEIGHT];
            uint32_t r = i % PRODUCT_HEIGHT;
            size_t at = (size_t)t * PRODUCT_STRIDE + i;
            product_off_add(
                off, type, (double)after[at], of->values + r * PRODUCT_COLS, exact, rounded,
                (c->has_bias ? (double)of->bias.host[r] : 0) + (c->add ? (double)before[at] : 0));
        }
        for (uint32_t i = 2 * PRODUCT_HEIGHT; i < PRODUCT_STRIDE; i++)
            assert_true(after[(size_t)t * PRODUCT_STRIDE + i] ==
                        before[(size_t)t * PRODUCT_STRIDE + i]);
    }
    product_off_finish(off);
}

/* ---- the GPU's ---- */

/* PRODUCT_HEIGHT rows; the values are those that the type has made of them. */
static inline struct twin_matrix product_matrix(struct twins *t, const struct product_type *type,
                                                bool has_bias)
{
    struct twin_matrix m = twins_matrix(t, type->dtype, PRODUCT_HEIGHT, PRODUCT_COLS, has_bias);

    if (packing_is_int(m.cpu.dtype))
        for (uint32_t r = 0; r < PRODUCT_HEIGHT; r++)
            packing_unpack_row(m.cpu.dtype, m.values + (size_t)r * PRODUCT_COLS, m.cpu.data, r,
                               PRODUCT_COLS);
    return m;
}

/* A step of one sequence, to be kept until the step is done. */
struct product_step {
    int32_t tokens[PRODUCT_ROWS_MAX];
    uint32_t pages[8], logit_rows[PRODUCT_ROWS_MAX];
    struct batch_seq seq;
    struct batch batch;
};

static inline void product_begin(struct twins *t, struct product_step *s, uint32_t n_rows,
                                 uint32_t n_logits)
{
    *s = (struct product_step){ .pages = { 0, 1, 2, 3, 4, 5, 6, 7 } };
    for (uint32_t i = 0; i < n_logits; i++)
        s->logit_rows[i] = i;
    s->seq = (struct batch_seq){ 0, n_rows, 0, 8, s->pages };
    s->batch = (struct batch){ n_rows, s->tokens, 1, &s->seq, n_logits, s->logit_rows, false };
    twins_begin(t, &s->batch);
}

static inline struct product_off product_run(struct twins *t, const struct product_type *type,
                                             const struct product_case *c)
{
    struct twin_rows x = twins_rows(t, (size_t)c->n_rows * PRODUCT_COLS);
    struct twin_rows norm = twins_rows(t, PRODUCT_COLS);
    struct twin_rows y = twins_rows(t, (size_t)c->n_rows * PRODUCT_STRIDE);
    struct norm by = { .w = norm.device, .eps = 1e-5f };
    struct product_off off = { 0, 0, 0 };
    struct product_step step;
    struct twin_matrix m[2];
    struct weight w[2];
    float *after;

    for (int k = 0; k < 2; k++) {
        m[k] = product_matrix(t, type, c->has_bias);
        w[k] = m[k].device;
    }
    product_begin(t, &step, c->n_rows, 0);
    t->ops->linear(t->stream, y.device, PRODUCT_STRIDE, x.device, c->n_rows,
                   c->has_norm ? &by : NULL, w, 2, c->add ? LINEAR_ADD : LINEAR_SET);
    twins_finish(t);
    after = twins_fetch(t, y.device, y.n);
    product_compare(&off, type, c, m, &x, &norm, y.host, after);
    free(after);
    for (int k = 0; k < 2; k++)
        twins_matrix_free(t, &m[k]);
    twins_rows_free(t, &x);
    twins_rows_free(t, &norm);
    twins_rows_free(t, &y);
    return off;
}

#endif
