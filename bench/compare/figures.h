/* figures.h - the results of a comparison: what was measured, medians, ratios and shares of the limit; a line
 * each for the terminal, and CSV.
 *
 * A ratio is ours over theirs of one round, above 1 = ours is faster; the figure is the median over the
 * rounds, so that a disturbed round counts for one and no more. */
#ifndef LLMD_BENCH_COMPARE_FIGURES_H
#define LLMD_BENCH_COMPARE_FIGURES_H

#include <stdbool.h>
#include <stdio.h>

#include "bench/machine_limits.h"
#include "bench/shapes.h"
#include "common/err.h"

enum { ROUNDS_MAX = 99, FIGURES_MAX = 512 };

/* What runs, in the words of workload.h. */
struct bench_case {
    const char *name;
    uint32_t n_streams; /* 0: a prompt is read */
    uint32_t n_tokens;
    uint32_t context;
};

struct figure {
    const struct shape *shape;
    const struct weight_type *type;
    char work[48];    /* the case's name, or the scenario's */
    const char *unit; /* tokens/s, ms */
    bool smaller_is_better;
    uint32_t n_rounds;
    double ours[ROUNDS_MAX], theirs[ROUNDS_MAX];
    double
        limits[ROUNDS_MAX]; /* what the machine allowed at most then, in `unit`; 0 = not counted */
    char limit_name[16];    /* memory, int4, ... */
};

struct figures {
    struct figure items[FIGURES_MAX];
    uint32_t n;
    char ours[256], theirs[256]; /* version and configuration */
    const struct machine_limits *limits;
    const char *clock; /* what rates and times are over: "wall" or "cpu" */
};

/* Add a figure without rounds; at most FIGURES_MAX. */
struct figure *figures_add(struct figures *all, const struct shape *shape,
                           const struct weight_type *type, const char *work, const char *unit);

/* [ROUNDS_MAX], of our side or of theirs. */
double *figure_values(struct figure *f, bool ours);

/* The most that a case could do in that round: the larger one of the time to read its bytes and of the time to
 * compute its products. */
void figure_set_limit(struct figure *f, uint32_t round, const struct bench_case *c,
                      const struct machine_limits *m);

double figure_median(const double *values, uint32_t n);
void figure_ratio(const struct figure *f, double *median, double *low, double *high);

/* "110m q4_0 prompt 512 ... ratio 1.23". */
void figure_print(FILE *out, const struct figure *f);

/* bench/compare/draw.awk makes a table and a picture of it. */
bool figures_write_csv(const struct figures *f, const char *path, struct err *e);

#endif
