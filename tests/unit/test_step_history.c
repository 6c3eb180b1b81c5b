/* test_step_history.c - would break in production: an honest step killed as hung (a long prompt after short
 * answers, a machine that became slower), or a hang that nobody notices for hours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "gpu-worker/philox.h"
#include "gpu-worker/step_history.h"

struct fixture {
    _Atomic uint64_t took_ns[LEDGER_STEP_SIZES];
    struct step_history history;
    struct config config;
};

static void fixture_init(struct fixture *f)
{
    *f = (struct fixture){ .history.took_ns = NULL };
    f->history.took_ns = f->took_ns;
    config_init(&f->config); /* 2 s, 20 times */
}

static uint64_t work_of(uint32_t rows, uint32_t context)
{
    struct sequence q = { .n_computed = context };
    struct plan_item item = { .sequence = &q, .n_rows = rows };
    struct plan plan = { .items = &item, .n_items = 1, .n_rows = rows };

    return step_work(&plan);
}

/* A machine whose step takes: a fixed part (reading the weights), one for rows, one for attention. */
static uint64_t honest_ns(uint32_t rows, uint32_t context, double slow)
{
    return (uint64_t)(slow * (8e6 + rows * 1e6 + (double)rows * (context + rows / 2.0) * 4e3));
}

static void work_counts_rows_and_what_they_look_back_on(void **state)
{
    (void)state;
    assert_int_equal(work_of(1, 0), STEP_ROW_WORK + 1);
    assert_int_equal(work_of(1, 1000), STEP_ROW_WORK + 1001);
    assert_int_equal(work_of(3, 10), 3 * (STEP_ROW_WORK + 10) + 1 + 2 + 3);
}

static void nothing_known_gives_half_a_minute(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    assert_int_equal(step_history_expect_ns(&f.history, work_of(1, 10)), 0);
    assert_int_equal(step_history_limit_ns(&f.history, work_of(1, 10), &f.config), 30 * NS_PER_S);
    f.config.hang_step_ms = 50000;
    assert_int_equal(step_history_limit_ns(&f.history, work_of(1, 10), &f.config), 50 * NS_PER_S);
}

static void the_limit_follows_the_settings(void **state)
{
    struct fixture f;
    uint64_t work = work_of(8, 100);

    (void)state;
    fixture_init(&f);
    step_history_learn(&f.history, work, 3 * NS_PER_MS);
    assert_int_equal(step_history_limit_ns(&f.history, work, &f.config), 2 * NS_PER_S);
    step_history_learn(&f.history, work, 300 * NS_PER_MS);
    assert_int_equal(step_history_limit_ns(&f.history, work, &f.config), 6 * NS_PER_S);
    f.config.hang_step_factor = 100;
    assert_int_equal(step_history_limit_ns(&f.history, work, &f.config), 30 * NS_PER_S);
    f.config.hang_step_ms = 10;
    f.config.hang_step_factor = 2;
    assert_int_equal(step_history_limit_ns(&f.history, work, &f.config), 600 * NS_PER_MS);
}

/* Only decode steps were seen; then comes the longest prompt there can be. */
static void a_big_prefill_after_small_decodes_is_no_hang(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    f.config.hang_step_ms = 10;
    for (uint32_t i = 0; i < 1000; i++)
        step_history_learn(&f.history, work_of(1, i), honest_ns(1, i, 1));
    assert_true(step_history_limit_ns(&f.history, work_of(2048, 0), &f.config) >
                honest_ns(2048, 0, 1));
    assert_true(step_history_limit_ns(&f.history, work_of(512, 100000), &f.config) >
                honest_ns(512, 100000, 1));
}

static void a_small_step_after_big_ones_has_their_limit(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    step_history_learn(&f.history, work_of(512, 0), 700 * NS_PER_MS);
    assert_int_equal(step_history_expect_ns(&f.history, work_of(1, 0)), 700 * NS_PER_MS);
}

/* Any mixture of sizes, on a machine that stalls and slows down: never beyond half of the limit. */
static void honest_steps_stay_below_the_limit(void **state)
{
    const uint64_t seed = 4711;
    struct fixture f;

    (void)state;
    fixture_init(&f);
    f.config.hang_step_ms = 10;
    for (uint64_t i = 0; i < 20000; i++) {
        double slow = (i > 10000 ? 2 : 1) * (1 + philox_uniform(seed, 3 * i));
        uint32_t rows = 1u << (uint32_t)(philox_uniform(seed, 3 * i + 1) * 11);
        uint32_t context = (uint32_t)(philox_uniform(seed, 3 * i + 2) * 8000);
        uint64_t took = honest_ns(rows, context, slow), work = work_of(rows, context);
        if (step_history_limit_ns(&f.history, work, &f.config) < 2 * took)
            fail_msg("seed %llu step %llu: rows %u context %u", (unsigned long long)seed,
                     (unsigned long long)i, rows, context);
        step_history_learn(&f.history, work, took);
    }
}

/* One stall (the machine was suspended) does not blind the watch for ever. */
static void one_stall_is_forgotten(void **state)
{
    struct fixture f;
    uint64_t work = work_of(4, 50);

    (void)state;
    fixture_init(&f);
    step_history_learn(&f.history, work, 60 * NS_PER_S);
    assert_int_equal(step_history_limit_ns(&f.history, work, &f.config), 1200 * NS_PER_S);
    for (int i = 0; i < 2000; i++)
        step_history_learn(&f.history, work, 5 * NS_PER_MS);
    assert_int_equal(step_history_limit_ns(&f.history, work, &f.config), 2 * NS_PER_S);
}

static void sizes_and_times_beyond_all_bounds_do_not_wrap(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    step_history_learn(&f.history, 1, UINT64_MAX / 4);
    assert_int_equal(step_history_limit_ns(&f.history, UINT64_MAX, &f.config), UINT64_MAX);
    step_history_learn(&f.history, UINT64_MAX, 0);
    assert_int_equal(step_history_expect_ns(&f.history, UINT64_MAX), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_counts_rows_and_what_they_look_back_on),
        cmocka_unit_test(nothing_known_gives_half_a_minute),
        cmocka_unit_test(the_limit_follows_the_settings),
        cmocka_unit_test(a_big_prefill_after_small_decodes_is_no_hang),
        cmocka_unit_test(a_small_step_after_big_ones_has_their_limit),
        cmocka_unit_test(honest_steps_stay_below_the_limit),
        cmocka_unit_test(one_stall_is_forgotten),
        cmocka_unit_test(sizes_and_times_beyond_all_bounds_do_not_wrap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
