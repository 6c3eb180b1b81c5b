#include "bench/compare/figures.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
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

void figure_set_limit(struct figure *f, const struct bench_case *c, const struct machine_limits *m)
{
    double weights = shape_matrix_weights(f->shape);
    double rows = c->n_streams ? c->n_streams : c->n_tokens; /* of a step */
    double layers = weights - (double)f->shape->vocab_size * f->shape->n_embd;
    double products = c->n_streams ? weights * rows : layers * rows + (weights - layers);
    double bytes = weight_type_bytes(f->type, weights) + kv_bytes(f->shape, c);
    const char *ops_name;
    double compute_s = 2 * products / machine_limits_ops(m, f->type->weight_bits, &ops_name);
    double memory_s = bytes / m->read_all;

    f->limit_name = compute_s > memory_s ? ops_name : "memory";
    f->limit = rows / (compute_s > memory_s ? compute_s : memory_s);
}

/* ---- terminal ---- */

static double share(const struct figure *f, double value)
{
    return f->limit > 0 ? 100 * value / f->limit : 0;
}

void figure_print(FILE *out, const struct figure *f)
{
    double ours = figure_median(f->ours, f->n_rounds);
    double theirs = figure_median(f->theirs, f->n_rounds), ratio, low, high;

    figure_ratio(f, &ratio, &low, &high);
    fprintf(out, "%-5s %-5s %-26s ours %9.1f %s", f->shape->name, f->type->name, f->work, ours,
            f->unit);
    if (f->limit > 0)
        fprintf(out, " = %3.0f %% of %-6s", share(f, ours), f->limit_name);
    fprintf(out, "  llama.cpp %9.1f", theirs);
    if (f->limit > 0)
        fprintf(out, " = %3.0f %%", share(f, theirs));
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
        if (g->limit > 0)
            fprintf(out, "%.2f,%s,%.1f,%.1f", g->limit, g->limit_name, share(g, ours),
                    share(g, theirs));
        else
            fprintf(out, ",,,");
        fprintf(out, ",%u,%s\n", f->limits->n_threads, f->clock);
    }
    return finish(out, path, e);
}

bool figures_write_markdown(const struct figures *f, const char *path, struct err *e)
{
    FILE *out = create(path, e);

    if (!out)
        return false;
    fprintf(out, "Ours: %s  \nllama.cpp: %s  \n%u threads, %s time\n\n", f->ours, f->theirs,
            f->limits->n_threads, f->clock);
    fprintf(out, "| model | weights | work | ours | llama.cpp | share of the limit | ratio |\n"
                 "| --- | --- | --- | ---: | ---: | --- | ---: |\n");
    for (uint32_t i = 0; i < f->n; i++) {
        const struct figure *g = &f->items[i];
        double ours = figure_median(g->ours, g->n_rounds);
        double theirs = figure_median(g->theirs, g->n_rounds), ratio, low, high;
        figure_ratio(g, &ratio, &low, &high);
        fprintf(out, "| %s | %s | %s | %.1f %s | %.1f | ", g->shape->name, g->type->name, g->work,
                ours, g->unit, theirs);
        if (g->limit > 0)
            fprintf(out, "%.0f %% of %s (theirs %.0f %%)", share(g, ours), g->limit_name,
                    share(g, theirs));
        fprintf(out, " | **%.2f** (%.2f to %.2f) |\n", ratio, low, high);
    }
    return finish(out, path, e);
}

/* ---- the picture ---- */

enum {
    ROW_HEIGHT = 18,
    GROUP_GAP = 26,
    LABEL_WIDTH = 230,
    PLOT_WIDTH = 520,
    VALUE_WIDTH = 60,
    TOP = 54,
    BOTTOM = 34,
};

#define RATIO_LOWEST  0.125
#define RATIO_HIGHEST 8.0

