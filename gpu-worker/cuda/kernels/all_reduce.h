/* all_reduce.h - what the exchange between ranks asks of its kernels (all_reduce.cu, K16).
 *
 * Each rank has one staging area that every rank of the group can read and write: device memory, peer to peer, or
 * pinned host memory.  The kernels do not care which.
 *
 *   0                     ALL_REDUCE_STAGING_OFFSET
 *   +---------------------+--------------------------------+--------------------------------+
 *   | all_reduce_control  | even calls: [blocks][block]    | odd calls: [blocks][block]     |
 *   +---------------------+--------------------------------+--------------------------------+
 *
 * Block b of every rank works on the same part of the data, meets block b of the other ranks only, and has a
 * place of its own in both halves; so nothing below depends on the number of blocks of a call.
 *
 * Order.  A block counts its calls in control.calls[b].  It stores its input, then its count into
 * arrived[b][own rank] of every peer's area (release, system scope), and waits until every arrived[b][r] of its own
 * area is as high (acquire): then it may read the peers' inputs.  A peer that has arrived at call c is done with
 * call c - 1, so the half that call c + 1 writes is read by nobody: one meeting a call is enough.  In the
 * two-shot form rank r sums its r-th part and stores it where only it has read, and reduced[b][r] says so.
 * Counts only grow, and are compared modulo 2^32.
 *
 * Crash.  An area is made for one epoch, zero-filled, and never used again, so what a dead epoch's kernels still
 * write is read by nobody. */
#ifndef LLMD_CUDA_KERNELS_ALL_REDUCE_H
#define LLMD_CUDA_KERNELS_ALL_REDUCE_H

#include <stddef.h>
#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"

enum {
    ALL_REDUCE_RANKS_MAX = 8,
    ALL_REDUCE_BLOCKS_MAX = 64,
    ALL_REDUCE_THREADS = 256,
    ALL_REDUCE_BLOCK_BYTES = 128 << 10, /* of one block's staging */
    ALL_REDUCE_STAGING_OFFSET = 16384
};

/* What one call can take; longer data is cut. */
#define ALL_REDUCE_FLOATS_MAX                                                                      \
    ((size_t)ALL_REDUCE_BLOCKS_MAX * ALL_REDUCE_BLOCK_BYTES / sizeof(float))
#define ALL_REDUCE_AREA_BYTES                                                                      \
    (ALL_REDUCE_STAGING_OFFSET + 2 * (size_t)ALL_REDUCE_BLOCKS_MAX * ALL_REDUCE_BLOCK_BYTES)

struct all_reduce_control {
    uint32_t calls[ALL_REDUCE_BLOCKS_MAX]; /* of each block of this rank */
    uint32_t failed;                       /* an all_reduce_code of this rank; 0 = none */
    uint32_t pad[63];
    uint32_t arrived[ALL_REDUCE_BLOCKS_MAX][ALL_REDUCE_RANKS_MAX]; /* by the peers */
    uint32_t reduced[ALL_REDUCE_BLOCKS_MAX][ALL_REDUCE_RANKS_MAX];
    uint32_t
        test[ALL_REDUCE_RANKS_MAX]; /* by the peers, before the first call: can they write here? */
};

enum all_reduce_code { ALL_REDUCE_OK, ALL_REDUCE_ABORTED, ALL_REDUCE_TIMED_OUT };

/* In pinned host memory, zero at first: the first failure of this rank.  After one, all later calls return at once
 * and leave their output as it was. */
struct all_reduce_status {
    uint32_t code; /* written last */
    uint32_t peer; /* that was waited for */
    uint32_t block;
    uint32_t call;
};

/* What both kernels need of the group.  Passed with each call. */
struct all_reduce_group {
    char *areas[ALL_REDUCE_RANKS_MAX]; /* as this rank addresses them */
    uint32_t rank, n_ranks;            /* 1 .. ALL_REDUCE_RANKS_MAX */
    const uint32_t *abort_word; /* pinned host memory: leave when it is abort_value; or NULL */
    uint32_t abort_value;
    uint32_t spin_limit_us; /* of one wait */
    struct all_reduce_status *status;
};

/* all_reduce: out[i] = (add ? out[i] : 0) + sum over r = 0 .. n_ranks - 1, in this order, of in_r[i], float.
 * The same bits on every rank, for one-shot and two-shot alike, if out was.
 *   in, out  [n], 16-byte aligned; out may be in.  n and two_shot are the same on all ranks. */
struct all_reduce_args {
    struct all_reduce_group group;
    float *out;
    const float *in;
    uint32_t n; /* 1 .. ALL_REDUCE_FLOATS_MAX */
    uint32_t add;
    uint32_t two_shot;
};

/* all_gather: rank r has columns first[r] .. first[r + 1] - 1 of every row of its buf; afterwards it has all.
 *   buf  [n_rows, stride]; n_rows * the widest rank's columns <= ALL_REDUCE_FLOATS_MAX */
struct all_gather_args {
    struct all_reduce_group group;
    float *buf;
    uint32_t n_rows, stride;
    uint32_t first[ALL_REDUCE_RANKS_MAX + 1];
};

/* add_floats: out[i] += in[i]; what is left to do where the sum itself was made by a library.
 *   in, out  [n], 16-byte aligned.  Grid: add_floats_blocks(n). */
struct add_floats_args {
    float *out;
    const float *in;
    size_t n;
};

KBOTH uint32_t add_floats_blocks(size_t n)
{
    return (uint32_t)((n + 4 * ALL_REDUCE_THREADS - 1) / (4 * ALL_REDUCE_THREADS));
}

/* The grid for n floats: a pure function of n, so that all ranks cut alike. */
KBOTH uint32_t all_reduce_blocks(size_t n)
{
    size_t blocks = (n + 4 * ALL_REDUCE_THREADS - 1) / (4 * ALL_REDUCE_THREADS);

    return blocks < ALL_REDUCE_BLOCKS_MAX ? (uint32_t)blocks : (uint32_t)ALL_REDUCE_BLOCKS_MAX;
}

/* Floats of each of those blocks but the last, which has what is left: whole units of 16 bytes. */
KBOTH uint32_t all_reduce_block_floats(size_t n)
{
    size_t units = (n + 3) / 4, blocks = all_reduce_blocks(n);

    return (uint32_t)((units + blocks - 1) / blocks * 4);
}

#endif
