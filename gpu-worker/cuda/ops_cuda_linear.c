/* ops_cuda_linear.c - matrix products: which kernel or library makes which.
 *
 *   up to 8 rows             gemv.cu: norm, bias, sum, gate, cap in one launch for q, k and v, or gate and up
 *   more, 16 and 32 bits     the input in the type of the weights, cuBLASLt, a bias in a launch of its own
 *   9 to 64, I4 and I4M      gemm_w4.cu
 *   more, E4M3               where the GPU has it: the input's rows as E4M3 with a scale each, cuBLASLt, which takes
 *                            the scales (sm_90) or leaves them to w8a8.cu; else as integers
 *   more than 64, I8         where it is wanted and the matrix is not the head: the input's rows and the matrix, by pieces,
 *                            in int8 with a scale a row (w8a8.cu), cuBLASLt
 *   more, integers           the matrix as f16 by pieces (dequantise.cu), cuBLASLt
 *   deterministic            gemv.cu, always: a row's sums do not depend on how many rows there are
 *
 * What the library's alignment does not allow, and bfloat16 before sm_80, goes to gemv.cu too, which takes anything. */
#include <assert.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/cuda/exchange.h"
#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/ops/packing.h"

/* ---- few rows ---- */

uint32_t cuda_gemv_format(enum dtype t)
{
    static const enum gemv_format formats[N_DTYPES] = {
        [DTYPE_F32] = GEMV_F32,   [DTYPE_F16] = GEMV_F16, [DTYPE_BF16] = GEMV_BF16,
        [DTYPE_E4M3] = GEMV_E4M3, [DTYPE_I8] = GEMV_I8,   [DTYPE_I4] = GEMV_I4,
        [DTYPE_I4M] = GEMV_I4M,
    };

    assert(formats[t] != GEMV_F32 || t == DTYPE_F32);
    return formats[t];
}

void cuda_gemv_launch(struct ops_stream *s, struct gemv_args *a, enum dtype dtype,
                      uint32_t n_groups)
{
    struct gemv_launch l = gemv_launch(a, cuda_gemv_format(dtype), n_groups, &s->gemv);

    cuda_launch(s, l.kernel, l.grid_x, l.grid_y, GEMV_THREADS, l.shared_bytes, a, sizeof *a);
}

static struct gemv_args gemv_args_of(const struct ops_stream *s, const float *x, uint32_t n_rows,
                                     const struct norm *norm, const struct weight *w)
{
    return (struct gemv_args){ .x = x,
                               .norm = norm ? norm->w : NULL,
                               .rows = cuda_norm_rows(s, norm),
                               .x_stride = w->cols,
                               .n_rows = n_rows,
                               .cols = w->cols,
                               .eps = norm ? norm->eps : 0 };
}

/* One launch for each run of matrices of one format. */
void cuda_gemv(struct ops_stream *s, float *y, size_t y_stride, const float *x, uint32_t n_rows,
               const struct norm *norm, const struct weight *w, uint32_t n_w, enum gemv_mode mode,
               float softcap)
{
    struct gemv_args a = gemv_args_of(s, x, n_rows, norm, w);
    uint32_t column = 0;

    assert(n_w <= GEMV_MATRICES_MAX);
    a.y = y;
    a.y_stride = y_stride;
    a.mode = mode;
    a.softcap = softcap;
    for (uint32_t m = 0; m < n_w; m++) {
        a.w[a.n_w++] = (struct gemv_matrix){
            .data = w[m].data, .bias = w[m].bias, .rows = w[m].rows, .column = column
        };
        column += w[m].rows;
        if (m + 1 == n_w || w[m + 1].dtype != w[m].dtype) {
            cuda_gemv_launch(s, &a, w[m].dtype, 0);
            a.n_w = 0;
        }
    }
}

/* ---- many rows ---- */

/* A product of prepared input with one matrix. */
struct product {
    float *y;
    size_t y_stride;
    const void *x; /* [n_rows, cols] of `type` */
    enum input_type type;
    uint32_t n_rows;
    const struct weight *w;
    bool add;
    bool is_head;
};

/* The matrix is made f16 before it is multiplied. */
static bool is_dequantised(enum dtype t)
{
    return packing_is_int(t) || t == DTYPE_E4M3;
}

