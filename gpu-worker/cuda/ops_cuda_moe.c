/* ops_cuda_moe.c - mixtures of experts: who goes where is decided on the device and stays there (kernels/moe.h),
 * so a step with experts is queued, and recorded, like any other.
 *
 *   few rows an expert   gemv.cu, groups of 8: float input
 *   more                 gemm_grouped.cu, groups of 64: the input in the type of the weights, as for any other matrix;
 *                        of E4M3 f16, which the weights become exactly
 *   deterministic        gemv.cu, always
 *
 * The experts' matrices are reached from the first one's by a fixed distance: the plan of the weights lays all
 * experts of a layer out alike. */
#include <assert.h>

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/cuda/kernels/gemm.h"

enum { GRID_Y_MAX = 65535 };

static uint32_t n_pairs(const struct ops_stream *s)
{
    return s->routed_rows * s->setup.n_experts_used;
}

/* Bytes from one expert's matrix to the next one's. */
static uint64_t distance(const struct weight *w, uint32_t n_experts)
{
    uint64_t bytes =
        n_experts > 1 ? (uint64_t)((const char *)w[1].data - (const char *)w[0].data) : 0;

    for (uint32_t i = 0; i < n_experts; i++)
        assert((const char *)w[i].data == (const char *)w[0].data + i * bytes && !w[i].bias &&
               w[i].dtype == w[0].dtype && w[i].rows == w[0].rows);
    return bytes;
}

/* ---- where rows go ---- */

void cuda_route(struct ops_stream *s, const void *x, uint32_t n_rows, const struct norm *norm,
                const struct weight *router, bool normalise)
{
    const struct ops_setup *u = &s->setup;
    struct moe_choose_args choose = { .chosen = s->chosen,
                                      .share = s->share,
                                      .logits = s->router,
                                      .n_rows = n_rows,
                                      .n_experts = u->n_experts,
                                      .n_used = u->n_experts_used,
                                      .normalise = normalise };

    assert(router->rows == u->n_experts && n_rows <= u->rows_max);
    s->routed_rows = n_rows;
    s->group_rows = 0;
    cuda_gemv(s, s->router, u->n_experts, x, n_rows, norm, router, 1, GEMV_SET, 0);
    cuda_launch(s, "moe_choose", moe_choose_grid(n_rows), 1, MOE_CHOOSE_THREADS, 0, &choose,
                sizeof choose);
}

/* Pairs in groups as the product that follows wants them; they lie in the same order whatever that is. */
static void group_pairs(struct ops_stream *s, uint32_t group_rows)
{
    const struct ops_setup *u = &s->setup;
    struct moe_sort_args sort = { .pair_row = s->pair_row,
                                  .pair_of = s->pair_of,
                                  .groups = s->groups,
                                  .chosen = s->chosen,
                                  .n_rows = s->routed_rows,
                                  .n_used = u->n_experts_used,
                                  .n_experts = u->n_experts,
                                  .group_rows = group_rows };

    if (s->group_rows == group_rows)
        return;
    sort.n_groups = moe_groups_bound(n_pairs(s), u->n_experts, group_rows);
    s->group_rows = group_rows;
    s->n_groups = sort.n_groups;
    cuda_launch(s, "moe_sort", 1, 1, MOE_SORT_THREADS, 0, &sort, sizeof sort);
}

/* ---- few rows an expert ---- */

/* Pairs that a group may have at most: what the kernel needs room for. */
static uint32_t rows_of_group(const struct ops_stream *s)
{
    return s->routed_rows < MOE_GROUP_ROWS ? s->routed_rows : MOE_GROUP_ROWS;
}

static struct gemv_matrix expert_matrix(const struct weight *w, uint32_t n_experts)
{
    return (struct gemv_matrix){ .data = w->data,
                                 .expert_bytes = distance(w, n_experts),
                                 .rows = w->rows };
}

static void gated_by_gemv(struct ops_stream *s, float *y, size_t y_stride, const float *x,
                          const struct norm *norm, const struct weight *gate,
                          const struct weight *up, enum activation act)
{
    uint32_t n = s->setup.n_experts;
    struct gemv_args a = { .y = y,
                           .x = x,
                           .norm = norm->w,
                           .rows = s->pair_row,
                           .groups = s->groups,
                           .y_stride = y_stride,
                           .x_stride = gate->cols,
                           .n_rows = rows_of_group(s),
                           .cols = gate->cols,
                           .n_w = 2,
                           .mode = act == ACT_SILU ? GEMV_GATED_SILU : GEMV_GATED_GELU,
                           .eps = norm->eps,
                           .w = { expert_matrix(gate, n), expert_matrix(up, n) } };

    group_pairs(s, MOE_GROUP_ROWS);
    cuda_gemv_launch(s, &a, gate->dtype, s->n_groups);
}

static void down_by_gemv(struct ops_stream *s, const float *y, const struct weight *down)
{
    struct gemv_args a = { .y = s->down,
                           .x = y,
                           .groups = s->groups,
                           .y_stride = down->rows,
                           .x_stride = down->cols,
                           .n_rows = rows_of_group(s),
                           .cols = down->cols,
                           .n_w = 1,
                           .mode = GEMV_SET,
                           .w = { expert_matrix(down, s->setup.n_experts) } };

    group_pairs(s, MOE_GROUP_ROWS);
    cuda_gemv_launch(s, &a, down->dtype, s->n_groups);
}

