/* ops.h - what a model is made of: one table of functions per backend.
 *
 * A model calls them in order on its rank's stream.  On the CPU each call returns when it is done, the
 * work having been split over the stream's threads; a device queues it.  Activations are opaque to
 * models: rows of ops->act_bytes elements (floats in today's backends) in memory of ops->alloc() or
 * of comm/.  A *stride* is the distance of two rows in elements, so a rank can write its columns of a
 * wider buffer.  Norm weights and biases are float everywhere; matrices keep the checkpoint's type.
 *
 * Always true: an element of a result is the same bits whatever else is computed with it - other rows,
 * other columns, other threads.  Every sum runs in an order that depends on nothing but its own length
 * (linear: the columns; attention: the positions, by spans and splits of fixed size).  Backends differ from ops_cpu.c, the
 * definition, by rounding only. */
#ifndef LLMD_GPU_WORKER_OPS_OPS_H
#define LLMD_GPU_WORKER_OPS_OPS_H

#include <assert.h>
#include <stdbool.h>

#include "common/err.h"
#include "gpu-worker/batch.h"
#include "gpu-worker/ops/threads.h"
#include "proto/dtype.h"

struct ops_stream;   /* one per rank; each backend's own */
struct sampler_rows; /* gpu-worker/sampler.h: for draw(), opaque to all else */

/* A matrix of the weights segment, in the panels of packing.h. */
struct weight {
    const void *data; /* [rows, cols] */
    enum dtype dtype;
    uint32_t rows, cols;
    const float *bias; /* [rows], or NULL */
};

/* Applied to the input of a product on its way in (RMSNorm: Zhang & Sennrich 2019, arXiv:1910.07467):
 *   x'[t,i] = w[i] * x[r,i] / sqrt(mean_i(x[r,i]^2) + eps), r = rows ? rows[t] : t */
struct norm {
    const float *w; /* [cols] */
    float eps;
    const uint32_t
        *rows; /* of x, or NULL; for a device the batch's own logit_rows, which it has a copy of */
};

/* The same over each head of q and k. */
struct head_norm {
    const float *q, *k; /* [head_dim] */
    float eps;
};

enum activation { ACT_SILU, ACT_GELU_TANH, N_ACTIVATIONS };

enum { EXPERTS_MAX = 1024 };

struct attention_shape {
    uint32_t window; /* positions a row sees, itself included; 0 = all */
    float scale;     /* of q . k */
    float softcap;   /* scores become softcap * tanh(score / softcap); 0 = none */
};

/* What the keys and values of a layer are divided by before they become fp8; above 0. */
struct kv_scale {
    float k, v;
};

/* Where KV pages are, and which heads of them are this rank's.  The CPU's are those of proto/kvpool_layout.h; a
 * device has a layout of its own. */
struct ops_kv {
    char *pages; /* page p is at p * page_bytes; device memory for a device */
    uint64_t page_bytes;
    uint32_t n_pages, page_tokens;
    uint32_t n_heads_model; /* KV heads in a page */
    uint32_t first_head;    /* of this rank */
    enum dtype dtype;       /* F32, F16, I8; a device: or E4M3 */
    const struct kv_scale
        *scales; /* of the model's layers, for E4M3; borrowed for the stream's life; NULL: 1 */
};

/* What a stream is made for. */
struct ops_setup {
    uint32_t rows_max;                /* of a step, and rows whose logits are wanted */
    uint32_t seqs_max;                /* of a step */
    uint32_t pages_max;               /* of a sequence */
    uint32_t logits_max, logits_cols; /* rows of logits, and rows of the head's matrix */
    uint32_t
        vocab_size;    /* such rows of all ranks together; 0: there is one rank, and nobody draws */
    uint32_t cols_max; /* of any matrix */
    uint32_t column_unit; /* divides the columns of all buffers, and where ranks' parts begin */
    uint32_t gated_max;   /* rows of any gate matrix */
    uint32_t n_experts, n_experts_used; /* 0: there is no mixture of experts */
    uint32_t expert_down_max;           /* rows of any expert's down matrix */
    uint32_t n_heads;                   /* query heads of this rank; a multiple of n_kv_heads */
    uint32_t n_kv_heads;
    uint32_t head_dim;       /* even, at most ATTENTION_HEAD_DIM_MAX */
    uint32_t rope_dim;       /* dimensions of a head that are turned, even; 0 = all */
    double rope_amplitude;   /* they are multiplied by it; 0 = 1 */
    uint32_t positions_max;  /* positions are below this */
    const double *rope_freq; /* [rope_dim / 2] radians per position; copied */
    struct ops_kv kv;
};

/* A sequence of a batch keeps to what its stream is made for; called by begin(). */
static inline void ops_check_seq(const struct ops_setup *setup, const struct batch *b,
                                 const struct batch_seq *q)
{
    uint64_t end = (uint64_t)q->start + q->n_rows;

    assert(q->first_row <= b->n_rows && q->n_rows <= b->n_rows - q->first_row);
    assert(end <= setup->positions_max);
    assert((uint64_t)q->n_pages * setup->kv.page_tokens >= end);
    for (uint32_t i = 0; i < q->n_pages; i++)
        assert(q->pages[i] < setup->kv.n_pages);
}

