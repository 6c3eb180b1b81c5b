/* host_facts.h - of the host what only `llmctl doctor` asks: devices, ports, limits of a container, clock, unit. */
#ifndef LLMD_LLMCTL_HOST_FACTS_H
#define LLMD_LLMCTL_HOST_FACTS_H

#include "common/nvml.h"

struct host_facts {
    bool has_shm;
    uint64_t shm_bytes;   /* of /dev/shm */
    uint64_t memlock_max; /* of a process; UINT64_MAX: any */
    bool has_memlock;
    char driver[64];              /* NVIDIA's, "" = none */
    struct nvml_gpus nvml;        /* of the real host only */
    bool port_is_taken;           /* somebody listens at .port */
    unsigned port;                /* 0: not looked */
    unsigned n_nodes;             /* of memory; 0: not known */
    uint64_t group_memory_max;    /* of our control group; 0: no limit */
    uint32_t group_cores;         /* quota; UINT32_MAX: none */
    char governor[32];            /* of the first core; "" = none */
    bool has_clock, clock_is_set; /* kept by NTP or the like */
    uint64_t now_s;
    char unit[32],
        unit_result[32]; /* of llmd.service: "active", "failed"; "" = not known, not installed */
};

/* Below root ("" = the real one).  port 0: none is looked for. */
void host_facts_read(struct host_facts *h, const char *root, int pid, unsigned port);

#endif
