/* bench_moe.c - routes of a mixture of experts: chosen, sorted, and what comes back put together. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/kernels/moe.h"
#include "gpu-worker/cuda/verify/bench.h"

enum { USED = 2, GROUP_ROWS = 64 };

/* ---- choose ---- */

/* How many experts stand before this one. */
static uint32_t standing(const float *logits, uint32_t n, uint32_t expert)
{
    uint32_t before = 0;

    for (uint32_t e = 0; e < n; e++)
        before += logits[e] > logits[expert] || (logits[e] == logits[expert] && e < expert);
    return before;
}

/* Another expert than the host's is an error of 1. */
static void compare_choice(struct bench *b, const float *logits, const uint32_t *chosen,
                           const float *share)
{
    uint32_t n = b->shape.cols;
    double kept = 0;

    for (uint32_t e = 0; e < n; e++)
        if (standing(logits, n, e) < USED)
            kept += exp((double)logits[e]);
    for (uint32_t e = 0, k = 0; e < n; e++)
        if (standing(logits, n, e) < USED) {
            bench_note(b, chosen[k] == e, 1, 1);
            bench_note(b, (double)share[k++], exp((double)logits[e]) / kept, 1);
        }
}

void bench_moe_choose(struct bench *b)
{
    uint32_t rows = b->shape.rows, experts = b->shape.cols;
    uint64_t n = (uint64_t)rows * experts, n_pairs = (uint64_t)rows * USED;
    float *logits = bench_numbers(b, n, 18), *share = bench_host(b, n_pairs * sizeof *share);
    uint32_t *chosen = bench_host(b, n_pairs * sizeof *chosen);
    cu_ptr dl = bench_put(b, logits, n * sizeof *logits),
           ds = bench_device(b, n_pairs * sizeof *share),
           dc = bench_device(b, n_pairs * sizeof *chosen);
    struct moe_choose_args args = { .chosen = (uint32_t *)(uintptr_t)dc,
                                    .share = (float *)(uintptr_t)ds,
                                    .logits = (const float *)(uintptr_t)dl,
                                    .n_rows = rows,
                                    .n_experts = experts,
                                    .n_used = USED,
                                    .normalise = 1 };
    struct device_grid grid = { { moe_choose_grid(rows), 1, 1 }, MOE_CHOOSE_THREADS, 0 };

    b->bytes = (double)n * 4 + (double)n_pairs * 8;
    bench_time(b, "moe_choose", &grid, &args, sizeof args);
    bench_get(b, chosen, dc, n_pairs * sizeof *chosen);
    bench_get(b, share, ds, n_pairs * sizeof *share);
    for (uint32_t t = 0; t < rows; t++)
        compare_choice(b, logits + (uint64_t)t * experts, chosen + (uint64_t)t * USED,
                       share + (uint64_t)t * USED);
    device_free(b->d.device, dl);
    device_free(b->d.device, ds);
    device_free(b->d.device, dc);
    free(logits);
    free(share);
    free(chosen);
}

/* ---- sort ---- */

/* Each row has two neighbours of the experts, the lower one at random. */
struct pairs {
    uint32_t n, n_experts, n_groups;
    uint32_t *chosen, *pair_row, *pair_of; /* [n] */
    struct moe_group *groups;
};

static void make_pairs(struct bench *b, struct pairs *p)
{
    float *x = bench_numbers(b, b->shape.rows, 19);

    *p = (struct pairs){ .n = b->shape.rows * USED, .n_experts = b->shape.cols };
    p->n_groups = moe_groups_bound(p->n, p->n_experts, GROUP_ROWS);
    p->chosen = bench_host(b, p->n * sizeof *p->chosen);
    p->pair_row = bench_host(b, p->n * sizeof *p->pair_row);
    p->pair_of = bench_host(b, p->n * sizeof *p->pair_of);
    p->groups = bench_host(b, p->n_groups * sizeof *p->groups);
    for (uint32_t t = 0; t < b->shape.rows; t++) {
        p->chosen[2 * t] = (uint32_t)((x[t] + 1) / 2 * (float)(p->n_experts - 1));
        p->chosen[2 * t + 1] = p->chosen[2 * t] + 1;
    }
    free(x);
}

static void free_pairs(struct pairs *p)
{
    free(p->chosen);
    free(p->pair_row);
    free(p->pair_of);
    free(p->groups);
}

/* Numbers that are others than a host's that goes through expert by expert, row by row. */
static void compare_pairs(struct bench *b, const struct pairs *p)
{
    uint32_t pair = 0, group = 0;

    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t begin = pair;
        for (uint32_t i = 0; i < p->n; i++)
            if (p->chosen[i] == e) {
                b->error += p->pair_row[pair] != i / USED;
                b->error += p->pair_of[i] != pair++;
            }
        for (; begin < pair; begin += GROUP_ROWS, group++) {
            const struct moe_group *g = &p->groups[group];
            uint32_t n = pair - begin < GROUP_ROWS ? pair - begin : GROUP_ROWS;
            b->error += g->expert != e || g->first != begin || g->n != n;
        }
    }
    for (; group < p->n_groups; group++)
        b->error += p->groups[group].n != 0;
}

