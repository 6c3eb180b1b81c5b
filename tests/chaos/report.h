/* report.h - what a run counts, and how it is told: by kind of kill, as lines and as CSV. */
#ifndef LLMD_TESTS_CHAOS_REPORT_H
#define LLMD_TESTS_CHAOS_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct samples {
    double *ms;
    size_t n, cap;
};

void samples_add(struct samples *s, double ms);
void samples_fini(struct samples *s);
/* The smallest sample that `share` (0..1) of all do not exceed; -1 when there is none.  Sorts them. */
double samples_at(struct samples *s, double share);

struct counts {
    uint64_t kills;
    uint64_t requests; /* answered, or that should have been */
    uint64_t lost;     /* no answer, or only a part of one */
    uint64_t wrong;    /* another answer than undisturbed */
    uint64_t refused;  /* connections refused */
    uint64_t left;     /* clients went away by themselves */
    uint64_t leaked;   /* things left behind: entries, pages, descriptors, processes, files */
    uint64_t failed;   /* the server did not come back, or an order failed */
};

/* a - b, field by field */
struct counts counts_since(const struct counts *a, const struct counts *b);
void counts_add(struct counts *to, const struct counts *more);

/* One line of the table: a kind of kill, or the undisturbed load. */
struct report_row {
    const char *name;
    struct counts counts;
    struct samples
        recovery; /* per kill: to the last affected client's next byte, or the longest pause */
};

/* kill,kills,requests,lost,wrong,refused,recovery_p50_ms,... */
void report_csv(FILE *out, struct report_row *rows, size_t n);
/* The last line of a run, in the form that scripts read.  rows: those of "worker", "gateway", "llmd" by
 * a single SIGKILL give the three times. */
void report_line(FILE *out, const struct counts *c, struct samples *worker, struct samples *gateway,
                 struct samples *llmd);

#endif
