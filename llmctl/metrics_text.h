/* metrics_text.h - histograms out of a page in Prometheus' text format, and their quantiles. */
#ifndef LLMD_LLMCTL_METRICS_TEXT_H
#define LLMD_LLMCTL_METRICS_TEXT_H

#include <stdbool.h>
#include <stdint.h>

enum { METRICS_BUCKETS_MAX = 64 };

struct metrics_histogram {
    double bounds[METRICS_BUCKETS_MAX]; /* rising; the last may be infinite */
    double counts[METRICS_BUCKETS_MAX]; /* at most that large, as the page has them */
    unsigned n;
};

/* Of all series of that name without labels but le; false when the page has none. */
bool metrics_histogram_read(struct metrics_histogram *h, const char *page, const char *name);

/* What came between two readings; `before` may be NULL or of other buckets: then all of it. */
struct metrics_histogram metrics_histogram_since(const struct metrics_histogram *before,
                                                 const struct metrics_histogram *now);

/* q in 0..1, linear within a bucket as PromQL's histogram_quantile(); negative when nothing was counted. */
double metrics_quantile(const struct metrics_histogram *h, double q);

#endif
