/* test_moe.c - mixtures of experts, and what only some families do: against plain double precision.
 *
 * What would break in production: a row sent to another expert because of its neighbours, or to none
 * because its scores are no numbers; ties decided by who sorts; an expert's share taken twice. */
#include "gpu-worker/ops/packing.h"
#include "tests/ops/ops_rig.h"

enum { DIM = 40, INNER = 24, EXPERTS = 9, USED = 3, ROWS = 23 };

struct matrix {
    float values[EXPERTS * DIM > INNER *DIM ? EXPERTS *DIM : INNER *DIM];
    char packed[64 << 10];
    struct weight w;
};

static struct random rng;

static void pack(struct matrix *m, enum dtype dtype, uint32_t rows, uint32_t cols)
{
    uint32_t height = packing_panel_rows(dtype);

    assert_true(packing_bytes(dtype, rows, cols) <= sizeof m->packed);
    for (uint32_t i = 0; i < packing_panels(dtype, rows); i++) {
        uint32_t left = rows - i * height;
        packing_pack(dtype, m->packed + i * packing_panel_bytes(dtype, cols),
                     m->values + (size_t)i * height * cols, left < height ? left : height, cols);
    }
    m->w = (struct weight){ m->packed, dtype, rows, cols, NULL };
}

static void make(struct matrix *m, uint32_t rows, uint32_t cols)
{
    for (uint32_t i = 0; i < rows * cols; i++)
        m->values[i] = 0.4f * random_float(&rng);
    pack(m, DTYPE_F32, rows, cols);
}

struct model {
    float norm[DIM];
    struct matrix router, gate[EXPERTS], up[EXPERTS], down[EXPERTS];
    struct weight w_gate[EXPERTS], w_up[EXPERTS], w_down[EXPERTS];
};

static struct model *model_new(void)
{
    struct model *m = mem_zalloc(1, sizeof *m);

    for (int i = 0; i < DIM; i++)
        m->norm[i] = 1 + 0.3f * random_float(&rng);
    make(&m->router, EXPERTS, DIM);
    for (int e = 0; e < EXPERTS; e++) {
        make(&m->gate[e], INNER, DIM);
        make(&m->up[e], INNER, DIM);
        make(&m->down[e], DIM, INNER);
        m->w_gate[e] = m->gate[e].w;
        m->w_up[e] = m->up[e].w;
        m->w_down[e] = m->down[e].w;
    }
    return m;
}

static struct ops_rig open_using(enum cpu_tier tier, uint32_t n_threads, uint32_t n_used)
{
    static const double freq[1] = { 1 };
    struct ops_setup setup = { .rows_max = ROWS,
                               .cols_max = DIM,
                               .gated_max = INNER,
                               .n_experts = EXPERTS,
                               .n_experts_used = n_used,
                               .expert_down_max = DIM,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 2,
                               .positions_max = 8,
                               .rope_freq = freq,
                               .kv = { .page_tokens = 1, .dtype = DTYPE_F32 } };

    return ops_rig_open(tier, n_threads, &setup);
}

static struct ops_rig open_rig(enum cpu_tier tier, uint32_t n_threads)
{
    return open_using(tier, n_threads, USED);
}

/* x += the mixture of x, for n rows. */
static void run(struct ops_rig *rig, const struct model *m, bool normalise, float *x, uint32_t n)
{
    struct norm norm = { .w = m->norm, .eps = 1e-6f };
    float y[ROWS * USED * INNER];

    rig->ops->route(rig->stream, x, n, &norm, &m->router.w, normalise);
    rig->ops->experts_gated(rig->stream, y, INNER, x, &norm, m->w_gate, m->w_up, ACT_SILU);
    rig->ops->experts_down(rig->stream, x, DIM, y, m->w_down);
}

/* ---- in double ---- */

static double dot(const float *w, const double *x, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += w[i] * x[i];
    return sum;
}

