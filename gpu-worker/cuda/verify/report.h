/* report.h - what gpu-verify found: items with their measures, as lines for people and as one JSON document.
 *
 *   { "program": "0.1.0", "dry_run": false, "items": [
 *       { "id": "G2", "title": "...", "verdict": "pass", "reason": null, "measures": [
 *           { "name": "wrong bytes", "value": 0, "unit": "B", "at_most": 0, "verdict": "pass" },
 *           { "name": "driver", "text": "13.0", "verdict": "recorded" } ] } ] }
 *
 * A time of G10 has a member "roofline" too: { "data_sheet": "A100-80", "least": 24.7, "wanted": 0.85, "reached": 0.9 },
 * of which the first, second and fourth are null where there is no data sheet for the GPU.
 *
 * An item's verdict is fail if any measure fails, pass if any passes, else recorded; skipped says why. */
#ifndef LLMD_CUDA_VERIFY_REPORT_H
#define LLMD_CUDA_VERIFY_REPORT_H

#include <stdbool.h>
#include <stddef.h>

enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_RECORDED, VERDICT_SKIPPED };

enum measure_limit { LIMIT_NONE, LIMIT_AT_MOST, LIMIT_AT_LEAST };

/* What is expected of a kernel's time. */
struct roofline {
    char data_sheet[16]; /* "": there is none for this GPU, and least is not known */
    double least;        /* in the time's unit */
    double wanted;       /* part of that speed that is meant to be reached */
};

struct measure {
    char name[80];
    char text[160]; /* instead of a number, if not "" */
    double value, limit;
    char unit[12];
    enum measure_limit kind;
    bool has_roofline;
    struct roofline roofline;
};

enum { MEASURES_MAX = 256 };

struct item_report {
    const char *id, *title;
    enum verdict verdict;
    char reason[240]; /* of a failure, or why it was skipped; "" = none */
    struct measure measures[MEASURES_MAX];
    size_t n_measures;
};

/* Number names may contain what was varied: "attach, 256 MiB chunks". */
void report_number(struct item_report *r, double value, const char *unit, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void report_time(struct item_report *r, double value, const char *unit,
                 const struct roofline *expected, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void report_at_most(struct item_report *r, double value, double limit, const char *unit,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void report_at_least(struct item_report *r, double value, double limit, const char *unit,
                     const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void report_text(struct item_report *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The item could not be carried through: it fails. */
void report_failure(struct item_report *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void report_skip(struct item_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Decide the verdict from the measures, unless it failed or was skipped. */
void report_close(struct item_report *r);

void report_print(const struct item_report *r);

/* Write the document; false with the reason on stderr. */
bool report_write(const char *path, const struct item_report *items, size_t n, bool is_dry_run);

#endif
