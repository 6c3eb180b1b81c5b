/* test_cuda_gemm.c - the kernels around products of many rows: dequantise, 4-bit GEMM, int8.
 *
 * What would break in production: a prompt that is read with other weights than its answer is decoded with; a
 * stripe of columns that is added twice or never; numbers beyond a row's end in what cuBLASLt reads. */
#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/ops/e4m3.h"
#include "tests/cuda/product_rig.h"

static const char *const type_names[N_DTYPES] = {
    [DTYPE_I8] = "i8", [DTYPE_I4] = "i4", [DTYPE_I4M] = "i4m", [DTYPE_E4M3] = "e4m3"
};

static const char *kernel_of(const char *family, enum dtype t)
{
    static char name[32];

    snprintf(name, sizeof name, "%s_%s", family, type_names[t]);
    return name;
}

#define FOR_EACH_PACKED(t) for (enum dtype t = DTYPE_I8; t <= DTYPE_I4M; t++)

/* ---- dequantise ---- */

static void dequantise_and_check(struct random *r, enum dtype t, uint32_t rows, uint32_t cols,
                                 struct l1_error *error)
{
    uint32_t stride = cuda_packing_stride(cols);
    struct device_matrix m = device_matrix_random(r, t, rows, cols, NULL);
    size_t bytes = (size_t)rows * stride * 2;
    uint16_t *out = aligned_mem(16, bytes);
    struct dequantise_args a = { out, m.data, stride, rows, cols };

    memset(out, 0x55, bytes);
    if (t == DTYPE_E4M3)
        launch("dequantise_e4m3", dequantise_e4m3_grid(rows, cols), 1, 0, &a, sizeof a,
               &(struct written){ out, bytes }, 1);
    else
        launch(kernel_of("dequantise", t), dequantise_grid_x(cols), dequantise_grid_y(rows), 0, &a,
               sizeof a, &(struct written){ out, bytes }, 1);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t k = 0; k < stride; k++) {
            float want = k < cols ? m.values[(size_t)i * cols + k] : 0;
            float got = f16_to_float(out[(size_t)i * stride + k]);
            compare(error, "dequantise", i, k, got, want, 0x1p-14, 0x1p-10);
        }
    device_matrix_free(&m);
    free(out);
}

static void a_packed_matrix_becomes_its_values_as_f16(void **state)
{
    struct random r = random_begin("a_packed_matrix_becomes_its_values_as_f16");
    static const uint32_t shapes[][2] = { { 16, 64 }, { 1, 1 }, { 37, 331 }, { 20, 600 } };
    static const enum dtype types[] = { DTYPE_I8, DTYPE_I4, DTYPE_I4M, DTYPE_E4M3 };

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct l1_error error = { 0 };
        enum dtype t = types[i];
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            dequantise_and_check(&r, t, shapes[s][0], shapes[s][1], &error);
        l1_expect(kernel_of("dequantise", t), &error, 0x1p-10);
    }
}

static void tokens_of_a_packed_table_are_found(void **state)
{
    struct random r = random_begin("tokens_of_a_packed_table_are_found");
    enum { ROWS = 37, COLS = 107, FIRST = 100, N = 5 };
    static const int32_t tokens[N] = { 100, 136, 99, 137, 111 };

    (void)state;
    FOR_EACH_PACKED(t)
    {
        struct device_matrix m = device_matrix_random(&r, t, ROWS, COLS, NULL);
        float x[N * COLS];
        struct l1_error error = { 0 };
        struct embed_packed_args a = { x, m.data, tokens, COLS, COLS, FIRST, ROWS, 3 };
        for (uint32_t i = 0; i < N * COLS; i++)
            x[i] = -77;
        launch(kernel_of("embed", t), N, 1, 0, &a, sizeof a, &(struct written){ x, sizeof x }, 1);
        for (uint32_t i = 0; i < N; i++)
            for (uint32_t k = 0; k < COLS; k++) {
                int32_t row = tokens[i] - FIRST;
                bool there = row >= 0 && row < ROWS;
                double want = there ? 3.0 * m.values[row * COLS + (int32_t)k] : -77;
                compare(&error, "embed", i, k, x[i * COLS + k], want, 1e-3, 1e-6);
            }
        l1_expect(kernel_of("embed", t), &error, 1e-6);
        device_matrix_free(&m);
    }
}

/* ---- 4-bit weights on the tensor cores ---- */

