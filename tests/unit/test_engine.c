/* test_engine.c - would break in production: a token lost, doubled or changed on its way from the model
 * to a gateway; an entry, page or pin left behind by a client that went away. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "engine_rig.h"
#include "gpu-worker/kvcache.h"
#include "gpu-worker/philox.h"

enum { SYSTEM = 200, PAGE = 8 };
enum { SLOW_US = 300 }; /* a step, where a test must meet a stream before its end */

static const int32_t story[] = { 1, 40, 41, 42, 43, 44, 45 };

struct fixture {
    struct rig rig;
    struct client client;
};

static bool said_hello(const void *arg)
{
    return ((const struct client *)arg)->n_hello > 0;
}

static void fixture_init(struct fixture *f, const struct rig_shape *shape)
{
    rig_make_segments(&f->rig, shape);
    rig_start(&f->rig);
    client_open(&f->client, f->rig.instance, 1);
    rig_until(&f->rig, &f->client, said_hello, &f->client);
}

static void fixture_fini(struct fixture *f)
{
    client_close(&f->client);
    rig_close(&f->rig);
}

/* For tests that count rows. */
static void switch_off_drafts(struct fixture *f)
{
    struct err e;

    assert_true(config_set(&f->rig.config, "speculate", "off", "test", &e));
}

static struct client_request endless(uint32_t max_tokens)
{
    struct client_request r = client_request(story, 7, max_tokens);

    r.ignore_eos = true;
    return r;
}

/* ---- what is generated ---- */

static void check_mixed_load(const struct rig_shape *shape, uint32_t n)
{
    struct fixture f;
    int32_t prompts[64][64];
    Llmd__LogitBias bias[64], *lists[64];
    struct client_request r[64];

    fixture_init(&f, shape);
    for (uint32_t i = 0; i < n; i++) {
        r[i] = rig_mixed_request(i, prompts[i], &bias[i], &lists[i]);
        client_submit(&f.client, 100 + i, &r[i]);
        if (i % 3 == 0)
            rig_turn(&f.rig, &f.client); /* arrive while others run */
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(f.client.streams[i].n_accepted, 1);
        rig_assert_expected(&f.client.streams[i], &r[i]);
    }
    assert_int_equal(f.client.n_duplicates, 0);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_finished), n);
    if (shape == &rig_tight)
        assert_true(stat_get(rig_stats(&f.rig), STAT_sequences_preempted) > 0);
    fixture_fini(&f);
}

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

static void every_stream_equals_its_solo_run(void **state)
{
    (void)state;
    check_mixed_load(&rig_roomy, 48);
}

/* Preempted and computed again in other chunks: the same tokens. */
static void every_stream_equals_its_solo_run_when_pages_run_out(void **state)
{
    (void)state;
    check_mixed_load(&rig_tight, 40);
}

