/* ops_cpu.c - the definition of every op: plain loops, float sums, in the order the formula is read.
 *
 * Run on machines without vector units that we know, and by the tests, which hold the other tiers against
 * it.  Not written for speed. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/packing_float.h"

static inline float element(const void *w, enum dtype dtype, size_t i)
{
    switch (dtype) {
    case DTYPE_F32:
        return ((const float *)w)[i];
    case DTYPE_F16:
        return f16_to_float(((const uint16_t *)w)[i]);
    default:
        return bf16_to_float(((const uint16_t *)w)[i]);
    }
}

static void plain_widen(float *y, const void *x, enum dtype dtype, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = element(x, dtype, i);
}

static void plain_narrow(void *y, const float *x, enum dtype dtype, uint32_t n)
{
    if (dtype == DTYPE_F32)
        memcpy(y, x, n * sizeof *x);
    else
        for (uint32_t i = 0; i < n; i++)
            ((uint16_t *)y)[i] = float_to_f16(x[i]);
}

static void plain_rmsnorm(float *y, const float *x, const float *w, uint32_t dim, float eps)
{
    float sum = 0, scale;

    for (uint32_t i = 0; i < dim; i++)
        sum += x[i] * x[i];
    scale = 1 / sqrtf(sum / (float)dim + eps);
    for (uint32_t i = 0; i < dim; i++)
        y[i] = w[i] * (x[i] * scale);
}

/* w[0] x[0] + w[1] x[1] + ..., from the left; one loop per type, so that none decides per element. */
static float dot(const void *w, enum dtype dtype, const float *x, uint32_t n)
{
    float sum = 0;

    if (dtype == DTYPE_F32)
        for (uint32_t k = 0; k < n; k++)
            sum += ((const float *)w)[k] * x[k];
    else if (dtype == DTYPE_F16)
        for (uint32_t k = 0; k < n; k++)
            sum += f16_to_float(((const uint16_t *)w)[k]) * x[k];
    else
        for (uint32_t k = 0; k < n; k++)
            sum += bf16_to_float(((const uint16_t *)w)[k]) * x[k];
    return sum;
}

static void prepare_rows(const struct input_job *j, uint32_t begin, uint32_t end)
{
    for (uint32_t t = begin; t < end; t++) {
        float *y = (float *)j->out + (size_t)t * j->cols;
        if (j->norm)
            plain_rmsnorm(y, input_row(j, t), j->norm->w, j->cols, j->norm->eps);
        else
            memcpy(y, input_row(j, t), j->cols * sizeof *y);
    }
}

enum { RUN_COLS = 64, RUN_TOKENS = 64, ROWS = PACKING_FLOAT_ROWS_MAX };

/* Sums of a panel's rows for some tokens, and a run of the panel's columns as floats. */
struct panel_run {
    float sums[RUN_TOKENS][ROWS];
    float w[RUN_COLS][ROWS];
};

static void add_run(struct panel_run *p, const struct linear_job *j, uint32_t first_token,
                    uint32_t n_tokens, uint32_t k, uint32_t n)
{
    for (uint32_t t = 0; t < n_tokens; t++) {
        const float *x = (const float *)j->x + (size_t)(first_token + t) * j->cols + k;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t r = 0; r < ROWS; r++)
                p->sums[t][r] += p->w[i][r] * x[i];
    }
}

static void load_run(struct panel_run *p, const struct linear_job *j, uint32_t row, uint32_t k,
                     uint32_t n)
{
    uint32_t height = packing_float_rows(j->dtype);
    const char *panel = (const char *)j->w + row / height * packing_float_bytes(j->dtype, j->cols);
    float one[RUN_COLS];

    for (uint32_t r = 0; r < height; r++) {
        packing_float_row(j->dtype, one, panel + (size_t)k * 64, r, n);
        for (uint32_t i = 0; i < n; i++)
            p->w[i][r] = one[i];
    }
}

static void finish_run(const struct panel_run *p, const struct linear_job *j, uint32_t row,
                       uint32_t n_rows, uint32_t first_token, uint32_t n_tokens)
{
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t r = 0; r < n_rows; r++) {
            float *y = j->y + (first_token + t) * j->y_stride + row + r;
            float sum = p->sums[t][r] + (j->bias ? j->bias[row + r] : 0);
            *y = j->add ? *y + sum : sum;
        }
}

