#include "bench/machine_limits.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/mem.h"

enum { CPUS_MAX = 512, GLANCE_PASSES = 8 };

#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define GLANCE_BYTES    ((size_t)512 << 20)
#define KERNEL_NS       (20 * NS_PER_MS) /* of one pass */
#define KERNEL_PROBE    ((uint64_t)100000)

/* One piece of work for each thread; all begin together. */
struct crew {
    uint32_t n_threads;
    pthread_barrier_t gate;
    void (*work)(struct crew *c, uint32_t index);
    const struct limit_kernel *kernel;
    uint64_t iterations;
    const char *memory;
    size_t bytes;
    uint64_t cpu_ns[CPUS_MAX], begin_ns[CPUS_MAX], end_ns[CPUS_MAX];
};

struct crew_member {
    struct crew *crew;
    uint32_t index;
};

/* The index-th CPU of the mask. */
static void pin(uint32_t index)
{
    cpu_set_t allowed, one;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && index-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static void *crew_main(void *arg)
{
    struct crew_member *m = arg;
    struct crew *c = m->crew;
    uint64_t cpu_begin;

    pin(m->index);
    pthread_barrier_wait(&c->gate);
    c->begin_ns[m->index] = clock_mono_ns();
    cpu_begin = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
    c->work(c, m->index);
    c->cpu_ns[m->index] = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_begin;
    c->end_ns[m->index] = clock_mono_ns();
    return NULL;
}

/* Nanoseconds from the first one's begin to the last one's end. */
static uint64_t crew_run(struct crew *c)
{
    pthread_t threads[CPUS_MAX];
    struct crew_member members[CPUS_MAX];
    uint64_t begin = UINT64_MAX, end = 0;

    pthread_barrier_init(&c->gate, NULL, c->n_threads);
    for (uint32_t i = 0; i < c->n_threads; i++) {
        members[i] = (struct crew_member){ c, i };
        if (pthread_create(&threads[i], NULL, crew_main, &members[i]) != 0) {
            perror("pthread_create");
            abort();
        }
    }
    for (uint32_t i = 0; i < c->n_threads; i++) {
        pthread_join(threads[i], NULL);
        begin = c->begin_ns[i] < begin ? c->begin_ns[i] : begin;
        end = c->end_ns[i] > end ? c->end_ns[i] : end;
    }
    pthread_barrier_destroy(&c->gate);
    return end - begin;
}

/* ---- arithmetic ---- */

static void work_kernel(struct crew *c, uint32_t index)
{
    (void)index;
    c->kernel->run(c->iterations);
}

/* Operations a second of all threads, by their own CPU time. */
static double kernel_pass(struct crew *c)
{
    double sum = 0;

    crew_run(c);
    for (uint32_t i = 0; i < c->n_threads; i++)
        sum += (double)c->iterations * c->kernel->ops / ((double)c->cpu_ns[i] * 1e-9);
    return sum;
}

static double measure_kernel(const struct limit_kernel *k, uint32_t n_threads, uint32_t passes)
{
    struct crew c = { .n_threads = n_threads, .work = work_kernel, .kernel = k };
    double best, rate;

    c.iterations = KERNEL_PROBE;
    best = kernel_pass(&c);
    c.iterations = (uint64_t)(best / n_threads / k->ops * ((double)KERNEL_NS * 1e-9)) + 1;
    for (uint32_t i = 0; i < passes; i++) {
        rate = kernel_pass(&c);
        best = rate > best ? rate : best;
    }
    return best;
}

/* known: NULL, or of each kind that machine_limits_ops() counts its fastest instructions alone. */
static void measure_arithmetic(struct machine_limits *m, const struct machine_limits *known,
                               uint32_t passes)
{
    for (uint32_t i = 0; i < n_limit_kernels; i++) {
        const struct limit_kernel *k = &limit_kernels[i];
        bool wanted =
            !known || (k->kind != LIMIT_TILES && k->instructions == known->instructions[k->kind]);
        double rate = wanted && k->can_run() ? measure_kernel(k, m->n_threads, passes) : 0;
        if (rate > m->ops[k->kind]) {
            m->ops[k->kind] = rate;
            m->instructions[k->kind] = k->instructions;
        }
    }
}

/* ---- memory ---- */

static void work_read(struct crew *c, uint32_t index)
{
    size_t share = c->bytes / c->n_threads / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;

    limit_read(c->memory + index * share, share);
}

/* Each thread touches its own part first, so that it lies near it. */
static void work_touch(struct crew *c, uint32_t index)
{
    size_t share = c->bytes / c->n_threads / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;

    memset((char *)c->memory + index * share, 1, share);
}

/* Is any of this mapping backed by huge pages?  From the kernel's own account. */
static bool is_huge(const void *memory)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[256], wanted[32];
    bool here = false;
    unsigned long kib = 0;

    if (!f)
        return false;
    snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)memory);
    while (fgets(line, sizeof line, f) && !kib) {
        if (strchr(line, '-') && strspn(line, "0123456789abcdef") == strcspn(line, "-"))
            here = strncmp(line, wanted, strlen(wanted)) == 0;
        if (here)
            sscanf(line, "AnonHugePages: %lu", &kib);
    }
    fclose(f);
    return kib > 0;
}

