/* elementwise.h - arguments and launch geometry of elementwise.cu: what passes over rows once.
 *
 * Rows are float unless said otherwise.  Pointers and strides of rows that are read or written 16 bytes at a
 * time are multiples of 16 bytes, so `dim` and strides are multiples of 4 (of 8 for 16-bit outputs); a kernel
 * that allows more says so.  A count of 0 is launched with a grid of 0, which the host must not do: it leaves the
 * launch out.
 *
 * One block or warp makes one row, in an order of sums that depends on the row's length only. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_ELEMENTWISE_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_ELEMENTWISE_H

#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"
#include "gpu-worker/cuda/kernels/kv_page.h"

/* What a row is rounded to on its way out: the input of a GEMM has the type of its weights. */
enum row_type { ROW_F32, ROW_F16, ROW_BF16, N_ROW_TYPES };

KBOTH uint32_t row_type_bytes(uint32_t type)
{
    return type == ROW_F32 ? 4 : 2;
}

/* rmsnorm: y[t,i] = w[i] * (x[r,i] / sqrt(mean_i(x[r,i]^2) + eps)), r = rows ? rows[t] : t.
 * Grid: one block a row.  Bound by memory: a row is read once, up to 16384 numbers kept in registers. */
enum { RMSNORM_THREADS = 256, RMSNORM_DIM_MAX = 16384 };

struct rmsnorm_args {
    void *y;        /* [n_rows, dim] of y_type; may be x when rows is NULL and y_type is float */
    const float *x; /* [., dim] */
    const float *w; /* [dim] */
    const uint32_t *rows; /* [n_rows] of x, or NULL */
    uint32_t dim;         /* at most RMSNORM_DIM_MAX */
    uint32_t y_type;      /* enum row_type */
    float eps;
};

/* add_normed: x[t,i] += w[i] * (y[t,i] / sqrt(mean_i(y[t,i]^2) + eps)) for i in first .. first + count - 1.
 * Grid: one block a row, RMSNORM_THREADS.  first and count are multiples of 4. */
struct add_normed_args {
    float *x;       /* [n_rows, dim] */
    const float *y; /* [n_rows, dim] */
    const float *w; /* [dim] */
    uint32_t dim, first, count;
    float eps;
};

/* embed: x[t] = scale * table[token[t] - first]; rows of tokens outside the table are left alone.
 * The table's type is float, f16 or bf16, its row_stride a multiple of 8.
 * Grid: one block a row. */
enum { EMBED_THREADS = 128 };

struct embed_args {
    float *x;              /* [n_rows, cols], stride x_stride */
    const void *table;     /* [rows, cols] of type, stride row_stride */
    const int32_t *tokens; /* [n_rows] */
    uint64_t row_stride;   /* elements */
    uint64_t x_stride;
    uint32_t cols, first, rows;
    uint32_t type; /* enum row_type */
    float scale;
};

/* rope_angles: cos and sin of each row's position, once a step: the sum of two angles, in double, as
 * ops/rope_table.h has them.
 * Grid: one block a row. */
enum { ROPE_ANGLES_THREADS = 64, ROPE_LOW = 256 };

struct rope_angles_args {
    float *cos, *sin;          /* [n_rows, half] */
    const uint32_t *positions; /* [n_rows], below the table's positions_max */
    const double *low;         /* [ROPE_LOW][half][2 = cos, sin] of low * freq */
    const double *high;        /* [.][half][2] of 256 * high * freq, times the amplitude */
    uint32_t half;
};

/* rope_kv_write: what lies between the product that makes q, k and v and attention.  Each query and key head is
 * normalised where there are weights, then its pairs (i, i + half), i < half, are turned.  q goes back to where it was,
 * k and v to the row's slot of its page, rounded to the pages' format.  int8: scale = largest |x| / 127 of the head,
 * code = x / scale to nearest.  E4M3: the factor times x, beyond 448: 448.
 * Grid: (n_rows, heads of q, k and v / ROPE_WARPS rounded up); one warp a head, of at most ROPE_HEAD_DIM_MAX numbers.
 * A row whose page is KV_WRITE_IDLE stores no k and no v (a graph's spare rows). */
enum { ROPE_WARPS = 4, ROPE_THREADS = 32 * ROPE_WARPS, ROPE_HEAD_DIM_MAX = 512 };
#define KV_WRITE_IDLE UINT32_MAX

struct rope_kv_write_args {
    float *qkv; /* [n_rows, qkv_stride]: q heads, k heads, v heads; k and v stay as they are */
    const float *cos, *sin; /* [n_rows, half] */
    const float *q_norm;    /* [head_dim], both, or NULL, both: they are not normalised */
    const float *k_norm;
    const uint32_t *pages; /* [n_rows] page of the pool */
    const uint32_t *slots; /* [n_rows] 0 .. page_tokens - 1 */
    struct kv_place place; /* with the heads of k, and of v, and the head_dim of all */
    uint64_t qkv_stride;
    uint32_t n_heads; /* of q */
    uint32_t half, layer;
    float eps;
    float k_factor, v_factor; /* KV_E4M3: 1 over what attention multiplies by */
};

KBOTH uint32_t rope_kv_write_grid_y(uint32_t n_heads, uint32_t n_kv_heads)
{
    return (n_heads + 2 * n_kv_heads + ROPE_WARPS - 1) / ROPE_WARPS;
}

/* What works on all elements alike: grid (elements_grid_x(cols), rows), four columns a thread. */
enum { ELEMENTS_THREADS = 256, ELEMENTS_COLS = 4 * ELEMENTS_THREADS };

KBOTH uint32_t elements_grid_x(uint32_t cols)
{
    return (cols + ELEMENTS_COLS - 1) / ELEMENTS_COLS;
}

/* gate: y[t,i] = act(gate[t,i]) * up[t,i]; act: enum activation of ops/ops.h, 0 = silu, 1 = gelu by tanh. */
struct gate_args {
    void *y;                      /* [n_rows, cols] of y_type */
    const float *gate;            /* [n_rows, cols] */
    const float *up;              /* [n_rows, cols] */
    uint64_t y_stride, in_stride; /* of y; of gate and up */
    uint32_t cols, y_type, act;
};

/* convert: y[t,i] = x[t,i], and 0 for cols <= i < y_cols (columns that the weights are padded with). */
struct convert_args {
    void *y;        /* [n_rows, y_cols] of y_type */
    const float *x; /* [n_rows, cols]; cols is any */
    uint64_t y_stride, x_stride;
    uint32_t cols, y_cols, y_type;
};

/* add_rows: y[t,i] += x[t,i]; x_stride 0 adds one row to all (a bias). */
struct add_rows_args {
    float *y;
    const float *x;
    uint64_t y_stride, x_stride;
    uint32_t cols;
};

/* sigmoid_rows: y[t,i] *= sigmoid(gate[t * gate_stride]). */
struct sigmoid_rows_args {
    float *y;
    const float *gate;
    uint64_t y_stride, gate_stride;
    uint32_t cols;
};

/* softcap: y[t,i] = cap * tanh(y[t,i] / cap); cols is any. */
struct softcap_args {
    float *y;
    uint64_t y_stride;
    uint32_t cols;
    float cap;
};

#endif
