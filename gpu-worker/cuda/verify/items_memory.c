/* items_memory.c - G2, G4, G6, G7: what becomes of memory and of neighbours when a process dies. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/nvml.h"
#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/memory.h"

enum { CHUNKS_MAX = FDPASS_FDS_MAX };

/* What a child is given: the setting, and the descriptors that the parent holds. */
struct task {
    const struct verify *v;
    int fds[CHUNKS_MAX];
    int n;
    uint64_t bytes;
};

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

/* ---- G2: the creator is killed; the descriptors are held by a process that knows nothing of CUDA ---- */

static void create_and_fill(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    struct child_device d;
    int fds[CHUNKS_MAX];
    cu_ptr p;

    child_open(sock, &d, v->gpu);
    for (int i = 0; i < v->n_chunks; i++)
        fds[i] = memory_create(sock, v->gpu, v->chunk_bytes);
    p = memory_map(sock, v->gpu, fds, v->n_chunks, v->chunk_bytes, true);
    memory_fill(sock, &d, p, v->n_chunks, v->chunk_bytes);
    child_say(sock, &m, fds, v->n_chunks);
    child_await(sock); /* killed here */
}

static void attach_and_compare(int sock, const void *arg)
{
    const struct task *t = arg;
    struct child_message m = { 0 };
    struct child_device d;
    uint64_t start;
    cu_ptr p;

    child_open(sock, &d, t->v->gpu);
    start = clock_mono_ns();
    p = memory_map(sock, t->v->gpu, t->fds, t->n, t->bytes, false);
    m.values[0] = child_ms_since(start);
    m.values[1] = (double)memory_wrong_bytes(sock, &d, p, t->n, t->bytes);
    memory_unmap(sock, p, t->n, t->bytes);
    child_say(sock, &m, NULL, 0);
    child_close(&d);
}

static void report_attach(const struct task *t, struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, attach_and_compare, t, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_at_most(r, m.values[1], 0, "B", "wrong bytes after the creator's death");
        report_number(r, m.values[0], "ms", "import and map, %d x %.0f MiB", t->n,
                      (double)t->bytes / (1 << 20));
    }
    child_end(&c);
}

void item_killed_creator(const struct verify *v, struct item_report *r)
{
    struct task t = { .v = v, .bytes = v->chunk_bytes };
    struct child_message m;
    struct child c;

    if (!child_start(&c, create_and_fill, v, r))
        return;
    if (child_hear(&c, &m, t.fds, &t.n, r)) {
        report_number(r, child_kill(&c), "ms", "until the killed creator was reaped");
        usleep((useconds_t)v->hold_ms * 1000);
        report_number(r, v->hold_ms / 1000.0, "s", "held by descriptors alone");
        report_attach(&t, r);
        close_all(t.fds, t.n);
    }
    child_kill(&c);
}

/* ---- G4: attach time by chunk size and total ---- */

struct attach {
    const struct verify *v;
    uint64_t chunk_bytes, total_bytes;
};

static void time_attach(int sock, const void *arg)
{
    const struct attach *a = arg;
    int n = (int)(a->total_bytes / a->chunk_bytes), *fds = calloc((size_t)n, sizeof *fds);
    struct child_message m = { 0 };
    struct child_device d;
    uint64_t start;
    cu_ptr p;

    if (!fds)
        child_fail(sock, "no memory");
    child_open(sock, &d, a->v->gpu);
    for (int i = 0; i < n; i++)
        fds[i] = memory_create(sock, a->v->gpu, a->chunk_bytes);
    for (int i = 0; i < 3; i++) { /* the best of three */
        start = clock_mono_ns();
        p = memory_map(sock, a->v->gpu, fds, n, a->chunk_bytes, true);
        m.values[1] = child_ms_since(start);
        if (i == 0 || m.values[1] < m.values[0])
            m.values[0] = m.values[1];
        memory_unmap(sock, p, n, a->chunk_bytes);
    }
    close_all(fds, n);
    free(fds);
    child_say(sock, &m, NULL, 0);
    child_close(&d);
}

