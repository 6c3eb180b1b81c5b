/* A wrong bit here is a model that answers, but worse: so every type is compared, bit for bit, with numbers that
 * GGML's own decoders gave (tests/vectors/gguf/types.txt), and with blocks made by hand from the
 * specification. */
#include <math.h>
#include <stdio.h>

#include "common/file.h"
#include "common/mem.h"
#include "gpu-worker/load/tensor_type.h"
#include "gpu-worker/ops/half.h"
#include "tests/check.h"

#define VECTORS TEST_SOURCE_DIR "/tests/vectors/gguf/types.txt"

enum { BYTES_MAX = 1024, ELEMENTS_MAX = 256 };

/* ---- golden vectors ---- */

struct vector {
    enum tensor_type type;
    uint8_t bytes[BYTES_MAX];
    uint32_t bits[ELEMENTS_MAX]; /* of the floats */
    size_t n_bytes, n;
};

static enum tensor_type type_named(const char *name)
{
    for (int t = 1; t < N_TENSOR_TYPES; t++)
        if (strcmp(tensor_type_name((enum tensor_type)t), name) == 0)
            return (enum tensor_type)t;
    fail_msg("no type is named '%s'", name);
    return TENSOR_NONE;
}

static uint32_t hex(const char *digits, int n)
{
    char text[9] = { 0 };

    memcpy(text, digits, (size_t)n);
    return (uint32_t)strtoul(text, NULL, 16);
}

static bool next_vector(char **at, struct vector *v)
{
    char *name = strsep(at, " "), *bytes = strsep(at, " "), *floats = strsep(at, "\n");

    if (!floats)
        return false;
    v->type = type_named(name);
    v->n_bytes = strlen(bytes) / 2;
    v->n = strlen(floats) / 8;
    assert_in_range(v->n_bytes, 1, BYTES_MAX);
    assert_in_range(v->n, 1, ELEMENTS_MAX);
    for (size_t i = 0; i < v->n_bytes; i++)
        v->bytes[i] = (uint8_t)hex(bytes + i * 2, 2);
    for (size_t i = 0; i < v->n; i++)
        v->bits[i] = hex(floats + i * 8, 8);
    return true;
}

static void check_floats(const struct vector *v)
{
    float y[ELEMENTS_MAX];
    uint8_t odd[BYTES_MAX + 1]; /* a row need not be aligned */

    assert_int_equal(tensor_type_bytes(v->type, v->n), v->n_bytes);
    memcpy(odd + 1, v->bytes, v->n_bytes);
    tensor_type_to_float(v->type, y, odd + 1, v->n);
    for (size_t i = 0; i < v->n; i++)
        if (bits_of_float(y[i]) != v->bits[i])
            fail_msg("%s element %zu: %a, wanted %a", tensor_type_name(v->type), i, (double)y[i],
                     (double)float_of_bits(v->bits[i]));
}

/* What the codes and numbers say of element i, and how far off it may be: in types of 256 a number is a product
 * that was rounded to float16, which may be too large for it; so may the minimum of Q5_0, sixteen scales. */
struct said {
    double y, off;
    bool is_too_large;
};

static struct said element_of(enum tensor_type t, const int8_t *codes, const uint16_t *numbers,
                              size_t i)
{
    bool halves = t == TENSOR_Q6_K || t == TENSOR_Q3_K, has_min;
    uint32_t n = tensor_type_numbers(t);
    const uint16_t *at = numbers + i / 32 * n;
    double scale = f16_to_float(at[halves ? i / 16 % 2 : 0]), y = scale * codes[i], min;

    has_min = n == 2 && !halves;
    min = has_min ? f16_to_float(at[1]) : 0;
    if (tensor_type_block(t) == 32)
        return (struct said){ y + min, 0,
                              t == TENSOR_Q5_0 && fabs(scale) >= 4095 && !isfinite(min) };
    return (struct said){ y + min, (fabs(y) + fabs(min)) * 0x1p-10 + 0x1p-24 * 32,
                          !isfinite(scale) || !isfinite(min) };
}

static bool is_same(double y, double wanted)
{
    return (float)y == (float)wanted || (isnan(y) && isnan(wanted));
}

