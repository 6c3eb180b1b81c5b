/* threads.c - bench-threads: what handing a job to the compute threads costs, and what a busy neighbour takes.
 *
 *   bench-threads [--threads N] [--rounds N] [--pin]
 *
 * "fork and join": a job in which the threads only meet, of many the median and the tenths, once back to
 * back and once with some microseconds of the caller's own work between them (a step's serial parts).  "step": 60 jobs of some 20 microseconds a thread, the shape of one token of a 110M model, alone
 * and with one busy process for each thread; the two take turns, and the last column is the median of
 * their ratios.  The busy processes are children of this one and end with it. */
#include <argp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/topology.h"
#include "gpu-worker/ops/futex.h"
#include "gpu-worker/ops/threads.h"

enum { JOBS = 50000, STEP_JOBS = 60, SHARES_A_THREAD = 4, ROUNDS_MAX = 99, HOGS_MAX = 64 };

#define WORK_NS    (20 * 1000ull) /* of a job, a thread */
#define MEASURE_NS (300 * NS_PER_MS)

struct meeting {
    uint32_t n;
    _Atomic uint32_t n_here;
};

struct options {
    uint32_t threads, rounds;
    bool pin;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, uint32_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

/* Work that takes the same number of instructions wherever it runs. */
static void spin(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++)
        __asm__ volatile("" : "+r"(i));
}

/* ---- fork and join ---- */

/* Every thread has to come, so that the caller cannot do a job alone and call it fast. */
static void meet(void *arg, uint32_t i)
{
    struct meeting *m = arg;

    (void)i;
    atomic_fetch_add(&m->n_here, 1);
    while (atomic_load(&m->n_here) < m->n)
        cpu_relax();
}

static void bench_fork(struct threads *t, const char *name, uint64_t between)
{
    static double ns[JOBS];

    for (int i = 0; i < JOBS; i++) {
        struct meeting m = { .n = threads_count(t) };
        uint64_t begin;
        spin(between);
        begin = clock_mono_ns();
        threads_run(t, meet, &m, m.n);
        ns[i] = (double)(clock_mono_ns() - begin);
    }
    printf("fork and join, %-12s  median %6.0f ns", name, median(ns, JOBS));
    printf("  a tenth below %6.0f ns, nine tenths %6.0f ns\n", ns[JOBS / 10], ns[JOBS / 10 * 9]);
}

/* ---- a busy neighbour ---- */

struct hogs {
    pid_t pids[HOGS_MAX];
    uint32_t n;
};

static void hogs_start(struct hogs *h, uint32_t n)
{
    for (h->n = 0; h->n < n && h->n < HOGS_MAX; h->n++) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                spin(1000000);
        }
        h->pids[h->n] = pid;
    }
}

static void hogs_stop(struct hogs *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        kill(h->pids[i], SIGKILL);
        waitpid(h->pids[i], NULL, 0);
    }
    h->n = 0;
}

static uint64_t turns_of(uint64_t ns)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 50; i++) {
        uint64_t begin = clock_mono_ns(), took;
        spin(100000);
        took = clock_mono_ns() - begin;
        best = took < best ? took : best;
    }
    return ns * 100000 / best;
}

static void share(void *arg, uint32_t i)
{
    (void)i;
    spin(*(uint64_t *)arg);
}

static double steps_a_second(struct threads *t, uint64_t turns_a_share)
{
    uint64_t begin = clock_mono_ns(), now;
    uint32_t steps = 0;

    do {
        for (int i = 0; i < STEP_JOBS; i++)
            threads_run(t, share, &turns_a_share, threads_count(t) * SHARES_A_THREAD);
        steps++;
        now = clock_mono_ns();
    } while (now - begin < MEASURE_NS);
    return steps / ((double)(now - begin) * 1e-9);
}

static void bench_hogs(struct threads *t, const struct options *o)
{
    uint64_t turns = turns_of(WORK_NS) / SHARES_A_THREAD;
    double alone[ROUNDS_MAX], busy[ROUNDS_MAX], ratio[ROUNDS_MAX];
    struct hogs hogs;

    for (uint32_t r = 0; r < o->rounds; r++) {
        alone[r] = steps_a_second(t, turns);
        threads_unpin_caller(t); /* a child begins where its parent may run */
        hogs_start(&hogs, threads_count(t));
        threads_pin_caller(t);
        busy[r] = steps_a_second(t, turns);
        hogs_stop(&hogs);
        ratio[r] = busy[r] / alone[r];
    }
    printf("step, %u busy neighbours   alone %.0f a second, beside them %.0f", threads_count(t),
           median(alone, o->rounds), median(busy, o->rounds));
    printf("  ratio %.2f", median(ratio, o->rounds));
    printf("  (%.2f .. %.2f)\n", ratio[0], ratio[o->rounds - 1]);
}

/* ---- main ---- */

static const struct argp_option argp_options[] = {
    { "threads", 't', "N", 0, "compute threads; 0 = all cores (default)", 0 },
    { "rounds", 'r', "N", 0, "rounds with and without neighbours, 1..99 (default 7)", 0 },
    { "pin", 'p', 0, 0, "pin each thread to a core", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 't':
        o->threads = (uint32_t)strtoul(arg, NULL, 10);
        return 0;
    case 'r':
        o->rounds = (uint32_t)strtoul(arg, NULL, 10);
        if (o->rounds < 1 || o->rounds > ROUNDS_MAX)
            argp_error(state, "rounds: 1..%d", ROUNDS_MAX);
        return 0;
    case 'p':
        o->pin = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .doc = "The cost of a job for the compute threads, and of a busy neighbour.",
    };
    struct options o = { .rounds = 7 };
    struct topology machine;
    uint32_t cpus[THREADS_MAX];
    struct threads *t;
    struct err e;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    topology_read(&machine, "");
    if (o.threads == 0)
        o.threads = topology_cores(&machine);
    t = threads_new(o.threads, &e);
    if (!t) {
        fprintf(stderr, "bench-threads: %s\n", e.msg);
        return 1;
    }
    if (o.pin &&
        topology_assign(&machine, PIN_ON, (struct topology_rank){ 0, 1, o.threads }, cpus) &&
        !threads_pin(t, cpus, &e)) {
        fprintf(stderr, "bench-threads: %s\n", e.msg);
        return 1;
    }
    threads_pin_caller(t);
    printf("%u threads%s\n", o.threads, o.pin ? ", pinned" : "");
    bench_fork(t, "back to back", 0);
    bench_fork(t, "5 us between", turns_of(5 * 1000ull));
    bench_hogs(t, &o);
    threads_free(t);
    return 0;
}