/* ---- many rows an expert ---- */

/* Worth it from where gemv.cu would read an expert's weights more than once, and possible where the input has room:
 * n_inputs rows of it. */
static bool is_for_gemm(const struct ops_stream *s, const struct weight *w, uint32_t n_inputs)
{
    return !s->deterministic && s->has_w4 && gemm_grouped_kernel(cuda_gemv_format(w->dtype)) &&
           n_pairs(s) > MOE_GROUP_ROWS * s->setup.n_experts && n_pairs(s) <= GRID_Y_MAX &&
           w->cols % 8 == 0 &&
           (uint64_t)n_inputs * w->cols * sizeof(uint16_t) <= cuda_input_bytes(s);
}

/* y of the output rows first .. first + n - 1, first a multiple of 16; x is prepared: of each row, or of each pair. */
static void run_grouped(struct ops_stream *s, float *y, size_t y_stride, const void *x,
                        const uint32_t *pair_row, const struct weight *w, uint32_t first,
                        uint32_t n)
{
    uint32_t format = cuda_gemv_format(w->dtype), height = cuda_packing_panel_rows(w->dtype);
    struct gemm_grouped_args a = {
        .y = y,
        .x = x,
        .pair_row = pair_row,
        .groups = s->groups,
        .w = (const char *)w->data + first / height * cuda_packing_panel_bytes(w->dtype, w->cols),
        .expert_bytes = distance(w, s->setup.n_experts),
        .y_stride = y_stride,
        .x_stride = w->cols,
        .rows = n,
        .cols = w->cols
    };

    cuda_launch(s, gemm_grouped_kernel(format), gemm_grouped_tiles(n), s->n_groups,
                GEMM_GROUPED_THREADS, gemm_grouped_shared_bytes(format), &a, sizeof a);
}

/* Output rows of gate and of up that have room beside each other, for all pairs. */
static uint32_t rows_at_once(const struct ops_stream *s, uint32_t rows)
{
    uint64_t n = cuda_gate_up_floats(s) / 2 / n_pairs(s);

    assert(n >= GEMM_GROUPED_ROWS);
    return n >= rows ? rows : (uint32_t)(n / GEMM_GROUPED_ROWS * GEMM_GROUPED_ROWS);
}

static void gated_by_gemm(struct ops_stream *s, float *y, size_t y_stride, const float *x,
                          const struct norm *norm, const struct weight *gate,
                          const struct weight *up, enum activation act)
{
    uint32_t piece = rows_at_once(s, gate->rows);
    const void *in =
        cuda_prepare(s, cuda_input_type(gate->dtype), x, s->routed_rows, norm, gate->cols);

    group_pairs(s, GEMM_GROUPED_PAIRS);
    for (uint32_t first = 0; first < gate->rows; first += piece) {
        uint32_t n = gate->rows - first < piece ? gate->rows - first : piece;
        run_grouped(s, s->gate_up, 2 * (size_t)n, in, s->pair_row, gate, first, n);
        run_grouped(s, s->gate_up + n, 2 * (size_t)n, in, s->pair_row, up, first, n);
        cuda_join_gate(s, y + first, y_stride, n_pairs(s), n, act);
    }
}

static void down_by_gemm(struct ops_stream *s, const float *y, const struct weight *down)
{
    const void *in = cuda_prepare(s, cuda_input_type(down->dtype), y, n_pairs(s), NULL, down->cols);

    group_pairs(s, GEMM_GROUPED_PAIRS);
    run_grouped(s, s->down, down->rows, in, NULL, down, 0, down->rows);
}

/* ---- ops ---- */

void cuda_experts_gated(struct ops_stream *s, void *y, size_t y_stride, const void *x,
                        const struct norm *norm, const struct weight *gate, const struct weight *up,
                        enum activation act)
{
    assert(!norm->rows && gate->dtype == up->dtype && gate->rows == up->rows);
    if (is_for_gemm(s, gate, s->routed_rows))
        gated_by_gemm(s, y, y_stride, x, norm, gate, up, act);
    else
        gated_by_gemv(s, y, y_stride, x, norm, gate, up, act);
}

void cuda_experts_down(struct ops_stream *s, void *x, size_t x_stride, const void *y,
                       const struct weight *down)
{
    const struct ops_setup *u = &s->setup;
    struct moe_combine_args c = { .x = x,
                                  .y = s->down,
                                  .share = s->share,
                                  .pair_of = s->pair_of,
                                  .x_stride = x_stride,
                                  .y_stride = down->rows,
                                  .n_rows = s->routed_rows,
                                  .n_used = u->n_experts_used,
                                  .cols = down->rows };

    assert(down->rows <= u->expert_down_max);
    if (is_for_gemm(s, down, n_pairs(s)))
        down_by_gemm(s, y, down);
    else
        down_by_gemv(s, y, down);
    cuda_launch(s, "moe_combine", moe_combine_grid_x(c.cols), s->routed_rows, MOE_COMBINE_THREADS,
                0, &c, sizeof c);
}