struct w4 {
    struct device_matrix w;
    uint32_t n_rows, x_stride;
    uint16_t *x;
    float *bias, *y;
};

static struct w4 w4_new(struct random *r, enum dtype t, uint32_t n_rows, uint32_t rows,
                        uint32_t cols)
{
    struct w4 p = { .w = device_matrix_random(r, t, rows, cols, NULL),
                    .n_rows = n_rows,
                    .x_stride = cuda_packing_stride(cols) };
    size_t n = (size_t)n_rows * p.x_stride;

    p.x = aligned_mem(16, n * sizeof *p.x);
    for (size_t i = 0; i < n; i++)
        p.x[i] = i % p.x_stride < cols ? float_to_f16(random_float(r)) : 0;
    p.bias = random_floats(r, rows);
    p.y = random_floats(r, (size_t)n_rows * rows);
    return p;
}

static void w4_free(struct w4 *p)
{
    device_matrix_free(&p->w);
    free(p->x);
    free(p->bias);
    free(p->y);
}

/* On a GPU of so many multiprocessors; what blocks leave for each other is as large as the header says. */
static void w4_run(struct w4 *p, uint32_t n_multiprocessors, bool add)
{
    uint32_t slots = gemm_w4_slots(p->n_rows), rows = p->w.rows, cols = p->w.cols;
    uint32_t grid = gemm_w4_grid(rows, cols, n_multiprocessors), tiles = gemm_w4_tiles(rows);
    size_t arrived_bytes = tiles * sizeof(uint32_t);
    uint32_t *arrived = mem_zalloc(tiles, sizeof *arrived);
    float *partial = aligned_mem(16, gemm_w4_partial_bytes(grid, slots));
    struct gemm_w4_args a = { .y = p->y,
                              .x = p->x,
                              .w = p->w.data,
                              .bias = p->bias,
                              .partial = partial,
                              .arrived = arrived,
                              .y_stride = rows,
                              .x_stride = p->x_stride,
                              .n_rows = p->n_rows,
                              .rows = rows,
                              .cols = cols,
                              .add = add };
    struct written out[] = { { p->y, (size_t)p->n_rows * rows * sizeof *p->y },
                             { arrived, arrived_bytes } };

    memset(partial, 0xff, gemm_w4_partial_bytes(grid, slots));
    launch(gemm_w4_kernel(p->w.type == DTYPE_I4M, slots), grid, 1, gemm_w4_shared_bytes(slots), &a,
           sizeof a, out, 2);
    for (uint32_t i = 0; i < tiles; i++)
        assert_int_equal(arrived[i], 0);
    free(arrived);
    free(partial);
}

static struct l1_error w4_errors[2][3]; /* of each kernel */

static struct l1_error *w4_error(int has_min, uint32_t slots)
{
    return &w4_errors[has_min][slots / 32];
}

#define W4_LIMIT 5e-4 /* a weight is rounded to f16: an error of 2^-11 of it at most */

static void w4_check(const struct w4 *p, const float *before)
{
    int has_min = p->w.type == DTYPE_I4M;
    uint32_t slots = gemm_w4_slots(p->n_rows);
    const char *name = gemm_w4_kernel(has_min, slots);
    float *x = mem_alloc(p->x_stride * sizeof *x);

    for (uint32_t t = 0; t < p->n_rows; t++) {
        for (uint32_t k = 0; k < p->x_stride; k++)
            x[k] = f16_to_float(p->x[(size_t)t * p->x_stride + k]);
        for (uint32_t i = 0; i < p->w.rows; i++) {
            size_t at = (size_t)t * p->w.rows + i;
            struct exact e = dot(p->w.values + (size_t)i * p->w.cols, x, p->w.cols);
            double old = before ? before[at] : 0;
            compare(w4_error(has_min, slots), name, t, i, p->y[at], e.sum + p->bias[i] + old,
                    e.magnitude, W4_LIMIT);
        }
    }
    free(x);
}

static void products_with_4_bit_weights_are_right(void **state)
{
    struct random r = random_begin("products_with_4_bit_weights_are_right");
    /* rows of x, output rows, columns, multiprocessors: pieces of tiles, whole ones, one block of all */
    static const uint32_t shapes[][4] = { { 16, 128, 64, 1 },
                                          { 9, 40, 100, 2 },
                                          { 17, 300, 200, 3 },
                                          { 33, 130, 328, 4 },
                                          { 64, 129, 72, 1 } };

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum dtype t = DTYPE_I4; t <= DTYPE_I4M; t++) {
            struct w4 p = w4_new(&r, t, shapes[s][0], shapes[s][1], shapes[s][2]);
            w4_run(&p, shapes[s][3], false);
            w4_check(&p, NULL);
            w4_free(&p);
        }
}

