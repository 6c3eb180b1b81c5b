/* test_int_linear.c - the integer products of every tier: exact sums, the same bits everywhere.
 *
 * What would break in production: a sum that saturates or has the wrong sign for one weight in a thousand; a
 * row or token left out at the edge of a tile, a panel or a block; an answer that depends on the machine,
 * the threads or the company it is computed in. */
#include "gpu-worker/ops/packing.h"
#include "tests/ops/ops_rig.h"

enum {
    TOKENS_MAX = 109,  /* more than two chunks of tiles (int_tiles.h) */
    MANY_TOKENS = 270, /* more than a group of tiles (int_groups.h) */
};

/* Every number up to 23, which make four tiles of 6 or two of 16, then some. */
static uint32_t next_count(uint32_t n)
{
    return n + (n < 23 ? 1 : 10);
}

/* A matrix given by its codes and their numbers, and inputs. */
struct problem {
    uint32_t rows, cols, n_blocks;
    enum dtype dtype;
    uint32_t n_numbers; /* of a row */
    int8_t *codes;      /* [rows, cols] */
    uint16_t *numbers;  /* [rows, n_numbers] */
    float *x;           /* [TOKENS_MAX, cols], or more tokens */
    float *bias;
    void *packed;
};

static void pack(struct problem *p)
{
    uint32_t height = packing_panel_rows(p->dtype);
    size_t bytes = packing_panel_bytes(p->dtype, p->cols);

    for (uint32_t i = 0; i < packing_panels(p->dtype, p->rows); i++) {
        uint32_t first = i * height, left = p->rows - first;
        packing_pack_codes(
            p->dtype, (char *)p->packed + i * bytes, p->codes + (size_t)first * p->cols,
            p->numbers + (size_t)first * p->n_numbers, left < height ? left : height, p->cols);
    }
}

static struct problem problem_new(struct random *r, uint32_t rows, uint32_t cols, enum dtype dtype)
{
    uint32_t n_blocks = (cols + 31) / 32, n_numbers = n_blocks * packing_numbers(dtype);
    struct problem p = { rows, cols, n_blocks, dtype, n_numbers, NULL, NULL, NULL, NULL, NULL };
    size_t bytes = packing_bytes(dtype, rows, cols);

    p.codes = random_codes(r, dtype, (size_t)rows * cols);
    p.numbers = random_halves(r, (size_t)rows * n_numbers, 0.01f);
    p.x = random_floats(r, (size_t)TOKENS_MAX * cols);
    p.bias = random_floats(r, rows);
    p.packed = aligned_mem(64, bytes);
    memset(p.packed, 0xa5, bytes);
    pack(&p);
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->codes);
    free(p->numbers);
    free(p->x);
    free(p->bias);
    free(p->packed);
}

static size_t stride_of(const struct problem *p)
{
    return p->rows + 3;
}

static float *run(const struct problem *p, struct ops_rig *r, uint32_t first, uint32_t n,
                  const float *bias, enum linear_mode mode)
{
    struct weight w = { p->packed, p->dtype, p->rows, p->cols, bias };
    size_t stride = stride_of(p);
    float *y = mem_alloc(n * stride * sizeof *y);

    for (size_t i = 0; i < n * stride; i++)
        y[i] = 0.5f;
    r->ops->linear(r->stream, y, stride, p->x + (size_t)first * p->cols, n, NULL, &w, 1, mode);
    for (uint32_t t = 0; t < n; t++)
        for (size_t i = p->rows; i < stride; i++)
            assert_true(y[t * stride + i] == 0.5f); /* nothing written past a row */
    return y;
}

/* ---- against double precision, on the very codes ---- */

/* The input's block as int_input.h says it is rounded. */
static float round_block(const float *x, uint32_t n, int *codes)
{
    float m = 0;

    for (uint32_t k = 0; k < n; k++)
        m = fabsf(x[k]) > m ? fabsf(x[k]) : m;
    for (uint32_t k = 0; k < n; k++)
        codes[k] = m < 0x1p-96f ? 0 : (int)lrintf(x[k] * (127 / m));
    return m < 0x1p-96f ? 0 : m / 127;
}

