/* ops_cuda.c - the CUDA backend: a stream's life, embedding, norms, hidden states (cuda_stream.h has the map). */
#include "gpu-worker/cuda/ops_cuda.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/ops/packing.h"
#include "gpu-worker/ops/rope_table.h"

enum { ALIGNMENT = 256 };

/* ---- launching ---- */

void cuda_launch(struct ops_stream *s, const char *kernel, uint32_t grid_x, uint32_t grid_y,
                 uint32_t threads, uint32_t shared_bytes, const void *args, size_t args_bytes)
{
    struct device_grid grid = { .grid = { grid_x, grid_y, 1 },
                                .block = threads,
                                .shared_bytes = shared_bytes };

    if (grid_x > 0 && grid_y > 0)
        device_launch(&s->stream, device_kernel(s->device, kernel), &grid, args, args_bytes);
}

void cuda_fail(struct ops_stream *s, const struct err *e)
{
    if (s->failed.code == ERR_NONE)
        s->failed = *e;
}

const uint32_t *cuda_norm_rows(const struct ops_stream *s, const struct norm *norm)
{
    if (!norm || !norm->rows)
        return NULL;
    assert(norm->rows == s->batch->logit_rows);
    return cuda_block_at(s, s->block.logit_rows);
}

/* ---- embedding and norms ---- */

static enum row_type row_type_of(enum dtype t)
{
    assert(t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16);
    return t == DTYPE_F32 ? ROW_F32 : t == DTYPE_F16 ? ROW_F16 : ROW_BF16;
}

static const char *embed_packed_kernel(enum dtype t)
{
    return t == DTYPE_I8 ? "embed_i8" : t == DTYPE_I4 ? "embed_i4" : "embed_i4m";
}

static void embed_packed(struct ops_stream *s, float *x, const struct weight *table, uint32_t first,
                         float scale)
{
    struct embed_packed_args a = { .x = x,
                                   .table = table->data,
                                   .tokens = cuda_block_at(s, s->block.tokens),
                                   .x_stride = table->cols,
                                   .cols = table->cols,
                                   .first = first,
                                   .rows = table->rows,
                                   .scale = scale };

    cuda_launch(s, embed_packed_kernel(table->dtype), s->step.n_rows, 1, EMBED_PACKED_THREADS, 0,
                &a, sizeof a);
}

/* Rows that another rank has are zero: the ranks' copies are added up. */
static void cuda_embed(struct ops_stream *s, void *x, const struct weight *table, uint32_t first,
                       float scale)
{
    struct embed_args a = { .x = x,
                            .table = table->data,
                            .tokens = cuda_block_at(s, s->block.tokens),
                            .row_stride = cuda_packing_stride(table->cols),
                            .x_stride = table->cols,
                            .cols = table->cols,
                            .first = first,
                            .rows = table->rows,
                            .scale = scale };

    if (s->exchange)
        device_fill(&s->stream, (cu_ptr)(uintptr_t)x, 0,
                    (size_t)s->step.n_rows * table->cols * sizeof(float));
    if (packing_is_int(table->dtype)) {
        embed_packed(s, x, table, first, scale);
        return;
    }
    a.type = row_type_of(table->dtype);
    cuda_launch(s, "embed", s->step.n_rows, 1, EMBED_THREADS, 0, &a, sizeof a);
}

static void cuda_rmsnorm(struct ops_stream *s, void *y, const void *x, uint32_t n_rows,
                         const struct norm *norm, uint32_t dim)
{
    struct rmsnorm_args a = { .y = y,
                              .x = x,
                              .w = norm->w,
                              .rows = cuda_norm_rows(s, norm),
                              .dim = dim,
                              .y_type = ROW_F32,
                              .eps = norm->eps };

    cuda_launch(s, "rmsnorm", n_rows, 1, RMSNORM_THREADS, 0, &a, sizeof a);
}