enum input_type cuda_input_type(enum dtype t)
{
    return t == DTYPE_F32 ? INPUT_F32 : t == DTYPE_BF16 ? INPUT_BF16 : INPUT_F16;
}

static enum blas_type blas_type_of(enum input_type t)
{
    static const enum blas_type types[] = { [INPUT_F32] = BLAS_F32,
                                            [INPUT_F16] = BLAS_F16,
                                            [INPUT_BF16] = BLAS_BF16,
                                            [INPUT_E4M3] = BLAS_F8E4M3 };

    return types[t];
}

/* x' in 8 bits, in s->input, and the rows' scales in s->x_scale. */
static const void *prepare_codes(struct ops_stream *s, enum input_type type, const float *x,
                                 uint32_t n_rows, const struct norm *norm, uint32_t cols)
{
    struct row_quantise_args a = { .q = s->input,
                                   .scale = s->x_scale,
                                   .x = x,
                                   .norm = norm ? norm->w : NULL,
                                   .rows = cuda_norm_rows(s, norm),
                                   .cols = cols,
                                   .eps = norm ? norm->eps : 0 };

    assert(n_rows <= s->setup.rows_max && cols <= s->setup.cols_max);
    cuda_launch(s, type == INPUT_I8 ? "w8a8_quantise" : "fp8_quantise", n_rows, 1, W8A8_THREADS, 0,
                &a, sizeof a);
    return s->input;
}

const void *cuda_prepare(struct ops_stream *s, enum input_type type, const float *x,
                         uint32_t n_rows, const struct norm *norm, uint32_t cols)
{
    struct convert_args c = { .y = s->input,
                              .x = x,
                              .y_stride = cols,
                              .x_stride = cols,
                              .cols = cols,
                              .y_cols = cols,
                              .y_type = (uint32_t)type };
    struct rmsnorm_args n = { .y = s->input, .x = x, .dim = cols, .y_type = (uint32_t)type };

    if (type == INPUT_E4M3 || type == INPUT_I8)
        return prepare_codes(s, type, x, n_rows, norm, cols);
    assert((uint64_t)n_rows * cols * (type == INPUT_F32 ? 4 : 2) <= cuda_input_bytes(s));
    if (norm) {
        n.w = norm->w;
        n.rows = cuda_norm_rows(s, norm);
        n.eps = norm->eps;
        cuda_launch(s, "rmsnorm", n_rows, 1, RMSNORM_THREADS, 0, &n, sizeof n);
    } else if (type == INPUT_F32)
        return x;
    else
        cuda_launch(s, "convert", elements_grid_x(cols), n_rows, ELEMENTS_THREADS, 0, &c, sizeof c);
    return s->input;
}

static void add_bias(struct ops_stream *s, const struct product *p)
{
    struct add_rows_args a = {
        .y = p->y, .x = p->w->bias, .y_stride = p->y_stride, .x_stride = 0, .cols = p->w->rows
    };

    if (p->w->bias)
        cuda_launch(s, "add_rows", elements_grid_x(a.cols), p->n_rows, ELEMENTS_THREADS, 0, &a,
                    sizeof a);
}

/* Rows first .. first + n - 1 of the matrix, which lie at w as plain rows. */
static void run_blas(struct ops_stream *s, const struct product *p, const void *w, uint32_t first,
                     uint32_t n)
{
    uint32_t cols = p->w->cols;
    struct blas_gemm g = { .type = blas_type_of(p->type),
                           .m = p->n_rows,
                           .n = n,
                           .k = cols,
                           .x = p->x,
                           .x_stride = cols,
                           .w = w,
                           .w_stride = cuda_packing_stride(cols),
                           .d = p->y + first,
                           .d_stride = p->y_stride,
                           .add = p->add };

    blas_gemm(s->blas, &s->stream, &g);
}

static const char *dequantise_kernel(enum dtype t)
{
    return t == DTYPE_I8 ? "dequantise_i8" : t == DTYPE_I4 ? "dequantise_i4" : "dequantise_i4m";
}