static void check_codes(const struct vector *v)
{
    int8_t codes[ELEMENTS_MAX];
    uint16_t numbers[ELEMENTS_MAX / 16];

    tensor_type_to_codes(v->type, codes, numbers, v->bytes, v->n);
    for (size_t i = 0; i < v->n; i++) {
        struct said s = element_of(v->type, codes, numbers, i);
        double wanted = float_of_bits(v->bits[i]);
        if (!s.is_too_large && !is_same(s.y, wanted) && !(fabs(s.y - wanted) <= s.off))
            fail_msg("%s element %zu: %g, wanted %g", tensor_type_name(v->type), i, s.y, wanted);
    }
}

static void every_block_format_decodes_as_golden(void **state)
{
    int seen[N_TENSOR_TYPES] = { 0 };
    struct vector v;
    char *text, *at;
    struct err e;
    size_t n;

    (void)state;
    assert_ok(file_read(VECTORS, 1 << 20, &text, &n, &e), e);
    for (at = text; at && *at && next_vector(&at, &v);) {
        check_floats(&v);
        if (tensor_type_numbers(v.type) > 0)
            check_codes(&v);
        seen[v.type]++;
    }
    free(text);
    for (int t = 1; t < N_TENSOR_BYTES_TYPES; t++)
        if (t != TENSOR_F32 && seen[t] < 6)
            fail_msg("%s has %d vectors", tensor_type_name((enum tensor_type)t), seen[t]);
}

/* ---- by hand ---- */

enum { ONE = 0x3c00, TWO = 0x4000, HALF = 0x3800 }; /* float16 */

static void put16(uint8_t *b, uint16_t v)
{
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static void low_and_high_halves_of_a_byte_are_16_elements_apart(void **state)
{
    uint8_t b[18] = { 0 };
    float y[32];

    (void)state;
    put16(b, TWO);
    memset(b + 2, 0x88, 16); /* 8 - 8 = 0 */
    b[2 + 3] = 0xf1;         /* elements 3 and 19 */
    tensor_type_to_float(TENSOR_Q4_0, y, b, 32);
    for (int i = 0; i < 32; i++)
        assert_true(y[i] == (i == 3 ? -14.0f : i == 19 ? 14.0f : 0.0f));
}

static void fifth_bits_lie_before_the_nibbles(void **state)
{
    uint8_t b[24] = { 0 };
    float y[32];

    (void)state;
    put16(b, TWO);
    put16(b + 2, HALF);
    b[4 + 2] = 0x20; /* bit 21 */
    tensor_type_to_float(TENSOR_Q5_1, y, b, 32);
    for (int i = 0; i < 32; i++)
        assert_true(y[i] == (i == 21 ? 32.5f : 0.5f));
}

static void scales_of_q4_k_are_found_in_both_halves_of_a_block(void **state)
{
    uint8_t b[144] = { 0 };
    float y[256];

    (void)state;
    put16(b, ONE);
    put16(b + 2, HALF);
    memset(b + 16, 0x11, 128); /* every q is 1 */
    b[4 + 2] = 0xc0 | 33;      /* scale 2 = 33; upper bits of scale 6 = 3 */
    b[4 + 6] = 0x40 | 9;       /* minimum 2 = 9; upper bits of minimum 6 = 1 */
    b[4 + 10] = 0xa0 | 0x05;   /* lower bits of minimum 6 = 10, of scale 6 = 5 */
    tensor_type_to_float(TENSOR_Q4_K, y, b, 256);
    for (int i = 0; i < 256; i++) {
        float want = i / 32 == 2 ? 33 - 4.5f : i / 32 == 6 ? (3 * 16 + 5) - 0.5f * (16 + 10) : 0;
        assert_true(y[i] == want);
    }
}

static void a_set_third_bit_of_q3_k_adds_four(void **state)
{
    uint8_t b[110] = { 0 };
    float y[256];

    (void)state;
    put16(b + 108, ONE);
    b[96 + 0] = 0x01;           /* scale 0: 1 of its low bits */
    b[96 + 8] = 0x02;           /* and 2 of its upper ones: 33 - 32 = 1 */
    b[96 + 9] = b[96 + 10] = 2; /* scales 1 and 2: 0 */
    b[0] = 0x01;                /* element 0 has its third bit */
    b[32 + 1] = 0x03;           /* element 1 has both low ones */
    tensor_type_to_float(TENSOR_Q3_K, y, b, 256);
    assert_true(y[0] == 0 && y[1] == -1 && y[2] == -4);
    assert_true(y[16] == 0 && y[32] == 0);
    assert_true(y[48] == 32 * 4); /* scale 3 is 0 - 32 */
}

static void a_code_of_q8_0_may_be_minus_128(void **state)
{
    uint8_t b[34] = { 0 };
    uint16_t scale;
    int8_t codes[32];
    float y[32];

    (void)state;
    put16(b, HALF);
    b[2 + 31] = 0x80;
    tensor_type_to_float(TENSOR_Q8_0, y, b, 32);
    tensor_type_to_codes(TENSOR_Q8_0, codes, &scale, b, 32);
    assert_true(y[31] == -64 && codes[31] == -128 && scale == HALF && codes[0] == 0);
}

static void float32_is_copied_to_the_bit(void **state)
{
    const uint32_t bits[] = { 0, 0x80000000, 1, 0x7f800000, 0x7fc12345, 0x3f800001 };
    float y[6];

    (void)state;
    tensor_type_to_float(TENSOR_F32, y, bits, 6);
    assert_memory_equal(y, bits, sizeof bits);
}

/* ---- sizes ---- */

static void bits_a_weight_are_those_of_the_specification(void **state)
{
    static const struct {
        enum tensor_type type;
        double bits;
    } wanted[] = { { TENSOR_F32, 32 },      { TENSOR_F16, 16 },    { TENSOR_BF16, 16 },
                   { TENSOR_Q8_0, 8.5 },    { TENSOR_Q4_0, 4.5 },  { TENSOR_Q4_1, 5 },
                   { TENSOR_Q5_0, 5.5 },    { TENSOR_Q5_1, 6 },    { TENSOR_Q2_K, 2.625 },
                   { TENSOR_Q3_K, 3.4375 }, { TENSOR_Q4_K, 4.5 },  { TENSOR_Q5_K, 5.5 },
                   { TENSOR_Q6_K, 6.5625 }, { TENSOR_IQ4_NL, 4.5 } };

    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        assert_true((double)tensor_type_bytes(wanted[i].type, 4096) * 8 == wanted[i].bits * 4096);
        assert_true(tensor_type_block(wanted[i].type) <= TENSOR_TYPE_BLOCK_MAX);
    }
    assert_int_equal(sizeof wanted / sizeof *wanted, N_TENSOR_BYTES_TYPES - 1);
}