void bench_moe_sort(struct bench *b)
{
    struct pairs p;
    cu_ptr chosen, pair_row, pair_of, groups;
    struct moe_sort_args args;
    struct device_grid grid = { { 1, 1, 1 }, MOE_SORT_THREADS, 0 };

    make_pairs(b, &p);
    chosen = bench_put(b, p.chosen, p.n * sizeof *p.chosen);
    pair_row = bench_device(b, p.n * sizeof *p.pair_row);
    pair_of = bench_device(b, p.n * sizeof *p.pair_of);
    groups = bench_device(b, p.n_groups * sizeof *p.groups);
    args = (struct moe_sort_args){ .pair_row = (uint32_t *)(uintptr_t)pair_row,
                                   .pair_of = (uint32_t *)(uintptr_t)pair_of,
                                   .groups = (struct moe_group *)(uintptr_t)groups,
                                   .chosen = (const uint32_t *)(uintptr_t)chosen,
                                   .n_rows = b->shape.rows,
                                   .n_used = USED,
                                   .n_experts = p.n_experts,
                                   .n_groups = p.n_groups,
                                   .group_rows = GROUP_ROWS };
    b->bytes = (double)p.n * 12;
    bench_time(b, "moe_sort", &grid, &args, sizeof args);
    bench_get(b, p.pair_row, pair_row, p.n * sizeof *p.pair_row);
    bench_get(b, p.pair_of, pair_of, p.n * sizeof *p.pair_of);
    bench_get(b, p.groups, groups, p.n_groups * sizeof *p.groups);
    compare_pairs(b, &p);
    device_free(b->d.device, chosen);
    device_free(b->d.device, pair_row);
    device_free(b->d.device, pair_of);
    device_free(b->d.device, groups);
    free_pairs(&p);
}

/* ---- combine ---- */

/* What comes back of a row's k-th expert is pair k * rows + row. */
struct combining {
    uint32_t rows, cols, n_pairs;
    uint64_t n_x, n_y;
    float *x, *y, *share, *got;
    uint32_t *pair_of;
};

static void make_combining(struct bench *b, struct combining *c)
{
    *c = (struct combining){ .rows = b->shape.rows, .cols = b->shape.cols };
    c->n_pairs = c->rows * USED;
    c->n_x = (uint64_t)c->rows * c->cols;
    c->n_y = c->n_x * USED;
    c->x = bench_numbers(b, c->n_x, 20);
    c->y = bench_numbers(b, c->n_y, 21);
    c->share = bench_numbers(b, c->n_pairs, 22);
    c->got = bench_host(b, c->n_x * sizeof *c->got);
    c->pair_of = bench_host(b, c->n_pairs * sizeof *c->pair_of);
    for (uint32_t i = 0; i < c->n_pairs; i++)
        c->pair_of[i] = i % USED * c->rows + i / USED;
}

static void free_combining(struct combining *c)
{
    free(c->x);
    free(c->y);
    free(c->share);
    free(c->got);
    free(c->pair_of);
}

/* Each launch adds once more. */
static void compare_combined(struct bench *b, const struct combining *c)
{
    uint32_t launches = bench_launches(b);

    for (uint64_t i = 0; i < c->n_x; i += 1 + c->n_x / 100003) {
        uint64_t t = i / c->cols, column = i % c->cols;
        double sum = 0;
        for (uint32_t k = 0; k < USED; k++)
            sum += (double)c->share[t * USED + k] *
                   (double)c->y[(uint64_t)c->pair_of[t * USED + k] * c->cols + column];
        bench_note(b, (double)c->got[i], (double)c->x[i] + launches * sum, launches);
    }
}

void bench_moe_combine(struct bench *b)
{
    struct device_grid grid = { { moe_combine_grid_x(b->shape.cols), b->shape.rows, 1 },
                                MOE_COMBINE_THREADS,
                                0 };
    struct moe_combine_args args;
    struct combining c;
    cu_ptr x, y, share, pair_of;

    make_combining(b, &c);
    x = bench_put(b, c.x, c.n_x * sizeof *c.x);
    y = bench_put(b, c.y, c.n_y * sizeof *c.y);
    share = bench_put(b, c.share, c.n_pairs * sizeof *c.share);
    pair_of = bench_put(b, c.pair_of, c.n_pairs * sizeof *c.pair_of);
    args = (struct moe_combine_args){ .x = (float *)(uintptr_t)x,
                                      .y = (const float *)(uintptr_t)y,
                                      .share = (const float *)(uintptr_t)share,
                                      .pair_of = (const uint32_t *)(uintptr_t)pair_of,
                                      .x_stride = c.cols,
                                      .y_stride = c.cols,
                                      .n_rows = c.rows,
                                      .n_used = USED,
                                      .cols = c.cols };
    b->bytes = (double)(2 * c.n_x + c.n_y) * 4;
    bench_time(b, "moe_combine", &grid, &args, sizeof args);
    bench_get(b, c.got, x, c.n_x * sizeof *c.got);
    compare_combined(b, &c);
    device_free(b->d.device, x);
    device_free(b->d.device, y);
    device_free(b->d.device, share);
    device_free(b->d.device, pair_of);
    free_combining(&c);
}