static void streams_end_for_the_right_reason(void **state)
{
    struct fixture f;
    struct client_request r = endless(40), eos = client_request(story, 7, 400);
    Llmd__LogitBias bias = LLMD__LOGIT_BIAS__INIT, *biases[] = { &bias };
    int32_t tokens[CLIENT_TOKENS_MAX];
    struct client_stream *length, *stop, *masked, *context, *at_eos;
    int32_t sixth;

    (void)state;
    rig_expect(&r, tokens, NULL);
    sixth = tokens[5];
    for (int i = 0; i < 5; i++)
        assert_true(tokens[i] != sixth);
    fixture_init(&f, &rig_roomy);
    length = client_submit(&f.client, 1, &r);
    r.stop_token = sixth;
    stop = client_submit(&f.client, 2, &r);
    r.min_tokens = 7;
    masked = client_submit(&f.client, 3, &r);
    r = endless(100000);
    context = client_submit(&f.client, 4, &r);
    eos.sampling.temperature = 1.5f;
    eos.sampling.seed = 5;
    bias.token = FAKE_EOS;
    bias.bias = 4;
    eos.sampling.n_logit_bias = 1;
    eos.sampling.logit_bias = biases;
    at_eos = client_submit(&f.client, 5, &eos);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(length->finish, LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(length->n, 40);
    assert_int_equal(stop->finish, LLMD__FINISH__FINISH_STOP_TOKEN);
    assert_int_equal(stop->n, 6);
    assert_int_equal(stop->tokens[5], sixth);
    assert_true(masked->n >= 7 && masked->tokens[5] != sixth);
    assert_int_equal(context->finish, LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(context->n, 512 - 7);
    rig_assert_expected(at_eos, &eos);
    assert_int_equal(at_eos->finish, LLMD__FINISH__FINISH_EOS);
    assert_int_equal(at_eos->tokens[at_eos->n - 1], FAKE_EOS);
    fixture_fini(&f);
}

/* A sequence that moved here from another group: same tokens as if it had begun here. */
static void generation_continues_after_given_tokens(void **state)
{
    struct fixture f;
    struct client_request r = endless(50), rest;
    int32_t tokens[CLIENT_TOKENS_MAX];

    (void)state;
    r.sampling.temperature = 0.9f;
    r.sampling.seed = 77;
    r.sampling.repetition_penalty = 1.3f;
    r.sampling.frequency_penalty = 0.3f;
    rig_expect(&r, tokens, NULL);
    fixture_init(&f, &rig_roomy);
    rest = r;
    rest.generated = tokens;
    for (uint32_t k = 0; k < 4; k++) { /* 50: it is at its end already */
        rest.n_generated = k == 3 ? 50 : 1 + 20 * k;
        client_submit(&f.client, 10 + k, &rest);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t k = 0; k < 4; k++) {
        rig_assert_expected(&f.client.streams[k], &r);
        assert_int_equal(f.client.streams[k].finish, LLMD__FINISH__FINISH_LENGTH);
    }
    fixture_fini(&f);
}

static void a_row_that_is_not_finite_ends_one_stream_only(void **state)
{
    const int32_t broken[] = { 1, 5, FAKE_NAN };
    struct fixture f;
    struct client_request good = endless(30), bad = client_request(broken, 3, 30);
    struct client_stream *g, *b;
    uint32_t n_doubts = fake_n_doubts;

    (void)state;
    fixture_init(&f, &rig_roomy);
    g = client_submit(&f.client, 1, &good);
    b = client_submit(&f.client, 2, &bad);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(b->finish, LLMD__FINISH__FINISH_ERROR);
    assert_non_null(strstr(b->text, "finite"));
    assert_int_equal(fake_n_doubts, n_doubts + 1); /* the weights may be to blame */
    rig_assert_expected(g, &good);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 1);
    fixture_fini(&f);
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

/* ---- what is computed once ---- */

/* A long beginning that all share, and a short end of their own. */
static void fill_chat(int32_t *prompt, uint32_t i, uint32_t n_end)
{
    for (uint32_t k = 0; k < SYSTEM; k++)
        prompt[k] = (int32_t)(3 + k * 7 % 200);
    for (uint32_t k = 0; k < n_end; k++)
        prompt[SYSTEM + k] = (int32_t)(3 + (i * 13 + k) % 250);
}

static void a_prompt_that_many_begin_with_is_computed_once(void **state)
{
    enum { N = 32, END = 20, ANSWER = 10 };
    int32_t prompts[N][SYSTEM + END];
    struct client_request r[N];
    struct fixture f;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fixture_init(&f, &rig_roomy);
    switch_off_drafts(&f);
    for (uint32_t i = 0; i < N; i++) {
        fill_chat(prompts[i], i, END);
        r[i] = client_request(prompts[i], SYSTEM + END, ANSWER);
        r[i].ignore_eos = true;
        r[i].sampling.temperature = i % 2 ? 0.8f : 0;
        r[i].sampling.seed = i;
        client_submit(&f.client, 1 + i, &r[i]);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++) {
        rig_assert_expected(&f.client.streams[i], &r[i]);
        assert_int_equal(f.client.streams[i].n_cached, i == 0 ? 0 : SYSTEM);
    }
    assert_int_equal(fake_n_rows - n_rows, SYSTEM + N * (END + ANSWER - 1));
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prompt_tokens), SYSTEM + N * END);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prefix_cache_hits), (N - 1) * SYSTEM);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prefix_cache_queries), N * (SYSTEM + END));
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* The common part ends inside a page: the last of its tokens are copied. */
static void a_prompt_is_found_to_its_last_common_token(void **state)
{
    enum { N = 6, COMMON = SYSTEM - 3, END = 20 };
    int32_t prompts[N][COMMON + END];
    struct client_request r[N];
    struct fixture f;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fixture_init(&f, &rig_roomy);
    switch_off_drafts(&f);
    fake_settings.step_us = 20000; /* all are there before the first is through */
    for (uint32_t i = 0; i < N; i++) {
        int32_t whole[SYSTEM + END];
        fill_chat(whole, i, END);
        memcpy(prompts[i], whole, COMMON * sizeof *whole);
        memcpy(prompts[i] + COMMON, whole + SYSTEM, END * sizeof *whole);
        r[i] = client_request(prompts[i], COMMON + END, 1);
        client_submit(&f.client, 1 + i, &r[i]);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++) {
        rig_assert_expected(&f.client.streams[i], &r[i]);
        assert_int_equal(f.client.streams[i].n_cached, i == 0 ? 0 : COMMON);
    }
    assert_int_equal(fake_n_rows - n_rows, COMMON + N * END);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* n sequences of one request: the prompt once, and the rest of its last page for each. */
static void sequences_of_one_request_share_their_prompt(void **state)
{
    enum { N = 8, PROMPT = SYSTEM + 5, ANSWER = 10 };
    int32_t prompt[PROMPT];
    struct client_request r;
    struct fixture f;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fill_chat(prompt, 0, 5);
    fixture_init(&f, &rig_roomy);
    switch_off_drafts(&f);
    r = client_request(prompt, PROMPT, ANSWER);
    r.ignore_eos = true;
    r.sampling.temperature = 1;
    for (uint32_t i = 0; i < N; i++) {
        r.sampling.seed = i;
        client_submit(&f.client, 1 + i, &r);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &f.client.streams[i].request);
    assert_true(fake_n_rows - n_rows <= SYSTEM + N * (PROMPT % PAGE + ANSWER - 1));
    fixture_fini(&f);
}

/* n = 4, all at once: rows of one prompt, and for the other three that of its last token, for the logits, and of what
 * is too few to be copied. */
static void four_choices_cost_one_prompt(void **state)
{
    static const uint32_t lengths[] = { SYSTEM, SYSTEM + 1, SYSTEM + 3, SYSTEM + 7 };

    (void)state;
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int32_t prompt[SYSTEM + PAGE];
        struct client_request r;
        struct fixture f;
        uint64_t n_rows = fake_n_rows;
        uint32_t rest;
        fill_chat(prompt, 0, PAGE);
        fixture_init(&f, &rig_roomy);
        switch_off_drafts(&f);
        fake_settings.step_us = 20000; /* all are there before the first step is through */
        r = client_request(prompt, lengths[k], 2);
        r.ignore_eos = true;
        r.sampling.temperature = 1;
        for (uint32_t i = 0; i < 4; i++, r.sampling.seed++)
            client_submit(&f.client, 1 + i, &r);
        rig_until_all_over(&f.rig, &f.client);
        for (uint32_t i = 0; i < 4; i++)
            rig_assert_expected(&f.client.streams[i], &f.client.streams[i].request);
        n_rows = fake_n_rows - n_rows - 4; /* less those of their first tokens */
        print_message("prompt of %u tokens: %u rows for four\n", lengths[k], (unsigned)n_rows);
        rest = (lengths[k] - 1) % PAGE;
        assert_int_equal(n_rows, lengths[k] + 3 * (rest < KVCACHE_TAIL_MIN ? rest + 1 : 1));
        rig_until_empty(&f.rig, &f.client);
        rig_assert_clean(&f.rig);
        fixture_fini(&f);
    }
}