static void dequantise(struct ops_stream *s, enum dtype t, const struct dequantise_args *a)
{
    if (t == DTYPE_E4M3)
        cuda_launch(s, "dequantise_e4m3", dequantise_e4m3_grid(a->rows, a->cols), 1,
                    DEQUANTISE_THREADS, 0, a, sizeof *a);
    else
        cuda_launch(s, dequantise_kernel(t), dequantise_grid_x(a->cols), dequantise_grid_y(a->rows),
                    DEQUANTISE_THREADS, 0, a, sizeof *a);
}

/* By pieces of output rows that fit the room, whole panels each. */
static void run_dequantised(struct ops_stream *s, const struct product *p)
{
    const struct weight *w = p->w;
    uint32_t stride = cuda_packing_stride(w->cols), height = cuda_packing_panel_rows(w->dtype);
    uint32_t piece = CUDA_WEIGHTS_ELEMENTS / stride / height * height;
    size_t panel_bytes = cuda_packing_panel_bytes(w->dtype, w->cols);

    assert(piece > 0);
    for (uint32_t first = 0; first < w->rows; first += piece) {
        struct dequantise_args a = { .out = s->weights,
                                     .data = (const char *)w->data + first / height * panel_bytes,
                                     .out_stride = stride,
                                     .rows = w->rows - first < piece ? w->rows - first : piece,
                                     .cols = w->cols };
        dequantise(s, w->dtype, &a);
        run_blas(s, p, s->weights, first, a.rows);
    }
}

/* ---- 8 bits on both sides ---- */

/* Where the library's sums go that have their scales still to come: y, or, when y is to be kept, behind the input's
 * codes, which take a quarter of its room at most.  NULL: there is no room. */
static void *unscaled_sums(const struct ops_stream *s, const struct product *p, size_t *stride)
{
    size_t codes = (size_t)p->n_rows * p->w->cols, bytes = (size_t)p->n_rows * p->w->rows * 4;
    size_t room = (size_t)s->setup.rows_max * cuda_packing_stride(s->setup.cols_max) * 4;

    *stride = p->add ? p->w->rows : p->y_stride;
    if (!p->add)
        return p->y;
    return codes + bytes <= room ? (char *)s->input + codes : NULL;
}

/* ---- E4M3 ---- */

static struct blas_gemm fp8_gemm(const struct ops_stream *s, const struct product *p,
                                 enum blas_scaling scaling)
{
    bool outer = scaling == BLAS_SCALE_OUTER;
    struct blas_gemm g = { .type = BLAS_F8E4M3,
                           .m = p->n_rows,
                           .n = p->w->rows,
                           .k = p->w->cols,
                           .x = s->input,
                           .x_stride = p->w->cols,
                           .w = p->w->data,
                           .w_stride = e4m3_row_bytes(p->w->cols),
                           .d = p->y,
                           .d_stride = p->y_stride,
                           .add = outer && p->add,
                           .scaling = scaling,
                           .x_scale = outer ? s->x_scale : NULL,
                           .w_scale = outer ? s->w_scale : NULL };

    if (!outer)
        g.d = unscaled_sums(s, p, &g.d_stride);
    return g;
}

/* *g becomes the product as this GPU's library can make it. */
static bool find_fp8_gemm(const struct ops_stream *s, const struct product *p, struct blas_gemm *g)
{
    *g = fp8_gemm(s, p, BLAS_SCALE_OUTER);
    if (blas_can(s->blas, g))
        return true;
    *g = fp8_gemm(s, p, BLAS_SCALE_ONE);
    return g->d && blas_can(s->blas, g);
}

static bool is_for_fp8(const struct ops_stream *s, const struct product *p)
{
    struct blas_gemm g;

    return s->has_fp8 && p->w->dtype == DTYPE_E4M3 && p->w->rows % 16 == 0 &&
           p->w->cols % 16 == 0 && find_fp8_gemm(s, p, &g);
}

static void finish_fp8(struct ops_stream *s, const struct product *p, const struct blas_gemm *g)
{
    struct fp8_finish_args a = { .y = p->y,
                                 .sums = g->d,
                                 .x_scale = s->x_scale,
                                 .w_scale = s->w_scale,
                                 .bias = p->w->bias,
                                 .y_stride = p->y_stride,
                                 .sums_stride = g->d_stride,
                                 .rows = p->w->rows,
                                 .add = p->add };

    cuda_launch(s, "fp8_finish", w8a8_finish_grid_x(a.rows), p->n_rows, W8A8_THREADS, 0, &a,
                sizeof a);
}

