/* items.h - the checklist's items (design section 9): a table of what is measured, against which limit, by what.
 *
 * An item runs in the main process, which never uses the GPU itself, and starts children that do.  It fills its
 * report; limits are the design's.  Sizes differ between a GPU and the dry run, which only shows that the program
 * works. */
#ifndef LLMD_CUDA_VERIFY_ITEMS_H
#define LLMD_CUDA_VERIFY_ITEMS_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu-worker/cuda/verify/report.h"

struct verify {
    bool is_dry_run;
    bool is_small; /* the dry run's shapes of kernels; true in the dry run */
    int driver;    /* CUDA of the driver: 13000 = 13.0 */
    int gpu, peer; /* ordinals; peer -1 = there is only one */
    char uuid[48], peer_uuid[48];
    bool has_host_numa;
    const char *program;  /* to be started again, for the time that takes */
    uint64_t chunk_bytes; /* of G1, G2, G6 */
    int n_chunks;
    uint64_t total_max_bytes; /* of G4 */
    int hold_ms;              /* between death and import (G2) */
    int busy_ms;              /* work queued by the process that is killed (G7) */
    int n_replays;            /* G13 */
    uint64_t copy_bytes;      /* G9, G18 */
    int n_kills;              /* G8 */
    int soak_minutes;         /* G19; 0: it is not wanted */
    char scratch[200];        /* a folder for models, removed at the end */
};

typedef void item_fn(const struct verify *v, struct item_report *r);

struct item {
    const char *id, *title;
    item_fn *run;
    int n_gpus; /* needed */
};

extern const struct item items[];
extern const int n_items;

item_fn item_versions, item_context_memory, item_killed_creator, item_restarted_service,
    item_attach_time, item_start_time, item_sticky_error, item_killed_at_work,
    item_kills_under_load, item_host_memory, item_kernels, item_sanitizer, item_speed,
    item_graph_replays, item_peer_data, item_killed_rank, item_nccl, item_host_tier, item_peer_copy,
    item_soak, item_injected_errors, item_cuda_12, item_logits;

/* The sums of G14. */
void ranks_report_sums(const struct verify *v, struct item_report *r);

/* The started program's part in G5: `gpu-verify --started T`, T its start in ns; prints times and ends. */
int start_time_main(int gpu, uint64_t started_ns);

#endif