static void expert(const struct model *m, uint32_t e, const double *x, double share, double *y)
{
    double inner[INNER];

    for (uint32_t i = 0; i < INNER; i++) {
        double gate = dot(m->gate[e].values + (size_t)i * DIM, x, DIM);
        inner[i] = gate / (1 + exp(-gate)) * dot(m->up[e].values + (size_t)i * DIM, x, DIM);
    }
    for (uint32_t i = 0; i < DIM; i++)
        y[i] += share * dot(m->down[e].values + (size_t)i * INNER, inner, INNER);
}

static void reference(const struct model *m, bool normalise, const float *x, double *y)
{
    double h[DIM], p[EXPERTS], sum = 0, all = 0, kept = 0;
    bool chosen[EXPERTS] = { false };

    for (int i = 0; i < DIM; i++)
        sum += (double)x[i] * x[i];
    for (int i = 0; i < DIM; i++)
        h[i] = m->norm[i] * x[i] / sqrt(sum / DIM + 1e-6);
    for (uint32_t e = 0; e < EXPERTS; e++)
        all += p[e] = exp(dot(m->router.values + (size_t)e * DIM, h, DIM));
    for (int k = 0; k < USED; k++) {
        int best = -1;
        for (int e = 0; e < EXPERTS; e++)
            if (!chosen[e] && (best < 0 || p[e] > p[best]))
                best = e;
        chosen[best] = true;
        kept += p[best];
    }
    for (int i = 0; i < DIM; i++)
        y[i] = x[i];
    for (uint32_t e = 0; e < EXPERTS; e++)
        if (chosen[e])
            expert(m, e, h, p[e] / (normalise ? kept : all), y);
}

/* ---- tests ---- */

static float *random_rows(void)
{
    return random_floats(&rng, (size_t)ROWS * DIM);
}

static void expect_near(const float *got, const double *wanted, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(fabs(got[i] - wanted[i]) < 2e-5))
            fail_msg("%.9g, wanted %.9g at %u", got[i], wanted[i], i);
}

static void mixtures_are_near_double(void **state)
{
    (void)state;
    rng = random_begin("mixtures_are_near_double");
    for (int round = 0; round < 2 * N_CPU_TIERS; round++) {
        enum cpu_tier tier = (enum cpu_tier)(round / 2);
        struct model *m = model_new();
        float *x = random_rows(), *y = mem_zalloc(ROWS * DIM, sizeof *y);
        struct ops_rig rig;
        if (tier_is_here(tier)) {
            rig = open_rig(tier, 2);
            memcpy(y, x, ROWS * DIM * sizeof *y);
            run(&rig, m, round % 2, y, ROWS);
            for (uint32_t t = 0; t < ROWS; t++) {
                double wanted[DIM];
                reference(m, round % 2, x + (size_t)t * DIM, wanted);
                expect_near(y + (size_t)t * DIM, wanted, DIM);
            }
            ops_rig_close(&rig);
        }
        free(x);
        free(y);
        free(m);
    }
}

static void a_row_is_the_same_bits_alone_and_in_any_batch(void **state)
{
    struct model *m;
    float *x, *together, *alone;
    struct ops_rig rig;

    (void)state;
    rng = random_begin("a_row_is_the_same_bits_alone_and_in_any_batch");
    m = model_new();
    x = random_rows();
    together = mem_zalloc(ROWS * DIM, sizeof *x);
    alone = mem_zalloc(ROWS * DIM, sizeof *x);
    memcpy(together, x, ROWS * DIM * sizeof *x);
    memcpy(alone, x, ROWS * DIM * sizeof *x);
    rig = open_rig(cpu_tier_choose("auto"), 3);
    run(&rig, m, true, together, ROWS);
    for (uint32_t t = 0; t < ROWS; t += 2) /* by twos and, at the end, by one */
        run(&rig, m, true, alone + (size_t)t * DIM, t + 2 <= ROWS ? 2 : 1);
    assert_memory_equal(together, alone, ROWS * DIM * sizeof *x);
    ops_rig_close(&rig);
    free(x);
    free(together);
    free(alone);
    free(m);
}