static void a_product_with_4_bit_weights_is_added(void **state)
{
    struct random r = random_begin("a_product_with_4_bit_weights_is_added");
    struct w4 p = w4_new(&r, DTYPE_I4, 12, 140, 130);
    size_t bytes = (size_t)p.n_rows * p.w.rows * sizeof(float);
    float *before = mem_alloc(bytes);

    (void)state;
    memcpy(before, p.y, bytes);
    w4_run(&p, 2, true);
    w4_check(&p, before);
    free(before);
    w4_free(&p);
}

static void every_4_bit_kernel_has_been_measured(void **state)
{
    (void)state;
    for (int has_min = 0; has_min < 2; has_min++)
        for (uint32_t slots = 16; slots <= GEMM_W4_TOKENS_MAX; slots *= 2) {
            assert_true(w4_error(has_min, slots)->largest > 0);
            l1_expect(gemm_w4_kernel(has_min, slots), w4_error(has_min, slots), W4_LIMIT);
        }
}

/* ---- int8 ---- */

/* Of one scale a row, that of the row's largest block; the last columns are 0. */
static void check_requantised(const struct device_matrix *m, const int8_t *q, const float *scale,
                              uint32_t stride, struct l1_error *error)
{
    for (uint32_t i = 0; i < m->rows; i++)
        for (uint32_t k = 0; k < stride; k++) {
            double want = k < m->cols ? (double)m->values[(size_t)i * m->cols + k] : 0;
            double got = (double)scale[i] * q[(size_t)i * stride + k];
            compare(error, "requantise_i8", i, k, got, want, 127 * (double)scale[i] + 1e-9,
                    0.5001 / 127);
        }
}

static void int8_matrices_get_a_scale_a_row(void **state)
{
    struct random r = random_begin("int8_matrices_get_a_scale_a_row");
    static const uint32_t shapes[][2] = { { 16, 64 }, { 1, 1 }, { 37, 331 }, { 20, 1200 } };
    struct l1_error error = { 0 };

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint32_t rows = shapes[s][0], cols = shapes[s][1], stride = (cols + 15) / 16 * 16;
        struct device_matrix m = device_matrix_random(&r, DTYPE_I8, rows, cols, NULL);
        int8_t *q = aligned_mem(16, (size_t)rows * stride);
        float *scale = random_floats(&r, rows);
        struct requantise_args a = { q, scale, m.data, stride, rows, cols };
        struct written out[] = { { q, (size_t)rows * stride }, { scale, rows * sizeof *scale } };
        memset(q, 0x55, (size_t)rows * stride);
        launch("requantise_i8", dequantise_grid_y(rows), 1, 0, &a, sizeof a, out, 2);
        check_requantised(&m, q, scale, stride, &error);
        device_matrix_free(&m);
        free(q);
        free(scale);
    }
    l1_expect("requantise_i8", &error, 0.5001 / 127);
}

/* A checkpoint's codes, of the whole range of int8, and one scale for all blocks of a row. */
static void codes_of_whole_rows_are_not_rounded_again(void **state)
{
    struct random r = random_begin("codes_of_whole_rows_are_not_rounded_again");
    enum { ROWS = 5, COLS = 160 };
    int8_t codes[ROWS * COLS], *q = aligned_mem(16, ROWS * COLS);
    uint16_t numbers[ROWS * COLS / 32];
    float scale[ROWS] = { 0 };
    char *panel = aligned_mem(64, cuda_packing_panel_bytes(DTYPE_I8, COLS));
    struct requantise_args a = { q, scale, panel, COLS, ROWS, COLS };
    struct written out[] = { { q, ROWS * COLS }, { scale, sizeof scale } };

    (void)state;
    memset(q, 0x55, ROWS * COLS);
    for (uint32_t i = 0; i < ROWS * COLS; i++)
        codes[i] = i < 2 ? (int8_t)(i ? 127 : -128) : (int8_t)(random_u64(&r) & 0xff);
    for (uint32_t i = 0; i < ROWS * COLS / 32; i++)
        numbers[i] = float_to_f16(0.01f * (float)(1 + i / (COLS / 32)));
    cuda_packing_pack_codes(DTYPE_I8, panel, codes, numbers, ROWS, COLS);
    launch("requantise_i8", 1, 1, 0, &a, sizeof a, out, 2);
    assert_memory_equal(q, codes, sizeof codes);
    for (uint32_t i = 0; i < ROWS; i++)
        assert_true(scale[i] == f16_to_float(numbers[i * (COLS / 32)]));
    free(q);
    free(panel);
}

