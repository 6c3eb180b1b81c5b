/* host_memory.c - /proc/meminfo and memory.max of every control group we are in.  Read at start-up. */
#include "gpu-worker/load/host_memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 1024 };

/* The number behind `key` at a line's start; false when there is none. */
static bool find_number(const char *path, const char *key, uint64_t *value)
{
    FILE *f = fopen(path, "re");
    char line[256];
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        unsigned long long v;
        found = strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", &v) == 1;
        if (found)
            *value = v;
    }
    if (f)
        fclose(f);
    return found;
}

static bool cgroup_number(const char *cgroup, const char *file, const char *key, uint64_t *value)
{
    char path[PATH_BYTES + 64];

    snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", cgroup, file);
    return find_number(path, key, value);
}

/* What a group may still take; UINT64_MAX without a limit.  Its page cache can be taken back, except what
 * is shared memory. */
static uint64_t cgroup_room(const char *cgroup)
{
    uint64_t max, current, file = 0, shmem = 0, used;

    if (!cgroup_number(cgroup, "memory.max", "", &max) ||
        !cgroup_number(cgroup, "memory.current", "", &current))
        return UINT64_MAX;
    cgroup_number(cgroup, "memory.stat", "file ", &file);
    cgroup_number(cgroup, "memory.stat", "shmem ", &shmem);
    used = file > shmem && current > file - shmem ? current - (file - shmem) : current;
    return max > used ? max - used : 0;
}

/* Our group's path below /sys/fs/cgroup, "" for the root. */
static void own_cgroup(char path[PATH_BYTES])
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[PATH_BYTES];

    path[0] = '\0';
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "0::/", 4) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(path, PATH_BYTES, "%s", strcmp(line + 3, "/") == 0 ? "" : line + 3);
        }
    if (f)
        fclose(f);
}

uint64_t host_memory_available(void)
{
    char cgroup[PATH_BYTES];
    uint64_t kib = 0, room;

    find_number("/proc/meminfo", "MemAvailable:", &kib);
    room = kib * 1024;
    own_cgroup(cgroup);
    for (;;) {
        uint64_t here = cgroup_room(cgroup);
        char *slash = strrchr(cgroup, '/');
        room = here < room ? here : room;
        if (!slash)
            return room;
        *slash = '\0';
    }
}
