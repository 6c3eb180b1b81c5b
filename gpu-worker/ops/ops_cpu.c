/* ops_cpu.c - the definition of every op: plain loops, float sums, in the order the formula is read.
 *
 * Run on machines without vector units that we know, and by the tests, which hold the other tiers against
 * it.  Not written for speed. */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/packing_float.h"
#include "proto/kvpool_layout.h"

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

static void plain_rmsnorm(float *y, const float *x, const float *w, uint32_t dim, float eps)
{
    float sum = 0, scale;

    for (uint32_t i = 0; i < dim; i++)
        sum += x[i] * x[i];
    scale = 1 / sqrtf(sum / (float)dim + eps);
    for (uint32_t i = 0; i < dim; i++)
        y[i] = w[i] * (x[i] * scale);
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

/* Element d of K or V at a position. */
static float kv_element(const struct attention_job *j, const struct attention_row *row,
                        uint32_t position, uint32_t d, bool is_v)
{
    const char *block = j->pages + row->page_table[position / j->page_tokens] * j->page_bytes +
                        (is_v ? j->v_offset : j->k_offset);
    const char *codes = block + kv_scales_bytes(j->dtype, j->page_tokens);
    uint32_t t = position % j->page_tokens;
    size_t i =
        is_v ? kv_v_index(j->dtype, j->head_dim, t, d) : kv_k_index(j->dtype, j->page_tokens, t, d);

    if (j->dtype == DTYPE_F32)
        return ((const float *)codes)[i];
    return ((const float *)block)[t] * (float)(j->dtype == DTYPE_I16 ? ((const int16_t *)codes)[i]
                                                                     : ((const int8_t *)codes)[i]);
}

static float score(const struct attention_job *j, const struct attention_row *row,
                   uint32_t position)
{
    float sum = 0;

    for (uint32_t d = 0; d < j->head_dim; d++)
        sum += row->q[d] * kv_element(j, row, position, d, false);
    sum *= j->scale;
    return j->softcap != 0 ? j->softcap * tanhf(sum / j->softcap) : sum;
}

static void attend_row(const struct attention_job *j, uint32_t i, struct attention_sum *sum,
                       float *out)
{
    const struct attention_row *row = &j->rows[i];
    uint32_t first = attention_first(row, j->window), last = row->last;
    uint32_t begin = first > j->begin ? first : j->begin;
    uint32_t end = last < j->end ? last + 1 : j->end;
    float p[ATTENTION_SPLIT];

    *sum = (struct attention_sum){ -INFINITY, 0 };
    memset(out, 0, j->head_dim * sizeof *out);
    for (uint32_t at = begin; at < end; at++) {
        p[at - begin] = score(j, row, at);
        sum->largest = fmaxf(sum->largest, p[at - begin]);
    }
    for (uint32_t at = begin; at < end; at++) {
        float weight = exp2f(p[at - begin] - sum->largest);
        sum->sum += weight;
        for (uint32_t d = 0; d < j->head_dim; d++)
            out[d] += weight * kv_element(j, row, at, d, true);
    }
}

static void plain_attention_queries(const struct attention_job *j, float *q, float *scales)
{
    (void)j; /* .rows as they are */
    (void)q;
    (void)scales;
}

static void plain_attention(const struct attention_job *j, struct attention_sum *sums, float *out)
{
    assert(j->end - j->begin <= ATTENTION_SPLIT);
    for (uint32_t i = 0; i < j->n_rows; i++)
        attend_row(j, i, &sums[i], out + (size_t)i * j->head_dim);
}

static void plain_attention_merge(struct attention_sum *sum, float *out,
                                  const struct attention_sum *more, const float *more_out,
                                  uint32_t head_dim)
{
    struct attention_factors f = attention_merge_sums(sum, more);

    for (uint32_t d = 0; d < head_dim && f.more != 0; d++)
        out[d] = out[d] * f.old + more_out[d] * f.more;
}

static void plain_attention_finish(float *out, const float *values, float sum, uint32_t head_dim)
{
    float inverse = 1 / sum;

    for (uint32_t d = 0; d < head_dim; d++)
        out[d] = values[d] * inverse;
}

static float largest_of(const float *x, uint32_t n)
{
    float largest = 0;

    for (uint32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    return largest;
}

static float plain_narrow_i8(int8_t *y, const float *x, uint32_t n)
{
    float scale = largest_of(x, n) / 127, inverse = scale > 0 ? 1 / scale : 0;

    for (uint32_t i = 0; i < n; i++)
        y[i] = (int8_t)lrintf(fminf(fmaxf(x[i] * inverse, -127), 127));
    return scale;
}

/* Of a scale too small for a reciprocal 0. */
static void store_codes16(int16_t *y, const float *x, uint32_t n, float scale)
{
    float inverse = scale >= FLT_MIN ? 1 / scale : 0;

    for (uint32_t i = 0; i < n; i++)
        y[i] = (int16_t)lrintf(fminf(fmaxf(x[i] * inverse, -INT16_MAX), INT16_MAX));
}

static float plain_narrow_k16(int16_t *y, const float *x, uint32_t n)
{
    float sum = 0, scale;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    scale = sqrtf(sum) / KV_K16_LENGTH;
    store_codes16(y, x, n, scale);
    return scale;
}

static float plain_narrow_v16(int16_t *y, const float *x, uint32_t n)
{
    float scale = largest_of(x, n) / KV_V16_MAX;

    store_codes16(y, x, n, scale);
    return scale;
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
    .narrow_i8 = plain_narrow_i8,
    .narrow_k16 = plain_narrow_k16,
    .narrow_v16 = plain_narrow_v16,
    .rmsnorm = plain_rmsnorm,
    .rope = plain_rope,
    .attention_queries = plain_attention_queries,
    .attention = plain_attention,
    .attention_merge = plain_attention_merge,
    .attention_finish = plain_attention_finish,
    .gate = plain_gate,
};

const struct linear_kernel linear_f32_plain = { INPUT_ROWS, prepare_rows, linear_panels };
const struct linear_kernel linear_f16_plain = { INPUT_ROWS, prepare_rows, linear_panels };
const struct linear_kernel linear_bf16_plain = { INPUT_ROWS, prepare_rows, linear_panels };
