/* blas.h - matrix products by cuBLASLt, in the row-major view of the rest of the worker.
 *
 *   D[m,n] = X[m,k] W[n,k]^T, or that added to D;  rows of X: tokens, rows of W: outputs
 *
 *   type    X and W               D      sums
 *   F32     float                 float  float (no TF32)
 *   F16     half                  float  float
 *   BF16    bfloat16 (sm_80+)     float  float
 *   I8      int8 (sm_75+)         int32  int32: exact; scales are the caller's (dequantise epilogue)
 *   F8E4M3  fp8 (sm_89+)          float  float, times x_scale and w_scale
 *
 * Which algorithm runs is asked of the library's heuristic once per (M rounded up to a power of two, N, K,
 * type, alignment) and kept: the first call of a shape costs some 100 us, later ones none of that.  With
 * `deterministic` there is one algorithm per (N, K, type) for every M, and none that splits K, so that a row
 * of D is the same bits whatever other rows are computed with it.
 *
 * Calls are queued on a stream, may be captured into a graph, and use the one workspace: so a struct blas
 * belongs to one stream at a time.  Not thread-safe. */
#ifndef LLMD_CUDA_BLAS_H
#define LLMD_CUDA_BLAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gpu-worker/cuda/device.h"

enum { BLAS_WORKSPACE_BYTES = 32 << 20 };

enum blas_type { BLAS_F32, BLAS_F16, BLAS_BF16, BLAS_I8, BLAS_F8E4M3, N_BLAS_TYPES };

enum blas_scaling {
    BLAS_SCALE_ONE,   /* x_scale and w_scale are single floats, or NULL for 1 */
    BLAS_SCALE_OUTER, /* x_scale [m], w_scale [n]; where blas_can() says so */
};

/* Pointers are device addresses.  X and W are aligned to 16 bytes, and so are their rows; D to its elements.  Strides
 * are distances of rows in elements, at least k, k and n.  I8: n and k are multiples of 4; F8E4M3: of 16. */
struct blas_gemm {
    enum blas_type type;
    uint32_t m, n, k; /* not 0 */
    const void *x;
    size_t x_stride;
    const void *w;
    size_t w_stride;
    void *d;
    size_t d_stride;
    bool add;                  /* D += instead of D = */
    enum blas_scaling scaling; /* F8E4M3 only */
    const float *x_scale, *w_scale;
};

struct blas_setup {
    void *
        workspace; /* device memory of workspace_bytes, 256-byte aligned; borrowed until blas_close() */
    size_t workspace_bytes; /* BLAS_WORKSPACE_BYTES */
    bool deterministic;
};

struct blas;

/* Opens cuBLASLt in the calling thread's CUDA context.  NULL and ERR_DEVICE. */
struct blas *blas_open(const struct blas_setup *setup, struct err *e);
void blas_close(struct blas *b); /* NULL is fine; the stream must be done */

/* Queue the product.  false: refused, nothing was queued, and the stream's device has a fault that names the
 * shape; does nothing once there is one. */
bool blas_gemm(struct blas *b, struct device_stream *s, const struct blas_gemm *g);

/* Whether this GPU has an algorithm for the product, by the library's heuristic; the answer is kept, so that
 * the product itself asks no more: for a choice between ways at start (fp8 or not), and to fill the cache
 * before graphs are captured. */
bool blas_can(struct blas *b, const struct blas_gemm *g);

#endif
