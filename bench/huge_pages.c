/* huge_pages.c - bench-huge-pages: what weights gain from lying in pages of 2 MiB.
 *
 *   bench-huge-pages [--mib N] [--threads N] [--rounds N] [--csv FILE]
 *
 * Two segments of the same size, made as llmd and its loader make them: one of 4 KiB pages, one by the first of the
 * ways that this host offers (common/huge.h); what smaps says of both stands in the table.  "stream": each
 * thread reads its share from one end to the other, as a step reads the weights; GB/s of one thread's own
 * CPU time, so that neighbours count little.  "map and read": a process like a restarted worker maps the
 * segment, touches every page, and unmaps it.  The two take turns; medians, and the median of the ratios. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/huge.h"
#include "common/topology.h"
#include "gpu-worker/load/huge_pages.h"

enum { ROUNDS_MAX = 99, SHARES_MAX = 512 };

struct options {
    uint32_t mib, threads, rounds;
    const char *csv;
};

struct stream {
    const uint64_t *words;
    size_t n, share; /* words */
    double gb_s[SHARES_MAX];
    uint64_t sums[SHARES_MAX]; /* so that the reads are not optimised away */
};

/* One of the two, and what was measured of it. */
struct side {
    const char *name;
    struct segment s;
    struct huge_use use;
    double stream[ROUNDS_MAX], map_ms[ROUNDS_MAX];
};

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void read_share(void *arg, uint32_t i)
{
    struct stream *s = arg;
    const uint64_t *w = s->words + i * s->share;
    uint64_t sum[8] = { 0 }, begin = cpu_ns();

    for (size_t at = 0; at + 8 <= s->share; at += 8)
        for (int k = 0; k < 8; k++)
            sum[k] += w[at + k];
    s->gb_s[i] = (double)(s->share * sizeof *w) / (double)(cpu_ns() - begin);
    for (int k = 0; k < 8; k++)
        s->sums[i] += sum[k];
}

static double stream(const struct segment *seg, struct threads *t)
{
    static struct stream s;
    double all = 0;

    s.words = (const uint64_t *)(const void *)seg->hdr;
    s.n = seg->bytes / sizeof *s.words;
    s.share = s.n / threads_count(t);
    threads_run(t, read_share, &s, threads_count(t));
    for (uint32_t i = 0; i < threads_count(t); i++)
        all += s.gb_s[i];
    return all / threads_count(t);
}

static double map_and_read_ms(const struct segment *made)
{
    uint64_t begin = cpu_ns(), sum = 0;
    struct segment s;
    struct err e;

    if (!segment_attach(&s, dup(made->fd), SEGMENT_WEIGHTS, 1, false, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    for (size_t at = 0; at < s.bytes; at += 4096)
        sum += *(volatile const uint8_t *)segment_at(&s, at);
    segment_close(&s);
    (void)sum;
    return (double)(cpu_ns() - begin) / 1e6;
}

static void fill(void *arg, uint32_t i)
{
    struct stream *s = arg;
    uint64_t *w = (uint64_t *)(uintptr_t)(s->words + i * s->share);
    size_t from = i == 0 ? 512 : 0; /* behind the header */

    for (size_t at = from; at < s->share; at++)
        w[at] = at * 0x9e3779b97f4a7c15u;
}

/* Made, attached at an aligned address as a worker does, filled, looked at. */
static void open_side(struct side *d, size_t bytes, bool huge, struct threads *t)
{
    const char *name = huge ? "bench-huge" : "bench-small";
    struct segment made;
    struct stream s = { 0 };
    struct err e;
    bool ok = segment_create_large(&made, SEGMENT_WEIGHTS, 1, name, bytes, 1, huge, &e);

    ok = ok && segment_attach(&d->s, dup(made.fd), SEGMENT_WEIGHTS, 1, true, &e);
    ok = ok && huge_pages_take(&d->s, t, &e);
    if (!ok) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    segment_close(&made);
    s.words = (const uint64_t *)(const void *)d->s.hdr;
    s.share = d->s.bytes / sizeof *s.words / threads_count(t);
    threads_run(t, fill, &s, threads_count(t));
    huge_use_read(&d->use, "", 0, name);
    d->name = segment_pages_name(d->s.hdr);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *v, uint32_t n)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, v, n * sizeof *v);
    qsort(sorted, n, sizeof *sorted, by_value);
    return sorted[n / 2];
}