/* Each sum over the columns from the left, panel by panel, a run of columns at a time for many tokens. */
static void linear_panels(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    uint32_t height = packing_float_rows(j->dtype);

    for (uint32_t row = row_begin; row < row_end; row += height)
        for (uint32_t first = 0; first < j->n_tokens; first += RUN_TOKENS) {
            uint32_t n = j->n_tokens - first < RUN_TOKENS ? j->n_tokens - first : RUN_TOKENS;
            struct panel_run p = { 0 };
            for (uint32_t k = 0; k < j->cols; k += RUN_COLS) {
                uint32_t cols = j->cols - k < RUN_COLS ? j->cols - k : RUN_COLS;
                load_run(&p, j, row, k, cols);
                add_run(&p, j, first, n, k, cols);
            }
            finish_run(&p, j, row, row_end - row < height ? row_end - row : height, first, n);
        }
}

static void plain_rope(float *x, const float *cos, const float *sin, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = b * cos[i] + a * sin[i];
    }
}

/* Fold positions begin..end-1 of one page, scored in p[], into (m, l, out): the running maximum, the sum
 * of exponentials and the weighted values, both relative to m. */
static void fold_page(const struct attention_job *j, const char *v, float *out, float *p,
                      uint32_t begin, uint32_t end, float *m, float *l)
{
    float m_new = *m, shrink;

    for (uint32_t t = begin; t < end; t++)
        m_new = fmaxf(m_new, p[t]);
    shrink = expf(*m - m_new);
    *l *= shrink;
    for (uint32_t d = 0; d < j->head_dim; d++)
        out[d] *= shrink;
    for (uint32_t t = begin; t < end; t++) {
        float weight = expf(p[t] - m_new);
        *l += weight;
        for (uint32_t d = 0; d < j->head_dim; d++)
            out[d] += weight * element(v, j->dtype, (size_t)t * j->head_dim + d);
    }
    *m = m_new;
}

static void attend_head(const struct attention_job *j, float *out, const float *q)
{
    float m = -INFINITY, l = 0;
    float p[ATTENTION_PAGE_TOKENS_MAX];

    memset(out, 0, j->head_dim * sizeof *out);
    for (uint32_t at = j->first; at <= j->last;) {
        const char *page = j->pages + j->page_table[at / j->page_tokens] * j->page_bytes;
        uint32_t begin = at % j->page_tokens, left = j->last - at + 1;
        uint32_t end = begin + left < j->page_tokens ? begin + left : j->page_tokens;
        for (uint32_t t = begin; t < end; t++)
            p[t] =
                j->scale * dot(page + j->k_offset + dtype_bytes(j->dtype, (size_t)t * j->head_dim),
                               j->dtype, q, j->head_dim);
        for (uint32_t t = begin; t < end && j->softcap != 0; t++)
            p[t] = j->softcap * tanhf(p[t] / j->softcap);
        fold_page(j, page + j->v_offset, out, p, begin, end, &m, &l);
        at += end - begin;
    }
    for (uint32_t d = 0; d < j->head_dim; d++)
        out[d] /= l;
}

static void plain_attention(const struct attention_job *j)
{
    assert(j->page_tokens <= ATTENTION_PAGE_TOKENS_MAX && j->first <= j->last);
    for (uint32_t h = 0; h < j->group; h++)
        attend_head(j, j->out + h * j->head_dim, j->q + h * j->head_dim);
}

/* 0.5 a (1 + tanh(z)) = a / (1 + exp(-2 z)), z = sqrt(2 / pi) (a + 0.044715 a^3) */
static float gelu_exponent(float a)
{
    return 1.5957691216f * (a + 0.044715f * a * a * a);
}

static void plain_gate(float *y, const float *gate, const float *up, uint32_t n,
                       enum activation act)
{
    for (uint32_t i = 0; i < n; i++) {
        float z = act == ACT_SILU ? gate[i] : gelu_exponent(gate[i]);
        y[i] = gate[i] / (1 + expf(-z)) * up[i];
    }
}

const struct cpu_kernels cpu_kernels_plain = {
    .widen = plain_widen,
    .narrow = plain_narrow,
    .rmsnorm = plain_rmsnorm,
    .rope = plain_rope,
    .attention = plain_attention,
    .gate = plain_gate,
};

const struct linear_kernel linear_f32_plain = { INPUT_ROWS, prepare_rows, linear_panels };
const struct linear_kernel linear_f16_plain = { INPUT_ROWS, prepare_rows, linear_panels };
const struct linear_kernel linear_bf16_plain = { INPUT_ROWS, prepare_rows, linear_panels };