static bool report_attach_time(const struct attach *a, struct item_report *r)
{
    double chunk_mib = (double)a->chunk_bytes / (1 << 20), gib = (double)a->total_bytes / (1 << 30);
    bool has_limit = a->chunk_bytes == 256ull << 20 && a->total_bytes <= 20ull << 30;
    struct child_message m;
    struct child c;
    bool ok;

    if (!child_start(&c, time_attach, a, r))
        return false;
    ok = child_hear(&c, &m, NULL, NULL, r);
    if (ok && has_limit)
        report_at_most(r, m.values[0], 50, "ms", "%.3g GiB in chunks of %.0f MiB", gib, chunk_mib);
    else if (ok)
        report_number(r, m.values[0], "ms", "%.3g GiB in chunks of %.0f MiB", gib, chunk_mib);
    child_end(&c);
    return ok;
}

/* Room for a total, with a GB to spare. */
static uint64_t room(const struct verify *v)
{
    struct nvml_state s;
    struct err e = { 0 };
    uint64_t spare = v->is_dry_run ? 8ull << 20 : 1ull << 30, free_bytes;

    if (!nvml_read(v->uuid, &s, &e))
        return v->total_max_bytes;
    free_bytes = s.total_bytes - s.used_bytes;
    free_bytes = free_bytes > spare ? free_bytes - spare : 0;
    return free_bytes < v->total_max_bytes ? free_bytes : v->total_max_bytes;
}

void item_attach_time(const struct verify *v, struct item_report *r)
{
    uint64_t smallest = v->is_dry_run ? 2ull << 20 : 64ull << 20, most = room(v);

    uint64_t least = smallest * (v->is_dry_run ? 16 : 160);

    for (uint64_t chunk = smallest; chunk <= smallest * 64; chunk *= 4)
        for (uint64_t total = least; total <= most; total *= 2) {
            struct attach a = { v, chunk, total };

            if (total % chunk == 0 && !report_attach_time(&a, r))
                return;
        }
    if (r->n_measures == 0)
        report_skip(r, "only %.1f GB are free", (double)most / 1e9);
}

/* ---- G6: a sticky error and the neighbour ---- */

/* The checksum of memory that is not there, or page_copy onto memory that may only be read. */
static void launch_wild(struct child_device *d, cu_ptr results, cu_ptr wild)
{
    struct page_checksum_args args = { .sums = (uint64_t *)(uintptr_t)results,
                                       .pool = (const char *)(uintptr_t)wild,
                                       .page_bytes = 65536 };
    struct device_grid grid = { { pages_grid_x(65536), 1, 1 }, PAGES_THREADS, 0 };

    device_launch(&d->stream, device_kernel(d->device, "page_checksum"), &grid, &args, sizeof args);
}

static void expect_sticky(int sock, struct child_device *d, struct child_message *m)
{
    const struct device_fault *f;
    struct err e = { 0 };

    if (device_stream_finish(&d->stream, 60 * NS_PER_S, &e))
        child_fail(sock, "the wild access went unnoticed");
    f = device_fault(d->device);
    m->values[0] = f ? f->result : -1;
    m->values[1] = f && f->severity == CUDA_STICKY;
    child_say(sock, m, NULL, 0);
}

/* Map the pool, then read where nothing is mapped. */
static void read_wild(int sock, const void *arg)
{
    const struct task *t = arg;
    struct child_message m = { 0 };
    struct child_device d;
    struct err e = { 0 };
    cu_ptr results, nowhere;

    child_open(sock, &d, t->v->gpu);
    memory_map(sock, t->v->gpu, t->fds, t->n, t->bytes, true);
    if (!device_alloc(d.device, &results, 65536, &e))
        child_fail(sock, "%s", e.msg);
    child_check(sock, cuda.cuMemAddressReserve(&nowhere, 2ull << 20, 0, 0, 0),
                "cuMemAddressReserve");
    launch_wild(&d, results, nowhere);
    expect_sticky(sock, &d, &m);
}

