/* topology.c - the mask from /proc/self/status, siblings and nodes from /sys/devices/system. */
#include "common/topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/host.h"

enum { PATH_BYTES = 1024, LINE_BYTES = 4096, NODES_MAX = 1024 };

/* A list of the kernel, "0-3,8": bit per number below TOPOLOGY_CORES_MAX. */
struct cpu_list {
    bool has[TOPOLOGY_CORES_MAX];
};

/* Up to the end of the line; false when it is no list or an empty one. */
static bool parse_list(struct cpu_list *list, const char *text)
{
    bool any = false;

    *list = (struct cpu_list){ 0 };
    for (;;) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (end == text)
            return any;
        if (*end == '-') {
            text = end + 1;
            last = strtoul(text, &end, 10);
            if (end == text)
                return any;
        }
        for (unsigned long i = first; i <= last && i < TOPOLOGY_CORES_MAX; i++)
            any = list->has[i] = true;
        if (*end != ',')
            return any;
        text = end + 1;
    }
}

/* The list behind `key` at a line's start of a file. */
static bool read_list(struct cpu_list *list, const char *root, const char *path, const char *key)
{
    char file[PATH_BYTES], line[LINE_BYTES];
    bool found = false;
    FILE *f;

    snprintf(file, sizeof file, "%s%s", root, path);
    f = fopen(file, "re");
    while (f && !found && fgets(line, sizeof line, f))
        found = strncmp(line, key, strlen(key)) == 0;
    if (f)
        fclose(f);
    return found && parse_list(list, line + strlen(key));
}

static void read_mask(struct cpu_list *mask, const char *root)
{
    cpu_set_t set;

    if (read_list(mask, root, "/proc/self/status", "Cpus_allowed_list:\t"))
        return;
    *mask = (struct cpu_list){ 0 };
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        mask->has[0] = true;
        return;
    }
    for (int i = 0; i < TOPOLOGY_CORES_MAX && i < CPU_SETSIZE; i++)
        mask->has[i] = CPU_ISSET(i, &set);
}

/* The first hardware thread of its core that we may use? */
static bool leads_its_core(const struct cpu_list *mask, const char *root, uint32_t cpu)
{
    struct cpu_list siblings;
    char path[PATH_BYTES];

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
    if (!read_list(&siblings, root, path, ""))
        return true;
    for (uint32_t i = 0; i < cpu; i++)
        if (siblings.has[i] && mask->has[i])
            return false;
    return true;
}

static void add_node(struct topology *t, struct cpu_list *left, const struct cpu_list *node)
{
    uint32_t before = t->n_cores;

    for (uint32_t i = 0; i < TOPOLOGY_CORES_MAX; i++)
        if (left->has[i] && node->has[i]) {
            t->cores[t->n_cores++] = (struct topology_core){ i, t->n_nodes };
            left->has[i] = false;
        }
    t->n_nodes += t->n_cores > before;
}

void topology_read(struct topology *t, const char *root)
{
    struct cpu_list mask, leaders = { 0 }, nodes, all;

    *t = (struct topology){ .quota = host_quota(root) };
    read_mask(&mask, root);
    for (uint32_t i = 0; i < TOPOLOGY_CORES_MAX; i++)
        leaders.has[i] = mask.has[i] && leads_its_core(&mask, root, i);
    if (read_list(&nodes, root, "/sys/devices/system/node/online", ""))
        for (uint32_t i = 0; i < NODES_MAX; i++) {
            struct cpu_list node;
            char path[PATH_BYTES];
            snprintf(path, sizeof path, "/sys/devices/system/node/node%u/cpulist", i);
            if (nodes.has[i] && read_list(&node, root, path, ""))
                add_node(t, &leaders, &node);
        }
    memset(&all, true, sizeof all);
    add_node(t, &leaders, &all); /* what no node has named */
}

uint32_t topology_cores(const struct topology *t)
{
    return t->quota < t->n_cores ? t->quota : t->n_cores;
}

/* Give `want` free cores to a rank, those of its node first; they are noted in `taken`. */
static void take_cores(const struct topology *t, bool *taken, uint32_t rank, uint32_t want,
                       uint32_t *cpus)
{
    uint32_t n = 0;

    for (uint32_t step = 0; step < t->n_nodes; step++)
        for (uint32_t i = 0; i < t->n_cores && n < want; i++)
            if (!taken[i] && t->cores[i].node == (rank + step) % t->n_nodes) {
                taken[i] = true;
                cpus[n++] = t->cores[i].cpu;
            }
}

bool topology_assign(const struct topology *t, enum topology_pin pin, struct topology_rank r,
                     uint32_t *cpus)
{
    bool taken[TOPOLOGY_CORES_MAX] = { false };
    uint64_t wanted = (uint64_t)r.n_ranks * r.n_threads;

    if (pin == PIN_OFF || wanted > t->n_cores)
        return false;
    if (pin == PIN_AUTO && (wanted != t->n_cores || t->quota < t->n_cores))
        return false;
    for (uint32_t i = 0; i <= r.rank; i++)
        take_cores(t, taken, i, r.n_threads, cpus);
    return true;
}
