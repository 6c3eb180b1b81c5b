/* cpu_moe.c - mixtures of experts: who goes where, then the products of each chosen expert.
 *
 * The rows of an expert are a list that the input of its products takes as the rows of its norm, so nothing
 * is gathered, and each expert runs the kernels of cpu_linear.c (cpu_kernels.h) on all its rows at once.  A
 * row's result does not depend on its neighbours: what it is sent to follows from its own logits, each
 * product is the same bits for any set of rows, and its experts are added in ascending order. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/cpu_stream.h"
#include "gpu-worker/ops/packing.h"

struct cpu_routes {
    uint32_t rows_max, n_experts, n_used;
    uint32_t n_rows;  /* of the last route() */
    float *logits;    /* [rows_max, n_experts] */
    uint32_t *chosen; /* [rows_max, n_used] experts of a row, ascending */
    float *weight;    /* [rows_max, n_used] theirs */
    uint32_t *first;  /* [n_experts + 1] first pair of each expert */
    uint32_t *row;    /* [rows_max * n_used] of each pair */
    float *share;     /* [rows_max * n_used] weight of each pair */
    float *down;      /* [rows_max, expert_down_max] products of a wave */
};

struct cpu_routes *cpu_routes_new(const struct ops_setup *u)
{
    size_t pairs = (size_t)u->rows_max * u->n_experts_used;
    struct cpu_routes *r;

    if (u->n_experts == 0)
        return NULL;
    assert(u->n_experts_used >= 1 && u->n_experts_used <= u->n_experts);
    r = mem_zalloc(1, sizeof *r);
    r->rows_max = u->rows_max;
    r->n_experts = u->n_experts;
    r->n_used = u->n_experts_used;
    r->logits = aligned_mem(64, (size_t)u->rows_max * u->n_experts * sizeof *r->logits);
    r->chosen = mem_zalloc(pairs, sizeof *r->chosen);
    r->weight = mem_zalloc(pairs, sizeof *r->weight);
    r->first = mem_zalloc(u->n_experts + 1, sizeof *r->first);
    r->row = mem_zalloc(pairs, sizeof *r->row);
    r->share = mem_zalloc(pairs, sizeof *r->share);
    r->down = aligned_mem(64, (size_t)u->rows_max * u->expert_down_max * sizeof *r->down);
    return r;
}

void cpu_routes_free(struct cpu_routes *r)
{
    if (!r)
        return;
    free(r->logits);
    free(r->chosen);
    free(r->weight);
    free(r->first);
    free(r->row);
    free(r->share);
    free(r->down);
    free(r);
}

/* ---- the choice ---- */

/* Of equals the first.  What is no number is never larger, but something is found whatever the logits are:
 * damaged weights must not become a wild index. */
static uint32_t next_largest(const float *logits, uint32_t n, const bool *taken)
{
    uint32_t best = n;

    for (uint32_t e = 0; e < n; e++)
        if (!taken[e] && (best == n || logits[e] > logits[best]))
            best = e;
    return best;
}

/* chosen[] gets the n_used largest, ascending by index. */
static void choose(const float *logits, uint32_t n, uint32_t n_used, uint32_t *chosen)
{
    bool taken[EXPERTS_MAX] = { false };

    for (uint32_t k = 0; k < n_used; k++)
        taken[next_largest(logits, n, taken)] = true;
    for (uint32_t e = 0, k = 0; e < n; e++)
        if (taken[e])
            chosen[k++] = e;
}

/* weight[] = softmax(logits)[chosen], over the sum of the chosen when normalise. */
static void weigh(const float *logits, uint32_t n, const uint32_t *chosen, uint32_t n_used,
                  bool normalise, float *weight)
{
    float max = logits[0], all = 0, kept = 0;

    for (uint32_t e = 1; e < n; e++)
        max = fmaxf(max, logits[e]);
    for (uint32_t e = 0; e < n; e++)
        all += expf(logits[e] - max);
    for (uint32_t k = 0; k < n_used; k++) {
        weight[k] = expf(logits[chosen[k]] - max);
        kept += weight[k];
    }
    for (uint32_t k = 0; k < n_used; k++)
        weight[k] /= normalise ? kept : all;
}

struct choose_job {
    struct cpu_routes *r;
    struct split split; /* of rows */
    bool normalise;
};