/* Through the room and the pinned memory of logits, some rows at a time; waits. */
static void cuda_hidden(struct ops_stream *s, float *y, const void *x, uint32_t n_rows,
                        const struct norm *norm, uint32_t dim)
{
    uint32_t piece = s->setup.logits_max * s->setup.logits_cols / dim;
    struct err e;

    assert(piece > 0 && !norm->rows);
    for (uint32_t t = 0; t < n_rows; t += piece) {
        uint32_t n = n_rows - t < piece ? n_rows - t : piece;
        size_t bytes = (size_t)n * dim * sizeof *y;
        cuda_rmsnorm(s, s->logits, (const float *)x + (size_t)t * dim, n, norm, dim);
        device_copy_out(&s->stream, s->logits_host, (cu_ptr)(uintptr_t)s->logits, bytes);
        if (!device_stream_finish(&s->stream, s->limit_ns, &e)) {
            cuda_fail(s, &e);
            return;
        }
        memcpy(y + (size_t)t * dim, s->logits_host, bytes);
    }
}

static void cuda_add_normed(struct ops_stream *s, void *x, const void *y, uint32_t n_rows,
                            const struct norm *norm, uint32_t dim, uint32_t first, uint32_t count)
{
    struct add_normed_args a = {
        .x = x, .y = y, .w = norm->w, .dim = dim, .first = first, .count = count, .eps = norm->eps
    };

    assert(!norm->rows);
    cuda_launch(s, "add_normed", n_rows, 1, RMSNORM_THREADS, 0, &a, sizeof a);
}

/* ---- memory ---- */

static void *cuda_alloc(struct ops_stream *s, size_t n)
{
    struct err e;
    cu_ptr p;

    if (device_alloc(s->device, &p, n * sizeof(float), &e))
        return (void *)(uintptr_t)p;
    cuda_fail(s, &e);
    return NULL;
}

static void cuda_free(struct ops_stream *s, void *p)
{
    device_free(s->device, (cu_ptr)(uintptr_t)p);
}

uint64_t cuda_input_bytes(const struct ops_stream *s)
{
    return (uint64_t)s->setup.rows_max * cuda_packing_stride(s->setup.cols_max) * sizeof(float);
}

/* Of pairs of rows and experts at least as many columns as a block of gemm_grouped.cu takes. */
uint64_t cuda_gate_up_floats(const struct ops_stream *s)
{
    const struct ops_setup *u = &s->setup;
    uint64_t dense = u->gated_max, sparse = (uint64_t)u->n_experts_used * GEMM_GROUPED_ROWS;

    return (uint64_t)u->rows_max * 2 * (dense > sparse ? dense : sparse);
}

/* A buffer of the stream: where its address goes, and how long it is. */
struct buffer {
    void *at; /* of a pointer */
    uint64_t bytes;
};

enum { BUFFERS_MAX = 32 };

struct buffers {
    struct buffer list[BUFFERS_MAX];
    uint32_t n;
    uint64_t bytes;
};

static void want(struct buffers *b, void *pointer, uint64_t bytes)
{
    assert(b->n < BUFFERS_MAX);
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    b->list[b->n++] = (struct buffer){ pointer, bytes };
    b->bytes += bytes;
}

static void want_for_experts(struct ops_stream *s, struct buffers *b)
{
    uint64_t rows = s->setup.rows_max, pairs = rows * s->setup.n_experts_used;

    want(b, &s->router, rows * (s->setup.n_experts + 1) * sizeof *s->router);
    want(b, &s->chosen, pairs * sizeof *s->chosen);
    want(b, &s->share, pairs * sizeof *s->share);
    want(b, &s->pair_row, pairs * sizeof *s->pair_row);
    want(b, &s->pair_of, pairs * sizeof *s->pair_of);
    want(b, &s->groups, moe_groups_max((uint32_t)pairs, s->setup.n_experts) * sizeof *s->groups);
    want(b, &s->down, pairs * s->setup.expert_down_max * sizeof *s->down);
}

/* Of any product: a matrix has no more rows than these. */
static uint32_t product_rows_max(const struct ops_setup *u)
{
    uint32_t qkv = (u->n_heads + 2 * u->n_kv_heads) * u->head_dim;
    uint32_t most = u->gated_max > qkv ? u->gated_max : qkv;

    most = u->cols_max > most ? u->cols_max : most;
    return u->logits_cols > most ? u->logits_cols : most;
}

static void want_for_w4(struct ops_stream *s, struct buffers *b)
{
    uint32_t blocks = 2 * s->gemv.n_multiprocessors;

    want(b, &s->w4_partial, gemm_w4_partial_bytes(blocks, GEMM_W4_TOKENS_MAX));
    want(b, &s->w4_arrived,
         (uint64_t)gemm_w4_tiles(product_rows_max(&s->setup)) * sizeof(uint32_t));
}