/* Map the pool to be read, then have a kernel write there. */
static void write_read_only(int sock, const void *arg)
{
    const struct task *t = arg;
    struct child_message m = { 0 };
    struct child_device d;
    cu_ptr pool;

    child_open(sock, &d, t->v->gpu);
    pool = memory_map(sock, t->v->gpu, t->fds, t->n, t->bytes, false);
    launch_wild(&d, pool, pool); /* the sums are written into it */
    expect_sticky(sock, &d, &m);
}

/* The neighbour: works before, and again when it is told to. */
static void keep_working(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    struct child_device d;
    struct err e = { 0 };
    cu_ptr p;

    child_open(sock, &d, v->gpu);
    if (!device_alloc(d.device, &p, 2ull << 20, &e))
        child_fail(sock, "%s", e.msg);
    for (int i = 0; i < 2; i++) {
        memory_fill(sock, &d, p, 1, 2ull << 20);
        m.values[0] = (double)memory_wrong_bytes(sock, &d, p, 1, 2ull << 20);
        child_say(sock, &m, NULL, 0);
        child_await(sock);
    }
    device_free(d.device, p);
    child_close(&d);
}

static void report_sticky(const struct task *t, child_fn *fn, const char *what,
                          struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, fn, t, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_text(r, what, "%s", cuda_result_name((int)m.values[0]));
        report_at_least(r, m.values[1], 1, "", "%s is sticky", what);
    }
    child_end(&c);
}

static void with_neighbour(const struct task *t, struct child *neighbour, struct item_report *r)
{
    struct child_message m;

    if (!child_hear(neighbour, &m, NULL, NULL, r))
        return;
    report_sticky(t, read_wild, "access of nothing", r);
    report_sticky(t, write_read_only, "write to read-only memory", r);
    if (child_go(neighbour, r) && child_hear(neighbour, &m, NULL, NULL, r)) {
        report_at_most(r, m.values[0], 0, "B", "wrong bytes of the neighbour's afterwards");
        child_go(neighbour, r);
    }
    report_attach(t, r);
}

void item_sticky_error(const struct verify *v, struct item_report *r)
{
    struct task t = { .v = v, .bytes = v->chunk_bytes };
    struct child creator = { 0 }, neighbour = { 0 };
    struct child_message m;

    if (child_start(&creator, create_and_fill, v, r) && child_hear(&creator, &m, t.fds, &t.n, r)) {
        child_kill(&creator);
        if (child_start(&neighbour, keep_working, v, r)) {
            with_neighbour(&t, &neighbour, r);
            if (child_end(&neighbour) != 0 && r->verdict != VERDICT_FAIL)
                report_failure(r, "the neighbour did not end well");
        }
        close_all(t.fds, t.n);
    }
    child_kill(&creator);
}

/* ---- G7: killed while it works ---- */

/* Queue fills of the canary with numbers that count up, enough for busy_ms. */
static void fill_for_long(int sock, const void *arg)
{
    const struct task *t = arg;
    struct child_message m = { 0 };
    uint64_t end_ns = clock_mono_ns() + (uint64_t)t->v->busy_ms * NS_PER_MS;
    struct child_device d;
    struct err e = { 0 };
    cu_ptr canary, private;

    child_open(sock, &d, t->v->gpu);
    canary = memory_map(sock, t->v->gpu, t->fds, t->n, t->bytes, true);
    if (!device_alloc(d.device, &private, 4 * t->bytes, &e))
        child_fail(sock, "%s", e.msg);
    device_fill(&d.stream, private, 0, 4 * t->bytes);
    child_say(sock, &m, NULL, 0);
    for (unsigned i = 0; clock_mono_ns() < end_ns; i++)
        cuda.cuMemsetD32Async(canary, i, t->bytes / 4, d.stream.stream);
    child_await(sock);
}