static void run_choose(void *arg, uint32_t i)
{
    const struct choose_job *j = arg;
    const struct cpu_routes *r = j->r;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++) {
        const float *logits = r->logits + (size_t)t * r->n_experts;
        size_t at = (size_t)t * r->n_used;
        choose(logits, r->n_experts, r->n_used, r->chosen + at);
        weigh(logits, r->n_experts, r->chosen + at, r->n_used, j->normalise, r->weight + at);
    }
}

/* Pairs by expert, then by row: a counting sort. */
static void sort_pairs(struct cpu_routes *r)
{
    uint32_t n_pairs = r->n_rows * r->n_used;

    for (uint32_t e = 0; e <= r->n_experts; e++)
        r->first[e] = 0;
    for (uint32_t i = 0; i < n_pairs; i++)
        r->first[r->chosen[i] + 1]++;
    for (uint32_t e = 0; e < r->n_experts; e++)
        r->first[e + 1] += r->first[e];
    for (uint32_t i = 0; i < n_pairs; i++) {
        uint32_t at = r->first[r->chosen[i]]++;
        r->row[at] = i / r->n_used;
        r->share[at] = r->weight[i];
    }
    for (uint32_t e = r->n_experts; e > 0; e--) /* each one ended where the next begins */
        r->first[e] = r->first[e - 1];
    r->first[0] = 0;
}

void cpu_route(struct ops_stream *s, const void *x, uint32_t n_rows, const struct norm *norm,
               const struct weight *router, bool normalise)
{
    struct cpu_routes *r = s->routes;
    struct choose_job j = { .r = r, .normalise = normalise };

    assert(router->rows == r->n_experts && n_rows <= s->setup.rows_max);
    cpu_linear(s, r->logits, r->n_experts, x, n_rows, norm, router, 1, LINEAR_SET);
    j.split = cpu_split(s, n_rows, (uint64_t)r->n_experts * r->n_used);
    threads_run(s->threads, run_choose, &j, split_count(j.split));
    r->n_rows = n_rows;
    sort_pairs(r);
}

/* ---- the experts ----
 *
 * Experts are taken in waves of some pairs: all chosen ones at once when few rows are decoded, one at a
 * time when many are read.  A wave is a job or two, not one for each expert, so a step of one row waits for
 * its threads hardly oftener than with a dense MLP; and larger waves would only push what one job writes out
 * of the caches before the next one reads it. */

enum { WAVE_PAIRS = 64 };

struct wave {
    uint32_t begin, end; /* experts */
    uint32_t first, n;   /* their pairs: those of one expert, or WAVE_PAIRS at most */
};

static uint32_t pairs_of(const struct cpu_routes *r, uint32_t e)
{
    return r->first[e + 1] - r->first[e];
}

/* The one behind *w, with a pair at least; begin with a zeroed one. */
static bool next_wave(const struct cpu_routes *r, struct wave *w)
{
    uint32_t most = r->rows_max < WAVE_PAIRS ? r->rows_max : WAVE_PAIRS, begin = w->end, end;

    while (begin < r->n_experts && pairs_of(r, begin) == 0)
        begin++;
    end = begin < r->n_experts ? begin + 1 : begin;
    while (end < r->n_experts && r->first[end + 1] - r->first[begin] <= most)
        end++;
    *w = (struct wave){ begin, end, r->first[begin], r->first[end] - r->first[begin] };
    return begin < r->n_experts;
}

struct expert_job {
    struct ops_stream *s;
    struct wave wave;
    struct split split;
    const float *x; /* rows of the step with a norm, of the pairs without */
    const struct norm *norm;
    const struct weight *w, *up; /* [n_experts]; up is NULL when there is no gate */
    float *y;                    /* of the wave's first pair */
    size_t y_stride;
    enum activation act;
};

static const struct linear_kernel *kernel_of(const struct expert_job *j, const struct weight *w)
{
    return j->s->linear[w->dtype];
}

static bool is_read_in_place(const struct expert_job *j, const struct weight *w)
{
    return !j->norm && kernel_of(j, w)->form == INPUT_ROWS;
}

/* Where the prepared input of expert e begins: each has the room that its rows need in any form. */
static void *prepared_of(const struct expert_job *j, uint32_t e, const struct weight *w)
{
    size_t row_bytes = (size_t)(w->cols + 63) / 64 * 64 * sizeof(float);

    return (char *)j->s->prepared[kernel_of(j, w)->form] +
           (j->s->routes->first[e] - j->wave.first) * row_bytes;
}