struct exact {
    double sum, terms; /* and the sum of their magnitudes */
};

struct numbers {
    double scale[2], min; /* of the first and the last 16 columns */
};

static struct numbers numbers_of(const struct problem *p, uint32_t row, uint32_t b)
{
    const uint16_t *at = p->numbers + (size_t)row * p->n_numbers + b * packing_numbers(p->dtype);
    double first = f16_to_float(at[0]);
    double second = packing_numbers(p->dtype) == 2 ? f16_to_float(at[1]) : 0;

    if (p->dtype == DTYPE_I6)
        return (struct numbers){ { first, second }, 0 };
    return (struct numbers){ { first, first }, second };
}

static struct exact exact_product(const struct problem *p, uint32_t row, const float *x)
{
    struct exact e = { 0, 0 };

    for (uint32_t b = 0; b < p->n_blocks; b++) {
        uint32_t first = b * 32, n = p->cols - first < 32 ? p->cols - first : 32;
        struct numbers w = numbers_of(p, row, b);
        int codes[32];
        double xs = round_block(x + first, n, codes);
        for (uint32_t k = 0; k < n; k++) {
            double term = xs * w.scale[k / 16] * codes[k];
            double min = xs * w.min * codes[k];
            term *= p->codes[(size_t)row * p->cols + first + k];
            e.sum += term + min;
            e.terms += fabs(term) + fabs(min);
        }
    }
    return e;
}

static void check(const struct problem *p, const float *y, uint32_t first, uint32_t n, bool bias,
                  bool add)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < p->rows; i++) {
            struct exact e = exact_product(p, i, p->x + (size_t)(first + t) * p->cols);
            double wanted = e.sum + (bias ? p->bias[i] : 0) + (add ? 0.5 : 0);
            float got = y[t * stride_of(p) + i];
            if (!(fabs(got - wanted) <= 1e-5 * e.terms + 3e-7))
                fail_msg("row %u of %u, token %u of %u, %u columns, %s: %.9g, wanted %.9g", i,
                         p->rows, t, n, p->cols, dtype_name(p->dtype), got, wanted);
        }
}

