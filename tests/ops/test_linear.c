/* test_linear.c - the matrix product of every tier against double precision.
 *
 * What would break in production: a row or token left out at the edge of a tile; a sum whose order depends
 * on the tile, so that an answer changes with the company it is computed in. */
#include "tests/ops/ops_rig.h"

enum { TOKENS_MAX = 25 }; /* twice the widest tile and one */

struct problem {
    uint32_t rows, cols;
    enum dtype dtype;
    float *w, *x, *bias;
    void *coded;
};

static struct problem problem_new(struct random *r, uint32_t rows, uint32_t cols, enum dtype dtype)
{
    struct problem p = { .rows = rows, .cols = cols, .dtype = dtype };

    p.w = random_floats(r, (size_t)rows * cols);
    p.x = random_floats(r, (size_t)TOKENS_MAX * cols);
    p.bias = random_floats(r, rows);
    p.coded = pack_matrix(p.w, rows, cols, dtype);
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->w);
    free(p->x);
    free(p->bias);
    free(p->coded);
}

static float *run(const struct problem *p, struct ops_rig *r, uint32_t first_token, uint32_t n,
                  bool bias, enum linear_mode mode)
{
    struct weight w = { p->coded, p->dtype, p->rows, p->cols, bias ? p->bias : NULL };
    size_t stride = p->rows + 3;
    float *y = mem_alloc(n * stride * sizeof *y);

    for (size_t i = 0; i < n * stride; i++)
        y[i] = 0.5f;
    r->ops->linear(r->stream, y, stride, p->x + (size_t)first_token * p->cols, n, NULL, &w, 1,
                   mode);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = p->rows; i < stride; i++)
            assert_true(y[t * stride + i] == 0.5f); /* nothing written past a row */
    return y;
}

/* The tier of BF16 products rounds their input. */
static double input(const struct problem *p, enum cpu_tier tier, size_t i)
{
    bool rounds = tier == CPU_AVX512BF16 && p->dtype == DTYPE_BF16;

    return rounds ? bf16_to_float(float_to_bf16(p->x[i])) : p->x[i];
}

static void check(const struct problem *p, enum cpu_tier tier, const float *y, uint32_t n,
                  bool bias, bool add)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < p->rows; i++) {
            double sum = (bias ? p->bias[i] : 0) + (add ? 0.5 : 0), terms = fabs(sum);
            float got = y[t * (p->rows + 3) + i];
            for (uint32_t k = 0; k < p->cols; k++) {
                double term = p->w[(size_t)i * p->cols + k] * input(p, tier, t * p->cols + k);
                sum += term;
                terms += fabs(term);
            }
            if (!(fabs(got - sum) <= 1e-5 * terms + 1e-30))
                fail_msg("row %u of %u, token %u of %u, %u columns, %s: %.9g, wanted %.9g", i,
                         p->rows, t, n, p->cols, dtype_name(p->dtype), got, sum);
        }
}

static const uint32_t shapes[][2] = { { 1, 1 },   { 3, 7 },   { 4, 8 },    { 5, 15 },
                                      { 8, 16 },  { 17, 17 }, { 31, 33 },  { 64, 96 },
                                      { 130, 5 }, { 7, 688 }, { 259, 130 } };

static void every_shape_is_near_double(void **state)
{
    struct random r = random_begin("every_shape_is_near_double");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        struct ops_rig rig;
        if (!tier_is_here(tier))
            continue;
        rig = ops_rig_open(tier, 3, NULL);
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
                struct problem p = problem_new(&r, shapes[s][0], shapes[s][1], dtype);
                for (uint32_t n = 1; n <= TOKENS_MAX; n++) {
                    bool bias = n % 2, add = n % 3 == 0;
                    float *y = run(&p, &rig, 0, n, bias, add ? LINEAR_ADD : LINEAR_SET);
                    check(&p, tier, y, n, bias, add);
                    free(y);
                }
                problem_free(&p);
            }
        ops_rig_close(&rig);
    }
}

