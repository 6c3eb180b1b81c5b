/* cpu_stream.h - what the files of the CPU backend share: the stream, and how work is split.
 *
 *   cpu.c            a stream's life, the step, embedding and norm
 *   cpu_linear.c     matrix products
 *   cpu_moe.c        mixtures of experts
 *   cpu_attention.c  rope, KV pages, attention
 *
 * Each op is split over the compute threads by output rows or heads, never along a sum.  A step of a small
 * model is some fifty short ops, so what is not worth a second thread's attention stays on the caller's:
 * GRAIN is the work below which a share is not split further. */
#ifndef LLMD_GPU_WORKER_OPS_CPU_STREAM_H
#define LLMD_GPU_WORKER_OPS_CPU_STREAM_H

#include "gpu-worker/ops/attention_units.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/ops/rope_table.h"

enum { PARTIAL_FLOATS = 1 << 22 };

struct row_place {
    const struct batch_seq *seq;
    uint32_t position;
};

struct ops_stream {
    const struct cpu_kernels *kernels;
    const struct linear_kernel *const *linear; /* [N_DTYPES] */
    struct threads *threads;
    bool fetches_far; /* linear_job.fetches_far */
    struct ops_setup setup;
    struct rope_table rope;
    const struct batch *batch;
    struct batch kept;             /* `batch` once only rows with logits are left */
    struct batch_seq *kept_seqs;   /* [rows_max] one a row */
    struct row_place *rows;        /* [rows_max] */
    float *rope_cos, *rope_sin;    /* [rows_max, head_dim / 2] */
    void *prepared[N_INPUT_FORMS]; /* the input of a product: [rows_max, cols_max] of 4 bytes */
    float *gate_up;                /* scratch: rows_max * 2 * gated_max, whole panels */
    struct attention_order order;
    float *partials;           /* [PARTIAL_FLOATS] sums of splits that several threads compute */
    struct cpu_routes *routes; /* cpu_moe.c's own; NULL when the model has no experts */
};

/* ---- splitting ---- */

/* n units of work, cut into shares of `share` units. */
struct split {
    uint32_t n, share;
};

/* n units, `cost` multiply-adds (or a few elements) each. */
struct split cpu_split(const struct ops_stream *s, uint32_t n, uint64_t cost);

static inline uint32_t split_count(struct split p)
{
    return (p.n + p.share - 1) / p.share;
}

static inline uint32_t split_begin(struct split p, uint32_t i)
{
    return i * p.share;
}

static inline uint32_t split_end(struct split p, uint32_t i)
{
    return p.n - i * p.share < p.share ? p.n : (i + 1) * p.share;
}

/* ---- products ---- */

/* x' of ops.h for matrices of that type: in s->prepared, or x itself when it is what they read. */
const void *cpu_prepare(struct ops_stream *s, enum dtype dtype, const float *x, uint32_t n_rows,
                        const struct norm *norm, uint32_t cols);

/* ---- ops (ops.h) ---- */

void cpu_rmsnorm(struct ops_stream *s, void *y, const void *x, uint32_t n_rows,
                 const struct norm *norm, uint32_t dim);
void cpu_add_normed(struct ops_stream *s, void *x, const void *y, uint32_t n_rows,
                    const struct norm *norm, uint32_t dim, uint32_t first, uint32_t count);
void cpu_linear(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                const struct norm *norm, const struct weight *w, uint32_t n_w,
                enum linear_mode mode);
void cpu_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
               const struct norm *norm, const struct weight *gate, const struct weight *up,
               enum activation act);
void cpu_logits(struct ops_stream *s, float *y, size_t y_stride, const void *x, uint32_t n_rows,
                const struct norm *norm, const struct weight *w, float softcap);
void cpu_gate_rows(struct ops_stream *s, void *y, size_t y_stride, uint32_t cols, const void *x,
                   uint32_t n_rows, const struct norm *norm, const struct weight *w);
void cpu_route(struct ops_stream *s, const void *x, uint32_t n_rows, const struct norm *norm,
               const struct weight *router, bool normalise);
void cpu_experts_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                       const struct norm *norm, const struct weight *gate, const struct weight *up,
                       enum activation act);
void cpu_experts_down(struct ops_stream *s, void *x, size_t x_stride, const void *y,
                      const struct weight *down);
void cpu_rope_kv_write(struct ops_stream *s, void *qkv, const struct head_norm *norm,
                       uint32_t layer);
void cpu_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                   uint32_t layer, const struct attention_shape *shape);

/* cpu_moe.c's part of a stream's life. */
struct cpu_routes *cpu_routes_new(const struct ops_setup *setup); /* NULL: it has no experts */
void cpu_routes_free(struct cpu_routes *r);                       /* NULL is fine */

#endif
