/* exchange.h - what the ranks of a tensor-parallel group do together on their GPUs.
 *
 * Every rank makes a staging area (kernels/all_reduce.h) and hands the others a descriptor of it, so that a rank's
 * death invalidates nobody's mapping.  Two kernels, all-reduce and all-gather, run over these areas.  Where the areas are
 * is found out at open, by data and not by attributes, since a virtual machine may say that GPUs reach each other
 * and mirror the memory instead (NVIDIA/nccl #2335): every rank writes a pattern that every other must read,
 * and the reverse.
 *
 *   P2P   device memory of each rank, mapped by all
 *   HOST  where one pair of ranks failed that test: shared host memory, pinned by all; same kernels
 *   NCCL  beside them for what is larger than they are good at, once a communicator is there (nccl_comm.h): it
 *         forms in the background, and no step waits for it.  Never again once one rank's has failed; only a step
 *         that was to use it ends the group
 *
 * An area lives for one epoch of its group and is used by nobody else: what kernels of a dead epoch still write
 * goes where nobody reads.  It is small (16 MiB), so it is not kept for successors.
 *
 * A peer that is gone never hangs a rank.  All ranks are connected (mesh.h), and a thread that sleeps on those
 * connections has this rank's kernels leave when one ends; who hangs instead is found by EXCHANGE_SPIN_LIMIT_US.
 * exchange_check() tells at the end of the step, and the worker exits.
 *
 * Calls are queued on a stream; every rank makes the same calls in the same order.  One stream, one thread. */
#ifndef LLMD_CUDA_EXCHANGE_H
#define LLMD_CUDA_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gpu-worker/cuda/device.h"

enum {
    EXCHANGE_RANKS_MAX = 8,
    EXCHANGE_SPIN_LIMIT_US = 10000000, /* of one wait in a kernel: much more than any step takes */
    EXCHANGE_OPEN_LIMIT_MS = 60000     /* for all ranks to come to exchange_open() */
};

enum exchange_path { EXCHANGE_P2P, EXCHANGE_HOST };

struct exchange_setup {
    struct device *device;
    uint32_t rank, tp_size; /* 2 .. EXCHANGE_RANKS_MAX */
    uint32_t group, epoch;
    /* Names the meeting place: the same on all ranks of the group and nobody else's on this machine (the inode number
     * of the group segment's memfd, for one). */
    uint64_t group_id;
    bool host_only;         /* do not try P2P */
    bool nccl;              /* form a communicator in the background where libnccl is installed */
    uint32_t spin_limit_us; /* 0 = EXCHANGE_SPIN_LIMIT_US */
    uint32_t open_limit_ms; /* 0 = EXCHANGE_OPEN_LIMIT_MS */
};

struct exchange;

/* Meet the other ranks and agree on a path; blocks until all are there.  NULL: ERR_TIMEOUT, a rank did not come;
 * ERR_DEVICE; ERR_PROTO, a rank is of another build. */
struct exchange *exchange_open(const struct exchange_setup *setup, struct err *e);
/* NULL is fine; the stream must be done.  A communicator of NCCL's may be left: nccl_comm_is_left(). */
void exchange_close(struct exchange *x);

enum exchange_path exchange_path(const struct exchange *x);
const char *exchange_path_name(enum exchange_path path); /* "p2p", "host" */

/* What crosses between ranks must be decided alike by all of them.  So rank 0 asks exchange_nccl_is_ready() (every
 * rank's communicator stands), tells the others with the step's plan, and every rank says at the beginning of a step what
 * rank 0 said.  Never saying it is saying false. */
bool exchange_nccl_is_ready(struct exchange *x);
void exchange_use_nccl(struct exchange *x, bool use);

/* y[i] = sum over the ranks, in their order, of in_r[i], or that added to y[i]: the same bits on every rank, if y
 * was.
 *   in, y  [n] float of device memory, 16-byte aligned, n > 0; in may be y unless add, and is undefined afterwards
 * Through NCCL the order of the sum is NCCL's; still the same bits on all ranks.  false: the device has a fault. */
bool exchange_all_reduce(struct exchange *x, struct device_stream *s, float *y, float *in, size_t n,
                         bool add);

/* Rank r has columns first[r] .. first[r + 1] - 1 of each row of its buf; afterwards every rank has all.
 *   buf  [n_rows, stride] float; first [tp_size + 1] */
bool exchange_all_gather(struct exchange *x, struct device_stream *s, float *buf, uint32_t n_rows,
                         uint32_t stride, const uint32_t *first);

/* After the stream has finished a step: did every call of it find its peers?  ERR_DEVICE names who was missing,
 * and the worker must exit. */
bool exchange_check(const struct exchange *x, struct err *e);

#endif
