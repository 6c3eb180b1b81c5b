/* top_view.c - see top_view.h. */
#include "llmctl/top_view.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "llmctl/status.h"
#include "llmctl/table.h"

/* ---- samples ---- */

static const struct top_sample *sample_at(const struct top_view *v, unsigned i)
{
    return &v->samples[i % TOP_HISTORY];
}

void top_view_sample(struct top_view *v, const char *page, uint64_t now_ns)
{
    struct top_sample *s = &v->samples[v->n % TOP_HISTORY];

    *s = (struct top_sample){ .at_ns = now_ns, .requests = v->status->requests };
    for (size_t i = 0; i < v->status->n_groups; i++)
        s->tokens_per_s += v->status->groups[i]->tokens_per_s;
    if (page)
        s->has_latencies =
            metrics_histogram_read(&s->first_token, page, "llmd_time_to_first_token_seconds") &&
            metrics_histogram_read(&s->between_tokens, page, "llmd_inter_token_latency_seconds");
    v->n++;
}

/* The oldest of the last TOP_WINDOW samples. */
static const struct top_sample *window_begin(const struct top_view *v)
{
    unsigned back = v->n - 1 < TOP_WINDOW ? v->n - 1 : TOP_WINDOW;

    return sample_at(v, v->n - 1 - back);
}

/* ---- lines ---- */

struct screen {
    const struct top_screen *size;
    struct buf *out;
    unsigned row;
};

/* A line, cut to the screen; false when there is no room but for the last one. */
static bool begin_line(struct screen *s)
{
    if (s->row + 1 >= s->size->rows)
        return false;
    s->row++;
    return true;
}

static void put_text(struct screen *s, enum tint tint, const char *text)
{
    char line[1024];

    if (!begin_line(s))
        return;
    snprintf(line, sizeof line, "%.*s", (int)table_bytes_of(text, s->size->columns), text);
    terminal_add(s->out, line, tint, s->size->colours);
    buf_add_char(s->out, '\n');
}

