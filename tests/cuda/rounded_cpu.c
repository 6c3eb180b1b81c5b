/* rounded_cpu.c - see rounded_cpu.h.
 *
 * The CPU's table with other functions in front of some:
 *
 *   linear, gated, logits   of more rows than gemv.cu takes, with matrices of 16 bits (ops_cuda_linear.c): the norm, its
 *                           result rounded to the type of the matrix, and the CPU's product of that
 *   attention               of sequences that get tiles (attention_prefill.cu): Q rounded to float16, and so the
 *                           exponentials that V is multiplied by; in double precision otherwise
 *
 * What the GPU has rounded is copied on its stream in front of each product, and read when the CPU is at the same one. */
#include "tests/cuda/rounded_cpu.h"

#include <math.h>
#include <stdio.h>

#include "common/mem.h"
#include "gpu-worker/cuda/attention_plan.h"
#include "gpu-worker/cuda/blas.h"
#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/ops/half.h"
#include "tests/check.h"
#include "tests/cuda/half_pages.h"

enum { INPUTS_MAX = 512 };

const struct ops *__real_ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                                      struct threads *threads, struct ops_stream **stream);
const struct ops *__wrap_ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                                      struct threads *threads, struct ops_stream **stream);
bool __real_blas_gemm(struct blas *b, struct device_stream *s, const struct blas_gemm *g);
bool __wrap_blas_gemm(struct blas *b, struct device_stream *s, const struct blas_gemm *g);

/* Of a product of the GPU's. */
struct gpu_input {
    enum blas_type type;
    uint32_t n_rows, cols;
    uint16_t *x; /* [n_rows, cols] */
};

/* The stream is the CPU's own, so what belongs to its table is here. */
static struct {
    bool is_next;
    const struct ops *of; /* the CPU's; NULL: there is no such stream */
    struct ops table;
    struct ops_setup setup;
    const struct batch *batch;
    float *input; /* [rows_max, cols_max] */
    struct gpu_input inputs[INPUTS_MAX];
    uint32_t n_inputs, n_taken;
    struct rounded_cpu_counts counts;
} rounded;

/* ---- what the GPU multiplies ---- */

bool __wrap_blas_gemm(struct blas *b, struct device_stream *s, const struct blas_gemm *g)
{
    bool is_16_bits = g->type == BLAS_F16 || g->type == BLAS_BF16;

    if (rounded.of && is_16_bits && !device_is_rehearsing(s->device)) {
        size_t bytes = (size_t)g->m * g->k * sizeof(uint16_t);
        struct gpu_input in = { g->type, g->m, g->k, mem_alloc(bytes) };
        assert_true(g->x_stride == g->k && rounded.n_inputs < INPUTS_MAX);
        device_copy_out(s, in.x, (cu_ptr)(uintptr_t)g->x, bytes);
        rounded.inputs[rounded.n_inputs++] = in;
    }
    return __real_blas_gemm(b, s, g);
}

/* Of its next product, which is this one; caller frees .x. */
static struct gpu_input take_input(const struct weight *w, uint32_t n_rows)
{
    struct gpu_input in;

    if (rounded.n_taken == rounded.n_inputs)
        fail_msg("the GPU has not rounded the input of a product of %u rows", n_rows);
    in = rounded.inputs[rounded.n_taken++];
    assert_int_equal(in.type, w->dtype == DTYPE_BF16 ? BLAS_BF16 : BLAS_F16);
    assert_int_equal(in.n_rows, n_rows);
    assert_int_equal(in.cols, w->cols);
    if (rounded.n_taken == rounded.n_inputs)
        rounded.n_taken = rounded.n_inputs = 0;
    return in;
}

/* ---- products ---- */

static float value_of(enum dtype t, uint16_t bits)
{
    return t == DTYPE_BF16 ? bf16_to_float(bits) : f16_to_float(bits);
}

static float round_to(enum dtype t, float x)
{
    return value_of(t, t == DTYPE_BF16 ? float_to_bf16(x) : float_to_f16(x));
}

static double root_mean_square(const float *x, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum / n);
}

/* A row becomes the GPU's, which rounds a number that is as good as ours. */
static void round_row(float *x, const uint16_t *gpu, uint32_t n, enum dtype t)
{
    double size = root_mean_square(x, n);

    for (uint32_t i = 0; i < n; i++) {
        float nearest = round_to(t, x[i]), theirs = value_of(t, gpu[i]);
        double worse = fabs((double)theirs - (double)x[i]) - fabs((double)nearest - (double)x[i]);
        if (!(worse <= ROUNDED_CPU_TOLERANCE * size))
            fail_msg("the GPU has rounded %.9g to %.9g, not %.9g, in a row of %.3g", (double)x[i],
                     (double)theirs, (double)nearest, size);
        if (worse > 0)
            rounded.counts.worst = fmax(rounded.counts.worst, worse / size);
        rounded.counts.otherwise += theirs != nearest;
        x[i] = theirs;
    }
    rounded.counts.inputs += n;
}