/* The next turn of a talk: what was asked and what was answered, and a new question. */
static void an_answer_is_found_when_the_talk_goes_on(void **state)
{
    enum { ANSWER = 50 };
    int32_t prompt[SYSTEM + 20 + ANSWER + 10];
    struct client_request r, next;
    struct fixture f;

    (void)state;
    fill_chat(prompt, 0, 20);
    fixture_init(&f, &rig_roomy);
    r = client_request(prompt, SYSTEM + 20, ANSWER);
    r.ignore_eos = true;
    client_submit(&f.client, 1, &r);
    rig_until_all_over(&f.rig, &f.client);
    memcpy(prompt + SYSTEM + 20, f.client.streams[0].tokens, ANSWER * sizeof *prompt);
    for (int k = 0; k < 10; k++)
        prompt[SYSTEM + 20 + ANSWER + k] = 9 + k;
    next = client_request(prompt, SYSTEM + 20 + ANSWER + 10, 20);
    client_submit(&f.client, 2, &next);
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(&f.client.streams[1], &next);
    assert_int_equal(f.client.streams[1].n_cached, (SYSTEM + 20 + ANSWER - 1) / PAGE * PAGE);
    fixture_fini(&f);
}

static void another_group_computes_nothing_again(void **state)
{
    int32_t prompt[SYSTEM + 20];
    struct client_request r;
    struct fixture f, g;
    struct err e;
    uint64_t n_rows;

    (void)state;
    fill_chat(prompt, 0, 20);
    rig_make_segments(&f.rig, &rig_roomy);
    rig_make_segments(&g.rig, &rig_roomy);
    f.rig.n_groups = g.rig.n_groups = 2;
    g.rig.group = 1;
    kvpool_close(&g.rig.pool);
    assert_true(kvpool_attach(&g.rig.pool, dup(f.rig.pool.segment.fd), &e));
    switch_off_drafts(&f);
    switch_off_drafts(&g);
    rig_start(&f.rig);
    rig_start(&g.rig);
    client_open(&f.client, f.rig.instance, 1);
    client_open(&g.client, g.rig.instance, 1);
    r = client_request(prompt, SYSTEM + 20, 30);
    r.ignore_eos = true;
    client_submit(&f.client, 1, &r);
    rig_until_all_over(&f.rig, &f.client);
    n_rows = fake_n_rows;
    client_submit(&g.client, 1, &r);
    rig_until_all_over(&g.rig, &g.client);
    rig_assert_expected(&g.client.streams[0], &r);
    assert_int_equal(fake_n_rows - n_rows, (SYSTEM + 20) % PAGE + 30 - 1);
    assert_int_equal(stat_get(rig_stats(&g.rig), STAT_kv_pages_copied), (SYSTEM + 20) / PAGE);
    fixture_fini(&g);
    fixture_fini(&f);
}

