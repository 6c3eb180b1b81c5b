/* test_cuda_gemv.c - the kernels for a few rows against sums in double, and against themselves in other company.
 *
 * What would break in production: a wrong column at the ragged end of a row, a bias or a norm left out, a matrix
 * that writes into its neighbour's columns; and a row whose result depends on what is decoded beside it, so that
 * a replay contradicts what a client has already got. */
#include "gpu-worker/cuda/kernels/gemv.h"
#include "tests/cuda/product_rig.h"

static const struct gemv_device big = { 100, 227 << 10, 227 << 10 };
static const struct gemv_device small = { 3, 96 << 10, 100 << 10 };
static const struct gemv_device no_room = { 3, 8 << 10, 100 << 10 }; /* nothing is staged */

#define FOR_EACH_FORMAT(f) for (uint32_t f = 0; f < N_GEMV_FORMATS; f++)

static enum dtype type_of(uint32_t format)
{
    static const enum dtype types[N_GEMV_FORMATS] = {
        [GEMV_F32] = DTYPE_F32,   [GEMV_F16] = DTYPE_F16, [GEMV_BF16] = DTYPE_BF16,
        [GEMV_E4M3] = DTYPE_E4M3, [GEMV_I8] = DTYPE_I8,   [GEMV_I4] = DTYPE_I4,
        [GEMV_I4M] = DTYPE_I4M,
    };

    return types[format];
}

enum { N_W_MAX = GEMV_MATRICES_MAX };

#define LIMIT 2e-6

static struct l1_error errors[N_GEMV_FORMATS][2]; /* of each kernel: of 1, 8 rows */

static struct l1_error *error_of(uint32_t format, uint32_t n_rows)
{
    return &errors[format][n_rows > 1];
}

/* One launch and what it works on. */
struct product {
    uint32_t format, n_rows, cols, n_w;
    struct device_matrix w[N_W_MAX];
    float *bias[N_W_MAX], *x, *y, *norm;
    uint32_t *rows;
    uint32_t y_cols;
    struct gemv_args args;
};

static struct product product_new(struct random *r, uint32_t format, uint32_t n_rows, uint32_t cols,
                                  const uint32_t *rows, uint32_t n_w)
{
    struct product p = { .format = format, .n_rows = n_rows, .cols = cols, .n_w = n_w };

    for (uint32_t i = 0; i < n_w; i++) {
        p.w[i] = device_matrix_random(r, type_of(format), rows[i], cols, NULL);
        p.args.w[i] =
            (struct gemv_matrix){ .data = p.w[i].data, .rows = rows[i], .column = p.y_cols };
        p.y_cols += rows[i];
    }
    p.x = random_floats(r, (size_t)n_rows * cols);
    p.y = random_floats(r, (size_t)n_rows * p.y_cols);
    p.args.y = p.y;
    p.args.x = p.x;
    p.args.y_stride = p.y_cols;
    p.args.x_stride = cols;
    p.args.n_rows = n_rows;
    p.args.cols = cols;
    p.args.n_w = n_w;
    return p;
}

static void product_free(struct product *p)
{
    for (uint32_t i = 0; i < p->n_w; i++) {
        device_matrix_free(&p->w[i]);
        free(p->bias[i]);
    }
    free(p->x);
    free(p->y);
    free(p->norm);
    free(p->rows);
}

static void give_biases(struct random *r, struct product *p)
{
    for (uint32_t i = 0; i < p->n_w; i++)
        p->args.w[i].bias = p->bias[i] = random_floats(r, p->w[i].rows);
}

/* And rows of x in another order, some twice. */
static void give_norm(struct random *r, struct product *p)
{
    p->args.norm = p->norm = random_floats(r, p->cols);
    p->args.eps = 1e-5f;
    p->rows = mem_alloc(p->n_rows * sizeof *p->rows);
    for (uint32_t t = 0; t < p->n_rows; t++)
        p->rows[t] = (uint32_t)(random_u64(r) % p->n_rows);
    p->args.rows = p->rows;
}

static void run(struct product *p, const struct gemv_device *d)
{
    struct gemv_launch l = gemv_launch(&p->args, p->format, 0, d);
    struct written y = { p->y, (size_t)p->n_rows * p->y_cols * sizeof *p->y };

    launch(l.kernel, l.grid_x, l.grid_y, l.shared_bytes, &p->args, sizeof p->args, &y, 1);
}