/* What of a batch is computed.  A device rounds up, so that it meets few shapes; what comes out of the spare rows
 * behind those of the batch means nothing, but buffers must have room for them (rows_max). */
struct ops_step {
    uint32_t n_rows, n_logits;
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

    /* Begin a step: everything below refers to this batch, which is borrowed until the next begin().  *step gets
     * the numbers of rows and logits that the ops are to be called with.  A device copies the batch over, with the
     * work list of attention.  false: what the ops would do was recorded and is queued already; what is left is
     * finish(). */
    bool (*begin)(struct ops_stream *s, const struct batch *b, struct ops_step *step);

    /* Draw where the logits are, with or without logits() recorded, what the device can of `draws`, which are borrowed
     * until finish().  Then .is_drawn of those is set with their results, and logits() has written nothing of their rows.
     * Between the ops of a step and finish().  NULL: the host draws. */
    void (*draw)(struct ops_stream *s, const struct sampler_rows *draws);

    /* End a step: wait until all that is queued is done, and what draw(), logits() and hidden() were to write can be
     * read.  The CPU has nothing to wait for.  ERR_DEVICE: since begin() some op has failed, there is no result,
     * and never will be in this process. */
    bool (*finish)(struct ops_stream *s, struct err *e);

    /* Between steps: has a shape of step come so often that it is worth being recorded?  When nobody waits for a step
     * (is_idle) sooner. */
    bool (*record_is_due)(const struct ops_stream *s, bool is_idle);

    /* Begin to record such a one.  true: the ops that follow, until record_end(), are not run; they must be those of a step
     * of *step with the batch *b, of which only .logit_rows is there, and later steps of its shape then need but begin().
     * Whether that came to pass is the backend's own affair. */
    bool (*record_begin)(struct ops_stream *s, bool is_idle, const struct batch **b,
                         struct ops_step *step);
    void (*record_end)(struct ops_stream *s);

    /* Before the first step: begin to go through steps of the i-th shape, i = 0, 1, .., and load what they need.  true: as
     * record_begin(), and the ops that follow, until rehearse_end(), compute nothing.  false: there is no such shape, and
     * all is loaded.  NULL: there is nothing to load. */
    bool (*rehearse_begin)(struct ops_stream *s, uint32_t i, const struct batch **b,
                           struct ops_step *step);
    /* ERR_DEVICE: something cannot be loaded. */
    bool (*rehearse_end)(struct ops_stream *s, struct err *e);

    /* x[t] = scale * table[token[t] - first] for tokens first .. first + table->rows - 1; the rows of other
     * tokens, whose embedding another rank has, are left alone.
     *   x  [n_rows, table->cols] */
    void (*embed)(struct ops_stream *s, void *x, const struct weight *table, uint32_t first,
                  float scale);

    /* y[t] = norm(x)[t]
     *   x, y  [., dim]; y may be x when norm->rows is NULL */
    void (*rmsnorm)(struct ops_stream *s, void *y, const void *x, uint32_t n_rows,
                    const struct norm *norm, uint32_t dim);

    /* rmsnorm() into host memory as float: the model's last hidden states, for embeddings.  Outside a step too;
     * there after finish(). */
    void (*hidden)(struct ops_stream *s, float *y, const void *x, uint32_t n_rows,
                   const struct norm *norm, uint32_t dim);

    /* x[t,i] += norm(y)[t,i] for the columns i in first .. first + count - 1: what a sub-layer gives,
     * normalised before it joins the residual stream (Gemma 2).
     *   x, y  [n_rows, dim]; norm->rows is NULL */
    void (*add_normed)(struct ops_stream *s, void *x, const void *y, uint32_t n_rows,
                       const struct norm *norm, uint32_t dim, uint32_t first, uint32_t count);

    /* y[t,i] = sum_k w[i,k] * x'[t,k] + bias[i], or that added to y; x' is norm(x), or x when norm is NULL.
     * The rows of n_w matrices with the same columns stand side by side in y: q, k and v are one call.
     *   y  [n_rows, sum of w[].rows], stride y_stride
     *   x  [., cols], not y */
    void (*linear)(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                   const struct norm *norm, const struct weight *w, uint32_t n_w,
                   enum linear_mode mode);

    /* y[t,i] = act(gate(x')[t,i]) * up(x')[t,i], gate and up being linear() with biases.
     *   y  [n_rows, gate->rows], stride y_stride;  gate and up have the same shape
     * silu(a) = a / (1 + exp(-a)): Shazeer 2020, arXiv:2002.05202; gelu by its tanh form: Hendrycks &
     * Gimpel 2016, arXiv:1606.08415. */
    void (*gated)(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                  const struct norm *norm, const struct weight *gate, const struct weight *up,
                  enum activation act);

