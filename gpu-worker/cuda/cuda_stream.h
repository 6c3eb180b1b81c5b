/* cuda_stream.h - what the files of the CUDA backend share: the stream and its memory.
 *
 *   ops_cuda.c            a stream's life, embedding, norms, hidden states
 *   cuda_step.c           a step sent over, its graph, its end
 *   ops_cuda_draw.c       tokens drawn, logits that are not drawn from
 *   ops_cuda_linear.c     matrix products
 *   ops_cuda_moe.c        mixtures of experts
 *   ops_cuda_attention.c  rope, KV pages, attention
 *
 * Nothing here is allocated after the stream is open.  A launch that fails is the device's fault (device.h) and makes all
 * that follow do nothing; finish() tells. */
#ifndef LLMD_GPU_WORKER_CUDA_CUDA_STREAM_H
#define LLMD_GPU_WORKER_CUDA_CUDA_STREAM_H

#include "gpu-worker/cuda/attention_plan.h"
#include "gpu-worker/cuda/blas.h"
#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/cuda/kernels/gemv.h"
#include "gpu-worker/cuda/ops_cuda.h"
#include "gpu-worker/cuda/sampling_rows.h"

enum {
    CUDA_BUCKETS = 11,
    CUDA_GEMV_ROWS = 8,             /* a product of so many rows goes to gemv.cu */
    CUDA_INT8_ROWS = 64,            /* one of more is made in int8, where the setting wants it .. */
    CUDA_INT8_COLS_MAX = 128 << 10, /* .. and its sums fit int32 */
    CUDA_WEIGHTS_ELEMENTS = 32 << 20, /* f16 room for dequantised rows of a matrix */
    CUDA_DRAWS_AT_ONCE = 64,          /* rows of a launch, each with a row of scratch */
    CUDA_EDITS_A_ROW = 1024,          /* changes of single logits; rows with more are the host's */
};

/* What a step needs on the device, in pinned memory and over there: written by begin(), sent in one copy.
 * Places are bytes from the beginning, multiples of 16. */
struct step_block {
    char *host;
    cu_ptr device;
    size_t tokens;     /* int32 [rows_max] */
    size_t positions;  /* uint32 [rows_max] */
    size_t kv_pages;   /* uint32 [rows_max], KV_WRITE_IDLE for spare rows */
    size_t kv_slots;   /* uint32 [rows_max] */
    size_t logit_rows; /* uint32 [logits_max] */
    size_t attention;  /* struct attention_header and what belongs to it */
    size_t bytes;
};

/* Where rows of logits go when the step is done. */
struct step_output {
    float *to;
    size_t stride;
    uint32_t cols;
};

/* Draws of a step on the device: rows and edits go over, choices and tops come back.  Of pinned memory: what .rows
 * points to, choices_host, tops_host.  All of it only with can_draw: on rank 0. */
struct step_draws {
    struct sampling_rows rows;            /* of the step; [logits_max] */
    struct sampler_row **of;              /* [logits_max] whose draw each of them is */
    bool *is_drawn;                       /* [logits_max] by row of logits */
    struct sampling_choice *choices_host; /* [logits_max] */
    struct sampling_top *tops_host;       /* [logits_max, SAMPLING_TOP_MAX] */
    void *host;                           /* one allocation */
    struct sampling_row *rows_there;      /* the same on the device */
    struct sampling_edit *edits_there;
    struct sampling_choice *choices;
    struct sampling_top *tops;
    float *work; /* [CUDA_DRAWS_AT_ONCE, vocab] */
};

/* Decode steps of up to `rows` rows. */
struct cuda_bucket {
    uint32_t rows;
    uint32_t n_seen;
    bool is_refused;           /* the driver would not record it: never again */
    struct device_graph graph; /* .exec NULL: none yet */
    struct step_output output;
};

