/* report.c - see report.h. */
#include "tests/chaos/report.h"

#include <math.h>
#include <stdlib.h>

#include "common/mem.h"

void samples_add(struct samples *s, double ms)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->ms = mem_realloc(s->ms, s->cap * sizeof *s->ms);
    }
    s->ms[s->n++] = ms;
}

void samples_fini(struct samples *s)
{
    free(s->ms);
    *s = (struct samples){ 0 };
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

double samples_at(struct samples *s, double share)
{
    size_t rank = (size_t)ceil(share * (double)s->n);

    if (s->n == 0)
        return -1;
    qsort(s->ms, s->n, sizeof *s->ms, compare);
    return s->ms[rank > 0 ? rank - 1 : 0];
}

struct counts counts_since(const struct counts *a, const struct counts *b)
{
    return (struct counts){ .kills = a->kills - b->kills,
                            .requests = a->requests - b->requests,
                            .lost = a->lost - b->lost,
                            .wrong = a->wrong - b->wrong,
                            .refused = a->refused - b->refused,
                            .left = a->left - b->left,
                            .leaked = a->leaked - b->leaked,
                            .failed = a->failed - b->failed };
}

void counts_add(struct counts *to, const struct counts *more)
{
    to->kills += more->kills;
    to->requests += more->requests;
    to->lost += more->lost;
    to->wrong += more->wrong;
    to->refused += more->refused;
    to->left += more->left;
    to->leaked += more->leaked;
    to->failed += more->failed;
}

static void put_ms(FILE *out, const char *before, double ms)
{
    if (ms < 0)
        fprintf(out, "%s-", before);
    else
        fprintf(out, "%s%.1f", before, ms);
}

void report_csv(FILE *out, struct report_row *rows, size_t n)
{
    fprintf(out, "kill,kills,requests,lost,wrong,refused,recovery_samples,recovery_p50_ms,"
                 "recovery_p99_ms,recovery_max_ms\n");
    for (size_t i = 0; i < n; i++) {
        const struct counts *c = &rows[i].counts;
        if (c->kills == 0 && rows[i].recovery.n == 0)
            continue;
        fprintf(out, "%s,%lu,%lu,%lu,%lu,%lu,%zu", rows[i].name, (unsigned long)c->kills,
                (unsigned long)c->requests, (unsigned long)c->lost, (unsigned long)c->wrong,
                (unsigned long)c->refused, rows[i].recovery.n);
        put_ms(out, ",", samples_at(&rows[i].recovery, 0.5));
        put_ms(out, ",", samples_at(&rows[i].recovery, 0.99));
        put_ms(out, ",", samples_at(&rows[i].recovery, 1));
        fputc('\n', out);
    }
}

void report_line(FILE *out, const struct counts *c, struct samples *worker, struct samples *gateway,
                 struct samples *llmd)
{
    fprintf(out, "kills %lu requests %lu lost %lu wrong %lu refused %lu leaked %lu",
            (unsigned long)c->kills, (unsigned long)c->requests, (unsigned long)c->lost,
            (unsigned long)c->wrong, (unsigned long)c->refused, (unsigned long)c->leaked);
    put_ms(out, " worker_p99_ms ", samples_at(worker, 0.99));
    put_ms(out, " gateway_p99_ms ", samples_at(gateway, 0.99));
    put_ms(out, " llmd_p99_ms ", samples_at(llmd, 0.99));
    fputc('\n', out);
    fflush(out);
}
