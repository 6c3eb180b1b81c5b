/* test_cuda_packing.c - a GPU's order of a matrix holds the numbers that the CPU's order holds.
 *
 * What would break in production: a weight in another place or with other bits than the CPU multiplies by, so
 * that the same model answers differently on a GPU; or padding that is not zero, and so not the same in every
 * loading. */
#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/ops/e4m3.h"
#include "tests/ops/ops_rig.h"

static const uint32_t shapes[][2] = { { 1, 1 },   { 16, 64 },  { 17, 63 },  { 31, 65 },
                                      { 5, 128 }, { 40, 200 }, { 16, 259 }, { 3, 32 } };

#define FOR_EACH_SHAPE(s) for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
#define FOR_EACH_TYPE(t)  for (enum dtype t = DTYPE_F32; t <= DTYPE_I4M; t++)

/* As the loader calls it: panel by panel, into memory that was something else. */
struct matrix {
    enum dtype type;
    uint32_t rows, cols, height;
    size_t panel_bytes;
    char *data;
};

static struct matrix matrix_new(enum dtype t, uint32_t rows, uint32_t cols)
{
    struct matrix m = {
        t, rows, cols, cuda_packing_panel_rows(t), cuda_packing_panel_bytes(t, cols), NULL
    };
    size_t bytes = (rows + m.height - 1) / m.height * m.panel_bytes;

    m.data = aligned_mem(64, bytes);
    memset(m.data, 0x55, bytes);
    return m;
}

static uint32_t panel_rows(const struct matrix *m, uint32_t first)
{
    return m->rows - first < m->height ? m->rows - first : m->height;
}

static char *panel(const struct matrix *m, uint32_t first)
{
    return m->data + first / m->height * m->panel_bytes;
}

static void assert_same_rows(const struct matrix *m, const void *cpu)
{
    float *want = mem_alloc(m->cols * sizeof *want), *got = mem_alloc(m->cols * sizeof *got);

    for (uint32_t r = 0; r < m->rows; r++) {
        packing_unpack_row(m->type, want, cpu, r, m->cols);
        cuda_packing_unpack_row(m->type, got, m->data, r, m->cols);
        assert_memory_equal(got, want, m->cols * sizeof *got);
    }
    free(want);
    free(got);
}

static void rounded_rows_are_the_cpus_bit_for_bit(void **state)
{
    struct random r = random_begin("rounded_rows_are_the_cpus_bit_for_bit");

    (void)state;
    FOR_EACH_SHAPE(s)
    FOR_EACH_TYPE(t)
    {
        struct matrix m = matrix_new(t, shapes[s][0], shapes[s][1]);
        float *x = random_floats(&r, (size_t)m.rows * m.cols);
        void *cpu;

        if (t != DTYPE_I4M) {
            for (uint32_t first = 0; first < m.rows; first += m.height)
                cuda_packing_pack(t, panel(&m, first), x + (size_t)first * m.cols,
                                  panel_rows(&m, first), m.cols);
            cpu = pack_matrix(x, m.rows, m.cols, t);
            assert_same_rows(&m, cpu);
            free(cpu);
        }
        free(m.data);
        free(x);
    }
}

/* The CPU's panels of the same codes. */
static void *cpu_matrix(const struct matrix *m, const int8_t *codes, const uint16_t *numbers,
                        size_t row_numbers)
{
    size_t bytes = packing_panel_bytes(m->type, m->cols);
    char *cpu = aligned_mem(64, packing_bytes(m->type, m->rows, m->cols));

    for (uint32_t first = 0; first < m->rows; first += PACKING_INT_ROWS)
        packing_pack_codes(m->type, cpu + first / PACKING_INT_ROWS * bytes,
                           codes + (size_t)first * m->cols, numbers + first * row_numbers,
                           m->rows - first < PACKING_INT_ROWS ? m->rows - first : PACKING_INT_ROWS,
                           m->cols);
    return cpu;
}

