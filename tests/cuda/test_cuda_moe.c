/* test_cuda_moe.c - routes made on the device, and a whole mixture against the CPU's.
 *
 * What would break in production: a row sent to another expert than on the CPU, ties decided by who is quicker, a
 * pair of no group or of two, a share given to another expert's answer; scores that are no numbers becoming a
 * wild index. */
#include "gpu-worker/cuda/kernels/gemm.h"
#include "tests/cuda/product_rig.h"

/* A route on the device, for test after test. */
struct route {
    uint32_t n_rows, n_experts, n_used, group_rows, n_groups;
    float *logits, *share;
    uint32_t *chosen, *pair_row, *pair_of;
    struct moe_group *groups;
};

static struct route route_new(uint32_t n_rows, uint32_t n_experts, uint32_t n_used,
                              uint32_t group_rows)
{
    size_t pairs = (size_t)n_rows * n_used;
    struct route r = { .n_rows = n_rows,
                       .n_experts = n_experts,
                       .n_used = n_used,
                       .group_rows = group_rows,
                       .n_groups = moe_groups_bound((uint32_t)pairs, n_experts, group_rows) };

    r.logits = mem_zalloc((size_t)n_rows * n_experts, sizeof *r.logits);
    r.share = mem_zalloc(pairs, sizeof *r.share);
    r.chosen = mem_zalloc(pairs, sizeof *r.chosen);
    r.pair_row = mem_zalloc(pairs, sizeof *r.pair_row);
    r.pair_of = mem_zalloc(pairs, sizeof *r.pair_of);
    r.groups = mem_zalloc(r.n_groups, sizeof *r.groups);
    return r;
}

static void route_free(struct route *r)
{
    free(r->logits);
    free(r->share);
    free(r->chosen);
    free(r->pair_row);
    free(r->pair_of);
    free(r->groups);
}

static void choose(struct route *r, bool normalise)
{
    struct moe_choose_args a = { r->chosen,    r->share,  r->logits, r->n_rows,
                                 r->n_experts, r->n_used, normalise };
    size_t pairs = (size_t)r->n_rows * r->n_used;
    struct written out[] = { { r->chosen, pairs * 4 }, { r->share, pairs * 4 } };

    launch("moe_choose", moe_choose_grid(r->n_rows), 1, 0, &a, sizeof a, out, 2);
}

static void sort(struct route *r)
{
    struct moe_sort_args a = { .pair_row = r->pair_row,
                               .pair_of = r->pair_of,
                               .groups = r->groups,
                               .chosen = r->chosen,
                               .n_rows = r->n_rows,
                               .n_used = r->n_used,
                               .n_experts = r->n_experts,
                               .n_groups = r->n_groups,
                               .group_rows = r->group_rows };
    size_t pairs = (size_t)r->n_rows * r->n_used;
    struct written out[] = { { r->pair_row, pairs * 4 },
                             { r->pair_of, pairs * 4 },
                             { r->groups, r->n_groups * sizeof *r->groups } };

    memset(r->groups, 0x55, r->n_groups * sizeof *r->groups);
    launch("moe_sort", 1, 1, 0, &a, sizeof a, out, 3);
}

/* ---- the choice ---- */

/* How many stand before expert e, of equals those of lower index. */
static uint32_t standing(const float *logits, uint32_t n, uint32_t e)
{
    uint32_t before = 0;

    for (uint32_t i = 0; i < n; i++)
        before += logits[i] > logits[e] || (logits[i] == logits[e] && i < e);
    return before;
}

static void assert_chosen(const struct route *r, uint32_t t, bool normalise, struct l1_error *error)
{
    const float *logits = r->logits + (size_t)t * r->n_experts;
    double all = 0, kept = 0;

    for (uint32_t e = 0, k = 0; e < r->n_experts; e++) {
        all += exp(logits[e]);
        if (standing(logits, r->n_experts, e) < r->n_used) {
            kept += exp(logits[e]);
            assert_int_equal(r->chosen[t * r->n_used + k++], e);
        }
    }
    for (uint32_t k = 0; k < r->n_used; k++) {
        double want = exp(logits[r->chosen[t * r->n_used + k]]) / (normalise ? kept : all);
        compare(error, "share", t, k, r->share[t * r->n_used + k], want, 1e-3, 1e-5);
    }
}

