/* test_rounding.c - integer matrices in panels: what is packed comes back, and rounding loses as little as it says.
 *
 * What would break in production: an embedding row of another token; bytes left as they were, so that a
 * chunk cannot be repaired; a scale search that picks a worse scale than the plain rule. */
#include "gpu-worker/ops/packing.h"
#include "gpu-worker/ops/rounding.h"
#include "tests/ops/ops_rig.h"

/* Two packings over different garbage give the same bytes, and every element is what packing.h says. */
static void check_codes(struct random *r, enum dtype dtype, uint32_t rows, uint32_t cols)
{
    uint32_t n = packing_numbers(dtype), row_numbers = (cols + 31) / 32 * n;
    size_t bytes = packing_bytes(dtype, rows, cols);
    int8_t *codes = random_codes(r, dtype, (size_t)rows * cols);
    uint16_t *numbers = random_halves(r, (size_t)rows * row_numbers, 1);
    uint8_t *packed = mem_alloc(bytes), *again = mem_alloc(bytes);
    float *y = mem_alloc(cols * sizeof *y);

    memset(packed, 0x5a, bytes);
    memset(again, 0xa5, bytes);
    for (uint32_t first = 0; first < rows; first += 16)
        for (int k = 0; k < 2; k++)
            packing_pack_codes(dtype,
                               (k ? again : packed) + first / 16 * packing_panel_bytes(dtype, cols),
                               codes + (size_t)first * cols, numbers + (size_t)first * row_numbers,
                               rows - first < 16 ? rows - first : 16, cols);
    assert_memory_equal(packed, again, bytes);
    for (uint32_t i = 0; i < rows; i++) {
        packing_unpack_row(dtype, y, packed, i, cols);
        for (uint32_t k = 0; k < cols; k++) {
            const uint16_t *at = numbers + (size_t)i * row_numbers + k / 32 * n;
            float scale = f16_to_float(at[dtype == DTYPE_I6 ? k / 16 % 2 : 0]);
            float wanted = scale * (float)codes[(size_t)i * cols + k];
            assert_true(y[k] == (packing_has_min(dtype) ? wanted + f16_to_float(at[1]) : wanted));
        }
    }
    free(codes);
    free(numbers);
    free(packed);
    free(again);
    free(y);
}

static void codes_and_numbers_come_back(void **state)
{
    static const uint32_t shapes[][2] = { { 1, 1 },   { 16, 64 },  { 17, 65 }, { 3, 32 },
                                          { 33, 95 }, { 40, 160 }, { 5, 31 } };
    struct random r = random_begin("codes_and_numbers_come_back");

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        FOR_EACH_INT(dtype)
    check_codes(&r, dtype, shapes[s][0], shapes[s][1]);
}

/* Heavy tails, as weights have. */
static void random_block(struct random *r, float x[32])
{
    for (int k = 0; k < 32; k++)
        x[k] = random_float(r) * random_float(r) * random_float(r);
}

static void eight_bits_are_the_nearest(void **state)
{
    struct random r = random_begin("eight_bits_are_the_nearest");

    (void)state;
    for (int round = 0; round < 1000; round++) {
        float x[32], m = 0, scale;
        int8_t codes[32];
        random_block(&r, x);
        scale = f16_to_float(rounding_i8(codes, x));
        for (int k = 0; k < 32; k++)
            m = fabsf(x[k]) > m ? fabsf(x[k]) : m;
        assert_true(fabsf(scale * 127 - m) <= m * 0x1p-10f);
        for (int k = 0; k < 32; k++)
            assert_true(fabsf(x[k] - scale * (float)codes[k]) <= scale * 0.5625f);
    }
}

/* sum (x - scale * code)^2 */
static double loss(const float *x, const int8_t *codes, double scale)
{
    double sum = 0;

    for (int k = 0; k < 32; k++)
        sum += pow(x[k] - scale * codes[k], 2);
    return sum;
}

static double plain_loss(const float *x, float scale)
{
    float stored = f16_to_float(float_to_f16(scale));
    int8_t codes[32];

    for (int k = 0; k < 32; k++) {
        float c = rintf(x[k] / stored);
        codes[k] = (int8_t)(c < -8 ? -8 : c > 7 ? 7 : c);
    }
    return loss(x, codes, stored);
}

/* The search loses to largest / -8 and largest / 7 by a rounding of the scale at most, and gains on the
 * average. */
static void four_bits_beat_the_plain_rules(void **state)
{
    struct random r = random_begin("four_bits_beat_the_plain_rules");
    double searched = 0, plain = 0;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        float x[32], end = 0;
        int8_t codes[32];
        double ours, theirs;
        random_block(&r, x);
        ours = loss(x, codes, f16_to_float(rounding_i4(codes, x)));
        for (int k = 0; k < 32; k++)
            end = fabsf(x[k]) > fabsf(end) ? x[k] : end;
        theirs = plain_loss(x, end / -8);
        assert_true(ours <= theirs * 1.01 && ours <= plain_loss(x, end / 7) * 1.01);
        searched += ours;
        plain += theirs;
    }
    printf("four bits: loss %.3f of largest / -8\n", searched / plain);
    assert_true(searched < 0.95 * plain);
}

static void special_blocks(void **state)
{
    float x[32] = { 0 };
    int8_t codes[32];

    (void)state;
    assert_int_equal(rounding_i8(codes, x), 0);
    assert_int_equal(rounding_i4(codes, x), 0);
    x[5] = 0x1p-30f; /* nothing that an f16 scale could say */
    assert_int_equal(rounding_i8(codes, x), 0);
    assert_int_equal(rounding_i4(codes, x), 0);
    for (int k = 0; k < 32; k++)
        assert_int_equal(codes[k], 0);
    x[5] = INFINITY;
    assert_false(isfinite(f16_to_float(rounding_i8(codes, x))));
    assert_false(isfinite(f16_to_float(rounding_i4(codes, x))));
    x[5] = NAN;
    assert_false(isfinite(f16_to_float(rounding_i8(codes, x))));
    assert_false(isfinite(f16_to_float(rounding_i4(codes, x))));
    x[5] = 0;
    x[31] = -65504; /* the largest of f16 */
    assert_true(fabsf(f16_to_float(rounding_i8(codes, x)) * (float)codes[31] + 65504) < 64);
    assert_true(fabsf(f16_to_float(rounding_i4(codes, x)) * (float)codes[31] + 65504) < 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_and_numbers_come_back),
        cmocka_unit_test(eight_bits_are_the_nearest),
        cmocka_unit_test(four_bits_beat_the_plain_rules),
        cmocka_unit_test(special_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
