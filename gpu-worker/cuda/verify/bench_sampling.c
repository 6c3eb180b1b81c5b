/* bench_sampling.c - draws on the device against the CPU's sampler, which draws the same from the same logits.
 *
 * A cut between two tokens that falls nearer to an edge than sums of floats tell apart could differ: one draw in ten
 * million (kernels/sampling.h). */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/sampling_rows.h"
#include "gpu-worker/cuda/verify/bench.h"

enum { ROWS_MAX = 64 };

struct draws {
    uint32_t n, vocab;
    float *logits; /* [n, vocab] */
    Llmd__Sampling settings[ROWS_MAX];
    struct sampler_input in[ROWS_MAX];
    struct sampling_row rows[ROWS_MAX];
    struct sampling_edit edit; /* nobody has one */
    struct sampling_choice choices[ROWS_MAX];
};

/* The likeliest; all of them; with each filter; with all. */
static void set(Llmd__Sampling *s, uint32_t i)
{
    llmd__sampling__init(s);
    s->seed = i;
    s->temperature = i % 8 == 0 ? 0 : 0.7f + 0.1f * (float)(i % 5);
    if (i % 8 == 2 || i % 8 == 7)
        s->top_k = 40;
    if (i % 8 == 3 || i % 8 == 4 || i % 8 == 7)
        s->top_p = i % 8 == 3 ? 0.5f : 0.9f;
    if (i % 8 == 5 || i % 8 == 7)
        s->min_p = 0.05f;
}

static void make_draws(struct bench *b, struct draws *d)
{
    static const int32_t prompt[1];
    struct sampling_rows rows;

    d->n = b->shape.rows;
    d->vocab = b->shape.cols;
    d->logits = bench_numbers(b, (uint64_t)d->n * d->vocab, 23);
    for (uint64_t i = 0; i < (uint64_t)d->n * d->vocab;
         i++) /* few that are likely, as of a model */
        d->logits[i] = 12 * d->logits[i] * d->logits[i] * d->logits[i];
    sampling_rows_init(&rows, d->vocab, d->rows, d->n, &d->edit, 0);
    sampling_rows_begin(&rows);
    for (uint32_t i = 0; i < d->n; i++) {
        set(&d->settings[i], i);
        d->in[i] = (struct sampler_input){ .logits = d->logits + (uint64_t)i * d->vocab,
                                           .sampling = &d->settings[i],
                                           .tokens = prompt,
                                           .n_prompt = 1 };
        if (!sampling_rows_add(&rows, &d->in[i], i))
            child_fail(b->sock, "the kernel does not take draw %u", i);
    }
    sampling_rows_fini(&rows);
}

/* Draws of another token. */
static void compare_draws(struct bench *b, const struct draws *d)
{
    struct sampler *sampler = sampler_new(d->vocab);
    struct sampler_output want;

    for (uint32_t i = 0; i < d->n; i++)
        if (sampler_draw(sampler, &d->in[i], &want) != SAMPLER_OK ||
            d->choices[i].result != SAMPLING_OK || d->choices[i].token != want.token)
            b->error++;
    sampler_free(sampler);
}

void bench_sampling(struct bench *b)
{
    struct draws *d = bench_host(b, sizeof *d);
    struct device_grid grid = { { b->shape.rows, 1, 1 }, SAMPLING_THREADS, 0 };
    struct sampling_args args;
    cu_ptr logits, work, rows, choices, tops;
    uint64_t n;

    make_draws(b, d);
    n = (uint64_t)d->n * d->vocab;
    logits = bench_put(b, d->logits, n * sizeof *d->logits);
    work = bench_device(b, n * sizeof *d->logits);
    rows = bench_put(b, d->rows, sizeof d->rows);
    choices = bench_device(b, sizeof d->choices);
    tops = bench_device(b, (uint64_t)d->n * SAMPLING_TOP_MAX * sizeof(struct sampling_top));
    args = (struct sampling_args){ .logits = (const float *)(uintptr_t)logits,
                                   .work = (float *)(uintptr_t)work,
                                   .rows = (const struct sampling_row *)(uintptr_t)rows,
                                   .choices = (struct sampling_choice *)(uintptr_t)choices,
                                   .tops = (struct sampling_top *)(uintptr_t)tops,
                                   .n_rows = d->n,
                                   .vocab = d->vocab };
    b->bytes = (double)n * 4;
    bench_time(b, "sampling", &grid, &args, sizeof args);
    bench_get(b, d->choices, choices, sizeof d->choices);
    compare_draws(b, d);
    device_free(b->d.device, logits);
    device_free(b->d.device, work);
    device_free(b->d.device, rows);
    device_free(b->d.device, choices);
    device_free(b->d.device, tops);
    free(d->logits);
    free(d);
}
