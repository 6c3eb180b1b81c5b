/* step_pace.c - see step_pace.h. */
#include "gpu-worker/step_pace.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/mem.h"

#define ALONE_WEIGHT    0.125 /* of a new measurement */
#define ROWS_MAX        1e9
#define DRAFT_PRICE_MIN 0.1 /* sampling and bookkeeping are not for nothing */

void step_pace_init(struct step_pace *p, uint32_t n_streams_max)
{
    *p = (struct step_pace){ .n_streams_max = n_streams_max };
    p->alone_ns = mem_zalloc(n_streams_max + 1, sizeof *p->alone_ns);
}

void step_pace_fini(struct step_pace *p)
{
    free(p->alone_ns);
    *p = (struct step_pace){ 0 };
}

/* What n streams alone take, by the nearest number that was seen: fewer take no longer, and more at most
 * in proportion.  0 when nothing was. */
static double alone(const struct step_pace *p, uint32_t n)
{
    for (uint32_t i = n; i > 0; i--)
        if (p->alone_ns[i] > 0)
            return p->alone_ns[i];
    for (uint32_t i = n + 1; i <= p->n_streams_max; i++)
        if (p->alone_ns[i] > 0)
            return p->alone_ns[i] * n / i;
    return 0;
}

uint32_t step_pace_rows(struct step_pace *p, uint32_t n_streams, uint64_t percent)
{
    double rows = p->rate * (double)percent / 100 - n_streams;

    assert(n_streams <= p->n_streams_max);
    if (n_streams == 0)
        return UINT32_MAX;
    if (rows < STEP_PACE_ROWS_MIN)
        rows = STEP_PACE_ROWS_MIN;
    p->n_given = (uint32_t)(rows < ROWS_MAX ? rows : ROWS_MAX);
    return p->n_given;
}

/* The end of a prompt, less than what was allowed, can show that this is too much, not that it is little. */
static void learn_rate(struct step_pace *p, double rate, bool is_full)
{
    if (is_full || rate < p->rate)
        p->rate = rate;
}

void step_pace_learn(struct step_pace *p, uint32_t n_streams, uint32_t n_rows, uint64_t took_ns)
{
    double took = took_ns > 0 ? (double)took_ns : 1, base;

    assert(n_streams <= p->n_streams_max);
    if (n_streams == 0)
        return;
    if (n_rows == 0) {
        double *kept = &p->alone_ns[n_streams];
        *kept = *kept == 0 ? took : *kept + ALONE_WEIGHT * (took - *kept);
        return;
    }
    base = alone(p, n_streams);
    if (base > 0)
        learn_rate(p, (n_streams + n_rows) * base / took, n_rows >= p->n_given);
}

void step_pace_learn_drafts(struct step_pace *p, uint32_t n_streams, uint32_t n_drafts,
                            uint64_t took_ns)
{
    double base = alone(p, n_streams);

    if (base > 0) /* less than nothing, too: else a machine with noise would make them seem dear */
        p->draft_ns += ALONE_WEIGHT * (((double)took_ns - base) / n_drafts - p->draft_ns);
}

double step_pace_draft_price(const struct step_pace *p, uint32_t n_streams)
{
    double base = alone(p, n_streams), price = 0;

    if (base > 0)
        price = p->draft_ns * n_streams / base;
    return price < DRAFT_PRICE_MIN ? DRAFT_PRICE_MIN : price > 1 ? 1 : price;
}
