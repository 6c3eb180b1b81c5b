/* host.c - /proc/meminfo, the scheduling mask, and the limits of every control group we are in: a container
 * shows the whole machine in the first two. */
#include "common/host.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 1024 };

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

/* Version 2 has one tree; version 1 one for each controller, named for it, and a line with its own path. */
struct cgroup {
    const char *root;
    const char *controller; /* "memory": version 1; NULL: version 2 */
    char path[PATH_BYTES];  /* below the tree; "" = the topmost that we see */
};

static bool list_has(const char *list, size_t n, const char *word)
{
    size_t at = 0, len;

    for (; at < n; at += len + 1) {
        len = strcspn(list + at, ",:");
        if (len == strlen(word) && strncmp(list + at, word, len) == 0)
            return true;
    }
    return false;
}

/* A line of /proc/self/cgroup, "9:cpu,cpuacct:/path" or "0::/path", when it is of this tree. */
static const char *path_in_line(const char *line, const char *controller)
{
    const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

    if (!path)
        return NULL;
    if (controller)
        return list_has(list + 1, (size_t)(path - list - 1), controller) ? path + 1 : NULL;
    return path == list + 1 ? path + 1 : NULL;
}

/* A container often sees its own group as the top of the tree, and its path names what is not there: the
 * walk up finds it. */
static void cgroup_of_this_process(struct cgroup *g, const char *root, const char *controller)
{
    char file[PATH_BYTES], line[PATH_BYTES];
    const char *path;
    FILE *f;

    *g = (struct cgroup){ .root = root, .controller = controller };
    snprintf(file, sizeof file, "%s/proc/self/cgroup", root);
    f = fopen(file, "re");
    while (f && fgets(line, sizeof line, f))
        if ((path = path_in_line(line, controller)))
            snprintf(g->path, sizeof g->path, "%.*s", (int)strcspn(path, "\n"), path);
    if (f)
        fclose(f);
    if (strcmp(g->path, "/") == 0)
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
    snprintf(path, 3 * PATH_BYTES, "%s/sys/fs/cgroup%s%s%s/%s", g->root, g->controller ? "/" : "",
             g->controller ? g->controller : "", g->path, name);
}

static bool cgroup_number(const struct cgroup *g, const char *name, const char *key,
                          uint64_t *value)
{
    char path[3 * PATH_BYTES];

    cgroup_file(g, name, path);
    return find_number(path, key, value);
}

/* Names of the same things in the two versions. */
struct memory_files {
    const char *limit, *usage;
    const char *cache, *shmem; /* keys of memory.stat, of the group and those below it */
};

static const struct memory_files memory_v2 = { "memory.max", "memory.current", "file ", "shmem " };
static const struct memory_files memory_v1 = { "memory.limit_in_bytes", "memory.usage_in_bytes",
                                               "total_cache ", "total_shmem " };

/* What a group may still take; UINT64_MAX without a limit (version 1 writes a huge number then).  Its page
 * cache can be taken back, except what is shared memory. */
static uint64_t cgroup_memory(const struct cgroup *g, const struct memory_files *names)
{
    uint64_t max, current, file = 0, shmem = 0, used;

    if (!cgroup_number(g, names->limit, "", &max) || !cgroup_number(g, names->usage, "", &current))
        return UINT64_MAX;
    cgroup_number(g, "memory.stat", names->cache, &file);
    cgroup_number(g, "memory.stat", names->shmem, &shmem);
    used = file > shmem && current > file - shmem ? current - (file - shmem) : current;
    return max > used ? max - used : 0;
}

static uint64_t least_memory(struct cgroup *g, const struct memory_files *names)
{
    uint64_t room = UINT64_MAX;

    do {
        uint64_t here = cgroup_memory(g, names);
        room = here < room ? here : room;
    } while (cgroup_up(g));
    return room;
}

static uint32_t cores_of(uint64_t quota, uint64_t period)
{
    uint64_t n = period > 0 ? quota / period + (quota % period > 0) : UINT32_MAX;

    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* Version 2: cpu.max is "quota period", or "max period". */
static uint32_t cgroup_cores_v2(const struct cgroup *g)
{
    char path[3 * PATH_BYTES], text[64];
    unsigned long long quota, period;

    cgroup_file(g, "cpu.max", path);
    if (!find_line(path, "", text, sizeof text) || sscanf(text, "%llu %llu", &quota, &period) != 2)
        return UINT32_MAX;
    return cores_of(quota, period);
}

/* Version 1: a file each; a quota of -1 is none. */
static uint32_t cgroup_cores_v1(const struct cgroup *g)
{
    char path[3 * PATH_BYTES], text[64];
    uint64_t period;
    long long quota;

    cgroup_file(g, "cpu.cfs_quota_us", path);
    if (!find_line(path, "", text, sizeof text) || sscanf(text, "%lld", &quota) != 1 ||
        quota <= 0 || !cgroup_number(g, "cpu.cfs_period_us", "", &period))
        return UINT32_MAX;
    return cores_of((uint64_t)quota, period);
}

static uint32_t least_cores(struct cgroup *g, uint32_t (*cores)(const struct cgroup *))
{
    uint32_t n = UINT32_MAX;

    do {
        uint32_t here = cores(g);
        n = here < n ? here : n;
    } while (cgroup_up(g));
    return n;
}

/* ---- both ---- */

uint64_t host_memory_available(const char *root)
{
    char meminfo[PATH_BYTES];
    uint64_t kib = 0, room, v1, v2;
    struct cgroup g;

    snprintf(meminfo, sizeof meminfo, "%s/proc/meminfo", root);
    find_number(meminfo, "MemAvailable:", &kib);
    room = kib * 1024;
    cgroup_of_this_process(&g, root, NULL);
    v2 = least_memory(&g, &memory_v2);
    cgroup_of_this_process(&g, root, "memory");
    v1 = least_memory(&g, &memory_v1);
    room = v2 < room ? v2 : room;
    return v1 < room ? v1 : room;
}

uint32_t host_quota(const char *root)
{
    uint32_t v1, v2;
    struct cgroup g;

    cgroup_of_this_process(&g, root, NULL);
    v2 = least_cores(&g, cgroup_cores_v2);
    cgroup_of_this_process(&g, root, "cpu");
    v1 = least_cores(&g, cgroup_cores_v1);
    return v1 < v2 ? v1 : v2;
}

static bool has_limit(struct cgroup *g, const char *file)
{
    uint64_t limit;

    do
        if (cgroup_number(g, file, "", &limit) && limit < UINT64_MAX / 4)
            return true;
    while (cgroup_up(g));
    return false;
}

/* Of a mount of the control groups: "rw,nosuid,memory_hugetlb_accounting". */
static bool memory_counts_huge(const char *root)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof path, "%s/proc/self/mounts", root);
    f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, "memory_hugetlb_accounting") != NULL;
    if (f)
        fclose(f);
    return found;
}

bool host_huge_is_limited(const char *root)
{
    struct cgroup g;

    cgroup_of_this_process(&g, root, NULL);
    if (has_limit(&g, "hugetlb.2MB.max"))
        return true;
    cgroup_of_this_process(&g, root, "hugetlb");
    return has_limit(&g, "hugetlb.2MB.limit_in_bytes") || memory_counts_huge(root);
}

uint32_t host_cores(const char *root)
{
    uint32_t n = 1, quota = host_quota(root);
    cpu_set_t mask;

    if (sched_getaffinity(0, sizeof mask, &mask) == 0)
        n = (uint32_t)CPU_COUNT(&mask);
    n = quota < n ? quota : n;
    return n < 1 ? 1 : n;
}
