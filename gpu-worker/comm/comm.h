/* comm.h - what the ranks of a tensor-parallel group do together.
 *
 * On the CPU (comm_shm.c, proto/group_layout.h) activations that every rank needs live in shared memory:
 * each rank writes its columns and comm_all_gather() is then a barrier, nothing is copied or added, and
 * the sums are those of a single rank, bit for bit.  A backend with memory of its own copies there; one that
 * splits sums (row-parallel weights) needs an all-reduce beside it.
 *
 * With tp_size 1 all of this costs nothing.  A peer that dies is an error of every wait, never a hang. */
#ifndef LLMD_GPU_WORKER_COMM_COMM_H
#define LLMD_GPU_WORKER_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gpu-worker/batch.h"

struct comm;

/* The same on every rank of a group. */
struct comm_shape {
    uint32_t tp_size;
    uint32_t rows_max, seqs_max, pages_max; /* of a step; pages of one sequence */
    uint64_t exchange_bytes;                /* all comm_alloc() together, each rounded up to 64 */
};

/* Bytes of the group segment; UINT64_MAX when that cannot be. */
uint64_t comm_group_bytes(const struct comm_shape *shape);

/* Join the group's epoch.  fd: taken.  Does not wait for the peers.  NULL and ERR_PROTO or ERR_SYS. */
struct comm *comm_open(int fd, const struct comm_shape *shape, uint32_t rank, uint32_t epoch,
                       struct err *e);
void comm_close(struct comm *c); /* NULL is fine; peers that wait for this rank give up */

/* An uninitialised buffer that all ranks see, 64-byte aligned, for comm's life.  Every rank asks for the same
 * sizes in the same order. */
void *comm_alloc(struct comm *c, size_t bytes);

/* Each rank has written its columns of buf; when this returns true, all of it may be read.  ERR_DEVICE:
 * a peer is gone, and this rank must exit. */
bool comm_all_gather(struct comm *c, const void *buf, struct err *e);

/* Rank 0: hand the step's plan to the others. */
bool comm_publish(struct comm *c, const struct batch *b, struct err *e);

enum comm_event { COMM_STEP, COMM_STOP, COMM_FAILED };

/* Other ranks: wait for the next step, asleep while there is none.  *b is borrowed until the next call. */
enum comm_event comm_follow(struct comm *c, struct batch *b, struct err *e);

/* Any thread.  Rank 0: every rank's comm_follow() ends with COMM_STOP; others: this rank's does. */
void comm_stop(struct comm *c);

#endif
