/* checks.c - one function a check. */
#include "llmctl/checks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/host.h"
#include "common/mem.h"
#include "common/topology.h"
#include "llmctl/terminal.h"

enum { PATH_BYTES = 512, FILES_BESIDES = 256 };

#define KV_WORTH_BYTES   ((uint64_t)1 << 30) /* a smaller pool gains nothing that can be measured */
#define MEMORY_LOW_BYTES ((uint64_t)512 << 20)

/* ---- facts ---- */

static FILE *open_below(const char *root, const char *file)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof path, "%s%s", root, file);
    return fopen(path, "re");
}

/* "Max open files   1024   1048576   files": the second is what llmd raises the first to. */
static uint64_t read_files_max(const char *root, pid_t pid)
{
    unsigned long long hard = 0;
    char file[64], line[256], who[16] = "self";
    FILE *f;

    if (pid > 0)
        snprintf(who, sizeof who, "%d", (int)pid);
    snprintf(file, sizeof file, "/proc/%s/limits", who);
    f = open_below(root, file);
    while (f && fgets(line, sizeof line, f) &&
           sscanf(line, "Max open files %*s %llu", &hard) != 1) {
    }
    if (f)
        fclose(f);
    return hard;
}

static bool has_word(const char *line, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = line; (at = strstr(at, word)); at += n)
        if (at > line && at[-1] == ' ' && (at[n] == ' ' || at[n] == '\n' || at[n] == '\0'))
            return true;
    return false;
}

static void read_cpu(struct facts *f, const char *root)
{
    FILE *file = open_below(root, "/proc/cpuinfo");
    char *line = NULL;
    size_t cap = 0;

    while (file && getline(&line, &cap, file) > 0) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        f->has_avx2 = has_word(line, "avx2") && has_word(line, "fma") && has_word(line, "f16c");
        f->has_avx512 = has_word(line, "avx512f") && has_word(line, "avx512bw") &&
                        has_word(line, "avx512vl") && has_word(line, "avx512dq");
        f->has_vnni = has_word(line, "avx512_vnni") || has_word(line, "avx_vnni");
        f->has_bf16 = has_word(line, "avx512_bf16");
        break;
    }
    free(line);
    if (file)
        fclose(file);
}

static void read_kernel(struct facts *f, const char *root)
{
    FILE *file = open_below(root, "/proc/sys/kernel/osrelease");

    if (file && fscanf(file, "%u.%u", &f->kernel_major, &f->kernel_minor) != 2)
        f->kernel_major = f->kernel_minor = 0;
    if (file)
        fclose(file);
}

void facts_read(struct facts *f, const char *root, pid_t pid, unsigned port)
{
    struct topology *machine = mem_zalloc(1, sizeof *machine);
    char path[PATH_BYTES];
    struct stat st;

    *f = (struct facts){ 0 };
    huge_host_read(&f->huge, root);
    read_kernel(f, root);
    topology_read(machine, root);
    f->cores = topology_cores(machine);
    free(machine);
    f->memory_available = host_memory_available(root);
    f->files_max = read_files_max(root, pid);
    read_cpu(f, root);
    snprintf(path, sizeof path, "%s/run/systemd/system", root);
    f->has_systemd = stat(path, &st) == 0;
    host_facts_read(&f->host, root, pid, port);
}

/* ---- findings ---- */

void check_find(struct check *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(c->finding, sizeof c->finding, fmt, args);
    va_end(args);
}

void check_advise(struct check *c, const char *fmt, ...)
{
    va_list args;

    c->ok = false;
    va_start(args, fmt);
    vsnprintf(c->advice, sizeof c->advice, fmt, args);
    va_end(args);
}

static uint64_t setting(const struct facts *f, const char *name)
{
    for (size_t i = 0; f->config && i < f->config->n_config; i++)
        if (strcmp(f->config->config[i]->name, name) == 0)
            return strtoull(f->config->config[i]->value, NULL, 10);
    return 0;
}

static const Llmd__SegmentMemory *segment(const struct facts *f, const char *name)
{
    for (size_t i = 0; f->status && i < f->status->n_memory; i++)
        if (strcmp(f->status->memory[i]->segment, name) == 0)
            return f->status->memory[i];
    return NULL;
}

/* ---- huge pages ---- */

