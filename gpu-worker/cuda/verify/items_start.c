/* items_start.c - G0, G1, G5: what the machine is, what being there costs, how long it takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/nvml.h"
#include "gpu-worker/cuda/blas.h"
#include "gpu-worker/cuda/images.h"
#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/memory.h"

/* ---- G0 ---- */

static void tell_device(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    const struct device_info *i;
    struct child_device d;
    int can_access = 0;

    child_open(sock, &d, v->gpu);
    i = device_info(d.device);
    if (v->peer >= 0)
        cuda.cuDeviceCanAccessPeer(&can_access, v->gpu, v->peer);
    m.values[0] = cuda.version;
    m.values[1] = i->sm;
    m.values[2] = (double)i->memory_bytes;
    m.values[3] = i->n_multiprocessors;
    m.values[4] = (double)i->memory_bytes_per_s;
    m.values[5] = i->has_ecc;
    m.values[6] = i->is_mps;
    m.values[7] = can_access;
    m.values[8] = cuda.n_devices;
    m.values[9] = i->has_host_numa;
    m.values[10] = i->has_multicast;
    snprintf(m.text, sizeof m.text, "%s, %s, %s", i->name, i->uuid, i->pci);
    child_say(sock, &m, NULL, 0);
    child_close(&d);
}

static void tell_nvml(const struct verify *v, struct item_report *r)
{
    struct nvml_state s;
    struct err e = { 0 };

    if (!nvml_read(v->uuid, &s, &e)) {
        report_text(r, "NVML", "%s", e.msg);
        return;
    }
    report_at_least(r, s.is_persistent, 1, "", "persistence mode");
    report_text(r, "recovery action", "%s",
                s.recovery_known ? nvml_recovery_name(s.recovery) : "not known");
    report_number(r, (double)s.used_bytes / 1e9, "GB", "memory in use by everybody");
}

void item_versions(const struct verify *v, struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, tell_device, v, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_text(r, "GPU", "%s", m.text);
        report_text(r, "driver's CUDA", "%d.%d", (int)m.values[0] / 1000,
                    (int)m.values[0] % 1000 / 10);
        report_text(r, "compute capability", "%.1f", m.values[1] / 10);
        report_number(r, m.values[2] / 1e9, "GB", "memory");
        report_number(r, m.values[3], "", "multiprocessors");
        report_number(r, m.values[4] / 1e9, "GB/s", "memory, by clock and width");
        report_number(r, m.values[5], "", "ECC");
        report_at_most(r, m.values[6], 0, "", "client of MPS");
        report_number(r, m.values[8], "", "GPUs");
        report_number(r, m.values[7], "", "driver says that peer memory can be used");
        report_number(r, m.values[9], "", "allocations on a host NUMA node");
        report_number(r, m.values[10], "", "multicast");
        tell_nvml(v, r);
    }
    child_end(&c);
}

/* ---- G1 ---- */

/* Stops after each step of coming up, so that the parent can ask NVML. */
static void come_up(int sock, const void *arg)
{
    const struct verify *v = arg;
    struct child_message m = { 0 };
    struct child_device d;
    struct err e = { 0 };
    int fd;

    if (!cuda_driver_open(&e))
        child_fail(sock, "%s", e.msg);
    child_say(sock, &m, NULL, 0);
    child_await(sock);
    fd = memory_create(sock, v->gpu, v->chunk_bytes);
    child_say(sock, &m, NULL, 0);
    child_await(sock);
    child_open(sock, &d, v->gpu);
    child_say(sock, &m, NULL, 0);
    child_await(sock);
    close(fd);
    child_close(&d);
}

/* What NVML counts for this process and for the whole GPU, in MB. */
static bool ask(const struct verify *v, pid_t pid, double *process, double *gpu,
                struct item_report *r)
{
    struct nvml_state s;
    struct err e = { 0 };

    if (!nvml_read(v->uuid, &s, &e)) {
        report_skip(r, "%s", e.msg);
        return false;
    }
    *process = 0;
    for (unsigned i = 0; i < s.n_processes; i++)
        if (s.processes[i].pid == pid)
            *process = (double)s.processes[i].used_bytes / 1e6;
    *gpu = (double)s.used_bytes / 1e6;
    return true;
}

void item_context_memory(const struct verify *v, struct item_report *r)
{
    static const char *const steps[] = { "after cuInit", "after create and export",
                                         "with context" };
    double process, gpu, before = 0, unused;
    struct child_message m;
    struct child c;

    if (!ask(v, 0, &unused, &before, r) || !child_start(&c, come_up, v, r))
        return;
    for (int i = 0; i < 3; i++) {
        if (!child_hear(&c, &m, NULL, NULL, r) || !ask(v, c.pid, &process, &gpu, r)) {
            child_kill(&c);
            return;
        }
        if (i == 0)
            report_at_most(r, gpu - before, 20, "MB", "GPU's memory, %s", steps[i]);
        else
            report_number(r, gpu - before - (double)v->chunk_bytes / 1e6, "MB",
                          "GPU's memory without the chunk, %s", steps[i]);
        report_number(r, process, "MB", "this process's by NVML, %s", steps[i]);
        child_go(&c, r);
    }
    child_end(&c);
}

/* ---- G5 ---- */

enum { GEMM_ROWS = 16, GEMM_COLS = 1024 };

static void say_ms(const char *name, uint64_t since_ns)
{
    printf("%s %.3f\n", name, child_ms_since(since_ns));
}