static void the_largest_are_chosen_of_equals_the_first(void **state)
{
    struct random rng = random_begin("the_largest_are_chosen_of_equals_the_first");
    static const uint32_t shapes[][2] = { { 1, 1 }, { 8, 2 }, { 37, 8 }, { 128, 8 }, { 1024, 3 } };
    struct l1_error error = { 0 };

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int normalise = 0; normalise < 2; normalise++) {
            struct route r = route_new(5, shapes[s][0], shapes[s][1], MOE_GROUP_ROWS);
            for (uint32_t i = 0; i < 5 * r.n_experts; i++)
                r.logits[i] = (float)(int)(random_u64(&rng) % 7) - 3; /* many are equal */
            choose(&r, normalise);
            for (uint32_t t = 0; t < 5; t++)
                assert_chosen(&r, t, normalise, &error);
            route_free(&r);
        }
    l1_expect("moe_choose", &error, 1e-5);
}

static void scores_that_are_no_numbers_choose_somebody(void **state)
{
    struct route r = route_new(3, 40, 4, MOE_GROUP_ROWS);

    (void)state;
    for (uint32_t e = 0; e < 40; e++) {
        r.logits[e] = NAN;
        r.logits[40 + e] = -INFINITY;
        r.logits[80 + e] = e % 2 ? NAN : INFINITY;
    }
    choose(&r, true);
    for (uint32_t t = 0; t < 3; t++)
        for (uint32_t k = 0; k < 4; k++) {
            assert_true(r.chosen[t * 4 + k] < 40);
            assert_true(k == 0 || r.chosen[t * 4 + k] > r.chosen[t * 4 + k - 1]);
        }
    route_free(&r);
}

/* ---- pairs ---- */

/* Ascending experts for each row, few experts being favoured. */
static void choose_at_random(struct random *rng, struct route *r)
{
    for (uint32_t t = 0; t < r->n_rows; t++)
        for (uint32_t e = 0, k = 0; k < r->n_used; e++) {
            uint32_t left = r->n_experts - e, want = r->n_used - k;
            if (left == want || random_u64(rng) % (e < 3 ? 2 : 9) == 0)
                r->chosen[t * r->n_used + k++] = e;
        }
}

static void assert_sorted(const struct route *r)
{
    uint32_t pair = 0, group = 0;

    for (uint32_t e = 0; e < r->n_experts; e++) {
        uint32_t begin = pair;
        for (uint32_t i = 0; i < r->n_rows * r->n_used; i++)
            if (r->chosen[i] == e) {
                assert_int_equal(r->pair_row[pair], i / r->n_used);
                assert_int_equal(r->pair_of[i], pair);
                pair++;
            }
        for (; begin < pair; begin += r->group_rows, group++) {
            uint32_t n = pair - begin < r->group_rows ? pair - begin : r->group_rows;
            assert_true(group < r->n_groups);
            assert_int_equal(r->groups[group].expert, e);
            assert_int_equal(r->groups[group].first, begin);
            assert_int_equal(r->groups[group].n, n);
        }
    }
    for (; group < r->n_groups; group++)
        assert_int_equal(r->groups[group].n, 0);
}

static void pairs_are_in_the_order_of_experts_then_rows(void **state)
{
    struct random rng = random_begin("pairs_are_in_the_order_of_experts_then_rows");
    static const uint32_t shapes[][4] = {
        { 1, 8, 2, MOE_GROUP_ROWS }, { 3, 40, 40, MOE_GROUP_ROWS },
        { 100, 5, 2, 64 },           { 33, 128, 8, MOE_GROUP_ROWS },
        { 20, 1024, 4, 1 },
    };

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct route r = route_new(shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]);
        choose_at_random(&rng, &r);
        sort(&r);
        assert_sorted(&r);
        route_free(&r);
    }
    l1_exact("moe_sort");
}

/* ---- a whole mixture ---- */

enum { ROWS = 19, DIM = 40, INNER = 24, EXPERTS = 9, USED = 3 };

/* Matrices of one kind, at equal distances on the device, and the CPU's. */
struct experts {
    uint32_t rows, cols;
    char *device;
    size_t bytes; /* of one */
    struct weight cpu[EXPERTS];
};

static struct experts experts_new(struct random *rng, uint32_t n, uint32_t rows, uint32_t cols)
{
    struct experts m = {
        rows, cols, NULL, cuda_packing_panel_bytes(DTYPE_F32, cols) * rows, { { 0 } }
    };

    m.device = aligned_mem(64, n * m.bytes);
    for (uint32_t e = 0; e < n; e++) {
        struct device_matrix d =
            device_matrix_random(rng, DTYPE_F32, rows, cols, m.device + e * m.bytes);
        void *packed = pack_matrix(d.values, rows, cols, DTYPE_F32);
        m.cpu[e] = (struct weight){ packed, DTYPE_F32, rows, cols, NULL };
        free(d.values);
    }
    return m;
}