static bool can_collapse(const struct facts *f)
{
    bool is_new = f->kernel_major > 6 || (f->kernel_major == 6 && f->kernel_minor >= 1);

    return is_new && f->huge.shmem_enabled[0] && strcmp(f->huge.shmem_enabled, "deny") != 0;
}

/* Pages that the large segments would need. */
static uint64_t pool_needed(const struct facts *f)
{
    uint64_t n = 0;

    for (size_t i = 0; f->status && i < f->status->n_memory; i++)
        if (f->status->memory[i]->bytes >= HUGE_FROM_BYTES)
            n += (f->status->memory[i]->bytes + HUGE_BYTES - 1) / HUGE_BYTES;
    return n;
}

static void advise_huge(const struct facts *f, struct check *c)
{
    char pool[96] = "reserve as many pages of 2 MiB as the model needs (sysctl vm.nr_hugepages=N)";
    uint64_t n = pool_needed(f);

    if (n > 0)
        snprintf(pool, sizeof pool, "sysctl vm.nr_hugepages=%llu", (unsigned long long)n);
    check_advise(c,
                 "%s, or echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled; then %s",
                 pool, f->status ? "stop and start llmd" : "start llmd");
}

static void judge_segment(const struct facts *f, struct check *c, const Llmd__SegmentMemory *m,
                          uint64_t worth_bytes)
{
    bool is_small = strcmp(m->pages, "small") == 0;
    char all[32], mapped[32], huge[32];

    if (strcmp(m->pages, "off") == 0) {
        check_find(c, "small ones, as the setting huge_pages says");
        return;
    }

    terminal_bytes(all, sizeof all, m->bytes);
    terminal_bytes(mapped, sizeof mapped, m->resident_bytes);
    terminal_bytes(huge, sizeof huge, m->huge_bytes);
    if (m->bytes < worth_bytes && is_small) {
        check_find(c, "%s, too small to gain from them", all);
        return;
    }
    check_find(c, "%s, %s mapped, %s of it in huge pages (%s)", all, mapped, huge, m->pages);
    if (is_small ||
        (m->resident_bytes >= HUGE_FROM_BYTES && m->huge_bytes < m->resident_bytes / 10 * 9))
        advise_huge(f, c);
}

static void check_weights_pages(const struct facts *f, struct check *c)
{
    const Llmd__SegmentMemory *m = segment(f, "weights");

    c->name = "weights_pages";
    if (m)
        judge_segment(f, c, m, HUGE_FROM_BYTES);
    else if (f->huge.pool_free > 0)
        check_find(c, "%llu huge pages are reserved and free",
                   (unsigned long long)f->huge.pool_free);
    else if (huge_host_takes_advice(&f->huge))
        check_find(c, "shared memory may have huge pages (shmem_enabled: %s)",
                   f->huge.shmem_enabled);
    else if (can_collapse(f))
        check_find(c, "weights will be collapsed into huge pages (Linux %u.%u)", f->kernel_major,
                   f->kernel_minor);
    else {
        check_find(
            c, "no huge pages for shared memory (Linux %u.%u, shmem_enabled: %s, none reserved)",
            f->kernel_major, f->kernel_minor,
            f->huge.shmem_enabled[0] ? f->huge.shmem_enabled : "not there");
        advise_huge(f, c);
    }
}

static void check_kv_pages(const struct facts *f, struct check *c)
{
    const Llmd__SegmentMemory *m = segment(f, "kvpool");

    c->name = "kv_pages";
    if (m)
        judge_segment(f, c, m, KV_WORTH_BYTES);
    else if (f->huge.pool_free > 0 || huge_host_takes_advice(&f->huge))
        check_find(c, "huge pages can be had for them");
    else
        check_find(c, "pages of 4 KiB; a pool of gigabytes gains a little from huge ones");
}

/* ---- the rest ---- */

static void check_cores(const struct facts *f, struct check *c)
{
    uint64_t threads = setting(f, "threads");
    uint64_t ranks = setting(f, "tp_size") * setting(f, "groups");

    c->name = "cores";
    if (threads == 0 || ranks == 0) {
        check_find(c, "%u of our own, shared out among the ranks", f->cores);
        if (ranks > f->cores)
            check_advise(c, "%llu ranks (groups * tp_size) take turns on them: have at most %u",
                         (unsigned long long)ranks, f->cores);
        return;
    }
    check_find(c, "%llu compute threads on %u cores", (unsigned long long)(threads * ranks),
               f->cores);
    if (threads * ranks > f->cores)
        check_advise(c, "threads wait for each other at every step: set threads to %llu, or to 0",
                     (unsigned long long)(f->cores / ranks > 0 ? f->cores / ranks : 1));
}