/* Look at the canary until it has been quiet for two seconds; when did it change last? */
static void watch(int sock, const void *arg)
{
    const struct task *t = arg;
    uint64_t quiet_ns = t->v->is_dry_run ? 200 * NS_PER_MS : 2 * NS_PER_S;
    struct child_message m = { 0 };
    struct child_device d;
    uint32_t *seen, before = 0;
    uint64_t killed_ns, changed_ns;
    struct err e = { 0 };
    void *host;
    cu_ptr canary;

    child_open(sock, &d, t->v->gpu);
    canary = memory_map(sock, t->v->gpu, t->fds, t->n, t->bytes, false);
    if (!device_host_alloc(d.device, &host, 64, &e))
        child_fail(sock, "%s", e.msg);
    seen = host;
    child_say(sock, &m, NULL, 0);
    child_await(sock);
    killed_ns = changed_ns = clock_mono_ns();
    do {
        device_copy_out(&d.stream, seen, canary, sizeof *seen);
        child_finish(sock, &d);
        if (*seen != before)
            changed_ns = clock_mono_ns();
        before = *seen;
    } while (clock_mono_ns() - changed_ns < quiet_ns);
    m.values[0] = (double)(changed_ns - killed_ns) / (double)NS_PER_MS;
    child_say(sock, &m, NULL, 0);
    device_host_free(d.device, host);
    memory_unmap(sock, canary, t->n, t->bytes);
    child_close(&d);
}

/* Milliseconds until NVML neither lists the process nor counts its memory; at most ten seconds. */
static void report_nvml_forgets(const struct verify *v, pid_t pid, uint64_t killed_ns,
                                struct item_report *r)
{
    struct nvml_state s = { 0 };
    struct err e = { 0 };

    do {
        if (!nvml_read(v->uuid, &s, &e) || !s.processes_known) {
            report_text(r, "NVML's list of processes", "not available");
            return;
        }
        usleep(1000);
    } while (nvml_has_process(&s, pid) && child_ms_since(killed_ns) < 10000);
    report_at_most(r, child_ms_since(killed_ns), 10000, "ms", "until NVML no longer lists it");
}

static void kill_at_work(const struct verify *v, struct child *worker, struct child *watcher,
                         struct item_report *r)
{
    struct child_message m;
    uint64_t killed_ns;
    pid_t pid = worker->pid;

    if (!child_hear(watcher, &m, NULL, NULL, r) || !child_hear(worker, &m, NULL, NULL, r))
        return;
    usleep((useconds_t)v->busy_ms * 1000 / 4);
    kill(pid, SIGKILL);
    killed_ns = clock_mono_ns();
    child_go(watcher, r);
    child_kill(worker);
    report_at_most(r, child_ms_since(killed_ns), 5000, "ms", "until it was reaped");
    report_nvml_forgets(v, pid, killed_ns, r);
    if (child_hear(watcher, &m, NULL, NULL, r))
        report_number(r, m.values[0], "ms", "last late write after the kill");
}

void item_killed_at_work(const struct verify *v, struct item_report *r)
{
    struct task t = { .v = v, .n = 1, .bytes = v->chunk_bytes };
    struct verify one = *v;
    struct child creator = { 0 }, worker = { 0 }, watcher = { 0 };
    struct child_message m;

    one.n_chunks = 1;
    if (child_start(&creator, create_and_fill, &one, r) &&
        child_hear(&creator, &m, t.fds, &t.n, r)) {
        if (child_start(&watcher, watch, &t, r) && child_start(&worker, fill_for_long, &t, r))
            kill_at_work(v, &worker, &watcher, r);
        child_kill(&worker);
        child_end(&watcher);
        close_all(t.fds, t.n);
    }
    child_kill(&creator);
}
