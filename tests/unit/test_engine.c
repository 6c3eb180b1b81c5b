/* test_engine.c - would break in production: a token changed on its way from the model to a gateway; an
 * entry, page or pin left behind by a client that went away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "engine_fixture.h"
#include "gpu-worker/philox.h"
#include "gpu-worker/sequence.h"

/* ---- what is generated ---- */

static void check_mixed_load(const struct rig_shape *shape, uint32_t n, bool draws)
{
    struct fixture f;
    int32_t prompts[64][64];
    Llmd__LogitBias bias[64], *lists[64];
    struct client_request r[64];

    fixture_init(&f, shape);
    fake_settings.draws = draws;
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

static void every_stream_equals_its_solo_run(void **state)
{
    (void)state;
    check_mixed_load(&rig_roomy, 48, false);
}

/* Preempted and computed again in other chunks: the same tokens. */
static void every_stream_equals_its_solo_run_when_pages_run_out(void **state)
{
    (void)state;
    check_mixed_load(&rig_tight, 40, false);
}

/* The engine has no logits of every other draw, only what became of it. */
static void what_the_runtime_draws_is_what_streams_get(void **state)
{
    (void)state;
    fake_n_draws = 0;
    check_mixed_load(&rig_roomy, 24, true);
    assert_true(fake_n_draws > 0);
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

/* And the gateway that asks for them again, since the one that had them is dead, gets what their client was told. */
static void given_tokens_keep_their_log_probabilities(void **state)
{
    const struct ledger_shape shape = {
        .n_entries = 1, .tokens_max = 16, .page_tokens = 8, .top_max = 2
    };
    int32_t prompt[] = { 3, 4, 5 }, generated[] = { 7, 9 };
    Llmd__TopLogprob best = LLMD__TOP_LOGPROB__INIT, *top[] = { &best };
    Llmd__TokenLogprob first = LLMD__TOKEN_LOGPROB__INIT, second = LLMD__TOKEN_LOGPROB__INIT;
    Llmd__TokenLogprob *measures[] = { &first, &second };
    Llmd__Sampling sampling = LLMD__SAMPLING__INIT;
    Llmd__Submit submit = LLMD__SUBMIT__INIT;
    struct ledger_entry *entry;
    struct ledger l;
    struct err e;

    (void)state;
    assert_true(ledger_create(&l, &shape, 0, 1, &e));
    best.token = 8;
    best.logprob = -0.25f;
    first.logprob = -1.5f;
    first.rank = 2;
    first.n_top = 1;
    first.top = top;
    second.logprob = -3;
    second.rank = 40;
    sampling.want_logprobs = true;
    sampling.top_logprobs = 2;
    submit.sequence_id = 1;
    submit.sampling = &sampling;
    submit.prompt = prompt;
    submit.n_prompt = 3;
    submit.generated = generated;
    submit.n_generated = submit.n_generated_logprobs = 2;
    submit.generated_logprobs = measures;
    entry = ledger_entry(&l, 0);
    sequence_store(&l, entry, &submit, 1, 1);
    assert_true(ledger_logprobs(&l, entry)[3] == -1.5f && ledger_ranks(&l, entry)[3] == 2);
    assert_true(ledger_logprobs(&l, entry)[4] == -3 && ledger_ranks(&l, entry)[4] == 40);
    assert_int_equal(ledger_top(&l, entry, 3)[0].token, 8);
    assert_true(ledger_top(&l, entry, 3)[0].logprob == -0.25f);
    assert_int_equal(ledger_top(&l, entry, 3)[1].token, -1);
    assert_int_equal(ledger_top(&l, entry, 4)[0].token, -1);
    submit.n_generated_logprobs =
        0; /* of an older gateway: nothing of who had the entry before is told */
    atomic_store(&entry->state, LEDGER_FREE);
    sequence_store(&l, entry, &submit, 1, 1);
    assert_true(ledger_logprobs(&l, entry)[3] == 0 && ledger_ranks(&l, entry)[4] == 0);
    assert_int_equal(ledger_top(&l, entry, 3)[0].token, -1);
    ledger_close(&l);
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
        /* rows cost nothing beside it, and a machine that is busy makes none seem dear (step_pace.h) */
        fake_settings.step_us = 5000;
        fake_settings.is_exact = true;
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
    assert_true(n_steps[1] < n_steps[0] * 8 / 10); /* of the slowest of them */
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
static uint32_t n_reads, n_pages_read;
static bool (*host_checksums)(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums);

static bool count_checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    n_reads++;
    n_pages_read += n;
    return host_checksums(ctx, pages, n, sums);
}

/* Where pages lie on a GPU each question is a wait. */
static void a_step_asks_for_checksums_once(void **state)
{
    enum { N = 8 };
    struct fixture f;
    struct client_request r = endless(64);

    (void)state;
    fixture_init(&f, &rig_roomy);
    host_checksums = f.rig.pool.data.checksums;
    f.rig.pool.data.checksums = count_checksums;
    n_reads = n_pages_read = fake_n_forwards = 0;
    for (uint32_t i = 0; i < N; i++)
        client_submit(&f.client, 100 + i, &r);
    rig_until_all_over(&f.rig, &f.client);
    rig_until_empty(&f.rig, &f.client);
    printf("%u steps, %u questions for %u pages\n", fake_n_forwards, n_reads, n_pages_read);
    assert_true(n_pages_read >= N * (64 / PAGE));
    assert_true(n_reads <= fake_n_forwards && n_reads * 2 <= n_pages_read);
    fixture_fini(&f);
}

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

static bool second_has_one(const void *arg)
{
    const struct client_stream *s = client_find(arg, 2);

    return s && s->n > 0;
}

/* Somebody else has taken the GPU's memory: who came last is told so, the others and the worker go on. */
static void want_of_memory_ends_the_newest_and_no_other(void **state)
{
    struct fixture f;
    struct client_request r = endless(60);
    struct client_stream *first, *second, *third;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    first = client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    second = client_submit(&f.client, 2, &r);
    rig_until(&f.rig, &f.client, second_has_one, &f.client);
    fake_settings.n_short = 1;
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(second->finish, LLMD__FINISH__FINISH_ERROR);
    assert_non_null(strstr(second->text, "the GPU has no memory left"));
    rig_assert_expected(first, &r);
    third = client_submit(&f.client, 3, &r); /* alone, and it is still the newest */
    fake_settings.n_short = 1;
    rig_until_all_over(&f.rig, &f.client);
    assert_int_equal(third->finish, LLMD__FINISH__FINISH_ERROR);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
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

/* What can wait is done when nobody waits, and then the engine sleeps. */
static void an_idle_engine_lets_the_runtime_rest_first(void **state)
{
    struct fixture f;
    struct client_request r = endless(40);
    uint32_t n_turns = 0;
    struct err e = { 0 };

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    fake_settings.rests = 3;
    fake_n_rests = 0;
    for (int i = 0; i < 5; i++)
        rig_turn(&f.rig, &f.client);
    assert_int_equal(fake_n_rests, 0);
    rig_until_all_over(&f.rig, &f.client);
    while (engine_wake_ns(f.rig.engine) == 0 && n_turns++ < 100)
        assert_true(engine_turn(f.rig.engine, &e));
    assert_int_equal(fake_n_rests, 3);
    assert_true(engine_wake_ns(f.rig.engine) > clock_mono_ns());
    rig_until_empty(&f.rig, &f.client);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stream_equals_its_solo_run),
        cmocka_unit_test(every_stream_equals_its_solo_run_when_pages_run_out),
        cmocka_unit_test(what_the_runtime_draws_is_what_streams_get),
        cmocka_unit_test(streams_end_for_the_right_reason),
        cmocka_unit_test(generation_continues_after_given_tokens),
        cmocka_unit_test(given_tokens_keep_their_log_probabilities),
        cmocka_unit_test(a_row_that_is_not_finite_ends_one_stream_only),
        cmocka_unit_test(drafts_save_steps_and_change_no_token),
        cmocka_unit_test(a_step_asks_for_checksums_once),
        cmocka_unit_test(a_thousand_cancels_leave_nothing),
        cmocka_unit_test(deadlines_end_streams_wherever_they_are),
        cmocka_unit_test(drain_finishes_what_runs_and_refuses_the_rest),
        cmocka_unit_test(drain_ends_at_its_deadline),
        cmocka_unit_test(want_of_memory_ends_the_newest_and_no_other),
        cmocka_unit_test(a_step_that_fails_is_reported),
        cmocka_unit_test(an_idle_engine_asks_for_no_turn),
        cmocka_unit_test(an_idle_engine_lets_the_runtime_rest_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