static const uint32_t shapes[][2] = {
    { 1, 1 },   { 3, 7 },  { 15, 31 },  { 16, 32 }, { 17, 33 },
    { 32, 64 }, { 5, 96 }, { 40, 100 }, { 7, 688 }, { 259, 130 }
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

#define FOR_EACH_TIER(t)                                                                           \
    for (enum cpu_tier t = 0; t < N_CPU_TIERS; t++)                                                \
        if (tier_is_here(t))

static void every_shape_is_near_double(void **state)
{
    struct random r = random_begin("every_shape_is_near_double");

    (void)state;
    FOR_EACH_TIER(tier)
    {
        struct ops_rig rig = ops_rig_open(tier, 3, NULL);
        for (size_t s = 0; s < N_SHAPES; s++)
            FOR_EACH_INT(dtype)
            {
                struct problem p = problem_new(&r, shapes[s][0], shapes[s][1], dtype);
                for (uint32_t n = 1; n <= TOKENS_MAX; n = next_count(n)) {
                    bool bias = n % 2, add = n % 3 == 0;
                    float *y =
                        run(&p, &rig, 0, n, bias ? p.bias : NULL, add ? LINEAR_ADD : LINEAR_SET);
                    check(&p, y, 0, n, bias, add);
                    free(y);
                }
                problem_free(&p);
            }
        ops_rig_close(&rig);
    }
}

/* Every number of tokens of every tier gives what the plain loops give for each token alone. */
static void tiers_and_company_do_not_change_bits(void **state)
{
    struct random r = random_begin("tiers_and_company_do_not_change_bits");

    (void)state;
    FOR_EACH_INT(dtype)
    {
        struct problem p = problem_new(&r, 150, 205, dtype);
        struct ops_rig plain = ops_rig_open(CPU_PLAIN, 1, NULL);
        float *alone[TOKENS_MAX];
        for (uint32_t t = 0; t < TOKENS_MAX; t++)
            alone[t] = run(&p, &plain, t, 1, p.bias, LINEAR_ADD);
        FOR_EACH_TIER(tier)
        {
            struct ops_rig one = ops_rig_open(tier, 1, NULL), many = ops_rig_open(tier, 5, NULL);
            for (uint32_t n = 1; n <= TOKENS_MAX; n = next_count(n))
                for (uint32_t first = 0; first + n <= TOKENS_MAX; first += 23) {
                    float *y = run(&p, n % 2 ? &many : &one, first, n, p.bias, LINEAR_ADD);
                    for (uint32_t t = 0; t < n; t++)
                        if (memcmp(y + t * stride_of(&p), alone[first + t], p.rows * sizeof *y))
                            fail_msg("%s, %s: token %u of %u differs", cpu_tier_name(tier),
                                     dtype_name(dtype), t, n);
                    free(y);
                }
            ops_rig_close(&one);
            ops_rig_close(&many);
        }
        for (uint32_t t = 0; t < TOKENS_MAX; t++)
            free(alone[t]);
        ops_rig_close(&plain);
        problem_free(&p);
    }
}

enum { N_ALONE = 3 };

/* Which of MANY_TOKENS are also multiplied alone. */
static uint32_t alone_at(uint32_t i)
{
    return i * (MANY_TOKENS - 1) / (N_ALONE - 1);
}

/* The last n tokens together, against those of them that were alone. */
static void expect_bits(const struct problem *p, enum cpu_tier tier, struct ops_rig *rig,
                        uint32_t n, float *const alone[N_ALONE])
{
    uint32_t first = MANY_TOKENS - n;
    float *y = run(p, rig, first, n, p->bias, LINEAR_ADD);

    for (uint32_t i = 0; i < N_ALONE; i++) {
        uint32_t t = alone_at(i);
        if (t >= first &&
            memcmp(y + (t - first) * stride_of(p), alone[i], p->rows * sizeof *y) != 0)
            fail_msg("%s, %s: token %u of %u differs", cpu_tier_name(tier), dtype_name(p->dtype),
                     t - first, n);
    }
    free(y);
}

/* Rows so long that lone tiles fetch from the middle of a pair, a few take turns (int_tiles_dot.h), and many take the
 * columns in parts (int_groups.h); and more panels and tokens than a group. */
static void long_rows_are_the_same_bits(void **state)
{
    static const uint32_t counts[] = { 1, 2, 5, 6, 8, 12, 13, 18, 20, 32, MANY_TOKENS };
    struct random r = random_begin("long_rows_are_the_same_bits");
    const uint32_t rows = 275, cols = 3500;
    struct ops_setup setup = ops_rig_setup();

    (void)state;
    setup.cols_max = cols;
    setup.rows_max = MANY_TOKENS;
    FOR_EACH_INT(dtype)
    {
        struct problem p = problem_new(&r, rows, cols, dtype);
        struct ops_rig plain = ops_rig_open(CPU_PLAIN, 1, &setup);
        float *alone[N_ALONE];
        free(p.x);
        p.x = random_floats(&r, (size_t)MANY_TOKENS * cols);
        for (uint32_t i = 0; i < N_ALONE; i++)
            alone[i] = run(&p, &plain, alone_at(i), 1, p.bias, LINEAR_ADD);
        ops_rig_close(&plain);
        FOR_EACH_TIER(tier)
        {
            struct ops_rig rig = ops_rig_open(tier, 1, &setup);
            for (size_t i = 0; tier != CPU_PLAIN && i < sizeof counts / sizeof *counts; i++)
                expect_bits(&p, tier, &rig, counts[i], alone);
            ops_rig_close(&rig);
        }
        for (uint32_t i = 0; i < N_ALONE; i++)
            free(alone[i]);
        problem_free(&p);
    }
}

/* The norm is part of preparing, and has one order of additions for all tiers. */
static void norm_is_the_same_everywhere(void **state)
{
    struct random r = random_begin("norm_is_the_same_everywhere");
    static const uint32_t order[5] = { 3, 0, 4, 4, 1 };

    (void)state;
    for (uint32_t cols = 1; cols < 140; cols += 23) {
        struct problem p = problem_new(&r, 33, cols, DTYPE_I8);
        float *w = random_floats(&r, cols), y[5 * 33], wanted[5 * 33];
        struct norm norm = { w, 1e-5f, order };
        struct weight m = { p.packed, DTYPE_I8, 33, cols, NULL };
        FOR_EACH_TIER(tier)
        {
            struct ops_rig rig = ops_rig_open(tier, 2, NULL);
            for (uint32_t n = 1; n <= 5; n += 4) {
                rig.ops->linear(rig.stream, y, 33, p.x, n, &norm, &m, 1, LINEAR_SET);
                if (tier == CPU_PLAIN && n == 1) {
                    double squares = 0;
                    float *x = p.x;
                    memcpy(x, x + 3 * (size_t)cols, cols * sizeof *x); /* row 0 is row 3 now */
                    for (uint32_t k = 0; k < cols; k++)
                        squares += (double)x[k] * x[k];
                    for (uint32_t k = 0; k < cols; k++)
                        p.x[5 * (size_t)cols + k] =
                            (float)(w[k] * x[k] / sqrt(squares / cols + 1e-5));
                    for (uint32_t i = 0; i < 33; i++) {
                        struct exact e = exact_product(&p, i, p.x + 5 * (size_t)cols);
                        /* a code may fall to the other side of a half */
                        assert_true(fabs(y[i] - e.sum) <= 0.02 * e.terms + 1e-6);
                    }
                }
                if (tier == CPU_PLAIN)
                    memcpy(wanted, y, sizeof y);
                else
                    assert_memory_equal(wanted, y, n * 33 * sizeof *y);
                if (n == 1 && tier == CPU_PLAIN)
                    rig.ops->linear(rig.stream, wanted, 33, p.x, 5, &norm, &m, 1, LINEAR_SET);
            }
            ops_rig_close(&rig);
        }
        free(w);
        problem_free(&p);
    }
}

/* Rows of a norm in another order, as many as make tiles of every unit. */
static void norm_of_many_is_that_of_each(void **state)
{
    enum { N = 21, ROWS = 33, COLS = 205 };
    struct random r = random_begin("norm_of_many_is_that_of_each");
    struct problem p = problem_new(&r, ROWS, COLS, DTYPE_I8);
    struct weight m = { p.packed, DTYPE_I8, ROWS, COLS, NULL };
    float *w = random_floats(&r, COLS), alone[N][ROWS], y[N][ROWS];
    uint32_t order[N];

    (void)state;
    for (uint32_t t = 0; t < N; t++)
        order[t] = (t * 8 + 3) % N;
    FOR_EACH_TIER(tier)
    {
        struct ops_rig rig = ops_rig_open(tier, 2, NULL);
        struct norm all = { w, 1e-5f, order };
        for (uint32_t t = 0; tier == CPU_PLAIN && t < N; t++) {
            struct norm one = { w, 1e-5f, &order[t] };
            rig.ops->linear(rig.stream, alone[t], ROWS, p.x, 1, &one, &m, 1, LINEAR_SET);
        }
        rig.ops->linear(rig.stream, y, ROWS, p.x, N, &all, &m, 1, LINEAR_SET);
        assert_memory_equal(y, alone, sizeof y);
        ops_rig_close(&rig);
    }
    free(w);
    problem_free(&p);
}

/* All weights at the lowest and highest code, all inputs at +-127: what saturates does it here. */
static void extremes_are_exact(void **state)
{
    struct random r = random_begin("extremes_are_exact");

    (void)state;
    FOR_EACH_INT(dtype)
    {
        int low = code_range(dtype).low, high = code_range(dtype).high;
        for (int signs = 0; signs < 8; signs++) {
            struct problem p = problem_new(&r, 48, 160, dtype);
            for (uint32_t i = 0; i < p.rows * p.cols; i++)
                p.codes[i] = (int8_t)(signs & 1 ? low : signs & 2 ? high : i % 2 ? low : high);
            for (uint32_t i = 0; i < p.rows * p.n_numbers; i++)
                p.numbers[i] = 0x3c00; /* 1 */
            pack(&p);
            for (uint32_t i = 0; i < TOKENS_MAX * p.cols; i++)
                p.x[i] = signs & 4 ? 127 : i % 2 ? -127 : 127;
            FOR_EACH_TIER(tier)
            {
                struct ops_rig rig = ops_rig_open(tier, 2, NULL);
                for (uint32_t n = 1; n <= TOKENS_MAX; n += n < 4 ? 1 : 9) {
                    float *y = run(&p, &rig, 0, n, NULL, LINEAR_SET);
                    for (uint32_t t = 0; t < n; t++)
                        for (uint32_t i = 0; i < p.rows; i++)
                            assert_true((double)y[t * stride_of(&p) + i] ==
                                        exact_product(&p, i, p.x + t * p.cols).sum);
                    free(y);
                }
                ops_rig_close(&rig);
            }
            problem_free(&p);
        }
    }
}

/* Zero rows, zero inputs, one huge value among small ones, the smallest scales of f16. */
static void outliers_and_zeroes(void **state)
{
    struct random r = random_begin("outliers_and_zeroes");

    (void)state;
    FOR_EACH_INT(dtype)
    {
        struct problem p = problem_new(&r, 40, 128, dtype);
        for (uint32_t i = 0; i < p.n_numbers; i++) {
            p.numbers[3 * p.n_numbers + i] = 0;
            p.numbers[5 * p.n_numbers + i] = (uint16_t)(1 + i); /* subnormal */
        }
        pack(&p);
        memset(p.x, 0, p.cols * sizeof *p.x);
        p.x[p.cols + 77] = 1e30f;
        for (uint32_t k = 0; k < p.cols; k++)
            p.x[2 * p.cols + k] = 0x1p-97f; /* rounded to 0 */
        FOR_EACH_TIER(tier)
        {
            struct ops_rig rig = ops_rig_open(tier, 1, NULL);
            for (uint32_t n = 1; n <= 18; n += n < 7 ? 1 : 11) {
                float *y = run(&p, &rig, 0, n, NULL, LINEAR_SET);
                for (uint32_t t = 0; t < n; t++)
                    assert_true(y[t * stride_of(&p) + 3] == 0);
                for (uint32_t i = 0; i < p.rows; i++)
                    assert_true(y[i] == 0 && (n < 3 || y[2 * stride_of(&p) + i] == 0));
                check(&p, y, 0, n, false, false);
                free(y);
            }
            ops_rig_close(&rig);
        }
        problem_free(&p);
    }
}

/* What is no number must not become one: the engine stops a sequence by it. */
static void not_a_number_stays_none(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    struct random r = random_begin("not_a_number_stays_none");

    (void)state;
    FOR_EACH_INT(dtype)
    {
        struct problem p = problem_new(&r, 20, 100, dtype);
        FOR_EACH_TIER(tier)
        {
            struct ops_rig rig = ops_rig_open(tier, 1, NULL);
            for (uint32_t i = 0; i < 3; i++)
                for (uint32_t n = 1; n <= 21; n += n < 5 ? 2 : 16) {
                    float *y;
                    p.x[40] = bad[i];
                    y = run(&p, &rig, 0, n, NULL, LINEAR_SET);
                    for (uint32_t k = 0; k < p.rows; k++)
                        assert_false(isfinite(y[k]));
                    for (uint32_t k = 0; n > 1 && k < p.rows; k++)
                        assert_true(isfinite(y[stride_of(&p) + k]));
                    free(y);
                }
            ops_rig_close(&rig);
        }
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_near_double),
        cmocka_unit_test(tiers_and_company_do_not_change_bits),
        cmocka_unit_test(long_rows_are_the_same_bits),
        cmocka_unit_test(norm_is_the_same_everywhere),
        cmocka_unit_test(norm_of_many_is_that_of_each),
        cmocka_unit_test(extremes_are_exact),
        cmocka_unit_test(outliers_and_zeroes),
        cmocka_unit_test(not_a_number_stays_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