/* Preempted again and again, and still hardly anything is computed twice. */
static void a_preempted_sequence_finds_its_own_pages(void **state)
{
    struct client_request r[2];
    int32_t prompts[2][80];
    struct fixture f;
    struct stats *s;

    (void)state;
    fixture_init(&f, &rig_tight); /* 40 pages of 4 tokens; each ends at 36 */
    fake_settings.step_us = SLOW_US;
    s = rig_stats(&f.rig);
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t k = 0; k < 80; k++)
            prompts[i][k] = (int32_t)(3 + i * 100 + k);
        r[i] = client_request(prompts[i], 64, 80);
        r[i].ignore_eos = true;
        client_submit(&f.client, 1 + i, &r[i]);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 2; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_true(stat_get(s, STAT_sequences_preempted) > 0);
    assert_true(stat_get(s, STAT_prefix_cache_hits) > 0);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static void run_again(struct fixture *f, uint64_t id, const struct client_request *r)
{
    struct client_stream *s = client_submit(&f->client, id, r);

    rig_until_all_over(&f->rig, &f->client);
    rig_assert_expected(s, r);
}

/* KV that bad weights may have made, or that made no number, serves nobody else. */
static void pages_in_doubt_are_computed_again(void **state)
{
    const int32_t broken[] = { 1, 5, FAKE_NAN };
    struct client_request r, bad = client_request(broken, 3, 5);
    int32_t prompt[SYSTEM + 20];
    struct fixture f;
    struct stats *s;

    (void)state;
    fill_chat(prompt, 0, 20);
    fixture_init(&f, &rig_roomy);
    s = rig_stats(&f.rig);
    r = client_request(prompt, SYSTEM + 20, 5);
    run_again(&f, 1, &r);
    run_again(&f, 2, &r);
    assert_int_equal(stat_get(s, STAT_prefix_cache_hits), (SYSTEM + 20) / PAGE * PAGE);
    stat_add(s, STAT_weights_chunks_reloaded, 1); /* as the guard does */
    run_again(&f, 3, &r);
    assert_int_equal(f.client.streams[2].n_cached, 0);
    run_again(&f, 4, &r);
    assert_int_equal(f.client.streams[3].n_cached, (SYSTEM + 20) / PAGE * PAGE);
    client_submit(&f.client, 5, &bad);
    rig_until_all_over(&f.rig, &f.client);
    run_again(&f, 6, &r);
    assert_int_equal(f.client.streams[5].n_cached, 0);
    fixture_fini(&f);
}

static void the_prefix_cache_can_be_switched_off(void **state)
{
    int32_t prompt[SYSTEM + 20];
    struct client_request r;
    struct fixture f;
    struct err e;

    (void)state;
    fill_chat(prompt, 0, 20);
    rig_make_segments(&f.rig, &rig_roomy);
    assert_true(config_set(&f.rig.config, "prefix_cache", "off", "test", &e));
    rig_start(&f.rig);
    client_open(&f.client, f.rig.instance, 1);
    r = client_request(prompt, SYSTEM + 20, 5);
    for (uint32_t i = 0; i < 4; i++)
        client_submit(&f.client, 1 + i, &r);
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 4; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prompt_tokens), 4 * (SYSTEM + 20));
    rig_until_empty(&f.rig, &f.client);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_kv_pages_cached), 0);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* ---- what is computed ahead ---- */

/* A model that repeats itself.  The tokens of the mixed loads above are those of runs without drafts, too. */
static void drafts_save_steps_and_change_no_token(void **state)
{
    enum { N = 4, ANSWER = 300 };
    struct client_request r[N];
    struct stats *s;
    struct fixture f;
    uint64_t n_steps[2];
    int32_t prompts[N][20];

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t k = 0; k < 20; k++)
            prompts[i][k] = (int32_t)(3 + (i * 50 + k * 7) % 280);
        r[i] = client_request(prompts[i], 20, ANSWER);
        r[i].ignore_eos = true;
        r[i].min_tokens = i % 2 ? 40 : 0;
        r[i].sampling.temperature = i % 2 ? 0.5f : 0;
        r[i].sampling.seed = i;
        r[i].sampling.want_logprobs = i >= 2;
        r[i].sampling.top_logprobs = i >= 2 ? 3 : 0;
    }
    for (uint32_t with = 0; with < 2; with++) {
        fixture_init(&f, &rig_roomy);
        if (!with)
            switch_off_drafts(&f);
        fake_settings.step_us = 5000; /* rows are cheap beside it */
        for (uint32_t i = 0; i < N; i++)
            client_submit(&f.client, 1 + i, &r[i]);
        rig_until_all_over(&f.rig, &f.client);
        for (uint32_t i = 0; i < N; i++)
            rig_assert_expected(&f.client.streams[i], &r[i]);
        s = rig_stats(&f.rig);
        n_steps[with] = stat_get(s, STAT_steps);
        assert_int_equal(stat_get(s, STAT_draft_tokens) > 0, with);
        assert_int_equal(stat_get(s, STAT_generated_tokens), N * ANSWER);
        rig_until_empty(&f.rig, &f.client);
        rig_assert_clean(&f.rig);
        if (with)
            assert_true(stat_get(s, STAT_draft_tokens_accepted) > ANSWER / 2);
        fixture_fini(&f);
    }
    print_message("steps %u, with drafts %u\n", (unsigned)n_steps[0], (unsigned)n_steps[1]);
    assert_true(n_steps[1] < n_steps[0] * 9 / 10); /* of the slowest of them */
}

