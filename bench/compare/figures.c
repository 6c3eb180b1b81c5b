#include "bench/compare/figures.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct figure *figures_add(struct figures *all, const struct shape *shape,
                           const struct weight_type *type, const char *work, const char *unit)
{
    struct figure *f = &all->items[all->n];

    assert(all->n < FIGURES_MAX);
    all->n++;
    *f = (struct figure){ .shape = shape, .type = type, .unit = unit };
    snprintf(f->work, sizeof f->work, "%s", work);
    return f;
}

double *figure_values(struct figure *f, bool ours)
{
    return ours ? f->ours : f->theirs;
}

/* ---- arithmetic ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* n values in ascending order. */
static void sorted(const double *values, uint32_t n, double *out)
{
    memcpy(out, values, n * sizeof *values);
    qsort(out, n, sizeof *out, by_value);
}

double figure_median(const double *values, uint32_t n)
{
    double v[ROUNDS_MAX];

    if (n == 0)
        return 0;
    sorted(values, n, v);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

void figure_ratio(const struct figure *f, double *median, double *low, double *high)
{
    double ratios[ROUNDS_MAX], v[ROUNDS_MAX];

    for (uint32_t i = 0; i < f->n_rounds; i++)
        ratios[i] = f->smaller_is_better ? f->theirs[i] / f->ours[i] : f->ours[i] / f->theirs[i];
    sorted(ratios, f->n_rounds, v);
    *median = figure_median(ratios, f->n_rounds);
    *low = v[0];
    *high = v[f->n_rounds - 1];
}

/* K and V that one step reads, on the average of the run. */
static double kv_bytes(const struct shape *s, const struct bench_case *c)
{
    return shape_kv_bytes(s) * c->n_streams * (c->context + c->n_tokens / 2.0);
}

void figure_set_limit(struct figure *f, uint32_t round, const struct bench_case *c,
                      const struct machine_limits *m)
{
    double weights = shape_matrix_weights(f->shape);
    double rows = c->n_streams ? c->n_streams : c->n_tokens; /* of a step */
    double layers = weights - (double)f->shape->vocab_size * f->shape->n_embd;
    double products = c->n_streams ? weights * rows : layers * rows + (weights - layers);
    double bytes = weight_type_bytes(f->type, weights) + kv_bytes(f->shape, c);
    const char *ops_name;
    double compute_s = 2 * products / machine_limits_ops(m, f->type->weight_bits, &ops_name);
    double memory_s = bytes / m->read_all;

    snprintf(f->limit_name, sizeof f->limit_name, "%s", compute_s > memory_s ? ops_name : "memory");
    f->limits[round] = rows / (compute_s > memory_s ? compute_s : memory_s);
}

/* ---- terminal ---- */

static bool has_limit(const struct figure *f)
{
    return f->limits[0] > 0;
}

/* Percent of the limit: the median of the rounds' own shares. */
static double share(const struct figure *f, const double *values)
{
    double shares[ROUNDS_MAX];

    for (uint32_t i = 0; i < f->n_rounds; i++)
        shares[i] = 100 * values[i] / f->limits[i];
    return figure_median(shares, f->n_rounds);
}

void figure_print(FILE *out, const struct figure *f)
{
    double ours = figure_median(f->ours, f->n_rounds);
    double theirs = figure_median(f->theirs, f->n_rounds), ratio, low, high;

    figure_ratio(f, &ratio, &low, &high);
    fprintf(out, "%-5s %-5s %-26s ours %9.1f %s", f->shape->name, f->type->name, f->work, ours,
            f->unit);
    if (has_limit(f))
        fprintf(out, " = %3.0f %% of %-6s", share(f, f->ours), f->limit_name);
    fprintf(out, "  llama.cpp %9.1f", theirs);
    if (has_limit(f))
        fprintf(out, " = %3.0f %%", share(f, f->theirs));
    fprintf(out, "  (%.2f .. %.2f of %u) ratio %.2f\n", low, high, f->n_rounds, ratio);
    fflush(out);
}

/* ---- files ---- */

static FILE *create(const char *path, struct err *e)
{
    FILE *out = fopen(path, "w");

    if (!out)
        err_set(e, ERR_SYS, errno, "create '%s'", path);
    return out;
}

static bool finish(FILE *out, const char *path, struct err *e)
{
    bool ok = !ferror(out);

    if (fclose(out) != 0 || !ok)
        return err_set(e, ERR_SYS, errno, "write '%s'", path);
    return true;
}

bool figures_write_csv(const struct figures *f, const char *path, struct err *e)
{
    FILE *out = create(path, e);

    if (!out)
        return false;
    fprintf(out, "shape,type,work,unit,ours,theirs,ratio,ratio_low,ratio_high,rounds,limit,"
                 "limit_of,ours_percent,theirs_percent,threads,clock\n");
    for (uint32_t i = 0; i < f->n; i++) {
        const struct figure *g = &f->items[i];
        double ours = figure_median(g->ours, g->n_rounds);
        double theirs = figure_median(g->theirs, g->n_rounds), ratio, low, high;
        figure_ratio(g, &ratio, &low, &high);
        fprintf(out, "%s,%s,\"%s\",%s,%.2f,%.2f,%.3f,%.3f,%.3f,%u,", g->shape->name, g->type->name,
                g->work, g->unit, ours, theirs, ratio, low, high, g->n_rounds);
        if (has_limit(g))
            fprintf(out, "%.2f,%s,%.1f,%.1f", figure_median(g->limits, g->n_rounds), g->limit_name,
                    share(g, g->ours), share(g, g->theirs));
        else
            fprintf(out, ",,,");
        fprintf(out, ",%u,%s\n", f->limits->n_threads, f->clock);
    }
    return finish(out, path, e);
}