static void put_line(struct screen *s, enum tint tint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void put_line(struct screen *s, enum tint tint, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put_text(s, tint, text);
}

/* The lines of a table, as many as there is room for. */
static void put_table(struct screen *s, const struct table *t)
{
    struct buf all = { 0 };

    table_print(t, &all, s->size->colours, s->size->columns);
    for (char *line = all.data, *end; line && (end = strchr(line, '\n')); line = end + 1)
        if (begin_line(s))
            buf_add(s->out, line, (size_t)(end - line) + 1);
    buf_fini(&all);
}

/* ---- drawings ---- */

static const char *const blocks[] = { "\xe2\x96\x81", "\xe2\x96\x82", "\xe2\x96\x83",
                                      "\xe2\x96\x84", "\xe2\x96\x85", "\xe2\x96\x86",
                                      "\xe2\x96\x87", "\xe2\x96\x88" };
static const char plain_blocks[] = "_.:-=+*#";

/* The newest `columns` rates, the largest of them as a full block. */
static void sparkline(const struct top_view *v, unsigned columns, bool utf8, struct buf *out)
{
    unsigned n = v->n < TOP_HISTORY ? v->n : TOP_HISTORY;
    double most = 0;

    n = n < columns ? n : columns;
    for (unsigned i = v->n - n; i < v->n; i++)
        if (sample_at(v, i)->tokens_per_s > most)
            most = sample_at(v, i)->tokens_per_s;
    for (unsigned i = v->n - n; i < v->n; i++) {
        double share = most > 0 ? sample_at(v, i)->tokens_per_s / most : 0;
        unsigned level = (unsigned)(share * 7 + 0.5);
        if (utf8)
            buf_add_str(out, blocks[level]);
        else
            buf_add_char(out, plain_blocks[level]);
    }
}

static void bar(char *out, unsigned columns, double share)
{
    for (unsigned i = 0; i < columns; i++)
        out[i] = (double)i < share * columns ? '#' : '.';
    out[columns] = '\0';
}

/* "12.3 ms"; "-" when nothing was counted. */
static void milliseconds(char out[24], double seconds)
{
    if (seconds < 0)
        snprintf(out, 24, "-");
    else
        snprintf(out, 24, seconds < 1 ? "%.1f ms" : "%.0f ms", seconds * 1e3);
}

/* ---- the parts ---- */

static void put_head(struct screen *s, const struct top_view *v)
{
    char up[32];

    if (!v->status) {
        put_line(s, TINT_BAD, "no server: %s", v->trouble);
        return;
    }
    terminal_duration(up, sizeof up, v->status->uptime_ns);
    put_line(s, strcmp(v->status->state, "ready") == 0 ? TINT_TITLE : TINT_WARNING,
             "llmd %s  %s  up %s  %s%s", v->status->version, v->status->state, up,
             v->status->served_model_name, v->paused ? "  PAUSED" : "");
}

static void put_rate(struct screen *s, const struct top_view *v)
{
    unsigned used = 24, room = s->size->columns > used ? s->size->columns - used : 0;
    struct buf line = { 0 };

    buf_printf(&line, "tokens/s %12.1f   ", sample_at(v, v->n - 1)->tokens_per_s);
    sparkline(v, room, s->size->utf8, &line);
    put_text(s, TINT_NONE, line.data);
    buf_fini(&line);
}

static void put_load(struct screen *s, const struct top_view *v)
{
    const struct top_sample *first = window_begin(v), *last = sample_at(v, v->n - 1);
    double seconds = (double)(last->at_ns - first->at_ns) / 1e9, rate = 0;
    uint32_t running = 0, waiting = 0, used = 0;
    char pages[24];

    for (size_t i = 0; i < v->status->n_groups; i++) {
        running += v->status->groups[i]->sequences_running;
        waiting += v->status->groups[i]->sequences_waiting;
        used += v->status->groups[i]->kv_pages_used;
    }
    if (seconds > 0 && last->requests >= first->requests)
        rate = (double)(last->requests - first->requests) / seconds;
    put_line(s, TINT_NONE, "requests %8llu active   %.2f/s   %llu in all   %llu connections",
             (unsigned long long)v->status->requests_active, rate,
             (unsigned long long)v->status->requests, (unsigned long long)v->status->connections);
    put_line(s, waiting > 0 ? TINT_WARNING : TINT_NONE, "queue    %8u running  %u waiting", running,
             waiting);
    bar(pages, 20, v->status->kv_pages ? (double)used / v->status->kv_pages : 0);
    put_line(s, TINT_NONE, "KV pages [%s] %u of %u", pages, used, v->status->kv_pages);
}

static void put_latency(struct screen *s, const char *name, const struct metrics_histogram *before,
                        const struct metrics_histogram *now)
{
    struct metrics_histogram h = metrics_histogram_since(before, now);
    char p50[24], p90[24], p99[24];

    milliseconds(p50, metrics_quantile(&h, 0.5));
    milliseconds(p90, metrics_quantile(&h, 0.9));
    milliseconds(p99, metrics_quantile(&h, 0.99));
    put_line(s, TINT_NONE, "%s  p50 %10s   p90 %10s   p99 %10s", name, p50, p90, p99);
}

/* Of the last TOP_WINDOW samples. */
static void put_latencies(struct screen *s, const struct top_view *v)
{
    const struct top_sample *first = window_begin(v), *last = sample_at(v, v->n - 1);

    if (!last->has_latencies) {
        put_line(s, TINT_DIM, "latency  /metrics gave no answer (LLMD_API_KEY?)");
        return;
    }
    put_latency(s, "to first token", first->has_latencies ? &first->first_token : NULL,
                &last->first_token);
    put_latency(s, "between tokens", first->has_latencies ? &first->between_tokens : NULL,
                &last->between_tokens);
}

static enum tint tint_of(const char *state)
{
    if (strcmp(state, "ready") == 0 || strcmp(state, "up") == 0)
        return TINT_GOOD;
    if (strcmp(state, "down") == 0 || strcmp(state, "backoff") == 0 ||
        strcmp(state, "gpu_down") == 0)
        return TINT_BAD;
    return TINT_WARNING;
}

static void put_groups(struct screen *s, const struct top_view *v)
{
    static const struct table_column columns[] = {
        { "GROUP", TABLE_RIGHT },    { "STATE", TABLE_LEFT },    { "EPOCH", TABLE_RIGHT },
        { "RUNNING", TABLE_RIGHT },  { "WAITING", TABLE_RIGHT }, { "KV PAGES", TABLE_RIGHT },
        { "TOKENS/S", TABLE_RIGHT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < v->status->n_groups; i++) {
        const Llmd__GroupStatus *g = v->status->groups[i];
        table_add(&t, TINT_NONE, "%u", g->group);
        table_add(&t, tint_of(g->state), "%s", g->state);
        table_add(&t, TINT_NONE, "%u", g->epoch);
        table_add(&t, TINT_NONE, "%u", g->sequences_running);
        table_add(&t, TINT_NONE, "%u", g->sequences_waiting);
        table_add(&t, TINT_NONE, "%u", g->kv_pages_used);
        table_add(&t, TINT_NONE, "%.1f", g->tokens_per_s);
    }
    put_table(s, &t);
    table_fini(&t);
}

static int compare(const Llmd__ProcessStatus *a, const Llmd__ProcessStatus *b, enum top_order order)
{
    switch (order) {
    case TOP_BY_AGE:
        return (a->uptime_ns > b->uptime_ns) - (a->uptime_ns < b->uptime_ns); /* youngest first */
    case TOP_BY_RESTARTS:
        return (a->restarts < b->restarts) - (a->restarts > b->restarts);
    case TOP_BY_MEMORY:
        return (a->rss_bytes < b->rss_bytes) - (a->rss_bytes > b->rss_bytes);
    default:
        return 0; /* as llmd names them */
    }
}

/* Stable: equals stay as llmd names them.  There are few. */
static void sort(const Llmd__ProcessStatus **list, size_t n, enum top_order order)
{
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && compare(list[k - 1], list[k], order) > 0; k--) {
            const Llmd__ProcessStatus *other = list[k];
            list[k] = list[k - 1];
            list[k - 1] = other;
        }
}

static void add_process(struct table *t, const Llmd__ProcessStatus *p)
{
    char age[32] = "-", memory[32] = "-", step[32] = "-", beat[32] = "-";

    if (p->pid) {
        terminal_duration(age, sizeof age, p->uptime_ns);
        terminal_bytes(memory, sizeof memory, p->rss_bytes);
        terminal_duration(beat, sizeof beat, p->heartbeat_age_ns);
    }
    if (p->step_age_ns)
        terminal_duration(step, sizeof step, p->step_age_ns);
    table_add(t, TINT_NONE, "%s", p->name);
    table_add(t, tint_of(p->state), "%s", p->state);
    table_add(t, TINT_NONE, "%u", p->pid);
    table_add(t, TINT_NONE, "%s", age);
    table_add(t, p->restarts ? TINT_WARNING : TINT_NONE, "%u", p->restarts);
    table_add(t, TINT_NONE, "%s", memory);
    table_add(t, TINT_NONE, "%s", beat);
    table_add(t, TINT_NONE, "%s", step);
    table_add(t, TINT_DIM, "%s", p->last_exit[0] ? p->last_exit : "-");
}

static void put_processes(struct screen *s, const struct top_view *v)
{
    static const struct table_column columns[] = {
        { "PROCESS", TABLE_LEFT }, { "STATE", TABLE_LEFT },     { "PID", TABLE_RIGHT },
        { "AGE", TABLE_RIGHT },    { "RESTARTS", TABLE_RIGHT }, { "MEMORY", TABLE_RIGHT },
        { "BEAT", TABLE_RIGHT },   { "STEP", TABLE_RIGHT },     { "LAST EXIT", TABLE_LEFT },
    };
    const Llmd__ProcessStatus **list;
    size_t n = v->status->n_processes;
    struct table t;

    list = calloc(n + 1, sizeof(Llmd__ProcessStatus *));
    if (!list)
        return;
    for (size_t i = 0; i < n; i++)
        list[i] = v->status->processes[i];
    sort(list, n, v->order);
    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < n; i++)
        add_process(&t, list[i]);
    put_table(s, &t);
    table_fini(&t);
    free(list);
}

