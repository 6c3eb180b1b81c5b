/* test_stats.c - the numbers that dashboards and alerts are made of.
 *
 * What would break in production: an observation in the wrong bucket, a sum that wraps, or counts lost
 * between processes that add at the same time. */
#include "proto/stats.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "tests/check.h"

static void stats_have_names_help_and_kinds(void **state)
{
    (void)state;
    for (int i = 0; i < N_STATS; i++) {
        assert_true(strlen(stat_name(i)) > 0 && strlen(stat_help(i)) > 5);
        assert_int_equal(strspn(stat_name(i), "abcdefghijklmnopqrstuvwxyz_"), strlen(stat_name(i)));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(stat_name(i), stat_name(k));
    }
    assert_true(stat_is_gauge(STAT_sequences_running));
    assert_false(stat_is_gauge(STAT_sequences_finished));
}

static void hist_bounds_ascend_and_leave_room_for_infinity(void **state)
{
    (void)state;
    for (int h = 0; h < N_HISTS; h++) {
        int n = 0;
        const double *bounds = hist_bounds(h, &n);
        assert_in_range(n, 2, HIST_BUCKETS_MAX - 1);
        assert_true(bounds[0] > 0);
        for (int i = 1; i < n; i++)
            assert_true(bounds[i] > bounds[i - 1]);
        assert_true(strlen(hist_name(h)) > 0 && strlen(hist_help(h)) > 5);
    }
}

/* Prometheus buckets are "less or equal". */
static void hist_observe_takes_the_bucket_of_its_bound(void **state)
{
    (void)state;
    for (int h = 0; h < N_HISTS; h++) {
        int n = 0;
        const double *bounds = hist_bounds(h, &n);
        for (int i = 0; i <= n; i++) {
            struct stats s = { 0 };
            double value = i < n ? bounds[i] : bounds[n - 1] * 2;
            hist_observe(&s, h, value);
            assert_int_equal(s.hist[h].bucket[i], 1);
            assert_int_equal(s.hist[h].count, 1);
            assert_true(fabs(hist_sum(&s, h) - value) <= value * 1e-6);
            if (i < n) {
                hist_observe(&s, h, nextafter(value, INFINITY));
                assert_int_equal(s.hist[h].bucket[i + 1], 1);
            }
        }
    }
}

static void hist_observe_takes_odd_values(void **state)
{
    struct stats s = { 0 };
    int n;

    (void)state;
    hist_bounds(HIST_step_seconds, &n);
    hist_observe(&s, HIST_step_seconds, 0);
    hist_observe(&s, HIST_step_seconds, -1); /* a clock went back */
    hist_observe(&s, HIST_step_seconds, NAN);
    assert_int_equal(s.hist[HIST_step_seconds].bucket[0], 3);
    assert_true(hist_sum(&s, HIST_step_seconds) == 0);
    hist_observe(&s, HIST_step_seconds, INFINITY);
    hist_observe(&s, HIST_step_seconds, 1e300);
    assert_int_equal(s.hist[HIST_step_seconds].bucket[n], 2);
    assert_int_equal(s.hist[HIST_step_seconds].count, 5);
    assert_true(isfinite(hist_sum(&s, HIST_step_seconds)));
}

/* 20 billion tokens are a few days of a busy server. */
static void hist_sum_of_tokens_does_not_wrap(void **state)
{
    struct stats s = { 0 };

    (void)state;
    for (int i = 0; i < 200000; i++)
        hist_observe(&s, HIST_request_prompt_tokens, 100000);
    assert_true(hist_sum(&s, HIST_request_prompt_tokens) == 2e10);
}

static void stats_zero_gauges_leaves_counters(void **state)
{
    static struct stats s;

    (void)state;
    for (int i = 0; i < N_STATS; i++)
        stat_set(&s, i, 5);
    stat_add(&s, STAT_requests_received, 2);
    stat_sub(&s, STAT_sequences_running, 6);
    assert_int_equal((int64_t)stat_get(&s, STAT_sequences_running), -1);
    hist_observe(&s, HIST_step_seconds, 1);
    stats_zero_gauges(&s);
    for (int i = 0; i < N_STATS; i++) {
        uint64_t want = stat_is_gauge(i) ? 0 : i == STAT_requests_received ? 7 : 5;
        assert_int_equal(stat_get(&s, i), want);
    }
    assert_int_equal(s.hist[HIST_step_seconds].count, 1);
}

enum { ADDERS = 4, ADDS = 20000 };

static void *add_many(void *stats)
{
    for (int i = 0; i < ADDS; i++) {
        stat_add(stats, STAT_steps, 1);
        hist_observe(stats, HIST_step_tokens, i % 3 + 1);
    }
    return NULL;
}

static void stats_lose_nothing_between_threads(void **state)
{
    static struct stats s;
    pthread_t threads[ADDERS];
    uint64_t in_buckets = 0;

    (void)state;
    for (int i = 0; i < ADDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, &s), 0);
    for (int i = 0; i < ADDERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(stat_get(&s, STAT_steps), ADDERS * ADDS);
    for (int i = 0; i < HIST_BUCKETS_MAX; i++)
        in_buckets += s.hist[HIST_step_tokens].bucket[i];
    assert_int_equal(in_buckets, ADDERS * ADDS);
    assert_int_equal(s.hist[HIST_step_tokens].count, ADDERS * ADDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_have_names_help_and_kinds),
        cmocka_unit_test(hist_bounds_ascend_and_leave_room_for_infinity),
        cmocka_unit_test(hist_observe_takes_the_bucket_of_its_bound),
        cmocka_unit_test(hist_observe_takes_odd_values),
        cmocka_unit_test(hist_sum_of_tokens_does_not_wrap),
        cmocka_unit_test(stats_zero_gauges_leaves_counters),
        cmocka_unit_test(stats_lose_nothing_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
