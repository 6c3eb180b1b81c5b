/* test_repetition.c - would break in production: a list that is cut because its lines begin alike, a loop that nobody
 * ends. */
#include "tests/check.h"

#include "gateway/answer/repetition.h"

static void expect(uint32_t min, uint32_t max, uint32_t count, const char *text, bool want)
{
    struct repetition_rule rule = { min, max, count };
    int32_t tokens[64];
    uint32_t n = 0;

    for (; text[n]; n++)
        tokens[n] = text[n];
    if (repetition_found(&rule, tokens, n) != want)
        fail_msg("%u..%u tokens, %u times, in '%s'", min, max, count, text);
}

static void runs_at_the_end_are_found(void **state)
{
    (void)state;
    expect(1, 4, 3, "xyzabcabcabc", true);
    expect(3, 3, 3, "abcabcabc", true);
    expect(1, 4, 3, "xyzabcabcab", false);
    expect(1, 4, 4, "abcabcabc", false);
    expect(1, 4, 3, "aaa", true);
    expect(1, 4, 2, "abab", true);
    expect(1, 4, 3, "abcabcabcx", false);
}

static void the_sizes_are_kept(void **state)
{
    (void)state;
    expect(1, 2, 3, "abcabcabc", false);
    expect(4, 6, 3, "abcabcabc", false);
    expect(2, 3, 3, "xaaa", false);
    expect(2, 3, 3, "aaaaaa", true); /* "aa" three times */
    expect(0, 3, 3, "baaa", true);   /* no least size: 1 */
}

static void nothing_is_looked_for_when_it_is_off(void **state)
{
    (void)state;
    expect(0, 0, 0, "aaaaaaaa", false);
    expect(0, 0, 2, "aaaaaaaa", false);
    expect(1, 3, 2, "", false);
    expect(1, UINT32_MAX, UINT32_MAX, "aaaa", false);
    expect(1, UINT32_MAX, 2, "abcdabcd", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_at_the_end_are_found),
        cmocka_unit_test(the_sizes_are_kept),
        cmocka_unit_test(nothing_is_looked_for_when_it_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
