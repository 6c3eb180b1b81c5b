/* exchange_state.h - what exchange.c (launches, watching, NCCL) and exchange_areas.c (opening) share. */
#ifndef LLMD_CUDA_EXCHANGE_STATE_H
#define LLMD_CUDA_EXCHANGE_STATE_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "gpu-worker/cuda/chunks.h"
#include "gpu-worker/cuda/exchange.h"
#include "gpu-worker/cuda/kernels/all_reduce.h"
#include "gpu-worker/cuda/mesh.h"
#include "gpu-worker/cuda/nccl_comm.h"

enum { EXCHANGE_TEST_FLOATS = 5000 }; /* more than one block of the all-reduce, and ragged */

/* The area of one rank, as this process and its GPU have it. */
struct exchange_area {
    char *device; /* its address; NULL = not there */
    struct chunks chunks;
    void *host;
    bool is_pinned;
};

/* Pinned host memory: what kernels and host tell each other, and the test's scratch. */
struct exchange_signals {
    struct all_reduce_status status;
    _Atomic uint32_t abort; /* not 0: kernels leave */
    uint32_t written[EXCHANGE_RANKS_MAX], read[EXCHANGE_RANKS_MAX];
    alignas(16) float test[EXCHANGE_TEST_FLOATS];
};

struct exchange {
    struct exchange_setup setup;
    struct device *device;
    struct mesh mesh;
    enum exchange_path path;
    struct exchange_area areas[EXCHANGE_RANKS_MAX];
    struct all_reduce_group group; /* of every launch */
    struct exchange_signals *signals;
    cu_ptr signals_at; /* as the device addresses them */
    struct device_kernel *all_reduce, *all_gather, *add_floats;
    struct nccl_comm nccl;
    bool has_nccl, use_nccl;
    /* Between the watching thread and the others; a bit for each rank. */
    _Atomic uint32_t nccl_ready, nccl_failed, gone;
    pthread_t watcher;
    int stop_fd; /* eventfd; -1 = no thread runs */
};

/* Find the path that works for all ranks, with the mesh open and the signals there.  Every rank takes part in every
 * round, whatever has failed for it, so that all decide alike.  false: ERR_DEVICE where no path works, else as
 * mesh_all_gather(). */
bool exchange_areas_open(struct exchange *x, uint64_t deadline_ns, struct err *e);
void exchange_areas_close(struct exchange *x); /* half-opened: fine */

#endif