static void codes_are_the_cpus_bit_for_bit(void **state)
{
    struct random r = random_begin("codes_are_the_cpus_bit_for_bit");

    (void)state;
    FOR_EACH_SHAPE(s)
    for (enum dtype t = DTYPE_I8; t <= DTYPE_I4M; t++) {
        struct matrix m = matrix_new(t, shapes[s][0], shapes[s][1]);
        size_t row_numbers = (size_t)(m.cols + 31) / 32 * packing_numbers(t);
        int8_t *codes = random_codes(&r, t, (size_t)m.rows * m.cols);
        uint16_t *numbers = random_halves(&r, m.rows * row_numbers, 2);
        void *cpu = cpu_matrix(&m, codes, numbers, row_numbers);

        for (uint32_t first = 0; first < m.rows; first += m.height)
            cuda_packing_pack_codes(t, panel(&m, first), codes + (size_t)first * m.cols,
                                    numbers + first * row_numbers, panel_rows(&m, first), m.cols);
        assert_same_rows(&m, cpu);
        free(codes);
        free(numbers);
        free(cpu);
        free(m.data);
    }
}

/* A file's rows lie at any address. */
static void copied_rows_are_the_rounded_ones(void **state)
{
    struct random r = random_begin("copied_rows_are_the_rounded_ones");

    (void)state;
    FOR_EACH_SHAPE(s)
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        uint32_t cols = shapes[s][1];
        struct matrix one = matrix_new(t, 1, cols), other = matrix_new(t, 1, cols);
        float *x = random_floats(&r, cols);
        char *file = mem_alloc(dtype_bytes(t, cols) + 1);
        const void *row = file + 1;

        cuda_packing_pack(t, one.data, x, 1, cols);
        memcpy(file + 1, one.data, dtype_bytes(t, cols));
        cuda_packing_copy(t, other.data, &row, 1, cols);
        assert_memory_equal(one.data, other.data, one.panel_bytes);
        free(x);
        free(file);
        free(one.data);
        free(other.data);
    }
}

/* cuBLASLt reads it as it lies. */
static void a_float_matrix_is_plain_rows_padded_with_zeroes(void **state)
{
    float x[3] = { 1, -2, 0.5f };
    uint16_t row[8], want[8] = { 0x3c00, 0xc000, 0x3800 };

    (void)state;
    memset(row, 0x55, sizeof row);
    assert_int_equal(cuda_packing_panel_bytes(DTYPE_F16, 3), sizeof row);
    assert_int_equal(cuda_packing_stride(3), 8);
    cuda_packing_pack(DTYPE_F16, row, x, 1, 3);
    assert_memory_equal(row, want, sizeof row);
}

/* What the last panel lacks: the same bytes whatever was there before, and zeroes when it is read. */
static void missing_rows_are_zero(void **state)
{
    (void)state;
    for (enum dtype t = DTYPE_I8; t <= DTYPE_I4; t++) {
        struct matrix m = matrix_new(t, 16, 100), again = matrix_new(t, 16, 100);
        float x[100], got[100], none[100] = { 0 };

        memset(again.data, 0xaa, again.panel_bytes);
        for (uint32_t k = 0; k < 100; k++)
            x[k] = (float)k - 50;
        cuda_packing_pack(t, m.data, x, 1, 100);
        cuda_packing_pack(t, again.data, x, 1, 100);
        assert_memory_equal(m.data, again.data, m.panel_bytes);
        for (uint32_t r = 1; r < 16; r++) {
            cuda_packing_unpack_row(t, got, m.data, r, 100);
            assert_memory_equal(got, none, sizeof none);
        }
        free(m.data);
        free(again.data);
    }
}

