/* test_engine_refusals.c - what the engine does not take.  Would break in production: a number that a gateway
 * let through makes the worker fail, or a full ledger never takes again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"

static const int32_t outside[] = { 1, FAKE_VOCAB }, negative[] = { 1, -1 };

/* ---- numbers that are out of range ---- */

#define FLOAT(member, value)                                                                       \
    {                                                                                              \
#member, offsetof(Llmd__Sampling, member), value                                           \
    }

static const struct {
    const char *name;
    size_t at;
    float value;
} floats[] = {
    FLOAT(temperature, NAN),
    FLOAT(temperature, -0.1f),
    FLOAT(top_p, 1.5f),
    FLOAT(min_p, -1),
    FLOAT(repetition_penalty, -1),
    FLOAT(repetition_penalty, INFINITY),
    FLOAT(presence_penalty, NAN),
    FLOAT(typical_p, 1e9f),
    FLOAT(watermark_gamma, 1.1f),
};
enum { N_FLOATS = sizeof floats / sizeof *floats };

static void spoil_float(struct client_request *r, size_t i)
{
    memcpy((char *)&r->sampling + floats[i].at, &floats[i].value, sizeof(float));
}

/* ---- what else cannot be ---- */

static void no_prompt(struct client_request *r)
{
    r->n_prompt = 0;
}

static void prompt_outside_the_vocabulary(struct client_request *r)
{
    r->prompt = outside;
    r->n_prompt = 2;
}

static void prompt_of_negative_ids(struct client_request *r)
{
    r->prompt = negative;
    r->n_prompt = 2;
}

static void no_tokens(struct client_request *r)
{
    r->max_tokens = 0;
}

static void least_above_most(struct client_request *r)
{
    r->min_tokens = r->max_tokens + 1;
}

static void stop_token_outside(struct client_request *r)
{
    r->stop_token = FAKE_VOCAB;
}

static void generated_outside(struct client_request *r)
{
    r->generated = outside;
    r->n_generated = 2;
}

static void more_generated_than_wanted(struct client_request *r)
{
    r->generated = story;
    r->n_generated = STORY_TOKENS;
    r->max_tokens = STORY_TOKENS - 1;
}

static void too_many_logprobs(struct client_request *r)
{
    r->sampling.want_logprobs = true;
    r->sampling.top_logprobs = 6;
}

static void unknown_logprobs(struct client_request *r)
{
    r->sampling.logprobs_mode = (Llmd__LogprobsMode)7;
}

static void watermark_without_strength(struct client_request *r)
{
    r->sampling.watermark_gamma = 0.5f;
    r->sampling.watermark_delta = NAN;
}

static void allowed_token_outside(struct client_request *r)
{
    r->sampling.allowed_tokens = (int32_t *)(uintptr_t)outside;
    r->sampling.n_allowed_tokens = 2;
}

/* The request borrows the one bad word until the next call. */
static void set_bad_word(struct client_request *r, const int32_t *tokens, size_t n)
{
    static Llmd__BadWord word, *words[] = { &word };

    llmd__bad_word__init(&word);
    word.tokens = (int32_t *)(uintptr_t)tokens;
    word.n_tokens = n;
    r->sampling.bad_words = words;
    r->sampling.n_bad_words = 1;
}

static void bad_word_without_tokens(struct client_request *r)
{
    set_bad_word(r, NULL, 0);
}

static void bad_word_of_negative_ids(struct client_request *r)
{
    set_bad_word(r, negative, 2);
}

static void too_many_prompt_logprobs(struct client_request *r)
{
    r->want_prompt_logprobs = true;
    r->prompt_top_logprobs = 6;
}

static void embedding_and_tokens(struct client_request *r)
{
    r->pooling = LLMD__POOLING__POOL_MEAN;
}

static void unknown_pooling(struct client_request *r)
{
    r->pooling = (Llmd__Pooling)3;
    r->max_tokens = 0;
}

static void embedding_and_prompt_logprobs(struct client_request *r)
{
    r->pooling = LLMD__POOLING__POOL_LAST;
    r->want_prompt_logprobs = true;
    r->max_tokens = 0;
}

#define SPOILER(name)                                                                              \
    {                                                                                              \
#name, name                                                                                \
    }

static const struct {
    const char *name;
    void (*spoil)(struct client_request *);
} spoilers[] = {
    SPOILER(no_prompt),
    SPOILER(prompt_outside_the_vocabulary),
    SPOILER(prompt_of_negative_ids),
    SPOILER(no_tokens),
    SPOILER(least_above_most),
    SPOILER(stop_token_outside),
    SPOILER(generated_outside),
    SPOILER(more_generated_than_wanted),
    SPOILER(too_many_logprobs),
    SPOILER(unknown_logprobs),
    SPOILER(watermark_without_strength),
    SPOILER(allowed_token_outside),
    SPOILER(bad_word_without_tokens),
    SPOILER(bad_word_of_negative_ids),
    SPOILER(too_many_prompt_logprobs),
    SPOILER(embedding_and_tokens),
    SPOILER(unknown_pooling),
    SPOILER(embedding_and_prompt_logprobs),
};
enum { N_SPOILERS = sizeof spoilers / sizeof *spoilers };

/* ---- what is refused ---- */

static const struct client_stream *submit_and_wait(struct fixture *f, uint64_t id,
                                                   const struct client_request *r)
{
    const struct client_stream *s = client_submit(&f->client, id, r);

    rig_until_all_over(&f->rig, &f->client);
    return s;
}

static void expect_invalid(const struct client_stream *s, const char *name)
{
    if (!s->refused || s->text[0] == '\0')
        fail_msg("%s was taken", name);
    assert_int_equal(s->reason, LLMD__REFUSE_REASON__REFUSE_INVALID);
}

static void requests_out_of_range_are_refused(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, &rig_roomy);
    for (size_t i = 0; i < N_FLOATS; i++) {
        struct client_request r = client_request(story, STORY_TOKENS, 10);
        spoil_float(&r, i);
        expect_invalid(submit_and_wait(&f, 1 + i, &r), floats[i].name);
    }
    for (size_t i = 0; i < N_SPOILERS; i++) {
        struct client_request r = client_request(story, STORY_TOKENS, 10);
        spoilers[i].spoil(&r);
        expect_invalid(submit_and_wait(&f, 101 + i, &r), spoilers[i].name);
    }
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static void a_prompt_longer_than_the_context_is_refused(void **state)
{
    struct client_request r;
    const struct client_stream *s;
    int32_t prompt[512];
    struct fixture f;

    (void)state;
    for (int i = 0; i < 512; i++)
        prompt[i] = 5;
    r = client_request(prompt, 512, 10);
    fixture_init(&f, &rig_roomy);
    s = submit_and_wait(&f, 1, &r);
    assert_true(s->refused && s->text[0]);
    assert_int_equal(s->reason, LLMD__REFUSE_REASON__REFUSE_TOO_LONG);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_out_of_range_are_refused),
        cmocka_unit_test(a_prompt_longer_than_the_context_is_refused),
        cmocka_unit_test(a_sequence_larger_than_the_pool_is_refused_or_cut),
        cmocka_unit_test(a_full_ledger_refuses_and_takes_again_after_the_ack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