static void int32_sums_become_floats(void **state)
{
    struct random r = random_begin("int32_sums_become_floats");
    enum { N = 2, ROWS = 300 };
    float *w_scale = random_floats(&r, ROWS), *bias = random_floats(&r, ROWS);
    float x_scale[N] = { 0.5f, 0.003f }, *y = random_floats(&r, N * ROWS), before[N * ROWS];
    int32_t sums[N * ROWS];
    struct l1_error error = { 0 };
    struct w8a8_finish_args a = { y, sums, x_scale, w_scale, bias, ROWS, ROWS, ROWS, 1 };

    (void)state;
    memcpy(before, y, sizeof before);
    for (uint32_t i = 0; i < N * ROWS; i++)
        sums[i] = (int32_t)(random_u64(&r) % 20001) - 10000;
    launch("w8a8_finish", w8a8_finish_grid_x(ROWS), N, 0, &a, sizeof a,
           &(struct written){ y, sizeof before }, 1);
    for (uint32_t t = 0; t < N; t++)
        for (uint32_t i = 0; i < ROWS; i++) {
            uint32_t at = t * ROWS + i;
            double want = (double)sums[at] * w_scale[i] * x_scale[t] + bias[i] + before[at];
            compare(&error, "w8a8_finish", t, i, y[at], want, 2, 1e-6);
        }
    l1_expect("w8a8_finish", &error, 1e-6);
    free(w_scale);
    free(bias);
    free(y);
}

/* ---- rows in 8 bits ---- */

enum { CODED_ROWS = 3, CODED_COLS = 1300 };

/* A code, times the scale, is within half a step of x'; E4M3's is a part of the number, and 2^-9 scales at least. */
struct code_format {
    const char *kernel;
    double largest; /* code */
    double size;    /* scales: what an error is held against, beside the number itself .. */
    double limit;   /* .. and how much of that it may be */
};

static const struct code_format int8_codes = { "w8a8_quantise", 127, 127, 0.5001 / 127 };
static const struct code_format fp8_codes = { "fp8_quantise", 448, 0x1p-6, 0x1.001p-4 };

struct coded_rows {
    float *x, *norm, scale[CODED_ROWS];
    uint8_t q[CODED_ROWS * CODED_COLS];
};

static double code_value(const struct code_format *f, uint8_t code)
{
    return f == &int8_codes ? (double)(int8_t)code : (double)e4m3_to_float(code);
}

static void check_coded_rows(const struct coded_rows *p, const struct code_format *f,
                             const uint32_t *rows, struct l1_error *error)
{
    for (uint32_t t = 0; t < CODED_ROWS; t++) {
        const float *x = p->x + (size_t)(rows ? rows[t] : t) * CODED_COLS;
        double sum = 0, by = 1, largest = 0;
        for (uint32_t k = 0; k < CODED_COLS; k++)
            sum += (double)x[k] * x[k];
        if (rows)
            by = 1 / sqrt(sum / CODED_COLS + 1e-5);
        for (uint32_t k = 0; k < CODED_COLS; k++) {
            double want = x[k] * by * (rows ? (double)p->norm[k] : 1);
            double got = (double)p->scale[t] * code_value(f, p->q[t * CODED_COLS + k]);
            compare(error, f->kernel, t, k, got, want, p->scale[t] * f->size + 1e-12, f->limit);
            largest = fmax(largest, fabs(want));
        }
        assert_true(fabs(f->largest * p->scale[t] - largest) <= 1e-6 * largest);
    }
}