static struct linear_job product_of(const struct expert_job *j, uint32_t e, const struct weight *w,
                                    float *y, size_t y_stride)
{
    const struct cpu_routes *r = j->s->routes;

    return (struct linear_job){
        .y = y,
        .y_stride = y_stride,
        .x = is_read_in_place(j, w) ? j->x + (size_t)r->first[e] * w->cols : prepared_of(j, e, w),
        .w = w->data,
        .dtype = w->dtype,
        .bias = w->bias,
        .cols = w->cols,
        .rows = w->rows,
        .n_tokens = pairs_of(r, e),
        .fetches_far = j->s->fetches_far,
    };
}

/* Pairs begin .. end - 1 of expert e. */
static void prepare_expert(const struct expert_job *j, uint32_t e, const struct weight *w,
                           uint32_t begin, uint32_t end)
{
    const struct cpu_routes *r = j->s->routes;
    struct norm norm = { NULL, 0, NULL };
    struct input_job in = {
        .out = prepared_of(j, e, w), .x = j->x, .cols = w->cols, .n_tokens = pairs_of(r, e)
    };

    if (j->norm) {
        norm = (struct norm){ .w = j->norm->w, .eps = j->norm->eps, .rows = r->row + r->first[e] };
        in.norm = &norm;
    } else
        in.x += (size_t)r->first[e] * w->cols;
    kernel_of(j, w)->prepare(&in, begin, end);
}

/* A share is some pairs of the wave. */
static void run_prepare(void *arg, uint32_t i)
{
    const struct expert_job *j = arg;
    const struct cpu_routes *r = j->s->routes;
    uint32_t begin = split_begin(j->split, i), end = split_end(j->split, i);

    for (uint32_t e = j->wave.begin; e < j->wave.end; e++) {
        uint32_t at = r->first[e] - j->wave.first, n = pairs_of(r, e);
        uint32_t from = begin > at ? begin - at : 0, to = end < at + n ? end : at + n;
        if (to <= at || from >= to - at)
            continue;
        if (!is_read_in_place(j, &j->w[e]))
            prepare_expert(j, e, &j->w[e], from, to - at);
        if (j->up && kernel_of(j, &j->up[e])->form != kernel_of(j, &j->w[e])->form)
            prepare_expert(j, e, &j->up[e], from, to - at);
    }
}

static void prepare(struct expert_job *j)
{
    bool any = false;

    for (uint32_t e = j->wave.begin; e < j->wave.end; e++)
        any = any || (pairs_of(j->s->routes, e) > 0 && !is_read_in_place(j, &j->w[e]));
    if (!any)
        return;
    j->split = cpu_split(j->s, j->wave.n, j->w->cols);
    threads_run(j->s->threads, run_prepare, j, split_count(j->split));
}

/* Output rows of panels begin .. end - 1. */
static void run_expert(const struct expert_job *j, uint32_t e, uint32_t begin, uint32_t end)
{
    const struct ops_stream *s = j->s;
    const struct weight *w = &j->w[e], *up = j->up ? &j->up[e] : NULL;
    uint32_t height = packing_panel_rows(w->dtype), first = begin * height;
    uint32_t last = end * height < w->rows ? end * height : w->rows;
    size_t pair = s->routes->first[e] - j->wave.first;
    float *y = j->y + pair * j->y_stride, *gate_up = s->gate_up + pair * 2 * w->rows;
    struct linear_job a = product_of(j, e, w, up ? gate_up : y, up ? 2 * w->rows : j->y_stride), b;

    kernel_of(j, w)->run(&a, first, last);
    if (!up)
        return;
    b = product_of(j, e, up, gate_up + w->rows, 2 * w->rows);
    kernel_of(j, up)->run(&b, first, last);
    for (uint32_t t = 0; t < a.n_tokens; t++)
        s->kernels->gate(y + t * j->y_stride + first, a.y + t * a.y_stride + first,
                         b.y + t * b.y_stride + first, last - first, j->act);
}

/* All experts' panels stand in one line, each as long as its expert has pairs; a share has the panels that
 * begin in it. */