static bool is_rounded(const struct weight *w, uint32_t n_rows)
{
    bool is_16_bits = w->dtype == DTYPE_F16 || w->dtype == DTYPE_BF16;

    return is_16_bits && n_rows > CUDA_GEMV_ROWS && w->cols % 8 == 0 && w->rows % 4 == 0;
}

/* norm(x), or x, rounded for the product with w. */
static const float *round_input(struct ops_stream *s, const float *x, uint32_t n_rows,
                                const struct norm *norm, const struct weight *w)
{
    struct gpu_input in = take_input(w, n_rows);

    assert_true(n_rows <= rounded.setup.rows_max && w->cols <= rounded.setup.cols_max);
    if (norm)
        rounded.of->rmsnorm(s, rounded.input, x, n_rows, norm, w->cols);
    else
        memcpy(rounded.input, x, (size_t)n_rows * w->cols * sizeof *x);
    for (size_t t = 0; t < n_rows; t++)
        round_row(rounded.input + t * w->cols, in.x + t * w->cols, w->cols, w->dtype);
    free(in.x);
    return rounded.input;
}

/* A matrix at a time: each is a product of the GPU's. */
static void rounded_linear(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                           uint32_t n_rows, const struct norm *norm, const struct weight *w,
                           uint32_t n_w, enum linear_mode mode)
{
    float *column = y;

    for (uint32_t m = 0; m < n_w; m++) {
        if (is_rounded(&w[m], n_rows))
            rounded.of->linear(s, column, y_stride, round_input(s, x, n_rows, norm, &w[m]), n_rows,
                               NULL, &w[m], 1, mode);
        else
            rounded.of->linear(s, column, y_stride, x, n_rows, norm, &w[m], 1, mode);
        column += w[m].rows;
    }
}

static void rounded_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                          uint32_t n_rows, const struct norm *norm, const struct weight *gate,
                          const struct weight *up, enum activation act)
{
    assert_int_equal(gate->dtype, up->dtype);
    if (is_rounded(gate, n_rows)) {
        round_input(s, x, n_rows, norm, gate);
        x = round_input(s, x, n_rows, norm, up); /* the same */
        norm = NULL;
    }
    rounded.of->gated(s, y, y_stride, x, n_rows, norm, gate, up, act);
}

static void rounded_logits(struct ops_stream *s, float *y, size_t y_stride, const void *x,
                           uint32_t n_rows, const struct norm *norm, const struct weight *w,
                           float softcap)
{
    if (is_rounded(w, n_rows)) {
        x = round_input(s, x, n_rows, norm, w);
        norm = NULL;
    }
    rounded.of->logits(s, y, y_stride, x, n_rows, norm, w, softcap);
}

/* ---- attention ---- */

static bool rounded_begin(struct ops_stream *s, const struct batch *b, struct ops_step *step)
{
    rounded.batch = b;
    return rounded.of->begin(s, b, step);
}

/* A query's view of a sequence. */
struct view {
    const struct batch_seq *seq;
    uint32_t layer, head; /* of K and V */
    double scale;
};

/* Element d of K (kind 0) or V (1) at a position; pages as proto/kvpool_layout.h has them. */
static double kv_at(const struct view *v, uint32_t kind, uint32_t position, uint32_t d)
{
    const struct ops_kv *kv = &rounded.setup.kv;
    uint32_t dim = rounded.setup.head_dim, t = position % kv->page_tokens;
    const char *page = kv->pages + v->seq->pages[position / kv->page_tokens] * kv->page_bytes;
    uint64_t block = ((uint64_t)v->layer * 2 + kind) * kv->n_heads_model + kv->first_head + v->head;
    const float *elements = (const float *)page + block * kv->page_tokens * dim;

    return (double)elements[kind == 0 ? d * kv->page_tokens + t : t * dim + d];
}

static double score(const struct view *v, const float *q, uint32_t position)
{
    double dot = 0;

    for (uint32_t d = 0; d < rounded.setup.head_dim; d++)
        dot += (double)round_to(DTYPE_F16, q[d]) * kv_at(v, 0, position, d);
    return dot * v->scale;
}

/* What there is of it before some step. */
struct sums {
    double largest, sum;
    double values[ROPE_HEAD_DIM_MAX];
};