static void experts_free(struct experts *m, uint32_t n)
{
    for (uint32_t e = 0; e < n; e++)
        free((void *)(uintptr_t)m->cpu[e].data);
    free(m->device);
}

static struct gemv_matrix matrix_of(const struct experts *m)
{
    return (struct gemv_matrix){ .data = m->device, .expert_bytes = m->bytes, .rows = m->rows };
}

struct mixture {
    struct experts router, gate, up, down;
    float *norm;
};

static void run_product(struct gemv_args *a, uint32_t n_groups, uint32_t n_out)
{
    static const struct gemv_device device = { 2, 96 << 10, 100 << 10 };
    struct gemv_launch l = gemv_launch(a, GEMV_F32, n_groups, &device);

    launch(l.kernel, l.grid_x, l.grid_y, l.shared_bytes, a, sizeof *a,
           &(struct written){ a->y, n_out * sizeof(float) }, 1);
}

/* x += the mixture of x, as the backend launches it. */
static void run_device(const struct mixture *m, float *x)
{
    struct route r = route_new(ROWS, EXPERTS, USED, MOE_GROUP_ROWS);
    float *inner = mem_zalloc(ROWS * USED, INNER * sizeof *inner);
    float *down = mem_zalloc(ROWS * USED, DIM * sizeof *down);
    struct gemv_args router = { .y = r.logits,
                                .x = x,
                                .norm = m->norm,
                                .y_stride = EXPERTS,
                                .x_stride = DIM,
                                .n_rows = ROWS,
                                .cols = DIM,
                                .n_w = 1,
                                .eps = 1e-6f,
                                .w = { matrix_of(&m->router) } };
    struct gemv_args gated = router, back = { .y = down,
                                              .x = inner,
                                              .groups = r.groups,
                                              .y_stride = DIM,
                                              .x_stride = INNER,
                                              .n_rows = ROWS,
                                              .cols = INNER,
                                              .n_w = 1,
                                              .w = { matrix_of(&m->down) } };
    struct moe_combine_args combine = { x, down, r.share, r.pair_of, DIM, DIM, ROWS, USED, DIM };

    gated.y = inner;
    gated.y_stride = INNER;
    gated.rows = r.pair_row;
    gated.groups = r.groups;
    gated.mode = GEMV_GATED_SILU;
    gated.n_w = 2;
    gated.w[0] = matrix_of(&m->gate);
    gated.w[1] = matrix_of(&m->up);
    run_product(&router, 0, ROWS * EXPERTS);
    choose(&r, true);
    sort(&r);
    run_product(&gated, r.n_groups, ROWS * USED * INNER);
    run_product(&back, r.n_groups, ROWS * USED * DIM);
    launch("moe_combine", moe_combine_grid_x(DIM), ROWS, 0, &combine, sizeof combine,
           &(struct written){ x, ROWS * DIM * sizeof *x }, 1);
    route_free(&r);
    free(inner);
    free(down);
}

static void run_cpu(const struct mixture *m, float *x)
{
    static const double freq[1] = { 1 };
    struct ops_setup setup = { .rows_max = ROWS,
                               .cols_max = DIM,
                               .gated_max = INNER,
                               .n_experts = EXPERTS,
                               .n_experts_used = USED,
                               .expert_down_max = DIM,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 2,
                               .positions_max = 8,
                               .rope_freq = freq,
                               .kv = { .page_tokens = 1, .dtype = DTYPE_F32 } };
    struct ops_rig rig = ops_rig_open(CPU_PLAIN, 1, &setup);
    struct norm norm = { .w = m->norm, .eps = 1e-6f };
    float y[ROWS * USED * INNER];

    rig.ops->route(rig.stream, x, ROWS, &norm, &m->router.cpu[0], true);
    rig.ops->experts_gated(rig.stream, y, INNER, x, &norm, m->gate.cpu, m->up.cpu, ACT_SILU);
    rig.ops->experts_down(rig.stream, x, DIM, y, m->down.cpu);
    ops_rig_close(&rig);
}

static void a_mixture_is_the_cpus(void **state)
{
    struct random rng = random_begin("a_mixture_is_the_cpus");
    struct mixture m = { experts_new(&rng, 1, EXPERTS, DIM), experts_new(&rng, EXPERTS, INNER, DIM),
                         experts_new(&rng, EXPERTS, INNER, DIM),
                         experts_new(&rng, EXPERTS, DIM, INNER), random_floats(&rng, DIM) };
    struct l1_error error = { 0 };
    float *x = random_floats(&rng, ROWS * DIM), *want = mem_alloc(ROWS * DIM * sizeof *want);

    (void)state;
    memcpy(want, x, ROWS * DIM * sizeof *want);
    run_cpu(&m, want);
    run_device(&m, x);
    for (uint32_t t = 0; t < ROWS; t++)
        for (uint32_t i = 0; i < DIM; i++)
            compare(&error, "mixture", t, i, x[t * DIM + i], want[t * DIM + i], 1, 2e-5);
    l1_expect("moe_combine", &error, 2e-5);
    experts_free(&m.router, 1);
    experts_free(&m.gate, EXPERTS);
    experts_free(&m.up, EXPERTS);
    experts_free(&m.down, EXPERTS);
    free(m.norm);
    free(x);
    free(want);
}

