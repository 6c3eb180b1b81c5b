/* test_thinking.c - would break in production: a model that thinks for ever, an answer that is cut by a mark it did
 * not need, or another mark after a crash in the middle of one. */
#include "tests/check.h"

#include "gpu-worker/thinking.h"

enum { OPEN = 7, CLOSE_A = 8, CLOSE_B = 9, WORD = 1 };

static int32_t open_mark[] = { OPEN }, close_mark[] = { CLOSE_A, CLOSE_B };

static Llmd__Thinking make(uint32_t budget, bool is_open, uint32_t n_before)
{
    Llmd__Thinking t = LLMD__THINKING__INIT;

    t.budget = budget;
    t.open = open_mark;
    t.n_open = 1;
    t.close = close_mark;
    t.n_close = 2;
    t.is_open = is_open;
    t.n_before = n_before;
    return t;
}

/* The model says WORD wherever it may, or what `says` has for a place; what comes of it is compared place by place. */
static void expect(const Llmd__Thinking *t, const int32_t *says, const int32_t *want, uint32_t n)
{
    int32_t tokens[32];

    for (uint32_t i = 0; i < n; i++) {
        int32_t forced = thinking_forced(t, tokens, i);
        tokens[i] = forced >= 0 ? forced : says ? says[i] : WORD;
        if (tokens[i] != want[i])
            fail_msg("token %u is %d, not %d", i, tokens[i], want[i]);
    }
}

static void nothing_is_forced_without_a_budget_or_a_thought(void **state)
{
    Llmd__Thinking t = make(0, false, 0);
    const int32_t words[] = { WORD, WORD, WORD, WORD };

    (void)state;
    assert_int_equal(thinking_forced(NULL, words, 4), -1);
    expect(&t, NULL, words, 4);
}

static void a_thought_that_is_open_ends_behind_its_budget(void **state)
{
    Llmd__Thinking t = make(2, true, 0);
    const int32_t want[] = { WORD, WORD, CLOSE_A, CLOSE_B, WORD, WORD, WORD, WORD };

    (void)state;
    expect(&t, NULL, want, 8);
    t.budget = 0;
    expect(&t, NULL, (const int32_t[]){ CLOSE_A, CLOSE_B, WORD }, 3);
}

static void the_prompts_part_of_a_thought_counts(void **state)
{
    Llmd__Thinking t = make(3, true, 2);

    (void)state;
    expect(&t, NULL, (const int32_t[]){ WORD, CLOSE_A, CLOSE_B, WORD }, 4);
    t.n_before = 100; /* more than there may be: the mark is whole all the same */
    expect(&t, NULL, (const int32_t[]){ CLOSE_A, CLOSE_B, WORD }, 3);
}

static void each_thought_has_the_budget_for_itself(void **state)
{
    Llmd__Thinking t = make(3, false, 0);
    const int32_t says[] = { OPEN, WORD, CLOSE_A, CLOSE_B, WORD, OPEN,
                             WORD, WORD, WORD,    WORD,    WORD, WORD };
    const int32_t want[] = { OPEN, WORD, CLOSE_A, CLOSE_B, WORD,    OPEN,
                             WORD, WORD, WORD,    CLOSE_A, CLOSE_B, WORD };

    (void)state;
    expect(&t, says, want, 12);
}

/* It began the mark by itself when its budget was over: the mark is not written twice over. */
static void a_mark_that_is_begun_is_completed_once(void **state)
{
    Llmd__Thinking t = make(4, true, 0);
    const int32_t says[] = { WORD, WORD, CLOSE_A, CLOSE_B, WORD, WORD };

    (void)state;
    expect(&t, says, says, 6);
    t.budget =
        3; /* CLOSE_A is the last of the budget: behind it comes the mark from its beginning */
    expect(&t, says, (const int32_t[]){ WORD, WORD, CLOSE_A, CLOSE_A, CLOSE_B, WORD }, 6);
}

/* Whoever goes on from any token forces the same one. */
static void it_is_a_function_of_the_tokens(void **state)
{
    Llmd__Thinking t = make(5, true, 1);
    int32_t tokens[16], forced[16];

    (void)state;
    for (uint32_t i = 0; i < 16; i++) {
        forced[i] = thinking_forced(&t, tokens, i);
        tokens[i] = forced[i] >= 0 ? forced[i] : WORD;
    }
    for (uint32_t i = 16; i-- > 0;)
        assert_int_equal(thinking_forced(&t, tokens, i), forced[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_forced_without_a_budget_or_a_thought),
        cmocka_unit_test(a_thought_that_is_open_ends_behind_its_budget),
        cmocka_unit_test(the_prompts_part_of_a_thought_counts),
        cmocka_unit_test(each_thought_has_the_budget_for_itself),
        cmocka_unit_test(a_mark_that_is_begun_is_completed_once),
        cmocka_unit_test(it_is_a_function_of_the_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
