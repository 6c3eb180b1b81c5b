/* bench_report.c - see bench_report.h. */
#include "llmctl/bench_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/mem.h"
#include "llmctl/table.h"

static const struct {
    const char *key, *title;
} measures[N_BENCH_MEASURES] = {
    [BENCH_TTFT] = { "ttft", "TTFT (first token)" },
    [BENCH_TPOT] = { "tpot", "TPOT (per token after it)" },
    [BENCH_ITL] = { "itl", "ITL (between tokens)" },
    [BENCH_E2EL] = { "e2el", "E2EL (whole answer)" },
};

/* ---- figures ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(const double *sorted, uint64_t n, double p)
{
    double at = p / 100 * (double)(n - 1);
    uint64_t i = (uint64_t)at;

    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

void bench_figures_of(struct bench_figures *f, double *ms, uint64_t n)
{
    double sum = 0, squares = 0;

    *f = (struct bench_figures){ .n = n };
    if (n == 0)
        return;
    qsort(ms, n, sizeof *ms, by_value);
    for (uint64_t i = 0; i < n; i++)
        sum += ms[i];
    f->mean_ms = sum / (double)n;
    for (uint64_t i = 0; i < n; i++)
        squares += (ms[i] - f->mean_ms) * (ms[i] - f->mean_ms);
    f->std_ms = sqrt(squares / (double)n);
    f->p50_ms = percentile(ms, n, 50);
    f->p90_ms = percentile(ms, n, 90);
    f->p95_ms = percentile(ms, n, 95);
    f->p99_ms = percentile(ms, n, 99);
    f->max_ms = ms[n - 1];
}

static double ms_between(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) / 1e6 : 0;
}

struct samples {
    double *ms;
    uint64_t n, cap;
};

static void sample(struct samples *s, double ms)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->ms = mem_realloc(s->ms, s->cap * sizeof *s->ms);
    }
    s->ms[s->n++] = ms;
}

static void sample_request(struct samples s[N_BENCH_MEASURES], const struct bench_request *r)
{
    sample(&s[BENCH_TTFT], ms_between(r->due_ns, r->first_ns));
    sample(&s[BENCH_E2EL], ms_between(r->due_ns, r->end_ns));
    if (r->n_generated > 1)
        sample(&s[BENCH_TPOT], ms_between(r->first_ns, r->last_ns) / (double)(r->n_generated - 1));
    for (uint64_t i = 0; i + 1 < r->n_events; i++)
        sample(&s[BENCH_ITL], (double)r->gaps_ns[i] / 1e6);
}

void bench_report_fill(struct bench_report *b, struct bench_request *const *requests, uint64_t n,
                       uint64_t begin_ns, uint64_t end_ns)
{
    struct samples s[N_BENCH_MEASURES] = { 0 };

    b->duration_s = ms_between(begin_ns, end_ns) / 1e3;
    for (uint64_t i = 0; i < n; i++) {
        const struct bench_request *r = requests[i];
        b->failures[r->failure]++;
        if (r->sent_ns - r->due_ns > b->late_ns_max)
            b->late_ns_max = r->sent_ns - r->due_ns;
        if (r->failure != BENCH_FINE) {
            b->failed++;
            continue;
        }
        b->completed++;
        b->input_tokens += r->n_prompt;
        b->output_tokens += r->n_generated;
        sample_request(s, r);
    }
    for (int i = 0; i < N_BENCH_MEASURES; i++) {
        bench_figures_of(&b->figures[i], s[i].ms, s[i].n);
        free(s[i].ms);
    }
}

static double a_second(const struct bench_report *b, uint64_t n)
{
    return b->duration_s > 0 ? (double)n / b->duration_s : 0;
}

/* ---- people ---- */

