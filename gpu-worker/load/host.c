/* host.c - /proc/meminfo, the scheduling mask, and the limits of every control group we are in: a container
 * shows the whole machine in the first two. */
#include "gpu-worker/load/host.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 1024 };

struct cgroup {
    const char *root;
    char path[PATH_BYTES]; /* below /sys/fs/cgroup; "" = the topmost that we see */
};

/* The text behind `key` at a line's start; false when there is no such line. */
static bool find_line(const char *path, const char *key, char *text, size_t n)
{
    FILE *f = fopen(path, "re");
    char line[PATH_BYTES];
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        found = strncmp(line, key, strlen(key)) == 0;
        if (found)
            snprintf(text, n, "%.*s", (int)strcspn(line + strlen(key), "\n"), line + strlen(key));
    }
    if (f)
        fclose(f);
    return found;
}

static bool find_number(const char *path, const char *key, uint64_t *value)
{
    char text[64];
    unsigned long long v;

    if (!find_line(path, key, text, sizeof text) || sscanf(text, "%llu", &v) != 1)
        return false;
    *value = v;
    return true;
}

/* ---- control groups ---- */

static void cgroup_of_this_process(struct cgroup *g, const char *root)
{
    char file[PATH_BYTES];

    *g = (struct cgroup){ .root = root };
    snprintf(file, sizeof file, "%s/proc/self/cgroup", root);
    if (!find_line(file, "0::", g->path, sizeof g->path) || strcmp(g->path, "/") == 0)
        g->path[0] = '\0';
}

/* To the parent; false when there is none. */
static bool cgroup_up(struct cgroup *g)
{
    char *slash = strrchr(g->path, '/');

    if (slash)
        *slash = '\0';
    return slash != NULL;
}

static void cgroup_file(const struct cgroup *g, const char *name, char path[3 * PATH_BYTES])
{
    snprintf(path, 3 * PATH_BYTES, "%s/sys/fs/cgroup%s/%s", g->root, g->path, name);
}

static bool cgroup_number(const struct cgroup *g, const char *name, const char *key,
                          uint64_t *value)
{
    char path[3 * PATH_BYTES];

    cgroup_file(g, name, path);
    return find_number(path, key, value);
}

/* What a group may still take; UINT64_MAX without a limit.  Its page cache can be taken back, except what
 * is shared memory. */
static uint64_t cgroup_memory(const struct cgroup *g)
{
    uint64_t max, current, file = 0, shmem = 0, used;

    if (!cgroup_number(g, "memory.max", "", &max) ||
        !cgroup_number(g, "memory.current", "", &current))
        return UINT64_MAX;
    cgroup_number(g, "memory.stat", "file ", &file);
    cgroup_number(g, "memory.stat", "shmem ", &shmem);
    used = file > shmem && current > file - shmem ? current - (file - shmem) : current;
    return max > used ? max - used : 0;
}

/* Cores that cpu.max ("quota period", or "max period") allows. */
static uint32_t cgroup_cores(const struct cgroup *g)
{
    char path[3 * PATH_BYTES], text[64];
    unsigned long long quota, period;

    cgroup_file(g, "cpu.max", path);
    if (!find_line(path, "", text, sizeof text) ||
        sscanf(text, "%llu %llu", &quota, &period) != 2 || period == 0 || quota > UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)((quota + period - 1) / period);
}

/* ---- both ---- */

uint64_t host_memory_available(const char *root)
{
    char meminfo[PATH_BYTES];
    uint64_t kib = 0, room;
    struct cgroup g;

    snprintf(meminfo, sizeof meminfo, "%s/proc/meminfo", root);
    find_number(meminfo, "MemAvailable:", &kib);
    room = kib * 1024;
    cgroup_of_this_process(&g, root);
    do {
        uint64_t here = cgroup_memory(&g);
        room = here < room ? here : room;
    } while (cgroup_up(&g));
    return room;
}

uint32_t host_cores(const char *root)
{
    uint32_t n = 1;
    cpu_set_t mask;
    struct cgroup g;

    if (sched_getaffinity(0, sizeof mask, &mask) == 0)
        n = (uint32_t)CPU_COUNT(&mask);
    cgroup_of_this_process(&g, root);
    do {
        uint32_t here = cgroup_cores(&g);
        n = here < n ? here : n;
    } while (cgroup_up(&g));
    return n < 1 ? 1 : n;
}
