/* items_rate.c - G9, G13, G14, G18: host memory, graphs, and memory of a second GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/link_rate.h"
#include "gpu-worker/cuda/verify/memory.h"

enum { REPEATS = 5, HOST_BYTE = 0x6b };

static double gb_per_s(uint64_t bytes, double ms)
{
    return ms > 0 ? (double)bytes / 1e6 / ms : 0;
}

/* ---- G9: host memory that outlives a process, at the speed of pinned memory? ---- */

/* Best rate of REPEATS copies to the device. */
static double copy_rate(int sock, struct child_device *d, cu_ptr to, const void *from,
                        uint64_t bytes)
{
    double best = 0;

    for (int i = 0; i < REPEATS; i++) {
        uint64_t start = clock_mono_ns();
        double rate;

        device_copy_in(&d->stream, to, from, bytes);
        child_finish(sock, d);
        rate = gb_per_s(bytes, child_ms_since(start));
        best = rate > best ? rate : best;
    }
    return best;
}

static void *map_memfd(int sock, uint64_t bytes)
{
    int fd = memfd_create("gpu-verify", MFD_CLOEXEC);
    void *p = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        child_fail(sock, "no shared memory of %llu bytes", (unsigned long long)bytes);
    close(fd);
    return p;
}

static void host_rates(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    struct child_device d;
    struct err e = { 0 };
    void *pinned, *shared = map_memfd(sock, v->copy_bytes);
    uint64_t start;
    cu_ptr to;

    child_open(sock, &d, v->gpu);
    if (!device_alloc(d.device, &to, v->copy_bytes, &e) ||
        !device_host_alloc(d.device, &pinned, v->copy_bytes, &e))
        child_fail(sock, "%s", e.msg);
    m.values[0] = copy_rate(sock, &d, to, pinned, v->copy_bytes);
    start = clock_mono_ns();
    if (!device_host_register(d.device, shared, v->copy_bytes, false, &e))
        child_fail(sock, "%s", e.msg);
    m.values[1] = child_ms_since(start);
    m.values[2] = copy_rate(sock, &d, to, shared, v->copy_bytes);
    child_say(sock, &m, NULL, 0);
    device_host_unregister(d.device, shared);
    device_host_free(d.device, pinned);
    device_free(d.device, to);
    child_close(&d);
}

/* Host memory that the driver allocates: written by the host of the process that is killed... */
static void create_host(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    struct child_device d;
    cu_ptr p;
    int fd;

    child_open(sock, &d, v->gpu);
    fd = memory_create_host(sock, v->gpu, v->copy_bytes);
    p = memory_map_host(sock, v->gpu, fd, v->copy_bytes);
    memset((void *)(uintptr_t)p, HOST_BYTE, v->copy_bytes);
    child_say(sock, &m, &fd, 1);
    child_await(sock); /* killed here */
}

struct host_task {
    const struct verify *v;
    int fd;
};

/* ... and copied to the GPU by the next one. */
static void copy_host(int sock, const void *arg)
{
    const struct host_task *t = arg;
    struct child_message m = { 0 };
    struct child_device d;
    struct err e = { 0 };
    const unsigned char *bytes;
    cu_ptr host, to;

    child_open(sock, &d, t->v->gpu);
    host = memory_map_host(sock, t->v->gpu, t->fd, t->v->copy_bytes);
    bytes = (const unsigned char *)(uintptr_t)host;
    for (uint64_t i = 0; i < t->v->copy_bytes; i += 64)
        m.values[0] += bytes[i] != HOST_BYTE;
    if (!device_alloc(d.device, &to, t->v->copy_bytes, &e))
        child_fail(sock, "%s", e.msg);
    m.values[1] = copy_rate(sock, &d, to, bytes, t->v->copy_bytes);
    child_say(sock, &m, NULL, 0);
    device_free(d.device, to);
    memory_unmap(sock, host, 1, t->v->copy_bytes);
    child_close(&d);
}

