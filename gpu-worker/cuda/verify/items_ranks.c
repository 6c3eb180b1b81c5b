/* items_ranks.c - the half of G14 that is sums, and G16: two ranks on two GPUs, with the worker's own exchange between
 * them and NCCL beside it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "gpu-worker/cuda/exchange_state.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"

enum {
    RANKS = 2,
    WARM_CALLS = 3,
    CALLS = 20,
    OWN_IS_FASTER_BELOW = 512 << 10, /* bytes: the design's wish */
    NAP_US = 1000
};
#define NCCL_LIMIT_NS   (20 * NS_PER_S) /* to form */
#define FINISH_LIMIT_NS (60 * NS_PER_S)
#define LEAVE_LIMIT_NS  (5 * NS_PER_S) /* for a call of NCCL's that concerns a dead rank */

struct rank_task {
    const struct verify *v;
    uint32_t rank;
};

/* One rank, in its process. */
struct rank {
    int sock;
    const struct verify *v;
    uint32_t rank;
    struct child_device d;
    struct exchange *x;
    float *in, *out; /* of the device */
    float *host;     /* pinned */
    size_t floats_max;
};

/* Floats of a sum; the last is what one call of the exchange can take, and more. */
static const size_t real_sizes[] = { 4, 2048, 16384, 65536, 131072, 1 << 20, 4 << 20 };
static const size_t dry_sizes[] = { 4, 5000 };

static const size_t *sizes_of(const struct verify *v, uint32_t *n)
{
    *n = v->is_dry_run ? sizeof dry_sizes / sizeof dry_sizes[0]
                       : sizeof real_sizes / sizeof real_sizes[0];
    return v->is_dry_run ? dry_sizes : real_sizes;
}

/* ---- in a rank's process ---- */

static void must(const struct rank *k, bool ok, const struct err *e)
{
    if (!ok)
        child_fail(k->sock, "rank %u: %s", k->rank, e->msg);
}

static float *device_floats(const struct rank *k, size_t n)
{
    struct err e = { 0 };
    cu_ptr p;

    must(k, device_alloc(k->d.device, &p, n * sizeof(float), &e), &e);
    return (float *)(uintptr_t)p;
}

/* Meet the other rank; NCCL begins to form. */
static void rank_open(struct rank *k, int sock, const struct rank_task *t)
{
    struct exchange_setup setup = { .rank = t->rank,
                                    .tp_size = RANKS,
                                    .epoch = 1,
                                    .group_id = (uint64_t)getppid() << 32 ^ 0x67707576,
                                    .nccl = true };
    const size_t *sizes;
    struct err e = { 0 };
    uint32_t n_sizes;
    void *host;

    *k = (struct rank){ .sock = sock, .v = t->v, .rank = t->rank };
    sizes = sizes_of(t->v, &n_sizes);
    k->floats_max = sizes[n_sizes - 1];
    nccl_comm_environment(false);
    child_open(sock, &k->d, t->rank == 0 ? t->v->gpu : t->v->peer);
    k->in = device_floats(k, k->floats_max);
    k->out = device_floats(k, k->floats_max);
    must(k, device_host_alloc(k->d.device, &host, k->floats_max * sizeof(float), &e), &e);
    k->host = host;
    setup.device = k->d.device;
    k->x = exchange_open(&setup, &e);
    must(k, k->x != NULL, &e);
}

static void rank_close(struct rank *k)
{
    exchange_close(k->x);
    device_free(k->d.device, (cu_ptr)(uintptr_t)k->in);
    device_free(k->d.device, (cu_ptr)(uintptr_t)k->out);
    device_host_free(k->d.device, k->host);
    child_close(&k->d);
}

static void finish(struct rank *k)
{
    struct err e = { 0 };

    must(k, device_stream_finish(&k->d.stream, FINISH_LIMIT_NS, &e), &e);
}

/* Sums of these depend on their order. */
static float value(uint32_t rank, size_t i)
{
    return (float)((i * 37 + rank * 11) % 1009 + 1) * (rank == 0 ? 0.1F : 3.7F);
}