/* The last line of the screen, without a newline: the screen would scroll. */
static void put_keys(struct screen *s, const struct top_view *v)
{
    static const char *const orders[N_TOP_ORDERS] = { "name", "age", "restarts", "memory" };
    char keys[160], cut[160];

    snprintf(keys, sizeof keys, "q quit  p %s  s sort (%s)  + - interval (%.3g s)",
             v->paused ? "go on" : "pause", orders[v->order], v->interval_ms / 1e3);
    snprintf(cut, sizeof cut, "%.*s", (int)table_bytes_of(keys, s->size->columns), keys);
    terminal_add(s->out, cut, TINT_DIM, s->size->colours);
}

void top_view_put(struct buf *out, const struct top_view *v, const struct top_screen *screen)
{
    struct screen s = { .size = screen, .out = out };

    put_head(&s, v);
    if (v->status && v->n > 0) {
        put_rate(&s, v);
        put_load(&s, v);
        put_latencies(&s, v);
        if (v->status->note[0])
            put_line(&s, TINT_WARNING, "%s", v->status->note);
        put_text(&s, TINT_NONE, "");
        put_groups(&s, v);
        put_text(&s, TINT_NONE, "");
        put_processes(&s, v);
    }
    while (s.row + 1 < screen->rows && begin_line(&s))
        buf_add_char(out, '\n');
    put_keys(&s, v);
}
