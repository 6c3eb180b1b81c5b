/* test_arrival.c - would break in production: a token shown twice or left out after a worker's death, an answer that begins
 * before all of its prompt's log probabilities are there, a sequence that ends and nobody says how. */
#include "tests/check.h"

#include "gateway/answer/arrival.h"

enum { N_PROMPT = 4 };

static struct sequence s;
static struct stats stats;
static int32_t prompt[N_PROMPT] = { 1, 2, 3, 4 };
static int32_t generated[] = { 10, 11, 12, 13, 14, 15, 16, 17 };

static void begin(bool wants_prompt)
{
    memset(&s, 0, sizeof s);
    memset(&stats, 0, sizeof stats);
    sequence_init(&s);
    s.submit.prompt = prompt;
    s.submit.n_prompt = N_PROMPT;
    s.submit.want_prompt_logprobs = wants_prompt;
}

static void end(void)
{
    sequence_fini(&s);
}

/* Generated tokens [from, to) of a sequence that goes on. */
static Llmd__SequenceTokens message(uint32_t from, uint32_t to)
{
    Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;

    m.index = from;
    m.tokens = generated + from;
    m.n_tokens = to - from;
    return m;
}

static bool take(uint32_t from, uint32_t to)
{
    Llmd__SequenceTokens m = message(from, to);

    return arrival_take(&s, &m, &stats);
}

static void expect_tokens(uint32_t n)
{
    assert_int_equal(s.n_tokens, n);
    if (n > 0)
        assert_memory_equal(s.tokens, generated, n * sizeof *generated);
    assert_int_equal(stat_get(&stats, STAT_gateway_generated_tokens), n);
}

/* Positions [from, to) of the prompt, whose log probability is minus the position. */
static bool take_prompt(uint32_t from, uint32_t to, uint32_t n_tokens, Llmd__Finish finish)
{
    Llmd__SequenceTokens m = message(0, n_tokens);
    Llmd__TokenLogprob logprobs[N_PROMPT], *list[N_PROMPT];

    for (uint32_t i = from; i < to; i++) {
        llmd__token_logprob__init(&logprobs[i]);
        logprobs[i].logprob = -(float)i;
        list[i - from] = &logprobs[i];
    }
    m.prompt_index = from;
    m.prompt_logprobs = list;
    m.n_prompt_logprobs = to - from;
    m.finish = finish;
    return arrival_take(&s, &m, &stats);
}

static void expect_prompt(uint32_t n)
{
    assert_int_equal(s.n_prompt_logprobs, n);
    for (uint32_t i = 0; i < n; i++)
        assert_true(s.prompt_logprobs[i].logprob == -(float)i);
}

static void tokens_that_are_told_twice_are_there_once(void **state)
{
    (void)state;
    begin(false);
    assert_true(take(0, 3));
    assert_true(take(0, 3));
    expect_tokens(3);
    assert_int_equal(stat_get(&stats, STAT_duplicate_tokens_dropped), 3);
    assert_true(take(1, 5)); /* in part */
    expect_tokens(5);
    assert_int_equal(stat_get(&stats, STAT_duplicate_tokens_dropped), 5);
    assert_true(take(0, 2)); /* all of it is old */
    expect_tokens(5);
    end();
}

static void tokens_behind_a_gap_are_not_taken(void **state)
{
    (void)state;
    begin(false);
    assert_false(take(1, 3));
    expect_tokens(0);
    assert_true(take(0, 2));
    assert_false(take(3, 5));
    expect_tokens(2);
    assert_true(take(2, 5));
    expect_tokens(5);
    end();
}

static void what_the_first_message_says_of_the_queue_stays(void **state)
{
    Llmd__SequenceTokens m;

    (void)state;
    begin(false);
    m = message(0, 1);
    m.queue_ns = 7;
    m.cached_tokens = 3;
    assert_true(arrival_take(&s, &m, &stats));
    m.queue_ns = 70; /* a successor computed it again */
    m.cached_tokens = 0;
    assert_true(arrival_take(&s, &m, &stats));
    assert_int_equal(s.queue_ns, 7);
    assert_int_equal(s.cached_tokens, 3);
    end();
}