static void code_rows_and_check(const struct code_format *f)
{
    struct random r = random_begin(f->kernel);
    static const uint32_t rows[CODED_ROWS] = { 2, 0, 2 };
    struct coded_rows p = { .x = random_floats(&r, CODED_ROWS * CODED_COLS),
                            .norm = random_floats(&r, CODED_COLS) };
    struct written out[] = { { p.q, sizeof p.q }, { p.scale, sizeof p.scale } };
    struct row_quantise_args a = { .q = p.q, .scale = p.scale, .x = p.x, .cols = CODED_COLS };
    struct l1_error error = { 0 };

    memset(p.x + CODED_COLS, 0, CODED_COLS * sizeof *p.x); /* the second row */
    launch(f->kernel, CODED_ROWS, 1, 0, &a, sizeof a, out, 2);
    check_coded_rows(&p, f, NULL, &error);
    assert_true(p.scale[1] == 0 && p.q[CODED_COLS] == 0);
    a.norm = p.norm;
    a.rows = rows;
    a.eps = 1e-5f;
    launch(f->kernel, CODED_ROWS, 1, 0, &a, sizeof a, out, 2);
    check_coded_rows(&p, f, rows, &error);
    l1_expect(f->kernel, &error, f->limit);
    a.norm = NULL;
    a.rows = NULL;
    p.x[CODED_COLS - 1] = NAN; /* what went wrong before is not made a number */
    launch(f->kernel, CODED_ROWS, 1, 0, &a, sizeof a, out, 2);
    assert_true(isnan(p.scale[0]) && p.scale[1] == 0);
    free(p.x);
    free(p.norm);
}

static void rows_become_int8_by_their_own_scale(void **state)
{
    (void)state;
    code_rows_and_check(&int8_codes);
}

static void rows_become_fp8_by_their_own_scale(void **state)
{
    (void)state;
    code_rows_and_check(&fp8_codes);
}

/* ---- fp8 ---- */

static void sums_of_fp8_get_both_scales(void **state)
{
    struct random r = random_begin("sums_of_fp8_get_both_scales");
    enum { N = 2, ROWS = 300, COLS = 48 };
    struct device_matrix m = device_matrix_random(&r, DTYPE_E4M3, ROWS, COLS, NULL);
    float *sums = random_floats(&r, N * ROWS), *bias = random_floats(&r, ROWS);
    float x_scale[N] = { 0.5f, 0.003f }, *y = random_floats(&r, N * ROWS), before[N * ROWS];
    float *w_scale = random_floats(&r, ROWS);
    struct l1_error error = { 0 };
    struct fp8_scales_args s = { w_scale, m.data, ROWS, COLS };
    struct fp8_finish_args a = { y, sums, x_scale, w_scale, bias, ROWS, ROWS, ROWS, 1 };

    (void)state;
    launch("fp8_scales", w8a8_finish_grid_x(ROWS), 1, 0, &s, sizeof s,
           &(struct written){ w_scale, ROWS * sizeof *w_scale }, 1);
    for (uint32_t i = 0; i < ROWS; i++) { /* the largest of a row is 448 scales */
        float largest = 0;
        for (uint32_t k = 0; k < COLS; k++)
            largest = fmaxf(largest, fabsf(m.values[i * COLS + k]));
        assert_true(fabsf(448 * w_scale[i] - largest) <= 1e-6f * largest);
    }
    l1_exact("fp8_scales");
    memcpy(before, y, sizeof before);
    launch("fp8_finish", w8a8_finish_grid_x(ROWS), N, 0, &a, sizeof a,
           &(struct written){ y, sizeof before }, 1);
    for (uint32_t t = 0; t < N; t++)
        for (uint32_t i = 0; i < ROWS; i++) {
            uint32_t at = t * ROWS + i;
            double want = (double)sums[at] * w_scale[i] * x_scale[t] + bias[i] + before[at];
            compare(&error, "fp8_finish", t, i, y[at], want, 2, 1e-6);
        }
    l1_expect("fp8_finish", &error, 1e-6);
    device_matrix_free(&m);
    free(sums);
    free(bias);
    free(y);
    free(w_scale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packed_matrix_becomes_its_values_as_f16),
        cmocka_unit_test(tokens_of_a_packed_table_are_found),
        cmocka_unit_test(products_with_4_bit_weights_are_right),
        cmocka_unit_test(a_product_with_4_bit_weights_is_added),
        cmocka_unit_test(every_4_bit_kernel_has_been_measured),
        cmocka_unit_test(rows_become_int8_by_their_own_scale),
        cmocka_unit_test(int8_matrices_get_a_scale_a_row),
        cmocka_unit_test(codes_of_whole_rows_are_not_rounded_again),
        cmocka_unit_test(int32_sums_become_floats),
        cmocka_unit_test(rows_become_fp8_by_their_own_scale),
        cmocka_unit_test(sums_of_fp8_get_both_scales),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