static void pack_experts(struct model *m, enum dtype dtype)
{
    for (int e = 0; e < EXPERTS; e++) {
        pack(&m->gate[e], dtype, INNER, DIM);
        pack(&m->up[e], dtype, INNER, DIM);
        pack(&m->down[e], dtype, DIM, INNER);
        m->w_gate[e] = m->gate[e].w;
        m->w_up[e] = m->up[e].w;
        m->w_down[e] = m->down[e].w;
    }
}

/* x += the mean of all experts, as dense MLPs one after the other. */
static void run_dense(struct ops_rig *rig, const struct model *m, float *x, uint32_t n)
{
    struct norm norm = { .w = m->norm, .eps = 1e-6f };
    float y[EXPERTS][ROWS * INNER], down[ROWS * DIM];

    for (int e = 0; e < EXPERTS; e++)
        rig->ops->gated(rig->stream, y[e], INNER, x, n, &norm, &m->w_gate[e], &m->w_up[e],
                        ACT_SILU);
    for (int e = 0; e < EXPERTS; e++) {
        rig->ops->linear(rig->stream, down, DIM, y[e], n, NULL, &m->w_down[e], 1, LINEAR_SET);
        for (uint32_t i = 0; i < n * DIM; i++)
            x[i] += 1.0f / EXPERTS * down[i];
    }
}

/* For every number format of matrices, every tier, and any number of rows: inputs may lie in tiles. */
static void an_expert_is_a_dense_mlp_to_the_bit(void **state)
{
    static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8, DTYPE_I4 };
    struct model *m;
    float *x, y[ROWS * DIM], z[ROWS * DIM];

    (void)state;
    rng = random_begin("an_expert_is_a_dense_mlp_to_the_bit");
    m = model_new();
    x = random_rows();
    memset(m->router.values, 0, sizeof m->router.values); /* all experts, with the same share */
    pack(&m->router, DTYPE_F32, EXPERTS, DIM);
    for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes * N_CPU_TIERS; k++) {
        enum cpu_tier tier = (enum cpu_tier)(k % N_CPU_TIERS);
        struct ops_rig rig;
        if (!tier_is_here(tier))
            continue;
        pack_experts(m, dtypes[k / N_CPU_TIERS]);
        rig = open_using(tier, 3, EXPERTS);
        for (uint32_t n = 1; n <= ROWS; n++) {
            struct norm norm = { .w = m->norm, .eps = 1e-6f };
            float inner[ROWS * EXPERTS * INNER];
            memcpy(y, x, sizeof y);
            memcpy(z, x, sizeof z);
            rig.ops->route(rig.stream, y, n, &norm, &m->router.w, true);
            rig.ops->experts_gated(rig.stream, inner, INNER, y, &norm, m->w_gate, m->w_up,
                                   ACT_SILU);
            rig.ops->experts_down(rig.stream, y, DIM, inner, m->w_down);
            run_dense(&rig, m, z, n);
            if (memcmp(y, z, n * DIM * sizeof *y) != 0)
                fail_msg("%s, %s, %u rows: other bits", dtype_name(dtypes[k / N_CPU_TIERS]),
                         cpu_tier_name(tier), n);
        }
        ops_rig_close(&rig);
    }
    free(x);
    free(m);
}

/* Experts with the same score: the first ones are taken. */
static void ties_go_to_the_lower_index(void **state)
{
    struct model *m;
    double wanted[DIM];
    float *x, *y;
    struct ops_rig rig;

    (void)state;
    rng = random_begin("ties_go_to_the_lower_index");
    m = model_new();
    x = random_rows();
    y = mem_zalloc(ROWS * DIM, sizeof *y);
    for (uint32_t e = 1; e < EXPERTS; e++) /* all the same */
        memcpy(m->router.values + (size_t)e * DIM, m->router.values, DIM * sizeof *x);
    pack(&m->router, DTYPE_F32, EXPERTS, DIM);
    memcpy(y, x, ROWS * DIM * sizeof *y);
    rig = open_rig(cpu_tier_choose("auto"), 1);
    run(&rig, m, true, y, ROWS);
    for (uint32_t t = 0; t < ROWS; t++) {
        reference(m, true, x + (size_t)t * DIM, wanted); /* which takes 0, 1 and 2 */
        expect_near(y + (size_t)t * DIM, wanted, DIM);
    }
    ops_rig_close(&rig);
    free(x);
    free(y);
    free(m);
}