/* To nearest: within half a step, which is 2^-4 of the number, or of 2^-6 scales where that is larger. */
static void fp8_rows_are_rounded_by_their_largest(void **state)
{
    struct random r = random_begin("fp8_rows_are_rounded_by_their_largest");

    (void)state;
    FOR_EACH_SHAPE(s)
    {
        struct matrix m = matrix_new(DTYPE_E4M3, shapes[s][0], shapes[s][1]);
        float *x = random_floats(&r, (size_t)m.rows * m.cols), *got = mem_alloc(m.cols * 4);
        assert_int_equal(m.height, 1);
        assert_int_equal(m.panel_bytes % 128, 0);
        for (uint32_t i = 0; i < m.rows; i++) {
            const float *row = x + (size_t)i * m.cols;
            float largest = 0;
            cuda_packing_pack(DTYPE_E4M3, panel(&m, i), row, 1, m.cols);
            cuda_packing_unpack_row(DTYPE_E4M3, got, m.data, i, m.cols);
            for (uint32_t k = 0; k < m.cols; k++)
                largest = fmaxf(largest, fabsf(row[k]));
            for (uint32_t k = 0; k < m.cols; k++) {
                double least = (double)largest / 448 * 0x1p-6;
                double step = fmax(fabs((double)row[k]), least);
                assert_true(fabs((double)(got[k] - row[k])) <= step * 0x1.001p-4);
            }
        }
        free(m.data);
        free(x);
        free(got);
    }
}

/* Codes and scale of a file, at any length, and zeroes behind them. */
static void fp8_codes_are_those_of_the_file(void **state)
{
    enum { COLS = 19 };
    float scale = 0.3125f, got[COLS];
    uint8_t codes[COLS], row[128], zeroes[128] = { 0 };
    uint16_t numbers[2];

    (void)state;
    assert_int_equal(cuda_packing_panel_bytes(DTYPE_E4M3, COLS), sizeof row);
    assert_int_equal(cuda_packing_panel_bytes(DTYPE_E4M3, 128), 256);
    for (uint32_t k = 0; k < COLS; k++)
        codes[k] = (uint8_t)(k * 13 + 3);
    memset(row, 0x55, sizeof row);
    memcpy(numbers, &scale, sizeof scale);
    cuda_packing_pack_codes(DTYPE_E4M3, row, (const int8_t *)codes, numbers, 1, COLS);
    assert_memory_equal(row, codes, COLS);
    assert_memory_equal(row + COLS, zeroes, 32 - COLS);
    assert_memory_equal(row + 32, &scale, sizeof scale);
    assert_memory_equal(row + 36, zeroes, sizeof row - 36);
    cuda_packing_unpack_row(DTYPE_E4M3, got, row, 0, COLS);
    for (uint32_t k = 0; k < COLS; k++)
        assert_true(got[k] == scale * e4m3_to_float(codes[k]));
}

/* Every code is its own nearest, and so is what lies a little less than half way to the next. */
static void fp8_is_rounded_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x7e; code++) {
        float x = e4m3_to_float((uint8_t)code), next = e4m3_to_float((uint8_t)(code + 1));
        float middle = (x + next) / 2;
        assert_int_equal(float_to_e4m3(x), code);
        assert_int_equal(float_to_e4m3(-x), code | 0x80);
        assert_int_equal(float_to_e4m3(middle), code + code % 2);
        assert_int_equal(float_to_e4m3(nextafterf(middle, 0)), code);
        assert_int_equal(float_to_e4m3(nextafterf(middle, 500)), code + 1);
    }
    assert_int_equal(float_to_e4m3(448), 0x7e);
    assert_int_equal(float_to_e4m3(1e30f), 0x7e);
    assert_int_equal(float_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(float_to_e4m3(NAN) & 0x7f, 0x7f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounded_rows_are_the_cpus_bit_for_bit),
        cmocka_unit_test(codes_are_the_cpus_bit_for_bit),
        cmocka_unit_test(copied_rows_are_the_rounded_ones),
        cmocka_unit_test(a_float_matrix_is_plain_rows_padded_with_zeroes),
        cmocka_unit_test(missing_rows_are_zero),
        cmocka_unit_test(fp8_rows_are_rounded_by_their_largest),
        cmocka_unit_test(fp8_codes_are_those_of_the_file),
        cmocka_unit_test(fp8_is_rounded_to_nearest_even),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
