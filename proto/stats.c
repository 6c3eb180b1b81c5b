/* stats.c - names and bucket bounds of the board's numbers.
 *
 * The bounds are those of vLLM's metrics where it has the same one, so that its dashboards' quantile
 * queries keep their meaning. */
#include "proto/stats.h"

#include <stddef.h>

static const double BOUNDS_TTFT[] = { 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                      0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                      20,    40,    80,   160,  640,  2560 };
static const double BOUNDS_ITL[] = { 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                     0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80 };
static const double BOUNDS_REQUEST[] = { 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                         30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680 };
static const double BOUNDS_STEP[] = { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                      0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10 };
static const double BOUNDS_TOKENS[] = { 1,   2,    5,    10,   20,    50,    100,   200,
                                        500, 1000, 2000, 5000, 10000, 20000, 50000, 100000 };
static const double BOUNDS_ROWS[] = {
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384
};
static const double BOUNDS_ANSWERS[] = { 1, 2, 5, 10, 20 };

/* Parts of a unit that sums are kept in: nanoseconds, whole tokens. */
enum {
    BOUNDS_TTFT_PARTS = 1000000000,
    BOUNDS_ITL_PARTS = 1000000000,
    BOUNDS_REQUEST_PARTS = 1000000000,
    BOUNDS_STEP_PARTS = 1000000000,
    BOUNDS_TOKENS_PARTS = 1,
    BOUNDS_ROWS_PARTS = 1,
    BOUNDS_ANSWERS_PARTS = 1,
};

static const struct {
    const char *name, *help;
    int is_gauge;
} stat_table[] = {
#define COUNTER(name, help) [STAT_##name] = { #name, help, 0 },
#define GAUGE(name, help)   [STAT_##name] = { #name, help, 1 },
#define HIST(name, bounds, help)
#include "proto/stats.def"
#undef COUNTER
#undef GAUGE
#undef HIST
};

static const struct {
    const char *name, *help;
    const double *bounds;
    int n, parts;
} hist_table[] = {
#define COUNTER(name, help)
#define GAUGE(name, help)
#define HIST(name, bounds, help)                                                                   \
    [HIST_##name] = { #name, help, bounds, (int)(sizeof(bounds) / sizeof(bounds)[0]),              \
                      bounds##_PARTS },
#include "proto/stats.def"
#undef COUNTER
#undef GAUGE
#undef HIST
};

const char *stat_name(enum stat_id s)
{
    return stat_table[s].name;
}

const char *stat_help(enum stat_id s)
{
    return stat_table[s].help;
}

int stat_is_gauge(enum stat_id s)
{
    return stat_table[s].is_gauge;
}

const char *hist_name(enum hist_id h)
{
    return hist_table[h].name;
}

const char *hist_help(enum hist_id h)
{
    return hist_table[h].help;
}

const double *hist_bounds(enum hist_id h, int *n)
{
    *n = hist_table[h].n;
    return hist_table[h].bounds;
}

void hist_observe(struct stats *s, enum hist_id h, double value)
{
    struct stat_hist *hist = &s->hist[h];
    double parts = value * hist_table[h].parts;
    int i = 0;

    while (i < hist_table[h].n && value > hist_table[h].bounds[i])
        i++;
    atomic_fetch_add_explicit(&hist->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&hist->count, 1, memory_order_relaxed);
    if (parts > 0 && parts < 1e18) /* false for NaN; no honest observation is 30 years long */
        atomic_fetch_add_explicit(&hist->sum_parts, (uint64_t)(parts + 0.5), memory_order_relaxed);
}

double stat_hist_sum(const struct stat_hist *hist, enum hist_id h)
{
    return (double)atomic_load_explicit(&hist->sum_parts, memory_order_relaxed) /
           hist_table[h].parts;
}

double hist_sum(const struct stats *s, enum hist_id h)
{
    return stat_hist_sum(&s->hist[h], h);
}

void stats_zero_gauges(struct stats *s)
{
    for (int i = 0; i < N_STATS; i++)
        if (stat_table[i].is_gauge)
            stat_set(s, (enum stat_id)i, 0);
}