struct ops_stream {
    struct device *device;
    struct device_stream stream;
    struct exchange *exchange; /* or NULL */
    uint32_t rank, tp_size;
    bool may_use_nccl;
    struct blas *blas;
    struct ops_setup setup; /* .rope_freq NULL */
    bool deterministic;
    enum ops_cuda_graphs graphs;
    uint64_t limit_ns;
    struct gemv_device gemv;
    bool has_w4;       /* the GPU has what gemm_w4.cu and gemm_grouped.cu are made of */
    bool has_fp8;      /* and cuBLASLt products of E4M3 */
    bool has_int8;     /* and of int8, and they are wanted */
    struct err failed; /* the first failure that is not the device's own; .code ERR_NONE = none */
    struct ops_cuda_counts counts;

    /* the step */
    const struct batch *batch;
    struct ops_step step; /* rows and logits that are computed */
    struct step_block block;
    struct step_output output; /* .cols 0: no logits */
    uint32_t vocab;            /* columns of all ranks' logits */
    bool can_draw;
    struct step_draws draws;
    struct cuda_bucket buckets[CUDA_BUCKETS];
    struct cuda_bucket *bucket; /* of a decode step, else NULL */
    struct batch recorded;      /* what record_begin() gives out: no rows, but places of logits */
    size_t n_launches;          /* of attention */
    struct attention_setup attention;
    struct attention_launch launches[ATTENTION_LAUNCHES];
    uint64_t pages_max; /* of a batch */
    struct kv_place kv;

    /* device memory, one allocation */
    cu_ptr memory;
    double *rope_low, *rope_high; /* kernels/elementwise.h */
    float *rope_cos, *rope_sin;   /* [rows_max, rope_dim / 2] */
    void *input;                  /* [rows_max, cols_max] of a product, in any type */
    float *x_scale, *w_scale;     /* of 8-bit products: [rows_max], [rows of any matrix] */
    float *gate_up;    /* [rows_max, 2 * gated_max], or for experts: cuda_gate_up_floats() */
    float *logits;     /* [logits_max, vocab] */
    uint16_t *weights; /* [CUDA_WEIGHTS_ELEMENTS] a matrix as f16 */
    float *w4_partial; /* kernels/gemm.h */
    uint32_t *w4_arrived;
    float *partials;                       /* of attention */
    void *workspace;                       /* of cuBLASLt */
    float *router;                         /* [rows_max, n_experts] */
    uint32_t *chosen, *pair_row, *pair_of; /* [rows_max * n_experts_used] */
    float *share;                          /* [rows_max * n_experts_used] */
    struct moe_group *groups;
    float *down;          /* [rows_max * n_experts_used, expert_down_max] */
    uint32_t routed_rows; /* of the last route() */
    uint32_t group_rows;  /* pairs that its groups have at most; 0: they are not made yet */
    uint32_t n_groups;
    float *logits_host; /* pinned: [logits_max, vocab]; rank > 0: logits_cols */
};

/* ---- launching ---- */

/* Queue one kernel.  grid: x, y; nothing is launched when either is 0. */
void cuda_launch(struct ops_stream *s, const char *kernel, uint32_t grid_x, uint32_t grid_y,
                 uint32_t threads, uint32_t shared_bytes, const void *args, size_t args_bytes);

/* Remember a failure of something that is not the driver. */
void cuda_fail(struct ops_stream *s, const struct err *e);

/* Where an array of the step's block is on the device. */
static inline const void *cuda_block_at(const struct ops_stream *s, size_t place)
{
    return (const void *)(uintptr_t)(s->block.device + place);
}

/* norm->rows for a kernel: NULL, or the batch's logit_rows over there. */
const uint32_t *cuda_norm_rows(const struct ops_stream *s, const struct norm *norm);

/* ---- the step (cuda_step.c) ---- */

bool cuda_begin(struct ops_stream *s, const struct batch *b, struct ops_step *step);
bool cuda_finish(struct ops_stream *s, struct err *e);
bool cuda_record_is_due(const struct ops_stream *s, bool is_idle);
bool cuda_record_begin(struct ops_stream *s, bool is_idle, const struct batch **b,
                       struct ops_step *step);
