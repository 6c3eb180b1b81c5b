/* backend.h - where the ranks of a group compute: on the host's cores, or on a GPU each.
 *
 * runtime.c asks for what it needs in this order; what differs between the two is behind a table of functions each
 * (cpu.c, cuda.c).
 *
 *   backend_choose()   settings, host and model make one, at --inspect; llmd lays segments out by that
 *   open()             a device with its context, on the thread that runs the steps
 *   open_memory()      where weights and KV pages lie
 *   open_ops()         the table of ops, and on a GPU what its ranks exchange by
 *   bind()             another thread runs the steps from now on
 *   obey()             what rank 0 has the other ranks do between steps
 *   close()            everything, in reverse */
#ifndef LLMD_GPU_WORKER_BACKEND_BACKEND_H
#define LLMD_GPU_WORKER_BACKEND_BACKEND_H

#include "common/config.h"
#include "common/hash.h"
#include "gpu-worker/chunk_road.h"
#include "gpu-worker/comm/comm.h"
#include "gpu-worker/kv_tier_data.h"
#include "gpu-worker/load/weights.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/ops/packing.h"
#include "proto/gpu_names.h"
#include "proto/host_tier.h"
#include "proto/kvpool.h"

struct backend;

/* Of a device before anything of ours is there. */
struct backend_room {
    uint64_t bytes;       /* that can be had */
    uint64_t taken_bytes; /* that others have */
    bool
        is_ownerless; /* of these others none is a process: descriptors of memory are open somewhere */
};

struct backend_kind {
    const char *name; /* "cpu", "cuda" */
    bool
        on_device; /* weights, KV pages and activations are in memory that the host does not read */
    const struct packing *packing;

    /* In which format KV pages are kept that the settings want in t. */
    enum dtype (*kv_dtype)(enum dtype t);

    /* Whether n_ranks ranks of this host can run a model with such a setup (.kv.pages is not looked at).  ERR_CONFIG
     * or ERR_DEVICE. */
    bool (*can)(const struct ops_setup *setup, uint32_t n_ranks, uint32_t tp_size, struct err *e);

    /* Bytes that a KV page of n_layers takes of a rank with such a setup. */
    uint64_t (*page_bytes)(const struct ops_setup *setup, uint32_t n_layers);

    /* What each of n_ranks ranks has for weights and KV pages beside what a stream with such a setup needs, on the
     * fullest of their devices; backends on the host: nothing. */
    struct backend_room (*room)(const struct ops_setup *setup, uint32_t n_ranks);

    /* What names the ranks' devices, and what an operator should know of them; backends on the host: "".  ERR_DEVICE. */
    bool (*describe)(const struct config *config, uint32_t n_ranks, char names[GPU_NAMES_BYTES],
                     char note[GPU_NOTE_BYTES], struct err *e);

    /* What open_ops() takes of comm_alloc_host(). */
    uint64_t (*host_bytes)(uint32_t tp_size);

    bool (*open)(struct backend *b, struct err *e);
    bool (*open_memory)(struct backend *b, const struct weights_plan *plan,
                        const struct ops_setup *setup, uint32_t n_layers, struct hash128 layout,
                        struct err *e);
    bool (*open_ops)(struct backend *b, struct ops_setup *setup, struct comm *comm, struct err *e);
    bool (*bind)(struct backend *b, struct err *e);

    /* This rank's part of an order of rank 0's (comm.h), before comm_join_host(). */
    bool (*obey)(struct backend *b, const struct comm_order *order, struct err *e);
    void (*close)(struct backend *b);

    /* A step failed for want of memory on the device alone, and nothing is broken: it is over, and may be made anew.
     * False: it was more. */
    bool (*forgive)(struct backend *b, const struct err *e);

    /* The exit code of a worker that a failure ends (proto/worker_exit.h); 1 where none is reserved. */
    int (*exit_code)(const struct backend *b, const struct err *e);
};

/* One rank's. */
struct backend {
    const struct backend_kind *kind;
    const struct config *config; /* borrowed */
    uint32_t group, rank, tp_size, epoch;
    struct threads *threads;           /* borrowed */
    struct kvpool *pool;               /* borrowed */
    const struct host_tier *host_tier; /* borrowed; NULL: there is none */
    struct chunk_road *road;           /* borrowed; NULL: the host has all memory */
    const char *gpus;  /* of all ranks of the host (proto/gpu_names.h); borrowed; NULL: any */
    uint64_t pool_id;  /* the same for all groups of the host, and no other's on this machine */
    uint64_t group_id; /* the same for all ranks of the group, and no other's on this machine */
    /* open() */
    void *own;                      /* of the kind */
    char device[160];               /* its name, for the log */
    const struct comm_device *comm; /* NULL: activations are in host memory */
    /* open_memory() */
    const struct weights_place *place; /* NULL: the weights are in their segment */
    uint64_t page_bytes;               /* of a KV page, as this rank has it */
    /* Of the memory that KV pages are in, on rank 0 behind open_ops() of all ranks' parts; 0: the pool's own.  What the pool
     * says of pages holds while it is the same. */
    uint64_t pages_id;
    /* open_ops() */
    const struct ops *ops;
    struct ops_stream *stream;
    const struct kv_tier_data *tier; /* rank 0's; NULL: nobody copies to a host tier */
};

extern const struct backend_kind backend_cpu, backend_cuda;

/* Set what libraries of a backend read of the environment, unless the operator has; before any other thread exists. */
void backend_environment(const struct config *config);

/* Whether a library was left at work, on threads that nobody can end. */
bool backend_has_left_threads(void);

/* By the setting `device`; auto takes the GPUs where they can be had, and says in one line of the log why not.  NULL
 * and ERR_CONFIG: the setting says cuda, and it cannot be. */
const struct backend_kind *backend_choose(const struct config *config,
                                          const struct ops_setup *setup, struct err *e);

#endif
