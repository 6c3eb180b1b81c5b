/* limits.c - bench-limits: what this machine can read and compute at most.
 *
 *   bench-limits [--threads N] [--passes N] [--mib N] [--csv FILE]
 *
 * Read bandwidth of one thread and of all, with 2 MiB and with 4 KiB pages; operations a second of the best
 * instruction mix for each kind of weights.  Every table of this folder gives a share of these. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "bench/machine_limits.h"

struct options {
    struct limits_options limits;
    const char *csv;
};

static const struct argp_option argp_options[] = {
    { "threads", 't', "N", 0, "threads (default: every CPU that this process may use)", 0 },
    { "passes", 'p', "N", 0, "passes of each; the best counts (default 10)", 0 },
    { "mib", 'm', "N", 0, "MiB read in one pass (default 1024)", 0 },
    { "csv", 'c', "FILE", 0, "write what, value, unit, how", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    unsigned long n = arg ? strtoul(arg, NULL, 10) : 0;

    switch (key) {
    case 't':
        o->limits.n_threads = (uint32_t)n;
        return 0;
    case 'p':
        if (n < 1 || n > 10000)
            argp_error(state, "passes: 1..10000");
        o->limits.passes = (uint32_t)n;
        return 0;
    case 'm':
        if (n < 16 || n > 1048576)
            argp_error(state, "mib: 16..1048576");
        o->limits.read_bytes = (size_t)n << 20;
        return 0;
    case 'c':
        o->csv = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

struct line {
    char what[64];
    double value;
    const char *unit;
    char how[64];
};

static void add_read(struct line *l, uint32_t n_threads, double rate, const char *pages)
{
    snprintf(l->what, sizeof l->what, "memory read, %u thread%s", n_threads,
             n_threads == 1 ? "" : "s");
    snprintf(l->how, sizeof l->how, "%s pages", pages);
    l->value = rate * 1e-9;
    l->unit = "GB/s";
}

static uint32_t fill(const struct machine_limits *m, struct line *lines)
{
    uint32_t n = 0;

    add_read(&lines[n++], 1, m->read_one, m->huge ? "2 MiB" : "2 MiB asked for, 4 KiB given:");
    add_read(&lines[n++], m->n_threads, m->read_all,
             m->huge ? "2 MiB" : "2 MiB asked for, 4 KiB given:");
    add_read(&lines[n++], m->n_threads, m->read_small_pages, "4 KiB");
    for (uint32_t k = 0; k < N_LIMIT_KINDS; k++) {
        if (m->ops[k] <= 0)
            continue;
        snprintf(lines[n].what, sizeof lines[n].what, "%s products, %u threads",
                 limit_kind_name((enum limit_kind)k), m->n_threads);
        snprintf(lines[n].how, sizeof lines[n].how, "%s", m->instructions[k]);
        lines[n].value = m->ops[k] * 1e-9;
        lines[n++].unit = "Gop/s";
    }
    return n;
}

int main(int argc, char **argv)
{
    static const struct argp argp = { .options = argp_options,
                                      .parser = parse,
                                      .doc = "Memory bandwidth and peak arithmetic." };
    struct options o = { .limits = { .passes = 10, .read_bytes = (size_t)1 << 30 } };
    struct machine_limits m;
    struct line lines[3 + N_LIMIT_KINDS];
    FILE *csv = NULL;
    uint32_t n;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.csv && !(csv = fopen(o.csv, "w"))) {
        perror(o.csv);
        return 1;
    }
    machine_limits_measure(&m, &o.limits);
    n = fill(&m, lines);
    if (csv)
        fprintf(csv, "what,value,unit,how\n");
    for (uint32_t i = 0; i < n; i++) {
        printf("%-31s %8.1f %s  %s\n", lines[i].what, lines[i].value, lines[i].unit, lines[i].how);
        if (csv)
            fprintf(csv, "\"%s\",%.1f,%s,%s\n", lines[i].what, lines[i].value, lines[i].unit,
                    lines[i].how);
    }
    return csv && fclose(csv) != 0;
}