static void report_copy(const struct host_task *t, double pinned_rate, struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, copy_host, t, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_at_most(r, m.values[0], 0, "",
                       "wrong samples, driver's host memory of a killed creator");
        if (t->v->is_dry_run)
            report_number(r, m.values[1], "GB/s", "driver's host memory to the GPU");
        else
            report_at_least(r, m.values[1] / pinned_rate, 0.9, "",
                            "driver's host memory, against pinned");
    }
    child_end(&c);
}

static void report_driver_memory(const struct verify *v, double pinned_rate, struct item_report *r)
{
    struct host_task t = { v, -1 };
    int fds[FDPASS_FDS_MAX], n = 0;
    struct child_message m;
    struct child c;

    if (!child_start(&c, create_host, v, r))
        return;
    if (child_hear(&c, &m, fds, &n, r)) {
        child_kill(&c);
        t.fd = fds[0];
        report_copy(&t, pinned_rate, r);
        close(fds[0]);
    }
    child_kill(&c);
}

void item_host_memory(const struct verify *v, struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, host_rates, v, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_number(r, m.values[0], "GB/s", "pinned host memory to the GPU");
        report_number(r, m.values[1] * 1e9 / (double)v->copy_bytes, "ms/GB",
                      "registering shared memory");
        if (v->is_dry_run)
            report_number(r, m.values[2], "GB/s", "registered shared memory to the GPU");
        else
            report_at_least(r, m.values[2] / m.values[0], 0.9, "",
                            "registered shared memory, against pinned");
        if (v->has_host_numa)
            report_driver_memory(v, m.values[0], r);
        else
            report_text(r, "host memory of the driver's", "not supported here");
    }
    child_end(&c);
}

/* ---- G13: many replays of one graph ---- */

enum { GRAPH_FILLS = 16 };

static void replay(int sock, struct child_device *d, const struct device_graph *g, int n)
{
    for (int i = 0; i < n; i++) {
        device_graph_launch(&d->stream, g);
        if (i % 1024 == 1023)
            child_finish(sock, d);
    }
    child_finish(sock, d);
}

static void replay_graph(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    size_t before, after, total;
    struct device_graph g;
    struct child_device d;
    struct err e = { 0 };
    uint64_t start;
    cu_ptr p;

    child_open(sock, &d, v->gpu);
    if (!device_alloc(d.device, &p, 65536, &e))
        child_fail(sock, "%s", e.msg);
    device_capture_begin(&d.stream);
    for (int i = 0; i < GRAPH_FILLS; i++)
        device_fill(&d.stream, p + (uint64_t)i * 4096, (uint8_t)i, 4096);
    if (!device_capture_end(&d.stream, &g, &e))
        child_fail(sock, "%s", e.msg);
    replay(sock, &d, &g, 1024);
    device_memory(d.device, &before, &total, &e);
    start = clock_mono_ns();
    replay(sock, &d, &g, v->n_replays);
    m.values[0] = child_ms_since(start) * 1000 / v->n_replays;
    device_memory(d.device, &after, &total, &e);
    m.values[1] = (double)before - (double)after;
    child_say(sock, &m, NULL, 0);
    device_graph_free(d.device, &g);
    device_free(d.device, p);
    child_close(&d);
}

void item_graph_replays(const struct verify *v, struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, replay_graph, v, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_at_most(r, m.values[1], 0, "B", "memory lost after %d replays", v->n_replays);
        report_number(r, m.values[0], "us", "one replay of %d fills", GRAPH_FILLS);
    }
    child_end(&c);
}

/* ---- G14, G18: memory of a second GPU ---- */

/* A chunk of the peer's, filled by the peer; the descriptor goes to the parent. */
static void peer_creates(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    struct child_device d;
    cu_ptr p;
    int fd;

    child_open(sock, &d, v->peer);
    fd = memory_create(sock, v->peer, v->copy_bytes);
    p = memory_map(sock, v->peer, &fd, 1, v->copy_bytes, true);
    memory_fill(sock, &d, p, 1, v->copy_bytes);
    child_say(sock, &m, &fd, 1);
    child_await(sock);
    m.values[0] = (double)memory_wrong_bytes(sock, &d, p, 1, v->copy_bytes);
    child_say(sock, &m, NULL, 0);
    memory_unmap(sock, p, 1, v->copy_bytes);
    close(fd);
    child_close(&d);
}

