/* test_hang.c - who hangs, by the board.  If this breaks, a hung worker stops the service for ever, or one that
 * works honestly is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "supervisor/hang.h"

#define T0 (1000 * NS_PER_S)

static struct config config;
static struct board_slot slot;

static int setup(void **state)
{
    (void)state;
    config_init(&config);
    memset(&slot, 0, sizeof slot);
    return 0;
}

static struct hang_verdict judge(uint64_t after_ms)
{
    return hang_judge(&slot, &config, T0 + after_ms * NS_PER_MS, 0);
}

static void step_is_hung_past_its_own_limit(void **state)
{
    (void)state;
    slot.step_started_ns = T0;
    slot.step_limit_ns = 2100 * NS_PER_MS;
    assert_false(judge(2100).is_hung);
    assert_true(judge(2101).is_hung);
    assert_string_equal(judge(3200).why, "step running for 3.2 s, limit 2.1 s");
    assert_string_equal(judge(2000).why, "");
    assert_true(judge(0).is_busy);
    assert_int_equal(judge(0).due_ns, T0 + 2100 * NS_PER_MS);
}

static void slow_but_honest_step_is_left_alone(void **state)
{
    (void)state;
    slot.heartbeat_ns = slot.step_started_ns = T0; /* no heartbeat comes while it computes */
    slot.step_limit_ns = 600 * NS_PER_S;
    assert_false(judge(500 * 1000).is_hung);
}

static void step_without_a_published_limit_may_take_half_a_minute(void **state)
{
    (void)state;
    slot.step_started_ns = T0;
    assert_false(judge(30000).is_hung);
    assert_string_equal(judge(30100).why, "step running for 30.1 s, limit 30.0 s");
}

static void silence_outside_a_step_is_a_hang(void **state)
{
    (void)state;
    slot.heartbeat_ns = T0;
    assert_false(judge(10000).is_hung);
    assert_false(judge(10000).is_busy);
    assert_string_equal(judge(10100).why, "no sign of life for 10.1 s, limit 10.0 s");
    config.hang_timeout_s = 3;
    assert_true(judge(3001).is_hung);
    slot.heartbeat_ns = T0 + 2 * NS_PER_S;
    assert_false(judge(4900).is_hung);
}

static void silence_between_two_steps_is_a_hang_sooner(void **state)
{
    (void)state;
    slot.heartbeat_ns = T0;
    stat_set(&slot.stats, STAT_sequences_running, 3);
    assert_true(judge(0).is_busy);
    assert_false(judge(2000).is_hung);
    assert_true(judge(2001).is_hung);
    config.hang_step_ms = 10; /* a heartbeat comes only once a second at times */
    assert_false(judge(2000).is_hung);
    config.hang_step_ms = 5000;
    assert_false(judge(5000).is_hung);
    assert_string_equal(judge(5100).why, "no sign of life for 5.1 s, limit 5.0 s");
}

static void nothing_older_than_the_new_chance_counts(void **state)
{
    struct hang_verdict v;

    (void)state;
    slot.heartbeat_ns = T0;
    slot.step_started_ns = T0;
    slot.step_limit_ns = 2 * NS_PER_S;
    v = hang_judge(&slot, &config, T0 + 9 * NS_PER_S, T0 + 8 * NS_PER_S);
    assert_false(v.is_hung);
    assert_int_equal(v.due_ns, T0 + 10 * NS_PER_S);
    v = hang_judge(&slot, &config, T0 + 11 * NS_PER_S, T0 + 8 * NS_PER_S);
    assert_string_equal(v.why, "step running for 3.0 s, limit 2.0 s");
    slot.step_started_ns = 0;
    assert_false(hang_judge(&slot, &config, T0 + 17 * NS_PER_S, T0 + 8 * NS_PER_S).is_hung);
    assert_true(hang_judge(&slot, &config, T0 + 19 * NS_PER_S, T0 + 8 * NS_PER_S).is_hung);
}

static void a_clock_of_the_future_is_no_hang(void **state)
{
    (void)state;
    slot.heartbeat_ns = T0 + NS_PER_S; /* written after we read the clock */
    assert_false(judge(0).is_hung);
    slot.step_started_ns = T0 + NS_PER_S;
    slot.step_limit_ns = 1;
    assert_false(judge(0).is_hung);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(step_is_hung_past_its_own_limit, setup),
        cmocka_unit_test_setup(slow_but_honest_step_is_left_alone, setup),
        cmocka_unit_test_setup(step_without_a_published_limit_may_take_half_a_minute, setup),
        cmocka_unit_test_setup(silence_outside_a_step_is_a_hang, setup),
        cmocka_unit_test_setup(silence_between_two_steps_is_a_hang_sooner, setup),
        cmocka_unit_test_setup(nothing_older_than_the_new_chance_counts, setup),
        cmocka_unit_test_setup(a_clock_of_the_future_is_no_hang, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