static void put_measures(struct buf *out, const struct bench_report *b, bool colours)
{
    static const struct table_column columns[] = {
        { "MS", TABLE_LEFT },   { "MEAN", TABLE_RIGHT }, { "P50", TABLE_RIGHT },
        { "P90", TABLE_RIGHT }, { "P95", TABLE_RIGHT },  { "P99", TABLE_RIGHT },
        { "MAX", TABLE_RIGHT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (int i = 0; i < N_BENCH_MEASURES; i++) {
        const struct bench_figures *f = &b->figures[i];
        const double values[] = {
            f->mean_ms, f->p50_ms, f->p90_ms, f->p95_ms, f->p99_ms, f->max_ms
        };
        table_add(&t, TINT_NONE, "%s", measures[i].title);
        for (int k = 0; k < 6; k++)
            if (f->n > 0)
                table_add(&t, TINT_NONE, "%.2f", values[k]);
            else
                table_add(&t, TINT_DIM, "-");
    }
    table_print(&t, out, colours, 0);
    table_fini(&t);
}

static void put_failures(struct buf *out, const struct bench_report *b, bool colours)
{
    char text[64];

    for (int i = BENCH_FINE + 1; i < N_BENCH_FAILURES; i++) {
        if (b->failures[i] == 0)
            continue;
        snprintf(text, sizeof text, "%llu failed: %s", (unsigned long long)b->failures[i],
                 bench_failures[i]);
        terminal_add(out, text, TINT_BAD, colours);
        buf_add_char(out, '\n');
    }
}

void bench_report_put_table(struct buf *out, const struct bench_report *b, bool colours)
{
    buf_printf(out, "%llu requests done, %llu failed, in %.2f s: %.2f requests/s\n",
               (unsigned long long)b->completed, (unsigned long long)b->failed, b->duration_s,
               a_second(b, b->completed));
    put_failures(out, b, colours);
    buf_printf(out, "%llu prompt tokens, %llu generated: %.1f generated tokens/s, %.1f in all\n\n",
               (unsigned long long)b->input_tokens, (unsigned long long)b->output_tokens,
               a_second(b, b->output_tokens), a_second(b, b->input_tokens + b->output_tokens));
    put_measures(out, b, colours);
    if (b->rate > 0 && b->concurrency == 0 && b->late_ns_max > 50000000)
        buf_printf(out, "\nSent up to %.0f ms late: this machine does not keep up with the plan.\n",
                   (double)b->late_ns_max / 1e6);
}

/* ---- programs ---- */

static void put_number(struct json_writer *w, const char *key, double v)
{
    jw_key(w, key);
    jw_double(w, v);
}

static void put_count(struct json_writer *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

static void put_json_measure(struct json_writer *w, const char *name, const struct bench_figures *f)
{
    static const char *const kinds[] = {
        "mean", "median", "std", "p50", "p90", "p95", "p99", "max"
    };
    const double values[] = { f->mean_ms, f->p50_ms, f->std_ms, f->p50_ms,
                              f->p90_ms,  f->p95_ms, f->p99_ms, f->max_ms };
    char key[32];

    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "%s_%s_ms", kinds[i], name);
        jw_key(w, key);
        if (f->n > 0)
            jw_double(w, values[i]);
        else
            jw_null(w);
    }
}

static void put_json_failures(struct json_writer *w, const struct bench_report *b)
{
    jw_key(w, "errors");
    jw_object(w);
    for (int i = BENCH_FINE + 1; i < N_BENCH_FAILURES; i++)
        put_count(w, bench_failures[i], b->failures[i]);
    jw_object_end(w);
}

void bench_report_put_json(struct buf *out, const struct bench_report *b)
{
    struct json_writer w = { .out = out };

    jw_object(&w);
    jw_key(&w, "backend");
    jw_str(&w, b->api);
    jw_key(&w, "base_url");
    jw_str(&w, b->url);
    jw_key(&w, "model_id");
    jw_str(&w, b->model);
    put_count(&w, "num_prompts", b->completed + b->failed);
    jw_key(&w, "request_rate");
    if (b->rate > 0)
        jw_double(&w, b->rate);
    else
        jw_str(&w, "inf"); /* as vLLM writes it */
    jw_key(&w, "max_concurrency");
    if (b->concurrency > 0)
        jw_uint(&w, b->concurrency);
    else
        jw_null(&w);
    jw_key(&w, "interrupted");
    jw_bool(&w, b->interrupted);
    put_number(&w, "duration", b->duration_s);
    put_count(&w, "completed", b->completed);
    put_count(&w, "failed", b->failed);
    put_json_failures(&w, b);
    put_count(&w, "total_input_tokens", b->input_tokens);
    put_count(&w, "total_output_tokens", b->output_tokens);
    put_number(&w, "request_throughput", a_second(b, b->completed));
    put_number(&w, "output_throughput", a_second(b, b->output_tokens));
    put_number(&w, "total_token_throughput", a_second(b, b->input_tokens + b->output_tokens));
    put_number(&w, "max_late_ms", (double)b->late_ns_max / 1e6);
    for (int i = 0; i < N_BENCH_MEASURES; i++)
        put_json_measure(&w, measures[i].key, &b->figures[i]);
    jw_object_end(&w);
    buf_add_char(out, '\n');
}

void bench_report_put_csv(struct buf *out, struct bench_request *const *requests, uint64_t n,
                          uint64_t begin_ns)
{
    buf_add_str(out, "request,due_ms,sent_ms,ttft_ms,tpot_ms,e2el_ms,input_tokens,output_tokens,"
                     "events,status,error\n");
    for (uint64_t i = 0; i < n; i++) {
        const struct bench_request *r = requests[i];
        buf_printf(out, "%llu,%.3f,%.3f,", (unsigned long long)i, ms_between(begin_ns, r->due_ns),
                   ms_between(begin_ns, r->sent_ns));
        if (r->n_events > 0)
            buf_printf(out, "%.3f", ms_between(r->due_ns, r->first_ns));
        buf_add_char(out, ',');
        if (r->n_generated > 1)
            buf_printf(out, "%.3f",
                       ms_between(r->first_ns, r->last_ns) / (double)(r->n_generated - 1));
        buf_printf(out, ",%.3f,%llu,%llu,%llu,%ld,%s\n", ms_between(r->due_ns, r->end_ns),
                   (unsigned long long)r->n_prompt, (unsigned long long)r->n_generated,
                   (unsigned long long)r->n_events, r->status, bench_failures[r->failure]);
    }
}
