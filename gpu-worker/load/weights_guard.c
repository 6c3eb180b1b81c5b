/* weights_guard.c - see weights_guard.h. */
#include "gpu-worker/load/weights_guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum { PAUSE_FACTOR = 19 };
#define PAUSE_NS_MAX (20 * NS_PER_MS)

struct weights_guard {
    const struct weights *w;
    weights_repair_fn *repair;
    void *repair_arg;
    pthread_t thread;
    bool has_thread; /* to be joined; the caller's */
    uint32_t from;   /* of the next pass */
    _Atomic bool stop, failed;
    pthread_mutex_t lock; /* of what follows */
    bool is_running, again;
    struct err error; /* when .failed */
};

struct weights_guard *weights_guard_new(const struct weights *w, weights_repair_fn *repair,
                                        void *arg)
{
    struct weights_guard *g = mem_zalloc(1, sizeof *g);

    g->w = w;
    g->repair = repair;
    g->repair_arg = arg;
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

static void give_up(struct weights_guard *g, const struct err *e)
{
    log_error("%s", e->msg);
    pthread_mutex_lock(&g->lock);
    g->error = *e;
    pthread_mutex_unlock(&g->lock);
    atomic_store(&g->w->shared->doubt, 1); /* the successor looks before it computes */
    atomic_store_explicit(&g->failed, true, memory_order_release);
}

static bool verify(struct weights_guard *g, uint32_t chunk)
{
    struct err e;

    if (weights_chunk_is_intact(g->w, chunk) || g->repair(g->repair_arg, chunk, &e))
        return true;
    give_up(g, &e);
    return false;
}

/* In proportion to what a chunk took, but not to what somebody else's work made of that. */
static void pause_after(uint64_t took_ns)
{
    uint64_t ns = took_ns * PAUSE_FACTOR < PAUSE_NS_MAX ? took_ns * PAUSE_FACTOR : PAUSE_NS_MAX;
    struct timespec t = { 0, (long)ns };

    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

/* False: asked to stop, or given up. */
static bool pass(struct weights_guard *g, uint32_t from)
{
    for (uint32_t i = from; i < g->w->hdr->n_chunks; i++) {
        uint64_t start = clock_mono_ns();
        if (atomic_load_explicit(&g->stop, memory_order_relaxed) || !verify(g, i))
            return false;
        pause_after(clock_mono_ns() - start);
    }
    return true;
}

/* Whether there is another pass to make; if not, the thread is over for weights_guard_start(). */
static bool goes_on(struct weights_guard *g, bool whole)
{
    bool again;

    pthread_mutex_lock(&g->lock);
    again = g->again;
    if (whole && !again)
        atomic_store(&g->w->shared->doubt, 0);
    g->again = false;
    g->is_running = again;
    pthread_mutex_unlock(&g->lock);
    return again;
}

static void *guard_main(void *arg)
{
    struct weights_guard *g = arg;
    uint32_t from = g->from;

    while (pass(g, from) && goes_on(g, from == 0))
        from = 0;
    return NULL;
}

static void start_thread(struct weights_guard *g)
{
    sigset_t all, before;

    if (g->has_thread)
        pthread_join(g->thread, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    g->has_thread = pthread_create(&g->thread, NULL, guard_main, g) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (g->has_thread)
        pthread_setname_np(g->thread, "weights-guard");
    else
        log_warning("the weights are not verified: no thread can be started");
}

void weights_guard_start(struct weights_guard *g, uint32_t from)
{
    bool was_running;

    pthread_mutex_lock(&g->lock);
    was_running = g->is_running;
    g->again = was_running;
    g->is_running = true;
    pthread_mutex_unlock(&g->lock);
    if (was_running)
        return;
    g->from = from;
    start_thread(g);
}

void weights_guard_look(struct weights_guard *g, struct threads *threads)
{
    struct weights_scan scan;
    struct err e;
    bool ok = true;

    weights_scan(g->w, threads, UINT64_MAX, &scan);
    if (scan.n_checked < g->w->hdr->n_chunks)
        ok = err_set(&e, ERR_DEVICE, 0, "the weights in memory cannot be verified");
    for (uint32_t i = 0; i < scan.n_corrupt && ok; i++)
        ok = g->repair(g->repair_arg, scan.corrupt[i], &e);
    free(scan.corrupt);
    if (ok)
        atomic_store(&g->w->shared->doubt, 0);
    else
        give_up(g, &e);
}

bool weights_guard_failed(struct weights_guard *g, struct err *e)
{
    if (!atomic_load_explicit(&g->failed, memory_order_acquire))
        return false;
    pthread_mutex_lock(&g->lock);
    *e = g->error;
    pthread_mutex_unlock(&g->lock);
    return true;
}

void weights_guard_free(struct weights_guard *g)
{
    if (!g)
        return;
    atomic_store(&g->stop, true);
    if (g->has_thread)
        pthread_join(g->thread, NULL);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