static bool wait_for_nccl(const struct rank *k)
{
    uint64_t end_ns = clock_mono_ns() + NCCL_LIMIT_NS;

    while (!exchange_nccl_is_ready(k->x)) {
        if (!k->x->has_nccl || k->x->nccl.state == NCCL_COMM_FAILED || clock_mono_ns() > end_ns)
            return false;
        usleep(NAP_US);
    }
    return true;
}

static void call(struct rank *k, size_t n, bool by_nccl)
{
    if (by_nccl)
        nccl_comm_all_reduce(&k->x->nccl, &k->d.stream, k->out, k->in, n);
    else
        exchange_all_reduce(k->x, &k->d.stream, k->out, k->in, n, false);
}

/* Microseconds of a call, of many in a row. */
static double time_calls(struct rank *k, size_t n, bool by_nccl)
{
    int calls = k->v->is_dry_run ? 2 : CALLS;
    uint64_t begin_ns;

    for (int i = 0; i < WARM_CALLS && !k->v->is_dry_run; i++)
        call(k, n, by_nccl);
    finish(k);
    begin_ns = clock_mono_ns();
    for (int i = 0; i < calls; i++)
        call(k, n, by_nccl);
    finish(k);
    return (double)(clock_mono_ns() - begin_ns) / 1000.0 / calls;
}

/* One sum of known numbers; how many elements are not what adding in the order of ranks gives. */
static double wrong_sums(struct rank *k, size_t n)
{
    double wrong = 0;
    struct err e = { 0 };

    for (size_t i = 0; i < n; i++)
        k->host[i] = value(k->rank, i);
    device_copy_in(&k->d.stream, (cu_ptr)(uintptr_t)k->in, k->host, n * sizeof(float));
    finish(k);
    call(k, n, false);
    device_copy_out(&k->d.stream, k->host, (cu_ptr)(uintptr_t)k->out, n * sizeof(float));
    finish(k);
    must(k, exchange_check(k->x, &e), &e);
    for (size_t i = 0; i < n; i++)
        wrong += k->host[i] != value(0, i) + value(1, i);
    return wrong;
}

enum { SUM_WRONG, SUM_OWN_US, SUM_NCCL_US };

static void add_up(int sock, const void *arg)
{
    struct child_message m = { 0 };
    const size_t *sizes;
    struct rank k;
    uint32_t n;
    bool has_nccl;

    rank_open(&k, sock, arg);
    sizes = sizes_of(k.v, &n);
    has_nccl = wait_for_nccl(&k);
    for (uint32_t i = 0; i < n; i++) {
        m.values[SUM_WRONG] = wrong_sums(&k, sizes[i]);
        m.values[SUM_OWN_US] = time_calls(&k, sizes[i], false);
        m.values[SUM_NCCL_US] = has_nccl ? time_calls(&k, sizes[i], true) : 0;
        snprintf(m.text, sizeof m.text, "%s",
                 exchange_path(k.x) == EXCHANGE_P2P ? "peer memory" : "host memory");
        child_say(sock, &m, NULL, 0);
    }
    child_await(sock); /* nobody leaves before all are done */
    rank_close(&k);
}

/* ---- G14: sums ---- */

static bool start_ranks(const struct verify *v, child_fn *fn, struct child ranks[RANKS],
                        struct item_report *r)
{
    for (uint32_t i = 0; i < RANKS; i++) {
        struct rank_task t = { v, i };

        if (!child_start(&ranks[i], fn, &t, r))
            return false;
    }
    return true;
}

static void report_sum(const struct verify *v, size_t floats, const struct child_message m[RANKS],
                       struct item_report *r)
{
    double kib = (double)floats * sizeof(float) / 1024;
    double own_us = m[0].values[SUM_OWN_US], nccl_us = m[0].values[SUM_NCCL_US];

