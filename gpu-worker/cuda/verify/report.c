/* report.c - see report.h. */
#include "gpu-worker/cuda/verify/report.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/json.h"

static const char *const verdict_names[] = { [VERDICT_PASS] = "pass",
                                             [VERDICT_FAIL] = "fail",
                                             [VERDICT_RECORDED] = "recorded",
                                             [VERDICT_SKIPPED] = "skipped" };

static struct measure *measure_new(struct item_report *r, const char *fmt, va_list ap)
{
    struct measure *m;

    assert(r->n_measures < MEASURES_MAX);
    m = &r->measures[r->n_measures++];
    *m = (struct measure){ 0 };
    vsnprintf(m->name, sizeof m->name, fmt, ap);
    return m;
}

static void fill(struct measure *m, double value, double limit, const char *unit,
                 enum measure_limit kind)
{
    m->value = value;
    m->limit = limit;
    m->kind = kind;
    snprintf(m->unit, sizeof m->unit, "%s", unit);
}

void report_number(struct item_report *r, double value, const char *unit, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fill(measure_new(r, fmt, ap), value, 0, unit, LIMIT_NONE);
    va_end(ap);
}

void report_time(struct item_report *r, double value, const char *unit,
                 const struct roofline *expected, const char *fmt, ...)
{
    struct measure *m;
    va_list ap;

    va_start(ap, fmt);
    m = measure_new(r, fmt, ap);
    va_end(ap);
    fill(m, value, 0, unit, LIMIT_NONE);
    m->has_roofline = true;
    m->roofline = *expected;
}

void report_at_most(struct item_report *r, double value, double limit, const char *unit,
                    const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fill(measure_new(r, fmt, ap), value, limit, unit, LIMIT_AT_MOST);
    va_end(ap);
}

void report_at_least(struct item_report *r, double value, double limit, const char *unit,
                     const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fill(measure_new(r, fmt, ap), value, limit, unit, LIMIT_AT_LEAST);
    va_end(ap);
}

void report_text(struct item_report *r, const char *name, const char *fmt, ...)
{
    struct measure *m;
    va_list ap;

    assert(r->n_measures < MEASURES_MAX);
    m = &r->measures[r->n_measures++];
    *m = (struct measure){ 0 };
    snprintf(m->name, sizeof m->name, "%s", name);
    va_start(ap, fmt);
    vsnprintf(m->text, sizeof m->text, fmt, ap);
    va_end(ap);
}

static void set_reason(struct item_report *r, enum verdict verdict, const char *fmt, va_list ap)
{
    r->verdict = verdict;
    vsnprintf(r->reason, sizeof r->reason, fmt, ap);
}

void report_failure(struct item_report *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    set_reason(r, VERDICT_FAIL, fmt, ap);
    va_end(ap);
}

void report_skip(struct item_report *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    set_reason(r, VERDICT_SKIPPED, fmt, ap);
    va_end(ap);
}

static enum verdict verdict_of(const struct measure *m)
{
    switch (m->kind) {
    case LIMIT_AT_MOST:
        return m->value <= m->limit ? VERDICT_PASS : VERDICT_FAIL;
    case LIMIT_AT_LEAST:
        return m->value >= m->limit ? VERDICT_PASS : VERDICT_FAIL;
    case LIMIT_NONE:
        break;
    }
    return VERDICT_RECORDED;
}

void report_close(struct item_report *r)
{
    if (r->verdict == VERDICT_FAIL || r->verdict == VERDICT_SKIPPED)
        return;
    r->verdict = VERDICT_RECORDED;
    for (size_t i = 0; i < r->n_measures; i++) {
        enum verdict v = verdict_of(&r->measures[i]);

        if (v == VERDICT_FAIL || (v == VERDICT_PASS && r->verdict == VERDICT_RECORDED))
            r->verdict = v;
        if (v == VERDICT_FAIL)
            return;
    }
}

static double reached(const struct measure *m)
{
    return m->value > 0 ? m->roofline.least / m->value : 0;
}

/* ---- For people ---- */