static void run_fp8(struct ops_stream *s, const struct product *p)
{
    struct fp8_scales_args scales = {
        .scale = s->w_scale, .data = p->w->data, .rows = p->w->rows, .cols = p->w->cols
    };
    struct blas_gemm g;
    bool found = find_fp8_gemm(s, p, &g);

    assert(found);
    cuda_launch(s, "fp8_scales", w8a8_finish_grid_x(scales.rows), 1, W8A8_THREADS, 0, &scales,
                sizeof scales);
    blas_gemm(s->blas, &s->stream, &g);
    if (g.scaling == BLAS_SCALE_OUTER)
        add_bias(s, p);
    else
        finish_fp8(s, p, &g);
}

/* ---- int8 ---- */

/* Output rows whose int8 fit the room for a matrix, whole panels. */
static uint32_t int8_piece(const struct weight *w)
{
    uint32_t height = cuda_packing_panel_rows(w->dtype);

    return (uint32_t)(CUDA_WEIGHTS_ELEMENTS * sizeof(uint16_t)) / w->cols / height * height;
}

/* The piece that begins with row `first`. */
static struct blas_gemm int8_gemm(const struct ops_stream *s, const struct product *p,
                                  uint32_t first)
{
    uint32_t cols = p->w->cols, left = p->w->rows - first, piece = int8_piece(p->w);
    struct blas_gemm g = { .type = BLAS_I8,
                           .m = p->n_rows,
                           .n = left < piece ? left : piece,
                           .k = cols,
                           .x = s->input,
                           .x_stride = cols,
                           .w = s->weights,
                           .w_stride = cols };
    int32_t *sums = unscaled_sums(s, p, &g.d_stride);

    g.d = sums ? sums + first : NULL;
    return g;
}

static bool is_for_int8(const struct ops_stream *s, const struct product *p)
{
    struct blas_gemm g;

    if (!s->has_int8 || p->is_head || p->w->dtype != DTYPE_I8 || p->n_rows <= CUDA_INT8_ROWS ||
        p->w->cols % 16 != 0 || p->w->cols > CUDA_INT8_COLS_MAX)
        return false;
    g = int8_gemm(s, p, 0);
    return g.d && blas_can(s->blas, &g);
}

static void finish_int8(struct ops_stream *s, const struct product *p)
{
    struct w8a8_finish_args a = { .y = p->y,
                                  .x_scale = s->x_scale,
                                  .w_scale = s->w_scale,
                                  .bias = p->w->bias,
                                  .y_stride = p->y_stride,
                                  .rows = p->w->rows,
                                  .add = p->add };
    size_t stride;

    a.sums = unscaled_sums(s, p, &stride);
    a.sums_stride = stride;
    cuda_launch(s, "w8a8_finish", w8a8_finish_grid_x(a.rows), p->n_rows, W8A8_THREADS, 0, &a,
                sizeof a);
}

/* A second copy of the weights is not kept: to make it moves less than run_dequantised() does for f16. */
static void run_int8(struct ops_stream *s, const struct product *p)
{
    const struct weight *w = p->w;
    uint32_t height = cuda_packing_panel_rows(w->dtype), piece = int8_piece(w);
    size_t panel_bytes = cuda_packing_panel_bytes(w->dtype, w->cols);

    assert(piece > 0);
    for (uint32_t first = 0; first < w->rows; first += piece) {
        struct blas_gemm g = int8_gemm(s, p, first);
        struct requantise_args a = { .out = (int8_t *)s->weights,
                                     .scale = s->w_scale + first,
                                     .data = (const char *)w->data + first / height * panel_bytes,
                                     .out_stride = w->cols,
                                     .rows = g.n,
                                     .cols = w->cols };
        cuda_launch(s, "requantise_i8", dequantise_grid_y(a.rows), 1, DEQUANTISE_THREADS, 0, &a,
                    sizeof a);
        blas_gemm(s->blas, &s->stream, &g);
    }
    finish_int8(s, p);
}

/* ---- 4 bits ---- */

