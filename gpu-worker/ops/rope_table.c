/* rope_table.c - see rope_table.h.  Built at start-up, read by begin() of a step. */
#include "gpu-worker/ops/rope_table.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/mem.h"

enum { LOW = 256 };

static void fill(double *table, uint32_t n, double step, const double *freq, uint32_t half,
                 double amplitude)
{
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t i = 0; i < half; i++) {
            double *pair = table + ((size_t)p * half + i) * 2;
            pair[0] = amplitude * cos(p * step * freq[i]);
            pair[1] = amplitude * sin(p * step * freq[i]);
        }
}

void rope_table_init(struct rope_table *r, const double *freq, uint32_t half,
                     uint32_t positions_max, double amplitude)
{
    uint32_t n_high = (positions_max + LOW - 1) / LOW;

    *r = (struct rope_table){ .half = half, .positions_max = positions_max };
    r->low = mem_zalloc((size_t)LOW * half * 2, sizeof *r->low);
    r->high = mem_zalloc((size_t)n_high * half * 2, sizeof *r->high);
    fill(r->low, LOW, 1, freq, half, 1);
    fill(r->high, n_high, LOW, freq, half, amplitude);
}

void rope_table_fini(struct rope_table *r)
{
    free(r->low);
    free(r->high);
    *r = (struct rope_table){ 0 };
}

void rope_table_at(const struct rope_table *r, uint32_t position, float *cos, float *sin)
{
    const double *low = r->low + (size_t)(position % LOW) * r->half * 2;
    const double *high = r->high + (size_t)(position / LOW) * r->half * 2;

    assert(position < r->positions_max);
    for (uint32_t i = 0; i < r->half; i++, low += 2, high += 2) {
        cos[i] = (float)(high[0] * low[0] - high[1] * low[1]);
        sin[i] = (float)(high[1] * low[0] + high[0] * low[1]);
    }
}