static void want_for_draws(struct ops_stream *s, struct buffers *b)
{
    struct step_draws *d = &s->draws;
    uint64_t rows = s->setup.logits_max;

    want(b, &d->rows_there, rows * sizeof *d->rows_there);
    want(b, &d->edits_there, rows * CUDA_EDITS_A_ROW * sizeof *d->edits_there);
    want(b, &d->choices, rows * sizeof *d->choices);
    want(b, &d->tops, rows * SAMPLING_TOP_MAX * sizeof *d->tops);
    want(b, &d->work, (uint64_t)CUDA_DRAWS_AT_ONCE * s->vocab * sizeof *d->work);
}

static void want_all(struct ops_stream *s, struct buffers *b)
{
    const struct ops_setup *u = &s->setup;
    uint64_t rows = u->rows_max, half = u->rope_dim / 2;
    uint64_t n_high = (u->positions_max + ROPE_LOW - 1) / ROPE_LOW;
    struct attention_limits attention = attention_plan_limits(&s->attention, s->pages_max);

    want(b, &s->block.device, s->block.bytes);
    want(b, &s->rope_low, ROPE_LOW * half * 2 * sizeof(double));
    want(b, &s->rope_high, n_high * half * 2 * sizeof(double));
    want(b, &s->rope_cos, rows * half * sizeof(float));
    want(b, &s->rope_sin, rows * half * sizeof(float));
    want(b, &s->input, cuda_input_bytes(s));
    want(b, &s->gate_up, cuda_gate_up_floats(s) * sizeof(float));
    want(b, &s->logits, (uint64_t)u->logits_max * s->vocab * sizeof(float));
    want(b, &s->weights, (uint64_t)CUDA_WEIGHTS_ELEMENTS * sizeof(uint16_t));
    want(b, &s->partials, attention.partial_bytes);
    want(b, &s->workspace, BLAS_WORKSPACE_BYTES);
    if (u->n_experts > 0)
        want_for_experts(s, b);
    if (s->has_w4)
        want_for_w4(s, b);
    if (s->has_fp8 || s->has_int8) {
        want(b, &s->x_scale, rows * sizeof *s->x_scale);
        want(b, &s->w_scale, product_rows_max(u) * sizeof *s->w_scale);
    }
    if (s->can_draw)
        want_for_draws(s, b);
}

/* One allocation, so that it is there or is not. */
static bool allocate(struct ops_stream *s, struct err *e)
{
    size_t host_cols = s->rank == 0 ? s->vocab : s->setup.logits_cols;
    struct buffers b = { .n = 0 };
    uint64_t at = 0;

    want_all(s, &b);
    if (!device_alloc_patiently(s->device, &s->memory, b.bytes, e))
        return err_wrap(e, "buffers of a step of %u rows", s->setup.rows_max);
    for (uint32_t i = 0; i < b.n; i++) {
        uint64_t address = s->memory + at;
        memcpy(b.list[i].at, &address, sizeof address);
        at += b.list[i].bytes;
    }
    return device_host_alloc(s->device, (void **)&s->block.host, s->block.bytes, e) &&
           device_host_alloc(s->device, (void **)&s->logits_host,
                             s->setup.logits_max * host_cols * sizeof(float), e) &&
           (!s->can_draw || cuda_draws_open(s, e));
}

/* ---- open and close ---- */

static void cuda_close(struct ops_stream *s)
{
    if (!s)
        return;
    cuda_step_fini(s);
    blas_close(s->blas);
    cuda_draws_close(s);
    device_host_free(s->device, s->logits_host);
    device_host_free(s->device, s->block.host);
    device_free(s->device, s->memory);
    device_stream_close(&s->stream);
    free(s);
}

static const struct ops table = {
    .name = "cuda",
    .act_bytes = sizeof(float),
    .alloc = cuda_alloc,
    .free = cuda_free,
    .close = cuda_close,
    .begin = cuda_begin,
    .draw = cuda_draw,
    .finish = cuda_finish,
    .record_is_due = cuda_record_is_due,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .embed = cuda_embed,
    .rmsnorm = cuda_rmsnorm,
    .hidden = cuda_hidden,
    .add_normed = cuda_add_normed,
    .linear = cuda_linear,
    .gated = cuda_gated,
    .gate_rows = cuda_gate_rows,
    .route = cuda_route,
    .experts_gated = cuda_experts_gated,
    .experts_down = cuda_experts_down,
    .logits = cuda_logits,
    .rope_kv_write = cuda_rope_kv_write,
    .attention = cuda_attention,
};

