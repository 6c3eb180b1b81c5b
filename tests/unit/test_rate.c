/* test_rate.c - if this breaks, llmctl top shows tokens per second that nobody generated. */
#include "supervisor/rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"

static void no_sample_is_no_rate(void **state)
{
    struct rate r = { 0 };

    (void)state;
    assert_true(rate_per_s(&r, 5 * NS_PER_S, 100) == 0);
}

static void counts_since_the_oldest_sample(void **state)
{
    struct rate r = { 0 };

    (void)state;
    for (uint64_t s = 1; s <= 20; s++)
        rate_sample(&r, s * NS_PER_S, s * 10);
    assert_true(rate_per_s(&r, 20 * NS_PER_S + NS_PER_S / 2, 205) > 9.99);
    assert_true(rate_per_s(&r, 20 * NS_PER_S + NS_PER_S / 2, 205) < 10.01);
}

static void what_was_long_ago_is_forgotten(void **state)
{
    struct rate r = { 0 };

    (void)state;
    rate_sample(&r, NS_PER_S, 0);
    for (uint64_t s = 2; s <= 2 + RATE_SAMPLES; s++)
        rate_sample(&r, s * NS_PER_S, 1000);
    assert_true(rate_per_s(&r, 20 * NS_PER_S, 1000) == 0);
}

static void a_counter_that_went_back_gives_no_nonsense(void **state)
{
    struct rate r = { 0 };

    (void)state;
    rate_sample(&r, NS_PER_S, 1000);
    assert_true(rate_per_s(&r, 2 * NS_PER_S, 10) == 0);
    assert_true(rate_per_s(&r, NS_PER_S, 2000) == 0); /* no time has passed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_sample_is_no_rate),
        cmocka_unit_test(counts_since_the_oldest_sample),
        cmocka_unit_test(what_was_long_ago_is_forgotten),
        cmocka_unit_test(a_counter_that_went_back_gives_no_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
