/* test_engine_prompts.c - what is said of a prompt itself.  Would break in production: an embedding or a
 * log probability that depends on company, chunks or prefix cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"

/* ---- what is said of a prompt ---- */

enum { LONG = 500 };

static void fill_long(int32_t *prompt)
{
    for (int32_t k = 0; k < LONG; k++)
        prompt[k] = 3 + k * k % 251;
}

static struct client_request measured(const int32_t *prompt, uint32_t n_prompt, uint32_t max_tokens)
{
    struct client_request r = client_request(prompt, n_prompt, max_tokens);

    r.ignore_eos = true;
    r.want_prompt_logprobs = true;
    r.prompt_top_logprobs = 4;
    return r;
}

/* What others computed of it has no logits: it is computed again, for these; and found by those who want none. */
static void prompt_logprobs_are_whole_although_the_prompt_is_cached(void **state)
{
    int32_t prompt[LONG];
    struct fixture f;
    struct client_request plain, r;

    (void)state;
    fill_long(prompt);
    fixture_init(&f, &rig_roomy);
    plain = client_request(prompt, LONG, 5);
    plain.ignore_eos = true;
    r = measured(prompt, LONG, 5);
    client_submit(&f.client, 1, &plain);
    rig_until_all_over(&f.rig, &f.client);
    client_submit(&f.client, 2, &r);
    rig_until_all_over(&f.rig, &f.client);
    client_submit(&f.client, 3, &plain);
    rig_until_all_over(&f.rig, &f.client);
    for (int i = 0; i < 3; i++)
        rig_assert_expected(&f.client.streams[i], i == 1 ? &r : &plain);
    assert_int_equal(f.client.streams[1].n_cached, 0);
    assert_true(f.client.streams[2].n_cached > LONG - PAGE);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* The last state needs the last row only; a mean needs all.  Both say how much was found, with their end. */
static void an_embedding_finds_what_it_can_use(void **state)
{
    int32_t prompt[LONG];
    struct fixture f;
    struct client_request plain, last, mean;
    uint64_t n_rows;

    (void)state;
    fill_long(prompt);
    fixture_init(&f, &rig_roomy);
    plain = client_request(prompt, LONG, 1);
    last = client_request(prompt, LONG, 0);
    last.pooling = LLMD__POOLING__POOL_LAST;
    mean = last;
    mean.pooling = LLMD__POOLING__POOL_MEAN;
    client_submit(&f.client, 1, &plain);
    rig_until_all_over(&f.rig, &f.client);
    n_rows = fake_n_rows;
    client_submit(&f.client, 2, &last);
    rig_until_all_over(&f.rig, &f.client);
    assert_true(fake_n_rows - n_rows <= PAGE);
    assert_true(f.client.streams[1].n_cached >= LONG - PAGE);
    client_submit(&f.client, 3, &mean);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(f.client.streams[2].n_cached, 0);
    rig_assert_expected(&f.client.streams[1], &last);
    rig_assert_expected(&f.client.streams[2], &mean);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* Two of them, and streams that go on beside: they share the few logits of a step. */
static void measured_prompts_let_streams_go_on(void **state)
{
    int32_t prompt[LONG], other[LONG];
    struct fixture f;
    struct client_request stream = endless(100), a, b;

    (void)state;
    fill_long(prompt);
    fill_long(other);
    other[0] = 9;
    fixture_init(&f, &rig_roomy);
    client_submit(&f.client, 1, &stream);
    a = measured(prompt, LONG, 3);
    b = measured(other, LONG, 3);
    client_submit(&f.client, 2, &a);
    client_submit(&f.client, 3, &b);
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(&f.client.streams[0], &stream);
    rig_assert_expected(&f.client.streams[1], &a);
    rig_assert_expected(&f.client.streams[2], &b);
    fixture_fini(&f);
}

static void a_prompt_alone_can_be_measured(void **state)
{
    int32_t prompt[512];
    struct fixture f;
    struct client_request r, whole;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fill_long(prompt);
    for (int k = LONG; k < 512; k++)
        prompt[k] = 8;
    fixture_init(&f, &rig_roomy);
    for (uint32_t n = 1; n < 100; n += 14) {
        r = measured(prompt, n, 0);
        client_submit(&f.client, n, &r);
    }
    whole = measured(prompt, 512, 0); /* as long as the context: nothing comes behind it */
    client_submit(&f.client, 1000, &whole);
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < f.client.n_streams; i++) {
        const struct client_stream *s = &f.client.streams[i];
        assert_int_equal(s->finish, LLMD__FINISH__FINISH_LENGTH);
        assert_int_equal(s->n, 0);
        rig_assert_expected(s, &s->request);
    }
    assert_true(fake_n_rows > n_rows);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_generated_tokens), 0);
    fixture_fini(&f);
}