/* Positions begin .. end - 1. */
static void add_step(struct sums *s, const struct view *v, const float *q, uint32_t begin,
                     uint32_t end)
{
    double scores[ATTENTION_STEP(0)], largest = s->largest, shrink;

    for (uint32_t p = begin; p < end; p++) {
        scores[p - begin] = score(v, q, p);
        largest = fmax(largest, scores[p - begin]);
    }
    shrink = exp(s->largest - largest);
    s->largest = largest;
    s->sum *= shrink;
    for (uint32_t d = 0; d < rounded.setup.head_dim; d++)
        s->values[d] *= shrink;
    for (uint32_t p = begin; p < end; p++) {
        double weight = exp(scores[p - begin] - largest);
        s->sum += weight;
        for (uint32_t d = 0; d < rounded.setup.head_dim; d++)
            s->values[d] += (double)round_to(DTYPE_F16, (float)weight) * kv_at(v, 1, p, d);
    }
}

static void attend(float *out, const struct view *v, const float *q, uint32_t n_positions)
{
    uint32_t step = ATTENTION_STEP(rounded.setup.head_dim);
    struct sums s = { .largest = -INFINITY };

    for (uint32_t begin = 0; begin < n_positions; begin += step)
        add_step(&s, v, q, begin, begin + step < n_positions ? begin + step : n_positions);
    for (uint32_t d = 0; d < rounded.setup.head_dim; d++)
        out[d] = (float)(s.values[d] / s.sum);
}

static void attend_sequence(float *out, size_t out_stride, const float *qkv, uint32_t layer,
                            const struct batch_seq *seq, double scale)
{
    const struct ops_setup *u = &rounded.setup;
    size_t dim = u->head_dim, q_stride = (u->n_heads + 2 * (size_t)u->n_kv_heads) * dim;

    for (uint32_t t = 0; t < seq->n_rows; t++)
        for (uint32_t h = 0; h < u->n_heads; h++) {
            struct view v = { seq, layer, h / (u->n_heads / u->n_kv_heads), scale };
            uint32_t row = seq->first_row + t;
            attend(out + row * out_stride + h * dim, &v, qkv + row * q_stride + h * dim,
                   seq->start + t + 1);
        }
}

static void rounded_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                              uint32_t layer, const struct attention_shape *shape)
{
    assert_true(shape->window == 0 && shape->softcap == 0);
    rounded.of->attention(s, out, out_stride, qkv, layer, shape);
    for (uint32_t i = 0; i < rounded.batch->n_seqs; i++)
        if (rounded.batch->seqs[i].n_rows >= ATTENTION_TILE_ROWS_MIN)
            attend_sequence(out, out_stride, qkv, layer, &rounded.batch->seqs[i],
                            (double)shape->scale);
}

/* ---- open and close ---- */

static void rounded_close(struct ops_stream *s)
{
    rounded.of->close(s);
    rounded.of = NULL;
    free(rounded.input);
    assert_int_equal(rounded.n_inputs, 0); /* the CPU has been wherever the GPU rounded */
}

static void check_setup(const struct ops_setup *u)
{
    struct attention_setup s = { .head_dim = u->head_dim,
                                 .page_tokens = u->kv.page_tokens,
                                 .kv = KV_F16 };

    assert_int_equal(u->kv.dtype, DTYPE_F32);
    assert_int_equal(u->n_experts, 0);
    assert_true(attention_has_tiles(&s, 80));
}

const struct ops *__wrap_ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                                      struct threads *threads, struct ops_stream **stream)
{
    const struct ops *of = __real_ops_cpu_open(tier, setup, threads, stream);

    if (setup->kv.dtype == DTYPE_F32)
        of = half_pages_open(of, setup, *stream);
    if (!rounded.is_next)
        return of;
    check_setup(setup);
    rounded.is_next = false;
    rounded.of = of;
    rounded.setup = *setup;
    rounded.input = mem_alloc((size_t)setup->rows_max * setup->cols_max * sizeof *rounded.input);
    rounded.counts = (struct rounded_cpu_counts){ 0 };
    rounded.table = *of;
    rounded.table.close = rounded_close;
    rounded.table.begin = rounded_begin;
    rounded.table.linear = rounded_linear;
    rounded.table.gated = rounded_gated;
    rounded.table.logits = rounded_logits;
    rounded.table.attention = rounded_attention;
    rounded.table.keep_logit_rows = NULL; /* as on the GPU all rows go to the end */
    return &rounded.table;
}

void rounded_cpu_next(void)
{
    assert_null(rounded.of);
    rounded.is_next = true;
}

struct rounded_cpu_counts rounded_cpu_counts(void)
{
    return rounded.counts;
}
