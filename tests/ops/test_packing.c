/* test_packing.c - panels of F32, F16 and BF16.
 *
 * What would break in production: a checkpoint's weight in another place or with other bits than it has, or
 * a panel's padding that is not zero and so not the same in every loading. */
#include "tests/ops/ops_rig.h"

static void rows_come_back_bit_for_bit(void **state)
{
    struct random r = random_begin("rows_come_back_bit_for_bit");
    static const uint32_t shapes[][2] = { { 1, 1 },   { 16, 64 },  { 32, 63 },
                                          { 31, 65 }, { 33, 128 }, { 100, 259 } };

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            uint32_t rows = shapes[s][0], cols = shapes[s][1];
            float *x = random_floats(&r, (size_t)rows * cols), *y = mem_alloc(cols * sizeof *y);
            char *matrix = pack_matrix(x, rows, cols, dtype);
            for (uint32_t i = 0; i < rows; i++) {
                packing_unpack_row(dtype, y, matrix, i, cols);
                assert_memory_equal(y, x + (size_t)i * cols, cols * sizeof *y);
                for (uint32_t k = 0; k < cols && dtype == DTYPE_BF16; k++)
                    assert_true(bf16_to_float(float_to_bf16(y[k])) == y[k]);
            }
            free(matrix);
            free(x);
            free(y);
        }
}

/* One row of the type as a file has it. */
static void encode_row(enum dtype dtype, char *to, const float *x, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k++) {
        uint16_t half = dtype == DTYPE_F16 ? float_to_f16(x[k]) : float_to_bf16(x[k]);
        if (dtype == DTYPE_F32)
            memcpy(to + (size_t)k * 4, &x[k], 4);
        else
            memcpy(to + (size_t)k * 2, &half, 2);
    }
}

/* Also of rows at odd addresses, and with the padding of a panel that is not full. */
static void copied_and_rounded_panels_are_the_same_bytes(void **state)
{
    struct random r = random_begin("copied_and_rounded_panels_are_the_same_bytes");
    static const uint32_t widths[] = { 1, 2, 63, 64, 65, 300 };

    (void)state;
    for (size_t c = 0; c < sizeof widths / sizeof *widths; c++)
        for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)
            for (uint32_t n = 1; n <= packing_panel_rows(dtype); n += 5) {
                uint32_t cols = widths[c];
                size_t bytes = packing_panel_bytes(dtype, cols), row = dtype_bytes(dtype, cols) + 1;
                float *x = random_floats(&r, (size_t)n * cols);
                char *one = mem_alloc(bytes), *other = mem_alloc(bytes), *file = mem_alloc(n * row);
                const void *rows[PACKING_PANEL_ROWS_MAX];
                memset(one, 0x55, bytes);
                memset(other, 0xaa, bytes);
                for (uint32_t i = 0; i < n; i++) {
                    encode_row(dtype, file + i * row, x + (size_t)i * cols, cols);
                    rows[i] = file + i * row;
                }
                packing_copy(dtype, one, rows, n, cols);
                packing_pack(dtype, other, x, n, cols);
                assert_memory_equal(one, other, bytes);
                free(x);
                free(one);
                free(other);
                free(file);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back_bit_for_bit),
        cmocka_unit_test(copied_and_rounded_panels_are_the_same_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