/* ---- many rows ---- */

/* n floats as bf16 or f16, and what they are then. */
static uint16_t *halves_of(float *x, uint32_t n, enum dtype t)
{
    uint16_t *halves = aligned_mem(16, n * sizeof *halves);

    for (uint32_t i = 0; i < n; i++) {
        halves[i] = t == DTYPE_BF16 ? float_to_bf16(x[i]) : float_to_f16(x[i]);
        x[i] = t == DTYPE_BF16 ? bf16_to_float(halves[i]) : f16_to_float(halves[i]);
    }
    return halves;
}

enum { G_ROWS = 150, G_COLS = 104, G_PAIRS = 75, G_X = 40 };

static uint32_t format_of(enum dtype t)
{
    if (t == DTYPE_E4M3)
        return GEMV_E4M3;
    return t < DTYPE_I8 ? t - DTYPE_F32 : t - DTYPE_I8 + GEMV_I8;
}

static void run_grouped(struct random *rng, enum dtype t, const struct moe_group *groups,
                        uint32_t n_groups, const uint32_t *pair_row)
{
    uint32_t format = format_of(t);
    double limit = format >= GEMV_I8 ? 5e-4 : 1e-6; /* integers are rounded to f16 */
    struct l1_error error = { 0 };
    struct device_matrix w[3] = { { .type = t, .rows = G_ROWS, .cols = G_COLS } };
    size_t bytes = device_matrix_bytes(&w[0]);
    char *data = aligned_mem(64, 3 * bytes);
    float *x = random_floats(rng, G_X * G_COLS), *y = random_floats(rng, G_PAIRS * G_ROWS);
    uint16_t *halves = halves_of(x, G_X * G_COLS, t);
    struct gemm_grouped_args a = { y,     halves, pair_row, groups, data,
                                   bytes, G_ROWS, G_COLS,   G_ROWS, G_COLS };

    for (uint32_t e = 0; e < 3; e++)
        w[e] = device_matrix_random(rng, t, G_ROWS, G_COLS, data + e * bytes);
    launch(gemm_grouped_kernel(format), gemm_grouped_tiles(G_ROWS), n_groups,
           gemm_grouped_shared_bytes(format), &a, sizeof a,
           &(struct written){ y, G_PAIRS * G_ROWS * sizeof *y }, 1);
    for (uint32_t g = 0; g < n_groups; g++)
        for (uint32_t p = groups[g].first; p < groups[g].first + groups[g].n; p++)
            for (uint32_t i = 0; i < G_ROWS; i++) {
                struct exact want = dot(w[groups[g].expert].values + (size_t)i * G_COLS,
                                        x + (size_t)pair_row[p] * G_COLS, G_COLS);
                compare(&error, gemm_grouped_kernel(format), p, i, y[p * G_ROWS + i], want.sum,
                        want.magnitude, limit);
            }
    l1_expect(gemm_grouped_kernel(format), &error, limit);
    for (uint32_t e = 0; e < 3; e++)
        free(w[e].values);
    free(data);
    free(x);
    free(y);
    free(halves);
}

static void many_pairs_use_their_experts_matrices(void **state)
{
    struct random rng = random_begin("many_pairs_use_their_experts_matrices");
    static const struct moe_group groups[] = {
        { 0, 0, 64 }, { 0, 64, 1 }, { 2, 65, 10 }, { 0, 0, 0 }
    };
    uint32_t pair_row[G_PAIRS];

    (void)state;
    for (uint32_t p = 0; p < G_PAIRS; p++)
        pair_row[p] = p * 7 % G_X;
    for (enum dtype t = DTYPE_F16; t <= DTYPE_I4M; t++)
        run_grouped(&rng, t, groups, 4, pair_row);
    run_grouped(&rng, DTYPE_E4M3, groups, 4, pair_row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_are_chosen_of_equals_the_first),
        cmocka_unit_test(scores_that_are_no_numbers_choose_somebody),
        cmocka_unit_test(pairs_are_in_the_order_of_experts_then_rows),
        cmocka_unit_test(a_mixture_is_the_cpus),
        cmocka_unit_test(many_pairs_use_their_experts_matrices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