/* Bytes a second of all threads. */
static double read_pass(struct crew *c, size_t bytes, bool cpu_clock)
{
    uint64_t wall_ns = crew_run(c);
    double sum = 0;

    if (!cpu_clock)
        return (double)bytes / ((double)wall_ns * 1e-9);
    for (uint32_t i = 0; i < c->n_threads; i++)
        sum += (double)bytes / c->n_threads / ((double)c->cpu_ns[i] * 1e-9);
    return sum;
}

/* The rate of the best pass; *mean, unless NULL: of all passes together. */
static double measure_read(uint32_t n_threads, const struct limits_options *o, bool huge,
                           bool *is_so, double *mean)
{
    size_t mapped = o->read_bytes + HUGE_PAGE_BYTES;
    char *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct crew c = { .n_threads = n_threads, .work = work_touch, .bytes = o->read_bytes };
    size_t head, used;
    double best = 0, seconds = 0;

    if (map == MAP_FAILED) {
        perror("mmap");
        abort();
    }
    head = (HUGE_PAGE_BYTES - (uintptr_t)map % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    c.memory = map + head;
    madvise(map + head, o->read_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    crew_run(&c);
    if (is_so)
        *is_so = is_huge(map + head);
    used = o->read_bytes / n_threads / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES * n_threads;
    c.work = work_read;
    for (uint32_t i = 0; i < o->passes; i++) {
        double rate = read_pass(&c, used, o->cpu_clock);
        best = rate > best ? rate : best;
        seconds += (double)used / rate;
    }
    if (mean)
        *mean = o->passes * (double)used / seconds;
    munmap(map, mapped);
    return best;
}

/* ---- all ---- */

void machine_limits_measure(struct machine_limits *m, const struct limits_options *o)
{
    cpu_set_t allowed;
    uint32_t n = 1;

    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        n = (uint32_t)CPU_COUNT(&allowed);
    *m = (struct machine_limits){ .n_threads = o->n_threads ? o->n_threads : n };
    if (m->n_threads > CPUS_MAX)
        m->n_threads = CPUS_MAX;
    measure_arithmetic(m, NULL, o->passes);
    m->read_all = measure_read(m->n_threads, o, true, &m->huge, NULL);
    m->read_one = m->n_threads > 1 ? measure_read(1, o, true, NULL, NULL) : m->read_all;
    m->read_small_pages = measure_read(m->n_threads, o, false, NULL, NULL);
}

void machine_limits_glance(struct machine_limits *m, const struct machine_limits *known,
                           bool cpu_clock)
{
    struct limits_options o = { known->n_threads, GLANCE_PASSES, GLANCE_BYTES, cpu_clock };
    double mean;

    m->n_threads = known->n_threads;
    measure_arithmetic(m, known, o.passes);
    measure_read(m->n_threads, &o, true, &m->huge, &mean);
    m->read_all = m->read_all > 0 ? (m->read_all + mean) / 2 : mean;
}

double machine_limits_ops(const struct machine_limits *m, uint32_t weight_bits, const char **name)
{
    enum limit_kind kind = weight_bits == 4                          ? LIMIT_INT4
                           : weight_bits == 8                        ? LIMIT_INT8
                           : m->ops[LIMIT_BF16] > m->ops[LIMIT_FP32] ? LIMIT_BF16
                                                                     : LIMIT_FP32;

    if (m->ops[kind] <= 0)
        kind = LIMIT_FP32;
    *name = limit_kind_name(kind);
    return m->ops[kind];
}