static void bytes_that_no_integer_holds_are_told(void **state)
{
    (void)state;
    assert_true(tensor_type_bytes(TENSOR_F32, UINT64_MAX / 4 + 1) == UINT64_MAX);
    assert_true(tensor_type_bytes(TENSOR_Q8_0, UINT64_MAX / 32 * 32) == UINT64_MAX);
    assert_true(tensor_type_bytes(TENSOR_Q2_K, UINT64_MAX / 256 * 256) < UINT64_MAX / 2);
}

static void ask_for_half_a_block(void *arg)
{
    tensor_type_bytes(TENSOR_Q4_K, 128);
    (void)arg;
}

static void ask_for_codes_of_a_type_without(void *arg)
{
    int8_t codes[256];
    uint16_t numbers[16];

    tensor_type_to_codes(TENSOR_Q2_K, codes, numbers, arg, 256);
}

static void wrong_use_stops_the_process(void **state)
{
    uint8_t block[84] = { 0 };

    (void)state;
    assert_aborts(ask_for_half_a_block, NULL);
    assert_aborts(ask_for_codes_of_a_type_without, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_format_decodes_as_golden),
        cmocka_unit_test(low_and_high_halves_of_a_byte_are_16_elements_apart),
        cmocka_unit_test(fifth_bits_lie_before_the_nibbles),
        cmocka_unit_test(scales_of_q4_k_are_found_in_both_halves_of_a_block),
        cmocka_unit_test(a_set_third_bit_of_q3_k_adds_four),
        cmocka_unit_test(a_code_of_q8_0_may_be_minus_128),
        cmocka_unit_test(float32_is_copied_to_the_bit),
        cmocka_unit_test(bits_a_weight_are_those_of_the_specification),
        cmocka_unit_test(bytes_that_no_integer_holds_are_told),
        cmocka_unit_test(wrong_use_stops_the_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
