/* cpu_linear.c - matrix products: a list of matrices with one input, cut by panels of output rows.
 *
 * What shares an input is one job, with one barrier: q, k and v; gate, up and the activation between them.
 * Before it the input is prepared (cpu_kernels.h), row by row; a few rows are not worth a second thread's
 * attention, so a step of one or two tokens has no barrier here. */
#include <assert.h>
#include <math.h>

#include "gpu-worker/ops/cpu_stream.h"
#include "gpu-worker/ops/packing.h"

enum { MATRICES_MAX = 4 };

/* Panels of all matrices in one row of numbers, so that a share may begin in one and end in the next. */
struct linear_split_job {
    struct ops_stream *s;
    struct split split; /* of panels */
    uint32_t n_w;
    uint32_t first[MATRICES_MAX + 1]; /* first panel of each */
    struct linear_job jobs[MATRICES_MAX];
    enum activation act; /* of a gated job: matrix 0 is the gate, 1 is up */
    float *out;
    size_t out_stride;
    float softcap;
};

/* ---- the input ---- */

struct prepare_job {
    void (*prepare)(const struct input_job *j, uint32_t begin, uint32_t end);
    struct input_job input;
    struct split split; /* of rows */
};

static void run_prepare(void *arg, uint32_t i)
{
    const struct prepare_job *j = arg;

    j->prepare(&j->input, split_begin(j->split, i), split_end(j->split, i));
}

const void *cpu_prepare(struct ops_stream *s, enum dtype dtype, const float *x, uint32_t n_rows,
                        const struct norm *norm, uint32_t cols)
{
    const struct linear_kernel *k = s->linear[dtype];
    struct prepare_job j = { .prepare = k->prepare,
                             .input = { s->prepared[k->form], x, norm, cols, n_rows },
                             .split = cpu_split(s, n_rows, cols) };

    if (k->form == INPUT_ROWS && !norm)
        return x;
    assert(n_rows <= s->setup.rows_max && cols <= s->setup.cols_max);
    threads_run(s->threads, run_prepare, &j, split_count(j.split));
    return s->prepared[k->form];
}

/* The inputs of one list of matrices, each form prepared when the first matrix asks for it. */
struct inputs {
    const float *x;
    uint32_t n_rows;
    const struct norm *norm;
    const void *ready[N_INPUT_FORMS];
};

static const void *input_for(struct ops_stream *s, struct inputs *in, const struct weight *w)
{
    const void **ready = &in->ready[s->linear[w->dtype]->form];

    if (!*ready)
        *ready = cpu_prepare(s, w->dtype, in->x, in->n_rows, in->norm, w->cols);
    return *ready;
}

/* ---- products ---- */

static struct linear_job job_of(const struct ops_stream *s, const struct weight *w, const void *x,
                                uint32_t n_rows, float *y, size_t y_stride)
{
    return (struct linear_job){ .y = y,
                                .y_stride = y_stride,
                                .x = x,
                                .w = w->data,
                                .dtype = w->dtype,
                                .bias = w->bias,
                                .cols = w->cols,
                                .rows = w->rows,
                                .n_tokens = n_rows,
                                .fetches_far = s->fetches_far };
}

/* Rows begin .. end-1 of matrix m, given in its panels. */
static void run_panels(const struct linear_split_job *j, uint32_t m, uint32_t begin, uint32_t end)
{
    const struct linear_job *job = &j->jobs[m];
    uint32_t height = packing_panel_rows(job->dtype), last = end * height;

    j->s->linear[job->dtype]->run(job, begin * height, last < job->rows ? last : job->rows);
}

static void run_linear(void *arg, uint32_t i)
{
    const struct linear_split_job *j = arg;
    uint32_t begin = split_begin(j->split, i), end = split_end(j->split, i);

    for (uint32_t m = 0; m < j->n_w; m++) {
        uint32_t from = begin > j->first[m] ? begin : j->first[m];
        uint32_t to = end < j->first[m + 1] ? end : j->first[m + 1];
        if (from < to)
            run_panels(j, m, from - j->first[m], to - j->first[m]);
    }
}

static uint64_t panel_cost(const struct weight *w, uint32_t n_rows)
{
    return (uint64_t)packing_panel_rows(w->dtype) * w->cols * n_rows;
}

/* Shares of panels; not odd ones, for tiles of integers are two panels, and a lone one costs as much. */
static struct split split_panels(const struct ops_stream *s, uint32_t n, uint64_t cost)
{
    struct split p = cpu_split(s, n, cost);

    if (p.share > 2)
        p.share += p.share % 2;
    return p;
}

void cpu_linear(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                const struct norm *norm, const struct weight *w, uint32_t n_w,
                enum linear_mode mode)
{
    struct inputs in = { x, n_rows, norm, { NULL } };
    struct linear_split_job j = { .s = s, .n_w = n_w };
    float *column = y;

    assert(n_w >= 1 && n_w <= MATRICES_MAX);
    for (uint32_t m = 0; m < n_w; m++) {
        assert(w[m].cols == w[0].cols);
        j.jobs[m] = job_of(s, &w[m], input_for(s, &in, &w[m]), n_rows, column, y_stride);
        j.jobs[m].add = mode == LINEAR_ADD;
        j.first[m + 1] = j.first[m] + packing_panels(w[m].dtype, w[m].rows);
        column += w[m].rows;
    }
    j.split = split_panels(s, j.first[n_w], panel_cost(&w[0], n_rows));
    threads_run(s->threads, run_linear, &j, split_count(j.split));
}