void cuda_record_end(struct ops_stream *s);

/* Its part of a stream's life.  Bytes of the block and the places in it are set by the setup. */
void cuda_step_sizes(struct ops_stream *s);
void cuda_step_fini(struct ops_stream *s);

/* ---- products ---- */

/* linear() with gemv.cu, whatever the number of rows. */
void cuda_gemv(struct ops_stream *s, float *y, size_t y_stride, const float *x, uint32_t n_rows,
               const struct norm *norm, const struct weight *w, uint32_t n_w, enum gemv_mode mode,
               float softcap);

/* One launch of it; n_groups: of a->groups, or 0. */
void cuda_gemv_launch(struct ops_stream *s, struct gemv_args *a, enum dtype dtype,
                      uint32_t n_groups);

/* A number format as the kernels name it: enum gemv_format. */
uint32_t cuda_gemv_format(enum dtype t);

/* What the input of a product was made. */
enum input_type {
    INPUT_F32 = ROW_F32,
    INPUT_F16 = ROW_F16,
    INPUT_BF16 = ROW_BF16,
    INPUT_E4M3, /* with s->x_scale */
    INPUT_I8,   /* the same */
    INPUT_NONE,
};

/* What the input of a matrix must be for the tensor cores (E4M3: where it is made f16), and n_rows of norm(x), or of x,
 * in a type: in s->input, which has room for cuda_input_bytes(), or x itself.  Rows have no gaps. */
enum input_type cuda_input_type(enum dtype t);
const void *cuda_prepare(struct ops_stream *s, enum input_type type, const float *x,
                         uint32_t n_rows, const struct norm *norm, uint32_t cols);
uint64_t cuda_input_bytes(const struct ops_stream *s);

uint64_t cuda_gate_up_floats(const struct ops_stream *s);

/* y = act(gate) * up of rows in s->gate_up that have `cols` of gate, then `cols` of up. */
void cuda_join_gate(struct ops_stream *s, float *y, size_t y_stride, uint32_t n_rows, uint32_t cols,
                    enum activation act);

void cuda_linear(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                 const struct norm *norm, const struct weight *w, uint32_t n_w,
                 enum linear_mode mode);
void cuda_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                const struct norm *norm, const struct weight *gate, const struct weight *up,
                enum activation act);
void cuda_logits(struct ops_stream *s, float *y, size_t y_stride, const void *x, uint32_t n_rows,
                 const struct norm *norm, const struct weight *w, float softcap);
void cuda_gate_rows(struct ops_stream *s, void *y, size_t y_stride, uint32_t cols, const void *x,
                    uint32_t n_rows, const struct norm *norm, const struct weight *w);

/* ---- draws (ops_cuda_draw.c) ---- */

void cuda_draw(struct ops_stream *s, const struct sampler_rows *draws);

/* Queue the way back of the logits that nobody drew from, and once they are here hand them and the draws over. */
void cuda_fetch_logits(struct ops_stream *s);
void cuda_hand_over(struct ops_stream *s);

/* Forget the draws of the step before. */
void cuda_draws_begin(struct ops_stream *s);

/* Their memory of the host, once that of the device is there.  ERR_DEVICE. */
bool cuda_draws_open(struct ops_stream *s, struct err *e);
void cuda_draws_close(struct ops_stream *s);

/* ---- mixtures of experts ---- */

void cuda_route(struct ops_stream *s, const void *x, uint32_t n_rows, const struct norm *norm,
                const struct weight *router, bool normalise);
void cuda_experts_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                        const struct norm *norm, const struct weight *gate, const struct weight *up,
                        enum activation act);
void cuda_experts_down(struct ops_stream *s, void *x, size_t x_stride, const void *y,
                       const struct weight *down);

/* ---- attention ---- */

void cuda_rope_kv_write(struct ops_stream *s, void *qkv, const struct head_norm *norm,
                        uint32_t layer);
void cuda_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                    uint32_t layer, const struct attention_shape *shape);

#endif
