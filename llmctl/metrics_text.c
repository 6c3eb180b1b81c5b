/* metrics_text.c - see metrics_text.h. */
#include "llmctl/metrics_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BOUND_MAX 1e300 /* differences of these are numbers */

/* "name_bucket{le="0.1"} 12" */
static bool read_bucket(struct metrics_histogram *h, const char *line, const char *name, size_t n)
{
    static const char middle[] = "_bucket{le=\"";
    char *end;
    double bound, count;

    if (strncmp(line, name, n) != 0 || strncmp(line + n, middle, sizeof middle - 1) != 0 ||
        h->n == METRICS_BUCKETS_MAX)
        return false;
    bound = strtod(line + n + sizeof middle - 1, &end); /* "+Inf" too */
    if (end[0] != '"' || end[1] != '}' || end[2] != ' ')
        return false;
    count = strtod(end + 3, NULL);
    if (!(fabs(bound) < BOUND_MAX || bound == INFINITY) || !(count >= 0 && count < BOUND_MAX) ||
        (h->n > 0 && bound <= h->bounds[h->n - 1]))
        return false;
    h->bounds[h->n] = bound;
    h->counts[h->n++] = count;
    return true;
}

bool metrics_histogram_read(struct metrics_histogram *h, const char *page, const char *name)
{
    size_t n = strlen(name);

    *h = (struct metrics_histogram){ 0 };
    for (const char *line = page; line && *line;) {
        read_bucket(h, line, name, n);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return h->n > 0;
}

struct metrics_histogram metrics_histogram_since(const struct metrics_histogram *before,
                                                 const struct metrics_histogram *now)
{
    struct metrics_histogram d = *now;

    if (!before || before->n != now->n)
        return d;
    for (unsigned i = 0; i < d.n; i++)
        if (before->counts[i] > now->counts[i]) /* another server, from zero */
            return d;
    for (unsigned i = 0; i < d.n; i++)
        d.counts[i] -= before->counts[i];
    return d;
}

double metrics_quantile(const struct metrics_histogram *h, double q)
{
    double wanted, below = 0, from = 0;

    if (h->n == 0 || h->counts[h->n - 1] <= 0)
        return -1;
    wanted = q * h->counts[h->n - 1];
    for (unsigned i = 0; i < h->n; i++) {
        if (h->counts[i] >= wanted && h->counts[i] > below) {
            if (isinf(h->bounds[i]))
                return from;
            return from + (h->bounds[i] - from) * (wanted - below) / (h->counts[i] - below);
        }
        below = h->counts[i];
        from = h->bounds[i];
    }
    return from;
}