    /* y[t,i] *= sigmoid(w . x'[t]), i < cols; w has one row. */
    void (*gate_rows)(struct ops_stream *s, void *y, size_t y_stride, uint32_t cols, const void *x,
                      uint32_t n_rows, const struct norm *norm, const struct weight *w);

    /* ---- a mixture of experts: Shazeer et al. 2017, arXiv:1701.06538; Jiang et al. 2024, arXiv:2401.04088
     *
     * route() chooses n_experts_used experts for each row and remembers the pairs (expert, row), ordered by
     * expert, then by row, until the next route().  Their activations y stand in that order, so the rows of
     * one expert are one dense block, and an expert's matrices are read once a step, and only if it was chosen.
     *
     * p = softmax(router(x'[t])); chosen are the largest p, of equals the lower index; their weights are
     * p, or p over the sum of the chosen when normalise.
     *   router  [n_experts, cols] */
    void (*route)(struct ops_stream *s, const void *x, uint32_t n_rows, const struct norm *norm,
                  const struct weight *router, bool normalise);

    /* gated() of each pair, with its expert's matrices.
     *   y         [n_rows * n_experts_used, gate->rows], stride y_stride
     *   gate, up  [n_experts] */
    void (*experts_gated)(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                          const struct norm *norm, const struct weight *gate,
                          const struct weight *up, enum activation act);

    /* x[t,i] += sum over the experts e of row t, ascending, weight[t,e] * (down_e y[pair])[i]
     *   x  [n_rows, down->rows], stride x_stride;  y  [n_rows * n_experts_used, down->cols]
     *   down  [n_experts] */
    void (*experts_down)(struct ops_stream *s, void *x, size_t x_stride, const void *y,
                         const struct weight *down);

    /* linear() into host memory as float, there after finish(), then softcap * tanh(y / softcap) when softcap is not 0:
     * the language model's head. */
    void (*logits)(struct ops_stream *s, float *y, size_t y_stride, const void *x, uint32_t n_rows,
                   const struct norm *norm, const struct weight *w, float softcap);

    /* Normalise each query and key head when norm is not NULL, then turn its pairs (i, i + rope_dim / 2),
     * i < rope_dim / 2, by position * rope_freq[i] and make them longer by rope_amplitude; store the k and v of each
     * row in its slot of its sequence's page, rounded to the pages' type.
     *   qkv  [n_rows, (n_heads + 2 * n_kv_heads) * head_dim]: q heads, k heads, v heads; the q are changed in place,
     *        and what the k are afterwards is the backend's affair
     * Su et al. 2021, arXiv:2104.09864, in the layout of the HuggingFace checkpoints. */
    void (*rope_kv_write)(struct ops_stream *s, void *qkv, const struct head_norm *norm,
                          uint32_t layer);

    /* Causal attention of each row over its sequence's pages, prefill and decode alike:
     *   out[t,h] = sum_p softmax_p(cap(scale * q[t,h] . k[p,g])) v[p,g]
     * with g = h / (n_heads / n_kv_heads), over positions p <= the row's own and, with window > 0,
     * p > own - window.
     *   out  [n_rows, n_heads * head_dim], stride out_stride
     * Online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867; pages: Kwon et al. 2023,
     * arXiv:2309.06180; soft cap: Gemma team 2024, arXiv:2408.00118. */
    void (*attention)(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                      uint32_t layer, const struct attention_shape *shape);

    /* In the last layer, before its attention(): of x and qkv the batch's logit_rows become rows 0 .. n_logits - 1,
     * n_logits > 0, and until the next begin() there are no others.  Nobody asks for what the last layer makes of the rest.
     *   x  [n_rows, dim];  qkv  [n_rows, qkv_dim]
     * NULL: all rows go to the end. */
    void (*keep_logit_rows)(struct ops_stream *s, void *x, uint32_t dim, void *qkv,
                            uint32_t qkv_dim);
};

/* ---- the CPU backend (cpu.c) ---- */

/* From the least to the best.  AVXVNNI is AVX2 with dot products of bytes; AVX512 is F, BW, VL and DQ; AMXINT8 is VNNI and
 * the matrix unit for integers.  AVX512BF16 stands apart: it rounds the input of BF16 matrices, and is VNNI otherwise. */
enum cpu_tier {
    CPU_PLAIN,
    CPU_AVX2,
    CPU_AVXVNNI,
    CPU_AVX512,
    CPU_AVX512VNNI,
    CPU_AMXINT8,
    CPU_AVX512BF16,
    N_CPU_TIERS
};

/* The best tier this machine and operating system allow, none after `cap` ("auto" or a tier's name). */
enum cpu_tier cpu_tier_choose(const char *cap);
const char *cpu_tier_name(enum cpu_tier tier);

/* A stream on `threads` (borrowed until close) and its table.  The tier must be one that cpu_tier_choose() gave. */
const struct ops *ops_cpu_open(enum cpu_tier tier, const struct ops_setup *setup,
                               struct threads *threads, struct ops_stream **stream);

#endif
