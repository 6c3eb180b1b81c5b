/* threads.c - a job is a ticket counter: {job number, n, next index} in one 64-bit word.
 *
 * Who wants work takes index i by moving the word from {job, n, i} to {job, n, i + 1}.  An index that can
 * still be taken keeps its job from being over, so the function and argument read just before are its
 * own; a late thread's exchange fails, because the job number has moved on.  A job is over when every index
 * that was not the caller's has been counted in .n_done, and only then may the next one be posted.
 *
 * What a job costs is cache lines that travel, some 100 ns each.  All that a thread needs to begin lies in one
 * line, which it watches; the job is posted with index 0 taken, the caller's; .n_done is written by the
 * others alone and goes on from job to job, so that the caller has nothing to reset.
 *
 * Sleeping follows one pattern twice (workers wait for a job, the caller for the last index): announce
 * the sleep, look again, sleep on the word's value; the other side changes the word first and looks for
 * sleepers afterwards.  Both orders are sequentially consistent, so no wake-up is lost. */
#include "gpu-worker/ops/threads.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/futex.h"

enum { SPINS = 2000 }; /* some 20 microseconds of `pause` */

struct threads {
    /* the caller's line; others change only the ticket, and .n_asleep on their way to bed */
    alignas(64) _Atomic uint64_t ticket; /* see ticket_of() */
    _Atomic(void (*)(void *, uint32_t)) fn;
    _Atomic(void *) arg;
    _Atomic uint32_t job; /* of the ticket; the futex the workers sleep on */
    _Atomic uint32_t n_asleep;
    alignas(64) _Atomic uint32_t n_done; /* indexes run by others, ever; the futex of the caller */
    _Atomic uint32_t caller_sleeps;
    alignas(64) uint32_t n_threads; /* the caller included */
    uint32_t n_given;               /* the caller's: .n_done when the last job was over */
    bool is_pinned, caller_is_pinned;
    cpu_set_t home, caller_core; /* where the caller may run unpinned, and pinned */
    _Atomic bool stop;
    pthread_t workers[]; /* [n_threads - 1] */
};

static uint64_t ticket_of(uint32_t job, uint32_t n, uint32_t next)
{
    return (uint64_t)job << 32 | n << 16 | next;
}

static uint32_t job_of(uint64_t ticket)
{
    return (uint32_t)(ticket >> 32);
}

/* Take and run one index of the current job; false when there is none. */
static bool run_one(struct threads *t)
{
    uint64_t ticket = atomic_load_explicit(&t->ticket, memory_order_acquire);

    for (;;) {
        void (*fn)(void *, uint32_t) = atomic_load_explicit(&t->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&t->arg, memory_order_relaxed);
        uint32_t n = ticket >> 16 & 0xffff, i = ticket & 0xffff;

        if (i == n)
            return false;
        if (atomic_compare_exchange_weak_explicit(&t->ticket, &ticket, ticket + 1,
                                                  memory_order_acq_rel, memory_order_acquire)) {
            fn(arg, i);
            return true;
        }
    }
}

/* ---- a worker ---- */

static void sleep_until_job(struct threads *t, uint32_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (job_of(atomic_load_explicit(&t->ticket, memory_order_relaxed)) != seen)
            return;
        cpu_relax();
    }
    atomic_fetch_add(&t->n_asleep, 1);
    if (atomic_load(&t->job) == seen)
        futex_wait(&t->job, seen, FUTEX_FOREVER);
    atomic_fetch_sub(&t->n_asleep, 1);
}

static void *worker_main(void *arg)
{
    struct threads *t = arg;

    for (;;) {
        uint32_t seen = job_of(atomic_load(&t->ticket));
        if (atomic_load_explicit(&t->stop, memory_order_acquire))
            return NULL;
        while (run_one(t)) {
            atomic_fetch_add(&t->n_done, 1);
            if (atomic_load(&t->caller_sleeps))
                futex_wake(&t->n_done, 1);
        }
        sleep_until_job(t, seen);
    }
}

/* ---- the caller ---- */

