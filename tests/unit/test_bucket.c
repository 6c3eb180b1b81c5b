/* test_bucket.c - if this breaks, a key gets more than it pays for, or is refused what it has paid for.  Time is
 * what the test says. */
#include "gateway/admission/bucket.h"

#include "common/clock.h"
#include "tests/check.h"

#define T0     (1000 * NS_PER_S)
#define MINUTE (60 * NS_PER_S)

static uint32_t take_all(_Atomic uint64_t *b, uint64_t per_minute, uint64_t now_ns)
{
    uint64_t wait_ns;
    uint32_t n = 0;

    while (bucket_take(b, per_minute, now_ns, &wait_ns))
        n++;
    return n;
}

static void a_full_bucket_gives_a_minutes_worth_at_once(void **state)
{
    static const uint64_t rates[] = { 1, 2, 7, 60, 61, 997, 10000 };

    (void)state;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        _Atomic uint64_t b = 0;
        assert_int_equal(take_all(&b, rates[i], T0), rates[i]);
        assert_int_equal(take_all(&b, rates[i], T0 + MINUTE), rates[i]); /* full again */
        assert_int_equal(take_all(&b, rates[i], T0 + MINUTE + MINUTE / 2), rates[i] / 2);
    }
}

static void waiting_as_told_is_enough_and_less_is_not(void **state)
{
    _Atomic uint64_t b = 0;
    uint64_t wait_ns = 0, again_ns;

    (void)state;
    take_all(&b, 7, T0);
    assert_false(bucket_take(&b, 7, T0, &wait_ns));
    assert_true(wait_ns > 0 && wait_ns <= MINUTE / 7 + 1);
    assert_false(bucket_take(&b, 7, T0 + wait_ns - 1, &again_ns));
    assert_true(bucket_take(&b, 7, T0 + wait_ns, &again_ns));
}

static void an_idle_bucket_does_not_run_over(void **state)
{
    _Atomic uint64_t b = 0;

    (void)state;
    assert_int_equal(take_all(&b, 10, T0 + 1000 * MINUTE), 10);
}

/* Over any long time, no more than the rate and what was in the bucket. */
static void the_long_run_is_the_rate(void **state)
{
    _Atomic uint64_t b = 0;
    uint32_t n = 0;

    (void)state;
    for (uint64_t t = 0; t < 100 * MINUTE; t += 77777777)
        n += take_all(&b, 13, T0 + t);
    assert_in_range(n, 100 * 13, 101 * 13);
}

static void debt_closes_the_bucket_until_it_is_paid(void **state)
{
    _Atomic uint64_t b = 0;
    uint64_t wait_ns = 0;

    (void)state;
    assert_true(bucket_is_open(&b, 1000, T0, &wait_ns));
    bucket_charge(&b, 1000, 2500, T0); /* one and a half minutes' more than there was */
    assert_false(bucket_is_open(&b, 1000, T0, &wait_ns));
    assert_in_range(wait_ns, 90 * NS_PER_S, 91 * NS_PER_S);
    assert_false(bucket_is_open(&b, 1000, T0 + wait_ns - NS_PER_S, &wait_ns));
    assert_true(bucket_is_open(&b, 1000, T0 + 91 * NS_PER_S, &wait_ns));
}

static void no_number_is_too_large(void **state)
{
    _Atomic uint64_t b = 0;
    uint64_t wait_ns = 0;

    (void)state;
    bucket_charge(&b, 1, UINT64_MAX, T0);
    bucket_charge(&b, 1, UINT64_MAX, T0);
    assert_false(bucket_is_open(&b, 1, T0, &wait_ns));
    assert_true(wait_ns <= 24 * 60 * MINUTE);
    b = 0;
    bucket_charge(&b, 1000000000000, UINT64_MAX, T0);
    assert_false(bucket_is_open(&b, 1000000000000, T0, &wait_ns));
    b = 0;
    bucket_charge(&b, 1000000000000, 1, T0);
    assert_true(bucket_is_open(&b, 1000000000000, T0, &wait_ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_bucket_gives_a_minutes_worth_at_once),
        cmocka_unit_test(waiting_as_told_is_enough_and_less_is_not),
        cmocka_unit_test(an_idle_bucket_does_not_run_over),
        cmocka_unit_test(the_long_run_is_the_rate),
        cmocka_unit_test(debt_closes_the_bucket_until_it_is_paid),
        cmocka_unit_test(no_number_is_too_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
