/* cpu_moe.c - mixtures of experts: who goes where, then the dense products of each chosen expert.
 *
 * The rows of an expert are a list that the products take as the rows of their norm, so nothing is
 * gathered, and each expert runs the kernels of cpu_linear.c on all its rows at once.  A row's result does
 * not depend on its neighbours: what it is sent to follows from its own logits, each product is the same
 * bits for any set of rows, and its experts are added in ascending order. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/cpu_stream.h"

struct cpu_routes {
    uint32_t n_experts, n_used;
    uint32_t n_rows;  /* of the last route() */
    float *logits;    /* [rows_max, n_experts] */
    uint32_t *chosen; /* [rows_max, n_used] experts of a row, ascending */
    float *weight;    /* [rows_max, n_used] theirs */
    uint32_t *first;  /* [n_experts + 1] first pair of each expert */
    uint32_t *row;    /* [rows_max * n_used] of each pair */
    float *share;     /* [rows_max * n_used] weight of each pair */
    float *down;      /* [rows_max, expert_down_max] one expert's product */
};

struct cpu_routes *cpu_routes_new(const struct ops_setup *u)
{
    size_t pairs = (size_t)u->rows_max * u->n_experts_used;
    struct cpu_routes *r;

    if (u->n_experts == 0)
        return NULL;
    assert(u->n_experts_used >= 1 && u->n_experts_used <= u->n_experts);
    r = mem_zalloc(1, sizeof *r);
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

/* ---- the experts ---- */

void cpu_experts_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                       const struct norm *norm, const struct weight *gate, const struct weight *up,
                       enum activation act)
{
    const struct cpu_routes *r = s->routes;

    for (uint32_t e = 0; e < r->n_experts; e++) {
        uint32_t first = r->first[e], n = r->first[e + 1] - first;
        struct norm rows = { .w = norm->w, .eps = norm->eps, .rows = r->row + first };
        if (n > 0)
            cpu_gated(s, (float *)y + first * y_stride, y_stride, x, n, &rows, &gate[e], &up[e],
                      act);
    }
}

struct scatter_job {
    const struct cpu_routes *r;
    struct split split; /* of one expert's pairs */
    uint32_t first, cols;
    float *x;
    size_t x_stride;
};

static void run_scatter(void *arg, uint32_t i)
{
    const struct scatter_job *j = arg;

    for (uint32_t p = split_begin(j->split, i); p < split_end(j->split, i); p++) {
        float *x = j->x + j->r->row[j->first + p] * j->x_stride, share = j->r->share[j->first + p];
        const float *y = j->r->down + (size_t)p * j->cols;
        for (uint32_t k = 0; k < j->cols; k++)
            x[k] += share * y[k];
    }
}

void cpu_experts_down(struct ops_stream *s, void *x, size_t x_stride, const void *y,
                      const struct weight *down)
{
    const struct cpu_routes *r = s->routes;

    assert(down->rows <= s->setup.expert_down_max);
    for (uint32_t e = 0; e < r->n_experts; e++) {
        uint32_t first = r->first[e], n = r->first[e + 1] - first, cols = down[e].rows;
        struct scatter_job j = { r, cpu_split(s, n, cols), first, cols, x, x_stride };
        if (n == 0)
            continue;
        cpu_linear(s, r->down, cols, (const float *)y + (size_t)first * down[e].cols, n, NULL,
                   &down[e], 1, LINEAR_SET);
        threads_run(s->threads, run_scatter, &j, split_count(j.split));
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