/* ---- what is refused ---- */

static void spoil(struct client_request *r, int what)
{
    static const int32_t outside[] = { 1, FAKE_VOCAB }, negative[] = { 1, -1 };
    static int32_t long_prompt[512];
    static Llmd__BadWord word, *words[] = { &word };

    llmd__bad_word__init(&word);
    switch (what) {
    case 0:
        r->n_prompt = 0;
        break;
    case 1:
        r->prompt = outside;
        r->n_prompt = 2;
        break;
    case 2:
        r->prompt = negative;
        r->n_prompt = 2;
        break;
    case 3:
        r->max_tokens = 0;
        break;
    case 4:
        r->min_tokens = r->max_tokens + 1;
        break;
    case 5:
        r->stop_token = FAKE_VOCAB;
        break;
    case 6:
        r->sampling.temperature = NAN;
        break;
    case 7:
        r->sampling.temperature = -0.1f;
        break;
    case 8:
        r->sampling.top_p = 1.5f;
        break;
    case 9:
        r->sampling.min_p = -1;
        break;
    case 10:
        r->sampling.repetition_penalty = INFINITY;
        break;
    case 11:
        r->sampling.repetition_penalty = -1;
        break;
    case 12:
        r->sampling.presence_penalty = NAN;
        break;
    case 13:
        r->sampling.want_logprobs = true;
        r->sampling.top_logprobs = 6;
        break;
    case 14:
        r->sampling.logprobs_mode = (Llmd__LogprobsMode)7;
        break;
    case 15:
        r->sampling.typical_p = 1e9f;
        break;
    case 16:
        r->generated = outside;
        r->n_generated = 2;
        break;
    case 17:
        r->generated = story;
        r->n_generated = 7;
        r->max_tokens = 6;
        break;
    case 18:
        r->sampling.watermark_gamma = 1.1f;
        break;
    case 19:
        r->sampling.watermark_gamma = 0.5f;
        r->sampling.watermark_delta = NAN;
        break;
    case 20:
        r->sampling.allowed_tokens = (int32_t *)(uintptr_t)outside;
        r->sampling.n_allowed_tokens = 2;
        break;
    case 21:
        r->sampling.bad_words = words; /* without a token */
        r->sampling.n_bad_words = 1;
        break;
    case 23:
        r->want_prompt_logprobs = true;
        r->prompt_top_logprobs = 6;
        break;
    case 24:
        r->pooling = LLMD__POOLING__POOL_MEAN; /* and tokens */
        break;
    case 25:
        r->pooling = (Llmd__Pooling)3;
        r->max_tokens = 0;
        break;
    case 26:
        r->pooling = LLMD__POOLING__POOL_LAST;
        r->want_prompt_logprobs = true;
        r->max_tokens = 0;
        break;
    case 22:
        word.tokens = (int32_t *)(uintptr_t)negative;
        word.n_tokens = 2;
        r->sampling.bad_words = words;
        r->sampling.n_bad_words = 1;
        break;
    default: /* too long */
        for (int i = 0; i < 512; i++)
            long_prompt[i] = 5;
        r->prompt = long_prompt;
        r->n_prompt = 512;
    }
}

