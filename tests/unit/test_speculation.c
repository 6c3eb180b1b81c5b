/* test_speculation.c - would break in production: time spent on proposals that never come true, or a proposal
 * that is not what the text says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu-worker/speculation.h"

static void what_followed_the_same_words_is_proposed(void **state)
{
    int32_t t[32] = { 1, 10, 11, 12, 13, 14, 20, 10, 11, 12 };

    (void)state;
    assert_int_equal(speculation_propose(t, 10, 4), 4);
    assert_int_equal(t[10], 13);
    assert_int_equal(t[11], 14);
    assert_int_equal(t[12], 20);
    assert_int_equal(t[13], 10);
    assert_int_equal(speculation_propose(t, 10, 0), 0);
}

static void the_longest_match_wins_and_then_the_latest(void **state)
{
    int32_t longest[32] = { 5, 6, 7, 90, 6, 7, 91, 5, 6, 7 };
    int32_t latest[32] = { 6, 7, 90, 1, 6, 7, 91, 2, 6, 7 };

    (void)state;
    assert_int_equal(speculation_propose(longest, 10, 1), 1);
    assert_int_equal(longest[10], 90);
    assert_int_equal(speculation_propose(latest, 10, 1), 1);
    assert_int_equal(latest[10], 91);
}

static void a_single_token_alike_is_no_match(void **state)
{
    int32_t t[16] = { 1, 2, 3, 4, 2 };

    (void)state;
    for (uint32_t n = 0; n <= 5; n++)
        assert_int_equal(speculation_propose(t, n, 7), 0);
}

static void a_repetition_is_proposed_to_go_on(void **state)
{
    int32_t t[32] = { 1, 8, 9, 8, 9 };

    (void)state;
    assert_int_equal(speculation_propose(t, 5, 7), 7);
    for (int i = 0; i < 7; i++)
        assert_int_equal(t[5 + i], i % 2 ? 9 : 8);
}

static void who_is_often_wrong_rests_and_tries_again(void **state)
{
    struct speculation s = { 0 };
    uint32_t n = 10, n_tries = 0;

    (void)state;
    assert_int_equal(speculation_wants(&s, n), SPECULATION_MAX);
    while (speculation_wants(&s, n) > 0) {
        speculation_learn(&s, speculation_wants(&s, n), 0, 0.3, n);
        n++;
        assert_true(++n_tries < 10);
    }
    assert_int_equal(speculation_wants(&s, n + SPECULATION_REST - 2), 0);
    n += SPECULATION_REST;
    assert_true(speculation_wants(&s, n) > 0);
    speculation_learn(&s, 2, 0, 0.3, n); /* still wrong: at once */
    assert_int_equal(speculation_wants(&s, n + 1), 0);
    n += SPECULATION_REST;
    for (int i = 0; i < 10; i++)
        speculation_learn(&s, 2, 2, 0.3, n);
    assert_true(speculation_wants(&s, n) >= SPECULATION_MAX - 1);
}

/* Where a row costs as much as a token, only those that are always right go on. */
static void a_high_price_wants_more_truth(void **state)
{
    struct speculation s = { 0 }, t = { 0 };

    (void)state;
    for (int i = 0; i < 20; i++) {
        speculation_learn(&s, 4, 3, 0.3, 5);
        speculation_learn(&t, 4, 3, 0.9, 5);
    }
    assert_true(speculation_wants(&s, 5) > 0);
    assert_int_equal(speculation_wants(&t, 5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_followed_the_same_words_is_proposed),
        cmocka_unit_test(the_longest_match_wins_and_then_the_latest),
        cmocka_unit_test(a_single_token_alike_is_no_match),
        cmocka_unit_test(a_repetition_is_proposed_to_go_on),
        cmocka_unit_test(who_is_often_wrong_rests_and_tries_again),
        cmocka_unit_test(a_high_price_wants_more_truth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
