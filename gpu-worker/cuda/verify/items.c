/* items.c - the checklist. */
#include "gpu-worker/cuda/verify/items.h"

const struct item items[] = {
    { "G0", "versions and features", item_versions, 1 },
    { "G1", "memory of a process by stages", item_context_memory, 1 },
    { "G2", "bytes of a killed creator", item_killed_creator, 1 },
    { "G3", "bytes across a restart of the service", item_restarted_service, 1 },
    { "G4", "attach time", item_attach_time, 1 },
    { "G5", "start time", item_start_time, 1 },
    { "G6", "sticky errors and neighbours", item_sticky_error, 1 },
    { "G7", "killed at work", item_killed_at_work, 1 },
    { "G8", "kills under load", item_kills_under_load, 1 },
    { "G9", "host memory that outlives a process", item_host_memory, 1 },
    { "G10", "kernels against the host", item_kernels, 1 },
    { "G11", "compute-sanitizer", item_sanitizer, 1 },
    { "G12", "tokens per second", item_speed, 1 },
    { "G13", "graph replays", item_graph_replays, 1 },
    { "G14", "peer data and sums", item_peer_data, 2 },
    { "G15", "one rank killed", item_killed_rank, 2 },
    { "G16", "NCCL init and abort", item_nccl, 2 },
    { "G17", "host tier under load", item_host_tier, 1 },
    { "G18", "copy between replicas", item_peer_copy, 2 },
    { "G19", "hours of random faults", item_soak, 1 },
    { "G20", "injected error codes", item_injected_errors, 1 },
    { "G21", "driver of CUDA 12", item_cuda_12, 1 },
    { "G22", "logits against the CPU's", item_logits, 1 },
};

const int n_items = sizeof items / sizeof items[0];