static void requests_out_of_range_are_refused(void **state)
{
    enum { N = 28 };
    struct fixture f;

    (void)state;
    fixture_init(&f, &rig_roomy);
    for (int what = 0; what < N; what++) {
        struct client_request r = client_request(story, 7, 10);
        spoil(&r, what);
        client_submit(&f.client, 1 + (uint64_t)what, &r);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (int what = 0; what < N; what++) {
        const struct client_stream *s = &f.client.streams[what];
        if (!s->refused || s->text[0] == '\0')
            fail_msg("number %d was taken", what);
        assert_int_equal(s->reason, what == N - 1 ? LLMD__REFUSE_REASON__REFUSE_TOO_LONG
                                                  : LLMD__REFUSE_REASON__REFUSE_INVALID);
    }
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* The whole pool is the longest context, whatever the ledger has room for. */
static void a_sequence_larger_than_the_pool_is_refused_or_cut(void **state)
{
    struct fixture f;
    int32_t prompt[200] = { 0 };
    struct client_request fits = client_request(prompt, 150, 1000),
                          too_long = client_request(prompt, 160, 1);
    struct client_stream *a, *b;

    (void)state;
    for (int i = 0; i < 200; i++)
        prompt[i] = 3 + i;
    fits.ignore_eos = true;
    fixture_init(&f, &rig_tight); /* 40 pages of 4 */
    a = client_submit(&f.client, 1, &fits);
    b = client_submit(&f.client, 2, &too_long);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(a->finish, LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(a->n, 10);
    assert_true(b->refused);
    assert_int_equal(b->reason, LLMD__REFUSE_REASON__REFUSE_TOO_LONG);
    fixture_fini(&f);
}

static void a_full_ledger_refuses_and_takes_again_after_the_ack(void **state)
{
    struct fixture f;
    struct client_request r = endless(3);

    (void)state;
    fixture_init(&f, &rig_tight);
    f.client.no_ack = true;
    for (uint32_t i = 0; i < 41; i++)
        client_submit(&f.client, 1 + i, &r);
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(f.client.streams[i].finish, LLMD__FINISH__FINISH_LENGTH);
    assert_true(f.client.streams[40].refused);
    assert_int_equal(f.client.streams[40].reason, LLMD__REFUSE_REASON__REFUSE_FULL);
    client_ack(&f.client, &f.client.streams[17]);
    client_submit(&f.client, 50, &r);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(client_find(&f.client, 50)->finish, LLMD__FINISH__FINISH_LENGTH);
    fixture_fini(&f);
}

/* ---- what is delivered ---- */

static bool accepted_three_times(const void *arg)
{
    const struct client *c = arg;

    return c->streams[0].n_accepted == 3 && client_all_over(c);
}

static void a_submit_that_comes_twice_makes_one_sequence(void **state)
{
    struct fixture f;
    struct client_request r = endless(60);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    f.client.no_ack = true; /* the last SUBMIT may find it done, but not forgotten */
    s = client_submit(&f.client, 9, &r);
    client_submit(&f.client, 9, &r);
    while (s->n < 10)
        rig_turn(&f.rig, &f.client);
    client_submit(&f.client, 9, &r);
    rig_until(&f.rig, &f.client, accepted_three_times, &f.client);
    client_ack(&f.client, s);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_accepted), 1);
    rig_assert_expected(s, &r);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static bool first_has_ten(const void *arg)
{
    const struct client *c = arg;

    return c->streams[0].n >= 10;
}

static bool two_hellos(const void *arg)
{
    return ((const struct client *)arg)->n_hello >= 2;
}

/* The gateway dies and comes back under its number, with less than it was sent, and says so. */
static void resync_goes_on_from_what_the_gateway_holds(void **state)
{
    struct fixture f;
    struct client_request r = endless(450);
    struct client_stream *kept, *dropped, *unknown;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = 4 * SLOW_US;
    kept = client_submit(&f.client, 1, &r);
    r.sampling.temperature = 1;
    dropped = client_submit(&f.client, 2, &r);
    r.sampling.temperature = 0;
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    kept->n = 4; /* the rest never reached its disk, so to say */
    dropped->forgotten = true;
    unknown = &f.client.streams[f.client.n_streams++];
    *unknown = (struct client_stream){ .id = 3 };
    client_reconnect(&f.client, f.rig.instance);
    rig_until(&f.rig, &f.client, two_hellos, &f.client);
    while (unknown->n_unknown == 0)
        rig_turn(&f.rig, &f.client);
    unknown->forgotten = true;
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(kept, &r);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_cancelled), 1);
    fixture_fini(&f);
}

static bool one_done(const void *arg)
{
    return stat_get(rig_stats(arg), STAT_sequences_finished) == 1;
}