/* Pages of the KV pool come with their first use; those of the pool of huge pages are promised already. */
static void check_memory(const struct facts *f, struct check *c)
{
    uint64_t to_come = 0;
    char available[32], needed[32];

    for (size_t i = 0; f->status && i < f->status->n_memory; i++) {
        const Llmd__SegmentMemory *m = f->status->memory[i];
        if (strcmp(m->segment, "kvpool") == 0 && strcmp(m->pages, "reserved") != 0)
            to_come += m->bytes > m->allocated_bytes ? m->bytes - m->allocated_bytes : 0;
    }
    c->name = "memory";
    terminal_bytes(available, sizeof available, f->memory_available);
    terminal_bytes(needed, sizeof needed, to_come);
    if (f->memory_available == 0)
        check_find(c, "cannot be read");
    else if (to_come > 0)
        check_find(c, "%s available, %s of the KV pool not yet used", available, needed);
    else
        check_find(c, "%s available", available);
    if (f->memory_available > 0 && f->memory_available < to_come)
        check_advise(c, "at full load the kernel kills: lower kv_cache_bytes or raise the limit");
    else if (f->memory_available > 0 && f->memory_available < MEMORY_LOW_BYTES)
        check_advise(
            c, "that is little: raise the limit of the container, or stop what else runs here");
}

static void check_files(const struct facts *f, struct check *c)
{
    uint64_t connections = setting(f, "max_connections");
    uint64_t wanted = (connections ? connections : 10000) + FILES_BESIDES;

    c->name = "descriptors";
    if (f->files_max == 0) {
        check_find(c, "no limit can be read");
        return;
    }
    check_find(c, "%llu in a process, max_connections needs %llu", (unsigned long long)f->files_max,
               (unsigned long long)wanted);
    if (f->files_max < wanted)
        check_advise(c, "LimitNOFILE=%llu in the unit, ulimit -Hn, or a lower max_connections",
                     (unsigned long long)wanted);
}

static void check_fd_store(const struct facts *f, struct check *c)
{
    c->name = "fd_store";
    if (f->status && f->status->fd_store)
        check_find(c, "a service manager holds the descriptors: llmd may die unnoticed");
    else if (f->status) {
        check_find(c, "nobody holds the descriptors: when llmd dies, its children end");
        check_advise(c, "start it by systemd/llmd.service, or as: llm-init llmd ...");
    } else if (f->has_systemd)
        check_find(c, "systemd is here; systemd/llmd.service lets it hold the descriptors");
    else
        check_find(c, "no systemd here: start as: llm-init llmd ...");
}

static void check_cpu(const struct facts *f, struct check *c)
{
    c->name = "cpu";
    if (f->has_avx512)
        check_find(c, "AVX-512%s%s", f->has_vnni ? ", VNNI" : "", f->has_bf16 ? ", BF16" : "");
    else if (f->has_avx2)
        check_find(c, "AVX2, FMA, F16C%s", f->has_vnni ? ", VNNI" : "");
    else {
        check_find(c, "no AVX2 with FMA and F16C: plain C code computes");
        check_advise(
            c, "expect a tenth of the speed; in a virtual machine, pass the host's CPU model on");
    }
}

int checks_run(const struct facts *f, struct check checks[CHECKS_MAX])
{
    static check_fn *const all[] = {
        check_cpu,      check_cores, check_governor,     check_numa,          check_container,
        check_memory,   check_model, check_model_memory, check_weights_pages, check_kv_pages,
        check_shm,      check_files, check_memlock,      check_gpu,           check_port,
        check_fd_store, check_unit,  check_clock,
    };
    enum { N = sizeof all / sizeof *all };

    static_assert((int)N <= (int)CHECKS_MAX, "room for each");
    for (int i = 0; i < N; i++) {
        checks[i] = (struct check){ .ok = true };
        all[i](f, &checks[i]);
    }
    return N;
}
