/* host_facts.c - files of /proc and /sys, each read as its manual page (proc(5), cgroups(7)) says. */
#include "llmctl/host_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <time.h>

#include "common/host.h"

enum { PATH_BYTES = 1024, LISTENING = 0x0a };

/* The first line of a file below root; false when there is none. */
static bool first_line(const char *root, const char *file, char *line, size_t n)
{
    char path[PATH_BYTES];
    bool ok = false;
    FILE *f;

    snprintf(path, sizeof path, "%s%s", root, file);
    f = fopen(path, "re");
    if (f) {
        ok = fgets(line, (int)n, f) != NULL;
        fclose(f);
    }
    if (ok)
        line[strcspn(line, "\n")] = '\0';
    return ok;
}

static void read_shm(struct host_facts *h, const char *root)
{
    char path[PATH_BYTES];
    struct statvfs s;

    snprintf(path, sizeof path, "%s/dev/shm", root);
    h->has_shm = statvfs(path, &s) == 0;
    if (h->has_shm)
        h->shm_bytes = (uint64_t)s.f_blocks * s.f_frsize;
}

static void read_memlock(struct host_facts *h, const char *root, int pid)
{
    char path[PATH_BYTES], line[256], value[32];
    FILE *f;

    if (pid > 0)
        snprintf(path, sizeof path, "%s/proc/%d/limits", root, pid);
    else
        snprintf(path, sizeof path, "%s/proc/self/limits", root);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Max locked memory %*s %31s", value) == 1) {
            h->has_memlock = true;
            h->memlock_max =
                strcmp(value, "unlimited") == 0 ? UINT64_MAX : strtoull(value, NULL, 10);
        }
    if (f)
        fclose(f);
}

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar ..." */
static void read_driver(struct host_facts *h, const char *root)
{
    char line[512], *word, *rest;

    if (!first_line(root, "/proc/driver/nvidia/version", line, sizeof line))
        return;
    snprintf(h->driver, sizeof h->driver, "unknown version");
    for (word = strtok_r(line, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest))
        if (word[0] >= '0' && word[0] <= '9' && strchr(word, '.')) {
            snprintf(h->driver, sizeof h->driver, "%s", word);
            break;
        }
    if (!root[0])
        nvml_list(&h->nvml);
}

/* "  0: 0100007F:1F90 00000000:0000 0A ...": local address and port, remote, state. */
static bool listens_at(const char *root, const char *file, unsigned port)
{
    char path[PATH_BYTES], line[512];
    unsigned found, state;
    bool taken = false;
    FILE *f;

    snprintf(path, sizeof path, "%s%s", root, file);
    f = fopen(path, "re");
    while (f && !taken && fgets(line, sizeof line, f))
        taken =
            sscanf(line, " %*u: %*[0-9A-Fa-f]:%4x %*[0-9A-Fa-f]:%*4x %2x", &found, &state) == 2 &&
            state == LISTENING && found == port;
    if (f)
        fclose(f);
    return taken;
}

/* "0-1,4": how many. */
static unsigned count_list(const char *list)
{
    unsigned n = 0, from, to;
    int used;

    while (sscanf(list, "%u%n", &from, &used) == 1) {
        list += used;
        to = from;
        if (*list == '-' && sscanf(list, "-%u%n", &to, &used) == 1)
            list += used;
        if (to < from || to - from > 4096)
            return n;
        n += to - from + 1;
        if (*list != ',')
            break;
        list++;
    }
    return n;
}

/* The nearest limit of the group we are in (version 2): its own or one above. */
static void read_group(struct host_facts *h, const char *root)
{
    char line[PATH_BYTES / 2], path[PATH_BYTES], value[64], *slash;

    h->group_cores = host_quota(root);
    if (!first_line(root, "/proc/self/cgroup", line, sizeof line) || strncmp(line, "0::", 3) != 0)
        return;
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", line + 3);
        if (first_line(root, path, value, sizeof value) && strcmp(value, "max") != 0) {
            uint64_t max = strtoull(value, NULL, 10);
            if (max > 0 && (h->group_memory_max == 0 || max < h->group_memory_max))
                h->group_memory_max = max;
        }
        slash = strrchr(line + 3, '/');
        if (!slash)
            break;
        *slash = '\0';
    }
}

static void read_clock(struct host_facts *h)
{
    struct timex t = { 0 };
    int state = adjtimex(&t);

    h->now_s = (uint64_t)time(NULL);
    h->has_clock = state >= 0;
    h->clock_is_set = h->has_clock && !(t.status & STA_UNSYNC) && state != TIME_ERROR;
}

/* By systemctl, which speaks the bus's language. */
static void read_unit(struct host_facts *h)
{
    FILE *f =
        popen("systemctl show -p LoadState,ActiveState,Result llmd.service 2>/dev/null", "re");
    char line[128], loaded[32] = "";

    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "LoadState=%31s", loaded);
        sscanf(line, "ActiveState=%31s", h->unit);
        sscanf(line, "Result=%31s", h->unit_result);
    }
    if (f)
        pclose(f);
    if (strcmp(loaded, "loaded") != 0)
        h->unit[0] = '\0';
}

void host_facts_read(struct host_facts *h, const char *root, int pid, unsigned port)
{
    char line[256];

    *h = (struct host_facts){ .port = port };
    read_shm(h, root);
    read_memlock(h, root, pid);
    read_driver(h, root);
    if (port)
        h->port_is_taken =
            listens_at(root, "/proc/net/tcp", port) || listens_at(root, "/proc/net/tcp6", port);
    if (first_line(root, "/sys/devices/system/node/online", line, sizeof line))
        h->n_nodes = count_list(line);
    read_group(h, root);
    if (first_line(root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", line,
                   sizeof line))
        snprintf(h->governor, sizeof h->governor, "%.31s", line);
    if (!root[0]) {
        read_clock(h);
        if (first_line("", "/proc/1/comm", line, sizeof line) && strcmp(line, "systemd") == 0)
            read_unit(h);
    }
}