static void run_line(void *arg, uint32_t i)
{
    const struct expert_job *j = arg;
    uint32_t begin = split_begin(j->split, i), end = split_end(j->split, i), at = 0;

    for (uint32_t e = j->wave.begin; e < j->wave.end && at < end; e++) {
        uint32_t n = pairs_of(j->s->routes, e);
        uint32_t n_panels = packing_panels(j->w[e].dtype, j->w[e].rows), length = n * n_panels;
        if (n > 0 && at + length > begin) {
            uint32_t from = begin > at ? (begin - at + n - 1) / n : 0;
            uint32_t to = end < at + length ? (end - at + n - 1) / n : n_panels;
            if (from < to)
                run_expert(j, e, from, to);
        }
        at += length;
    }
}

/* y of the wave's pairs. */
static void run_wave(struct expert_job *j)
{
    uint32_t length = 0;
    uint64_t cost = (uint64_t)packing_panel_rows(j->w->dtype) * j->w->cols * (j->up ? 2 : 1);

    prepare(j);
    for (uint32_t e = j->wave.begin; e < j->wave.end; e++)
        length += pairs_of(j->s->routes, e) * packing_panels(j->w[e].dtype, j->w[e].rows);
    j->split = cpu_split(j->s, length, cost);
    threads_run(j->s->threads, run_line, j, split_count(j->split));
}

void cpu_experts_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                       const struct norm *norm, const struct weight *gate, const struct weight *up,
                       enum activation act)
{
    const struct cpu_routes *r = s->routes;
    struct expert_job j = {
        .s = s, .x = x, .norm = norm, .w = gate, .up = up, .y_stride = y_stride, .act = act
    };

    assert(gate->rows == up->rows && gate->rows <= s->setup.gated_max && !norm->rows);
    assert(packing_panel_rows(gate->dtype) == packing_panel_rows(up->dtype));
    while (next_wave(r, &j.wave)) {
        j.y = (float *)y + j.wave.first * y_stride;
        run_wave(&j);
    }
}

enum { COLUMNS = 16 }; /* a cache line: no two threads write one */

struct scatter_job {
    const struct cpu_routes *r;
    struct wave wave;
    struct split split; /* of runs of COLUMNS columns: each element has one thread, and one order */
    uint32_t cols;
    float *x;
    size_t x_stride;
};

static void run_scatter(void *arg, uint32_t i)
{
    const struct scatter_job *j = arg;
    uint32_t begin = split_begin(j->split, i) * COLUMNS, end = split_end(j->split, i) * COLUMNS;

    end = end < j->cols ? end : j->cols;
    for (uint32_t p = 0; p < j->wave.n; p++) {
        float *x = j->x + j->r->row[j->wave.first + p] * j->x_stride;
        float share = j->r->share[j->wave.first + p];
        const float *y = j->r->down + (size_t)p * j->cols;
        for (uint32_t k = begin; k < end; k++)
            x[k] += share * y[k];
    }
}

void cpu_experts_down(struct ops_stream *s, void *x, size_t x_stride, const void *y,
                      const struct weight *down)
{
    struct cpu_routes *r = s->routes;
    uint32_t cols = down->rows;
    struct expert_job j = { .s = s, .x = y, .w = down, .y = r->down, .y_stride = cols };

    assert(cols <= s->setup.expert_down_max);
    while (next_wave(r, &j.wave)) {
        struct scatter_job add = {
            .r = r, .wave = j.wave, .cols = cols, .x = x, .x_stride = x_stride
        };
        run_wave(&j);
        add.split = cpu_split(s, (cols + COLUMNS - 1) / COLUMNS, (uint64_t)COLUMNS * j.wave.n);
        threads_run(s->threads, run_scatter, &add, split_count(add.split));
    }
}

/* ---- the gate of a shared expert ---- */

void cpu_gate_rows(struct ops_stream *s, void *y, size_t y_stride, uint32_t cols, const void *x,
                   uint32_t n_rows, const struct norm *norm, const struct weight *w)
{
    float *score = s->routes->logits; /* [n_rows], free once the pairs are sorted */

    assert(w->rows == 1 && n_rows <= s->setup.rows_max);
    cpu_linear(s, score, 1, x, n_rows, norm, w, 1, LINEAR_SET);
    for (uint32_t t = 0; t < n_rows; t++) {
        float *row = (float *)y + t * y_stride, open = 1 / (1 + expf(-score[t]));
        for (uint32_t k = 0; k < cols; k++)
            row[k] *= open;
    }
}