/* A token's outputs are the same bits alone and as any row of any batch, with any number of threads. */
static void company_does_not_change_bits(void **state)
{
    struct random r = random_begin("company_does_not_change_bits");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        if (!tier_is_here(tier))
            continue;
        for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            struct problem p = problem_new(&r, 1027, 205, dtype);
            struct ops_rig one = ops_rig_open(tier, 1, NULL), many = ops_rig_open(tier, 5, NULL);
            float *alone[TOKENS_MAX];
            for (uint32_t t = 0; t < TOKENS_MAX; t++)
                alone[t] = run(&p, &one, t, 1, true, LINEAR_ADD);
            for (uint32_t n = 1; n <= TOKENS_MAX; n++)
                for (uint32_t first = 0; first + n <= TOKENS_MAX; first += 3) {
                    float *y = run(&p, n % 2 ? &many : &one, first, n, true, LINEAR_ADD);
                    for (uint32_t t = 0; t < n; t++)
                        assert_memory_equal(y + t * (p.rows + 3), alone[first + t],
                                            p.rows * sizeof *y);
                    free(y);
                }
            for (uint32_t t = 0; t < TOKENS_MAX; t++)
                free(alone[t]);
            ops_rig_close(&one);
            ops_rig_close(&many);
            problem_free(&p);
        }
    }
}

/* A row's sum is the same bits wherever it stands in a panel: a shard of another size must not differ. */
static void cut_of_rows_does_not_change_bits(void **state)
{
    struct random r = random_begin("cut_of_rows_does_not_change_bits");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        struct problem p;
        struct ops_rig rig;
        float *whole;
        if (!tier_is_here(tier))
            continue;
        p = problem_new(&r, 71, 91, DTYPE_BF16);
        rig = ops_rig_open(tier, 1, NULL);
        whole = run(&p, &rig, 0, 5, false, LINEAR_SET);
        for (uint32_t first = 0; first < p.rows; first += 5)
            for (uint32_t count = 1; first + count <= p.rows; count += 3) {
                struct weight w = { pack_matrix(p.w + first * p.cols, count, p.cols, p.dtype),
                                    p.dtype, count, p.cols, NULL };
                float y[5 * 71];
                rig.ops->linear(rig.stream, y, count, p.x, 5, NULL, &w, 1, LINEAR_SET);
                for (uint32_t t = 0; t < 5; t++)
                    assert_memory_equal(y + t * count, whole + t * (p.rows + 3) + first,
                                        count * sizeof *y);
                free((void *)(uintptr_t)w.data);
            }
        free(whole);
        ops_rig_close(&rig);
        problem_free(&p);
    }
}

/* More tokens than one supertile, more columns than one block, more panels than one group. */
static void a_prompt_is_as_its_tokens_alone(void **state)
{
    enum { TOKENS = 251, COLS = 523, ROWS = 170 };
    struct random r = random_begin("a_prompt_is_as_its_tokens_alone");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (enum dtype dtype = DTYPE_F32; tier_is_here(tier) && dtype <= DTYPE_BF16; dtype++) {
            float *x = random_floats(&r, TOKENS * COLS), *rows = random_floats(&r, ROWS * COLS);
            float *y = mem_alloc(TOKENS * ROWS * sizeof *y), alone[ROWS];
            struct weight w = { pack_matrix(rows, ROWS, COLS, dtype), dtype, ROWS, COLS, NULL };
            struct ops_rig rig = ops_rig_open(tier, 3, NULL);
            rig.ops->linear(rig.stream, y, ROWS, x, TOKENS, NULL, &w, 1, LINEAR_SET);
            for (uint32_t t = 0; t < TOKENS; t += 1 + t % 3) {
                rig.ops->linear(rig.stream, alone, ROWS, x + (size_t)t * COLS, 1, NULL, &w, 1,
                                LINEAR_SET);
                assert_memory_equal(alone, y + (size_t)t * ROWS, sizeof alone);
            }
            ops_rig_close(&rig);
            free(x);
            free(y);
            free(rows);
            free((void *)(uintptr_t)w.data);
        }
}

/* The norm on the way in gives the bits of rmsnorm() and a product, also of chosen rows and of a residual. */
static void norm_on_the_way_in_is_rmsnorm(void **state)
{
    enum { TOKENS = 9, COLS = 301, ROWS = 40 };
    struct random r = random_begin("norm_on_the_way_in_is_rmsnorm");
    static const uint32_t chosen[3] = { 1, 4, 8 };

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (enum dtype dtype = DTYPE_F32; tier_is_here(tier) && dtype <= DTYPE_BF16; dtype++) {
            float *x = random_floats(&r, TOKENS * COLS), *rows = random_floats(&r, ROWS * COLS);
            float *scale = random_floats(&r, COLS), normed[TOKENS * COLS];
            float y[TOKENS * ROWS], wanted[TOKENS * ROWS];
            struct weight w = { pack_matrix(rows, ROWS, COLS, dtype), dtype, ROWS, COLS, NULL };
            struct norm all = { scale, 1e-5f, NULL }, some = { scale, 1e-5f, chosen };
            struct ops_rig rig = ops_rig_open(tier, 2, NULL);
            rig.ops->rmsnorm(rig.stream, normed, x, TOKENS, &all, COLS);
            rig.ops->linear(rig.stream, wanted, ROWS, normed, TOKENS, NULL, &w, 1, LINEAR_SET);
            rig.ops->linear(rig.stream, y, ROWS, x, TOKENS, &all, &w, 1, LINEAR_SET);
            assert_memory_equal(y, wanted, sizeof y);
            rig.ops->logits(rig.stream, y, ROWS, x, 3, &some, &w, 0);
            for (uint32_t i = 0; i < 3; i++)
                assert_memory_equal(y + i * ROWS, wanted + chosen[i] * ROWS, ROWS * sizeof *y);
            ops_rig_close(&rig);
            free(x);
            free(rows);
            free(scale);
            free((void *)(uintptr_t)w.data);
        }
}