struct peer_task {
    const struct verify *v;
    int fd;
};

/* This GPU reads the peer's chunk where it lies, copies it here (timed), and writes it back. */
static void use_peer_memory(int sock, const void *arg)
{
    const struct peer_task *t = arg;
    struct child_message m = { 0 };
    struct child_device d;
    struct err e = { 0 };
    cu_ptr theirs, ours;
    uint64_t start;

    child_open(sock, &d, t->v->gpu);
    theirs = memory_map(sock, t->v->gpu, &t->fd, 1, t->v->copy_bytes, true);
    if (!device_alloc(d.device, &ours, t->v->copy_bytes, &e))
        child_fail(sock, "%s", e.msg);
    m.values[0] = (double)memory_wrong_bytes(sock, &d, theirs, 1, t->v->copy_bytes);
    for (int i = 0; i < REPEATS; i++) {
        double rate;

        start = clock_mono_ns();
        device_copy(&d.stream, ours, theirs, t->v->copy_bytes);
        child_finish(sock, &d);
        rate = gb_per_s(t->v->copy_bytes, child_ms_since(start));
        m.values[1] = rate > m.values[1] ? rate : m.values[1];
    }
    m.values[2] = (double)memory_wrong_bytes(sock, &d, ours, 1, t->v->copy_bytes);
    device_fill(&d.stream, theirs, 0, t->v->copy_bytes); /* so that writing back is seen */
    device_copy(&d.stream, theirs, ours, t->v->copy_bytes);
    child_finish(sock, &d);
    child_say(sock, &m, NULL, 0);
    memory_unmap(sock, theirs, 1, t->v->copy_bytes);
    device_free(d.device, ours);
    child_close(&d);
}

/* values: wrong bytes read in place, rate of the copy, wrong bytes copied, wrong bytes seen by the peer. */
static bool exchange(const struct verify *v, double values[4], struct item_report *r)
{
    struct peer_task t = { v, -1 };
    struct child peer = { 0 }, us = { 0 };
    struct child_message m;
    int fds[FDPASS_FDS_MAX], n = 0;
    bool ok = false;

    if (!child_start(&peer, peer_creates, v, r) || !child_hear(&peer, &m, fds, &n, r))
        goto out;
    t.fd = fds[0];
    if (!child_start(&us, use_peer_memory, &t, r) || !child_hear(&us, &m, NULL, NULL, r))
        goto out;
    memcpy(values, m.values, 3 * sizeof values[0]);
    if (!child_go(&peer, r) || !child_hear(&peer, &m, NULL, NULL, r))
        goto out;
    values[3] = m.values[0];
    ok = true;
out:
    if (n > 0)
        close(fds[0]);
    child_end(&us);
    child_end(&peer);
    return ok;
}

void item_peer_data(const struct verify *v, struct item_report *r)
{
    double values[4];

    if (!exchange(v, values, r))
        return;
    report_at_most(r, values[0], 0, "B", "wrong bytes, peer's memory read in place");
    report_at_most(r, values[2], 0, "B", "wrong bytes, copied from the peer");
    report_at_most(r, values[3], 0, "B", "wrong bytes that the peer sees of what was written");
    ranks_report_sums(v, r);
}

void item_peer_copy(const struct verify *v, struct item_report *r)
{
    struct link_rate link;
    double values[4];
    char why[120];

    if (!exchange(v, values, r))
        return;
    report_number(r, values[1], "GB/s", "copy from the peer");
    if (!link_rate_ask(&link, v->uuid, v->peer_uuid, why)) {
        report_text(r, "the link's rate, of which 70 % are wanted, is not known", "%s", why);
        return;
    }
    report_number(r, link.gb_per_s, "GB/s", "the link: %s, one direction", link.how);
    if (v->is_dry_run)
        report_number(r, values[1] / link.gb_per_s, "", "copy from the peer: of the link's rate");
    else
        report_at_least(r, values[1] / link.gb_per_s, 0.7, "",
                        "copy from the peer: of the link's rate");
}