    report_at_most(r, m[0].values[SUM_WRONG] + m[1].values[SUM_WRONG], 0, "",
                   "wrong sums of both ranks, %.3g KiB", kib);
    if (nccl_us > 0)
        report_number(r, nccl_us, "us", "NCCL's sum, %.3g KiB", kib);
    if (nccl_us > 0 && !v->is_dry_run && floats * sizeof(float) < OWN_IS_FASTER_BELOW)
        report_at_most(r, own_us, nccl_us, "us", "own sum, %.3g KiB", kib);
    else
        report_number(r, own_us, "us", "own sum, %.3g KiB", kib);
}

void ranks_report_sums(const struct verify *v, struct item_report *r)
{
    struct child ranks[RANKS] = { 0 };
    struct child_message m[RANKS];
    uint32_t n;
    const size_t *sizes = sizes_of(v, &n);
    bool ok = start_ranks(v, add_up, ranks, r);

    for (uint32_t i = 0; ok && i < n; i++) {
        ok = child_hear(&ranks[0], &m[0], NULL, NULL, r) &&
             child_hear(&ranks[1], &m[1], NULL, NULL, r);
        if (ok && i == 0)
            report_text(r, "ranks exchange by", "%s", m[0].text);
        if (ok)
            report_sum(v, sizes[i], m, r);
    }
    for (uint32_t i = 0; i < RANKS; i++) {
        if (ok)
            child_go(&ranks[i], r);
        else
            child_kill(&ranks[i]);
    }
    for (uint32_t i = 0; i < RANKS; i++)
        child_end(&ranks[i]);
}

/* ---- G16: forming, and a dead peer ---- */

enum { FORM_READY, FORM_MS, FORM_MB, FORM_LOADED };
enum { DEAD_FOUND };
enum { LEAVE_HAS_REVOKE, LEAVE_REVOKE_MS, LEAVE_ABORT_MS };

static double free_mb(const struct rank *k)
{
    size_t free_bytes = 0, total_bytes;
    struct err e = { 0 };

    must(k, device_memory(k->d.device, &free_bytes, &total_bytes, &e), &e);
    return (double)free_bytes / 1e6;
}

static void say_formed(struct rank *k)
{
    struct child_message m = { 0 };
    uint64_t begin_ns = clock_mono_ns();
    double before_mb = free_mb(k);

    m.values[FORM_LOADED] = k->x->has_nccl;
    m.values[FORM_READY] = wait_for_nccl(k);
    m.values[FORM_MS] = child_ms_since(begin_ns);
    if (m.values[FORM_READY] != 0) {
        call(k, k->floats_max, true); /* takes the rest of its memory */
        finish(k);
    }
    m.values[FORM_MB] = before_mb - free_mb(k);
    child_say(k->sock, &m, NULL, 0);
}

/* A call of NCCL's on a thread, since it may never return. */
struct leaving {
    struct rank *rank;
    bool by_abort;
    _Atomic bool is_done;
};

static void *leave(void *arg)
{
    struct leaving *l = arg;
    struct err e;

    device_bind(l->rank->d.device, &e);
    if (l->by_abort)
        nccl.ncclCommAbort(l->rank->x->nccl.comm);
    else
        nccl.ncclCommRevoke(l->rank->x->nccl.comm, 0);
    atomic_store(&l->is_done, true);
    return NULL;
}

/* Milliseconds, or -1 when it has not returned in time. */
static double time_leaving(struct rank *k, bool by_abort)
{
    struct leaving *l = calloc(1, sizeof *l); /* left to the thread */
    uint64_t begin_ns = clock_mono_ns();
    pthread_t thread;

    if (!l)
        child_fail(k->sock, "no memory");
    l->rank = k;
    l->by_abort = by_abort;
    if (pthread_create(&thread, NULL, leave, l) != 0)
        child_fail(k->sock, "no thread");
    pthread_detach(thread);
    while (!atomic_load(&l->is_done)) {
        if (clock_mono_ns() - begin_ns > LEAVE_LIMIT_NS)
            return -1;
        usleep(NAP_US);
    }
    return child_ms_since(begin_ns);
}