static double ratio_x(double ratio)
{
    double clipped = ratio < RATIO_LOWEST    ? RATIO_LOWEST
                     : ratio > RATIO_HIGHEST ? RATIO_HIGHEST
                                             : ratio;

    return LABEL_WIDTH +
           PLOT_WIDTH * log(clipped / RATIO_LOWEST) / log(RATIO_HIGHEST / RATIO_LOWEST);
}

static bool same_group(const struct figure *a, const struct figure *b)
{
    return a->shape == b->shape && a->type == b->type;
}

static uint32_t svg_height(const struct figures *f)
{
    uint32_t height = TOP + BOTTOM;

    for (uint32_t i = 0; i < f->n; i++)
        height +=
            ROW_HEIGHT + (i == 0 || !same_group(&f->items[i - 1], &f->items[i]) ? GROUP_GAP : 0);
    return height;
}

static void svg_axis(FILE *out, uint32_t height)
{
    static const struct {
        double ratio;
        const char *label;
    } marks[] = { { 0.125, "1/8" }, { 0.25, "1/4" }, { 0.5, "1/2" }, { 1, "1" },
                  { 2, "2" },       { 4, "4" },      { 8, "8" } };

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        double x = ratio_x(marks[i].ratio);
        fprintf(out,
                "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%u\" stroke=\"%s\"/>\n"
                "<text x=\"%.1f\" y=\"%u\" text-anchor=\"middle\">%s</text>\n",
                x, TOP, x, height - BOTTOM, marks[i].ratio == 1 ? "#444" : "#ddd", x,
                height - BOTTOM + 16, marks[i].label);
    }
}

static void svg_bar(FILE *out, const struct figure *g, uint32_t y)
{
    double ratio, low, high, x, one = ratio_x(1);

    figure_ratio(g, &ratio, &low, &high);
    x = ratio_x(ratio);
    fprintf(out,
            "<text x=\"%d\" y=\"%u\" text-anchor=\"end\">%s</text>\n"
            "<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n"
            "<line x1=\"%.1f\" y1=\"%u\" x2=\"%.1f\" y2=\"%u\" stroke=\"#222\"/>\n"
            "<text x=\"%d\" y=\"%u\">%.2f</text>\n",
            LABEL_WIDTH - 8, y + 12, g->work, x < one ? x : one, y + 3, fabs(x - one),
            ROW_HEIGHT - 6, ratio >= 1 ? "#2a7f62" : "#c1553b", ratio_x(low), y + ROW_HEIGHT / 2,
            ratio_x(high), y + ROW_HEIGHT / 2, LABEL_WIDTH + PLOT_WIDTH + 10, y + 12, ratio);
}

bool figures_write_svg(const struct figures *f, const char *path, struct err *e)
{
    uint32_t height = svg_height(f), y = TOP, width = LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH;
    FILE *out = create(path, e);

    if (!out)
        return false;
    fprintf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %u\" width=\"%u\" "
        "height=\"%u\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
        "<text x=\"12\" y=\"20\" font-size=\"15\">llmd over llama.cpp: speed on the same weights "
        "and threads (above 1: llmd is faster)</text>\n"
        "<text x=\"12\" y=\"38\" fill=\"#666\">%.*s; %u threads, %s time; medians, the line is the "
        "range of "
        "the rounds</text>\n",
        width, height, width, height, (int)strcspn(f->theirs, ","), f->theirs, f->limits->n_threads,
        f->clock);
    svg_axis(out, height);
    for (uint32_t i = 0; i < f->n; i++) {
        const struct figure *g = &f->items[i];
        if (i == 0 || !same_group(&f->items[i - 1], g)) {
            y += GROUP_GAP;
            fprintf(out, "<text x=\"12\" y=\"%u\" font-weight=\"bold\">%s %s</text>\n", y - 6,
                    g->shape->name, g->type->name);
        }
        svg_bar(out, g, y);
        y += ROW_HEIGHT;
    }
    fprintf(out, "</svg>\n");
    return finish(out, path, e);
}
