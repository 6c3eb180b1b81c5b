/* ops.h - what a model is made of: one table of functions per backend.
 *
 * A model calls them in order on its rank's stream.  On the CPU each call returns when it is done, the
 * work having been split over the stream's threads; a device queues it.  Activations are opaque to
 * models: rows of ops->act_bytes elements (float on the CPU, bf16 on a GPU) in memory of ops->alloc() or
 * of comm/.  A *stride* is the distance of two rows in elements, so a rank can write its columns of a
 * wider buffer.  Norm weights and biases are float everywhere; matrices keep the checkpoint's type.
 *
 * Always true: an element of a result is the same bits whatever else is computed with it - other rows,
 * other columns, other threads.  Every sum runs in an order that depends on nothing but its own length
 * (linear: the columns; attention: the positions, page by page).  Backends differ from ops_cpu.c, the
 * definition, by rounding only. */
#ifndef LLMD_GPU_WORKER_OPS_OPS_H
#define LLMD_GPU_WORKER_OPS_OPS_H

#include <stdbool.h>

#include "gpu-worker/batch.h"
#include "gpu-worker/ops/threads.h"
#include "proto/dtype.h"

struct ops_stream; /* one per rank; each backend's own */

/* A matrix of the weights segment, rows one after the other. */
struct weight {
    const void *data; /* [rows, cols] */
    enum dtype dtype; /* F32, F16 or BF16 */
    uint32_t rows, cols;
};

/* Where KV pages are, and which heads of them are this rank's (proto/kvpool_layout.h). */
struct ops_kv {
    char *pages; /* page p is at p * page_bytes */
    uint64_t page_bytes;
    uint32_t n_pages, page_tokens;
    uint32_t n_heads_model; /* KV heads in a page */
    uint32_t first_head;    /* of this rank */
    enum dtype dtype;       /* F16 or F32 */
};

/* What a stream is made for. */
struct ops_setup {
    uint32_t rows_max; /* of a step */
    uint32_t n_heads;  /* query heads of this rank; a multiple of n_kv_heads */
    uint32_t n_kv_heads;
    uint32_t head_dim;       /* even */
    uint32_t positions_max;  /* positions are below this */
    const double *rope_freq; /* [head_dim / 2] radians per position; copied */
    struct ops_kv kv;
};

enum linear_mode {
    LINEAR_SET, /* y = */
    LINEAR_ADD, /* y += : the residual stream */
};

struct ops {
    const char *name; /* "cpu-avx2" */
    size_t act_bytes; /* of one activation */

    /* n activations, uninitialised, 64-byte aligned; live until free(). */
    void *(*alloc)(struct ops_stream *s, size_t n);
    void (*free)(struct ops_stream *s, void *p);
    void (*close)(struct ops_stream *s); /* NULL is fine */

    /* Begin a step: everything below refers to this batch, which is borrowed until the next begin().
     * A device copies it over, with the work list of attention. */
    void (*begin)(struct ops_stream *s, const struct batch *b);

    /* x[t] = table[token[t] - first] for tokens first .. first + table->rows - 1; the rows of other
     * tokens, whose embedding another rank has, are left alone.
     *   x  [n_rows, table->cols] */
    void (*embed)(struct ops_stream *s, void *x, const struct weight *table, uint32_t first);

    /* y[t,i] = w[i] * x[r,i] / sqrt(mean_i(x[r,i]^2) + eps), r = rows ? rows[t] : t
     *   x, y  [., dim]; y may be x when rows is NULL
     *   rows  [n_rows] of x, or NULL
     *   w     [dim] float
     * Zhang & Sennrich 2019, arXiv:1910.07467. */
    void (*rmsnorm)(struct ops_stream *s, void *y, const void *x, const uint32_t *rows,
                    uint32_t n_rows, const float *w, uint32_t dim, float eps);

    /* y[t,i] = sum_k w[i,k] * x[t,k] + bias[i], or that added to y.
     *   y     [n_rows, w->rows], stride y_stride
     *   x     [n_rows, w->cols], not y
     *   bias  [w->rows] float, or NULL */
    void (*linear)(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                   const struct weight *w, const float *bias, enum linear_mode mode);

    /* The same into host memory as float: the language model's head. */
    void (*logits)(struct ops_stream *s, float *y, size_t y_stride, const void *x, uint32_t n_rows,
                   const struct weight *w);

    /* Turn the pairs (i, i + head_dim / 2) of each query and key head by position * rope_freq[i].
     *   qkv  [n_rows, (n_heads + 2 * n_kv_heads) * head_dim]: q heads, k heads, v heads
     * Su et al. 2021, arXiv:2104.09864, in the layout of the HuggingFace checkpoints. */
    void (*rope)(struct ops_stream *s, void *qkv);

    /* Store the k and v of each row in its slot of its sequence's page, rounded to the pages' type. */
    void (*kv_write)(struct ops_stream *s, const void *qkv, uint32_t layer);

    /* Causal attention of each row over its sequence's pages, prefill and decode alike:
     *   out[t,h] = sum_p softmax_p(q[t,h] . k[p,g] / sqrt(head_dim)) v[p,g]
     * with g = h / (n_heads / n_kv_heads), over positions p <= the row's own and, with window > 0,
     * p > own - window.
     *   out  [n_rows, n_heads * head_dim], stride out_stride
     * Online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867; pages: Kwon et al. 2023,
     * arXiv:2309.06180. */
    void (*attention)(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                      uint32_t layer, uint32_t window);

    /* y[t,i] = silu(g[t,i]) * g[t, n + i], silu(a) = a / (1 + exp(-a)).
     *   y   [n_rows, n], stride y_stride;  gu  [n_rows, 2 * n]: gate, up
     * Shazeer 2020, arXiv:2002.05202. */
    void (*silu_mul)(struct ops_stream *s, void *y, size_t y_stride, const void *gu,
                     uint32_t n_rows, uint32_t n);
};

/* ---- the CPU backend (cpu.c) ---- */

enum cpu_tier { CPU_PLAIN, CPU_AVX2, CPU_AVX512, N_CPU_TIERS };

/* The best tier this machine and operating system allow, at most `cap` ("auto" or a tier's name). */
enum cpu_tier cpu_tier_choose(const char *cap);
const char *cpu_tier_name(enum cpu_tier tier);

/* A stream on `threads` (borrowed until close) and its table.  The tier must be one the machine has. */
const struct ops *ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                               struct threads *threads, struct ops_stream **stream);

#endif