static void print_roofline(const struct measure *m)
{
    const struct roofline *f = &m->roofline;

    if (f->data_sheet[0])
        printf(" (%s: %.4g %s at least; %.2f of that reached, %.2f wanted)", f->data_sheet,
               f->least, m->unit, reached(m), f->wanted);
    else
        printf(" (no data sheet for this GPU; %.2f of one is wanted)", f->wanted);
}

static void print_measure(const struct measure *m)
{
    if (m->text[0]) {
        printf("       %-48s %s\n", m->name, m->text);
        return;
    }
    printf("       %-48s %.6g %s", m->name, m->value, m->unit);
    if (m->kind != LIMIT_NONE)
        printf(" (%s %.6g): %s", m->kind == LIMIT_AT_MOST ? "at most" : "at least", m->limit,
               verdict_names[verdict_of(m)]);
    if (m->has_roofline)
        print_roofline(m);
    putchar('\n');
}

void report_print(const struct item_report *r)
{
    printf("%-4s %-9s %s%s%s\n", r->id, verdict_names[r->verdict], r->title,
           r->reason[0] ? ": " : "", r->reason);
    for (size_t i = 0; i < r->n_measures; i++)
        print_measure(&r->measures[i]);
    fflush(stdout);
}

/* ---- For programs ---- */

static void write_pair(struct json_writer *w, const char *key, const char *value)
{
    jw_key(w, key);
    jw_str(w, value);
}

/* key: value, or null */
static void write_known(struct json_writer *w, const char *key, bool is_known, double value)
{
    jw_key(w, key);
    if (is_known)
        jw_double(w, value);
    else
        jw_null(w);
}

static void write_roofline(struct json_writer *w, const struct measure *m)
{
    const struct roofline *f = &m->roofline;
    bool is_known = f->data_sheet[0] != '\0';

    jw_key(w, "roofline");
    jw_object(w);
    write_pair(w, "data_sheet", is_known ? f->data_sheet : NULL);
    write_known(w, "least", is_known, f->least);
    write_known(w, "wanted", true, f->wanted);
    write_known(w, "reached", is_known, reached(m));
    jw_object_end(w);
}

static void write_measure(struct json_writer *w, const struct measure *m)
{
    jw_object(w);
    write_pair(w, "name", m->name);
    if (m->text[0]) {
        write_pair(w, "text", m->text);
    } else {
        jw_key(w, "value");
        jw_double(w, m->value);
        write_pair(w, "unit", m->unit);
    }
    if (m->kind != LIMIT_NONE) {
        jw_key(w, m->kind == LIMIT_AT_MOST ? "at_most" : "at_least");
        jw_double(w, m->limit);
    }
    if (m->has_roofline)
        write_roofline(w, m);
    write_pair(w, "verdict", verdict_names[verdict_of(m)]);
    jw_object_end(w);
}

static void write_item(struct json_writer *w, const struct item_report *r)
{
    jw_object(w);
    write_pair(w, "id", r->id);
    write_pair(w, "title", r->title);
    write_pair(w, "verdict", verdict_names[r->verdict]);
    write_pair(w, "reason", r->reason[0] ? r->reason : NULL);
    jw_key(w, "measures");
    jw_array(w);
    for (size_t i = 0; i < r->n_measures; i++)
        write_measure(w, &r->measures[i]);
    jw_array_end(w);
    jw_object_end(w);
}

static void write_document(struct json_writer *w, const struct item_report *items, size_t n,
                           bool is_dry_run)
{
    jw_object(w);
    write_pair(w, "program", LLMD_VERSION);
    jw_key(w, "dry_run");
    jw_bool(w, is_dry_run);
    jw_key(w, "items");
    jw_array(w);
    for (size_t i = 0; i < n; i++)
        write_item(w, &items[i]);
    jw_array_end(w);
    jw_object_end(w);
}

bool report_write(const char *path, const struct item_report *items, size_t n, bool is_dry_run)
{
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };
    FILE *f;
    bool ok;

    write_document(&w, items, n, is_dry_run);
    f = fopen(path, "we");
    ok = f && fwrite(out.data, 1, out.n, f) == out.n && fputc('\n', f) == '\n';
    if (f && fclose(f) != 0)
        ok = false;
    if (!ok)
        fprintf(stderr, "gpu-verify: cannot write '%s'\n", path);
    buf_fini(&out);
    return ok;
}