/* A gateway that has nothing gets everything again, one that has a token only what follows. */
static void what_is_said_of_a_prompt_comes_again_to_who_has_nothing(void **state)
{
    int32_t prompt[LONG];
    struct fixture f;
    struct client_request r, pooled;
    uint32_t n_before;

    (void)state;
    fill_long(prompt);
    fixture_init(&f, &rig_roomy);
    f.client.no_ack = true;
    r = measured(prompt, LONG, 5);
    pooled = client_request(prompt, LONG, 0);
    pooled.pooling = LLMD__POOLING__POOL_MEAN;
    client_submit(&f.client, 1, &r);
    client_submit(&f.client, 2, &pooled);
    rig_until_all_over(&f.rig, &f.client);
    n_before = f.client.n_hello;
    client_reconnect(&f.client, f.rig.instance);
    while (f.client.n_hello == n_before || !f.client.is_greeted)
        rig_turn(&f.rig, &f.client);
    for (int i = 0; i < 20; i++)
        rig_turn(&f.rig, &f.client);
    assert_int_equal(f.client.n_prompt_duplicates, 0);
    client_close(&f.client); /* its successor */
    client_open(&f.client, f.rig.instance, 1);
    f.client.no_resync = true; /* it submits again what it finds in its records */
    rig_until(&f.rig, &f.client, said_hello, &f.client);
    client_submit(&f.client, 1, &r);
    client_submit(&f.client, 2, &pooled);
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(&f.client.streams[0], &r);
    rig_assert_expected(&f.client.streams[1], &pooled);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* Moved here with some of its tokens, or all of them: its prompt is measured again. */
static void a_measured_sequence_can_be_moved(void **state)
{
    int32_t prompt[LONG], tokens[CLIENT_TOKENS_MAX];
    struct fixture f;
    struct client_request r, rest;

    (void)state;
    fill_long(prompt);
    r = measured(prompt, 100, 30);
    rig_expect(&r, tokens, NULL);
    fixture_init(&f, &rig_roomy);
    rest = r;
    rest.generated = tokens;
    for (uint32_t k = 0; k < 3; k++) {
        rest.n_generated = 15 * k;
        client_submit(&f.client, 1 + k, &rest);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t k = 0; k < 3; k++) {
        assert_int_equal(f.client.streams[k].finish, LLMD__FINISH__FINISH_LENGTH);
        assert_int_equal(f.client.streams[k].n, 30);
        assert_memory_equal(f.client.streams[k].tokens, tokens, 30 * sizeof *tokens);
    }
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static void a_prompt_that_is_not_finite_ends_with_an_error(void **state)
{
    int32_t prompt[LONG];
    struct fixture f;
    struct client_request r, good = endless(20);

    (void)state;
    fill_long(prompt);
    prompt[90] = FAKE_NAN;
    fixture_init(&f, &rig_roomy);
    r = measured(prompt, 200, 5);
    client_submit(&f.client, 1, &good);
    client_submit(&f.client, 2, &r);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(f.client.streams[1].finish, LLMD__FINISH__FINISH_ERROR);
    assert_int_equal(f.client.streams[1].n_prompt, 91);
    rig_assert_expected(&f.client.streams[0], &good);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* ---- embeddings ---- */

/* Every second one is an embedding, the others generate. */
static void check_embeddings(const struct rig_shape *shape)
{
    enum { N = 36 };
    struct fixture f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];

    fixture_init(&f, shape);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = i % 2 ? rig_mixed_request(i, prompts[i], &bias[i], &lists[i])
                     : rig_pooled_request(i / 2, prompts[i]);
        if (i % 8 >= 4 && i >= 8) /* begins as one before it */
            memcpy(prompts[i], prompts[i - 8], 40 * sizeof(int32_t));
        client_submit(&f.client, 100 + i, &r[i]);
        if (i % 5 == 0)
            rig_turn(&f.rig, &f.client);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_finished), N);
    if (shape == &rig_tight)
        assert_true(stat_get(rig_stats(&f.rig), STAT_sequences_preempted) > 0);
    fixture_fini(&f);
}

/* The same bits in any company and any chunks. */
static void embeddings_are_those_of_the_prompt_alone(void **state)
{
    (void)state;
    check_embeddings(&rig_roomy);
    check_embeddings(&rig_tight);
}

static void an_embedding_that_is_not_finite_is_an_error(void **state)
{
    const int32_t broken[] = { 1, FAKE_NAN, 5 };
    struct fixture f;
    struct client_request r = client_request(broken, 3, 0);

    (void)state;
    fixture_init(&f, &rig_roomy);
    for (r.pooling = LLMD__POOLING__POOL_MEAN; r.pooling <= LLMD__POOLING__POOL_LAST; r.pooling++)
        client_submit(&f.client, 1 + r.pooling, &r);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(f.client.streams[0].finish, LLMD__FINISH__FINISH_ERROR);
    assert_int_equal(f.client.streams[1].finish, LLMD__FINISH__FINISH_EMBEDDED);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompt_logprobs_are_whole_although_the_prompt_is_cached),
        cmocka_unit_test(an_embedding_finds_what_it_can_use),
        cmocka_unit_test(measured_prompts_let_streams_go_on),
        cmocka_unit_test(a_prompt_alone_can_be_measured),
        cmocka_unit_test(what_is_said_of_a_prompt_comes_again_to_who_has_nothing),
        cmocka_unit_test(a_measured_sequence_can_be_moved),
        cmocka_unit_test(a_prompt_that_is_not_finite_ends_with_an_error),
        cmocka_unit_test(embeddings_are_those_of_the_prompt_alone),
        cmocka_unit_test(an_embedding_that_is_not_finite_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