bool ops_cuda_fits(const struct ops_setup *u, struct err *e)
{
    if (u->head_dim % 16 != 0 || u->head_dim > ROPE_HEAD_DIM_MAX)
        return err_set(e, ERR_CONFIG, 0,
                       "heads of %u numbers: the kernels want a multiple of 16, at most %d",
                       u->head_dim, ROPE_HEAD_DIM_MAX);
    if (u->column_unit % 4 != 0)
        return err_set(e, ERR_CONFIG, 0,
                       "buffers of a rank begin and end at multiples of %u numbers: the kernels "
                       "want multiples of 4",
                       u->column_unit);
    if (u->kv.page_tokens % 4 != 0)
        return err_set(e, ERR_CONFIG, 0, "kv_page_tokens %u: the kernels want a multiple of 4",
                       u->kv.page_tokens);
    if (u->positions_max > ATTENTION_POSITIONS_MAX)
        return err_set(e, ERR_CONFIG, 0, "max_model_len %u: the kernels go to %d", u->positions_max,
                       ATTENTION_POSITIONS_MAX);
    if (u->n_experts > MOE_EXPERTS_MAX)
        return err_set(e, ERR_CONFIG, 0, "%u experts: the kernels know %d", u->n_experts,
                       MOE_EXPERTS_MAX);
    return true;
}

/* The same numbers as on the CPU, kept in double on the device. */
static bool send_rope_table(struct ops_stream *s, const struct ops_setup *u, struct err *e)
{
    struct rope_table t;
    size_t pair = (size_t)(s->setup.rope_dim / 2) * 2 * sizeof(double);
    size_t n_high = (u->positions_max + ROPE_LOW - 1) / ROPE_LOW;
    bool ok;

    rope_table_init(&t, u->rope_freq, s->setup.rope_dim / 2, u->positions_max,
                    u->rope_amplitude > 0 ? u->rope_amplitude : 1);
    device_copy_in(&s->stream, (cu_ptr)(uintptr_t)s->rope_low, t.low, ROPE_LOW * pair);
    device_copy_in(&s->stream, (cu_ptr)(uintptr_t)s->rope_high, t.high, n_high * pair);
    if (s->w4_arrived)
        device_fill(&s->stream, (cu_ptr)(uintptr_t)s->w4_arrived, 0,
                    gemm_w4_tiles(product_rows_max(&s->setup)) * sizeof(uint32_t));
    ok = device_stream_finish(&s->stream, s->limit_ns, e);
    rope_table_fini(&t);
    return ok;
}

static enum kv_format kv_format_of(enum dtype t)
{
    assert(t == DTYPE_F16 || t == DTYPE_F32 || t == DTYPE_I8 || t == DTYPE_E4M3);
    return t == DTYPE_F16 ? KV_F16 : t == DTYPE_F32 ? KV_F32 : t == DTYPE_I8 ? KV_I8 : KV_E4M3;
}

uint64_t ops_cuda_page_bytes(const struct ops_setup *u, uint32_t n_layers)
{
    return kv_page_bytes(kv_format_of(u->kv.dtype), u->kv.page_tokens, u->head_dim, n_layers,
                         u->n_kv_heads);
}