/* A launch of page_copy of one page onto another, as the smallest work that needs a kernel. */
static bool first_launch(struct child_device *d, cu_ptr memory)
{
    uint32_t pages[2] = { 0, 1 };
    struct page_copy_args args = { .to_pages = (char *)(uintptr_t)memory,
                                   .from_pages = (const char *)(uintptr_t)memory,
                                   .page_bytes = 4096,
                                   .to = (const uint32_t *)(uintptr_t)(memory + 16384),
                                   .from = (const uint32_t *)(uintptr_t)(memory + 16388) };
    struct device_grid grid = { { pages_grid_x(4096), 1, 1 }, PAGES_THREADS, 0 };

    return device_copy_in(&d->stream, memory + 16384, pages, sizeof pages) &&
           device_launch(&d->stream, device_kernel(d->device, "page_copy"), &grid, &args,
                         sizeof args);
}

static bool launch_and_replay(struct child_device *d, struct err *e)
{
    struct device_graph g = { 0 };
    uint64_t start = clock_mono_ns();
    cu_ptr memory;

    if (!device_alloc(d->device, &memory, 65536, e))
        return false;
    first_launch(d, memory);
    if (!device_stream_finish(&d->stream, 60 * NS_PER_S, e))
        return false;
    say_ms("first_launch", start);
    start = clock_mono_ns();
    device_capture_begin(&d->stream);
    device_fill(&d->stream, memory, 0, 4096);
    if (!device_capture_end(&d->stream, &g, e))
        return false;
    device_graph_launch(&d->stream, &g);
    if (!device_stream_finish(&d->stream, 60 * NS_PER_S, e))
        return false;
    say_ms("first_graph", start);
    device_graph_free(d->device, &g);
    device_free(d->device, memory);
    return true;
}

/* A product as a prompt's, but small: what takes its time is the library, which is loaded, asked for an algorithm, and
 * loads the kernel. */
static bool multiply(struct child_device *d, struct blas *b, const struct blas_gemm *g,
                     struct err *e)
{
    uint64_t start = clock_mono_ns();

    if (!blas_can(b, g))
        return err_set(e, ERR_DEVICE, 0, "cuBLASLt has no algorithm for %u x %u x %u of float16",
                       g->m, g->n, g->k);
    say_ms("cublaslt_heuristic", start);
    start = clock_mono_ns();
    blas_gemm(b, &d->stream, g);
    if (!device_stream_finish(&d->stream, 60 * NS_PER_S, e))
        return false;
    say_ms("first_gemm", start);
    return true;
}

static bool first_gemm(struct child_device *d, struct err *e)
{
    const uint64_t w_bytes = GEMM_COLS * GEMM_COLS * 2, x_bytes = GEMM_ROWS * GEMM_COLS * 2;
    uint64_t start = clock_mono_ns();
    struct blas_setup setup = { .workspace_bytes = BLAS_WORKSPACE_BYTES };
    struct blas *b;
    cu_ptr memory;
    char *at;
    bool ok;

    if (!device_alloc(d->device, &memory, BLAS_WORKSPACE_BYTES + w_bytes + 3 * x_bytes, e))
        return false;
    device_fill(&d->stream, memory, 0, BLAS_WORKSPACE_BYTES + w_bytes + 3 * x_bytes);
    at = (char *)(uintptr_t)memory;
    setup.workspace = at;
    b = blas_open(&setup, e);
    if (b)
        say_ms("cublaslt_load", start);
    at += BLAS_WORKSPACE_BYTES;
    ok = b && multiply(d, b,
                       &(struct blas_gemm){ .type = BLAS_F16,
                                            .m = GEMM_ROWS,
                                            .n = GEMM_COLS,
                                            .k = GEMM_COLS,
                                            .w = at,
                                            .w_stride = GEMM_COLS,
                                            .x = at + w_bytes,
                                            .x_stride = GEMM_COLS,
                                            .d = at + w_bytes + x_bytes,
                                            .d_stride = GEMM_COLS },
                       e);
    blas_close(b);
    device_free(d->device, memory);
    return ok;
}

int start_time_main(int gpu, uint64_t started_ns)
{
    const struct device_images images = { cuda_images, n_cuda_images };
    struct child_device d = { 0 };
    struct err e = { 0 };
    uint64_t start = clock_mono_ns();
    bool ok;

    say_ms("exec", started_ns);
    ok = cuda_driver_open(&e);
    say_ms("dlopen_and_cuInit", start);
    start = clock_mono_ns();
    ok = ok && device_open(&d.device, gpu, &images, &e) &&
         device_stream_open(&d.stream, d.device, 0, &e);
    say_ms("context_and_modules", start);
    ok = ok && launch_and_replay(&d, &e) && first_gemm(&d, &e);
    if (ok)
        child_close(&d);
    else
        fprintf(stderr, "gpu-verify: %s\n", e.msg);
    say_ms("total", started_ns);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void read_times(FILE *f, const struct verify *v, struct item_report *r)
{
    char name[64];
    double ms;

    while (fscanf(f, "%63s %lf", name, &ms) == 2) {
        if (strcmp(name, "total") == 0 && !v->is_dry_run)
            report_at_most(r, ms, 700, "ms", "total, cold");
        else
            report_number(r, ms, "ms", "%s", name);
    }
}

void item_start_time(const struct verify *v, struct item_report *r)
{
    char command[600];
    FILE *f;

    /* Twice: the first fills the file cache, as llmd's earlier worker has. */
    for (int i = 0; i < 2; i++) {
        r->n_measures = 0;
        snprintf(command, sizeof command, "'%s' --gpu %d --started %llu", v->program, v->gpu,
                 (unsigned long long)clock_mono_ns());
        f = popen(command, "re");
        if (!f) {
            report_failure(r, "cannot start '%s'", v->program);
            return;
        }
        read_times(f, v, r);
        if (pclose(f) != 0)
            report_failure(r, "the started process has failed");
    }
}