/* Damaged weights give scores that are no numbers; the row is lost, and nothing else. */
static void scores_that_are_no_numbers_harm_nobody_else(void **state)
{
    struct model *m;
    float *x, *y, *z;
    struct ops_rig rig;

    (void)state;
    rng = random_begin("scores_that_are_no_numbers_harm_nobody_else");
    m = model_new();
    x = random_rows();
    y = mem_zalloc(ROWS * DIM, sizeof *y);
    z = mem_zalloc(ROWS * DIM, sizeof *z);
    memcpy(y, x, ROWS * DIM * sizeof *y);
    memcpy(z, x, ROWS * DIM * sizeof *z);
    z[4 * DIM + 3] = NAN;
    rig = open_rig(cpu_tier_choose("auto"), 2);
    run(&rig, m, false, y, ROWS);
    run(&rig, m, false, z, ROWS);
    assert_true(isnan(z[4 * DIM]));
    for (uint32_t t = 0; t < ROWS; t++)
        if (t != 4)
            assert_memory_equal(y + (size_t)t * DIM, z + (size_t)t * DIM, DIM * sizeof *y);
    ops_rig_close(&rig);
    free(x);
    free(y);
    free(z);
    free(m);
}

static void rows_are_gated_by_a_sigmoid(void **state)
{
    struct matrix gate;
    struct norm norm;
    struct model *m;
    float *x, y[ROWS * (INNER + 2)];
    struct ops_rig rig;

    (void)state;
    rng = random_begin("rows_are_gated_by_a_sigmoid");
    m = model_new();
    x = random_rows();
    make(&gate, 1, DIM);
    norm = (struct norm){ .w = m->norm, .eps = 1e-6f };
    for (int i = 0; i < ROWS * (INNER + 2); i++)
        y[i] = 2;
    rig = open_rig(cpu_tier_choose("auto"), 2);
    rig.ops->gate_rows(rig.stream, y, INNER + 2, INNER, x, ROWS, &norm, &gate.w);
    for (uint32_t t = 0; t < ROWS; t++) {
        double sum = 0, score = 0;
        for (uint32_t i = 0; i < DIM; i++)
            sum += (double)x[t * DIM + i] * x[t * DIM + i];
        for (uint32_t i = 0; i < DIM; i++)
            score += gate.values[i] * m->norm[i] * x[t * DIM + i] / sqrt(sum / DIM + 1e-6);
        for (uint32_t i = 0; i < INNER; i++)
            assert_true(fabs(y[t * (INNER + 2) + i] - 2 / (1 + exp(-score))) < 1e-5);
        assert_true(y[t * (INNER + 2) + INNER] == 2 && y[t * (INNER + 2) + INNER + 1] == 2);
    }
    ops_rig_close(&rig);
    free(x);
    free(m);
}

/* A rank adds its columns and leaves the others' alone. */
static void normalised_rows_are_added_to_the_columns_asked_for(void **state)
{
    enum { FIRST = 7, COUNT = 20 };
    struct model *m;
    float *x, *y, *was;
    struct norm norm;
    struct ops_rig rig;

    (void)state;
    rng = random_begin("normalised_rows_are_added_to_the_columns_asked_for");
    m = model_new();
    x = random_rows();
    y = random_rows();
    was = mem_alloc(ROWS * DIM * sizeof *was);
    memcpy(was, x, ROWS * DIM * sizeof *was);
    norm = (struct norm){ .w = m->norm, .eps = 1e-6f };
    rig = open_rig(cpu_tier_choose("auto"), 2);
    rig.ops->add_normed(rig.stream, x, y, ROWS, &norm, DIM, FIRST, COUNT);
    for (uint32_t t = 0; t < ROWS; t++) {
        double sum = 0;
        for (uint32_t i = 0; i < DIM; i++)
            sum += (double)y[t * DIM + i] * y[t * DIM + i];
        for (uint32_t i = 0; i < DIM; i++) {
            double added = m->norm[i] * y[t * DIM + i] / sqrt(sum / DIM + 1e-6);
            bool mine = i >= FIRST && i < FIRST + COUNT;
            assert_true(fabs(x[t * DIM + i] - was[t * DIM + i] - (mine ? added : 0)) <
                        (mine ? 1e-5 : 1e-30));
        }
    }
    ops_rig_close(&rig);
    free(x);
    free(y);
    free(was);
    free(m);
}

