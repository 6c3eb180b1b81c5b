/* moe.h - arguments and launch geometry of moe.cu: which row goes to which expert, and what comes back.
 *
 * A step's route (ops.h: route, experts_gated, experts_down) is, on the device:
 *
 *   gemv or GEMM   logits of the router, float
 *   moe_choose     experts of each row and their shares
 *   moe_sort       pairs (expert, row) by expert, then by row, and the groups of them
 *   gemv           with groups: gate and up of the pairs, rows = pair_row
 *   gemv           with groups: down of the pairs, into room of its own; rows = NULL
 *                  (for many rows: gemm_grouped, of x in 16 bits, with groups of 64; gemm.h)
 *   moe_combine    x += the shares of what came back, a row's experts ascending
 *
 * Nothing comes back to the host between them: the number of groups is known on the device alone, and a launch
 * has moe_groups_max() of them, of which those behind the last one are empty and exit at once. */
#ifndef LLMD_CUDA_KERNELS_MOE_H
#define LLMD_CUDA_KERNELS_MOE_H

#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"

enum {
    MOE_GROUP_ROWS = 8, /* pairs of a group for gemv: GEMV_ROWS_MAX */
    MOE_EXPERTS_MAX = 1024,
    MOE_CHOOSE_WARPS = 4,
    MOE_CHOOSE_THREADS = 32 * MOE_CHOOSE_WARPS,
    MOE_SORT_THREADS = 1024,
    MOE_COMBINE_THREADS = 256,
};

/* Pairs first .. first + n - 1, all of one expert; n = 0: none. */
struct moe_group {
    uint32_t expert, first, n;
};

/* Groups of up to group_rows that n_pairs pairs can make. */
KBOTH uint32_t moe_groups_bound(uint32_t n_pairs, uint32_t n_experts, uint32_t group_rows)
{
    uint32_t most = n_experts + n_pairs / group_rows;

    return n_pairs < most ? n_pairs : most;
}

KBOTH uint32_t moe_groups_max(uint32_t n_pairs, uint32_t n_experts)
{
    return moe_groups_bound(n_pairs, n_experts, MOE_GROUP_ROWS);
}

/* moe_choose: the n_used largest of a row's logits, of equals the lower index, and softmax(logits) of them, over
 * the sum of the chosen when normalise.  Something is chosen whatever the logits are, NaN included.
 * Grid: n_rows / MOE_CHOOSE_WARPS rounded up; one warp a row. */
struct moe_choose_args {
    uint32_t *chosen;    /* [n_rows, n_used] ascending */
    float *share;        /* [n_rows, n_used] */
    const float *logits; /* [n_rows, n_experts] */
    uint32_t n_rows, n_experts, n_used, normalise;
};

KBOTH uint32_t moe_choose_grid(uint32_t n_rows)
{
    return (n_rows + MOE_CHOOSE_WARPS - 1) / MOE_CHOOSE_WARPS;
}

/* moe_sort: a counting sort.  Grid: one block. */
struct moe_sort_args {
    uint32_t *pair_row;       /* [n_rows * n_used] row of each pair, pairs by expert, then by row */
    uint32_t *pair_of;        /* [n_rows, n_used] where the pair of a row's k-th expert is */
    struct moe_group *groups; /* [n_groups] in the order of the pairs, then empty ones */
    const uint32_t *chosen;   /* [n_rows, n_used] */
    uint32_t n_rows, n_used, n_experts, n_groups; /* moe_groups_max(), or _bound() */
    uint32_t group_rows;                          /* pairs of a group at most; 0: MOE_GROUP_ROWS */
};

/* moe_combine: x[t,i] += share[t,0] * y[pair_of[t,0],i] + ..., one after the other.
 * Grid: (cols / MOE_COMBINE_THREADS rounded up, n_rows). */
struct moe_combine_args {
    float *x;       /* [n_rows, cols], stride x_stride */
    const float *y; /* [n_rows * n_used, cols], stride y_stride */
    const float *share;
    const uint32_t *pair_of;
    uint64_t x_stride, y_stride;
    uint32_t n_rows, n_used, cols;
};

KBOTH uint32_t moe_combine_grid_x(uint32_t cols)
{
    return (cols + MOE_COMBINE_THREADS - 1) / MOE_COMBINE_THREADS;
}

#endif
