/* service.h - a whole llmd beside this program, on a private runtime folder and a port of its own, to be killed in parts.
 *
 * The programs are those of the folder that this one is in.  A service that does not come up fails the item with the
 * last line of its log; where the programs are missing, the item is skipped. */
#ifndef LLMD_CUDA_VERIFY_SERVICE_H
#define LLMD_CUDA_VERIFY_SERVICE_H

#include <stdbool.h>
#include <sys/types.h>

#include "gpu-worker/cuda/verify/items.h"

struct service_setup {
    const char *model; /* directory or file */
    int tp_size;       /* 1: on v->gpu; 2: and v->peer */
    bool deterministic;
    bool has_init;     /* below llm-init, which holds its descriptors and starts llmd again */
    uint32_t rows_max; /* max_num_batched_tokens */
    uint64_t kv_bytes;
    bool has_prefixes; /* pages outlive their sequence: the next prompt that begins so finds them */
    uint64_t host_bytes;             /* of the host tier; 0 = none */
    uint32_t page_tokens, model_len; /* kv_page_tokens, max_model_len; 0 = the usual */
};

struct service {
    pid_t root; /* llmd, or its llm-init; 0 = none */
    int port;
    char dir[64];
};

bool service_start(struct service *s, const struct verify *v, const struct service_setup *how,
                   struct item_report *r);
/* SIGTERM, and SIGKILL when that does not help; remove its folder.  Zeroed: fine. */
void service_stop(struct service *s);

/* "llmd", "gateway", "worker 0.1"; 0: nobody answers, or it does not run now. */
pid_t service_pid(const struct service *s, const char *process);

struct service_state {
    bool is_ready; /* all processes serve */
    pid_t llmd;
    uint32_t restarts; /* of all its processes together */
    uint32_t epoch;    /* of the first group */
    char last_exit
        [80]; /* of that group's rank 0: "exit code 81 (...): ..."; "" = it has never died */
};
/* false: nobody answers. */
bool service_look(const struct service *s, struct service_state *out);
/* Have the setting fault_points read (common/fault_point.h).  It is read soon. */
void service_set_fault_points(const struct service *s, const char *spec);

/* Until it is ready; false after limit_ms. */
bool service_wait_ready(const struct service *s, int limit_ms);

#endif
