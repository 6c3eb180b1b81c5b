/* test_backoff.c - if this breaks, a crash loop burns a core, or one crash a week costs half a minute. */
#include "supervisor/backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"

static struct config config;

static int setup(void **state)
{
    (void)state;
    config_init(&config);
    config.backoff_ms = 100;
    config.backoff_max_ms = 1000;
    config.backoff_reset_s = 60;
    return 0;
}

static void deaths_before_service_double_up_to_the_limit(void **state)
{
    static const uint64_t want[] = { 100, 200, 400, 800, 1000, 1000, 1000 };
    struct backoff b = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        assert_int_equal(backoff_next_ms(&b, &config, 0), want[i]);
}

static void first_death_in_service_costs_no_pause(void **state)
{
    static const uint64_t want[] = { 0, 100, 200, 400 };
    struct backoff b = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        assert_int_equal(backoff_next_ms(&b, &config, 5 * NS_PER_S), want[i]);
}

static void long_service_begins_a_new_row(void **state)
{
    struct backoff b = { 0 };

    (void)state;
    for (int i = 0; i < 5; i++)
        backoff_next_ms(&b, &config, 1);
    assert_int_equal(backoff_next_ms(&b, &config, 60 * NS_PER_S - 1), 1000);
    assert_int_equal(backoff_next_ms(&b, &config, 60 * NS_PER_S), 0);
    assert_int_equal(backoff_next_ms(&b, &config, 1), 100);
}

static void the_limit_may_be_below_the_first_pause(void **state)
{
    struct backoff b = { 0 };

    (void)state;
    config.backoff_max_ms = 50;
    assert_int_equal(backoff_next_ms(&b, &config, 0), 50);
    assert_int_equal(backoff_next_ms(&b, &config, 0), 50);
}

static void a_million_deaths_do_not_overflow(void **state)
{
    struct backoff b = { 0 };
    uint64_t pause = 0;

    (void)state;
    config.backoff_max_ms = 3600000;
    for (int i = 0; i < 1000000; i++)
        pause = backoff_next_ms(&b, &config, 0);
    assert_int_equal(pause, 3600000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(deaths_before_service_double_up_to_the_limit, setup),
        cmocka_unit_test_setup(first_death_in_service_costs_no_pause, setup),
        cmocka_unit_test_setup(long_service_begins_a_new_row, setup),
        cmocka_unit_test_setup(the_limit_may_be_below_the_first_pause, setup),
        cmocka_unit_test_setup(a_million_deaths_do_not_overflow, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
