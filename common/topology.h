/* topology.h - the cores this process may run on, and which of them a rank computes on.
 *
 * A core here is a physical one: of the hardware threads that share it, the first that our scheduling mask
 * holds.  Nodes are memory (NUMA) nodes; what a rank's threads touch first lies on the node of their
 * cores.  Read at start-up; `root` is put before /proc and /sys, as in host.h.
 *
 * Pinning helps when the cores are ours: an unpinned pair of threads was seen on one core for seconds, each at
 * half speed.  It hurts when they are not, since a pinned thread cannot leave the core of a busy
 * neighbour.  PIN_AUTO pins only where there is nothing to choose: all ranks together have exactly one thread
 * for every core of the mask, and no control group's quota takes some of them back. */
#ifndef LLMD_COMMON_TOPOLOGY_H
#define LLMD_COMMON_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

enum { TOPOLOGY_CORES_MAX = 1024 };

struct topology_core {
    uint32_t cpu;  /* the number the scheduler knows it by */
    uint32_t node; /* 0..n_nodes-1, counted over the nodes that have a core of ours */
};

struct topology {
    uint32_t n_cores, n_nodes; /* at least 1 */
    uint32_t quota;            /* cores that the control groups leave us; UINT32_MAX = all */
    struct topology_core cores[TOPOLOGY_CORES_MAX]; /* by node, then by cpu */
};

/* What cannot be read is taken as: every CPU of the mask a core, one node, no quota. */
void topology_read(struct topology *t, const char *root);

/* Cores to share out: those of the mask, or the quota when it is smaller. */
uint32_t topology_cores(const struct topology *t);

/* One of the host's ranks (all groups together), each with n_threads compute threads. */
struct topology_rank {
    uint32_t rank, n_ranks, n_threads;
};

enum topology_pin { PIN_AUTO, PIN_ON, PIN_OFF };

/* cpus[0..n_threads-1] for that rank: no core twice on the host, from node rank % n_nodes as long as that
 * has some, then from the next.  false: not to be pinned - by the rule above, or with PIN_ON when
 * there are fewer cores than threads. */
bool topology_assign(const struct topology *t, enum topology_pin pin, struct topology_rank rank,
                     uint32_t *cpus);

#endif
