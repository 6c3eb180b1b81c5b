/* test_after_death.c - what llm-init does about a dead llmd.  If this breaks, a container ends that should
 * go on, or never ends. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "supervisor/init/after_death.h"

static struct death_row row;

static int setup(void **state)
{
    (void)state;
    row = (struct death_row){ .pause_max_ms = 5000 };
    return 0;
}

static struct death killed(uint64_t served_ms)
{
    return (struct death){ true, SIGKILL, served_ms * NS_PER_MS, false };
}

static struct death exited(int code, uint64_t served_ms)
{
    return (struct death){ false, code, served_ms * NS_PER_MS, true };
}

static void expect_restart(struct death d, uint64_t pause_ms)
{
    struct death_verdict v = after_death(&row, &d);

    assert_int_equal(v.answer, DEATH_RESTART);
    assert_int_equal(v.pause_ms, pause_ms);
}

static void expect_final(struct death d, int exit_code)
{
    struct death_verdict v = after_death(&row, &d);

    assert_int_equal(v.answer, DEATH_FINAL);
    assert_int_equal(v.exit_code, exit_code);
}

static void ends_of_its_own_will_are_final(void **state)
{
    static const int codes[] = { 0, 2, 64 };

    (void)state;
    row.was_ever_ready = true;
    for (int i = 0; i < 3; i++)
        expect_final(exited(codes[i], 5000), codes[i]);
    expect_restart(exited(1, 5000), 0);
    row.was_ever_ready = false;
    expect_final(exited(1, 0), 1);
    expect_final(exited(127, 0), 127);
}

static void killed_in_service_comes_back_at_once_however_often(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        expect_restart(killed(1000), 0);
}

static void crash_loop_is_slowed_down_until_a_minute_of_service(void **state)
{
    (void)state;
    expect_restart(killed(10), 0);
    for (uint64_t pause_ms = 100; pause_ms < 5000; pause_ms *= 2)
        expect_restart(killed(10), pause_ms);
    expect_restart(killed(10), 5000);
    expect_restart(killed(10), 5000);
    expect_restart(killed(2000), 0); /* a longer life halves them */
    expect_restart(killed(10), 5000);
    expect_restart(killed(60000), 0);
    expect_restart(killed(10), 0);
    expect_restart(killed(10), 100);
}

static void never_ready_costs_a_pause_from_the_first_time(void **state)
{
    (void)state;
    expect_restart(killed(0), 100);
    expect_restart(killed(0), 200);
}

static void stopping_goes_on_only_while_children_are_left(void **state)
{
    struct death d = killed(5000);

    (void)state;
    row.is_stopping = row.was_ever_ready = true;
    expect_final(exited(1, 5000), 1);
    expect_final(d, 128 + SIGKILL);
    d.has_children = true;
    for (int i = 0; i < 5; i++)
        expect_restart(d, 0);
    assert_int_equal(after_death(&row, &d).answer, DEATH_KILL);
    assert_int_equal(after_death(&row, &d).exit_code, 137);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(ends_of_its_own_will_are_final, setup),
        cmocka_unit_test_setup(killed_in_service_comes_back_at_once_however_often, setup),
        cmocka_unit_test_setup(crash_loop_is_slowed_down_until_a_minute_of_service, setup),
        cmocka_unit_test_setup(never_ready_costs_a_pause_from_the_first_time, setup),
        cmocka_unit_test_setup(stopping_goes_on_only_while_children_are_left, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