static void a_stream_finished_while_its_gateway_was_gone_is_kept(void **state)
{
    struct fixture f;
    struct client_request r = endless(400);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    s = client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    link_close(f.client.link);
    f.client.link = NULL;
    rig_until(&f.rig, NULL, one_done, &f.rig);
    for (int i = 0; i < 20; i++)
        rig_turn(&f.rig, NULL);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_ledger_entries_used), 1);
    assert_true(engine_wake_ns(f.rig.engine) > clock_mono_ns()); /* and it does not spin */
    client_reconnect(&f.client, f.rig.instance);
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(s, &r);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* A finish is sent again until it is acknowledged. */
static void a_finish_is_repeated_after_every_resync(void **state)
{
    struct fixture f;
    struct client_request r = endless(5);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    f.client.no_ack = true;
    s = client_submit(&f.client, 1, &r);
    for (int i = 0; i < 3; i++) {
        rig_until_all_over(&f.rig, &f.client);
        assert_int_equal(s->n, 5);
        s->finish = LLMD__FINISH__FINISH_NONE; /* a gateway that lost it */
        client_resync(&f.client);
    }
    f.client.no_ack = false;
    rig_until_all_over(&f.rig, &f.client);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* Two gateway threads: each gets its own, and one that leaves does not hold up the other. */
static void peers_do_not_disturb_each_other(void **state)
{
    struct fixture f;
    struct client other;
    struct client_request r = endless(100), q = endless(120);

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    client_open(&other, f.rig.instance, 2);
    q.sampling.temperature = 1;
    q.sampling.seed = 3;
    for (uint32_t i = 0; i < 5; i++) {
        client_submit(&f.client, 10 + i, &r);
        client_submit(&other, 20 + i, &q);
    }
    while (f.client.streams[0].n < 10 || other.streams[0].n < 10) {
        rig_turn(&f.rig, &f.client);
        client_receive(&other);
    }
    client_close(&other);
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 5; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    client_open(&other, f.rig.instance, 2); /* a new one, which knows of nothing */
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    while (stat_get(rig_stats(&f.rig), STAT_ledger_entries_used) > 0) {
        rig_turn(&f.rig, &f.client);
        client_receive(&other);
    }
    rig_assert_clean(&f.rig);
    client_close(&other);
    fixture_fini(&f);
}

/* ---- what is given up ---- */

static uint32_t below(uint64_t *at, uint32_t n)
{
    return (uint32_t)(philox_uniform(4711, (*at)++) * n);
}

struct accepted_all {
    const struct rig *rig;
    uint64_t n;
};

static bool all_accounted(const void *arg)
{
    const struct accepted_all *a = arg;
    const struct stats *s = rig_stats(a->rig);

    return stat_get(s, STAT_sequences_accepted) == a->n &&
           stat_get(s, STAT_ledger_entries_used) == 0;
}

/* Waiting, in prefill, in decode, done: wherever the cancel finds them. */
static void a_thousand_cancels_leave_nothing(void **state)
{
    enum { N = 1000 };
    struct fixture f;
    int32_t prompt[64];
    uint64_t at = 0, n_refused = 0;

    (void)state;
    fixture_init(&f, &rig_tight);
    for (uint32_t i = 0; i < N; i++) {
        Llmd__LogitBias bias, *list;
        struct client_request r = rig_mixed_request(i, prompt, &bias, &list);
        client_submit(&f.client, 1 + i, &r);
        for (uint32_t turns = below(&at, 6); turns > 0; turns--)
            rig_turn(&f.rig, &f.client);
        /* cancel one of the last ones, at whatever point it is */
        for (uint32_t k = i < 24 ? 0 : i - 24; k <= i; k++)
            if (!f.client.streams[k].forgotten && (k + 24 == i || below(&at, 12) == 0))
                client_cancel(&f.client, &f.client.streams[k]);
    }
    for (uint32_t i = 0; i < f.client.n_streams; i++)
        if (!f.client.streams[i].forgotten)
            client_cancel(&f.client, &f.client.streams[i]);
    while (rig_turn(&f.rig, &f.client), n_refused = 0, true) {
        for (uint32_t i = 0; i < N; i++)
            n_refused += f.client.streams[i].refused;
        if (all_accounted(&(struct accepted_all){ &f.rig, N - n_refused }))
            break;
    }
    rig_assert_clean(&f.rig);
    assert_true(stat_get(rig_stats(&f.rig), STAT_sequences_cancelled) > N / 2);
    assert_true(stat_get(rig_stats(&f.rig), STAT_sequences_preempted) > 0);
    print_message("accepted %u refused %u cancelled %u preempted %u\n", (unsigned)(N - n_refused),
                  (unsigned)n_refused,
                  (unsigned)stat_get(rig_stats(&f.rig), STAT_sequences_cancelled),
                  (unsigned)stat_get(rig_stats(&f.rig), STAT_sequences_preempted));
    fixture_fini(&f);
}

static void deadlines_end_streams_wherever_they_are(void **state)
{
    struct fixture f;
    struct client_request r = endless(400);
    struct client_stream *past, *soon, *none;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = 500;
    none = client_submit(&f.client, 1, &r);
    r.deadline_ns = (int64_t)(clock_mono_ns() + 60 * NS_PER_MS);
    soon = client_submit(&f.client, 2, &r);
    r.deadline_ns = 1;
    past = client_submit(&f.client, 3, &r);
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(past->finish, LLMD__FINISH__FINISH_DEADLINE);
    assert_int_equal(past->n, 0);
    assert_int_equal(soon->finish, LLMD__FINISH__FINISH_DEADLINE);
    assert_true(soon->n < 400);
    assert_int_equal(none->finish, LLMD__FINISH__FINISH_LENGTH);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_cancelled), 2);
    fixture_fini(&f);
}

static bool is_drained(const void *arg)
{
    return engine_is_drained(((const struct rig *)arg)->engine);
}