/* ---- gate and up ---- */

/* Gate and up are multiplied, and read by the activation, some rows at a time: so many that what they give for all
 * tokens stays in the second cache, but for very many tokens. */
enum {
    GATED_FLOATS = 1 << 17, /* of both */
    GATED_ROWS_MIN = 4 * PACKING_PANEL_ROWS_MAX,
};

/* Panels begin .. end - 1 of matrix m as a matrix of its own. */
static struct linear_job panels_of(const struct linear_split_job *j, uint32_t m, uint32_t begin,
                                   uint32_t end, float *y, size_t y_stride)
{
    struct linear_job job = j->jobs[m];
    uint32_t height = packing_panel_rows(job.dtype), first = begin * height, last = end * height;

    job.w = (const char *)job.w + begin * packing_panel_bytes(job.dtype, job.cols);
    job.bias = job.bias ? job.bias + first : NULL;
    job.rows = (last < job.rows ? last : job.rows) - first;
    job.y = y;
    job.y_stride = y_stride;
    return job;
}

/* Panels begin .. end - 1 of gate and up, by way of scratch[n_tokens, 2 * rows]. */
static void gate_panels(const struct linear_split_job *j, uint32_t begin, uint32_t end,
                        float *scratch)
{
    const struct ops_stream *s = j->s;
    uint32_t height = packing_panel_rows(j->jobs[0].dtype);
    size_t width = (size_t)(end - begin) * height, stride = 2 * width;
    struct linear_job gate = panels_of(j, 0, begin, end, scratch, stride);
    struct linear_job up = panels_of(j, 1, begin, end, scratch + width, stride);

    s->linear[gate.dtype]->run(&gate, 0, gate.rows);
    s->linear[up.dtype]->run(&up, 0, up.rows);
    for (uint32_t t = 0; t < gate.n_tokens; t++)
        s->kernels->gate(j->out + t * j->out_stride + begin * height, gate.y + t * stride,
                         up.y + t * stride, gate.rows, j->act);
}

static void run_gated(void *arg, uint32_t i)
{
    const struct linear_split_job *j = arg;
    uint32_t begin = split_begin(j->split, i), end = split_end(j->split, i);
    uint32_t height = packing_panel_rows(j->jobs[0].dtype), n_tokens = j->jobs[0].n_tokens;
    uint32_t fit = GATED_FLOATS / (2 * n_tokens);
    uint32_t step = (fit > GATED_ROWS_MIN ? fit : GATED_ROWS_MIN) / height;
    float *scratch = j->s->gate_up + (size_t)begin * height * 2 * n_tokens;

    for (uint32_t p = begin; p < end; p += step)
        gate_panels(j, p, end - p < step ? end : p + step, scratch);
}

void cpu_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
               const struct norm *norm, const struct weight *gate, const struct weight *up,
               enum activation act)
{
    struct inputs in = { x, n_rows, norm, { NULL } };
    uint32_t n = gate->rows;
    struct linear_split_job j = {
        .s = s,
        .n_w = 2,
        .jobs = { job_of(s, gate, input_for(s, &in, gate), n_rows, NULL, 0),
                  job_of(s, up, input_for(s, &in, up), n_rows, NULL, 0) },
        .act = act,
        .out = y,
        .out_stride = y_stride,
    };

    assert(gate->rows == up->rows && gate->cols == up->cols && n <= s->setup.gated_max);
    assert(packing_panel_rows(gate->dtype) == packing_panel_rows(up->dtype));
    j.split = split_panels(s, packing_panels(gate->dtype, n), 2 * panel_cost(gate, n_rows));
    threads_run(s->threads, run_gated, &j, split_count(j.split));
}

/* ---- the head ---- */

static void run_logits(void *arg, uint32_t i)
{
    const struct linear_split_job *j = arg;
    const struct linear_job *job = &j->jobs[0];
    uint32_t height = packing_panel_rows(job->dtype), first = split_begin(j->split, i) * height;
    uint32_t last = split_end(j->split, i) * height;

    run_panels(j, 0, split_begin(j->split, i), split_end(j->split, i));
    for (uint32_t t = 0; t < job->n_tokens && j->softcap != 0; t++)
        for (uint32_t r = first; r < last && r < job->rows; r++) {
            float *y = job->y + t * job->y_stride + r;
            *y = j->softcap * tanhf(*y / j->softcap);
        }
}

void cpu_logits(struct ops_stream *s, float *y, size_t y_stride, const void *x, uint32_t n_rows,
                const struct norm *norm, const struct weight *w, float softcap)
{
    const void *in = cpu_prepare(s, w->dtype, x, n_rows, norm, w->cols);
    struct linear_split_job j = {
        .s = s, .n_w = 1, .jobs = { job_of(s, w, in, n_rows, y, y_stride) }, .softcap = softcap
    };

    j.split = split_panels(s, packing_panels(w->dtype, w->rows), panel_cost(w, n_rows));
    threads_run(s->threads, run_logits, &j, split_count(j.split));
}
