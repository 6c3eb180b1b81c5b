/* stats.h - counters, gauges and histograms of the board, by name.
 *
 * Everything is lock-free and single-word: a reader sees each number whole, never a torn one, but two
 * numbers may be an instant apart.  Adding is relaxed: a statistic orders nothing. */
#ifndef LLMD_PROTO_STATS_H
#define LLMD_PROTO_STATS_H

#include <stdatomic.h>
#include <stdint.h>

enum stat_id {
#define COUNTER(name, help) STAT_##name,
#define GAUGE(name, help)   STAT_##name,
#define HIST(name, bounds, help)
#include "proto/stats.def"
#undef COUNTER
#undef GAUGE
#undef HIST
    N_STATS
};

enum hist_id {
#define COUNTER(name, help)
#define GAUGE(name, help)
#define HIST(name, bounds, help) HIST_##name,
#include "proto/stats.def"
#undef COUNTER
#undef GAUGE
#undef HIST
    N_HISTS
};

enum { STATS_CAP = 96, HISTS_CAP = 24, HIST_BUCKETS_MAX = 24 };
_Static_assert((int)N_STATS <= STATS_CAP && (int)N_HISTS <= HISTS_CAP,
               "room left in the board's layout");

struct stat_hist {
    _Atomic uint64_t bucket[HIST_BUCKETS_MAX]; /* not cumulative; [n bounds]: past them all */
    _Atomic uint64_t count;
    _Atomic uint64_t sum_parts; /* sum of observations, in nanoseconds or tokens: read hist_sum() */
};

struct stats {
    _Atomic uint64_t value[STATS_CAP]; /* by enum stat_id; a gauge is a signed number */
    struct stat_hist hist[HISTS_CAP];  /* by enum hist_id */
};

const char *stat_name(enum stat_id s);
const char *stat_help(enum stat_id s);
int stat_is_gauge(enum stat_id s);
const char *hist_name(enum hist_id h);
const char *hist_help(enum hist_id h);
/* Upper bounds in ascending order, *n of them (at most HIST_BUCKETS_MAX - 1); +Inf is implied. */
const double *hist_bounds(enum hist_id h, int *n);

static inline void stat_add(struct stats *s, enum stat_id i, uint64_t n)
{
    atomic_fetch_add_explicit(&s->value[i], n, memory_order_relaxed);
}

static inline void stat_sub(struct stats *s, enum stat_id i, uint64_t n)
{
    atomic_fetch_sub_explicit(&s->value[i], n, memory_order_relaxed);
}

static inline void stat_set(struct stats *s, enum stat_id i, uint64_t v)
{
    atomic_store_explicit(&s->value[i], v, memory_order_relaxed);
}

static inline uint64_t stat_get(const struct stats *s, enum stat_id i)
{
    return atomic_load_explicit(&s->value[i], memory_order_relaxed);
}

void hist_observe(struct stats *s, enum hist_id h, double value);
/* Sum of the observations, in seconds or tokens. */
double hist_sum(const struct stats *s, enum hist_id h);
double stat_hist_sum(const struct stat_hist *hist, enum hist_id h);
/* Called by the successor of a dead writer: gauges describe processes, so they start at 0 again. */
void stats_zero_gauges(struct stats *s);

#endif
