/* test_threads.c - the compute threads.
 *
 * What would break in production: an index run twice or never (wrong numbers, or a step that never ends),
 * a wake-up lost (a hang), threads that burn a core while nothing happens, two threads on one core. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/ops/ops_rig.h"

enum { JOB_MAX = 2000 };

struct tally {
    _Atomic uint32_t runs[JOB_MAX];
    uint32_t plain[JOB_MAX]; /* written by the index's one runner, read by the caller */
};

static void count(void *arg, uint32_t i)
{
    struct tally *t = arg;

    atomic_fetch_add_explicit(&t->runs[i], 1, memory_order_relaxed);
    t->plain[i]++;
}

static void every_index_runs_once(void **state)
{
    (void)state;
    for (uint32_t n_threads = 1; n_threads <= 5; n_threads++) {
        struct threads *t = threads_new(n_threads, NULL);
        struct tally *tally = mem_zalloc(1, sizeof *tally);
        uint32_t wanted[JOB_MAX] = { 0 };
        for (uint32_t n = 0; n < JOB_MAX; n += 1 + n / 7) {
            threads_run(t, count, tally, n);
            for (uint32_t i = 0; i < JOB_MAX; i++) {
                wanted[i] += i < n;
                assert_int_equal(tally->runs[i], wanted[i]);
                assert_int_equal(tally->plain[i], wanted[i]);
            }
        }
        free(tally);
        threads_free(t);
    }
}

/* Jobs back to back, and with pauses long enough for everybody to fall asleep. */
static void many_small_jobs_all_finish(void **state)
{
    struct threads *t = threads_new(4, NULL);
    struct tally *tally = mem_zalloc(1, sizeof *tally);
    struct timespec pause = { 0, 300000 };

    (void)state;
    assert_int_equal(threads_count(t), 4);
    for (uint32_t i = 0; i < 3000; i++) {
        threads_run(t, count, tally, 2 + i % 9);
        if (i % 100 == 0)
            nanosleep(&pause, NULL);
    }
    assert_int_equal(tally->plain[0], 3000);
    assert_int_equal(tally->plain[1], 3000);
    free(tally);
    threads_free(t);
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* Asleep in the kernel, not polling: a fifth of a second costs next to nothing. */
static void idle_threads_use_no_cpu(void **state)
{
    struct threads *t = threads_new(4, NULL);
    struct tally *tally = mem_zalloc(1, sizeof *tally);
    struct timespec settle = { 0, 20000000 }, nap = { 0, 200000000 };
    double before;

    (void)state;
    threads_run(t, count, tally, 100);
    nanosleep(&settle, NULL);
    before = cpu_seconds();
    nanosleep(&nap, NULL);
    assert_true(cpu_seconds() - before < 0.01);
    free(tally);
    threads_free(t);
}

/* ---- pinning ---- */

struct seen {
    cpu_set_t masks[64]; /* of who ran index i */
    _Atomic uint32_t n_here;
};

/* Both threads must come, or the caller could run both indexes. */
static void note_mask(void *arg, uint32_t i)
{
    struct seen *s = arg;

    pthread_getaffinity_np(pthread_self(), sizeof s->masks[i], &s->masks[i]);
    atomic_fetch_add(&s->n_here, 1);
    while (atomic_load(&s->n_here) < 2)
        sched_yield();
}

static uint32_t first_cpu(const cpu_set_t *set)
{
    uint32_t i = 0;

    while (!CPU_ISSET(i, set))
        i++;
    return i;
}

/* Also the worker's mask is the core given, and the caller gets back what it had. */
static void pinned_threads_stay_on_their_cores(void **state)
{
    struct threads *t = threads_new(2, NULL);
    struct seen s = { .n_here = 0 };
    cpu_set_t home, now;
    uint32_t cpus[2];
    struct err e;

    (void)state;
    pthread_getaffinity_np(pthread_self(), sizeof home, &home);
    cpus[0] = cpus[1] = first_cpu(&home);
    threads_pin_caller(t); /* nothing to do yet */
    pthread_getaffinity_np(pthread_self(), sizeof now, &now);
    assert_true(CPU_EQUAL(&now, &home));
    assert_true(threads_pin(t, cpus, &e));
    threads_pin_caller(t);
    threads_run(t, note_mask, &s, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(CPU_COUNT(&s.masks[i]), 1);
        assert_true(CPU_ISSET(cpus[0], &s.masks[i]));
    }
    threads_unpin_caller(t);
    pthread_getaffinity_np(pthread_self(), sizeof now, &now);
    assert_true(CPU_EQUAL(&now, &home));
    threads_pin_caller(t);
    threads_free(t);
    pthread_getaffinity_np(pthread_self(), sizeof now, &now);
    assert_true(CPU_EQUAL(&now, &home));
}

static void a_core_that_is_not_there_is_refused(void **state)
{
    struct threads *t = threads_new(2, NULL);
    uint32_t cpus[2] = { 0, CPU_SETSIZE - 1 };
    struct tally *tally = mem_zalloc(1, sizeof *tally);
    struct err e;

    (void)state;
    assert_false(threads_pin(t, cpus, &e));
    threads_run(t, count, tally, 100); /* and all goes on, unpinned */
    assert_int_equal(tally->plain[99], 1);
    free(tally);
    threads_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_runs_once),
        cmocka_unit_test(many_small_jobs_all_finish),
        cmocka_unit_test(idle_threads_use_no_cpu),
        cmocka_unit_test(pinned_threads_stay_on_their_cores),
        cmocka_unit_test(a_core_that_is_not_there_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