/* In one order of threads. */
static void run_once(struct product *p, const struct gemv_device *d)
{
    struct gemv_launch l = gemv_launch(&p->args, p->format, 0, d);

    l1_launch(l.kernel, l.grid_x, l.grid_y, 1, l.shared_bytes, &p->args, sizeof p->args);
}

/* x' of row t of y, in double but for being rounded to floats at the end. */
static float *input_of(const struct product *p, uint32_t t)
{
    const float *x = p->x + (size_t)(p->rows ? p->rows[t] : t) * p->cols;
    float *y = mem_alloc(p->cols * sizeof *y);
    double sum = 0, scale;

    for (uint32_t k = 0; k < p->cols; k++)
        sum += (double)x[k] * x[k];
    scale = 1 / sqrt(sum / p->cols + (double)p->args.eps);
    for (uint32_t k = 0; k < p->cols; k++)
        y[k] = p->norm ? (float)(p->norm[k] * (x[k] * scale)) : x[k];
    return y;
}

/* w[m] x' + bias of one element. */
static struct exact exact_of(const struct product *p, uint32_t m, uint32_t row, const float *x)
{
    struct exact e = dot(p->w[m].values + (size_t)row * p->cols, x, p->cols);
    double bias = p->bias[m] ? p->bias[m][row] : 0;

    return (struct exact){ e.sum + bias, e.magnitude + fabs(bias) };
}

static double act(uint32_t mode, double z)
{
    if (mode == GEMV_GATED_SILU)
        return z / (1 + exp(-z));
    return 0.5 * z * (1 + tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)));
}

static void assert_row(const struct product *p, uint32_t t, const float *before)
{
    const char *name = gemv_kernel(p->format, gemv_slots(p->n_rows));
    float *x = input_of(p, t);

    for (uint32_t m = 0; m < p->n_w; m++)
        for (uint32_t i = 0; i < p->w[m].rows; i++) {
            size_t at = (size_t)t * p->y_cols + p->args.w[m].column + i;
            struct exact e = exact_of(p, m, i, x);
            double old = p->args.mode == GEMV_ADD ? before[at] : 0;
            compare(error_of(p->format, p->n_rows), name, t, (uint32_t)at, p->y[at], e.sum + old,
                    e.magnitude + fabs(old), LIMIT);
        }
    free(x);
}

static void run_and_check(struct product *p, const struct gemv_device *d)
{
    size_t bytes = (size_t)p->n_rows * p->y_cols * sizeof(float);
    float *before = mem_alloc(bytes);

    memcpy(before, p->y, bytes);
    run(p, d);
    for (uint32_t t = 0; t < p->n_rows; t++)
        assert_row(p, t, before);
    free(before);
}

/* ---- against double ---- */

static void products_of_any_shape_are_right(void **state)
{
    struct random r = random_begin("products_of_any_shape_are_right");
    static const uint32_t shapes[][3] = { { 1, 1, 1 },   { 1, 40, 64 },  { 2, 33, 100 },
                                          { 3, 16, 65 }, { 5, 50, 258 }, { 7, 17, 7 },
                                          { 8, 20, 96 }, { 19, 9, 130 }, { 1, 16, 2500 } };

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        FOR_EACH_FORMAT(f)
        {
            struct product p = product_new(&r, f, shapes[s][0], shapes[s][2], &shapes[s][1], 1);
            run_and_check(&p, s % 2 ? &small : &big);
            product_free(&p);
        }
}

static void norm_rows_bias_and_sum_are_taken(void **state)
{
    struct random r = random_begin("norm_rows_bias_and_sum_are_taken");
    static const uint32_t rows[] = { 21 };

    (void)state;
    FOR_EACH_FORMAT(f)
    for (uint32_t n = 1; n <= 6; n += 5) {
        struct product p = product_new(&r, f, n, 76, rows, 1);
        give_biases(&r, &p);
        give_norm(&r, &p);
        p.args.mode = GEMV_ADD;
        run_and_check(&p, &small);
        product_free(&p);
    }
}