/* Everything that follows from the setup and the GPU. */
static void set_up(struct ops_stream *s, const struct ops_setup *setup, uint32_t sm,
                   bool deterministic)
{
    struct ops_setup *u = &s->setup;

    *u = *setup;
    u->rope_dim = u->rope_dim > 0 ? u->rope_dim : u->head_dim;
    s->deterministic = deterministic;
    s->has_w4 = sm >= 80;
    s->has_fp8 = sm >= 89;
    s->vocab = u->vocab_size > 0 ? u->vocab_size : u->logits_cols;
    s->can_draw = s->rank == 0 && u->vocab_size > 0 && s->vocab <= SAMPLING_VOCAB_MAX;
    s->pages_max = (uint64_t)u->seqs_max * u->pages_max;
    s->kv = (struct kv_place){ u->kv.pages, u->kv.page_bytes,  u->n_kv_heads,
                               u->head_dim, u->kv.page_tokens, kv_format_of(u->kv.dtype) };
    s->attention = (struct attention_setup){ .n_heads = u->n_heads,
                                             .n_kv_heads = u->n_kv_heads,
                                             .head_dim = u->head_dim,
                                             .page_tokens = u->kv.page_tokens,
                                             .kv = kv_format_of(u->kv.dtype),
                                             .rows_max = u->rows_max,
                                             .seqs_max = u->seqs_max,
                                             .positions_max = u->positions_max,
                                             .slots_max = ATTENTION_SLOTS,
                                             .tile_rows_min = ATTENTION_TILE_ROWS_MIN };
    if (deterministic || u->kv.dtype == DTYPE_F32 || !attention_has_tiles(&s->attention, sm))
        s->attention.tile_rows_min = ATTENTION_NO_TILES;
    s->attention.is_grouped = u->n_heads / u->n_kv_heads >= ATTENTION_GROUP_MIN &&
                              attention_has_groups(&s->attention, sm);
    cuda_step_sizes(s);
}

uint64_t ops_cuda_bytes(const struct ops_setup *setup)
{
    struct ops_stream *s = mem_zalloc(1, sizeof *s);
    struct buffers b = { .n = 0 };

    s->gemv.n_multiprocessors = 256;
    set_up(s, setup, 90, false);
    want_all(s, &b);
    free(s);
    return b.bytes;
}

static void set_device(struct ops_stream *s, const struct ops_cuda_setup *on)
{
    const struct device_info *info = device_info(on->device);

    s->device = on->device;
    s->exchange = on->exchange;
    s->rank = on->rank;
    s->tp_size = on->exchange ? on->tp_size : 1;
    s->graphs = on->graphs;
    s->limit_ns = on->limit_ns > 0 ? on->limit_ns : CUDA_STEP_LIMIT_NS;
    s->gemv =
        (struct gemv_device){ (uint32_t)info->n_multiprocessors, (uint32_t)info->shared_bytes_max,
                              (uint32_t)info->shared_bytes_multiprocessor };
}

/* Not before sm_75, and not on every GPU since. */
static bool library_has_int8(const struct ops_stream *s)
{
    enum { ROWS = 128, SIDE = 1024 };
    struct blas_gemm g = { .type = BLAS_I8,
                           .m = ROWS,
                           .n = SIDE,
                           .k = SIDE,
                           .x = s->input,
                           .x_stride = SIDE,
                           .w = s->weights,
                           .w_stride = SIDE,
                           .d = s->workspace,
                           .d_stride = SIDE };

    return blas_can(s->blas, &g);
}

const struct ops *ops_cuda_open(const struct ops_cuda_setup *on, const struct ops_setup *setup,
                                struct ops_stream **stream, struct err *e)
{
    struct ops_stream *s;
    struct blas_setup blas = { .workspace_bytes = BLAS_WORKSPACE_BYTES,
                               .deterministic = on->deterministic };

    if (!ops_cuda_fits(setup, e))
        return NULL;
    s = mem_zalloc(1, sizeof *s);
    set_device(s, on);
    set_up(s, setup, (uint32_t)device_info(on->device)->sm, on->deterministic);
    s->has_int8 = on->int8_products && !on->deterministic;
    if (device_stream_open(&s->stream, s->device, 0, e) && allocate(s, e) &&
        send_rope_table(s, setup, e)) {
        blas.workspace = s->workspace;
        s->blas = blas_open(&blas, e);
    }
    if (!s->blas) {
        cuda_close(s);
        return NULL;
    }
    s->has_int8 = s->has_int8 && library_has_int8(s);
    s->setup.rope_freq = NULL;
    *stream = s;
    return &table;
}

bool ops_cuda_has_int8_products(const struct ops_stream *s)
{
    return s->has_int8;
}

struct ops_cuda_counts ops_cuda_counts(const struct ops_stream *s)
{
    return s->counts;
}

struct device_stream *ops_cuda_stream(struct ops_stream *s)
{
    return &s->stream;
}

void ops_cuda_allow_nccl(struct ops_stream *s, bool allow)
{
    s->may_use_nccl = allow;
}