/* Two of three pairs are turned, and grow; the third stays to the bit.  x: six numbers, one every `step`. */
static void check_turned(const float *x, size_t step, int first, const double freq[2])
{
    for (int i = 0; i < 2; i++) {
        double angle = 300 * freq[i], re = first + i, im = first + i + 2;
        assert_true(fabs((double)x[i * step] - 1.5 * (re * cos(angle) - im * sin(angle))) < 1e-5);
        assert_true(fabs((double)x[(i + 2) * step] - 1.5 * (im * cos(angle) + re * sin(angle))) <
                    1e-5);
    }
    assert_true(x[4 * step] == (float)(first + 4) && x[5 * step] == (float)(first + 5));
}

static void only_the_first_dimensions_are_turned(void **state)
{
    enum { HEAD = 6, PAGE_TOKENS = 256, SLOT = 300 - PAGE_TOKENS };
    static const double freq[2] = { 0.5, 0.25 };
    struct ops_setup setup = { .rows_max = 1,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 6,
                               .rope_dim = 4,
                               .rope_amplitude = 1.5,
                               .positions_max = 400,
                               .rope_freq = freq,
                               .kv = { .n_pages = 1,
                                       .page_bytes = 2 * HEAD * PAGE_TOKENS * sizeof(float),
                                       .page_tokens = PAGE_TOKENS,
                                       .n_heads_model = 1,
                                       .dtype = DTYPE_F32 } };
    float *pool = mem_zalloc(2 * HEAD * PAGE_TOKENS, sizeof *pool), *v = pool + HEAD * PAGE_TOKENS;
    uint32_t page[2] = { 0, 0 };
    int32_t token = 0;
    struct batch_seq seq = { 0, 1, 300, 2, page };
    struct batch b = { 1, &token, 1, &seq, 0, NULL, false };

    (void)state;
    setup.kv.pages = (char *)pool;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        float x[3 * HEAD];
        struct ops_rig rig;
        if (!tier_is_here(tier))
            continue;
        for (int i = 0; i < 3 * HEAD; i++)
            x[i] = (float)(i + 1);
        rig = ops_rig_open(tier, 1, &setup);
        rig.ops->begin(rig.stream, &b, &(struct ops_step){ 0 });
        rig.ops->rope_kv_write(rig.stream, x, NULL, 0);
        check_turned(x, 1, 1, freq);
        check_turned(pool + SLOT, PAGE_TOKENS, 1 + HEAD, freq);
        for (int i = 0; i < HEAD; i++)
            assert_true(v[SLOT * HEAD + i] == (float)(1 + 2 * HEAD + i));
        ops_rig_close(&rig);
    }
    free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixtures_are_near_double),
        cmocka_unit_test(a_row_is_the_same_bits_alone_and_in_any_batch),
        cmocka_unit_test(an_expert_is_a_dense_mlp_to_the_bit),
        cmocka_unit_test(ties_go_to_the_lower_index),
        cmocka_unit_test(scores_that_are_no_numbers_harm_nobody_else),
        cmocka_unit_test(rows_are_gated_by_a_sigmoid),
        cmocka_unit_test(normalised_rows_are_added_to_the_columns_asked_for),
        cmocka_unit_test(only_the_first_dimensions_are_turned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
