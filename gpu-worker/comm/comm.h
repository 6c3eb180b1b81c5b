/* comm.h - what the ranks of a tensor-parallel group do together.
 *
 * The plan of a step, the end of a group and what is written to host memory (logits) always go through the group
 * segment (comm_shm.c, proto/group_layout.h).  Activations are where the backend has them.  On the CPU they live in
 * that segment too: each rank writes its columns and comm_all_gather() is then a barrier, nothing is copied or
 * added, and the sums are those of a single rank, bit for bit.  A device has them in memory of its own, one copy a
 * rank, and makes the copies equal on its stream (struct comm_device).
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

/* The same on every rank of a group.  Sizes are of all buffers together, each rounded up to 64. */
struct comm_shape {
    uint32_t tp_size;
    uint32_t rows_max, seqs_max, pages_max; /* of a step; pages of one sequence */
    uint64_t activation_bytes;              /* comm_alloc() */
    uint64_t host_bytes;                    /* comm_alloc_host() */
    bool on_device;                         /* activations are in memory of struct comm_device */
};

/* A buffer of which each rank writes some columns: rows of n times `unit` activations; rank r has the units
 * n * r / tp_size .. n * (r + 1) / tp_size - 1. */
struct comm_columns {
    uint32_t n_rows, n, unit;
};

/* Activations of a device.  Both exchanges are queued behind the ops before them and return at once. */
struct comm_device {
    void *ctx;

    /* bytes of memory that the exchanges can work on, 256-byte aligned, for ctx's life; NULL and ERR_DEVICE. */
    void *(*alloc)(void *ctx, size_t bytes, struct err *e);

    /* comm_all_gather() */
    bool (*gather)(void *ctx, float *buf, const struct comm_columns *c, struct err *e);

    /* comm_join_rows(): every element becomes the sum of all ranks' */
    bool (*sum)(void *ctx, float *buf, size_t n, struct err *e);

    /* comm_add_sums() */
    bool (*add_sum)(void *ctx, float *x, float *y, size_t n, struct err *e);

    /* What all ranks must decide alike for a step, since calls of one must meet calls of the other: rank 0 is asked, and
     * its answer is told to every rank, itself included, before the step begins. */
    uint32_t (*ask)(void *ctx);
    void (*tell)(void *ctx, uint32_t answer);
};

/* Bytes of the group segment; UINT64_MAX when that cannot be. */
uint64_t comm_group_bytes(const struct comm_shape *shape);

/* Join the group's epoch.  fd: taken.  device: borrowed, with shape->on_device; else NULL.  Does not wait for the
 * peers.  NULL and ERR_PROTO, ERR_SYS or ERR_DEVICE. */
struct comm *comm_open(int fd, const struct comm_shape *shape, const struct comm_device *device,
                       uint32_t rank, uint32_t epoch, struct err *e);
void comm_close(struct comm *c); /* NULL is fine; peers that wait for this rank give up */

/* An uninitialised buffer of activations, 64-byte aligned, for comm's life.  Every rank asks for the same sizes in
 * the same order. */
void *comm_alloc(struct comm *c, size_t bytes);

/* The same in host memory that all ranks see. */
void *comm_alloc_host(struct comm *c, size_t bytes);

/* Each rank has written its columns of buf; when this returns true, what follows may read all of it.  ERR_DEVICE:
 * a peer is gone, and this rank must exit. */
bool comm_all_gather(struct comm *c, void *buf, const struct comm_columns *columns, struct err *e);

/* The same for a buffer [n_rows, width] of which each row was written by one rank.  Others have left it alone, or
 * zero where each rank has a copy of its own (ops->embed). */
bool comm_join_rows(struct comm *c, void *buf, uint32_t n_rows, uint32_t width, struct err *e);

/* x[i] += the sum over the ranks of their y[i]: what matrices give whose columns are cut.  x, y [n], both of
 * comm_alloc(); y is undefined afterwards.  Only with a device, and more than one rank. */
bool comm_add_sums(struct comm *c, void *x, void *y, size_t n, struct err *e);

/* Every rank has written its part of what comm_alloc_host() gave. */
bool comm_join_host(struct comm *c, struct err *e);

/* Rank 0: hand the step's plan to the others. */
bool comm_publish(struct comm *c, const struct batch *b, struct err *e);

/* Something else than a step that every rank is to do: `what`, with an argument and some numbers.  comm/ knows no
 * meaning of it. */
enum { COMM_NUMBERS_MAX = 1024 };
struct comm_order {
    uint32_t what, argument;
    uint32_t n; /* 0..COMM_NUMBERS_MAX */
    const uint32_t *numbers;
};

/* Rank 0, between steps: hand an order to the others.  It is over when every rank has called comm_join_host(); answers
 * can lie in what comm_alloc_host() gave. */
bool comm_publish_order(struct comm *c, const struct comm_order *o, struct err *e);

enum comm_event { COMM_STEP, COMM_ORDER, COMM_STOP, COMM_FAILED };

/* Other ranks: wait for the next step or order, asleep while there is none.  *b or *o is filled, and borrowed until the
 * next call. */
enum comm_event comm_follow(struct comm *c, struct batch *b, struct comm_order *o, struct err *e);

/* Any thread.  Rank 0: every rank's comm_follow() ends with COMM_STOP; others: this rank's does. */
void comm_stop(struct comm *c);

#endif