static void no_token_comes_before_the_prompt_is_whole(void **state)
{
    (void)state;
    begin(true);
    assert_true(take_prompt(0, 2, 0, LLMD__FINISH__FINISH_NONE));
    assert_false(take_prompt(2, 3, 2, LLMD__FINISH__FINISH_NONE));
    expect_prompt(3);
    expect_tokens(0);
    assert_false(take_prompt(3, 3, 0, LLMD__FINISH__FINISH_LENGTH));
    assert_true(take_prompt(1, 4, 2, LLMD__FINISH__FINISH_NONE)); /* from before what is known */
    expect_prompt(N_PROMPT);
    expect_tokens(2);
    end();
}

static void a_gap_in_the_prompt_is_not_taken(void **state)
{
    (void)state;
    begin(true);
    assert_false(take_prompt(1, 4, 0, LLMD__FINISH__FINISH_NONE));
    expect_prompt(0);
    assert_false(take_prompt(1, 4, 0, LLMD__FINISH__FINISH_ERROR));
    expect_prompt(0);
    end();
}

static void what_is_broken_off_may_lack_its_prompt(void **state)
{
    static const Llmd__Finish ends[] = { LLMD__FINISH__FINISH_ERROR, LLMD__FINISH__FINISH_DEADLINE,
                                         LLMD__FINISH__FINISH_CANCELLED };

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        begin(true);
        assert_true(take_prompt(0, 1, 0, ends[i]));
        expect_prompt(1);
        end();
    }
}

static void finish(Llmd__Finish how, char *error, float *embedding, size_t n)
{
    Llmd__SequenceTokens m = message(0, 0);

    m.finish = how;
    m.error = error;
    m.embedding = embedding;
    m.n_embedding = n;
    arrival_finish(&s, &m);
    assert_int_equal(s.finish, how);
}

static void an_end_that_is_a_fault_says_why(void **state)
{
    (void)state;
    begin(false);
    finish(LLMD__FINISH__FINISH_ERROR, "poison", NULL, 0);
    assert_int_equal(s.fault.kind, FAULT_GENERATION);
    assert_non_null(strstr(s.fault.text, "poison"));
    end();
    begin(false);
    finish(LLMD__FINISH__FINISH_ERROR, "", NULL, 0);
    assert_int_equal(s.fault.kind, FAULT_GENERATION);
    assert_true(s.fault.text[0] != '\0');
    end();
    begin(false);
    finish(LLMD__FINISH__FINISH_DEADLINE, "", NULL, 0);
    assert_int_equal(s.fault.kind, FAULT_TIMEOUT);
    end();
    begin(false);
    finish(LLMD__FINISH__FINISH_LENGTH, "", NULL, 0);
    assert_int_equal(s.fault.kind, FAULT_NONE);
    end();
}

static void an_embedding_is_kept_or_its_want_is_a_fault(void **state)
{
    float values[] = { 0.5f, -2.0f };

    (void)state;
    begin(false);
    finish(LLMD__FINISH__FINISH_EMBEDDED, "", values, 2);
    assert_int_equal(s.fault.kind, FAULT_NONE);
    assert_int_equal(s.n_embedding, 2);
    assert_memory_equal(s.embedding, values, sizeof values);
    end();
    begin(false);
    finish(LLMD__FINISH__FINISH_EMBEDDED, "", NULL, 0);
    assert_int_equal(s.fault.kind, FAULT_GENERATION);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_that_are_told_twice_are_there_once),
        cmocka_unit_test(tokens_behind_a_gap_are_not_taken),
        cmocka_unit_test(what_the_first_message_says_of_the_queue_stays),
        cmocka_unit_test(no_token_comes_before_the_prompt_is_whole),
        cmocka_unit_test(a_gap_in_the_prompt_is_not_taken),
        cmocka_unit_test(what_is_broken_off_may_lack_its_prompt),
        cmocka_unit_test(an_end_that_is_a_fault_says_why),
        cmocka_unit_test(an_embedding_is_kept_or_its_want_is_a_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