static double median_ratio(const double *over, const double *under, uint32_t n)
{
    double ratio[ROUNDS_MAX];

    for (uint32_t i = 0; i < n; i++)
        ratio[i] = over[i] / under[i];
    return median(ratio, n);
}

static void print_side(FILE *out, const char *format, const struct side *d, const struct options *o)
{
    fprintf(out, format, d->name, d->use.huge >> 20, d->use.bytes >> 20, o->threads,
            median(d->stream, o->rounds), median(d->map_ms, o->rounds));
}

static void report(const struct side *small, const struct side *huge, const struct options *o)
{
    static const char line[] =
        "%-10s  %6lu of %6lu MiB huge  stream, each of %u threads %6.2f GB/s  map and "
        "read %7.1f ms\n";
    FILE *csv = o->csv ? fopen(o->csv, "we") : NULL;

    print_side(stdout, line, small, o);
    print_side(stdout, line, huge, o);
    printf("huge over small: stream ratio %.3f, map and read ratio %.4f\n",
           median_ratio(huge->stream, small->stream, o->rounds),
           median_ratio(huge->map_ms, small->map_ms, o->rounds));
    if (!csv)
        return;
    fprintf(csv, "pages,huge_mib,mib,threads,stream_gb_s_a_thread,map_and_read_ms\n");
    print_side(csv, "%s,%lu,%lu,%u,%.2f,%.3f\n", small, o);
    print_side(csv, "%s,%lu,%lu,%u,%.2f,%.3f\n", huge, o);
    fclose(csv);
}

static uint32_t number(struct argp_state *state, const char *arg, uint32_t min, uint32_t max)
{
    long n = strtol(arg, NULL, 10);

    if (n < (long)min || n > (long)max)
        argp_error(state, "'%s' is not a number from %u to %u", arg, min, max);
    return (uint32_t)n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'm':
        o->mib = number(state, arg, 64, 1 << 20);
        return 0;
    case 't':
        o->threads = number(state, arg, 1, SHARES_MAX);
        return 0;
    case 'r':
        o->rounds = number(state, arg, 1, ROUNDS_MAX);
        return 0;
    case 'c':
        o->csv = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option table[] = {
        { "mib", 'm', "N", 0, "Size of each segment [1024]", 0 },
        { "threads", 't', "N", 0, "Threads that read [the cores]", 0 },
        { "rounds", 'r', "N", 0, "Rounds, of which the median counts [9]", 0 },
        { "csv", 'c', "FILE", 0, "Write the table there too", 0 },
        { 0 },
    };
    static const struct argp argp = { .options = table, .parser = parse };
    static struct topology machine;
    static struct side small, huge;
    struct options o = { .mib = 1024, .rounds = 9 };
    struct threads *t;

    topology_read(&machine, "");
    o.threads = topology_cores(&machine);
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    t = threads_new(o.threads, NULL);
    open_side(&small, (size_t)o.mib << 20, false, t);
    open_side(&huge, (size_t)o.mib << 20, true, t);
    for (uint32_t i = 0; i < o.rounds; i++) {
        small.stream[i] = stream(&small.s, t);
        huge.stream[i] = stream(&huge.s, t);
        small.map_ms[i] = map_and_read_ms(&small.s);
        huge.map_ms[i] = map_and_read_ms(&huge.s);
    }
    report(&small, &huge, &o);
    segment_close(&small.s);
    segment_close(&huge.s);
    threads_free(t);
    return 0;
}
