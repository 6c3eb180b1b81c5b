/* nccl_comm.h - one NCCL communicator of a group's epoch, which forms while the group already works.
 *
 *              nccl_comm_start()            all ranks are in
 *   (nothing) ------------------> FORMING ------------------> READY
 *                                    |   error, or 10 s           |  error
 *                                    +--------> FAILED <----------+
 *
 * FORMING costs nobody a wait: ncclCommInitRankConfig() with blocking = 0 works on threads of its own, and is asked how
 * far it is.  Once FAILED, a communicator is never used again.  A group goes on without one (exchange.h): its own
 * all-reduce does everything, large data only slower.
 *
 * No communicator is aborted.  ncclCommAbort() waits for threads and streams and was seen to hang where not every
 * rank aborts (NVIDIA/nccl #829, #863, #1013, #1777); a rank whose peer is gone exits instead, and what it
 * queued dies with its process.  So an id is of one epoch: a new epoch of the group asks for a new one.
 *
 * What is not given back works on, on threads of its own in the context that it began in.  While there is such a one
 * (nccl_comm_is_left()) the context must stay, and the process ends by _exit(): without the destructors of libraries, which
 * would take from under those threads what they use.
 *
 * One thread. */
#ifndef LLMD_CUDA_NCCL_COMM_H
#define LLMD_CUDA_NCCL_COMM_H

#include "gpu-worker/cuda/api/nccl.h"
#include "gpu-worker/cuda/device.h"

#define NCCL_COMM_LIMIT_NS (10 * 1000000000ull) /* to form, and to launch */

enum nccl_comm_state { NCCL_COMM_FORMING, NCCL_COMM_READY, NCCL_COMM_FAILED };

struct nccl_comm {
    struct nccl_communicator *comm;
    enum nccl_comm_state state;
    uint64_t deadline_ns;
};

/* Set what NCCL reads of the environment for one machine, unless the operator has set it: sockets over lo, no InfiniBand,
 * no RAS threads; by_host, whatever was set: no GPU's memory read by another.  Before any other thread exists. */
void nccl_comm_environment(bool by_host);

/* Rank 0: a new id for the others (every rank's nccl_comm_start() needs it).  The process that asks runs the meeting place,
 * so it is a worker and never llmd.  ERR_DEVICE. */
bool nccl_comm_id(struct nccl_unique_id *id, struct err *e);

/* Begin to form, in the calling thread's CUDA context.  ERR_DEVICE: it has failed already. */
bool nccl_comm_start(struct nccl_comm *c, const struct nccl_unique_id *id, uint32_t rank,
                     uint32_t n_ranks, struct err *e);

/* Where it stands now; asks the library while it forms or works.  *e: why, in the call that finds NCCL_COMM_FAILED. */
enum nccl_comm_state nccl_comm_poll(struct nccl_comm *c, struct err *e);

/* Queue out[i] = sum over the ranks of in_r[i], float; out may be in.  READY only.  Returns when it is in the stream, within
 * NCCL_COMM_LIMIT_NS.  false: the device has a fault. */
bool nccl_comm_all_reduce(struct nccl_comm *c, struct device_stream *s, float *out, const float *in,
                          size_t n);

/* READY, and all ranks leave together with their streams done (together): give it back.  Otherwise it is left to the end
 * of the process, and so must *c be, where NCCL may write yet: false.  Zeroed: fine. */
bool nccl_comm_close(struct nccl_comm *c, bool together);

/* Whether a communicator of this process was left. */
bool nccl_comm_is_left(void);

#endif