static void wait_until_done(struct threads *t, uint32_t wanted)
{
    uint32_t done;

    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&t->n_done, memory_order_acquire) == wanted)
            return;
        cpu_relax();
    }
    atomic_store(&t->caller_sleeps, 1);
    while ((done = atomic_load(&t->n_done)) != wanted)
        futex_wait(&t->n_done, done, FUTEX_FOREVER);
    atomic_store_explicit(&t->caller_sleeps, 0, memory_order_relaxed);
}

/* Begin a job whose indexes from `next` on are there to be taken. */
static void post(struct threads *t, uint32_t n, uint32_t next)
{
    uint32_t job = atomic_load_explicit(&t->job, memory_order_relaxed) + 1;

    atomic_store_explicit(&t->ticket, ticket_of(job, n, next), memory_order_release);
    atomic_store(&t->job, job);
    if (atomic_load(&t->n_asleep) > 0)
        futex_wake(&t->job, n - next);
}

void threads_run(struct threads *t, void (*fn)(void *arg, uint32_t i), void *arg, uint32_t n)
{
    uint32_t own = 1;

    if (n <= 1 || t->n_threads == 1) {
        for (uint32_t i = 0; i < n; i++)
            fn(arg, i);
        return;
    }
    assert(n <= THREADS_JOB_MAX);
    atomic_store_explicit(&t->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&t->arg, arg, memory_order_relaxed);
    post(t, n, 1);
    fn(arg, 0);
    while (run_one(t))
        own++;
    t->n_given += n - own;
    wait_until_done(t, t->n_given);
}

/* Signals belong to the threads that expect them. */
static int start_worker(struct threads *t, uint32_t i)
{
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&t->workers[i], NULL, worker_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        char name[16];
        snprintf(name, sizeof name, "compute-%u", i + 1);
        pthread_setname_np(t->workers[i], name);
    }
    return error;
}

struct threads *threads_new(uint32_t n, struct err *e)
{
    size_t bytes = sizeof(struct threads) + (n - 1) * sizeof(pthread_t);
    struct threads *t;

    assert(n >= 1 && n <= THREADS_MAX);
    t = aligned_mem(alignof(struct threads), bytes);
    memset(t, 0, bytes);
    t->n_threads = 1;
    while (t->n_threads < n) {
        int error = start_worker(t, t->n_threads - 1);
        if (error) {
            err_set(e, ERR_SYS, error, "start compute thread %u of %u", t->n_threads, n - 1);
            threads_free(t);
            return NULL;
        }
        t->n_threads++;
    }
    return t;
}

static cpu_set_t one_cpu(uint32_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return set;
}

bool threads_pin(struct threads *t, const uint32_t *cpus, struct err *e)
{
    int error = pthread_getaffinity_np(pthread_self(), sizeof t->home, &t->home);

    assert(!t->is_pinned);
    t->caller_core = one_cpu(cpus[0]);
    for (uint32_t i = 1; i < t->n_threads && error == 0; i++) {
        cpu_set_t core = one_cpu(cpus[i]);
        error = pthread_setaffinity_np(t->workers[i - 1], sizeof core, &core);
    }
    if (error != 0) {
        for (uint32_t i = 1; i < t->n_threads; i++)
            pthread_setaffinity_np(t->workers[i - 1], sizeof t->home, &t->home);
        return err_set(e, ERR_SYS, error, "pin compute threads to cores");
    }
    t->is_pinned = true;
    return true;
}

void threads_pin_caller(struct threads *t)
{
    if (!t->is_pinned || t->caller_is_pinned)
        return;
    t->caller_is_pinned =
        pthread_setaffinity_np(pthread_self(), sizeof t->caller_core, &t->caller_core) == 0;
}

void threads_unpin_caller(struct threads *t)
{
    if (!t->caller_is_pinned)
        return;
    pthread_setaffinity_np(pthread_self(), sizeof t->home, &t->home);
    t->caller_is_pinned = false;
}

void threads_free(struct threads *t)
{
    if (!t)
        return;
    atomic_store_explicit(&t->stop, true, memory_order_release);
    post(t, 0, 0); /* of nothing, so that all look up */
    futex_wake(&t->job, INT_MAX);
    threads_unpin_caller(t);
    for (uint32_t i = 0; i + 1 < t->n_threads; i++)
        pthread_join(t->workers[i], NULL);
    free(t);
}

uint32_t threads_count(const struct threads *t)
{
    return t->n_threads;
}
