/* test_philox.c - would break in production: other numbers after an upgrade, so that a recovered
 * sequence goes on with another text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu-worker/philox.h"

/* The known-answer vectors published with the paper's reference code (philox4x32, 10 rounds). */
static const struct {
    struct philox_block counter;
    uint32_t key[2];
    uint32_t expected[4];
} vectors[] = {
    { { { 0, 0, 0, 0 } }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
    { { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff } },
      { 0xffffffff, 0xffffffff },
      { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
    { { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 } },
      { 0xa4093822, 0x299f31d0 },
      { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
};

static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        struct philox_block r = philox4x32(vectors[v].counter, vectors[v].key);
        for (int i = 0; i < 4; i++)
            assert_int_equal(r.word[i], vectors[v].expected[i]);
    }
}

/* The first block of key 0 and counter 0, its words 1 and 0 as one 64-bit number, cut to 53 bits. */
static void uniform_is_the_block_of_seed_and_position(void **state)
{
    (void)state;
    assert_true(philox_uniform(0, 0) == (double)(0xe169c58d6627e8d5ull >> 11) * 0x1p-53);
    assert_true(philox_uniform(1, 0) != philox_uniform(0, 0));
    assert_true(philox_uniform(1ull << 32, 0) != philox_uniform(0, 0));
    assert_true(philox_uniform(0, 1ull << 32) != philox_uniform(0, 0));
}

/* Mean and variance of a uniform number, and no correlation of neighbours: 100,000 draws. */
static void uniform_is_uniform(void **state)
{
    enum { N = 100000 };
    double sum = 0, squares = 0, products = 0, last = 0.5;

    (void)state;
    for (uint64_t p = 0; p < N; p++) {
        double u = philox_uniform(42, p);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += (u - 0.5) * (u - 0.5);
        products += (u - 0.5) * (last - 0.5);
        last = u;
    }
    assert_true(sum / N > 0.496 && sum / N < 0.504);
    assert_true(squares / N > 0.0823 && squares / N < 0.0843);
    assert_true(products / N > -0.0012 && products / N < 0.0012);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(uniform_is_the_block_of_seed_and_position),
        cmocka_unit_test(uniform_is_uniform),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