static void matrices_stand_side_by_side(void **state)
{
    struct random r = random_begin("matrices_stand_side_by_side");
    static const uint32_t rows[] = { 40, 3, 17, 33 };

    (void)state;
    FOR_EACH_FORMAT(f)
    {
        struct product p = product_new(&r, f, 3, 64, rows, 4);
        give_biases(&r, &p);
        run_and_check(&p, &small);
        product_free(&p);
    }
}

static void gate_and_up_become_one(void **state)
{
    struct random r = random_begin("gate_and_up_become_one");
    static const uint32_t rows[] = { 35, 35 };

    (void)state;
    FOR_EACH_FORMAT(f)
    for (uint32_t mode = GEMV_GATED_SILU; mode <= GEMV_GATED_GELU; mode++) {
        struct product p = product_new(&r, f, 2, 64, rows, 2);
        give_biases(&r, &p);
        p.args.mode = mode;
        run(&p, &small);
        for (uint32_t t = 0; t < p.n_rows; t++)
            for (uint32_t i = 0; i < rows[0]; i++) {
                struct exact gate = exact_of(&p, 0, i, p.x + (size_t)t * p.cols);
                struct exact up = exact_of(&p, 1, i, p.x + (size_t)t * p.cols);
                compare(error_of(f, 2), "gated", t, i, p.y[(size_t)t * p.y_cols + i],
                        act(mode, gate.sum) * up.sum, (1 + gate.magnitude) * (1 + up.magnitude),
                        LIMIT);
            }
        product_free(&p);
    }
}

static void logits_are_capped(void **state)
{
    struct random r = random_begin("logits_are_capped");
    static const uint32_t rows[] = { 50 };

    (void)state;
    FOR_EACH_FORMAT(f)
    {
        struct product p = product_new(&r, f, 1, 128, rows, 1);
        p.args.mode = GEMV_SOFTCAP;
        p.args.softcap = 2;
        run(&p, &small);
        for (uint32_t i = 0; i < rows[0]; i++) {
            struct exact e = exact_of(&p, 0, i, p.x);
            compare(error_of(f, 1), "softcap", 0, i, p.y[i], 2 * tanh(e.sum / 2), 1 + e.magnitude,
                    LIMIT);
        }
        product_free(&p);
    }
}

/* ---- against itself ---- */

/* The bits of row t are those that it has alone, from a GPU of another size. */
static void assert_rows_alone(struct product *p, const struct gemv_device *d)
{
    size_t bytes = p->y_cols * sizeof(float);
    float *y = mem_alloc(bytes);

    for (uint32_t t = 0; t < p->n_rows; t++) {
        struct gemv_args one = p->args;
        one.n_rows = 1;
        one.y = y;
        one.rows = p->args.rows ? p->args.rows + t : NULL;
        one.x = p->args.rows ? p->x : p->x + (size_t)t * p->cols;
        struct gemv_launch l = gemv_launch(&one, p->format, 0, d);
        l1_launch(l.kernel, l.grid_x, l.grid_y, 1, l.shared_bytes, &one, sizeof one);
        if (memcmp(y, p->y + (size_t)t * p->y_cols, bytes) != 0)
            fail_msg("%s: row %u of %u has other bits alone", l.kernel, t, p->n_rows);
    }
    free(y);
}

static void a_row_has_the_same_bits_in_any_company(void **state)
{
    struct random r = random_begin("a_row_has_the_same_bits_in_any_company");
    static const uint32_t rows[] = { 40, 9 };

    (void)state;
    FOR_EACH_FORMAT(f)
    for (uint32_t n = 2; n <= 11; n += 3) {
        struct product p = product_new(&r, f, n, 332, rows, 2);
        give_norm(&r, &p);
        run_once(&p, &big);
        assert_rows_alone(&p, &small);
        product_free(&p);
    }
}

static void a_row_has_the_same_bits_whether_x_is_staged(void **state)
{
    struct random r = random_begin("a_row_has_the_same_bits_whether_x_is_staged");
    static const uint32_t rows[] = { 20 }, widths[] = { 300, 328 };

    (void)state;
    for (size_t c = 0; c < 2; c++)
        FOR_EACH_FORMAT(f)
        {
            struct product p = product_new(&r, f, 5, widths[c], rows, 1);
            give_norm(&r, &p);
            run_once(&p, &small);
            assert_int_equal(p.args.staged, 1);
            assert_rows_alone(&p, &no_room);
            product_free(&p);
        }
}