/* Infinity, NaN, subnormals and the largest halves come through; a zero row gives exactly 0. */
static void extremes_come_through(void **state)
{
    float w[4][3] = {
        { 0, 0, 0 },                    /* zeros */
        { INFINITY, 0, 0 },             /* infinity */
        { NAN, 1, 1 },                  /* NaN */
        { 0x1p-24f, -0x1p-24f, 65504 }, /* the smallest subnormals, the largest half */
    };
    static const float x[3] = { 1, 2, 3 };

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        struct weight m = { NULL, DTYPE_F16, 4, 3, NULL };
        struct ops_rig rig;
        float y[4];
        if (!tier_is_here(tier))
            continue;
        m.data = pack_matrix(w[0], 4, 3, DTYPE_F16);
        rig = ops_rig_open(tier, 1, NULL);
        rig.ops->linear(rig.stream, y, 4, x, 1, NULL, &m, 1, LINEAR_SET);
        assert_true(y[0] == 0);
        assert_true(isinf(y[1]) && y[1] > 0);
        assert_true(isnan(y[2]));
        assert_true(y[3] == 65504.0f * 3);
        ops_rig_close(&rig);
        free((void *)(uintptr_t)m.data);
    }
}

/* Gate and up of many tokens are computed some panels at a time; a token alone has them whole. */
static void gate_and_up_are_the_same_bits_in_parts(void **state)
{
    enum { ROWS = 711, COLS = 65, TOKENS = 250 };
    static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_I8, DTYPE_I4 };
    struct random r = random_begin("gate_and_up_are_the_same_bits_in_parts");
    struct ops_setup setup = ops_rig_setup();
    float *x = random_floats(&r, (size_t)TOKENS * COLS);
    float *bias = random_floats(&r, 2 * ROWS), *alone = mem_alloc(ROWS * sizeof *alone);
    float *y = mem_alloc((size_t)TOKENS * ROWS * sizeof *y);

    (void)state;
    setup.gated_max = ROWS;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t d = 0; tier_is_here(tier) && d < sizeof dtypes / sizeof *dtypes; d++) {
            struct ops_rig rig = ops_rig_open(tier, 1, &setup); /* more would have a part each */
            float *w = random_floats(&r, (size_t)2 * ROWS * COLS);
            struct weight gate = { pack_matrix(w, ROWS, COLS, dtypes[d]), dtypes[d], ROWS, COLS,
                                   bias };
            struct weight up = { pack_matrix(w + ROWS * COLS, ROWS, COLS, dtypes[d]), dtypes[d],
                                 ROWS, COLS, bias + ROWS };
            rig.ops->gated(rig.stream, y, ROWS, x, TOKENS, NULL, &gate, &up, ACT_SILU);
            for (uint32_t t = 0; t < TOKENS; t += 83) {
                rig.ops->gated(rig.stream, alone, ROWS, x + t * COLS, 1, NULL, &gate, &up,
                               ACT_SILU);
                assert_memory_equal(y + (size_t)t * ROWS, alone, ROWS * sizeof *y);
            }
            free((void *)(uintptr_t)gate.data);
            free((void *)(uintptr_t)up.data);
            free(w);
            ops_rig_close(&rig);
        }
    free(x);
    free(bias);
    free(alone);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_near_double),
        cmocka_unit_test(company_does_not_change_bits),
        cmocka_unit_test(cut_of_rows_does_not_change_bits),
        cmocka_unit_test(a_prompt_is_as_its_tokens_alone),
        cmocka_unit_test(norm_on_the_way_in_is_rmsnorm),
        cmocka_unit_test(gate_and_up_are_the_same_bits_in_parts),
        cmocka_unit_test(extremes_come_through),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