static void run_w4(struct ops_stream *s, const struct product *p)
{
    const struct weight *w = p->w;
    uint32_t slots = gemm_w4_slots(p->n_rows);
    struct gemm_w4_args a = { .y = p->y,
                              .x = p->x,
                              .w = w->data,
                              .bias = w->bias,
                              .partial = s->w4_partial,
                              .arrived = s->w4_arrived,
                              .y_stride = p->y_stride,
                              .x_stride = w->cols,
                              .n_rows = p->n_rows,
                              .rows = w->rows,
                              .cols = w->cols,
                              .add = p->add };

    cuda_launch(s, gemm_w4_kernel(w->dtype == DTYPE_I4M, slots),
                gemm_w4_grid(w->rows, w->cols, s->gemv.n_multiprocessors), 1, GEMM_W4_THREADS,
                gemm_w4_shared_bytes(slots), &a, sizeof a);
}

/* ---- which ---- */

static void run_product(struct ops_stream *s, const struct product *p)
{
    enum dtype t = p->w->dtype;

    if ((t == DTYPE_I4 || t == DTYPE_I4M) && s->has_w4 && p->n_rows <= GEMM_W4_TOKENS_MAX) {
        run_w4(s, p);
        return;
    }
    if (p->type == INPUT_E4M3) {
        run_fp8(s, p);
        return;
    }
    if (p->type == INPUT_I8) {
        run_int8(s, p);
        return;
    }
    if (is_dequantised(t))
        run_dequantised(s, p);
    else
        run_blas(s, p, p->w->data, 0, p->w->rows);
    add_bias(s, p);
}

/* What the input of the product must be. */
static enum input_type input_type(const struct ops_stream *s, const struct product *p)
{
    return is_for_fp8(s, p)    ? INPUT_E4M3
           : is_for_int8(s, p) ? INPUT_I8
                               : cuda_input_type(p->w->dtype);
}

/* Whether the library may have it: 16-byte rows, and columns of y that begin on 16 bytes. */
static bool is_aligned(const float *y, size_t y_stride, const struct weight *w, uint32_t n_w)
{
    bool ok = (uintptr_t)y % 16 == 0 && y_stride % 4 == 0 && w[0].cols % 8 == 0;

    for (uint32_t m = 0; m < n_w; m++)
        ok = ok && w[m].rows % 4 == 0;
    return ok;
}

/* The library multiplies bfloat16 where the tensor cores do: from sm_80 on, as gemm_w4.cu. */
static bool has_type(const struct ops_stream *s, const struct weight *w, uint32_t n_w)
{
    uint32_t m = 0;

    while (m < n_w && (s->has_w4 || w[m].dtype != DTYPE_BF16))
        m++;
    return m == n_w;
}

static bool is_for_gemv(const struct ops_stream *s, uint32_t n_rows, const float *y,
                        size_t y_stride, const struct weight *w, uint32_t n_w)
{
    return n_rows <= CUDA_GEMV_ROWS || s->deterministic || !is_aligned(y, y_stride, w, n_w) ||
           !has_type(s, w, n_w);
}

/* p: without input and matrix, and .y for the first of them. */
static void multiply(struct ops_stream *s, struct product p, const float *x,
                     const struct norm *norm, const struct weight *w, uint32_t n_w)
{
    p.type = INPUT_NONE;
    for (uint32_t m = 0; m < n_w; m++) {
        enum input_type type;
        p.w = &w[m];
        type = input_type(s, &p);
        if (type != p.type)
            p.x = cuda_prepare(s, type, x, p.n_rows, norm, w[m].cols);
        p.type = type;
        run_product(s, &p);
        p.y += w[m].rows;
    }
}

/* ---- ops ---- */

void cuda_linear(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                 const struct norm *norm, const struct weight *w, uint32_t n_w,
                 enum linear_mode mode)
{
    struct product p = {
        .y = y, .y_stride = y_stride, .n_rows = n_rows, .add = mode == LINEAR_ADD
    };

    if (is_for_gemv(s, n_rows, y, y_stride, w, n_w))
        cuda_gemv(s, y, y_stride, x, n_rows, norm, w, n_w, p.add ? GEMV_ADD : GEMV_SET, 0);
    else
        multiply(s, p, x, norm, w, n_w);
}