static void an_input_wider_than_shared_memory_is_read_in_place(void **state)
{
    struct random r = random_begin("an_input_wider_than_shared_memory_is_read_in_place");
    static const uint32_t rows[] = { 3 }, some[] = { GEMV_F16, GEMV_E4M3, GEMV_I4 };

    (void)state;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        uint32_t f = some[i];
        struct product p = product_new(&r, f, 2, 28672, rows, 1);
        run_and_check(&p, &small);
        assert_int_equal(p.args.staged, 0);
        product_free(&p);
    }
}

/* ---- groups ---- */

/* Three experts, the second of whom nobody chose; their matrices stand at equal distances. */
static void groups_use_their_experts_matrices(void **state)
{
    struct random r = random_begin("groups_use_their_experts_matrices");
    enum { COLS = 70, ROWS = 19, PAIRS = 11, N_ROWS = 8 };
    static const struct moe_group groups[] = { { 0, 0, 8 }, { 2, 8, 3 }, { 0, 0, 0 } };
    static const uint32_t row_of[PAIRS] = { 0, 1, 2, 3, 4, 5, 6, 7, 2, 5, 7 };

    (void)state;
    FOR_EACH_FORMAT(f)
    {
        struct device_matrix w[3] = { { .type = type_of(f), .rows = ROWS, .cols = COLS } };
        size_t bytes = device_matrix_bytes(&w[0]);
        char *data = aligned_mem(64, 3 * bytes);
        float *bias = random_floats(&r, 3 * ROWS), *x = random_floats(&r, N_ROWS * COLS);
        float *y = random_floats(&r, PAIRS * ROWS);
        struct gemv_args a = { .y = y,
                               .x = x,
                               .rows = row_of,
                               .groups = groups,
                               .y_stride = ROWS,
                               .x_stride = COLS,
                               .n_rows = N_ROWS,
                               .cols = COLS,
                               .n_w = 1,
                               .w = { { data, bias, bytes, ROWS, ROWS, 0 } } };
        struct gemv_launch l = gemv_launch(&a, f, 3, &small);

        for (uint32_t e = 0; e < 3; e++)
            w[e] = device_matrix_random(&r, type_of(f), ROWS, COLS, data + e * bytes);
        launch(l.kernel, l.grid_x, l.grid_y, l.shared_bytes, &a, sizeof a,
               &(struct written){ y, PAIRS * ROWS * sizeof *y }, 1);
        for (uint32_t p = 0; p < PAIRS; p++)
            for (uint32_t i = 0; i < ROWS; i++) {
                uint32_t e = p < 8 ? 0 : 2;
                struct exact want =
                    dot(w[e].values + (size_t)i * COLS, x + (size_t)row_of[p] * COLS, COLS);
                compare(error_of(f, N_ROWS), l.kernel, p, i, y[p * ROWS + i],
                        want.sum + bias[e * ROWS + i], want.magnitude + 1, LIMIT);
            }
        for (uint32_t e = 0; e < 3; e++)
            free(w[e].values);
        free(data);
        free(bias);
        free(x);
        free(y);
    }
}

static void every_kernel_has_been_measured(void **state)
{
    (void)state;
    FOR_EACH_FORMAT(f)
    for (uint32_t slots = 1; slots <= GEMV_ROWS_MAX; slots += GEMV_ROWS_MAX - 1) {
        assert_true(error_of(f, slots)->largest > 0);
        l1_expect(gemv_kernel(f, slots), error_of(f, slots), LIMIT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_any_shape_are_right),
        cmocka_unit_test(norm_rows_bias_and_sum_are_taken),
        cmocka_unit_test(matrices_stand_side_by_side),
        cmocka_unit_test(gate_and_up_become_one),
        cmocka_unit_test(logits_are_capped),
        cmocka_unit_test(a_row_has_the_same_bits_in_any_company),
        cmocka_unit_test(a_row_has_the_same_bits_whether_x_is_staged),
        cmocka_unit_test(an_input_wider_than_shared_memory_is_read_in_place),
        cmocka_unit_test(groups_use_their_experts_matrices),
        cmocka_unit_test(every_kernel_has_been_measured),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