static void drain_finishes_what_runs_and_refuses_the_rest(void **state)
{
    struct fixture f;
    struct client_request r = endless(200);
    struct client_stream *running, *late;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    running = client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    engine_drain(f.rig.engine, clock_mono_ns() + 60 * NS_PER_S);
    assert_false(engine_is_drained(f.rig.engine));
    late = client_submit(&f.client, 2, &r);
    rig_until(&f.rig, &f.client, is_drained, &f.rig);
    rig_assert_expected(running, &r);
    assert_true(late->refused);
    assert_int_equal(late->reason, LLMD__REFUSE_REASON__REFUSE_DRAINING);
    assert_true(f.client.is_draining);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static void drain_ends_at_its_deadline(void **state)
{
    struct fixture f;
    struct client_request r = endless(490);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = 2000;
    s = client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    engine_drain(f.rig.engine, clock_mono_ns() + 60 * NS_PER_S);
    engine_drain(f.rig.engine, clock_mono_ns() + 20 * NS_PER_MS); /* hastened */
    rig_until(&f.rig, &f.client, is_drained, &f.rig);
    assert_int_equal(s->finish, LLMD__FINISH__FINISH_ERROR);
    assert_non_null(strstr(s->text, "shut down"));
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* A broken device may be the request's doing; a peer that is gone may be anybody's. */
static void check_failing_step(enum err_code code, enum ledger_running mark)
{
    struct fixture f;
    struct client_request r = endless(490);
    struct err e = { 0 };
    bool ok = true;

    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    fake_settings.fail = code;
    for (int i = 0; i < 3 && ok; i++)
        ok = engine_turn(f.rig.engine, &e);
    assert_false(ok);
    assert_int_equal(e.code, code);
    assert_int_equal(atomic_load(&ledger_entry(&f.rig.ledger, 0)->running), mark);
    fixture_fini(&f);
}

static void a_step_that_fails_is_reported(void **state)
{
    (void)state;
    check_failing_step(ERR_DEVICE, LEDGER_FAULTED);
    check_failing_step(ERR_PROTO, LEDGER_RUNS);
}

static void an_idle_engine_asks_for_no_turn(void **state)
{
    struct fixture f;
    struct client_request r = endless(5);

    (void)state;
    fixture_init(&f, &rig_roomy);
    client_submit(&f.client, 1, &r);
    rig_until_all_over(&f.rig, &f.client);
    rig_until_empty(&f.rig, &f.client);
    assert_true(engine_wake_ns(f.rig.engine) == UINT64_MAX);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stream_equals_its_solo_run),
        cmocka_unit_test(every_stream_equals_its_solo_run_when_pages_run_out),
        cmocka_unit_test(streams_end_for_the_right_reason),
        cmocka_unit_test(generation_continues_after_given_tokens),
        cmocka_unit_test(a_row_that_is_not_finite_ends_one_stream_only),
        cmocka_unit_test(a_prompt_that_many_begin_with_is_computed_once),
        cmocka_unit_test(a_prompt_is_found_to_its_last_common_token),
        cmocka_unit_test(sequences_of_one_request_share_their_prompt),
        cmocka_unit_test(four_choices_cost_one_prompt),
        cmocka_unit_test(embeddings_are_those_of_the_prompt_alone),
        cmocka_unit_test(an_embedding_that_is_not_finite_is_an_error),
        cmocka_unit_test(prompt_logprobs_are_whole_although_the_prompt_is_cached),
        cmocka_unit_test(an_embedding_finds_what_it_can_use),
        cmocka_unit_test(measured_prompts_let_streams_go_on),
        cmocka_unit_test(a_prompt_alone_can_be_measured),
        cmocka_unit_test(what_is_said_of_a_prompt_comes_again_to_who_has_nothing),
        cmocka_unit_test(a_measured_sequence_can_be_moved),
        cmocka_unit_test(a_prompt_that_is_not_finite_ends_with_an_error),
        cmocka_unit_test(an_answer_is_found_when_the_talk_goes_on),
        cmocka_unit_test(another_group_computes_nothing_again),
        cmocka_unit_test(a_preempted_sequence_finds_its_own_pages),
        cmocka_unit_test(pages_in_doubt_are_computed_again),
        cmocka_unit_test(the_prefix_cache_can_be_switched_off),
        cmocka_unit_test(drafts_save_steps_and_change_no_token),
        cmocka_unit_test(requests_out_of_range_are_refused),
        cmocka_unit_test(a_sequence_larger_than_the_pool_is_refused_or_cut),
        cmocka_unit_test(a_full_ledger_refuses_and_takes_again_after_the_ack),
        cmocka_unit_test(a_submit_that_comes_twice_makes_one_sequence),
        cmocka_unit_test(resync_goes_on_from_what_the_gateway_holds),
        cmocka_unit_test(a_stream_finished_while_its_gateway_was_gone_is_kept),
        cmocka_unit_test(a_finish_is_repeated_after_every_resync),
        cmocka_unit_test(peers_do_not_disturb_each_other),
        cmocka_unit_test(a_thousand_cancels_leave_nothing),
        cmocka_unit_test(deadlines_end_streams_wherever_they_are),
        cmocka_unit_test(drain_finishes_what_runs_and_refuses_the_rest),
        cmocka_unit_test(drain_ends_at_its_deadline),
        cmocka_unit_test(a_step_that_fails_is_reported),
        cmocka_unit_test(an_idle_engine_asks_for_no_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