void cuda_join_gate(struct ops_stream *s, float *y, size_t y_stride, uint32_t n_rows, uint32_t cols,
                    enum activation act)
{
    struct gate_args a = { .y = y,
                           .gate = s->gate_up,
                           .up = s->gate_up + cols,
                           .y_stride = y_stride,
                           .in_stride = 2 * (uint64_t)cols,
                           .cols = cols,
                           .y_type = ROW_F32,
                           .act = act };

    cuda_launch(s, "gate", elements_grid_x(cols), n_rows, ELEMENTS_THREADS, 0, &a, sizeof a);
}

void cuda_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x, uint32_t n_rows,
                const struct norm *norm, const struct weight *gate, const struct weight *up,
                enum activation act)
{
    struct weight both[2] = { *gate, *up };
    size_t pair = 2 * (size_t)gate->rows;

    assert(gate->rows == up->rows && gate->cols == up->cols && gate->rows <= s->setup.gated_max);
    if (is_for_gemv(s, n_rows, s->gate_up, pair, both, 2) && gate->dtype == up->dtype) {
        cuda_gemv(s, y, y_stride, x, n_rows, norm, both, 2,
                  act == ACT_SILU ? GEMV_GATED_SILU : GEMV_GATED_GELU, 0);
        return;
    }
    cuda_linear(s, s->gate_up, pair, x, n_rows, norm, both, 2, LINEAR_SET);
    cuda_join_gate(s, y, y_stride, n_rows, gate->rows, act);
}

static void cap(struct ops_stream *s, float *y, uint32_t n_rows, uint32_t cols, float softcap)
{
    struct softcap_args a = { .y = y, .y_stride = s->vocab, .cols = cols, .cap = softcap };

    if (softcap != 0)
        cuda_launch(s, "softcap", elements_grid_x(cols), n_rows, ELEMENTS_THREADS, 0, &a, sizeof a);
}

/* Columns that begin with rank r's, r = tp_size: behind all. */
static uint32_t first_column(const struct ops_stream *s, uint32_t r)
{
    return (uint32_t)((uint64_t)s->vocab * r / s->tp_size);
}

/* Every rank's columns to every rank. */
static void gather_logits(struct ops_stream *s, uint32_t n_rows)
{
    uint32_t first[EXCHANGE_RANKS_MAX + 1];

    for (uint32_t r = 0; r <= s->tp_size; r++)
        first[r] = first_column(s, r);
    exchange_all_gather(s->exchange, &s->stream, s->logits, n_rows, s->vocab, first);
}

void cuda_logits(struct ops_stream *s, float *y, size_t y_stride, const void *x, uint32_t n_rows,
                 const struct norm *norm, const struct weight *w, float softcap)
{
    uint32_t first = first_column(s, s->rank);
    float *mine = s->logits + first;
    struct product p = { .y = mine, .y_stride = s->vocab, .n_rows = n_rows, .is_head = true };

    assert(n_rows <= s->setup.logits_max && w->rows == first_column(s, s->rank + 1) - first);
    if (is_for_gemv(s, n_rows, mine, s->vocab, w, 1))
        cuda_gemv(s, mine, s->vocab, x, n_rows, norm, w, 1, softcap != 0 ? GEMV_SOFTCAP : GEMV_SET,
                  softcap);
    else {
        multiply(s, p, x, norm, w, 1);
        cap(s, mine, n_rows, w->rows, softcap);
    }
    if (s->exchange)
        gather_logits(s, n_rows);
    if (s->rank > 0)
        return; /* rank 0 has them all, and brings to the host what is wanted there */
    s->output = (struct step_output){ y, y_stride, s->vocab };
}

void cuda_gate_rows(struct ops_stream *s, void *y, size_t y_stride, uint32_t cols, const void *x,
                    uint32_t n_rows, const struct norm *norm, const struct weight *w)
{
    struct sigmoid_rows_args a = {
        .y = y, .gate = s->router, .y_stride = y_stride, .gate_stride = 1, .cols = cols
    };

    assert(w->rows == 1 && n_rows <= s->setup.rows_max);
    cuda_gemv(s, s->router, 1, x, n_rows, norm, w, 1, GEMV_SET, 0);
    cuda_launch(s, "sigmoid_rows", elements_grid_x(cols), n_rows, ELEMENTS_THREADS, 0, &a,
                sizeof a);
}