/* A sum of the exchange, which the peer does not come to: its death ends it. */
static void wait_for_the_dead(struct rank *k)
{
    struct child_message m = { 0 };
    struct err e = { 0 };

    call(k, 2048, false);
    child_say(k->sock, &m, NULL, 0); /* the peer is killed now */
    must(k, device_stream_finish(&k->d.stream, FINISH_LIMIT_NS, &e), &e);
    m.values[DEAD_FOUND] = !exchange_check(k->x, &e);
    snprintf(m.text, sizeof m.text, "%s", e.msg);
    child_say(k->sock, &m, NULL, 0);
}

static void leave_nccl(struct rank *k)
{
    struct child_message m = { 0 };

    call(k, 2048, true); /* spins for ever */
    usleep(50000);
    m.values[LEAVE_HAS_REVOKE] = nccl.ncclCommRevoke != NULL;
    if (nccl.ncclCommRevoke)
        m.values[LEAVE_REVOKE_MS] = time_leaving(k, false);
    m.values[LEAVE_ABORT_MS] = time_leaving(k, true);
    child_say(k->sock, &m, NULL, 0);
}

/* Rank 1 is killed while it waits; rank 0 ends without giving anything back, as a worker does. */
static void form_and_lose(int sock, const void *arg)
{
    struct rank k;

    rank_open(&k, sock, arg);
    say_formed(&k);
    child_await(sock);
    wait_for_the_dead(&k);
    leave_nccl(&k);
}

static void report_ms_or_never(double ms, const char *name, struct item_report *r)
{
    if (ms >= 0)
        report_number(r, ms, "ms", "%s", name);
    else
        report_text(r, name, "has not returned in %.0f s", (double)LEAVE_LIMIT_NS / NS_PER_S);
}

/* The peer, which knows nothing yet, is killed in the middle of rank 0's sum. */
static void lose_rank(const struct verify *v, struct child ranks[RANKS], struct item_report *r)
{
    struct child_message m;
    uint64_t killed_ns;

    if (!child_go(&ranks[0], r) || !child_hear(&ranks[0], &m, NULL, NULL, r))
        return;
    killed_ns = clock_mono_ns();
    child_kill(&ranks[1]);
    if (!child_hear(&ranks[0], &m, NULL, NULL, r))
        return;
    if (v->is_dry_run)
        report_number(r, child_ms_since(killed_ns), "ms", "own sum left after the peer's death");
    else
        report_at_most(r, child_ms_since(killed_ns), 1000, "ms",
                       "own sum left after the peer's death");
    report_at_least(r, m.values[DEAD_FOUND], 1, "", "the death was found");
    if (!child_hear(&ranks[0], &m, NULL, NULL, r))
        return;
    if (m.values[LEAVE_HAS_REVOKE] != 0)
        report_ms_or_never(m.values[LEAVE_REVOKE_MS], "ncclCommRevoke with a dead peer", r);
    report_ms_or_never(m.values[LEAVE_ABORT_MS], "ncclCommAbort with a dead peer", r);
}

void item_nccl(const struct verify *v, struct item_report *r)
{
    struct child ranks[RANKS] = { 0 };
    struct child_message m[RANKS];

    if (start_ranks(v, form_and_lose, ranks, r) && child_hear(&ranks[0], &m[0], NULL, NULL, r) &&
        child_hear(&ranks[1], &m[1], NULL, NULL, r)) {
        if (m[0].values[FORM_LOADED] == 0)
            report_skip(r, "there is no libnccl.so.2, or it does not begin to form");
        else {
            report_at_least(r, m[0].values[FORM_READY] * m[1].values[FORM_READY], 1, "",
                            "a communicator of two ranks stands");
            report_number(r, m[0].values[FORM_MS], "ms", "until it stood");
            report_number(r, m[0].values[FORM_MB], "MB", "GPU memory that it takes");
            if (m[0].values[FORM_READY] * m[1].values[FORM_READY] != 0)
                lose_rank(v, ranks, r);
        }
    }
    for (uint32_t i = 0; i < RANKS; i++)
        child_kill(&ranks[i]);
}
